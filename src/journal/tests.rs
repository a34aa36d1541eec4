mod damage;
mod directory;
mod model;

use std::collections::BTreeMap;
use std::sync::Barrier;

use bitcoin::block::Version;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use bitcoin::{CompactTarget, TxMerkleNode};
use tempfile::TempDir;

use super::*;

/// A block of its own for each number: a solved header and `extra` more bytes.
fn block(number: u32, extra: usize) -> (Header, String) {
    let mut header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array([7; 32]),
        merkle_root: TxMerkleNode::from_byte_array([9; 32]),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: number,
    };
    while header.validate_pow(header.target()).is_err() {
        header.time += 1;
    }
    let mut bytes = encode::serialize(&header);
    bytes.extend((0..extra).map(|place| (place as u32 ^ number) as u8));
    (header, hex::encode(bytes))
}

fn record(journal: &Journal, number: u32, extra: usize) -> EntryId {
    record_for(journal, "regtest", number, extra)
}

fn record_for(journal: &Journal, network: &str, number: u32, extra: usize) -> EntryId {
    let (header, block_hex) = block(number, extra);
    let found = Found {
        network,
        source: "the \"node\"\n at 🦀",
        height: (!number.is_multiple_of(3)).then_some(number),
        header: &header,
        block_hex: &block_hex,
    };
    journal.record(&found).unwrap()
}

fn open(dir: &Path) -> Journal {
    let journal = Journal::open_with(dir, 2048).unwrap();
    let warnings = journal.warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
    journal
}

/// The numbers of the blocks of unknown fate, each read back and compared.
fn numbers(journal: &Journal) -> BTreeMap<u32, EntryId> {
    let read = |id| {
        let pending = journal.read(id).unwrap().unwrap();
        let number = pending.header.nonce;
        let (header, block_hex) = block(number, pending.block_hex.len() / 2 - 80);
        assert_eq!((pending.id, pending.header, pending.hash), (id, header, header.block_hash()));
        assert_eq!(pending.block_hex, block_hex);
        assert_eq!(pending.source, "the \"node\"\n at 🦀");
        let height = (!number.is_multiple_of(3)).then_some(number);
        // One that was read from a damaged line may have none.
        assert!(pending.height.is_none() || pending.height == height);
        assert!(pending.time > 1e9);
        (number, id)
    };
    journal.pending("regtest").into_iter().map(read).collect()
}

fn keys(journal: &Journal) -> Vec<u32> {
    numbers(journal).into_keys().collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn own_path(journal: &Journal) -> PathBuf {
    journal.lock().own.path().to_owned()
}

/// What a crash leaves: the directory as it is, under another name and without the locks.
fn copy(dir: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for path in files(dir) {
        fs::write(to.path().join(path.file_name().unwrap()), fs::read(&path).unwrap()).unwrap();
    }
    to
}

const A_NAME: &str = "adit-1-0123456789abcdef.journal";

#[test]
fn a_crash_leaves_what_has_no_fate_and_a_clean_end_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let ids: Vec<_> = (0..4).map(|number| record(&journal, number, 50)).collect();
    journal.settle(ids[0], Fate::Accepted);
    journal.settle(ids[2], Fate::Rejected);
    assert_eq!(keys(&journal), [1, 3]);
    assert_eq!(journal.read(ids[0]).unwrap(), None);
    // Not written yet: they come back, and are answered as duplicates.
    assert_eq!(keys(&open(copy(dir.path()).path())), [0, 1, 2, 3]);
    journal.flush().unwrap();
    let crashed = copy(dir.path());
    let next = open(crashed.path());
    assert_eq!(files(crashed.path()).len(), 2);
    let pending = numbers(&next);
    assert_eq!(pending.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(pending.values().all(|id| id.is_adopted()));
    next.settle(pending[&1], Fate::Stale);
    next.settle(pending[&1], Fate::Accepted);
    assert_eq!(files(crashed.path()).len(), 2);
    next.settle(pending[&3], Fate::Accepted);
    assert_eq!(files(crashed.path()), [own_path(&next)]);
    next.close().unwrap();
    assert!(files(crashed.path()).is_empty());
    journal.settle(ids[1], Fate::Accepted);
    journal.settle(ids[3], Fate::Accepted);
    drop(journal);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_clean_end_with_unknown_fates_keeps_just_the_lines() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let settled = record(&journal, 1, 10);
    record(&journal, 2, 10);
    journal.settle(settled, Fate::Accepted);
    journal.close().unwrap();
    let [path] = &files(dir.path())[..] else { panic!("one file") };
    let text = fs::read_to_string(path).unwrap();
    let kinds: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["record"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["journal", "found", "found", "fate"]);
    assert_eq!(keys(&open(dir.path())), [2]);
}

#[test]
fn only_the_asked_networks_blocks_are_pending() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let other = record_for(&journal, "signet", 1, 0);
    let ours = record_for(&journal, "regtest", 2, 0);
    let other_too = record_for(&journal, "signet", 3, 0);
    assert_eq!(journal.pending("regtest"), [ours]);
    assert_eq!(journal.pending("signet"), [other, other_too]);
    assert_eq!(journal.pending("main"), []);
    let crashed = copy(dir.path());
    assert_eq!(keys(&open(crashed.path())), [2]);
}

#[test]
fn a_live_processes_file_is_not_adopted() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let id = record(&first, 1, 0);
    let second = open(dir.path());
    assert!(keys(&second).is_empty());
    record(&second, 2, 0);
    first.settle(id, Fate::Accepted);
    record(&first, 3, 0);
    drop(second);
    let third = open(dir.path());
    assert_eq!(keys(&third), [2]);
    assert_eq!(keys(&first), [3]);
}

#[test]
fn of_many_that_start_at_once_only_one_adopts() {
    for _ in 0..10 {
        let dir = TempDir::new().unwrap();
        let dead = open(dir.path());
        record(&dead, 1, 0);
        drop(dead);
        fs::write(dir.path().join(format!("{A_NAME}.new")), "").unwrap();
        let barrier = Barrier::new(8);
        let journals: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let journal = open(dir.path());
                        record(&journal, 2, 0);
                        journal
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let adopted: Vec<_> = journals.iter().filter(|one| keys(one).contains(&1)).collect();
        assert_eq!(adopted.len(), 1);
        assert_eq!(files(dir.path()).len(), 9);
        assert!(journals.iter().all(|journal| own_path(journal).exists()));
        let id = numbers(adopted[0])[&1];
        adopted[0].settle(id, Fate::Accepted);
        assert_eq!(files(dir.path()).len(), 8);
    }
}

#[test]
fn a_file_that_another_process_adopted_first_is_not_read() {
    let dir = TempDir::new().unwrap();
    let dead = open(dir.path());
    record(&dead, 1, 0);
    let path = own_path(&dead);
    drop(dead);
    // Opened before the other removes it, and locked after.
    let opened = || file::open_regular(&path).unwrap().unwrap();
    let (locked, removed, replaced) = (opened(), opened(), opened());
    let other = open(dir.path());
    assert!(matches!(JournalFile::take_over(&path, locked), Ok(Adoption::Nothing)));
    other.settle(numbers(&other)[&1], Fate::Accepted);
    assert!(matches!(JournalFile::take_over(&path, removed), Ok(Adoption::Nothing)));
    if cfg!(unix) {
        fs::write(&path, "another").unwrap();
        assert!(matches!(JournalFile::take_over(&path, replaced), Ok(Adoption::Nothing)));
    }
}

#[test]
fn lines_of_an_earlier_pass_are_dead_even_where_they_fit() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    // From the tenth on all lines have one length, so those of a pass lie where the next puts its
    // own; and no fate is written, so nothing but the chain speaks against them.
    for number in 1..10 {
        let id = record(&journal, number, 0);
        journal.settle(id, Fate::Accepted);
    }
    let mut numbers = (100..).filter(|number: &u32| !number.is_multiple_of(3));
    let mut passes = 0;
    let mut pass = Vec::new();
    let mut fill = journal.lock().own.end();
    while passes < 6 {
        let number = numbers.next().unwrap();
        if fill + 800 > 2048 {
            journal.pending("regtest").into_iter().for_each(|id| journal.settle(id, Fate::Stale));
            pass.clear();
        }
        record(&journal, number, 0);
        pass.push(number);
        let end = journal.lock().own.end();
        if end <= fill {
            passes += 1;
        }
        fill = end;
        let crashed = open_copy(dir.path());
        if passes > 0 {
            assert_eq!(keys(&crashed.1), pass);
        }
    }
}

#[test]
fn the_leftover_of_an_interrupted_creation_is_removed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(format!("{A_NAME}.new")), "{\"rec").unwrap();
    let journal = open(dir.path());
    assert_eq!(files(dir.path()), [own_path(&journal)]);
}

#[test]
fn the_directory_stays_small() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    for number in 0..600 {
        let id = record(&journal, number, 20 + number as usize % 50);
        journal.settle(id, Fate::Accepted);
        if number % 100 == 0 {
            let sizes = files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
            assert!((1..3000u64).contains(&sizes), "{sizes}");
            assert!(keys(&open(copy(dir.path()).path())).len() <= 1);
        }
    }
}

#[test]
fn blocks_of_unknown_fate_do_not_make_it_grow() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let first = record(&journal, 0, 20);
    for number in 1..600 {
        let id = record(&journal, number, 20);
        if number != 500 {
            journal.settle(id, Fate::Accepted);
        }
        let paths = files(dir.path());
        assert_eq!(paths, [own_path(&journal)]);
        assert!(paths[0].metadata().unwrap().len() < 8192);
    }
    assert_eq!(keys(&journal), [0, 500]);
    let crashed = keys(&open(copy(dir.path()).path()));
    assert!(crashed.starts_with(&[0, 500]) && crashed.len() <= 3, "{crashed:?}");
    assert_eq!(journal.pending("regtest")[0], first);
    // Many of them do make it grow, and shrink again.
    let ids: Vec<_> = (2000..2100).map(|number| record(&journal, number, 100)).collect();
    assert_eq!(keys(&open(copy(dir.path()).path())).len(), 102);
    let grown = own_path(&journal).metadata().unwrap().len();
    assert!((50_000..200_000).contains(&grown), "{grown}");
    for id in ids.into_iter().chain(journal.pending("regtest")) {
        journal.settle(id, Fate::Rejected);
    }
    for number in 3000..3100 {
        let id = record(&journal, number, 100);
        journal.settle(id, Fate::Accepted);
    }
    assert!(own_path(&journal).metadata().unwrap().len() < 3000);
}

#[test]
fn the_largest_block_fits_and_more_is_refused() {
    let dir = TempDir::new().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let small = record(&journal, 1, 10);
    let large = record(&journal, 2, 4_000_000 - 80);
    record(&journal, 3, 10);
    journal.settle(small, Fate::Accepted);
    assert_eq!(keys(&journal), [2, 3]);
    assert_eq!(keys(&open(copy(dir.path()).path())), [1, 2, 3]);
    journal.settle(large, Fate::Accepted);
    let (header, block_hex) = block(4, 9_000_000);
    let found =
        Found { network: "", source: "", height: None, header: &header, block_hex: &block_hex };
    assert!(matches!(journal.record(&found), Err(JournalError::TooLong { bytes: 18_000_000.. })));
    record(&journal, 5, 10);
    assert_eq!(keys(&journal), [3, 5]);
    assert_eq!(keys(&open(copy(dir.path()).path())), [3, 5]);
}

#[test]
fn what_is_not_a_block_is_an_error_and_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let settled = record(&journal, 1, 0);
    record(&journal, 2, 0);
    journal.settle(settled, Fate::Accepted);
    let (header, good) = block(3, 2);
    let with_quote = format!("{good}\"}}\n");
    let bad = ["", &good[..158], &good[..161], &block(4, 2).1, &with_quote, &format!("{good}gg")];
    for block_hex in bad {
        let found =
            Found { network: "regtest", source: "", height: None, header: &header, block_hex };
        assert!(matches!(journal.record(&found), Err(JournalError::NotTheBlock)), "{block_hex}");
    }
    let upper = good.to_uppercase();
    let found =
        Found { network: "regtest", source: "", height: None, header: &header, block_hex: &upper };
    journal.record(&found).unwrap();
    let next = open_copy(dir.path());
    let [two, three] = &next.1.pending("regtest")[..] else { panic!("two") };
    assert_eq!(next.1.read(*two).unwrap().unwrap().header.nonce, 2);
    assert_eq!(next.1.read(*three).unwrap().unwrap().block_hex, upper);
}

fn open_copy(dir: &Path) -> (TempDir, Journal) {
    let crashed = copy(dir);
    let journal = open(crashed.path());
    (crashed, journal)
}

#[test]
fn a_panic_elsewhere_does_not_stop_it() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let panicked = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let _guard = journal.lock();
                std::panic::resume_unwind(Box::new("on purpose"));
            })
            .join()
    });
    assert!(panicked.is_err() && journal.files.is_poisoned());
    let id = record(&journal, 1, 0);
    journal.settle(id, Fate::Accepted);
    journal.flush().unwrap();
    journal.close().unwrap();
    assert!(files(dir.path()).is_empty());
}

#[test]
fn threads_share_it() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..50 {
                    let id = record(journal, 1000 * thread + number, 30);
                    if number % 10 != 0 {
                        journal.settle(id, Fate::Accepted);
                    }
                }
            });
        }
    });
    assert_eq!(keys(&journal).len(), 20);
    journal.flush().unwrap();
    assert_eq!(keys(&open_copy(dir.path()).1), keys(&journal));
}

#[test]
fn no_more_than_the_limit_of_files_are_adopted() {
    let dir = TempDir::new().unwrap();
    let (bytes, _) = damage::sample();
    for number in 0..MAX_ADOPTED + 3 {
        let name = format!("adit-{number}-0123456789abcdef.journal");
        fs::write(dir.path().join(name), &bytes).unwrap();
    }
    let journal = Journal::open_with(dir.path(), 16).unwrap();
    assert_eq!(journal.pending("regtest").len(), 2 * MAX_ADOPTED);
    let warnings = journal.warnings();
    assert_eq!(warnings.len(), 3);
    let too_many = |warning: &Warning| {
        matches!(warning, Warning::Ignored(Ignored { why: WhyIgnored::TooMany, .. }))
    };
    assert!(warnings.iter().all(too_many));
}
