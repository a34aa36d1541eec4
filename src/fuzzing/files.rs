//! Files that people, other programs, or another adit have written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::Network;
use bitcoin::block::Header;
use bitcoin::hashes::{HashEngine as _, siphash24};
use serde::Deserialize;

use super::assert_shown_well;
use crate::bench::Saved;
use crate::bench::compare::{Comparison, Machines};
use crate::chain::params::Params;
use crate::config::{Grammar, NotRun, ProcessEnvironment, invocation_by};
use crate::exit::Exit;
use crate::journal;
use crate::source::getblocktemplate::conf::{self, Conf};

/// A node's `bitcoin.conf`.
///
/// What is found stands in the line that is named, and is one word of it without spaces around.
pub fn bitcoin_conf(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut conf = Conf::default();
    conf.add(&text, conf::NAME);
    for network in [Network::Bitcoin, Network::Testnet4, Network::Signet, Network::Regtest] {
        for key in ["rpcport", "rpcuser", "rpcpassword", "rpccookiefile", "datadir", "rpcbind"] {
            let Some((value, place)) = conf.get(key, Params::of(network)) else { continue };
            assert!(!value.is_empty() && value.trim() == value, "{value:?}");
            let number: usize = place
                .strip_prefix(conf::NAME)
                .and_then(|rest| rest.strip_prefix(':'))
                .and_then(|number| number.parse().ok())
                .expect("a place is a file and a line");
            let line = text.lines().nth(number - 1).expect("there is such a line");
            let (before, after) = line.split_once('=').expect("a setting has a value");
            assert!(before.contains(key) && after.contains(value), "{line:?}: {key} {value:?}");
        }
    }
}

/// An `adit.toml`.
///
/// It is taken, or refused as a usage error in a line and a hint.
pub fn adit_toml(input: &[u8]) {
    let folder = Scratch::new();
    let file = folder.0.join("adit.toml");
    fs::write(&file, input).expect("a scratch folder can be written to");
    let environment = ProcessEnvironment { variable: &|_| None, default_file: Some(file) };
    let command = ["adit", "mine", "regtest"].map(OsString::from);
    thread_local! {
        static GRAMMAR: Grammar = Grammar::new();
    }
    match GRAMMAR.with(|grammar| invocation_by(grammar, command, &environment)) {
        Ok(_) => {}
        Err(NotRun::Failure(failure)) => {
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.render().lines().count() <= 2, "{}", failure.render());
        }
        Err(NotRun::Display(text)) => panic!("a file asks for help: {text}"),
    }
}

/// A run that `adit bench --json` has saved.
///
/// What is taken can be compared with itself, and is told apart nowhere.
pub fn saved_bench(input: &[u8]) {
    match Saved::parse(input) {
        Ok(saved) => {
            for row in &saved.rows {
                assert!(!row.slices.is_empty());
                assert!(row.slices.iter().all(|s| s.hashes > 0 && s.seconds > 0.0));
            }
            let compared = Comparison::of(&saved.rows, &saved.rows, Machines::Same);
            // Rows that claim to be of the same thing are not the same row.
            let rows = saved.rows.iter().enumerate();
            let twice = rows.clone().any(|(n, row)| saved.rows[..n].iter().any(|r| r.matches(row)));
            assert!(twice || !compared.differs(), "a run differs from itself");
        }
        Err(error) => assert_shown_well(&error),
    }
}

/// A journal file that a dead process has left, as it is and with the checks of its lines made right
/// (no mutation does so).
///
/// A block without a fate, wherever its line stands, is pending, or the file that holds it is kept;
/// where no answer comes, the next start finds the same.
pub fn journal(input: &[u8]) {
    recovered(input);
    let right = with_checks(input);
    if right != input {
        recovered(&right);
    }
}

fn recovered(file: &[u8]) {
    let folder = Scratch::new();
    let path = folder.0.join("adit-1-0123456789abcdef.journal");
    fs::write(&path, file).expect("a scratch folder can be written to");
    let owed = owed(file);
    for start in ["the first start", "the next start"] {
        let pending = journal::recover(&folder.0).expect("a journal can be opened");
        for (id, block) in &owed {
            let is_safe = pending.contains(block) || is_kept(&folder.0, file);
            assert!(is_safe, "{start}: block {id} is lost");
        }
        if owed.is_empty() {
            return;
        }
    }
}

/// Whether what stood in the file stands in one of the folder's still, zeros at the end apart.
fn is_kept(folder: &Path, file: &[u8]) -> bool {
    let bare = |bytes: &[u8]| {
        let zeros = bytes.iter().rev().take_while(|b| **b == 0).count();
        bytes[..bytes.len() - zeros].to_vec()
    };
    fs::read_dir(folder)
        .expect("a scratch folder can be read")
        .filter_map(|entry| fs::read(entry.ok()?.path()).ok())
        .any(|kept| bare(&kept) == bare(file))
}

/// A line of a journal, as its format is described.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record {
    Journal {
        format: u32,
    },
    Found {
        id: u64,
        #[allow(dead_code, reason = "it must be there and a number")]
        time: f64,
        network: String,
        #[allow(dead_code, reason = "it must be there and a text")]
        source: String,
        #[allow(dead_code, reason = "it must be a height where it is there")]
        height: Option<u32>,
        hash: String,
        previous_block_hash: String,
        header: String,
        block: String,
    },
    Fate {
        id: u64,
    },
    #[serde(other)]
    Other,
}

type Owed = BTreeMap<u64, (String, bitcoin::BlockHash)>;

/// The blocks without a fate: in the lines up to the first whose check is not right, whatever their
/// proof of work; and behind those the ones that have one.
fn owed(file: &[u8]) -> Owed {
    let mut owed = Owed::new();
    let mut before = Some(0);
    for (index, line) in file.split_inclusive(|b| *b == b'\n').enumerate() {
        before = before.and_then(|before| checked(before, line));
        match serde_json::from_slice(line) {
            Ok(Record::Journal { format: 1 }) if index == 0 => {}
            // A file that begins otherwise may be left alone.
            _ if index == 0 => break,
            Ok(Record::Found { id, network, hash, previous_block_hash, header, block, .. }) => {
                let Ok(hash) = hash.parse() else { continue };
                let sound = bitcoin::consensus::encode::deserialize_hex::<Header>(&header)
                    .is_ok_and(|header| {
                        header.block_hash() == hash
                            && previous_block_hash.parse() == Ok(header.prev_blockhash)
                            && (before.is_some() || header.validate_pow(header.target()).is_ok())
                    })
                    && block.get(..160).is_some_and(|start| start.eq_ignore_ascii_case(&header))
                    && hex::decode(&block).is_ok();
                if sound {
                    owed.insert(id, (network, hash));
                }
            }
            Ok(Record::Fate { id }) => {
                owed.remove(&id);
            }
            _ => {}
        }
    }
    owed
}

const BEFORE_CHECK: &[u8] = br#","check":""#;
/// From the end of what is checked to the end of the line.
const ENDING: usize = BEFORE_CHECK.len() + 16 + b"\"}\n".len();

fn check_of(before: u64, body: &[u8]) -> u64 {
    let mut engine = siphash24::HashEngine::with_keys(before, 0x6164_6974_206a_6e6c);
    engine.input(body);
    siphash24::Hash::from_engine_to_u64(engine)
}

fn ending(check: u64) -> Vec<u8> {
    [BEFORE_CHECK, format!("{check:016x}\"}}\n").as_bytes()].concat()
}

/// The check of a line that is whole and has the right one.
fn checked(before: u64, line: &[u8]) -> Option<u64> {
    let (body, end) = line.split_at_checked(line.len().checked_sub(ENDING)?)?;
    let check = check_of(before, body);
    (body.starts_with(b"{") && end == ending(check)).then_some(check)
}

/// The file with the right check in each line that has one.
fn with_checks(file: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(file.len());
    let mut before = 0;
    for line in file.split_inclusive(|b| *b == b'\n') {
        let Some((body, end)) = line.len().checked_sub(ENDING).map(|at| line.split_at(at)) else {
            all.extend_from_slice(line);
            continue;
        };
        if !end.starts_with(BEFORE_CHECK) {
            all.extend_from_slice(line);
            continue;
        }
        before = check_of(before, body);
        all.extend_from_slice(body);
        all.extend(ending(before));
    }
    all
}

/// A folder that is empty again when this is dropped: in memory where there is such a place, and one
/// for each thread, which costs less than a new one for each input.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        thread_local! {
            static FOLDER: Folder = Folder::new();
        }
        Self(FOLDER.with(|folder| folder.0.clone()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays would fail the next input.
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("adit-fuzz-{}-{count}", std::process::id()));
        fs::create_dir(&folder).expect("a scratch folder can be made");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
