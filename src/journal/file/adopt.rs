//! Taking over the files of dead processes, damaged ones too.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    JournalFile, Live, MAX_FILE, Place, is_at, open_regular, read_at, read_line, share, sync_dir,
};
use crate::journal::record::{self, Check, Record};
use crate::journal::salvage::{self, Tail};
use crate::journal::{Damaged, Found, JournalError, WhyIgnored};

/// The suffix of a damaged file's name.
const DAMAGED: &str = ".damaged";
/// The first size of a file for the blocks of a damaged one, in bytes, and what it grows by: usually few
/// are pending, and nothing is found while they are written.
const RESCUE_SPACE: u64 = 1 << 12;

/// What became of a file that another process created.
#[derive(Debug)]
pub(in crate::journal) enum Adoption {
    /// Its process is dead, and blocks in it have no known fate.
    Adopted(Box<JournalFile>),
    /// Its process is dead, and there is more in it than its intact lines. The blocks of unknown fate
    /// that could be read are in a new file, if there were any.
    Damaged(Option<Box<JournalFile>>, Damaged),
    /// Its process is alive, or there was nothing in it and it has been removed.
    Nothing,
    /// It is not a journal that this adit can read.
    Ignored(WhyIgnored),
}

impl JournalFile {
    /// Takes over the file of a dead process. One in which no fate is unknown is removed.
    pub(in crate::journal) fn adopt(path: &Path) -> Adoption {
        match Self::try_adopt(path) {
            Ok(adoption) => adoption,
            // Another adit was faster.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Adoption::Nothing,
            Err(why) => Adoption::Ignored(WhyIgnored::Unreadable(why)),
        }
    }

    fn try_adopt(path: &Path) -> io::Result<Adoption> {
        // Checked before it is opened: opening a device or a pipe could do anything.
        match open_regular(path)? {
            Some(file) => Self::take_over(path, file),
            None => Ok(Adoption::Ignored(WhyIgnored::NotAFile)),
        }
    }

    /// Locks a file just opened at `path`, and reads it if it was not locked.
    pub(in crate::journal) fn take_over(path: &Path, file: File) -> io::Result<Adoption> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Adoption::Nothing),
            Err(TryLockError::Error(why)) => return Err(why),
        }
        // A file is removed only under its lock. If it is still there now, it is ours.
        if !is_at(&file, path)? {
            return Ok(Adoption::Nothing);
        }
        let len = file.metadata()?.len();
        if len > MAX_FILE {
            return Ok(Adoption::Ignored(WhyIgnored::TooLarge { bytes: len }));
        }
        let (mut file, tail) = match Self::recover(path, file, len)? {
            Ok(recovered) => recovered,
            Err(why) => return Ok(Adoption::Ignored(why)),
        };
        if tail.is_damaged {
            return file.rescue(&tail);
        }
        if file.live.is_empty() {
            fs::remove_file(path)?;
            return Ok(Adoption::Nothing);
        }
        // Fates will be written after the lines, and a torn line there must not outlast them.
        file.file.set_len(file.end.offset)?;
        file.len = file.end.offset;
        Ok(Adoption::Adopted(Box::new(file)))
    }

    /// Reads the lines up to the first that does not follow the one before it, and what comes after
    /// them.
    fn recover(path: &Path, file: File, len: u64) -> io::Result<Result<(Self, Tail), WhyIgnored>> {
        let mut reader = BufReader::with_capacity(1 << 16, &file);
        let mut line = Vec::new();
        let head = read_line(&mut reader, Check::FIRST, &mut line)?;
        let Some(check) =
            head.filter(|_| matches!(record::parse(&line), Some(Record::Journal { .. })))
        else {
            let tail = Tail::read(&file, 0, Check::FIRST)?;
            if tail.blocks.is_empty() {
                return Ok(Err(WhyIgnored::NotAJournal));
            }
            let start = Place { offset: 0, check: Check::FIRST };
            return Ok(Ok((Self::new(path.to_owned(), file, start, len), tail)));
        };
        if let Some(Record::Journal { format }) = record::parse(&line)
            && format != record::FORMAT
        {
            return Ok(Err(WhyIgnored::OtherFormat { format }));
        }
        let mut end = Place { offset: line.len() as u64, check };
        let start = end;
        let mut live: BTreeMap<u64, Live> = BTreeMap::new();
        let mut network: Arc<str> = Arc::from("");
        while let Some(check) = read_line(&mut reader, end.check, &mut line)? {
            match record::parse(&line) {
                Some(Record::Found(found)) if found.verified().is_some() => {
                    share(&mut network, &found.network);
                    let network = Arc::clone(&network);
                    live.insert(found.id, Live { offset: end.offset, bytes: line.len(), network });
                }
                Some(Record::Fate { id }) => {
                    live.remove(&id);
                }
                _ => {}
            }
            end = Place { offset: end.offset + line.len() as u64, check };
        }
        let tail = Tail::read(&file, end.offset, end.check)?;
        let live_bytes = live.values().map(|live| live.bytes as u64).sum();
        let mut file = Self::new(path.to_owned(), file, start, len);
        file.end = end;
        file.at_end = false;
        file.live = live;
        file.live_bytes = live_bytes;
        Ok(Ok((file, tail)))
    }

    /// Copies what can be read of a damaged file to a new one, and keeps the old one under another
    /// name. If the process dies in between, blocks are in both and are submitted twice, which does
    /// no harm.
    fn rescue(mut self, tail: &Tail) -> io::Result<Adoption> {
        for id in &tail.fates {
            self.live.remove(id);
        }
        let dir = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let mut new = Self::create(&dir, RESCUE_SPACE).map_err(JournalError::into_io)?;
        if let Err(why) = self.rescue_to(&mut new, tail) {
            let _ = fs::remove_file(&new.path);
            return Err(why);
        }
        let blocks = new.live.len();
        let mut name = self.path.clone().into_os_string();
        name.push(DAMAGED);
        let kept_as = PathBuf::from(name);
        if let Err(why) = fs::rename(&self.path, &kept_as) {
            // Otherwise every start would make another copy of its blocks.
            let _ = fs::remove_file(&new.path);
            return Err(why);
        }
        sync_dir(&dir)?;
        let damaged = Damaged { path: self.path, kept_as, blocks };
        if blocks > 0 {
            return Ok(Adoption::Damaged(Some(Box::new(new)), damaged));
        }
        fs::remove_file(&new.path)?;
        Ok(Adoption::Damaged(None, damaged))
    }

    fn rescue_to(&mut self, new: &mut Self, tail: &Tail) -> io::Result<()> {
        self.copy_live(new)?;
        let mut id = self.live.keys().next_back().copied().unwrap_or(0);
        let mut line = Vec::new();
        for piece in &tail.blocks {
            read_at(&mut self.file, *piece, &mut line)?;
            let Some(block) = salvage::read(&line) else { continue };
            if block.id.is_some_and(|id| tail.fates.contains(&id)) {
                continue;
            }
            id += 1;
            let found = Found {
                network: &block.network,
                source: &block.source,
                height: block.height,
                header: &block.header,
                block_hex: &block.block_hex,
            };
            new.record(id, block.time, &found, RESCUE_SPACE).map_err(JournalError::into_io)?;
        }
        Ok(())
    }
}
