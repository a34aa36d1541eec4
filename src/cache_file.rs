//! Small files in the user's cache folder, which may be lost at any time.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// The text of a file of at most `max` bytes (of a longer one the beginning); `None` where it cannot
/// be read or is no UTF-8.
#[must_use]
pub fn read(path: &Path, max: u64) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Replaces a file whole or not at all, also where several processes do; its folder is made if it is
/// missing.
///
/// # Errors
/// When it cannot be written. The old one is there still.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = format!("{}.{:x}", std::process::id(), fastrand::u32(..));
    let draft = folder.join(format!(".{name}.{unique}"));
    let written = fs::File::create(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // There may be nothing to remove.
        let _ = fs::remove_file(&draft);
    }
    written
}
