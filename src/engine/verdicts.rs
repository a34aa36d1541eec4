//! What becomes of solutions: verdicts are counted and announced, and a pool's blocks confirmed.

use std::collections::VecDeque;
use std::time::SystemTime;

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::confirmation::{Confirmations, Tip, WAITING};
use super::state::{LastBlock, Shared, State};
use crate::event::{Event, Tally};
use crate::job::{Job, RejectReason, Solution, SourceId, Verdict};

/// A block whose verdict is announced.
#[derive(Clone, Copy, Debug)]
pub struct ReportedBlock {
    /// Its height, where that is known.
    pub height: Option<u32>,
    /// Its header.
    pub header: Header,
    /// Its hash.
    pub hash: BlockHash,
    /// Whether it was announced before with the verdict unknown, which this one replaces.
    pub was_unknown: bool,
    /// Whether it was found by an earlier run and sent again by this one.
    pub resent: bool,
}

impl ReportedBlock {
    /// A block of this run's.
    #[must_use]
    pub fn of(solution: &Solution, was_unknown: bool) -> Self {
        let Solution { job, header, hash, .. } = solution;
        Self { height: job.height, header: *header, hash: *hash, was_unknown, resent: false }
    }
}

impl Shared {
    /// Counts the verdict on a solution of this source's, and announces it.
    pub(super) fn judge(
        &self,
        state: &mut State,
        source: SourceId,
        solution: &Solution,
        verdict: Verdict,
    ) {
        // A pool may take a block as a share that we did not think to be one: not every share is sought
        // that it would take.
        let is_taken = verdict == Verdict::Accepted && !solution.job.ends_when_solved;
        if solution.is_share() || is_taken {
            let (time, difficulty) = (SystemTime::now(), solution.difficulty());
            let latency = solution.found.elapsed();
            let slot = state.slot(source);
            slot.shares.count(&verdict);
            slot.note_reject_reason(&verdict);
            if verdict == Verdict::Accepted {
                slot.last_share = Some((time, difficulty));
                slot.latency = Some(latency);
            }
            let hash = solution.hash;
            let share =
                Event::Share { source, verdict: verdict.clone(), difficulty, hash, latency };
            self.announcer.announce_at(time, share);
        }
        if solution.is_block() {
            if solution.job.ends_when_solved {
                state.slot(source).note_reject_reason(&verdict);
                self.block(state, source, &ReportedBlock::of(solution, false), verdict);
            } else {
                self.pool_block(state, source, solution, verdict);
            }
        }
        self.stop_at_goal(state);
    }

    /// Counts a block's verdict, in place of `unknown` if that was announced before, and announces
    /// it.
    pub(super) fn block(
        &self,
        state: &mut State,
        source: SourceId,
        block: &ReportedBlock,
        verdict: Verdict,
    ) {
        let ReportedBlock { height, header, hash, was_unknown, resent } = *block;
        state.count_block(source, &verdict, was_unknown);
        let time = SystemTime::now();
        state.last_block = Some(LastBlock { time, height, hash, result: verdict.result() });
        let block = Event::Block { source, verdict, height, header, hash, was_unknown, resent };
        self.announcer.announce_at(time, block);
    }

    /// Stops when as much was accepted as was asked for.
    pub(super) fn stop_at_goal(&self, state: &mut State) {
        let reached = |goal: Option<u64>, tally: Tally| goal.is_some_and(|n| tally.accepted >= n);
        if reached(self.goal.blocks, state.blocks()) || reached(self.goal.shares, state.shares()) {
            self.stop(state);
        }
    }

    /// A pool has answered a share that is a block, or has not. What it was not sent
    /// is stale for good.
    pub(super) fn pool_block(
        &self,
        state: &mut State,
        source: SourceId,
        solution: &Solution,
        verdict: Verdict,
    ) {
        let why = match verdict {
            Verdict::Stale(_) => {
                return self.block(state, source, &ReportedBlock::of(solution, false), verdict);
            }
            Verdict::Accepted => RejectReason::new(
                "",
                "not confirmed yet: the pool has it, and its next job will show more",
            ),
            Verdict::Rejected(why) | Verdict::Unknown(why) => RejectReason::new(
                why.to_string(),
                "not confirmed yet: the pool's next job will show more",
            ),
        };
        self.block(state, source, &ReportedBlock::of(solution, false), Verdict::Unknown(why));
        let Confirmations { waiting, tips } = &mut state.slot(source).confirmations;
        // The job that builds on it may have been quicker than the answer.
        let own = tips.iter().rposition(|tip| tip.hash == solution.job.previous_block_hash);
        let mut since = tips.iter().skip(own.map_or(0, |at| at + 1));
        if let Some(verdict) = since.find_map(|tip| tip.verdict(solution)) {
            return self.block(state, source, &ReportedBlock::of(solution, true), verdict);
        }
        if waiting.len() == WAITING {
            waiting.pop_front();
        }
        waiting.push_back(solution.clone());
    }

    /// A new job of this source's: it may build on a block that was given to its pool, or to another.
    pub(super) fn confirm(&self, state: &mut State, source: SourceId, job: &Job) {
        let tip = Tip::of(job);
        if state.slot(source).confirmations.note(tip) {
            self.settle_blocks(state, source, tip);
            self.stop_at_goal(state);
        }
    }

    /// Settles the blocks of which a tip of this source's tells. Another source's tip can only confirm:
    /// it may be of another branch, or another chain.
    fn settle_blocks(&self, state: &mut State, source: SourceId, tip: Tip) {
        for owner in (0..state.slots.len()).map(SourceId) {
            let waiting = std::mem::take(&mut state.slot(owner).confirmations.waiting);
            let mut left = VecDeque::new();
            for block in waiting {
                match tip.verdict(&block).filter(|v| owner == source || *v == Verdict::Accepted) {
                    Some(verdict) => {
                        self.block(state, owner, &ReportedBlock::of(&block, true), verdict);
                    }
                    None => left.push_back(block),
                }
            }
            state.slot(owner).confirmations.waiting = left;
        }
    }

    /// Says at the end which blocks no job has confirmed.
    pub(super) fn announce_unconfirmed(&self, state: &State) {
        for slot in &state.slots {
            let count = slot.confirmations.waiting.len();
            if count > 0 {
                let blocks =
                    if count == 1 { "a block is".into() } else { format!("{count} blocks are") };
                self.announcer.announce(Event::Notice(format!(
                    "{blocks} not confirmed: no job of {} has built on it before adit stopped",
                    slot.name
                )));
            }
        }
    }
}
