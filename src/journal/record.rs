//! The lines of a journal file: how they are written, chained and checked.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::{HashEngine as _, siphash24};
use serde::Deserialize;

use super::{Fate, Found, JournalError};

/// The format that this adit writes and reads.
pub(super) const FORMAT: u32 = 1;
/// The longest line that is written or read, in bytes: a block of the largest weight takes half of
/// it.
pub(super) const MAX_LINE: usize = 16 << 20;
/// The length of a serialized header in hex digits.
pub(super) const HEADER_DIGITS: usize = 160;
/// What surrounds the check's sixteen digits at the end of every line.
const BEFORE_CHECK: &[u8] = br#","check":""#;
const AFTER_CHECK: &[u8] = b"\"}\n";
/// The bytes from the end of what is checked to the end of the line.
const CHECK_LEN: usize = BEFORE_CHECK.len() + 16 + AFTER_CHECK.len();
/// The second half of the SipHash key, the first being the check of the line before.
const CHECK_KEY: u64 = u64::from_be_bytes(*b"adit jnl");

/// The check of a line: SipHash-2-4 of its bytes, keyed with the check of the line before. So a
/// line is valid only after the line that it was written after: an old one that follows the last live
/// one by chance is not taken for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check(u64);

impl Check {
    /// The check before the first line of a file.
    pub(super) const FIRST: Self = Self(0);

    fn of(before: Self, parts: &[&[u8]]) -> Self {
        let mut engine = siphash24::HashEngine::with_keys(before.0, CHECK_KEY);
        for part in parts {
            engine.input(part);
        }
        Self(siphash24::Hash::from_engine_to_u64(engine))
    }

    /// The end of a line with this check.
    fn ending(self) -> [u8; CHECK_LEN] {
        let mut ending = [0; CHECK_LEN];
        let (before, rest) = ending.split_at_mut(BEFORE_CHECK.len());
        let (digits, after) = rest.split_at_mut(16);
        before.copy_from_slice(BEFORE_CHECK);
        for (place, digit) in digits.iter_mut().enumerate() {
            let nibble = (self.0 >> (60 - 4 * place)) & 15;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        after.copy_from_slice(AFTER_CHECK);
        ending
    }
}

/// Ends the line that begins at `start` of `out`, after a line with the check `before`.
fn end_line(out: &mut Vec<u8>, start: usize, before: Check) -> Check {
    let check = Check::of(before, &[&out[start..]]);
    out.extend_from_slice(&check.ending());
    check
}

/// Writes to a `Vec` do not fail.
fn push(out: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

/// `text` in quotes, escaped.
fn push_text(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a `Vec` does not fail either.
    let _ = serde_json::to_writer(out, text);
}

/// `bytes` as hex digits.
fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), b'0');
    // The lengths agree by construction, the only thing that can fail.
    let _ = hex::encode_to_slice(bytes, &mut out[start..]);
}

/// Appends the first line of a file.
pub(super) fn push_head(out: &mut Vec<u8>, process: u32) -> Check {
    let start = out.len();
    push(out, format_args!(r#"{{"record":"journal","format":{FORMAT},"process":{process}"#));
    end_line(out, start, Check::FIRST)
}

/// Appends the line of a fate.
pub(super) fn push_fate(out: &mut Vec<u8>, before: Check, id: u64, fate: Fate) -> Check {
    let start = out.len();
    push(out, format_args!(r#"{{"record":"fate","id":{id},"fate":"{}""#, fate.word()));
    end_line(out, start, before)
}

/// Appends a line of another file as one that follows `before`; `None` if it is not a line.
pub(super) fn push_again(out: &mut Vec<u8>, before: Check, line: &[u8]) -> Option<Check> {
    let start = out.len();
    out.extend_from_slice(&line[..line.len().checked_sub(CHECK_LEN)?]);
    Some(end_line(out, start, before))
}

/// What follows the block's digits in a found block's line.
pub(super) struct FoundEnding {
    pub(super) bytes: [u8; 1 + CHECK_LEN],
    pub(super) check: Check,
}

/// Appends the line of a block found at `time` (since 1970) up to where the block's digits begin;
/// they follow, and then the ending that is returned. (A large block is not copied.)
///
/// # Errors
/// When the block is not hex, does not begin with the header or is too long.
pub(super) fn push_found(
    out: &mut Vec<u8>,
    before: Check,
    id: u64,
    time: Duration,
    found: &Found<'_>,
) -> Result<FoundEnding, JournalError> {
    let block = found.block_hex.as_bytes();
    let start = out.len();
    let header = encode::serialize(found.header);
    push(out, format_args!(r#"{{"record":"found","id":{id},"time":{}."#, time.as_secs()));
    push(out, format_args!(r#"{:06},"network":"#, time.subsec_micros()));
    push_text(out, found.network);
    out.extend_from_slice(br#","source":"#);
    push_text(out, found.source);
    match found.height {
        Some(height) => push(out, format_args!(r#","height":{height}"#)),
        None => out.extend_from_slice(br#","height":null"#),
    }
    push(out, format_args!(r#","hash":"{:x}","#, found.header.block_hash()));
    push(out, format_args!(r#""previous_block_hash":"{:x}","#, found.header.prev_blockhash));
    out.extend_from_slice(br#""header":""#);
    let digits = out.len();
    push_hex(out, &header);
    let begins_with_header = block
        .get(..HEADER_DIGITS)
        .is_some_and(|first| first.eq_ignore_ascii_case(&out[digits..digits + HEADER_DIGITS]));
    if !begins_with_header || !block.len().is_multiple_of(2) || !is_hex(block) {
        out.truncate(start);
        return Err(JournalError::NotTheBlock);
    }
    out.extend_from_slice(br#"","block":""#);
    let length = out.len() - start + block.len() + 1 + CHECK_LEN;
    if length > MAX_LINE {
        out.truncate(start);
        return Err(JournalError::TooLong { bytes: length });
    }
    let check = Check::of(before, &[&out[start..], block, b"\""]);
    let mut bytes = [b'"'; 1 + CHECK_LEN];
    bytes[1..].copy_from_slice(&check.ending());
    Ok(FoundEnding { bytes, check })
}

/// Whether all of `digits` are hex digits. Checked in blocks without an early exit, which compile to
/// vector code: eight million digits take half a millisecond.
pub(super) fn is_hex(digits: &[u8]) -> bool {
    digits.chunks(4096).all(|some| {
        some.iter().fold(true, |all, digit| {
            all & (digit.wrapping_sub(b'0') < 10 || (digit | 0x20).wrapping_sub(b'a') < 6)
        })
    })
}

/// A line as it is read.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(super) enum Record<'a> {
    /// The first line of a file.
    Journal { format: u32 },
    /// A found block.
    #[serde(borrow)]
    Found(FoundRecord<'a>),
    /// A block's fate; the word itself is for readers of the file.
    Fate { id: u64 },
    /// Something that a newer adit writes and this one can ignore.
    #[serde(other)]
    Other,
}

/// A found block's line as it is read.
#[derive(Deserialize)]
pub(super) struct FoundRecord<'a> {
    pub(super) id: u64,
    pub(super) time: f64,
    #[serde(borrow)]
    pub(super) network: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) source: Cow<'a, str>,
    pub(super) height: Option<u32>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(borrow)]
    previous_block_hash: Cow<'a, str>,
    #[serde(borrow)]
    header: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) block: Cow<'a, str>,
}

impl FoundRecord<'_> {
    /// The header and its hash, if all that the record says of the block agrees.
    pub(super) fn verified(&self) -> Option<(Header, BlockHash)> {
        let bytes = hex::decode(self.header.as_bytes()).ok()?;
        let header: Header = encode::deserialize(&bytes).ok()?;
        let block = self.block.as_bytes();
        let hash = header.block_hash();
        let agrees = self.hash.parse() == Ok(hash)
            && self.previous_block_hash.parse() == Ok(header.prev_blockhash)
            && block.get(..HEADER_DIGITS)?.eq_ignore_ascii_case(self.header.as_bytes())
            && block.len().is_multiple_of(2)
            && is_hex(block);
        agrees.then_some((header, hash))
    }
}

/// The check of `line` (with its newline) if it is complete and follows a line with the check
/// `before`.
pub(super) fn follows(before: Check, line: &[u8]) -> Option<Check> {
    let (body, ending) = line.split_at_checked(line.len().checked_sub(CHECK_LEN)?)?;
    let check = Check::of(before, &[body]);
    (ending == check.ending()).then_some(check)
}

/// The check at the end of a line, right or wrong.
pub(super) fn printed_check(line: &[u8]) -> Option<Check> {
    let (_, ending) = line.split_at_checked(line.len().checked_sub(CHECK_LEN)?)?;
    let digits = ending.strip_prefix(BEFORE_CHECK)?.strip_suffix(AFTER_CHECK)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().map(Check)
}

/// The record of a line (with its newline); `None` if it is not one of ours.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    serde_json::from_slice(line).ok()
}
