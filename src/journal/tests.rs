use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use bitcoin::block::Version;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use bitcoin::{CompactTarget, TxMerkleNode};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A block of its own for each number: a header and `extra` more bytes.
fn block(number: u32, extra: usize) -> (Header, String) {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array([7; 32]),
        merkle_root: TxMerkleNode::from_byte_array([9; 32]),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: number,
    };
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
    let (journal, left_alone) = Journal::open_with(dir, 2048).unwrap();
    assert!(left_alone.is_empty(), "{left_alone:?}");
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
        assert_eq!(pending.height, (!number.is_multiple_of(3)).then_some(number));
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
fn a_live_processes_file_is_left_to_it() {
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
fn of_many_that_start_at_once_one_adopts() {
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
fn one_that_comes_too_late_for_a_file_does_not_read_it() {
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

/// A file with founds and fates, and for each of its lines where it ends and what is pending then.
fn sample() -> (Vec<u8>, Vec<(usize, BTreeSet<u32>)>) {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let ids: Vec<_> = (0..3).map(|number| record(&journal, number, 3)).collect();
    journal.settle(ids[1], Fate::Accepted);
    record(&journal, 3, 5);
    journal.settle(ids[0], Fate::Stale);
    journal.flush().unwrap();
    let end = journal.lock().own.end() as usize;
    let bytes = fs::read(own_path(&journal)).unwrap();
    let pending = [&[][..], &[0], &[0, 1], &[0, 1, 2], &[0, 2], &[0, 2, 3], &[2, 3]]
        .map(|numbers| numbers.iter().copied().collect::<BTreeSet<u32>>());
    let ends = (0..end).filter(|&place| bytes[place] == b'\n').map(|place| place + 1);
    let expected: Vec<_> = ends.zip(pending).collect();
    assert_eq!((expected.len(), expected[6].0), (7, end));
    (bytes, expected)
}

/// Opens a directory with this one dead file in it.
fn open_dead(bytes: &[u8]) -> (TempDir, Journal, Vec<LeftAlone>) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(A_NAME), bytes).unwrap();
    let (journal, left_alone) = Journal::open_with(dir.path(), 16).unwrap();
    (dir, journal, left_alone)
}

fn check_damaged(bytes: &[u8], intact: usize, expected: &[(usize, BTreeSet<u32>)]) {
    let (dir, journal, left_alone) = open_dead(bytes);
    let found: BTreeSet<u32> = keys(&journal).into_iter().collect();
    if let Some((_, pending)) = expected.iter().rev().find(|(end, _)| *end <= intact) {
        assert_eq!(&found, pending, "at {intact}");
        assert!(left_alone.is_empty());
        assert_eq!(dir.path().join(A_NAME).exists(), !pending.is_empty());
    } else {
        assert!(found.is_empty());
        assert!(matches!(left_alone[..], [LeftAlone { why: WhyLeft::NotAJournal, .. }]));
        assert_eq!(fs::read(dir.path().join(A_NAME)).unwrap(), bytes);
    }
}

#[test]
fn a_file_cut_anywhere_keeps_what_is_before_the_cut() {
    let (bytes, expected) = sample();
    for cut in 0..=expected[6].0 + 1 {
        check_damaged(&bytes[..cut], cut, &expected);
        // The same with zeros behind it: the size was on disk, the bytes were not.
        let mut zeros = bytes[..cut].to_vec();
        zeros.resize(bytes.len(), 0);
        check_damaged(&zeros, cut, &expected);
    }
}

#[test]
fn a_file_damaged_anywhere_keeps_what_is_before_the_damage() {
    let (bytes, expected) = sample();
    for place in 0..expected[6].0 {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        check_damaged(&damaged, place, &expected);
    }
}

#[test]
fn lines_that_lie_are_not_believed() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    record(&journal, 1, 3);
    let bytes = fs::read(own_path(&journal)).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let (header, block_hex) = block(1, 3);
    let hash = header.block_hash().to_string();
    let truth = lines[1];
    let lies = [
        truth.replace(&hash, &"0".repeat(64)),
        truth.replace(&block_hex, &block(2, 3).1),
        truth.replace(&block_hex, &block_hex[..120]),
        truth.replace(&block_hex, &block_hex[..block_hex.len() - 1]),
        truth.replace(&block_hex, &format!("{block_hex}zz")),
        truth.replace(&"07".repeat(32), &"08".repeat(32)),
        truth.replace("\"found\"", "\"something new\""),
        truth.replace("\"id\"", "\"di\""),
    ];
    for lie in lies {
        assert_ne!(lie, truth);
        // Chained as the truth would be, with a truth behind it.
        let mut file = Vec::new();
        let mut check = record::push_head(&mut file, 1);
        for line in [lie.as_str(), &truth.replace("\"id\":1", "\"id\":2")] {
            check = record::push_again(&mut file, check, line.as_bytes()).unwrap();
        }
        let (_dir, journal, left_alone) = open_dead(&file);
        assert!(left_alone.is_empty());
        assert_eq!(journal.pending("regtest"), [EntryId { file: 1, id: 2 }], "{lie}");
    }
    // The truth alone, and after it a fate of something that was never found.
    let mut file = Vec::new();
    let check = record::push_head(&mut file, 1);
    let check = record::push_again(&mut file, check, truth.as_bytes()).unwrap();
    record::push_fate(&mut file, check, 99, Fate::Accepted);
    assert_eq!(keys(&open_dead(&file).1), [1]);
}

#[test]
fn what_is_no_journal_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let named = |number: u32| dir.path().join(format!("adit-{number}-0123456789abcdef.journal"));
    let zeros = vec![0; 100_000];
    let braces = vec![b'{'; 20 << 20];
    fs::write(named(1), "garbage\n").unwrap();
    fs::write(named(2), &zeros).unwrap();
    fs::write(named(3), &braces).unwrap();
    fs::write(named(4), "").unwrap();
    fs::create_dir(named(5)).unwrap();
    fs::File::create(named(6)).unwrap().set_len(file::MAX_FILE + 1).unwrap();
    let mut head = Vec::new();
    record::push_head(&mut head, 1);
    let later = String::from_utf8(head).unwrap().replace("\"format\":1", "\"format\":2");
    let mut file = Vec::new();
    record::push_again(&mut file, record::Check::FIRST, later.as_bytes()).unwrap();
    fs::write(named(7), &file).unwrap();
    let others = ["notes.txt", "adit-1.journal", "adit-x-0123456789abcdef.journal", "x.journal"];
    for other in others {
        fs::write(dir.path().join(other), "mine").unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("notes.txt", named(8)).unwrap();
    let before = files(dir.path());
    let (journal, left_alone) = Journal::open(dir.path()).unwrap();
    assert!(journal.pending("regtest").is_empty());
    let why: Vec<_> = left_alone.iter().map(|left| &left.why).collect();
    assert!(matches!(
        why[..7],
        [
            WhyLeft::NotAJournal,
            WhyLeft::NotAJournal,
            WhyLeft::NotAJournal,
            WhyLeft::NotAJournal,
            WhyLeft::NotAFile,
            WhyLeft::TooLarge { bytes: 268_435_457 },
            WhyLeft::OtherFormat { format: 2 },
        ]
    ));
    assert!(why[7..].iter().all(|why| matches!(why, WhyLeft::NotAFile)));
    assert!(left_alone[0].to_string().ends_with("it does not begin as a journal does"));
    journal.close().unwrap();
    assert_eq!(files(dir.path()), before);
    assert_eq!(fs::read(dir.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn the_leftover_of_a_death_at_creation_is_swept() {
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
    let (journal, _) = Journal::open(dir.path()).unwrap();
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
fn what_is_no_block_is_refused_and_does_no_harm() {
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
fn errors_name_the_path_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Journal::open(&path).unwrap_err();
        let JournalError::Io { path: named, .. } = &error else { panic!("{error:?}") };
        assert_eq!(named, &path);
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(error.hint(), Some("--journal names a directory, and this is none"));
    }
    let path = file;
    for (kind, word) in [
        (std::io::ErrorKind::StorageFull, "space"),
        (std::io::ErrorKind::PermissionDenied, "may write"),
        (std::io::ErrorKind::ReadOnlyFilesystem, "may write"),
        (std::io::ErrorKind::Unsupported, "locked"),
    ] {
        let error = failed("write the journal file", &path)(kind.into());
        assert!(error.hint().unwrap().contains(word));
    }
}

#[test]
fn a_file_changed_under_us_is_an_error_and_no_block() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let id = record(&journal, 1, 0);
    fs::write(own_path(&journal), vec![b'x'; 4096]).unwrap();
    assert!(matches!(journal.read(id), Err(JournalError::Changed { .. })));
    fs::write(own_path(&journal), "").unwrap();
    assert!(matches!(journal.read(id), Err(JournalError::Io { .. })));
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

#[cfg(unix)]
#[test]
fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("a/b");
    let journal = open(&dir);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&own_path(&journal))), (0o700, 0o600));
}

#[test]
fn so_many_files_are_adopted_and_no_more() {
    let dir = TempDir::new().unwrap();
    let (bytes, _) = sample();
    for number in 0..MOST_ADOPTED + 3 {
        let name = format!("adit-{number}-0123456789abcdef.journal");
        fs::write(dir.path().join(name), &bytes).unwrap();
    }
    let (journal, left_alone) = Journal::open_with(dir.path(), 16).unwrap();
    assert_eq!(journal.pending("regtest").len(), 2 * MOST_ADOPTED);
    assert_eq!(left_alone.len(), 3);
    assert!(left_alone.iter().all(|left| matches!(left.why, WhyLeft::TooMany)));
}

#[derive(Clone, Debug)]
enum Step {
    /// Find a block with so many bytes behind its header.
    Record(usize),
    /// Learn the fate of one of the blocks that have none.
    Settle(prop::sample::Index),
    Flush,
    Crash(Crash),
    /// End cleanly and start again.
    Reopen,
}

#[derive(Clone, Debug)]
enum Crash {
    /// `kill -9`: everything written is there.
    Kill,
    /// The power fails: what was written since the last sync is lost from here on.
    Cut(prop::sample::Index),
    /// The power fails while a block is recorded: of the sectors that this changes, some are as
    /// before and some as after.
    Tear { extra: usize, sectors: Vec<bool>, cut: Option<prop::sample::Index> },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let tear = (0usize..900, prop::collection::vec(any::<bool>(), 1..8), prop::option::of(index()));
    prop_oneof![
        8 => (0usize..300).prop_map(Step::Record),
        1 => (300usize..3000).prop_map(Step::Record),
        8 => index().prop_map(Step::Settle),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash(Crash::Kill)),
        1 => index().prop_map(|index| Step::Crash(Crash::Cut(index))),
        2 => tear.prop_map(|(extra, sectors, cut)| Step::Crash(Crash::Tear { extra, sectors, cut })),
    ]
}

/// What is known of a block in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Unknown(EntryId),
    /// Its fate is known and may not be in the file.
    Settled,
    /// Its fate is in the file and may not be on disk.
    Flushed,
    /// Its fate is on disk: it may never come back.
    Gone,
}

struct Model {
    dir: TempDir,
    journal: Journal,
    blocks: BTreeMap<u32, State>,
    /// Up to where our own file is surely on disk.
    durable: u64,
    next: u32,
}

impl Model {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path());
        let durable = journal.lock().own.end();
        Self { dir, journal, blocks: BTreeMap::new(), durable, next: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record(extra) => {
                let id = record(&self.journal, self.next, extra);
                self.blocks.insert(self.next, State::Unknown(id));
                self.next += 1;
                self.durable = self.journal.lock().own.end();
            }
            Step::Settle(index) => {
                let unknown = self.unknown();
                if !unknown.is_empty() {
                    let number = *index.get(&unknown);
                    let State::Unknown(id) = self.blocks[&number] else { unreachable!() };
                    self.journal.settle(id, Fate::Accepted);
                    self.blocks.insert(number, State::Settled);
                }
            }
            Step::Flush => {
                self.journal.flush().unwrap();
                for state in self.blocks.values_mut() {
                    if *state == State::Settled {
                        *state = State::Flushed;
                    }
                }
            }
            Step::Reopen => {
                let old = std::mem::replace(&mut self.journal, open(self.dir.path()));
                old.close().unwrap();
                // One that starts before the other has ended adopts nothing; the third does.
                let left = std::mem::replace(&mut self.journal, open(self.dir.path()));
                drop(left);
                for state in self.blocks.values_mut() {
                    if matches!(state, State::Settled | State::Flushed) {
                        *state = State::Gone;
                    }
                }
                self.check();
            }
            Step::Crash(crash) => self.crash(&crash),
        }
    }

    fn unknown(&self) -> Vec<u32> {
        let unknown = self.blocks.iter().filter(|(_, state)| matches!(state, State::Unknown(_)));
        unknown.map(|(&number, _)| number).collect()
    }

    fn crash(&mut self, crash: &Crash) {
        let crashed = copy(self.dir.path());
        let own = own_path(&self.journal);
        let path = crashed.path().join(own.file_name().unwrap());
        let mut bytes = fs::read(&own).unwrap();
        let durable = self.durable as usize;
        match crash {
            Crash::Kill => {
                for state in self.blocks.values_mut() {
                    if *state == State::Flushed {
                        *state = State::Gone;
                    }
                }
            }
            Crash::Cut(index) => bytes.truncate(durable + index.index(bytes.len() - durable + 1)),
            Crash::Tear { extra, sectors, cut } => {
                record(&self.journal, self.next, *extra);
                self.blocks.insert(self.next, State::Settled);
                self.next += 1;
                // Where it went to another file, this one is as it was.
                if own_path(&self.journal) == own {
                    let after = fs::read(&own).unwrap();
                    bytes.resize(after.len().max(bytes.len()), 0);
                    let changed = bytes.chunks_mut(512).zip(after.chunks(512));
                    let changed = changed.filter(|(before, after)| before != after);
                    for ((before, after), written) in changed.zip(sectors.iter().cycle()) {
                        if *written {
                            before[..after.len()].copy_from_slice(after);
                        }
                    }
                    if let Some(index) = cut {
                        bytes.truncate(durable + index.index(bytes.len() - durable + 1));
                    }
                }
            }
        }
        fs::write(path, bytes).unwrap();
        self.journal = open(crashed.path());
        // Only now: the files' names must not be freed and taken again while the journal is open.
        self.dir = crashed;
        self.check();
    }

    /// Compares what is pending after a restart with what may and must be, and goes on from there.
    fn check(&mut self) {
        let pending = numbers(&self.journal);
        for (number, state) in &mut self.blocks {
            *state = match (*state, pending.get(number)) {
                (State::Unknown(_), None) => panic!("block {number} is lost"),
                (State::Gone, Some(_)) => panic!("block {number} came back"),
                (_, Some(&id)) => State::Unknown(id),
                (_, None) => State::Gone,
            };
        }
        assert!(pending.keys().all(|number| self.blocks.contains_key(number)));
        assert_eq!(pending.len(), self.journal.pending("regtest").len());
        self.durable = self.journal.lock().own.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_comes_back_nothing_is_invented(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
            prop_assert_eq!(model.unknown(), keys(&model.journal));
        }
        model.take(Step::Crash(Crash::Kill));
    }
}
