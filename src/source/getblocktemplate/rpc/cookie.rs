//! Cookie files: the login that a node writes for users who may read its data directory.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::answer::RpcError;

/// The longest cookie file that is read, in bytes. A node writes 75.
const COOKIE_BYTES: u64 = 4096;

/// The first cookie that exists, from the file with index `from` on, and its file's index.
pub(super) fn read_first(paths: &[PathBuf], from: usize) -> Result<(usize, Vec<u8>), RpcError> {
    for (index, path) in paths.iter().enumerate().skip(from) {
        match read(path) {
            Ok(cookie) => return Ok((index, cookie)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(why) => return Err(RpcError::BadCookie { path: path.clone(), why }),
        }
    }
    Err(RpcError::NoCookie(paths.to_vec()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut cookie = Vec::new();
    std::fs::File::open(path)?.take(COOKIE_BYTES).read_to_end(&mut cookie)?;
    while cookie.last().is_some_and(u8::is_ascii_whitespace) {
        cookie.pop();
    }
    if cookie.contains(&b':') && !cookie.contains(&b'\n') {
        Ok(cookie)
    } else {
        let why = "it does not hold one line of user:password";
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}
