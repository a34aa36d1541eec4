//! What the engine does for each hit that a backend reports, and for each piece of work that it hands
//! out: hashing a candidate again by the reference implementation, cutting a unit, and a merkle root for
//! another extranonce.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use adit::chain::coinbase::Coinbase;
use adit::chain::target::Target;
use adit::chain::version::VersionMask;
use adit::engine::{NextWork, SearchSpace};
use adit::job::{Job, JobKey, MerkleRoot, TimeRange};
use adit::scan::{Candidate, WorkUnit};
use bitcoin::hashes::Hash as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A job as a full block makes it: twelve hashes from the coinbase to the root.
fn job() -> Job {
    Job {
        key: JobKey { connection: 0, number: 0 },
        version: 0x2000_0000,
        version_mask: VersionMask::BIP320,
        previous_block_hash: bitcoin::BlockHash::all_zeros(),
        height: None,
        nbits: bitcoin::CompactTarget::from_consensus(0x1d00_ffff),
        ntime: TimeRange::fixed(1_700_000_000),
        merkle_root: MerkleRoot::Rolled(Coinbase {
            prefix: vec![1; 60],
            fixed_extranonce: Vec::new(),
            extranonce_len: 8,
            suffix: vec![2; 120],
            merkle_branch: vec![[7; 32]; 12],
        }),
        share_target: Target::DIFFICULTY_1,
        network_target: Target::DIFFICULTY_1,
        clean: true,
        ends_when_solved: false,
        body: None,
        received: Instant::now(),
    }
}

fn unit(space: &mut SearchSpace, midstates: usize, nonces: u64) -> WorkUnit {
    match space.take(midstates, nonces, Instant::now()) {
        NextWork::Unit(unit) => unit,
        NextWork::Later(_) | NextWork::Exhausted => panic!("there is work"),
    }
}

fn verification(c: &mut Criterion) {
    let mut group = c.benchmark_group("verification");
    group.sample_size(30).throughput(Throughput::Elements(1));
    let mut space = SearchSpace::new(Arc::new(job()), 0);
    let unit = unit(&mut space, 16, 1 << 20);
    let target = Target::DIFFICULTY_1;
    let mut nonce = 0_u32;
    group.bench_function("a candidate hashed again and compared", |b| {
        b.iter(|| {
            nonce = nonce.wrapping_add(1);
            let candidate = Candidate { unit: black_box(&unit), midstate: 3, nonce };
            target.is_met_by(&candidate.header().block_hash())
        });
    });
    group.finish();
}

fn search_space(c: &mut Criterion) {
    let mut group = c.benchmark_group("search space");
    group.sample_size(30).throughput(Throughput::Elements(1));
    let job = Arc::new(job());
    let mut space = SearchSpace::new(job.clone(), 0);
    group.bench_function("a unit of 2^16 nonces and 16 versions", |b| {
        b.iter(|| unit(black_box(&mut space), 16, 1 << 16));
    });
    // As a new job: the root of the first extranonce, and its midstates.
    group.bench_function("a new job's first unit", |b| {
        b.iter(|| unit(&mut SearchSpace::new(black_box(&job).clone(), 0), 16, 1 << 10));
    });
    let MerkleRoot::Rolled(coinbase) = &job.merkle_root else { panic!("it is rolled") };
    let mut extranonce = 0;
    group.bench_function("a merkle root for another extranonce", |b| {
        b.iter(|| {
            extranonce += 1;
            black_box(coinbase).merkle_root(extranonce)
        });
    });
    group.finish();
}

criterion_group!(benches, verification, search_space);
criterion_main!(benches);
