//! What recording a found block costs, beside the bare disk: the same bytes overwritten in a file
//! that is there already, and synced.
//!
//! The disk sets the time and its mood changes, so the two are also taken in turns, which the
//! medians printed first are from.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use adit::journal::{Fate, Found, Journal};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, consensus::encode};
use criterion::{Criterion, criterion_group, criterion_main};

/// How much of a file is written before starting again at its front; the journal's own figure.
const SPACE: usize = 1 << 20;
/// A block of a regtest chain without transactions.
const SMALL: usize = 250;
/// The largest block there is.
const LARGE: usize = 3_999_000;

fn main_header() -> Header {
    Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array([7; 32]),
        merkle_root: TxMerkleNode::from_byte_array([9; 32]),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 1,
    }
}

/// A block of this many bytes, in hex.
fn block_hex(bytes: usize) -> String {
    let mut block = encode::serialize(&main_header());
    block.resize(bytes, 0x5a);
    hex::encode(block)
}

/// Overwrites a file of zeros, front to back, a sync each time.
struct Bare {
    file: File,
    at: usize,
    space: usize,
}

impl Bare {
    fn new(dir: &Path, space: usize) -> Self {
        let path = dir.join("bare");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).open(path).unwrap();
        file.write_all(&vec![0; space]).unwrap();
        file.sync_all().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        Self { file, at: 0, space }
    }

    fn overwrite(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() > self.space {
            self.file.seek(SeekFrom::Start(0)).unwrap();
            self.at = 0;
        }
        self.file.write_all(bytes).unwrap();
        self.file.sync_data().unwrap();
        self.at += bytes.len();
    }
}

/// Records a block and notes its fate, as a miner does.
fn record(journal: &Journal, block_hex: &str) -> Duration {
    let header = main_header();
    let found = Found {
        network: "regtest",
        source: "http://127.0.0.1:18443",
        height: Some(100),
        header: &header,
        block_hex,
    };
    let start = Instant::now();
    let entry = journal.record(black_box(&found)).unwrap();
    journal.settle(entry, Fate::Accepted);
    start.elapsed()
}

/// What a record of this block and the fate of the one before take in the file.
fn line(block_hex: &str) -> Vec<u8> {
    vec![b'x'; block_hex.len() + 505 + 70]
}

fn in_turns(dir: &Path, name: &str, bytes: usize, times: usize) {
    let journal = Journal::open(dir).unwrap();
    let block_hex = block_hex(bytes);
    let line = line(&block_hex);
    let mut bare = Bare::new(dir, SPACE.max(line.len()));
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..times {
        let start = Instant::now();
        bare.overwrite(&line);
        taken[0].push(start.elapsed());
        taken[1].push(record(&journal, &block_hex));
    }
    let medians = taken.map(|mut times| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    });
    let ratio = medians[1].0.as_secs_f64() / medians[0].0.as_secs_f64();
    println!("{name}, in turns: bare p50, p99 {:?}", medians[0]);
    println!("{name}, in turns: record p50, p99 {:?}, p50 {ratio:.3} of bare", medians[1]);
}

fn journal(c: &mut Criterion) {
    // On the disk that the build is on: the system's directory for such things may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    in_turns(dir.path(), "regtest block", SMALL, 5000);
    in_turns(dir.path(), "largest block", LARGE, 30);

    let mut group = c.benchmark_group("journal");
    let small = block_hex(SMALL);
    let small_line = line(&small);
    group.bench_function("bare overwrite and sync, a regtest block", |b| {
        let mut bare = Bare::new(dir.path(), SPACE);
        b.iter(|| bare.overwrite(black_box(&small_line)));
    });
    group.bench_function("record and settle a regtest block", |b| {
        let journal = Journal::open(dir.path()).unwrap();
        b.iter(|| record(&journal, &small));
    });
    group.sample_size(10);
    let large = block_hex(LARGE);
    group.bench_function("record and settle the largest block", |b| {
        let journal = Journal::open(dir.path()).unwrap();
        b.iter(|| record(&journal, &large));
    });
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
