//! One journal file: created or adopted, written in place, and locked while it is open.

mod adopt;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(super) use self::adopt::Adoption;
use super::record::{self, Check};
use super::salvage::Piece;
use super::{Fate, Found, JournalError, create_dir};

/// The largest file that is written or read, in bytes.
pub(super) const MAX_FILE: u64 = 256 << 20;
const SUFFIX: &str = ".journal";
/// The suffix of a file's name until it is locked and has its first line.
const NEW: &str = ".new";

/// An offset in the file, and the check of the line that ends there.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    check: Check,
}

/// Where a found block of unknown fate is in the file.
#[derive(Debug)]
struct Live {
    offset: u64,
    bytes: usize,
    network: Arc<str>,
}

impl Live {
    const fn piece(&self) -> Piece {
        Piece { offset: self.offset, bytes: self.bytes }
    }
}

/// A journal file that this process holds the lock of.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    /// The end of the first line, where records begin.
    start: Place,
    /// The end of the last live line. Zeros or a torn line follow.
    end: Place,
    /// The size of the file, all of it allocated.
    len: u64,
    /// Whether the file's cursor is at `end`, so that a record needs no seek.
    at_end: bool,
    /// The found blocks of unknown fate.
    live: BTreeMap<u64, Live>,
    live_bytes: u64,
    /// Fates that are known and not yet written.
    fates: Vec<(u64, Fate)>,
    /// The last record's network: most entries share it.
    network: Arc<str>,
    /// The lines being written; kept for its allocation.
    lines: Vec<u8>,
}

/// What a file name in the directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    /// A journal.
    Journal,
    /// A journal that is being created, or was when its process died.
    New,
    /// Not ours.
    Other,
}

impl FileName {
    pub(super) fn of(name: &str) -> Self {
        let (name, kind) = match name.strip_suffix(NEW) {
            Some(name) => (name, Self::New),
            None => (name, Self::Journal),
        };
        let ours = name
            .strip_prefix("adit-")
            .and_then(|rest| rest.strip_suffix(SUFFIX))
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(process, nonce)| {
                process.parse::<u32>().is_ok()
                    && nonce.len() == 16
                    && nonce.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
        if ours { kind } else { Self::Other }
    }
}

impl JournalFile {
    /// Creates a file of `space` zeros after its first line; it is on disk when this returns.
    pub(super) fn create(dir: &Path, space: u64) -> Result<Self, JournalError> {
        // Another adit that is starting may take a file that is created and not locked yet for a
        // dead process's leftover and remove it. Then locking or renaming fails, and the next name
        // is tried. Under its real name a file is never without its lock and first line.
        const ATTEMPTS: usize = 16;
        let mut attempt = 1;
        loop {
            let name = new_name();
            let path = dir.join(&name);
            let new_path = dir.join(name + NEW);
            let why = match Self::create_as(&new_path, path.clone(), space) {
                Ok(file) => {
                    sync_dir(dir).map_err(failed("write the journal directory", dir))?;
                    return Ok(file);
                }
                Err(why) => why,
            };
            if why.kind() != io::ErrorKind::AlreadyExists {
                let _ = fs::remove_file(&new_path);
            }
            let again = matches!(
                why.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
            );
            if !again || attempt == ATTEMPTS {
                return Err(failed("create the journal file", &path)(why));
            }
            attempt += 1;
        }
    }

    fn create_as(new_path: &Path, path: PathBuf, space: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(new_path)?;
        file.try_lock()?;
        let mut head = Vec::new();
        let check = record::push_head(&mut head, std::process::id());
        let start = Place { offset: head.len() as u64, check };
        file.write_all(&head)?;
        write_zeros(&mut file, space)?;
        file.seek(SeekFrom::Start(start.offset))?;
        file.sync_all()?;
        fs::rename(new_path, &path)?;
        Ok(Self::new(path, file, start, start.offset + space))
    }

    fn new(path: PathBuf, file: File, start: Place, len: u64) -> Self {
        Self {
            path,
            file,
            start,
            end: start,
            len,
            at_end: true,
            live: BTreeMap::new(),
            live_bytes: 0,
            fates: Vec::new(),
            network: Arc::from(""),
            lines: Vec::new(),
        }
    }

    /// Removes the leftover of a process that died while it created a file.
    pub(super) fn sweep(path: &Path) {
        if let Ok(Some(file)) = open_regular(path)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(path);
        }
    }

    /// Creates the file again, with the blocks of unknown fate, if it is no longer at its path: the
    /// directory or its contents were removed. Returns whether that was so.
    pub(super) fn restore(&mut self, space: u64) -> Result<bool, JournalError> {
        let is_there = is_at(&self.file, &self.path)
            .map_err(failed("look at the journal file", &self.path))?;
        if !is_there {
            create_dir(self.path.parent().unwrap_or(Path::new(".")))?;
            self.replace(space)?;
        }
        Ok(!is_there)
    }

    /// Writes a block found at `time` (since 1970), and the fates that are due, to the file: on
    /// disk when it returns. `space` is the least size of the file, and by how much it grows.
    pub(super) fn record(
        &mut self,
        id: u64,
        time: Duration,
        found: &Found<'_>,
        space: u64,
    ) -> Result<(), JournalError> {
        let mut encoded = self.encode(id, time, found)?;
        if self.end.offset + encoded.bytes > self.len && self.make_room(encoded.bytes, space) {
            encoded = self.encode(id, time, found)?;
        }
        let Encoded { begins, ending, bytes } = encoded;
        let end = self.end.offset + bytes;
        let zeros = match end > self.len {
            false => 0,
            true if end > MAX_FILE => return Err(JournalError::Full { path: self.path.clone() }),
            true => end.next_multiple_of(space).min(MAX_FILE) - end,
        };
        let lines = std::mem::take(&mut self.lines);
        let written = self
            .write(&[&lines, found.block_hex.as_bytes(), &ending.bytes], zeros)
            .and_then(|()| self.file.sync_data());
        self.lines = lines;
        if let Err(why) = written {
            // What reached the file is after the end, and the next write overwrites it.
            self.at_end = false;
            return Err(failed("write the journal file", &self.path)(why));
        }
        share(&mut self.network, found.network);
        let network = Arc::clone(&self.network);
        let begins = begins as u64;
        let line = bytes - begins;
        let offset = self.end.offset + begins;
        self.live.insert(id, Live { offset, bytes: line as usize, network });
        self.live_bytes += line;
        self.fates.clear();
        self.end = Place { offset: end, check: ending.check };
        self.len = self.len.max(end + zeros);
        Ok(())
    }

    /// Puts the fates that are due, and the beginning of a found block's line, into `lines`.
    fn encode(
        &mut self,
        id: u64,
        time: Duration,
        found: &Found<'_>,
    ) -> Result<Encoded, JournalError> {
        let check = self.encode_fates();
        let begins = self.lines.len();
        let ending = record::push_found(&mut self.lines, check, id, time, found)?;
        let bytes = (self.lines.len() + found.block_hex.len() + ending.bytes.len()) as u64;
        Ok(Encoded { begins, ending, bytes })
    }

    /// Puts the fates that are due into `lines`.
    fn encode_fates(&mut self) -> Check {
        self.lines.clear();
        let mut check = self.end.check;
        for &(id, fate) in &self.fates {
            check = record::push_fate(&mut self.lines, check, id, fate);
        }
        check
    }

    /// Starts again at the start of the file, or in another file if blocks of unknown fate are in
    /// the way. Returns whether anything changed.
    fn make_room(&mut self, bytes: u64, space: u64) -> bool {
        if self.live.is_empty() {
            self.start_again(bytes, space);
            true
        } else if 2 * self.live_bytes <= self.end.offset - self.start.offset {
            // If that fails, growing may still work.
            self.move_on(space).is_ok()
        } else {
            false
        }
    }

    /// Starts again after the first line, with space for `bytes` at least: every fate is known.
    ///
    /// The old lines are cut off, not overwritten. So the file never has lines of an earlier pass
    /// after its live ones, and anything there except zeros and a torn line is damage.
    fn start_again(&mut self, bytes: u64, space: u64) {
        let Place { offset, .. } = self.start;
        let room = bytes.next_multiple_of(space);
        self.end = self.start;
        self.at_end = false;
        self.fates.clear();
        // If this fails, so does the write that follows, or the next adit takes the old lines for
        // damage and submits the blocks again, which does no harm.
        let emptied = self
            .file
            .set_len(offset)
            .and_then(|()| self.file.seek(SeekFrom::Start(offset)))
            .inspect(|_| self.len = offset)
            .and_then(|_| write_zeros(&mut self.file, room));
        if emptied.is_ok() {
            self.len = offset + room;
        }
    }

    /// Copies the blocks of unknown fate to a new file, and removes this one. If the process dies in
    /// between, they are in both and are submitted twice, which does no harm.
    fn move_on(&mut self, space: u64) -> Result<(), JournalError> {
        let old = self.replace(space)?;
        let _ = fs::remove_file(&old.path);
        Ok(())
    }

    /// Copies the blocks of unknown fate to a new file in the same directory; returns the old file.
    fn replace(&mut self, space: u64) -> Result<Self, JournalError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let mut new = Self::create(dir, (2 * self.live_bytes).next_multiple_of(space).max(space))?;
        match self.copy_live(&mut new) {
            Ok(()) => {
                new.lines = std::mem::take(&mut self.lines);
                Ok(std::mem::replace(self, new))
            }
            Err(why) => {
                let _ = fs::remove_file(&new.path);
                Err(failed("write the journal file", &new.path)(why))
            }
        }
    }

    fn copy_live(&mut self, new: &mut Self) -> io::Result<()> {
        self.at_end = false;
        let mut line = Vec::new();
        for (&id, live) in &self.live {
            read_at(&mut self.file, live.piece(), &mut line)?;
            new.lines.clear();
            let check = record::push_again(&mut new.lines, new.end.check, &line)
                .ok_or(io::ErrorKind::InvalidData)?;
            let lines = std::mem::take(&mut new.lines);
            new.write(&[&lines, &[], &[]], 0)?;
            let offset = new.end.offset;
            let bytes = lines.len();
            new.lines = lines;
            new.live.insert(id, Live { offset, bytes, network: Arc::clone(&live.network) });
            new.live_bytes += bytes as u64;
            new.end = Place { offset: offset + bytes as u64, check };
        }
        new.len = new.len.max(new.end.offset);
        new.file.sync_data()
    }

    /// Writes `parts` and a number of zeros after the last live line, in one go.
    fn write(&mut self, parts: &[&[u8]; 3], zeros: u64) -> io::Result<()> {
        if !self.at_end {
            self.file.seek(SeekFrom::Start(self.end.offset))?;
        }
        // Until it has succeeded.
        self.at_end = false;
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        if zeros > 0 {
            write_zeros(&mut self.file, zeros)?;
        } else {
            self.at_end = true;
        }
        Ok(())
    }

    /// Notes a block's fate. Written with the next record, or by [`Self::flush`].
    pub(super) fn settle(&mut self, id: u64, fate: Fate) {
        if let Some(live) = self.live.remove(&id) {
            self.live_bytes -= live.bytes as u64;
            self.fates.push((id, fate));
        }
    }

    /// Writes the fates that are due, without waiting for the disk.
    pub(super) fn flush(&mut self) -> Result<(), JournalError> {
        if self.fates.is_empty() {
            return Ok(());
        }
        let check = self.encode_fates();
        let lines = std::mem::take(&mut self.lines);
        let written = self.write(&[&lines, &[], &[]], 0);
        let offset = self.end.offset + lines.len() as u64;
        self.lines = lines;
        written.map_err(failed("write the journal file", &self.path))?;
        self.end = Place { offset, check };
        self.len = self.len.max(offset);
        self.fates.clear();
        Ok(())
    }

    /// Whether each block's fate is known.
    pub(super) fn is_settled(&self) -> bool {
        self.live.is_empty()
    }

    /// The blocks of unknown fate, oldest first, each with its network.
    pub(super) fn live(&self) -> impl Iterator<Item = (u64, &str)> {
        self.live.iter().map(|(&id, live)| (id, &*live.network))
    }

    /// The line of a block of unknown fate; `None` if its fate is known.
    pub(super) fn line(&mut self, id: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let Some(live) = self.live.get(&id) else { return Ok(None) };
        self.at_end = false;
        let mut line = Vec::new();
        read_at(&mut self.file, live.piece(), &mut line)
            .map_err(failed("read the journal file", &self.path))?;
        Ok(Some(line))
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, under its lock.
    pub(super) fn remove(&self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            // It has been removed already.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove the journal file", &self.path)),
        }
    }

    /// Removes the file if every fate in it is known; otherwise leaves the live lines in it for the
    /// next adit.
    pub(super) fn finish(&mut self) -> Result<(), JournalError> {
        if self.is_settled() {
            // If it cannot be removed, it should at least have the fates.
            return self.remove().inspect_err(|_| drop(self.flush()));
        }
        self.flush()?;
        self.file
            .set_len(self.end.offset)
            .and_then(|()| self.file.sync_data())
            .map_err(failed("write the journal file", &self.path))
    }

    /// Where the last live line ends, in bytes.
    #[cfg(test)]
    pub(super) fn end(&self) -> u64 {
        self.end.offset
    }
}

/// A record on its way into the file.
struct Encoded {
    /// Where its line begins among the lines to be written.
    begins: usize,
    ending: record::FoundEnding,
    /// The length of all lines to be written.
    bytes: u64,
}

/// Makes an error of the system's.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |why| JournalError::Io { doing, path, why }
}

/// A name that no other file has or had.
fn new_name() -> String {
    let process = std::process::id();
    // The standard library's hasher has a random key.
    let nonce = std::hash::RandomState::new().hash_one((process, SystemTime::now()));
    format!("adit-{process}-{nonce:016x}{SUFFIX}")
}

/// Writes the directory's names to disk.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Other systems do not let a directory be opened, and do not need it.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn write_zeros(file: &mut File, count: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut left = count;
    while left > 0 {
        let some = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..some as usize])?;
        left -= some;
    }
    Ok(())
}

/// Opens a regular file for reading and writing; `None` if it is something else.
pub(super) fn open_regular(path: &Path) -> io::Result<Option<File>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    OpenOptions::new().read(true).write(true).open(path).map(Some)
}

/// Whether `path` still names this very file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(why),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let open = file.metadata()?;
        Ok(open.dev() == there.dev() && open.ino() == there.ino())
    }
    // Names are never used twice.
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(there.is_file())
    }
}

/// Reads the next line if it follows one with the check `before`.
fn read_line(
    reader: &mut BufReader<&File>,
    before: Check,
    line: &mut Vec<u8>,
) -> io::Result<Option<Check>> {
    line.clear();
    // Zeros would be read to their end in search of a newline.
    if reader.fill_buf()?.first() != Some(&b'{') {
        return Ok(None);
    }
    reader.take(record::MAX_LINE as u64).read_until(b'\n', line)?;
    Ok(record::follows(before, line))
}

fn read_at(file: &mut File, piece: Piece, line: &mut Vec<u8>) -> io::Result<()> {
    file.seek(SeekFrom::Start(piece.offset))?;
    line.resize(piece.bytes, 0);
    file.read_exact(line)
}

/// Makes `shared` equal to `text`, with a new allocation only where it is not.
fn share(shared: &mut Arc<str>, text: &str) {
    if **shared != *text {
        *shared = Arc::from(text);
    }
}
