//! The engine owns the search space: it cuts jobs into work units, keeps every backend fed, hashes
//! each candidate again, and counts.

mod confirmation;
mod feed;
mod meter;
mod port;
mod search_space;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::watch;

pub use self::port::{Port, ReportedBlock};
pub use self::search_space::{SearchSpace, Taken};
pub use self::seats::{Health, Seats};

use self::feed::{BackendFeed, Record};
use self::meter::Meter;
use self::seats::Seat;
use crate::event::{Announcer, Event, Summary, Tally};
use crate::job::{Job, Refusal, Solution, Verdict};
use crate::scan::{BackendError, BackendInfo, Scanner};

/// How many solutions may wait for their source. A source that does not keep up loses what comes
/// on top (said and counted as stale): scanners wait for nobody.
const SOLUTIONS_WAITING: usize = 4096;

/// How many nonces of an easy job are tried by whoever publishes it, before a scanner's thread is
/// woken: hashing them takes a few microseconds, and waking a thread tens of them.
const SIP: u64 = 64;
/// Up to so many hashes on the average a job is easy enough for that.
const EASY: f64 = 64.0;

/// When to stop by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goal {
    /// After so many accepted blocks.
    pub blocks: Option<u64>,
    /// After so many accepted shares.
    pub shares: Option<u64>,
}

/// What all of the engine's sides share.
struct Shared {
    /// Counts job changes: bumped whenever units handed out before are no longer wanted.
    generation: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
    meters: Vec<Meter>,
    records: Vec<Record>,
    backends: Vec<BackendInfo>,
    scanners: Vec<Arc<dyn Scanner>>,
    /// Backends that have not failed.
    alive: AtomicUsize,
    hardware_errors: AtomicU64,
    announcer: Announcer,
    goal: Goal,
    begun: Instant,
    stopping: watch::Sender<bool>,
    /// How each source does, by its seat.
    health: watch::Sender<Vec<Health>>,
}

#[derive(Debug)]
struct State {
    /// One for each source, in their order; never empty.
    seats: Vec<Seat>,
    /// The seat whose job is mined.
    chosen: usize,
    /// Nothing is handed out any more, and no solutions are taken.
    stopped: bool,
    next_solution: u64,
    /// Handed to a source and not answered yet.
    unanswered: HashMap<u64, Unanswered>,
    blocks: Tally,
    shares: Tally,
    started: bool,
    /// The backend that failed last, and why.
    failure: Option<(String, BackendError)>,
}

#[derive(Debug)]
struct Unanswered {
    seat: usize,
    solution: Solution,
}

impl State {
    /// The seat whose job is mined.
    fn chosen(&mut self) -> &mut Seat {
        &mut self.seats[self.chosen]
    }
}

impl Shared {
    /// The state. A panic elsewhere while it was held leaves nothing half done that matters.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every unit handed out so far unwanted.
    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    /// Stops handing out work and taking solutions; what was taken may still be answered.
    fn stop(&self, state: &mut State) {
        state.stopped = true;
        for seat in &mut state.seats {
            seat.space = None;
            seat.solutions = None;
        }
        self.next_generation();
        self.wake.notify_all();
        self.stopping.send_replace(true);
    }

    /// Tries the first nonces of the current job on this thread.
    fn sip(self: &Arc<Self>) {
        for (backend, scanner) in self.scanners.iter().enumerate() {
            let feed = BackendFeed { shared: self.clone(), backend };
            if scanner.sip(&feed, SIP) {
                return;
            }
        }
    }

    /// Announces the job whose search space is the chosen seat's now, and has it begun.
    fn begin(self: &Arc<Self>, job: &Job) {
        self.announcer.announce(Event::Job {
            height: job.height,
            previous_block_hash: job.previous_block_hash,
            difficulty: job.share_target.difficulty(),
            clean: job.clean,
        });
        if job.ends_when_solved && job.share_target.difficulty().expected_hashes() <= EASY {
            self.sip();
        }
        if self.state().chosen().space.is_some() {
            self.wake.notify_all();
        }
    }

    /// Counts the verdict on a solution of this seat's, and announces it.
    fn judge(&self, state: &mut State, seat: usize, solution: &Solution, verdict: Verdict) {
        // A pool may take a block as a share that we did not think to be one: not every share is sought
        // that it would take.
        let is_taken = verdict == Verdict::Accepted && !solution.job.ends_when_solved;
        if solution.is_share() || is_taken {
            state.shares.count(&verdict);
            self.announcer.announce(Event::Share {
                verdict: verdict.clone(),
                difficulty: solution.difficulty(),
                hash: solution.hash,
                latency: solution.found.elapsed(),
            });
        }
        if solution.is_block() {
            if solution.job.ends_when_solved {
                self.block(state, &ReportedBlock::of(solution, false), verdict);
            } else {
                self.pool_block(state, seat, solution, verdict);
            }
        }
        self.stop_at_goal(state);
    }

    /// Counts a block's verdict, in place of `unknown` if that was announced before, and announces
    /// it.
    fn block(&self, state: &mut State, block: &ReportedBlock, verdict: Verdict) {
        let ReportedBlock { height, header, was_unknown, resent } = *block;
        state.blocks.unknown = state.blocks.unknown.saturating_sub(u64::from(was_unknown));
        state.blocks.count(&verdict);
        let hash = header.block_hash();
        self.announcer.announce(Event::Block {
            verdict,
            height,
            header,
            hash,
            was_unknown,
            resent,
        });
    }

    /// Stops when as much was accepted as was asked for.
    fn stop_at_goal(&self, state: &mut State) {
        let reached = |goal: Option<u64>, tally: Tally| goal.is_some_and(|n| tally.accepted >= n);
        if reached(self.goal.blocks, state.blocks) || reached(self.goal.shares, state.shares) {
            self.stop(state);
        }
    }
}

/// Runs scanners and stands between them and a source.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts a thread for each scanner; they wait for the first job. The port is the one source's.
    ///
    /// `source` is the source's name, without secrets.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        scanners: Vec<Arc<dyn Scanner>>,
        source: String,
        goal: Goal,
        announcer: Announcer,
    ) -> std::io::Result<(Self, Port)> {
        let (engine, seats) = Self::with_sources(scanners, vec![source], goal, announcer)?;
        Ok((engine, seats.open(0)))
    }

    /// The same for several sources, of which one is mined at a time, at first the first.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn with_sources(
        scanners: Vec<Arc<dyn Scanner>>,
        sources: Vec<String>,
        goal: Goal,
        announcer: Announcer,
    ) -> std::io::Result<(Self, Seats)> {
        let backends: Vec<_> = scanners.iter().map(|scanner| scanner.info()).collect();
        let health = watch::Sender::new(vec![Health::default(); sources.len()]);
        let shared = Arc::new(Shared {
            generation: AtomicU64::new(0),
            state: Mutex::new(State {
                seats: sources.into_iter().map(Seat::new).collect(),
                chosen: 0,
                stopped: false,
                next_solution: 0,
                unanswered: HashMap::new(),
                blocks: Tally::default(),
                shares: Tally::default(),
                started: false,
                failure: None,
            }),
            wake: Condvar::new(),
            meters: backends.iter().map(|backend| Meter::new(backend.threads)).collect(),
            records: backends.iter().map(|_| Record::default()).collect(),
            backends: backends.clone(),
            scanners: scanners.clone(),
            alive: AtomicUsize::new(backends.len()),
            hardware_errors: AtomicU64::new(0),
            announcer,
            goal,
            begun: Instant::now(),
            stopping: watch::Sender::new(false),
            health,
        });
        let mut threads = Vec::with_capacity(scanners.len());
        for (backend, scanner) in scanners.into_iter().enumerate() {
            let feed = BackendFeed { shared: shared.clone(), backend };
            let thread = std::thread::Builder::new()
                .name(format!("{}-{backend}", backends[backend].backend))
                .spawn(move || {
                    let run = AssertUnwindSafe(|| scanner.run(&feed));
                    match std::panic::catch_unwind(run) {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => feed.failed(error),
                        Err(_) => feed.failed(BackendError::Device("a bug in adit".to_owned())),
                    }
                })?;
            threads.push(thread);
        }
        let seats = Seats::of(shared.clone());
        Ok((Self { shared, threads }, seats))
    }

    /// Stops: no more work is handed out, and the source's port ends once it is drained.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.stop(&mut shared.state());
    }

    /// Resolves when the engine stops, for whatever reason.
    pub async fn stopped(&self) {
        let mut stopping = self.shared.stopping.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Where no backend is left that could find anything: the last one, and why it failed.
    #[must_use]
    pub fn failure(&self) -> Option<(String, BackendError)> {
        let failure = self.shared.state().failure.clone();
        failure.filter(|_| self.shared.alive.load(Ordering::Acquire) == 0)
    }

    /// Whether something that was found waits for its answer.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        !self.shared.state().unanswered.is_empty()
    }

    /// Hashes so far, a figure a backend, in the order of the scanners.
    #[must_use]
    pub fn hashes(&self) -> Vec<(BackendInfo, u64)> {
        let totals = self.shared.meters.iter().map(Meter::total);
        self.shared.backends.iter().cloned().zip(totals).collect()
    }

    /// The sum of it all. Solutions that got no answer are counted as unknown, and announced so.
    /// Call it when the source has ended; waits for the scanners to end.
    #[must_use]
    pub fn finish(self) -> Summary {
        self.stop();
        for thread in self.threads {
            // A panic in there was caught and announced.
            let _ = thread.join();
        }
        let shared = self.shared;
        let mut state = shared.state();
        let unanswered = std::mem::take(&mut state.unanswered);
        for Unanswered { seat, solution } in unanswered.values() {
            let why = Refusal::new("", "the source had not answered when adit stopped");
            shared.judge(&mut state, *seat, solution, Verdict::Unknown(why));
        }
        shared.announce_unconfirmed(&state);
        Summary {
            elapsed: shared.begun.elapsed(),
            hashes: shared.meters.iter().map(Meter::total).sum(),
            blocks: state.blocks,
            shares: state.shares,
            hardware_errors: shared.hardware_errors.load(Ordering::Relaxed),
            events_lost: shared.announcer.lost(),
        }
    }
}
