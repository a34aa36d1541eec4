//! The words that cross the rooms: [`Job`], [`WorkUnit`], [`Solution`] and [`Verdict`].

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};

use crate::chain::merkle::{self, Hash256};
use crate::chain::target::{Difficulty, Target};
use crate::scan::{Midstate, NonceRange, Scan, SecondBlock};

/// Which bits of the version may be rolled (BIP 320, negotiated by BIP 310 on Stratum V1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VersionMask(u32);

impl VersionMask {
    /// No rolling.
    pub const NONE: Self = Self(0);
    /// The sixteen bits that BIP 320 sets aside for general use.
    pub const BIP320: Self = Self(0x1fff_e000);

    /// A mask of just these bits.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits as a number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How many versions there are under the mask: 2 to the number of its bits.
    #[must_use]
    pub const fn versions(self) -> u64 {
        1 << self.0.count_ones()
    }

    /// `version` with the bits under the mask replaced by the low bits of `index`, the lowest bit
    /// of the index in the lowest bit of the mask.
    #[must_use]
    pub fn roll(self, version: u32, index: u64) -> u32 {
        let mut rolled = version & !self.0;
        let mut mask = self.0;
        let mut index = index;
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            if index & 1 == 1 {
                rolled |= lowest;
            }
            index >>= 1;
            mask ^= lowest;
        }
        rolled
    }
}

/// The nTime values a job allows: `first` at once, and up to `ahead` seconds more, each not before
/// as many seconds have passed since the job was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// Seconds since 1970.
    pub first: u32,
    /// Seconds that nTime may move with the clock.
    pub ahead: u32,
}

impl TimeRange {
    /// Just this nTime.
    #[must_use]
    pub const fn fixed(ntime: u32) -> Self {
        Self { first: ntime, ahead: 0 }
    }
}

/// Where a job's merkle root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MerkleRoot {
    /// Given, and not to be rolled. In internal byte order, as the header has it.
    Fixed(Hash256),
    /// To be computed from a coinbase transaction whose extranonce is rolled.
    Rolled(Coinbase),
}

/// A coinbase transaction (serialized without its witness) around an extranonce, and the way from
/// its txid to the merkle root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coinbase {
    /// The bytes before the extranonce.
    pub prefix: Vec<u8>,
    /// The part of the extranonce that a pool gives and that stays.
    pub fixed_extranonce: Vec<u8>,
    /// How many bytes are ours to roll, 1 to 16. Only the first 8 are rolled; the rest stay zero.
    pub extranonce_len: u8,
    /// The bytes after the extranonce.
    pub suffix: Vec<u8>,
    /// The sibling hashes from the coinbase's txid up to the root, in internal byte order.
    pub merkle_branch: Vec<Hash256>,
}

impl Coinbase {
    /// The rolled extranonce's bytes: `value` as a little-endian number of `extranonce_len` bytes.
    #[must_use]
    pub fn extranonce_bytes(&self, value: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(self.extranonce_len)];
        for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        bytes
    }

    /// The whole transaction, without a witness, for this extranonce.
    #[must_use]
    pub fn serialize(&self, extranonce: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            self.prefix.len()
                + self.fixed_extranonce.len()
                + usize::from(self.extranonce_len)
                + self.suffix.len(),
        );
        bytes.extend_from_slice(&self.prefix);
        bytes.extend_from_slice(&self.fixed_extranonce);
        bytes.extend_from_slice(&self.extranonce_bytes(extranonce));
        bytes.extend_from_slice(&self.suffix);
        bytes
    }

    /// The merkle root for this extranonce, in internal byte order.
    #[must_use]
    pub fn merkle_root(&self, extranonce: u64) -> Hash256 {
        merkle::fold(merkle::sha256d(&self.serialize(extranonce)), &self.merkle_branch)
    }

    /// How many extranonces there are; `u64::MAX` stands for 2^64 and more.
    #[must_use]
    pub fn extranonces(&self) -> u64 {
        1u64.checked_shl(8 * u32::from(self.extranonce_len)).unwrap_or(u64::MAX)
    }
}

/// What a full block holds besides its header and the coinbase's rolled bytes. Sources that submit
/// whole blocks put it into their jobs; pools keep it to themselves.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockBody {
    /// Whether the coinbase carries a witness (BIP 141: one item, the 32-byte reserved value).
    pub segwit: bool,
    /// How many transactions follow the coinbase.
    pub transaction_count: usize,
    /// These transactions as lower- or upper-case hex, one after the other.
    pub transactions_hex: String,
}

/// Tells a job from every other one of this run: the connection it came over and its number there.
/// Nothing found for a connection that is gone may be sent over the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobKey {
    /// Counts the source's connections.
    pub connection: u64,
    /// Counts the jobs of one source.
    pub number: u64,
}

/// Something to mine, as a source received it. Immutable and shared.
#[derive(Debug)]
pub struct Job {
    /// Which job this is.
    pub key: JobKey,
    /// The version field before any rolling.
    pub version: u32,
    /// The bits of it that may be rolled.
    pub version_mask: VersionMask,
    /// The block to build on.
    pub previous_block_hash: BlockHash,
    /// The height of the block to be found, where the source knows it.
    pub height: Option<u32>,
    /// The header's nBits.
    pub nbits: CompactTarget,
    /// The nTime values allowed.
    pub ntime: TimeRange,
    /// The merkle root, or how to make it.
    pub merkle_root: MerkleRoot,
    /// What the source wants to see. The job's own: a later difficulty speaks of later jobs.
    pub share_target: Target,
    /// What the network wants to see.
    pub network_target: Target,
    /// Whether everything found for earlier jobs is worthless from now on.
    pub clean: bool,
    /// Whether the first solution ends the job: so it is where a solution is a block.
    pub ends_when_solved: bool,
    /// The rest of the block, where the source submits whole blocks.
    pub body: Option<Arc<BlockBody>>,
    /// When its last byte was received; nTime moves from here.
    pub received: Instant,
}

impl Job {
    /// Whether both have the same headers to try, but for the versions that their masks allow.
    #[must_use]
    pub fn is_same_work(&self, other: &Self) -> bool {
        self.ntime.first == other.ntime.first
            && self.version == other.version
            && self.nbits == other.nbits
            && self.previous_block_hash == other.previous_block_hash
            && self.merkle_root == other.merkle_root
    }

    /// The easiest hash that the source can use. A block is one also where the source asks for
    /// better shares: on testnet4's lowest difficulty, for example.
    #[must_use]
    pub fn easiest_target(&self) -> Target {
        self.share_target.max(self.network_target)
    }

    /// The header of this job at one point of its search space.
    #[must_use]
    pub fn header(&self, version: u32, merkle_root: Hash256, ntime: u32, nonce: u32) -> Header {
        Header {
            version: Version::from_consensus(version.cast_signed()),
            prev_blockhash: self.previous_block_hash,
            merkle_root: TxMerkleNode::from_byte_array(merkle_root),
            time: ntime,
            bits: self.nbits,
            nonce,
        }
    }
}

/// One merkle root and nTime of a job with some of its versions, ready to be hashed: all that
/// scanning needs and that does not depend on the nonce.
#[derive(Debug)]
pub struct Prepared {
    /// The job it was cut from.
    pub job: Arc<Job>,
    /// The rolled extranonce; 0 where the merkle root is fixed.
    pub extranonce: u64,
    /// The merkle root in internal byte order.
    pub merkle_root: Hash256,
    /// The header's nTime.
    pub ntime: u32,
    /// One midstate per version.
    pub midstates: Vec<Midstate>,
    /// The three words that all midstates share.
    pub second_block: SecondBlock,
}

/// A piece of a job's search space, given to one scanner and to no other.
#[derive(Clone, Debug)]
pub struct WorkUnit {
    /// What to hash.
    pub prepared: Arc<Prepared>,
    /// Which midstates of it, as indices.
    pub midstates: std::ops::Range<usize>,
    /// Which nonces.
    pub nonces: NonceRange,
    /// The easiest hash that is worth reporting.
    pub target: Target,
    /// Whose job it is, by the source's place among several: what is found goes there.
    pub source: usize,
    /// Counts the engine's job changes; says whether the unit is still wanted.
    pub generation: u64,
}

impl WorkUnit {
    /// The unit as a kernel takes it.
    #[must_use]
    pub fn scan(&self) -> Scan<'_> {
        Scan {
            midstates: &self.prepared.midstates[self.midstates.clone()],
            second_block: self.prepared.second_block,
            nonces: self.nonces,
            hit_mask: self.target.hit_mask(),
        }
    }
}

/// A (unit, midstate index, nonce) that a backend reports. It may be one too many: only the top 32
/// bits of its hash were looked at.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The unit it was found in.
    pub unit: &'a WorkUnit,
    /// Index into the unit's midstates.
    pub midstate: usize,
    /// The nonce as the header's field has it.
    pub nonce: u32,
}

impl Candidate<'_> {
    /// The header that the backend says it hashed.
    #[must_use]
    pub fn header(&self) -> Header {
        let prepared = &self.unit.prepared;
        let version = self.unit.scan().midstates[self.midstate].version;
        prepared.job.header(version, prepared.merkle_root, prepared.ntime, self.nonce)
    }
}

/// A candidate that was hashed again in plain code and meets its job's share target, the network's,
/// or both.
#[derive(Clone, Debug)]
pub struct Solution {
    /// Counts the run's solutions.
    pub id: u64,
    /// The job it solves.
    pub job: Arc<Job>,
    /// The rolled extranonce; 0 where the merkle root is fixed.
    pub extranonce: u64,
    /// The solved header.
    pub header: Header,
    /// Its hash.
    pub hash: BlockHash,
    /// When it was verified.
    pub found: Instant,
}

impl Solution {
    /// Whether it counts as a share: so it does for a pool, if it meets the share target. What does
    /// not is a block that is too easy for a share.
    #[must_use]
    pub fn is_share(&self) -> bool {
        !self.job.ends_when_solved && self.job.share_target.is_met_by(&self.hash)
    }

    /// Whether it is a block, not just a share.
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.job.network_target.is_met_by(&self.hash)
    }

    /// The difficulty that its hash meets.
    #[must_use]
    pub fn difficulty(&self) -> Difficulty {
        Difficulty::of_hash(&self.hash)
    }
}

/// A source's answer to a solution. Each solution gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Accepted,
    /// Refused.
    Rejected(Refusal),
    /// Right, but too late.
    Stale(Refusal),
    /// No answer was had: sent or not, nobody knows.
    Unknown(Refusal),
}

/// Why a solution was not accepted: the source's own words, and ours beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the source said, unaltered but for control characters; empty where it said nothing.
    pub words: String,
    /// What that means; empty where we have nothing to add.
    pub meaning: &'static str,
}

impl Refusal {
    /// A refusal in the source's words with ours beside them.
    pub fn new(words: impl Into<String>, meaning: &'static str) -> Self {
        Self { words: words.into(), meaning }
    }
}

/// `high-hash (the hash does not meet the target)`, or the half of it that there is.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.words.as_str(), self.meaning) {
            ("", meaning) => f.write_str(meaning),
            (words, "") => f.write_str(words),
            (words, meaning) => write!(f, "{words} ({meaning})"),
        }
    }
}

impl Verdict {
    /// The word that `--json` promises.
    #[must_use]
    pub const fn result(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected(_) => "rejected",
            Self::Stale(_) => "stale",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why it was not accepted.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Accepted => None,
            Self::Rejected(why) | Self::Stale(why) | Self::Unknown(why) => Some(why),
        }
    }
}
