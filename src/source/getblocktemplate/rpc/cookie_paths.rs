//! Where cookie files are looked for, as messages name it.

use std::path::{Path, PathBuf};

/// Paths as a list, for a message.
pub(super) fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Says which directory is missing if none of these cookie files has one, to follow another
/// message: then no node has ever run with such a data directory. Empty if one of them has its
/// directory.
pub(super) fn missing_folder(cookies: &[PathBuf]) -> String {
    let mut missing = cookies
        .iter()
        .map(|cookie| cookie.ancestors().skip(1).take_while(|folder| !folder.is_dir()).last());
    // A path of one component is relative to the current directory, which exists.
    let named = |folder: &&Path| !folder.as_os_str().is_empty();
    match missing.next().flatten().filter(named) {
        Some(first) if missing.all(|folder| folder.as_ref().is_some_and(named)) => {
            format!(" (there is no directory {})", first.display())
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_missing_directory_is_named() {
        let home = tempfile::tempdir().unwrap();
        let cookies = [home.path().join("data/regtest/.cookie"), home.path().join("data/.cookie")];
        let data = home.path().join("data");
        assert_eq!(
            missing_folder(&cookies),
            format!(" (there is no directory {})", data.display())
        );
        std::fs::create_dir(&data).unwrap();
        let regtest = data.join("regtest");
        assert_eq!(
            missing_folder(&cookies[..1]),
            format!(" (there is no directory {})", regtest.display())
        );
        assert_eq!(missing_folder(&cookies), "", "one of them has its directory");
        assert_eq!(missing_folder(&[".cookie".into()]), "");
        assert_eq!(missing_folder(&[]), "");
    }
}
