//! The engine owns the search space: it cuts jobs into work units, keeps every backend fed, hashes
//! each candidate again, and counts.

mod meter;
mod search_space;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Network};
use tokio::sync::{mpsc, watch};

pub use self::search_space::{SearchSpace, Taken};
pub use self::seats::{Health, Seats};

use self::meter::Meter;
use self::seats::Seat;
use crate::chain::merkle;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{Announcer, Event, SourceState, Summary, Tally};
use crate::job::{Candidate, Job, Refusal, Solution, Verdict, WorkUnit};
use crate::scan::{BackendError, BackendInfo, Feed, Hit, Scanner};

/// How many solutions may wait for their source. A source that does not keep up loses what comes
/// on top (said and counted as stale): scanners wait for nobody.
const SOLUTIONS_WAITING: usize = 4096;

/// How many nonces of an easy job are tried by whoever publishes it, before a scanner's thread is
/// woken: hashing them takes a few microseconds, and waking a thread tens of them.
const SIP: u64 = 64;
/// Up to so many hashes on the average a job is easy enough for that.
const EASY: f64 = 64.0;

/// A backend that reported so many candidates that are none is left out, unless it has been right
/// far more often: a flipped bit now and then costs less than a backend.
const ERRORS_MAX: u64 = 10;
/// Of so many hits one may be wrong.
const HITS_AN_ERROR: u64 = 10;

/// What is known of a backend's reliability.
#[derive(Debug, Default)]
struct Record {
    /// Candidates that it reported.
    hits: AtomicU64,
    /// Those whose hash was not what it said.
    errors: AtomicU64,
    /// Whether it is left out from now on.
    is_out: AtomicBool,
}

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

    /// Counts a verdict and announces it.
    fn judge(&self, state: &mut State, solution: &Solution, verdict: Verdict) {
        let block = solution.is_block();
        let share = !solution.job.ends_when_solved;
        if share {
            state.shares.count(&verdict);
            self.announcer.announce(Event::Share {
                verdict: verdict.clone(),
                difficulty: solution.difficulty(),
                hash: solution.hash,
                latency: solution.found.elapsed(),
            });
        }
        if block {
            state.blocks.count(&verdict);
            self.announcer.announce(Event::Block {
                verdict,
                height: solution.job.height,
                header: solution.header,
                hash: solution.hash,
            });
        }
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
        for Unanswered { solution, .. } in unanswered.values() {
            let why = Refusal::new("", "the source had not answered when adit stopped");
            shared.judge(&mut state, solution, Verdict::Unknown(why));
        }
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

/// A source's side of the engine: jobs and verdicts go in, solutions come out. Whether its jobs are
/// the ones that are mined is nothing that the source need know.
pub struct Port {
    shared: Arc<Shared>,
    seat: usize,
    solutions: mpsc::Receiver<Solution>,
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
    /// solution for one height.
    pub fn publish(&self, job: Job) {
        let job = Arc::new(job);
        let shared = &self.shared;
        let mut state = shared.state();
        let is_chosen = state.chosen == self.seat;
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
        shared.is_now(self.seat, seat, Health { is_ready: true, in_trouble: false });
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
        self.shared.judge(&mut state, solution, verdict);
    }

    /// The next solution; `None` when it is time to go.
    pub async fn solution(&mut self) -> Option<Solution> {
        self.solutions.recv().await
    }
}

/// One backend's side of the engine.
struct BackendFeed {
    shared: Arc<Shared>,
    backend: usize,
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
        if !job.share_target.is_met_by(&hash) {
            // Looking at the top 32 bits alone lets near misses through. Anything else is a lie.
            if !job.share_target.hit_mask().admits(u32::from_be_bytes([a, b, c, d])) {
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
        let is_stale = unit.generation < seat.valid_from;
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
            shared.judge(&mut state, &solution, Verdict::Stale(why));
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
            shared.judge(&mut state, &solution, Verdict::Stale(why));
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
    fn failed(&self, why: BackendError) {
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
            self.failed(BackendError::Lies(text));
        }
    }
}
