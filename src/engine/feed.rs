//! One backend's side of the engine: units go out to it, and each hit is hashed again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;

use super::search_space::Taken;
use super::{Shared, Unanswered};
use crate::chain::merkle;
use crate::event::Event;
use crate::job::{Refusal, Solution, Verdict};
use crate::scan::{BackendError, Candidate, Feed, Hit, HitMask, WorkUnit};

/// A backend that reported so many candidates that are none is left out, unless it has been right
/// far more often: a flipped bit now and then costs less than a backend.
const ERRORS_MAX: u64 = 10;
/// Of so many hits one may be wrong.
const HITS_AN_ERROR: u64 = 10;

/// What is known of a backend's reliability.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Candidates that it reported.
    hits: AtomicU64,
    /// Those whose hash was not what it said.
    errors: AtomicU64,
    /// Whether it is left out from now on.
    is_out: AtomicBool,
}

/// One backend's side of the engine.
pub(super) struct BackendFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) backend: usize,
}

impl Feed for BackendFeed {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        let mut state = self.shared.state();
        loop {
            if state.stopped || self.is_out() {
                return None;
            }
            let space = state.chosen().space.as_mut();
            let taken = space.map(|s| s.take(midstates, nonces, Instant::now()));
            let wait = match taken {
                Some(Taken::Unit(unit)) => return Some(unit),
                Some(Taken::Later(wait)) => wait,
                // Whatever comes next wakes us; the hour only bounds a wait that nothing ends.
                Some(Taken::Exhausted) | None => Duration::from_secs(3600),
            };
            state = match self.shared.wake.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn try_next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        if self.is_out() {
            return None;
        }
        let mut state = self.shared.state();
        match state.chosen().space.as_mut()?.take(midstates, nonces, Instant::now()) {
            Taken::Unit(unit) => Some(unit),
            Taken::Later(_) | Taken::Exhausted => None,
        }
    }

    fn give_back(&self, unit: WorkUnit) {
        if let Some(space) = &mut self.shared.state().seats[unit.source].space {
            space.put_back(unit);
        }
        // A backend may be waiting that has found all dealt out.
        self.shared.wake.notify_all();
    }

    fn wants(&self, unit: &WorkUnit) -> bool {
        unit.generation == self.shared.generation.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.is_out() || self.shared.state().stopped
    }

    #[cold]
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        let shared = &self.shared;
        self.record().hits.fetch_add(1, Ordering::Relaxed);
        let job = &unit.prepared.job;
        let candidate = Candidate { unit, midstate: hit.midstate, nonce: hit.nonce };
        let nonces = u64::from(unit.nonces.first())..unit.nonces.end();
        if hit.midstate >= unit.midstates.len() || !nonces.contains(&u64::from(hit.nonce)) {
            self.hardware_error(format!("reported {hit:x?}, which it was not given"));
            return self.unless_replaced(unit);
        }
        let header = candidate.header();
        let hash = merkle::sha256d(&bitcoin::consensus::serialize(&header));
        let [.., a, b, c, d] = hash;
        let hash = BlockHash::from_byte_array(hash);
        let is_share = job.share_target.is_met_by(&hash);
        let is_block = job.network_target.is_met_by(&hash);
        if !is_share && !is_block {
            // Looking at the top 32 bits alone lets near misses through. Anything else is a lie.
            if !HitMask::for_target(unit.target).admits(u32::from_be_bytes([a, b, c, d])) {
                self.hardware_error(format!(
                    "reported nonce {:08x} of version {:08x}, whose hash is {hash}",
                    hit.nonce,
                    header.version.to_consensus().cast_unsigned(),
                ));
            }
            return self.unless_replaced(unit);
        }

        let mut state = shared.state();
        let seat = &state.seats[unit.source];
        if state.stopped || unit.generation < seat.surplus_before {
            return ControlFlow::Break(());
        }
        // A block on the tip is a block, whatever the source has replaced the job by.
        let is_stale = unit.generation < seat.valid_from
            && !(is_block && seat.tip == Some(job.previous_block_hash));
        if is_block && !is_stale && !job.ends_when_solved {
            let is_first = state.seats[unit.source].block_found(job);
            if !is_first && !is_share {
                // Where blocks are easier than shares, one on each tip is enough.
                return ControlFlow::Break(());
            }
        }
        let id = state.next_solution;
        state.next_solution += 1;
        let solution = Solution {
            id,
            job: job.clone(),
            extranonce: unit.prepared.extranonce,
            header,
            hash,
            found: Instant::now(),
        };
        if is_stale {
            let why = Refusal::new("", "found for a job that had been replaced; not sent");
            shared.judge(&mut state, unit.source, &solution, Verdict::Stale(why));
            return ControlFlow::Break(());
        }
        let is_chosen = state.chosen == unit.source;
        let seat = &mut state.seats[unit.source];
        if job.ends_when_solved {
            seat.solved = Some(job.previous_block_hash);
            seat.space = None;
            // The units of the seat that is mined stay wanted when another seat's job is solved.
            seat.surplus_before = if is_chosen {
                shared.next_generation()
            } else {
                shared.generation.load(Ordering::Relaxed) + 1
            };
        }
        let sent = seat.solutions.as_ref().is_some_and(|to| to.try_send(solution.clone()).is_ok());
        if sent {
            state.unanswered.insert(id, Unanswered { seat: unit.source, solution });
        } else {
            let why = Refusal::new("", "the source does not keep up; not sent");
            shared.judge(&mut state, unit.source, &solution, Verdict::Stale(why));
        }
        drop(state);
        self.unless_replaced(unit)
    }

    fn count(&self, thread: usize, hashes: u64) {
        self.shared.meters[self.backend].add(thread, hashes);
    }
}

impl BackendFeed {
    /// `Break` if the unit's job is no longer the one that is mined.
    fn unless_replaced(&self, unit: &WorkUnit) -> ControlFlow<()> {
        if self.wants(unit) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn record(&self) -> &Record {
        &self.shared.records[self.backend]
    }

    fn is_out(&self) -> bool {
        self.record().is_out.load(Ordering::Relaxed)
    }

    /// Leaves the backend out from now on, says why, and stops all when it was the last.
    pub(super) fn failed(&self, why: BackendError) {
        let shared = &self.shared;
        if self.record().is_out.swap(true, Ordering::AcqRel) {
            return;
        }
        let name = shared.backends[self.backend].name();
        let text = format!("backend {name} has failed and is left out: {why}");
        shared.announcer.announce(Event::BackendFailed(text));
        shared.state().failure = Some((name, why));
        if shared.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.stop(&mut shared.state());
        }
        shared.wake.notify_all();
    }

    /// Counts a candidate that is none and says what differed.
    fn hardware_error(&self, detail: String) {
        let shared = &self.shared;
        shared.hardware_errors.fetch_add(1, Ordering::Relaxed);
        let backend = shared.backends[self.backend].name();
        shared.announcer.announce(Event::HardwareError { backend, detail });
        let Record { hits, errors, .. } = self.record();
        let errors = errors.fetch_add(1, Ordering::Relaxed) + 1;
        let hits = hits.load(Ordering::Relaxed);
        if errors >= ERRORS_MAX && errors.saturating_mul(HITS_AN_ERROR) > hits {
            let text = format!("{errors} of the {hits} candidates that it reported are none");
            self.failed(BackendError::WrongResult(text));
        }
    }
}
