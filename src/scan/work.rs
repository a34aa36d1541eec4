//! What the engine hands to scanners: pieces of a job's search space, and what is found in them.

use std::sync::Arc;

use bitcoin::block::Header;

use super::kernel::{HitMask, Midstate, NonceRange, Scan, SecondBlock};
use crate::chain::merkle::Hash256;
use crate::chain::target::Target;
use crate::job::{Job, SourceId};

/// One merkle root and nTime of a job with some of its versions, ready to be hashed: all that
/// scanning needs and that does not depend on the nonce.
#[derive(Debug)]
pub struct WorkTemplate {
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
    pub template: Arc<WorkTemplate>,
    /// Which midstates of it, as indices.
    pub midstates: std::ops::Range<usize>,
    /// Which nonces.
    pub nonces: NonceRange,
    /// The easiest hash that is worth reporting.
    pub target: Target,
    /// Whose job it is: what is found goes to this source.
    pub source: SourceId,
    /// Counts the engine's job changes; says whether the unit is still wanted.
    pub generation: u64,
}

impl WorkUnit {
    /// The unit as a kernel takes it.
    #[must_use]
    pub fn scan(&self) -> Scan<'_> {
        Scan {
            midstates: &self.template.midstates[self.midstates.clone()],
            second_block: self.template.second_block,
            nonces: self.nonces,
            hit_mask: HitMask::for_target(self.target),
        }
    }
}

/// A (unit, midstate index, nonce) that a backend reports. It may be a false positive: only the top 32
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
        let template = &self.unit.template;
        let version = self.unit.scan().midstates[self.midstate].version;
        template.job.header(version, template.merkle_root, template.ntime, self.nonce)
    }
}
