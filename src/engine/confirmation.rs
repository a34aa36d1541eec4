//! What becomes of blocks that were given to a pool.
//!
//! A pool's yes to a share says nothing of the block that the share is: some answer before their node
//! has judged it, and some do not submit it at all. What its next job builds on says it. Until then
//! the block's verdict is unknown.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use super::{ReportedBlock, Shared, State};
use crate::event::Event;
use crate::job::{Job, Refusal, Solution, Verdict};

/// How many blocks of a pool wait for its next job at most. The verdict of one more than that stays
/// unknown for the oldest.
const WAITING: usize = 64;
/// How many tips of a pool's jobs are remembered: its answer to a share may come after the job that
/// builds on it.
const TIPS: usize = 4;

/// A block that a pool's jobs build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tip {
    hash: BlockHash,
    /// The height of the block that is built on it, where the job says that.
    next_height: Option<u32>,
}

impl Tip {
    fn of(job: &Job) -> Self {
        Self { hash: job.previous_block_hash, next_height: job.height }
    }

    /// What this tip, which is not from before the block's own job, says of a block that was given to
    /// a pool. Where the chain is further on by more than one block, it says nothing: the block may
    /// be below it.
    fn verdict(self, block: &Solution) -> Option<Verdict> {
        if self.hash == block.hash {
            return Some(Verdict::Accepted);
        }
        let is_at_its_height = match (block.job.height, self.next_height) {
            (Some(height), Some(next)) => height.checked_add(1) == Some(next),
            _ => true,
        };
        let why = Refusal::new("", "the pool's next job builds on another block");
        (is_at_its_height && self.hash != block.job.previous_block_hash)
            .then_some(Verdict::Stale(why))
    }
}

/// The blocks that one source was given and that no job of its has confirmed, and the tips of its last
/// jobs.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    waiting: VecDeque<Solution>,
    tips: VecDeque<Tip>,
}

impl Confirmations {
    /// Notes what a new job builds on. Whether that is news.
    fn note(&mut self, tip: Tip) -> bool {
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

impl Shared {
    /// The pool on this seat has answered a share that is a block, or has not. What it was not sent
    /// is stale for good.
    pub(super) fn pool_block(
        &self,
        state: &mut State,
        seat: usize,
        solution: &Solution,
        verdict: Verdict,
    ) {
        let why = match verdict {
            Verdict::Stale(_) => {
                return self.block(state, &ReportedBlock::of(solution, false), verdict);
            }
            Verdict::Accepted => Refusal::new(
                "",
                "not confirmed yet: the pool has it, and its next job will show more",
            ),
            Verdict::Rejected(why) | Verdict::Unknown(why) => Refusal::new(
                why.to_string(),
                "not confirmed yet: the pool's next job will show more",
            ),
        };
        self.block(state, &ReportedBlock::of(solution, false), Verdict::Unknown(why));
        let Confirmations { waiting, tips } = &mut state.seats[seat].confirmations;
        // The job that builds on it may have been quicker than the answer.
        let own = tips.iter().rposition(|tip| tip.hash == solution.job.previous_block_hash);
        let mut since = tips.iter().skip(own.map_or(0, |at| at + 1));
        if let Some(verdict) = since.find_map(|tip| tip.verdict(solution)) {
            return self.block(state, &ReportedBlock::of(solution, true), verdict);
        }
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(solution.clone());
    }

    /// A new job of this seat's: it may build on a block that was given to its pool, or to another.
    pub(super) fn confirm(&self, state: &mut State, seat: usize, job: &Job) {
        let tip = Tip::of(job);
        if state.seats[seat].confirmations.note(tip) {
            self.settle_blocks(state, seat, tip);
            self.stop_at_goal(state);
        }
    }

    /// Settles the blocks of which a tip of this seat's tells. Another seat's tip can only confirm:
    /// it may be of another branch, or another chain.
    fn settle_blocks(&self, state: &mut State, seat: usize, tip: Tip) {
        for index in 0..state.seats.len() {
            let waiting = std::mem::take(&mut state.seats[index].confirmations.waiting);
            let mut left = VecDeque::new();
            for block in waiting {
                match tip.verdict(&block).filter(|v| index == seat || *v == Verdict::Accepted) {
                    Some(verdict) => self.block(state, &ReportedBlock::of(&block, true), verdict),
                    None => left.push_back(block),
                }
            }
            state.seats[index].confirmations.waiting = left;
        }
    }

    /// Says at the end which blocks no job has confirmed.
    pub(super) fn announce_unconfirmed(&self, state: &State) {
        for seat in &state.seats {
            let count = seat.confirmations.waiting.len();
            if count > 0 {
                let blocks =
                    if count == 1 { "a block is".into() } else { format!("{count} blocks are") };
                self.announcer.announce(Event::Notice(format!(
                    "{blocks} not confirmed: no job of {} has built on it before adit stopped",
                    seat.name
                )));
            }
        }
    }
}
