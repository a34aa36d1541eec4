//! Found blocks on disk before they are submitted.
//!
//! A block is worth more than the connection it is submitted over. [`Journal::record`] returns when
//! the block is on disk, and only then is its first byte sent; [`Journal::settle`] notes the node's
//! answer. A block without an answer, because the node or adit died, is submitted again:
//! [`Journal::pending`] lists it. Losing a fate only means that a block is submitted twice, which
//! the node answers with `duplicate`.
//!
//! # Files
//! Each process writes one file of its own, `adit-<process>-<nonce>.journal`, and holds its lock
//! while it runs, so that several may share a directory. A file whose lock is free belongs to a dead
//! process: the next adit to start adopts it, and removes it when the last fate in it is known. A
//! process that ends with all fates known leaves no file behind.
//!
//! # Format
//! JSON lines, readable by users too: the `block` of a `found` line can be given to
//! `bitcoin-cli submitblock` by hand.
//!
//! ```json
//! {"record":"journal","format":1,"process":4711,"check":"…"}
//! {"record":"found","id":1,"time":1790000000.250000,"network":"regtest","source":"…","height":7|null,
//!  "hash":"…","previous_block_hash":"…","header":"…","block":"…","check":"…"}        (on one line)
//! {"record":"fate","id":1,"fate":"accepted"|"rejected"|"stale","check":"…"}
//! ```
//!
//! `check` is the SipHash-2-4 of the line's bytes before `,"check"`, keyed with the check of the
//! line before (0 for the first line) and the number 0x61646974206a6e6c. The live lines are those
//! from the start of the file that form an unbroken chain. Zeros or the beginning of a line may
//! follow, and mean nothing. Anything else there is damage: blocks that can be read from it, and
//! whose headers have their proof of work, are copied to a new file and are pending (the node
//! judges them), and the damaged file is kept as `….journal.damaged`, which adit never touches
//! again.
//!
//! The file is created full of zeros and written from the start, since a disk syncs fastest what
//! overwrites existing bytes: one write and one sync a block; fates are written with the next
//! block. When the space runs out and every fate is known, everything after the first line is cut
//! off and writing starts again there. When some are unknown, these are copied to a new file, or
//! the file grows.

mod error;
mod file;
mod record;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bitcoin::BlockHash;
use bitcoin::block::Header;

pub use self::error::{Damaged, Ignored, JournalError, Warning, WhyIgnored};
use self::file::{Adoption, FileName, JournalFile, failed};
use self::record::Record;
use crate::job::Verdict;

/// A found block, as it is about to be submitted.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The name of its chain, which [`Journal::pending`] takes.
    pub network: &'a str,
    /// The name of the source it is submitted to, without secrets.
    pub source: &'a str,
    /// Its height, where that is known.
    pub height: Option<u32>,
    /// Its header. The block's hash and the one before it are taken from here.
    pub header: &'a Header,
    /// The whole block in hex, lower or upper case.
    pub block_hex: &'a str,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The source accepted it.
    Accepted,
    /// The source rejected it.
    Rejected,
    /// It was valid, but too late.
    Stale,
}

impl Fate {
    /// The fate that a verdict means; `None` if that stays unknown.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Accepted => Some(Self::Accepted),
            Verdict::Rejected(_) => Some(Self::Rejected),
            Verdict::Stale(_) => Some(Self::Stale),
            Verdict::Unknown(_) => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Stale => "stale",
        }
    }
}

/// Identifies a recorded block while this journal is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// 0 for this process's file, from 1 for adopted ones, which are older.
    file: u32,
    /// The id in that file.
    id: u64,
}

impl EntryId {
    /// Whether it was recorded by an earlier process, not by this one.
    #[must_use]
    pub const fn is_adopted(self) -> bool {
        self.file != 0
    }
}

/// A recorded block whose fate is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its id, to settle it with.
    pub id: EntryId,
    /// When it was recorded, in seconds since 1970.
    pub time: f64,
    /// The chain it is for.
    pub network: String,
    /// The name of the source it was to be submitted to.
    pub source: String,
    /// Its height, where that was known.
    pub height: Option<u32>,
    /// Its hash.
    pub hash: BlockHash,
    /// Its header.
    pub header: Header,
    /// The whole block in hex.
    pub block_hex: String,
}

/// The found blocks on disk: one file of this process and those of dead ones that it adopted.
///
/// Dropping it does what [`Journal::close`] does; errors and remaining warnings go to the log.
#[derive(Debug)]
pub struct Journal {
    /// The least size of a file, and by how much it grows, in bytes.
    space: u64,
    files: Mutex<Files>,
    closed: bool,
}

#[derive(Debug)]
struct Files {
    own: JournalFile,
    last_id: u64,
    adopted: BTreeMap<u32, JournalFile>,
    /// Warnings that were not returned yet.
    warnings: Vec<Warning>,
}

/// Space for some two thousand blocks of a regtest chain, which takes little time to write at the
/// start.
const SPACE: u64 = 1 << 20;
/// The most files that are adopted: each of them stays open.
const MAX_ADOPTED: usize = 64;

impl Journal {
    /// Opens the journal in `dir`, which is created if it does not exist (for this user only).
    /// [`Journal::warnings`] has what the user should know of it afterwards.
    ///
    /// # Errors
    /// When the directory cannot be created, listed or written to, or the disk is full.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        Self::open_with(dir, SPACE)
    }

    pub(crate) fn open_with(dir: &Path, space: u64) -> Result<Self, JournalError> {
        create_dir(dir)?;
        let mut warnings = Vec::new();
        warnings.extend(others_may_write(dir)?);
        let adopted = adopt_all(dir, &mut warnings)?;
        let own = JournalFile::create(dir, space)?;
        let files = Files { own, last_id: 0, adopted, warnings };
        Ok(Self { space, files: Mutex::new(files), closed: false })
    }

    /// What the user should know, and an earlier call has not returned: files that were damaged or
    /// ignored, a directory that others may write to, or one that was removed since it was opened.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut self.lock().warnings)
    }

    /// Writes a found block to disk; it is there when this returns. Takes about as long as the disk
    /// needs for one sync.
    ///
    /// # Errors
    /// When the disk is full or fails, or when `found` is not a block. The block may be submitted all
    /// the same; it is just not safe from a crash.
    pub fn record(&self, found: &Found<'_>) -> Result<EntryId, JournalError> {
        let mut files = self.lock();
        files.restore(self.space)?;
        let id = files.last_id + 1;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        files.own.record(id, since_1970.unwrap_or(Duration::ZERO), found, self.space)?;
        files.last_id = id;
        Ok(EntryId { file: 0, id })
    }

    /// Notes a block's fate. It is written with the next block recorded, by [`Journal::flush`] or at
    /// the end, whichever comes first. An entry whose fate is known already does not change. An
    /// adopted file is removed with the last fate in it.
    pub fn settle(&self, entry: EntryId, fate: Fate) {
        let mut files = self.lock();
        let Some(file) = files.file(entry.file) else { return };
        file.settle(entry.id, fate);
        // If it cannot be removed, its fates are written by the next flush instead.
        if entry.is_adopted() && file.is_settled() && file.remove().is_ok() {
            files.adopted.remove(&entry.file);
        }
    }

    /// Writes the fates noted, without waiting for the disk: to be called about a second after the
    /// last block, and cheap if there is nothing to write.
    ///
    /// # Errors
    /// When a file cannot be written to. The fates are kept for the next try.
    pub fn flush(&self) -> Result<(), JournalError> {
        let mut files = self.lock();
        files.all().map(JournalFile::flush).fold(Ok(()), Result::and)
    }

    /// The blocks for this network whose fate is unknown: those of dead processes first, then this
    /// process's own (with those that are being submitted right now), each in the order recorded.
    #[must_use]
    pub fn pending(&self, network: &str) -> Vec<EntryId> {
        let files = self.lock();
        let adopted = files.adopted.iter().map(|(&number, file)| (number, file));
        adopted
            .chain(std::iter::once((0, &files.own)))
            .flat_map(|(number, file)| file.live().map(move |(id, of)| (number, id, of)))
            .filter(|&(_, _, of)| of == network)
            .map(|(file, id, _)| EntryId { file, id })
            .collect()
    }

    /// Reads a block of unknown fate back from disk; `None` if its fate is known by now.
    ///
    /// # Errors
    /// When it cannot be read, or is no longer there.
    pub fn read(&self, entry: EntryId) -> Result<Option<Pending>, JournalError> {
        let mut files = self.lock();
        let Some(file) = files.file(entry.file) else { return Ok(None) };
        let Some(line) = file.line(entry.id)? else { return Ok(None) };
        let changed = || JournalError::Changed { path: file.path().to_owned() };
        let Some(Record::Found(found)) = record::parse(&line) else { return Err(changed()) };
        let Some((header, hash)) = found.verified().filter(|_| found.id == entry.id) else {
            return Err(changed());
        };
        Ok(Some(Pending {
            id: entry,
            time: found.time,
            network: found.network.into_owned(),
            source: found.source.into_owned(),
            height: found.height,
            hash,
            header,
            block_hex: found.block.into_owned(),
        }))
    }

    /// Closes the journal: files in which every fate is known are removed, and the others are left to
    /// the next adit to start.
    ///
    /// # Errors
    /// When a file cannot be removed or written to.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.closed = true;
        self.lock().finish(self.space)
    }

    /// A poisoned lock is used on: every change is made after its write, so a panic leaves no half
    /// of one.
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.closed {
            let mut files = self.lock();
            if let Err(error) = files.finish(self.space) {
                tracing::warn!("{error}");
            }
            for warning in &files.warnings {
                tracing::warn!("{warning}");
            }
        }
    }
}

impl Files {
    fn file(&mut self, number: u32) -> Option<&mut JournalFile> {
        if number == 0 { Some(&mut self.own) } else { self.adopted.get_mut(&number) }
    }

    /// Creates the files again if they were removed: this process's own and those with pending
    /// blocks.
    fn restore(&mut self, space: u64) -> Result<(), JournalError> {
        let mut removed = self.own.restore(space)?;
        for file in self.adopted.values_mut().filter(|file| !file.is_settled()) {
            removed |= file.restore(space)?;
        }
        if removed {
            let dir = self.own.path().parent().unwrap_or(Path::new(".")).to_owned();
            self.warnings.push(Warning::Removed { dir });
        }
        Ok(())
    }

    fn finish(&mut self, space: u64) -> Result<(), JournalError> {
        if !self.all().all(|file| file.is_settled()) {
            self.restore(space)?;
        }
        self.all().map(JournalFile::finish).fold(Ok(()), Result::and)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut JournalFile> {
        std::iter::once(&mut self.own).chain(self.adopted.values_mut())
    }
}

/// Creates `dir` and its missing parents; they are on disk when it returns.
fn create_dir(dir: &Path) -> Result<(), JournalError> {
    let missing: Vec<PathBuf> =
        dir.ancestors().take_while(|dir| !dir.exists()).map(Path::to_owned).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(failed("create the journal directory", dir))?;
    for parent in missing.iter().filter_map(|dir| dir.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        file::sync_dir(parent).map_err(failed("write the directory", parent))?;
    }
    Ok(())
}

/// Whether other users may write to the directory.
fn others_may_write(dir: &Path) -> Result<Option<Warning>, JournalError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(dir).map_err(failed("look at the journal directory", dir))?;
        let mode = metadata.permissions().mode() & 0o777;
        let warning = || Warning::OthersMayWrite { dir: dir.to_owned(), mode };
        Ok((mode & 0o022 != 0).then(warning))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        Ok(None)
    }
}

/// Only what an adit does at its start with the files of dead processes: the blocks without a fate,
/// each with its network.
#[cfg(any(debug_assertions, fuzzing))]
pub(crate) fn recover(dir: &Path) -> Result<Vec<(String, BlockHash)>, JournalError> {
    let mut files = adopt_all(dir, &mut Vec::new())?;
    let mut blocks = Vec::new();
    for file in files.values_mut() {
        let ids: Vec<u64> = file.live().map(|(id, _)| id).collect();
        for id in ids {
            let line = file.line(id)?.unwrap_or_default();
            if let Some(Record::Found(found)) = record::parse(&line)
                && let Some((_, hash)) = found.verified()
            {
                blocks.push((found.network.into_owned(), hash));
            }
        }
    }
    Ok(blocks)
}

/// Adopts the files of dead processes.
fn adopt_all(
    dir: &Path,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<u32, JournalFile>, JournalError> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut paths = list().map_err(failed("list the journal directory", dir))?;
    paths.sort();
    let mut adopted = BTreeMap::new();
    let mut number = 0;
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        match FileName::of(name) {
            FileName::Other => {}
            FileName::New => JournalFile::sweep(&path),
            FileName::Journal if adopted.len() == MAX_ADOPTED => {
                warnings.push(Warning::Ignored(Ignored { path, why: WhyIgnored::TooMany }));
            }
            FileName::Journal => {
                let file = match JournalFile::adopt(&path) {
                    Adoption::Adopted(file) => Some(file),
                    Adoption::Damaged(file, damaged) => {
                        warnings.push(Warning::Damaged(damaged));
                        file
                    }
                    Adoption::Nothing => None,
                    Adoption::Ignored(why) => {
                        warnings.push(Warning::Ignored(Ignored { path, why }));
                        None
                    }
                };
                if let Some(file) = file {
                    number += 1;
                    adopted.insert(number, *file);
                }
            }
        }
    }
    Ok(adopted)
}
