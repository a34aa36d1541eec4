//! What becomes of blocks that were given to a pool.
//!
//! A pool's yes to a share says nothing of the block that the share is: some answer before their node
//! has judged it, and some do not submit it at all. What its next job builds on says it. Until then
//! the block's verdict is unknown.

use std::collections::VecDeque;

use bitcoin::BlockHash;

use super::{Shared, State};
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

/// What a tip says of a block that was given to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// It is in the chain.
    BuildsOnIt,
    /// Another block is at its height.
    BuildsOnAnother,
    /// Nothing yet.
    Nothing,
    /// The chain is further on: this pool will not say it any more.
    TooLate,
}

impl Tip {
    fn of(job: &Job) -> Self {
        Self { hash: job.previous_block_hash, next_height: job.height }
    }

    fn says(self, block: &Solution) -> Says {
        if self.hash == block.hash {
            return Says::BuildsOnIt;
        }
        if self.hash == block.job.previous_block_hash {
            return Says::Nothing;
        }
        match (block.job.height, self.next_height) {
            (Some(height), Some(next)) if next <= height => Says::Nothing,
            (Some(height), Some(next)) if next > height + 1 => Says::TooLate,
            _ => Says::BuildsOnAnother,
        }
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
            Verdict::Stale(_) => return self.block(state, solution, verdict, false),
            Verdict::Accepted => Refusal::new("", "the pool has it; its next job will show more"),
            Verdict::Rejected(why) | Verdict::Unknown(why) => {
                Refusal::new(why.to_string(), "the pool's next job will show more")
            }
        };
        self.block(state, solution, Verdict::Unknown(why), false);
        let Confirmations { waiting, tips } = &mut state.seats[seat].confirmations;
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(solution.clone());
        // The job that builds on it may have been quicker than the answer.
        for tip in tips.clone() {
            self.settle_blocks(state, seat, tip);
        }
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
                match tip.says(&block) {
                    Says::BuildsOnIt => self.block(state, &block, Verdict::Accepted, true),
                    Says::BuildsOnAnother if index == seat => {
                        let why = Refusal::new("", "the pool's next job builds on another block");
                        self.block(state, &block, Verdict::Stale(why), true);
                    }
                    Says::TooLate if index == seat => {
                        tracing::debug!(hash = %block.hash, "the pool's jobs tell no more of a block");
                    }
                    Says::Nothing | Says::BuildsOnAnother | Says::TooLate => left.push_back(block),
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
