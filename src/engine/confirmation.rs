//! What becomes of blocks that were given to a pool.
//!
//! A pool's yes to a share says nothing of the block that the share is: some answer before their node
//! has judged it, and some do not submit it at all. What its next job builds on says it. Until then
//! the block's verdict is unknown.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use crate::job::{Job, RejectReason, Solution, Verdict};

/// How many blocks of a pool wait for its next job at most. The verdict of one more than that stays
/// unknown for the oldest.
pub(super) const WAITING: usize = 64;
/// How many tips of a pool's jobs are remembered: its answer to a share may come after the job that
/// builds on it.
const TIPS: usize = 4;

/// A block that a pool's jobs build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) hash: BlockHash,
    /// The height of the block that is built on it, where the job says that.
    next_height: Option<u32>,
}

impl Tip {
    pub(super) fn of(job: &Job) -> Self {
        Self { hash: job.previous_block_hash, next_height: job.height }
    }

    /// What this tip, which is not from before the block's own job, says of a block that was given to
    /// a pool. Where the chain is further on by more than one block, it says nothing: the block may
    /// be below it.
    pub(super) fn verdict(self, block: &Solution) -> Option<Verdict> {
        if self.hash == block.hash {
            return Some(Verdict::Accepted);
        }
        let is_at_its_height = match (block.job.height, self.next_height) {
            (Some(height), Some(next)) => height.checked_add(1) == Some(next),
            _ => true,
        };
        let why = RejectReason::new("", "the pool's next job builds on another block");
        (is_at_its_height && self.hash != block.job.previous_block_hash)
            .then_some(Verdict::Stale(why))
    }
}

/// The blocks that one source was given and that no job of its has confirmed, and the tips of its last
/// jobs.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    pub(super) waiting: VecDeque<Solution>,
    pub(super) tips: VecDeque<Tip>,
}

impl Confirmations {
    /// Notes what a new job builds on. Whether that is news.
    pub(super) fn note(&mut self, tip: Tip) -> bool {
        if self.tips.back() == Some(&tip) {
            return false;
        }
        if self.tips.len() == TIPS {
            self.tips.pop_front();
        }
        self.tips.push_back(tip);
        true
    }
}
