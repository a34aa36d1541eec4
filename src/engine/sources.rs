//! Several sources at one engine: the engine keeps a slot for each, and one source's job is mined.
//!
//! A source keeps its slot up to date whether it is chosen or not, so that a switch takes no longer
//! than a job change. What is found goes to the source whose job it solves, also when another is
//! mined by then.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use super::port::Port;
use super::slot::{Connection, Health};
use super::state::{Shared, Unanswered};
use crate::event::{Event, SourceState};
use crate::job::{RejectReason, SourceId, Verdict};

/// How many solutions may wait for their source. A source whose queue is full loses further ones
/// (said and counted as stale): scanners never wait.
const SOLUTIONS_WAITING: usize = 4096;

/// The sources of an engine, for whatever chooses among them: the first is mined until another is
/// chosen.
pub struct Sources {
    shared: Arc<Shared>,
    health: watch::Receiver<Vec<Health>>,
    preferred: watch::Receiver<Option<SourceId>>,
}

impl Sources {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        let (health, preferred) = (shared.health.subscribe(), shared.preferred.subscribe());
        Self { shared, health, preferred }
    }

    /// A port for this source, which is about to start. One that was opened before ends.
    #[must_use]
    pub fn open(&self, source: SourceId) -> Port {
        let (to_source, solutions) = mpsc::channel(SOLUTIONS_WAITING);
        // A request that an earlier run of the source has not seen is not for this one.
        let reconnect = Arc::new(Notify::new());
        let mut state = self.shared.state();
        let is_stopped = state.stopped;
        let slot = state.slot(source);
        slot.reconnect = reconnect.clone();
        if !is_stopped {
            slot.solutions = Some(to_source);
            slot.note_connection(Connection::Connecting, None);
        }
        Port { shared: self.shared.clone(), source, solutions, reconnect }
    }

    /// Tells a source to end; what it has not answered may still be.
    pub fn close(&self, source: SourceId) {
        let mut state = self.shared.state();
        self.shared.clear_job(&mut state, source, Health::default());
        let slot = state.slot(source);
        slot.solutions = None;
        slot.solved = None;
        slot.stage = None;
        slot.note_connection(Connection::Idle, None);
    }

    /// Counts what a source, which has ended, left without an answer.
    pub fn settle(&self, source: SourceId) {
        let mut state = self.shared.state();
        if state.stopped {
            // The end of the run does that.
            return;
        }
        let left = |unanswered: &Unanswered| unanswered.source == source;
        let ids: Vec<u64> =
            state.unanswered.iter().filter(|(_, it)| left(it)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Unanswered { solution, .. }) = state.unanswered.remove(&id) {
                let why = RejectReason::new("", "the source had not answered when it was left");
                self.shared.judge(&mut state, source, &solution, Verdict::Unknown(why));
            }
        }
    }

    /// Mines this source's job from now on, where it was left.
    pub fn choose(&self, source: SourceId, reason: String) {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.stopped || state.chosen == source {
            return;
        }
        state.chosen = source;
        let generation = shared.next_generation();
        let chosen = state.chosen();
        let name = chosen.name.to_string();
        let job = chosen.space.as_mut().map(|space| {
            space.renew(generation);
            space.job().clone()
        });
        let stage = chosen.stage;
        // Under the lock: what the source itself says comes before or after.
        self.announce(source, name, SourceState::Connected, reason);
        if let Some((stage, difficulty)) = stage {
            shared.announcer.announce(Event::Stage { source, stage, difficulty });
        }
        drop(state);
        if let Some(job) = job {
            shared.begin(source, &job);
        }
    }

    /// Announces that a source is not tried any more.
    pub fn disable(&self, source: SourceId, reason: String) {
        let mut state = self.shared.state();
        let slot = state.slot(source);
        slot.note_connection(Connection::Lost, Some(&reason));
        let name = slot.name.to_string();
        drop(state);
        self.announce(source, name, SourceState::Lost, reason);
    }

    fn announce(&self, id: SourceId, source: String, state: SourceState, reason: String) {
        let reason = Some(reason);
        self.shared.announcer.announce(Event::Source { state, id, source, reason });
    }

    /// The name of a source.
    #[must_use]
    pub fn name(&self, source: SourceId) -> String {
        self.shared.state().slot(source).name.to_string()
    }

    /// Whether nothing is mined any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.shared.state().stopped
    }

    /// How all sources do, in their order.
    #[must_use]
    pub fn health(&mut self) -> Vec<Health> {
        self.health.borrow_and_update().clone()
    }

    /// The source that is to be mined as long as it is healthy, whatever its place in the order.
    #[must_use]
    pub fn preferred(&mut self) -> Option<SourceId> {
        *self.preferred.borrow_and_update()
    }

    /// Resolves when one of the sources does better or worse than when it was last asked, or another
    /// source is preferred.
    pub async fn changed(&mut self) {
        tokio::select! {
            // The senders live in `shared`, so neither can fail.
            _ = self.health.changed() => {}
            _ = self.preferred.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::min_difficulty::Stage;
    use crate::engine::{Engine, Goal, SourceInfo};
    use crate::event::{Announcement, Announcer, Listener};

    /// An engine with two sources and nothing that hashes, and what it announces.
    fn engine() -> (Engine, Sources, Listener) {
        let (announcer, events) = Announcer::new();
        let sources = ["a", "b"].map(|name| SourceInfo::new(name, "test")).to_vec();
        let (engine, sources) =
            Engine::with_sources(Vec::new(), sources, Goal::default(), announcer).unwrap();
        (engine, sources, events)
    }

    #[test]
    fn a_source_that_is_idle_is_healthy_until_it_is_degraded() {
        let (_engine, mut sources, _events) = engine();
        let port = sources.open(SourceId(0));
        assert!(!sources.health()[0].is_healthy());
        port.idle();
        assert!(sources.health()[0].is_healthy());
        port.source_is(SourceState::Lost, None);
        assert!(!sources.health()[0].is_healthy());
        port.source_is(SourceState::Connected, None);
        assert!(sources.health()[0].is_healthy());
        port.clear_job();
        assert!(!sources.health()[0].is_healthy());
        sources.close(SourceId(0));
        port.idle();
        assert!(!sources.health()[0].is_healthy(), "it was told to go");
    }

    #[test]
    fn the_stage_of_a_source_is_told_when_it_is_chosen() {
        let (_engine, sources, events) = engine();
        let stages = || {
            let stage = |told: Announcement| match told.event {
                Event::Stage { stage, .. } => Some(stage),
                _ => None,
            };
            events.try_iter().filter_map(stage).collect::<Vec<_>>()
        };
        let (first, second) = (sources.open(SourceId(0)), sources.open(SourceId(1)));
        let difficulty = crate::chain::target::Target::max().difficulty();
        first.stage(Stage::PeriodStart, difficulty);
        assert_eq!(stages(), [Stage::PeriodStart]);
        second.stage(Stage::Period { last: 7 }, difficulty);
        assert_eq!(stages(), [], "what is not mined is no news");
        sources.choose(SourceId(1), "because".to_owned());
        assert_eq!(stages(), [Stage::Period { last: 7 }]);
        second.stage(Stage::Period { last: 8 }, difficulty);
        sources.choose(SourceId(0), "because".to_owned());
        assert_eq!(stages(), [Stage::Period { last: 8 }, Stage::PeriodStart]);
    }
}
