//! `mining.notify` and the extranonce: what a job is built from.

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};
use serde_json::value::RawValue;

use super::message::{self, Params};
use crate::chain::merkle::Hash256;
use crate::chain::target::{NBitsError, Target};

/// The longest job id that is accepted, in characters of JSON.
const ID_MAX: usize = 1_024;
/// The most hashes in a merkle branch: a block holds fewer than 2^24 transactions.
const BRANCH_MAX: usize = 32;
/// The most bytes of the pool's part of the extranonce.
const EXTRANONCE1_MAX: usize = 64;
/// The most bytes of the miner's part.
const EXTRANONCE2_MAX: u64 = 16;

/// Why something that a pool sent is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// There are too few parameters.
    #[error("it has {0} parameters instead of 8 or 9")]
    Parameters(usize),
    /// A parameter is not what it must be.
    #[error("its {0} is not {1}")]
    Field(&'static str, &'static str),
    /// nBits stands for no target.
    #[error("{0}")]
    NBits(#[from] NBitsError),
    /// The miner's part of the extranonce has no bytes, or too many.
    #[error("its extranonce2 has {0} bytes, where 1 to 16 are supported")]
    Extranonce2(u64),
}

/// A job as `mining.notify` describes it, without what the connection adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The job's id as JSON text, to be repeated as it came.
    pub id: String,
    /// Whether all earlier jobs are void.
    pub clean: bool,
    /// The work.
    pub work: Work,
}

/// The work of a job: all that makes up its headers but the extranonce.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The block to build on.
    pub previous_block_hash: BlockHash,
    /// The coinbase's bytes before the extranonce.
    pub prefix: Vec<u8>,
    /// Its bytes after the extranonce.
    pub suffix: Vec<u8>,
    /// The branch from the coinbase's txid to the merkle root, in internal byte order.
    pub merkle_branch: Vec<Hash256>,
    /// The header's version.
    pub version: u32,
    /// The header's nBits.
    pub nbits: CompactTarget,
    /// The target that nBits stands for.
    pub network_target: Target,
    /// The header's nTime, seconds since 1970.
    pub ntime: u32,
}

impl Notify {
    /// Reads the parameters of `mining.notify`: id, previous block hash (its eight 4-byte words
    /// byte-swapped against the header's order), the two parts of the coinbase, merkle branch,
    /// version, nBits, nTime (these three as big-endian hex), and whether it is clean.
    ///
    /// # Errors
    /// When a parameter is missing or is not what it must be.
    pub fn read(params: &Params<'_>) -> Result<Self, WorkError> {
        let missing = || WorkError::Parameters(params.count());
        let at = |index| params.get(index).ok_or_else(missing);
        if params.count() < 8 {
            return Err(missing());
        }
        let id = at(0)?.get();
        let opaque = id.starts_with(['"', '-']) || id.starts_with(|c: char| c.is_ascii_digit());
        if !opaque || id.len() > ID_MAX {
            return Err(WorkError::Field("job id", "a string of at most 1,024 characters"));
        }
        let nbits = CompactTarget::from_consensus(number(at(6)?, "nBits")?);
        let branch: Vec<&RawValue> = serde_json::from_str(at(4)?.get())
            .map_err(|_| WorkError::Field("merkle branch", "a list"))?;
        if branch.len() > BRANCH_MAX {
            return Err(WorkError::Field("merkle branch", "a list of at most 32 hashes"));
        }
        let merkle_branch = branch
            .into_iter()
            .map(|hash| hash_of(hash, "merkle branch", "a list of 64 hex digits each"))
            .collect::<Result<_, _>>()?;
        let mut previous = hash_of(at(1)?, "previous block hash", "64 hex digits")?;
        for word in previous.as_chunks_mut::<4>().0 {
            word.reverse();
        }
        let clean = match params.get(8).map(RawValue::get) {
            None | Some("false" | "null" | "0" | "\"false\"") => false,
            Some("true" | "1" | "\"true\"") => true,
            Some(_) => return Err(WorkError::Field("clean flag", "true or false")),
        };
        Ok(Self {
            id: id.to_owned(),
            clean,
            work: Work {
                previous_block_hash: BlockHash::from_byte_array(previous),
                prefix: bytes(at(2)?).ok_or(WorkError::Field("coinbase's first part", "hex"))?,
                suffix: bytes(at(3)?).ok_or(WorkError::Field("coinbase's second part", "hex"))?,
                merkle_branch,
                version: number(at(5)?, "version")?,
                nbits,
                network_target: Target::from_nbits(nbits)?,
                ntime: number(at(7)?, "nTime")?,
            },
        })
    }
}

impl Work {
    /// The height that the coinbase begins with (BIP 34), where it can be read.
    #[must_use]
    pub fn height(&self) -> Option<u32> {
        // Version; one input; the outpoint of a coinbase; the script's length.
        let rest = self.prefix.get(4..)?.strip_prefix(&[1])?;
        let rest = rest.strip_prefix(&[0; 32])?.strip_prefix(&[0xff; 4])?;
        let (&_length, script) = rest.split_first()?;
        let (&push, rest) = script.split_first()?;
        match push {
            // OP_1 to OP_16.
            0x51..=0x60 => Some(u32::from(push - 0x50)),
            1..=4 => {
                let number = rest.get(..usize::from(push))?;
                let negative = number.last().is_some_and(|last| last & 0x80 != 0);
                let mut bytes = [0; 4];
                bytes[..number.len()].copy_from_slice(number);
                (!negative).then(|| u32::from_le_bytes(bytes))
            }
            _ => None,
        }
    }
}

/// The extranonce: the pool's part, and the length of the miner's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extranonce {
    /// The pool's part.
    pub fixed: Vec<u8>,
    /// The length of the miner's part that follows it, 1 to 16 bytes.
    pub len: u8,
}

impl Extranonce {
    /// Reads both from the answer to `mining.subscribe`, or from `mining.set_extranonce`.
    ///
    /// # Errors
    /// When the pool's part is not hex or too long, or the length of the miner's is not 1 to 16.
    pub fn read(fixed: Option<&RawValue>, len: Option<&RawValue>) -> Result<Self, WorkError> {
        let fixed = fixed
            .and_then(bytes)
            .filter(|fixed| fixed.len() <= EXTRANONCE1_MAX)
            .ok_or(WorkError::Field("extranonce1", "hex of at most 64 bytes"))?;
        let size = len
            .and_then(message::number)
            .ok_or(WorkError::Field("extranonce2's size", "a whole number"))?;
        match u8::try_from(size) {
            Ok(len @ 1..) if size <= EXTRANONCE2_MAX => Ok(Self { fixed, len }),
            _ => Err(WorkError::Extranonce2(size)),
        }
    }
}

/// A version mask (BIP 310's `TMask`): hex digits of a 32-bit number.
///
/// # Errors
/// When it is not that.
pub fn mask(value: &RawValue) -> Result<u32, WorkError> {
    number(value, "version mask")
}

/// A value that is a string of hex digits, two per byte.
fn bytes(value: &RawValue) -> Option<Vec<u8>> {
    hex::decode(unquoted(value)?).ok()
}

fn hash_of(
    value: &RawValue,
    name: &'static str,
    expected: &'static str,
) -> Result<Hash256, WorkError> {
    let mut hash = [0; 32];
    unquoted(value)
        .and_then(|text| hex::decode_to_slice(text, &mut hash).ok())
        .ok_or(WorkError::Field(name, expected))?;
    Ok(hash)
}

/// A value that is a string of 1 to 8 hex digits, the most significant first.
fn number(value: &RawValue, name: &'static str) -> Result<u32, WorkError> {
    let text = unquoted(value).map(|text| text.strip_prefix("0x").unwrap_or(text));
    text.filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() <= 8)
        .and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or(WorkError::Field(name, "8 hex digits"))
}

/// What is between the quotes of a string; hex needs no escapes.
fn unquoted(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::stratum_v1::message::Message;

    fn notify(params: &str) -> Result<Notify, WorkError> {
        let line = format!(r#"{{"id":null,"method":"mining.notify","params":{params}}}"#);
        match message::read(line.as_bytes()).unwrap() {
            Message::Call { params, .. } => Notify::read(&params),
            Message::Answer(_) => panic!("{line}"),
        }
    }

    /// The header and coinbase of block 100,000 would do as well; this is regtest's first block.
    fn good() -> Vec<String> {
        let previous = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
        let mut words: Vec<u8> = hex::decode(previous).unwrap();
        words.reverse();
        for word in words.chunks_mut(4) {
            word.reverse();
        }
        [
            "\"4f\"".to_owned(),
            format!("\"{}\"", hex::encode(words)),
            format!("\"0200000001{}ffffffff0451\"", "00".repeat(32)),
            "\"ffffffff00\"".to_owned(),
            "[]".to_owned(),
            "\"20000000\"".to_owned(),
            "\"207fffff\"".to_owned(),
            "\"5f5e1000\"".to_owned(),
            "true".to_owned(),
        ]
        .into()
    }

    fn with(index: usize, value: &str) -> Result<Notify, WorkError> {
        let mut params = good();
        value.clone_into(&mut params[index]);
        notify(&format!("[{}]", params.join(",")))
    }

    #[test]
    fn a_job_is_read() {
        let job = with(0, "\"4f\"").unwrap();
        assert_eq!((job.id.as_str(), job.clean), ("\"4f\"", true));
        assert_eq!(
            job.work.previous_block_hash.to_string(),
            "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
        );
        assert_eq!((job.work.version, job.work.ntime), (0x2000_0000, 0x5f5e_1000));
        assert_eq!(job.work.height(), Some(1));
        assert_eq!(notify(&format!("[{}]", good()[..8].join(","))).map(|n| n.clean), Ok(false));
        assert_eq!(with(0, "17").unwrap().id, "17");
        assert_eq!(with(0, r#""a\u0020\"b""#).unwrap().id, r#""a\u0020\"b""#);
        assert_eq!(
            with(4, &format!("[\"{}\"]", "ab".repeat(32))).unwrap().work.merkle_branch,
            [[0xab; 32]]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (index, value, said) in [
            (0, "null", "its job id is not a string of at most 1,024 characters"),
            (0, "[]", "its job id is not a string of at most 1,024 characters"),
            (1, "\"00\"", "its previous block hash is not 64 hex digits"),
            (1, "7", "its previous block hash is not 64 hex digits"),
            (2, "\"xyz\"", "its coinbase's first part is not hex"),
            (3, "\"abc\"", "its coinbase's second part is not hex"),
            (4, "\"\"", "its merkle branch is not a list"),
            (4, "[1]", "its merkle branch is not a list of 64 hex digits each"),
            (5, "\"+0000000\"", "its version is not 8 hex digits"),
            (6, "\"00000000\"", "nBits 00000000 is zero"),
            (7, "\"123456789\"", "its nTime is not 8 hex digits"),
            (8, "\"maybe\"", "its clean flag is not true or false"),
        ] {
            assert_eq!(with(index, value).unwrap_err().to_string(), said);
        }
        let many = vec![format!("\"{}\"", "00".repeat(32)); 33].join(",");
        assert!(with(4, &format!("[{many}]")).is_err());
        assert!(with(0, &format!("\"{}\"", "x".repeat(1_100))).is_err());
        assert_eq!(notify("[]"), Err(WorkError::Parameters(0)));
        assert_eq!(notify("{\"a\":1}"), Err(WorkError::Parameters(1)));
    }

    #[test]
    fn heights_are_read_where_there_are_any() {
        let height = |script: &str| {
            let prefix = format!("\"0200000001{}ffffffff64{script}\"", "00".repeat(32));
            with(2, &prefix).unwrap().work.height()
        };
        assert_eq!(height("60"), Some(16));
        assert_eq!(height("0111"), Some(17));
        assert_eq!(height("03a0bb0d"), Some(900_000));
        assert_eq!(height("028000"), Some(128));
        assert_eq!(height("04ffffff7f"), Some(0x7fff_ffff));
        for none in ["", "04ffff", "04ffffffff", "0181", "00", "05ffffffff00"] {
            assert_eq!(height(none), None, "{none}");
        }
        assert_eq!(with(2, "\"\"").unwrap().work.height(), None);
    }

    #[test]
    fn extranonces_have_1_to_16_bytes_of_ours() {
        let read = |fixed: &str, len: &str| {
            let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
            Extranonce::read(Some(&raw(fixed)), Some(&raw(len)))
        };
        assert_eq!(
            read("\"f000000f\"", "4"),
            Ok(Extranonce { fixed: vec![0xf0, 0, 0, 15], len: 4 })
        );
        assert_eq!(read("\"\"", "\"16\"").unwrap().len, 16);
        for size in ["0", "17", "64", "18446744073709551615"] {
            assert!(matches!(read("\"\"", size), Err(WorkError::Extranonce2(_))), "{size}");
        }
        for (fixed, size) in [("null", "4"), ("\"0\"", "4"), ("\"\"", "-1"), ("\"\"", "1.5")] {
            assert!(matches!(read(fixed, size), Err(WorkError::Field(..))), "{fixed} {size}");
        }
        assert!(read(&format!("\"{}\"", "00".repeat(65)), "4").is_err());
        assert!(Extranonce::read(None, None).is_err());
    }

    proptest! {
        #[test]
        fn no_parameter_is_too_much(
            index in 0usize..9,
            value in "null|true|-?[1-9][0-9]{0,11}|\"[0-9a-fx]{0,70}\"|\\[\"[0-9a-f]{60,66}\"\\]|\\{\\}|\"\\\\n\"",
        ) {
            if let Ok(job) = with(index, &value) {
                let _ = job.work.height();
            }
        }

        #[test]
        fn no_coinbase_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = with(2, &format!("\"{}\"", hex::encode(bytes))).unwrap().work.height();
        }
    }
}
