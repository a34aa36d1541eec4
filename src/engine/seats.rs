//! Several sources at one engine: each has a seat, and one seat's job is mined.
//!
//! A source keeps its seat up to date whether it is chosen or not, so that a switch takes no longer
//! than a job change. What is found goes to the source whose job it solves, also when another is
//! mined by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::BlockHash;
use tokio::sync::{mpsc, watch};

use super::confirmation::Confirmations;
use super::{Port, SOLUTIONS_WAITING, SearchSpace, Shared, State, Unanswered};
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{Event, SourceState};
use crate::job::{Job, Refusal, Solution, Verdict};

/// How many jobs that were replaced or withdrawn are remembered, so that the same work is not done
/// again when a pool sends it once more.
const SHELF: usize = 8;

/// How a source does, as far as its port tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It has published a job and not withdrawn it, or has said that nothing is to be mined now.
    pub is_ready: bool,
    /// Its last word was that it is lost or tries again.
    pub in_trouble: bool,
}

impl Health {
    /// Whether there is something to mine, or rightly nothing, and somebody to take what is found.
    #[must_use]
    pub const fn is_well(self) -> bool {
        self.is_ready && !self.in_trouble
    }
}

/// What the engine keeps for one source.
#[derive(Debug)]
pub(super) struct Seat {
    /// The source as a person names it.
    pub(super) name: String,
    /// What is left of its current job.
    pub(super) space: Option<SearchSpace>,
    /// What is left of jobs that are not mined now, the oldest first.
    shelf: VecDeque<SearchSpace>,
    /// Candidates of units before this generation are stale, unless they are blocks on the tip.
    pub(super) valid_from: u64,
    /// The block that its current job builds on.
    pub(super) tip: Option<BlockHash>,
    /// The tip on which a block was found for a source that asks for shares.
    pub(super) block_found_on: Option<BlockHash>,
    /// Blocks that a pool has been given, until its next job shows what became of them.
    pub(super) confirmations: Confirmations,
    /// The block on top of which a solution was found that has no verdict yet: no second one is
    /// sought.
    pub(super) solved: Option<BlockHash>,
    /// Candidates of units before this generation are surplus: their height is solved.
    pub(super) surplus_before: u64,
    /// Gone when the source is to end.
    pub(super) solutions: Option<mpsc::Sender<Solution>>,
    pub(super) health: Health,
    /// Which difficulty the source mines under the twenty-minute rule, as it said last.
    pub(super) stage: Option<(Stage, Difficulty)>,
}

impl Seat {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            space: None,
            shelf: VecDeque::with_capacity(SHELF),
            valid_from: 0,
            tip: None,
            block_found_on: None,
            confirmations: Confirmations::default(),
            solved: None,
            surplus_before: 0,
            solutions: None,
            health: Health::default(),
            stage: None,
        }
    }

    /// Puts what is left of the current job aside. A job that its first solution ends is never
    /// carried on.
    fn shelve(&mut self) {
        let Some(space) = self.space.take().filter(|space| !space.job().ends_when_solved) else {
            return;
        };
        if self.shelf.len() == SHELF {
            self.shelf.pop_front();
        }
        self.shelf.push_back(space);
    }

    /// Makes a job the current one: what is left of the same work, or all of it.
    pub(super) fn take_up(&mut self, job: &Arc<Job>, source: usize, generation: u64) {
        self.shelve();
        let left = |space: &SearchSpace| space.carried_on(job, generation);
        let found = if job.ends_when_solved {
            None
        } else {
            self.shelf.iter().enumerate().rev().find_map(|(at, space)| Some((at, left(space)?)))
        };
        let space = match found {
            Some((at, space)) => {
                self.shelf.remove(at);
                space
            }
            None => SearchSpace::new(job.clone(), generation),
        };
        self.tip = Some(job.previous_block_hash);
        self.space = Some(space.of_source(source));
        self.seek_shares_only();
    }

    /// Stops seeking blocks that are no shares, where one was found on the tip already.
    fn seek_shares_only(&mut self) {
        if let Some(space) = &mut self.space
            && self.block_found_on == Some(space.job().previous_block_hash)
        {
            space.seek_shares_only();
        }
    }

    /// A block was found for a source that asks for shares. Whether it is the first on its tip.
    pub(super) fn block_found(&mut self, job: &Job) -> bool {
        let tip = Some(job.previous_block_hash);
        let is_first = self.block_found_on != tip;
        self.block_found_on = tip;
        self.seek_shares_only();
        is_first
    }
}

impl Shared {
    /// Notes how the source of `seat` does, and tells whoever chooses, if that is news.
    pub(super) fn is_now(&self, index: usize, seat: &mut Seat, health: Health) {
        if seat.health != health {
            seat.health = health;
            self.health.send_modify(|all| all[index] = health);
        }
    }

    /// Takes the job of a seat away, if it has one; how its source does then.
    pub(super) fn withdraw(&self, state: &mut State, index: usize, health: Health) {
        let is_chosen = state.chosen == index;
        let seat = &mut state.seats[index];
        seat.shelve();
        seat.tip = None;
        seat.valid_from = if is_chosen {
            self.next_generation()
        } else {
            self.generation.load(Ordering::Relaxed) + 1
        };
        self.is_now(index, seat, health);
    }
}

/// The seats of an engine, as whoever chooses among the sources sees them. The first is chosen until
/// another is.
pub struct Seats {
    shared: Arc<Shared>,
    health: watch::Receiver<Vec<Health>>,
}

impl Seats {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        let health = shared.health.subscribe();
        Self { shared, health }
    }

    /// A port for the source that takes this seat. One that was opened before ends.
    #[must_use]
    pub fn open(&self, seat: usize) -> Port {
        let (to_source, solutions) = mpsc::channel(SOLUTIONS_WAITING);
        let mut state = self.shared.state();
        if !state.stopped {
            state.seats[seat].solutions = Some(to_source);
        }
        Port { shared: self.shared.clone(), seat, solutions }
    }

    /// Tells the source on this seat that it is time to go; what it has not answered may still be.
    pub fn close(&self, seat: usize) {
        let mut state = self.shared.state();
        self.shared.withdraw(&mut state, seat, Health::default());
        let left = &mut state.seats[seat];
        left.solutions = None;
        left.solved = None;
        left.stage = None;
    }

    /// Counts what the source on this seat, which has ended, left without an answer.
    pub fn settle(&self, seat: usize) {
        let mut state = self.shared.state();
        if state.stopped {
            // The end of it all does that.
            return;
        }
        let left = |unanswered: &Unanswered| unanswered.seat == seat;
        let ids: Vec<u64> =
            state.unanswered.iter().filter(|(_, it)| left(it)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Unanswered { solution, .. }) = state.unanswered.remove(&id) {
                let why = Refusal::new("", "the source had not answered when it was left");
                self.shared.judge(&mut state, seat, &solution, Verdict::Unknown(why));
            }
        }
    }

    /// Mines the job of this seat from now on, where it was left.
    pub fn choose(&self, seat: usize, reason: String) {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.stopped || state.chosen == seat {
            return;
        }
        state.chosen = seat;
        let generation = shared.next_generation();
        let chosen = state.chosen();
        let source = chosen.name.clone();
        let job = chosen.space.as_mut().map(|space| {
            space.renew(generation);
            space.job().clone()
        });
        let stage = chosen.stage;
        // Under the lock: what the source itself says comes before or after.
        self.announce(source, SourceState::Connected, reason);
        if let Some((stage, difficulty)) = stage {
            shared.announcer.announce(Event::Stage { stage, difficulty });
        }
        drop(state);
        if let Some(job) = job {
            shared.begin(&job);
        }
    }

    /// Announces that a source is not tried any more.
    pub fn leave_out(&self, seat: usize, reason: String) {
        let name = self.name(seat);
        self.announce(name, SourceState::Lost, reason);
    }

    fn announce(&self, source: String, state: SourceState, reason: String) {
        let reason = Some(reason);
        self.shared.announcer.announce(Event::Source { state, source, reason });
    }

    /// The name of a seat's source.
    #[must_use]
    pub fn name(&self, seat: usize) -> String {
        self.shared.state().seats[seat].name.clone()
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

    /// Resolves when one of the sources does better or worse than when it was last asked.
    pub async fn changed(&mut self) {
        // The sender lives in `shared`, so this cannot fail.
        let _ = self.health.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Goal};
    use crate::event::{Announcement, Announcer};

    /// An engine with two sources and nothing that hashes, and what it announces.
    fn engine() -> (Engine, Seats, std::sync::mpsc::Receiver<Announcement>) {
        let (announcer, events) = Announcer::new();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let (engine, seats) =
            Engine::with_sources(Vec::new(), names, Goal::default(), announcer).unwrap();
        (engine, seats, events)
    }

    #[test]
    fn a_source_that_rests_is_well_until_it_is_in_trouble() {
        let (_engine, mut seats, _events) = engine();
        let port = seats.open(0);
        assert!(!seats.health()[0].is_well());
        port.rests();
        assert!(seats.health()[0].is_well());
        port.source_is(SourceState::Lost, None);
        assert!(!seats.health()[0].is_well());
        port.source_is(SourceState::Connected, None);
        assert!(seats.health()[0].is_well());
        port.withdraw();
        assert!(!seats.health()[0].is_well());
        seats.close(0);
        port.rests();
        assert!(!seats.health()[0].is_well(), "it was told to go");
    }

    #[test]
    fn the_stage_of_a_source_is_told_when_it_is_chosen() {
        let (_engine, seats, events) = engine();
        let stages = || {
            let stage = |told: Announcement| match told.event {
                Event::Stage { stage, .. } => Some(stage),
                _ => None,
            };
            events.try_iter().filter_map(stage).collect::<Vec<_>>()
        };
        let (first, second) = (seats.open(0), seats.open(1));
        let difficulty = crate::chain::target::Target::max().difficulty();
        first.stage(Stage::PeriodStart, difficulty);
        assert_eq!(stages(), [Stage::PeriodStart]);
        second.stage(Stage::Period { last: 7 }, difficulty);
        assert_eq!(stages(), [], "what is not mined is no news");
        seats.choose(1, "because".to_owned());
        assert_eq!(stages(), [Stage::Period { last: 7 }]);
        second.stage(Stage::Period { last: 8 }, difficulty);
        seats.choose(0, "because".to_owned());
        assert_eq!(stages(), [Stage::Period { last: 8 }, Stage::PeriodStart]);
    }
}
