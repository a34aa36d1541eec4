//! One backend's side of the engine: units go out to it, and each hit is hashed again.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;

use super::search_space::NextWork;
use super::state::{Backend, Shared, Unanswered};
use crate::chain::merkle;
use crate::event::Event;
use crate::job::{Job, RejectReason, Solution, SourceId, Verdict};
use crate::scan::{BackendError, Candidate, Feed, Hit, HitMask, Throttle, WorkUnit};

/// A backend with this many candidates that failed verification is disabled, unless it has been right
/// far more often: a flipped bit now and then costs less than a backend.
const ERRORS_MAX: u64 = 10;
/// One of this many hits may be wrong.
const HITS_AN_ERROR: u64 = 10;

/// How many nonces of an easy job are tried by the thread that publishes it, before a scanner's thread
/// is woken: hashing them takes a few microseconds, and waking a thread tens of them.
const INLINE_LIMIT: u64 = 64;
/// A job that takes at most this many hashes on average is easy enough for that.
const INLINE_HASHES_MAX: f64 = 64.0;

/// One backend's side of the engine.
pub(super) struct BackendFeed {
    pub(super) shared: Arc<Shared>,
    pub(super) backend: usize,
}

impl Feed for BackendFeed {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        let mut state = self.shared.state();
        loop {
            if state.stopped || self.backend().has_failed() {
                return None;
            }
            let is_paused = !state.pauses.is_empty();
            let space = state.chosen().space.as_mut().filter(|_| !is_paused);
            let next = space.map(|s| s.take(midstates, nonces, Instant::now()));
            let wait = match next {
                Some(NextWork::Unit(unit)) => return Some(unit),
                Some(NextWork::Later(wait)) => wait,
                // The next job and the end of a pause wake us; the hour only bounds a wait that
                // nothing ends.
                Some(NextWork::Exhausted) | None => Duration::from_secs(3600),
            };
            state = match self.shared.wake.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn try_next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        if self.backend().has_failed() {
            return None;
        }
        let mut state = self.shared.state();
        if !state.pauses.is_empty() {
            return None;
        }
        match state.chosen().space.as_mut()?.take(midstates, nonces, Instant::now()) {
            NextWork::Unit(unit) => Some(unit),
            NextWork::Later(_) | NextWork::Exhausted => None,
        }
    }

    fn give_back(&self, unit: WorkUnit) {
        if let Some(space) = &mut self.shared.state().slot(unit.source).space {
            space.put_back(unit);
        }
        // A backend may be waiting that has found all handed out.
        self.shared.wake.notify_all();
    }

    fn wants(&self, unit: &WorkUnit) -> bool {
        unit.generation == self.shared.generation.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.backend().has_failed() || self.shared.state().stopped
    }

    fn is_paused(&self) -> bool {
        self.shared.is_paused.load(Ordering::Relaxed)
    }

    fn throttle(&self) -> Throttle {
        self.backend().throttle.get()
    }

    #[cold]
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        let shared = &self.shared;
        self.backend().hits.fetch_add(1, Ordering::Relaxed);
        let job = &unit.template.job;
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
            // Looking at the top 32 bits alone lets near misses through. Anything else is a hardware error.
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
        let stopped = state.stopped;
        let slot = state.slot(unit.source);
        if stopped || unit.generation < slot.surplus_before {
            return ControlFlow::Break(());
        }
        // A block on the tip is a block, whatever the source has replaced the job by.
        let is_stale = unit.generation < slot.valid_from
            && !(is_block && slot.tip == Some(job.previous_block_hash));
        if is_block && !is_stale && !job.ends_when_solved {
            let is_first = slot.block_found(job);
            if !is_first && !is_share {
                // Where blocks are easier than shares, one on each tip is enough.
                return ControlFlow::Break(());
            }
        }
        let id = state.next_solution;
        state.next_solution += 1;
        state.note_hash(&hash);
        let solution = Solution {
            id,
            job: job.clone(),
            extranonce: unit.template.extranonce,
            header,
            hash,
            found: Instant::now(),
        };
        if is_stale {
            let why = RejectReason::new("", "found for a job that had been replaced; not sent");
            shared.judge(&mut state, unit.source, &solution, Verdict::Stale(why));
            return ControlFlow::Break(());
        }
        let is_chosen = state.chosen == unit.source;
        let slot = state.slot(unit.source);
        if job.ends_when_solved {
            slot.solved = Some(job.previous_block_hash);
            slot.space = None;
            // The units of the source that is mined stay wanted when another source's job is solved.
            slot.surplus_before = if is_chosen {
                shared.next_generation()
            } else {
                shared.generation.load(Ordering::Relaxed) + 1
            };
        }
        let sent = slot.solutions.as_ref().is_some_and(|to| to.try_send(solution.clone()).is_ok());
        if sent {
            state.unanswered.insert(id, Unanswered { source: unit.source, solution });
        } else {
            let why = RejectReason::new("", "dropped: source queue full");
            shared.judge(&mut state, unit.source, &solution, Verdict::Stale(why));
        }
        drop(state);
        self.unless_replaced(unit)
    }

    fn count(&self, thread: usize, hashes: u64) {
        self.backend().meter.add(thread, hashes);
    }

    fn interrupted(&self, why: Option<String>) {
        *self.backend().interruption.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

impl BackendFeed {
    /// `Break` if the unit's job is no longer the one that is mined.
    fn unless_replaced(&self, unit: &WorkUnit) -> ControlFlow<()> {
        if self.wants(unit) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn backend(&self) -> &Backend {
        &self.shared.backends[self.backend]
    }

    /// Disables the backend, says why, and ends the run when it was the last.
    pub(super) fn failed(&self, why: BackendError) {
        let shared = &self.shared;
        let reason = why.to_string();
        if self.backend().failure.set(why).is_err() {
            return;
        }
        let backend = self.backend().info.id;
        shared.announcer.announce(Event::BackendFailed { backend, reason });
        shared.state().failed_last = Some(self.backend);
        if shared.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.stop(&mut shared.state());
        }
        shared.wake.notify_all();
    }

    /// Counts a candidate that failed verification and says what differed.
    fn hardware_error(&self, detail: String) {
        let Backend { info, hits, errors, .. } = self.backend();
        self.shared.announcer.announce(Event::HardwareError { backend: info.id, detail });
        let errors = errors.fetch_add(1, Ordering::Relaxed) + 1;
        let hits = hits.load(Ordering::Relaxed);
        if errors >= ERRORS_MAX && errors.saturating_mul(HITS_AN_ERROR) > hits {
            let text = format!("{errors} of {hits} reported candidates failed verification");
            self.failed(BackendError::WrongResult(text));
        }
    }
}

impl Shared {
    /// Announces the job whose search space is the chosen source's now, and has it begun.
    pub(super) fn begin(self: &Arc<Self>, source: SourceId, job: &Job) {
        self.announcer.announce(Event::Job {
            source,
            height: job.height,
            previous_block_hash: job.previous_block_hash,
            difficulty: job.share_target.difficulty(),
            clean: job.clean,
        });
        if job.ends_when_solved
            && job.share_target.difficulty().expected_hashes() <= INLINE_HASHES_MAX
        {
            self.scan_inline();
        }
        if self.state().chosen().space.is_some() {
            self.wake.notify_all();
        }
    }

    /// Tries the first nonces of the current job on this thread.
    fn scan_inline(self: &Arc<Self>) {
        for (index, backend) in self.backends.iter().enumerate() {
            let feed = BackendFeed { shared: self.clone(), backend: index };
            if backend.scanner.scan_inline(&feed, INLINE_LIMIT) {
                return;
            }
        }
    }
}
