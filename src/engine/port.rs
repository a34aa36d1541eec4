//! One source's side of the engine: jobs and verdicts come in, solutions go out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::Network;
use bitcoin::block::Header;
use tokio::sync::mpsc;

use super::Shared;
use super::seats::Health;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{Event, SourceState};
use crate::job::{Job, Solution, Verdict};

/// A source's side of the engine: jobs and verdicts go in, solutions come out. Whether its jobs are
/// the ones that are mined is nothing that the source need know.
pub struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: usize,
    pub(super) solutions: mpsc::Receiver<Solution>,
}

/// A block whose verdict is announced.
#[derive(Clone, Copy, Debug)]
pub struct ReportedBlock {
    /// Its height, where that is known.
    pub height: Option<u32>,
    /// Its header.
    pub header: Header,
    /// Whether it was announced before with the verdict unknown, which this one replaces.
    pub was_unknown: bool,
    /// Whether it was found by an earlier run and sent again by this one.
    pub resent: bool,
}

impl ReportedBlock {
    /// A block of this run's.
    #[must_use]
    pub fn of(solution: &Solution, was_unknown: bool) -> Self {
        let (height, header) = (solution.job.height, solution.header);
        Self { height, header, was_unknown, resent: false }
    }
}

impl Port {
    /// Says that the source has answered for the first time, and which chain it is on.
    pub fn started(&self, network: Option<Network>) {
        let mut state = self.shared.state();
        if !std::mem::replace(&mut state.started, true) {
            self.shared.announcer.announce(Event::Started {
                source: state.seats[self.seat].name.clone(),
                network,
                backends: self.shared.backends.clone(),
            });
        }
    }

    /// Announces a change of the connection.
    pub fn source_is(&self, state: SourceState, reason: Option<String>) {
        let shared = &self.shared;
        let mut of_all = shared.state();
        let seat = &mut of_all.seats[self.seat];
        let in_trouble = state != SourceState::Connected;
        if seat.solutions.is_some() {
            shared.is_now(self.seat, seat, Health { in_trouble, ..seat.health });
        }
        let source = seat.name.clone();
        drop(of_all);
        shared.announcer.announce(Event::Source { state, source, reason });
    }

    /// Announces which difficulty is mined under the twenty-minute rule.
    pub fn stage(&self, stage: Stage, difficulty: Difficulty) {
        let mut state = self.shared.state();
        state.seats[self.seat].stage = Some((stage, difficulty));
        // What a source says that is not mined is no news until it is.
        if state.chosen == self.seat {
            self.shared.announcer.announce(Event::Stage { stage, difficulty });
        }
    }

    /// Announces something that a person should know.
    pub fn notice(&self, text: impl Into<String>) {
        self.shared.announcer.announce(Event::Notice(text.into()));
    }

    /// Makes `job` the source's current one: the one that is mined, if the source is. While a
    /// solution on top of the same block is on its way, it is not begun: there is never a second
    /// solution for one height. A source whose last word was that it is in trouble still is.
    ///
    /// What the job builds on also shows what became of the blocks that were given to a pool.
    pub fn publish(&self, job: Job) {
        let job = Arc::new(job);
        let shared = &self.shared;
        let mut state = shared.state();
        let is_chosen = state.chosen == self.seat;
        shared.confirm(&mut state, self.seat, &job);
        let seat = &mut state.seats[self.seat];
        let awaited = job.ends_when_solved && seat.solved == Some(job.previous_block_hash);
        if awaited || seat.solutions.is_none() {
            return;
        }
        let generation = shared.generation.load(Ordering::Relaxed) + 1;
        if job.clean {
            seat.valid_from = generation;
        }
        seat.take_up(&job, self.seat, generation);
        shared.is_now(self.seat, seat, Health { is_ready: true, ..seat.health });
        if is_chosen {
            shared.next_generation();
            drop(state);
            shared.begin(&job);
        }
    }

    /// Stops mining until the next job: what is found for earlier ones would count for nothing.
    pub fn withdraw(&self) {
        let shared = &self.shared;
        let mut state = shared.state();
        let health = Health { is_ready: false, ..state.seats[self.seat].health };
        shared.withdraw(&mut state, self.seat, health);
    }

    /// Stops mining until the next job because nothing is to be mined before: the source is as well
    /// as one that has a job.
    pub fn rests(&self) {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.seats[self.seat].solutions.is_some() {
            shared.withdraw(&mut state, self.seat, Health { is_ready: true, in_trouble: false });
        }
    }

    /// Answers a solution of this source's. A second answer to the same one is ignored.
    pub fn verdict(&self, solution: &Solution, verdict: Verdict) {
        let mut state = self.shared.state();
        if state.unanswered.remove(&solution.id).is_none() {
            return;
        }
        let seat = &mut state.seats[self.seat];
        if seat.solved == Some(solution.job.previous_block_hash) {
            seat.solved = None;
        }
        self.shared.judge(&mut state, self.seat, solution, verdict);
    }

    /// Tells what became of a block for which no solution waits any more.
    pub fn late_verdict(&self, block: &ReportedBlock, verdict: Verdict) {
        let mut state = self.shared.state();
        self.shared.block(&mut state, block, verdict);
        self.shared.stop_at_goal(&mut state);
    }

    /// The next solution; `None` when it is time to go.
    pub async fn solution(&mut self) -> Option<Solution> {
        self.solutions.recv().await
    }
}
