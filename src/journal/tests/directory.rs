//! The directory that the files are in.

use super::*;

#[cfg(unix)]
#[test]
fn other_users_cannot_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("a/b");
    let journal = open(&dir);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&own_path(&journal))), (0o700, 0o600));
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
        assert_eq!(error.hint(), Some("--journal takes a directory, and this is not one"));
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

/// The journal goes on in a directory that was removed while it was open.
#[test]
fn a_directory_that_is_removed_is_made_again() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("a/b");
    let journal = open(&dir);
    record(&journal, 1, 10);
    let settled = record(&journal, 2, 10);
    journal.settle(settled, Fate::Accepted);
    fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    record(&journal, 3, 10);
    let warnings = journal.warnings();
    assert!(matches!(&warnings[..], [Warning::Removed { dir: named }] if *named == dir));
    assert_eq!(keys(&journal), [1, 3]);
    assert_eq!(keys(&open_copy(&dir).1), [1, 3]);
    // Also where no other block comes.
    fs::remove_dir_all(&dir).unwrap();
    journal.close().unwrap();
    assert_eq!(keys(&open(&dir)), [1, 3]);
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_may_write_to_draws_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    for (mode, warns) in [(0o700, false), (0o755, false), (0o775, true), (0o777, true)] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let warnings = Journal::open(dir.path()).unwrap().warnings();
        let told =
            matches!(&warnings[..], [Warning::OthersMayWrite { mode: told, .. }] if *told == mode);
        assert_eq!((told, warnings.len()), (warns, usize::from(warns)), "{mode:o}");
    }
}
