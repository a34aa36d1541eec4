//! What all sides of the engine share: the counters, and the state behind the mutex.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use tokio::sync::watch;

use super::meter::Meter;
use super::slot::{Health, SourceSlot};
use crate::event::{Announcer, PauseReasons, Tally};
use crate::job::{Solution, SourceId, Verdict};
use crate::scan::{BackendError, BackendInfo, Scanner, SharedThrottle, Throttle};

/// When a run is to stop by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goal {
    /// After this many accepted blocks.
    pub blocks: Option<u64>,
    /// After this many accepted shares.
    pub shares: Option<u64>,
}

/// What the engine keeps for one backend.
pub(super) struct Backend {
    pub(super) info: BackendInfo,
    pub(super) scanner: Arc<dyn Scanner>,
    pub(super) meter: Meter,
    /// Candidates that it reported.
    pub(super) hits: AtomicU64,
    /// Those whose hash differs from what it claimed.
    pub(super) errors: AtomicU64,
    /// Why it is disabled, once it is.
    pub(super) failure: OnceLock<BackendError>,
    /// Why it does not hash for a while, where it says so.
    pub(super) interruption: Mutex<Option<String>>,
    /// The share of the time that it hashes.
    pub(super) throttle: SharedThrottle,
}

impl Backend {
    pub(super) fn new(scanner: Arc<dyn Scanner>) -> Self {
        let info = scanner.info();
        Self {
            meter: Meter::new(info.threads),
            info,
            scanner,
            hits: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failure: OnceLock::new(),
            interruption: Mutex::new(None),
            throttle: SharedThrottle::new(Throttle::NONE),
        }
    }

    /// Why it does not hash, for a while or for good, where there is a reason.
    pub(super) fn fault(&self) -> Option<String> {
        let of_now = || self.interruption.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.failure.get().map(ToString::to_string).or_else(of_now)
    }

    /// Whether it is disabled.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }
}

/// What all of the engine's sides share.
pub(super) struct Shared {
    /// Counts job changes: bumped whenever units handed out before are no longer wanted.
    pub(super) generation: AtomicU64,
    state: Mutex<State>,
    /// Notified when there may be something for a waiting backend.
    pub(super) wake: Condvar,
    /// Whether hashing is paused, as [`State::pauses`] has it, for those who do not hold the state.
    pub(super) is_paused: AtomicBool,
    pub(super) backends: Vec<Backend>,
    /// Backends that have not failed.
    pub(super) alive: AtomicUsize,
    pub(super) announcer: Announcer,
    pub(super) goal: Goal,
    /// When the run began, by both clocks.
    pub(super) begun: (SystemTime, Instant),
    pub(super) stopping: watch::Sender<bool>,
    /// How each source does, in their order.
    pub(super) health: watch::Sender<Vec<Health>>,
    /// The source that is to be mined where it works, whatever its place.
    pub(super) preferred: watch::Sender<Option<SourceId>>,
    /// The hash rate over the last minute, as the bits of a float: not a number until it is measured.
    pub(super) hash_rate: AtomicU64,
}

/// What changes with every job and every solution.
#[derive(Debug)]
pub(super) struct State {
    /// One for each source, in their order; never empty.
    pub(super) slots: Vec<SourceSlot>,
    /// The source whose job is mined.
    pub(super) chosen: SourceId,
    /// Why nothing is handed out for a while.
    pub(super) pauses: PauseReasons,
    /// Nothing is handed out any more, and no solutions are taken.
    pub(super) stopped: bool,
    pub(super) next_solution: u64,
    /// Handed to a source and not answered yet.
    pub(super) unanswered: HashMap<u64, Unanswered>,
    /// Whether a source has answered.
    pub(super) started: bool,
    /// The lowest hash that was found.
    pub(super) best: Option<BlockHash>,
    pub(super) last_block: Option<LastBlock>,
    /// The backend that failed last.
    pub(super) failed_last: Option<usize>,
}

/// A solution that waits for its source's answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) source: SourceId,
    pub(super) solution: Solution,
}

/// The block whose verdict came last.
#[derive(Clone, Debug)]
pub struct LastBlock {
    /// When its verdict came.
    pub time: SystemTime,
    /// Its height, where that is known.
    pub height: Option<u32>,
    /// Its hash.
    pub hash: BlockHash,
    /// Its verdict, in the word that `--json` promises.
    pub result: &'static str,
}

impl State {
    /// What is kept for this source.
    pub(super) fn slot(&mut self, source: SourceId) -> &mut SourceSlot {
        &mut self.slots[source.index()]
    }

    /// What is kept for the source whose job is mined.
    pub(super) fn chosen(&mut self) -> &mut SourceSlot {
        self.slot(self.chosen)
    }

    /// The verdicts on blocks, of all sources together.
    pub(super) fn blocks(&self) -> Tally {
        self.slots.iter().map(|slot| slot.blocks).sum()
    }

    /// The verdicts on shares, of all sources together.
    pub(super) fn shares(&self) -> Tally {
        self.slots.iter().map(|slot| slot.shares).sum()
    }

    /// Counts a block's verdict, in place of `unknown` if that was counted before: by the same source
    /// as a rule, but a block may also be sent again by another.
    pub(super) fn count_block(&mut self, source: SourceId, verdict: &Verdict, was_unknown: bool) {
        if was_unknown {
            let own = source.index();
            let others = (0..self.slots.len()).filter(|index| *index != own);
            for index in std::iter::once(own).chain(others) {
                let unknown = &mut self.slots[index].blocks.unknown;
                if *unknown > 0 {
                    *unknown -= 1;
                    break;
                }
            }
        }
        self.slot(source).blocks.count(verdict);
    }

    /// Notes the hash of a solution, if it is the lowest so far.
    pub(super) fn note_hash(&mut self, hash: &BlockHash) {
        // As numbers, hashes have their lowest byte first.
        let number = |hash: &BlockHash| {
            let mut bytes = hash.to_byte_array();
            bytes.reverse();
            bytes
        };
        if self.best.as_ref().is_none_or(|best| number(hash) < number(best)) {
            self.best = Some(*hash);
        }
    }
}

impl Shared {
    /// For these scanners and sources.
    pub(super) fn new(
        scanners: Vec<Arc<dyn Scanner>>,
        slots: Vec<SourceSlot>,
        goal: Goal,
        announcer: Announcer,
    ) -> Self {
        Self {
            generation: AtomicU64::new(0),
            alive: AtomicUsize::new(scanners.len()),
            health: watch::Sender::new(vec![Health::default(); slots.len()]),
            state: Mutex::new(State {
                slots,
                chosen: SourceId::default(),
                pauses: PauseReasons::default(),
                stopped: false,
                next_solution: 0,
                unanswered: HashMap::new(),
                started: false,
                best: None,
                last_block: None,
                failed_last: None,
            }),
            wake: Condvar::new(),
            is_paused: AtomicBool::new(false),
            backends: scanners.into_iter().map(Backend::new).collect(),
            announcer,
            goal,
            begun: (SystemTime::now(), Instant::now()),
            stopping: watch::Sender::new(false),
            preferred: watch::Sender::new(None),
            hash_rate: AtomicU64::new(f64::NAN.to_bits()),
        }
    }

    /// The state. A panic elsewhere while it was held leaves nothing half done that matters.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes so far, a figure for each backend.
    pub(super) fn hashes(&self) -> Vec<u64> {
        self.backends.iter().map(|backend| backend.meter.total()).collect()
    }

    /// Candidates that failed verification, of all backends together.
    pub(super) fn hardware_errors(&self) -> u64 {
        self.backends.iter().map(|backend| backend.errors.load(Ordering::Relaxed)).sum()
    }

    /// Makes every unit handed out so far unwanted.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    /// Stops handing out work and taking solutions; what was taken may still be answered.
    pub(super) fn stop(&self, state: &mut State) {
        state.stopped = true;
        for slot in &mut state.slots {
            slot.space = None;
            slot.solutions = None;
        }
        self.next_generation();
        self.wake.notify_all();
        self.stopping.send_replace(true);
    }

    /// Notes how a source does, and tells those who choose among the sources, if that is news.
    pub(super) fn is_now(&self, source: SourceId, slot: &mut SourceSlot, health: Health) {
        if slot.health != health {
            slot.health = health;
            self.health.send_modify(|all| all[source.index()] = health);
        }
    }

    /// Takes a source's job away, if it has one, and notes how the source does then.
    pub(super) fn clear_job(&self, state: &mut State, source: SourceId, health: Health) {
        let is_chosen = state.chosen == source;
        let slot = state.slot(source);
        slot.park();
        slot.tip = None;
        slot.job = None;
        slot.valid_from = if is_chosen {
            self.next_generation()
        } else {
            self.generation.load(Ordering::Relaxed) + 1
        };
        self.is_now(source, slot, health);
    }
}
