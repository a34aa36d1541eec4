//! What follows the intact lines of a journal file: nothing, the beginning of a line that was being
//! written, or blocks that damage has cut off.
//!
//! Zeros are nothing. The beginning of a line, right after the intact ones and followed only by
//! zeros, is what a process leaves that was killed while it wrote. Everything else is damage; a
//! write that a power failure interrupted may look like it too.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::time::{Duration, SystemTime};

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use serde::de::IgnoredAny;

use super::record::{self, Check, HEADER_DIGITS, Record};

/// The beginning of a line of ours.
const BEGINNING: &[u8] = br#"{"record":""#;
/// What comes before a block's digits.
const BEFORE_BLOCK: &[u8] = br#""block":""#;

/// A piece of the file from which a block can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// What follows the intact lines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Where blocks can be read.
    pub(super) blocks: Vec<Piece>,
    /// The ids of blocks whose fate is known.
    pub(super) fates: Vec<u64>,
    /// Whether there is more than leftovers.
    pub(super) is_damaged: bool,
}

/// A block that was read from a damaged line: its header has the proof of work that it claims.
#[derive(Debug)]
pub(super) struct Salvaged {
    /// Its id, if that can be read.
    pub(super) id: Option<u64>,
    /// When it was found, since 1970.
    pub(super) time: Duration,
    pub(super) network: String,
    pub(super) source: String,
    pub(super) height: Option<u32>,
    pub(super) header: Header,
    pub(super) block_hex: String,
}

impl Tail {
    /// Reads what follows the intact lines, which end at `from` with the check `before`.
    pub(super) fn read(file: &File, from: u64, before: Check) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, file);
        reader.seek(SeekFrom::Start(from))?;
        let mut scan = Scan { from, tail: Self::default(), before: Some(before), torn: false };
        let mut offset = from;
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = record::MAX_LINE as u64;
            let count = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if count == 0 {
                return Ok(scan.tail);
            }
            scan.line(offset, &line);
            offset += count as u64;
        }
    }
}

struct Scan {
    /// Where the intact lines end.
    from: u64,
    tail: Tail,
    /// The check that the line before has or claims.
    before: Option<Check>,
    /// Whether the beginning of a line was found.
    torn: bool,
}

impl Scan {
    /// Examines the bytes up to and including a newline: zeros, and lines that have lost their
    /// newline, may be among them.
    fn line(&mut self, offset: u64, line: &[u8]) {
        let mut place = 0;
        for run in line.split(|&byte| byte == 0) {
            let mut rest = run;
            while !rest.is_empty() {
                let next = find(&rest[1..], BEGINNING).map_or(rest.len(), |at| at + 1);
                self.fragment(offset + (place + run.len() - rest.len()) as u64, &rest[..next]);
                rest = &rest[next..];
            }
            place += run.len() + 1;
        }
    }

    fn fragment(&mut self, offset: u64, fragment: &[u8]) {
        let before = std::mem::replace(&mut self.before, record::printed_check(fragment));
        // Something follows what looked torn.
        self.tail.is_damaged |= self.torn;
        if let Some(Record::Fate { id }) = record::parse(fragment) {
            // A lost fate only means that a block is submitted twice.
            if before.is_some_and(|before| record::follows(before, fragment).is_some()) {
                self.tail.fates.push(id);
            }
        } else if read(fragment).is_some() {
            self.tail.blocks.push(Piece { offset, bytes: fragment.len() });
            self.tail.is_damaged = true;
        } else if offset == self.from && is_torn(fragment) {
            self.torn = true;
        } else {
            self.tail.is_damaged = true;
        }
    }
}

/// Whether this is the beginning of a line, and undamaged as far as it goes.
fn is_torn(fragment: &[u8]) -> bool {
    // The parser takes a number that ends with its decimal point for an invalid one.
    let fragment = fragment.strip_suffix(b".").unwrap_or(fragment);
    let breaks_off = || {
        let whole = serde_json::from_slice::<IgnoredAny>(fragment);
        whole.is_err_and(|error| error.is_eof())
    };
    let digits = find(fragment, BEFORE_BLOCK).map(|at| &fragment[at + BEFORE_BLOCK.len()..]);
    BEGINNING.starts_with(fragment)
        || fragment.starts_with(BEGINNING) && breaks_off() && digits.is_none_or(record::is_hex)
}

/// Reads a block from a line that may be incomplete; `None` if its network, source or block cannot be
/// read, or its header has no proof of work.
pub(super) fn read(line: &[u8]) -> Option<Salvaged> {
    let network = text(line, "network")?;
    let source = text(line, "source")?;
    let mut block_hex = text(line, "block")?;
    let is_block = block_hex.len() >= HEADER_DIGITS && block_hex.len().is_multiple_of(2);
    if !is_block || !record::is_hex(block_hex.as_bytes()) {
        return None;
    }
    // A line has the header twice, and its hash once. In a torn line they may be of two blocks.
    let of_block = block_hex[..HEADER_DIGITS].to_owned();
    let of_line = text(line, "header").filter(|digits| are_alike(digits, &of_block));
    let digits = [Some(of_block), of_line];
    let solved = digits.iter().flatten().filter_map(|digits| solved_header(digits));
    let hash = text(line, "hash");
    let (differs, header) = solved
        .map(|header| (Some(header.block_hash().to_string()) != hash, header))
        .min_by_key(|&(differs, _)| differs)?;
    block_hex.replace_range(..HEADER_DIGITS, &encode::serialize_hex(&header));
    let time = number(line, "time").and_then(|time| Duration::try_from_secs_f64(time).ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(Salvaged {
        id: number(line, "id"),
        time: time.unwrap_or_else(now),
        network,
        source,
        height: number(line, "height").filter(|_| !differs),
        header,
        block_hex,
    })
}

/// Whether these are the digits of one header, a few of which may be damaged.
fn are_alike(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes()).filter(|(one, other)| one != other).count();
    one.len() == other.len() && differing <= 8
}

/// The header that these digits are, if its hash meets its own target.
fn solved_header(digits: &str) -> Option<Header> {
    let header: Header = encode::deserialize(&hex::decode(digits).ok()?).ok()?;
    header.validate_pow(header.target()).ok().map(|_| header)
}

/// What follows `"key":` in a line.
fn value<'a>(line: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let key = format!("\"{key}\":");
    find(line, key.as_bytes()).map(|at| &line[at + key.len()..])
}

/// The text of a key of a line.
fn text(line: &[u8], key: &str) -> Option<String> {
    let value = value(line, key)?.strip_prefix(b"\"")?;
    let mut is_escaped = false;
    let end = value.iter().position(|&byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    let quoted = [b"\"", &value[..end], b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

/// The number of a key of a line.
fn number<T: std::str::FromStr>(line: &[u8], key: &str) -> Option<T> {
    let value = value(line, key)?;
    let end = value.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|some| some == wanted)
}
