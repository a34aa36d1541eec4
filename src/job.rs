//! What sources and engine exchange: [`Job`], [`Solution`] and [`Verdict`].
//!
//! A job says what is to be mined, how far its time and version may be rolled, and which hashes are
//! wanted. [`Job::of_header`] is the simplest one; whatever else is wanted is a field of it:
//!
//! ```
//! use adit::bitcoin::{Network, constants};
//! use adit::chain::{target::Target, version::VersionMask};
//! use adit::job::{Job, JobKey, TimeRange};
//!
//! let header = constants::genesis_block(Network::Bitcoin).header;
//! let key = JobKey { connection: 0, number: 1 };
//! let job = Job {
//!     // Shares of a thousandth of difficulty 1, and as many as there are.
//!     share_target: adit::source::stratum_v1::target_of("0.001")?,
//!     ends_when_solved: false,
//!     // The version may be rolled as BIP 320 has it, and nTime by ten seconds.
//!     version_mask: VersionMask::BIP320,
//!     ntime: TimeRange { first: header.time, ahead: 10 },
//!     ..Job::of_header(key, &header)?
//! };
//! assert_eq!(job.network_target, Target::DIFFICULTY_1);
//! assert!(job.easiest_target() > job.network_target);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};

use crate::chain::block::BlockBody;
use crate::chain::coinbase::Coinbase;
use crate::chain::merkle::Hash256;
use crate::chain::target::{Difficulty, NBitsError, Target};
use crate::chain::version::VersionMask;

/// Which source: its place in the order in which the sources were given, the first is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub usize);

impl SourceId {
    /// Its place in the order of the sources.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
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
    /// A job for the nonces of one header; nothing else of it is rolled. What its nBits stand for is the
    /// share target and the network's, a solution is a block and ends the job, and nothing found for
    /// earlier jobs is worth anything.
    ///
    /// # Errors
    /// When the header's nBits hold no target.
    pub fn of_header(key: JobKey, header: &Header) -> Result<Self, NBitsError> {
        let target = Target::from_nbits(header.bits)?;
        Ok(Self {
            key,
            version: header.version.to_consensus().cast_unsigned(),
            version_mask: VersionMask::NONE,
            previous_block_hash: header.prev_blockhash,
            height: None,
            nbits: header.bits,
            ntime: TimeRange::fixed(header.time),
            merkle_root: MerkleRoot::Fixed(header.merkle_root.to_byte_array()),
            share_target: target,
            network_target: target,
            clean: true,
            ends_when_solved: true,
            body: None,
            received: Instant::now(),
        })
    }

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

/// A candidate that was hashed again by the reference implementation and meets its job's share target, the network's,
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
    Rejected(RejectReason),
    /// Right, but too late.
    Stale(RejectReason),
    /// There was no answer; whether it arrived is not known.
    Unknown(RejectReason),
}

/// Why a solution was not accepted: the source's own words, and ours beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectReason {
    /// What the source said, unaltered but for control characters; empty where it said nothing.
    pub words: String,
    /// What that means; empty where we have nothing to add.
    pub meaning: &'static str,
}

impl RejectReason {
    /// A reason in the source's words with ours beside them.
    pub fn new(words: impl Into<String>, meaning: &'static str) -> Self {
        Self { words: words.into(), meaning }
    }
}

/// `high-hash (the hash does not meet the target)`, or the half of it that there is.
impl fmt::Display for RejectReason {
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
    pub const fn reject_reason(&self) -> Option<&RejectReason> {
        match self {
            Self::Accepted => None,
            Self::Rejected(why) | Self::Stale(why) | Self::Unknown(why) => Some(why),
        }
    }
}
