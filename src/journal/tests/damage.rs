//! Files that are cut, damaged, changed or not ours.

use std::collections::BTreeSet;

use super::*;

/// A file with founds and fates, and for each of its lines where it ends and what is pending then.
pub(super) fn sample() -> (Vec<u8>, Vec<(usize, BTreeSet<u32>)>) {
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
fn open_dead(bytes: &[u8]) -> (TempDir, Journal, Vec<Warning>) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(A_NAME), bytes).unwrap();
    let journal = Journal::open_with(dir.path(), 16).unwrap();
    let warnings = journal.warnings();
    (dir, journal, warnings)
}

/// The numbers of the blocks that are pending, for whatever network.
fn pending(journal: &Journal) -> BTreeSet<u32> {
    let files = journal.lock();
    let ids: Vec<_> = files
        .adopted
        .iter()
        .flat_map(|(&file, adopted)| adopted.live().map(move |(id, _)| EntryId { file, id }))
        .collect();
    drop(files);
    ids.into_iter().map(|id| journal.read(id).unwrap().unwrap().header.nonce).collect()
}

/// What must hold of every file, however it was damaged: each block whose fate is unknown is pending,
/// or the file is kept as it was and a warning names it.
fn check_damaged(
    bytes: &[u8],
    unknown: &BTreeSet<u32>,
    what: &str,
) -> (BTreeSet<u32>, Vec<Warning>) {
    let (dir, journal, warnings) = open_dead(bytes);
    let found = pending(&journal);
    let path = dir.path().join(A_NAME);
    match &warnings[..] {
        [] => assert!(unknown.is_subset(&found), "{what}: {found:?} and no warning"),
        [Warning::Damaged(damaged)] => {
            assert_eq!((&damaged.path, damaged.blocks), (&path, found.len()), "{what}");
            assert_eq!(fs::read(&damaged.kept_as).unwrap(), bytes, "{what}");
            assert!(!path.exists(), "{what}");
            let line = warnings[0].to_string();
            assert!(line.contains(path.to_str().unwrap()) && line.contains(".journal.damaged"));
        }
        [Warning::Ignored(left)] => {
            assert_eq!(left.path, path);
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
    (found, warnings)
}

/// Every place of the last found block's line, and one in `step` of the rest.
fn places(expected: &[(usize, BTreeSet<u32>)], step: usize) -> impl Iterator<Item = usize> {
    let dense = expected[4].0..=expected[5].0;
    (0..expected[6].0).filter(move |place| dense.contains(place) || place.is_multiple_of(step))
}

/// A file of a killed process ends in the beginning of a line, which is no damage.
#[test]
fn a_file_cut_anywhere_keeps_what_is_before_the_cut() {
    let (bytes, expected) = sample();
    for cut in places(&expected, 5) {
        let before = expected.iter().rev().find(|(end, _)| *end <= cut);
        let mut zeros = bytes[..cut].to_vec();
        zeros.resize(bytes.len(), 0);
        // The second: the size was on disk, the bytes were not.
        for bytes in [&bytes[..cut], &zeros] {
            let none = BTreeSet::new();
            let unknown = before.map_or(&none, |(_, pending)| pending);
            let (found, warnings) = check_damaged(bytes, unknown, &format!("cut at {cut}"));
            if warnings.is_empty() {
                assert_eq!(&found, unknown, "at {cut}");
            }
            // Only a found block's line that lacks nothing but its check, or less, is more than torn.
            let lacks =
                expected.iter().find(|(end, _)| *end >= cut).map_or(0, |(end, _)| end - cut);
            assert!(warnings.is_empty() || lacks < 30 || before.is_none(), "{warnings:?} at {cut}");
        }
    }
}

#[test]
fn no_flipped_bit_loses_a_block_without_a_warning() {
    let (bytes, expected) = sample();
    let unknown = &expected[6].1;
    let (mut read, mut tried) = (0, 0);
    for place in places(&expected, 5) {
        // Over the places each of the eight comes in turn.
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        let (found, _) = check_damaged(&damaged, unknown, &format!("byte {place}"));
        read += usize::from(unknown.is_subset(&found));
        tried += 1;
    }
    // Where it is not the block's own digits, or the names of its fields, it can still be sent.
    assert!(read * 2 > tried, "{read} of {tried}");
}

#[test]
fn whole_bytes_and_sectors_may_be_damaged_too() {
    let (bytes, expected) = sample();
    let (end, unknown) = &expected[6];
    for place in (0..*end).step_by(6) {
        let mut damaged = bytes.clone();
        damaged[place] = [0, b'\n', b'x', 0xff, b'"'][place % 5];
        check_damaged(&damaged, unknown, &format!("byte {place}"));
    }
    for sector in (0..*end).step_by(64) {
        let mut damaged = bytes.clone();
        damaged[sector..(sector + 64).min(*end)].fill(b'?');
        let (found, _) = check_damaged(&damaged, unknown, &format!("64 bytes at {sector}"));
        // What was read is pending at the next start too, and nothing is told twice.
        let (dir, journal, _) = open_dead(&damaged);
        drop(journal);
        let next = Journal::open_with(dir.path(), 16).unwrap();
        assert_eq!(pending(&next), found);
        assert!(!next.warnings().iter().any(|warning| matches!(warning, Warning::Damaged(_))));
    }
}

#[test]
fn a_line_without_its_last_newline_is_read() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    record(&journal, 1, 3);
    let end = journal.lock().own.end() as usize;
    let bytes = fs::read(own_path(&journal)).unwrap();
    let (_dir, journal, warnings) = open_dead(&bytes[..end - 1]);
    assert_eq!(keys(&journal), [1]);
    assert!(matches!(&warnings[..], [Warning::Damaged(Damaged { blocks: 1, .. })]));
}

#[test]
fn a_damaged_head_hides_no_block() {
    let (bytes, expected) = sample();
    let damaged = [&b"X"[..], &bytes[1..]].concat();
    let (_dir, journal, warnings) = open_dead(&damaged);
    assert!(pending(&journal).is_superset(&expected[6].1));
    assert!(matches!(&warnings[..], [Warning::Damaged(_)]));
}

/// A file that is written again from the start is as good as new.
#[test]
fn an_earlier_pass_is_not_damage() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    for number in 0..40 {
        let id = record(&journal, number, 20 + number as usize * 7 % 50);
        open_copy(dir.path());
        journal.settle(id, Fate::Accepted);
        if number % 3 == 0 {
            journal.flush().unwrap();
        }
        // Warns of nothing.
        open_copy(dir.path());
    }
}

#[test]
fn lines_that_contradict_themselves_are_ignored() {
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
        let (_dir, journal, warnings) = open_dead(&file);
        assert!(warnings.is_empty());
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
fn what_is_not_a_journal_is_ignored() {
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
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.pending("regtest").is_empty());
    let warnings = journal.warnings();
    let why: Vec<_> = warnings
        .iter()
        .map(|warning| match warning {
            Warning::Ignored(left) => &left.why,
            other => panic!("{other}"),
        })
        .collect();
    assert!(matches!(
        why[..7],
        [
            WhyIgnored::NotAJournal,
            WhyIgnored::NotAJournal,
            WhyIgnored::NotAJournal,
            WhyIgnored::NotAJournal,
            WhyIgnored::NotAFile,
            WhyIgnored::TooLarge { bytes: 268_435_457 },
            WhyIgnored::OtherFormat { format: 2 },
        ]
    ));
    assert!(why[7..].iter().all(|why| matches!(why, WhyIgnored::NotAFile)));
    assert!(warnings[0].to_string().ends_with("it does not begin as a journal does"));
    journal.close().unwrap();
    assert_eq!(files(dir.path()), before);
    assert_eq!(fs::read(dir.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_file_changed_by_another_process_is_an_error() {
    let dir = TempDir::new().unwrap();
    let journal = open(dir.path());
    let id = record(&journal, 1, 0);
    fs::write(own_path(&journal), vec![b'x'; 4096]).unwrap();
    assert!(matches!(journal.read(id), Err(JournalError::Changed { .. })));
    fs::write(own_path(&journal), "").unwrap();
    assert!(matches!(journal.read(id), Err(JournalError::Io { .. })));
}
