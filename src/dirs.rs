//! The user's directories.

use std::path::PathBuf;

use etcetera::BaseStrategy as _;

/// Where a program may keep its state between runs on this user's behalf.
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("adit"))
}

/// Where a program may keep what it can make again, on this user's behalf.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.cache_dir().join("adit"))
}
