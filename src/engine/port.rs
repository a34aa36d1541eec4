//! One source's side of the engine: jobs and verdicts come in, solutions go out.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::Network;
use tokio::sync::{Notify, mpsc};

use super::slot::{Connection, Health};
use super::state::Shared;
use super::verdicts::ReportedBlock;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{Event, SourceState};
use crate::job::{Job, Solution, SourceId, Verdict};
use crate::units::HashRate;

/// A source's side of the engine: jobs and verdicts go in, solutions come out. A source need
/// not know whether its jobs are the ones that are mined.
pub struct Port {
    pub(super) shared: Arc<Shared>,
    pub(super) source: SourceId,
    pub(super) solutions: mpsc::Receiver<Solution>,
    pub(super) reconnect: Arc<Notify>,
}

impl Port {
    /// Says that the source has answered for the first time, and which chain it is on.
    pub fn started(&self, network: Option<Network>) {
        let mut state = self.shared.state();
        let slot = state.slot(self.source);
        slot.network = network;
        if slot.solutions.is_some() {
            slot.note_connection(Connection::Connected, None);
        }
        let source = slot.name.to_string();
        if !std::mem::replace(&mut state.started, true) {
            let backends = self.shared.backends.iter();
            self.shared.announcer.announce(Event::Started {
                id: self.source,
                source,
                network,
                backends: backends.map(|backend| backend.info.clone()).collect(),
            });
        }
    }

    /// Announces a change of the connection.
    pub fn source_is(&self, state: SourceState, reason: Option<String>) {
        let shared = &self.shared;
        let mut of_all = shared.state();
        let slot = of_all.slot(self.source);
        let is_degraded = state != SourceState::Connected;
        if slot.solutions.is_some() {
            slot.note_connection(state.into(), reason.as_deref());
            shared.is_now(self.source, slot, Health { is_degraded, ..slot.health });
        }
        let source = slot.name.to_string();
        drop(of_all);
        shared.announcer.announce(Event::Source { state, id: self.source, source, reason });
    }

    /// Announces which difficulty is mined under the twenty-minute rule.
    pub fn stage(&self, stage: Stage, difficulty: Difficulty) {
        let mut state = self.shared.state();
        state.slot(self.source).stage = Some((stage, difficulty));
        // What a source that is not mined says is no news until it is mined.
        if state.chosen == self.source {
            let source = self.source;
            self.shared.announcer.announce(Event::Stage { source, stage, difficulty });
        }
    }

    /// Announces something that the user should know.
    pub fn notice(&self, text: impl Into<String>) {
        self.shared.announcer.announce(Event::Notice(text.into()));
    }

    /// Makes `job` the source's current one: the one that is mined, if the source is. While a
    /// solution on top of the same block is on its way, it is not begun: there is never a second
    /// solution for one height. A source that said last that it is degraded still is.
    ///
    /// What the job builds on also shows what became of the blocks that were given to a pool.
    pub fn publish(&self, job: Job) {
        let job = Arc::new(job);
        let shared = &self.shared;
        let mut state = shared.state();
        let is_chosen = state.chosen == self.source;
        shared.confirm(&mut state, self.source, &job);
        let slot = state.slot(self.source);
        let awaited = job.ends_when_solved && slot.solved == Some(job.previous_block_hash);
        if awaited || slot.solutions.is_none() {
            return;
        }
        let generation = shared.generation.load(Ordering::Relaxed) + 1;
        if job.clean {
            slot.valid_from = generation;
        }
        slot.adopt(&job, self.source, generation);
        shared.is_now(self.source, slot, Health { is_ready: true, ..slot.health });
        if is_chosen {
            shared.next_generation();
            drop(state);
            shared.begin(self.source, &job);
        }
    }

    /// Stops mining until the next job: what is found for earlier ones would count for nothing.
    pub fn clear_job(&self) {
        let shared = &self.shared;
        let mut state = shared.state();
        let health = Health { is_ready: false, ..state.slot(self.source).health };
        shared.clear_job(&mut state, self.source, health);
    }

    /// Stops mining until the next job because nothing is to be mined before: the source is as
    /// healthy as one that has a job.
    pub fn idle(&self) {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.slot(self.source).solutions.is_some() {
            shared.clear_job(
                &mut state,
                self.source,
                Health { is_ready: true, is_degraded: false },
            );
        }
    }

    /// Answers a solution of this source's. A second answer to the same one is ignored.
    pub fn verdict(&self, solution: &Solution, verdict: Verdict) {
        let mut state = self.shared.state();
        if state.unanswered.remove(&solution.id).is_none() {
            return;
        }
        let slot = state.slot(self.source);
        if slot.solved == Some(solution.job.previous_block_hash) {
            slot.solved = None;
        }
        self.shared.judge(&mut state, self.source, solution, verdict);
    }

    /// Tells what became of a block for which no solution waits any more.
    pub fn late_verdict(&self, block: &ReportedBlock, verdict: Verdict) {
        let mut state = self.shared.state();
        state.slot(self.source).note_reject_reason(&verdict);
        self.shared.block(&mut state, self.source, block, verdict);
        self.shared.stop_at_goal(&mut state);
    }

    /// The next solution; `None` when it is time to end.
    pub async fn solution(&mut self) -> Option<Solution> {
        self.solutions.recv().await
    }

    /// The hash rate of all backends over the last minute, or since the start; `None` until it has
    /// been measured. It falls to zero in a pause.
    #[must_use]
    pub fn hash_rate(&self) -> Option<HashRate> {
        let rate = f64::from_bits(self.shared.hash_rate.load(Ordering::Relaxed));
        (!rate.is_nan()).then(|| HashRate::from_f64(rate))
    }

    /// Resolves when the source is asked to close its connection and to connect again
    /// ([`super::Control::reconnect`]). A request that comes while this is not awaited is kept; several
    /// count as one. The future borrows nothing, so that it can be awaited beside
    /// [`Self::solution`].
    pub fn reconnect_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let reconnect = self.reconnect.clone();
        async move { reconnect.notified().await }
    }
}
