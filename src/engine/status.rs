//! The state of a run at one moment, read from the engine's own counters: unlike events, which a slow
//! listener may lose, it is always complete.

use std::time::{Duration, Instant, SystemTime};

use bitcoin::{BlockHash, Network};

use super::rates::{RateHistory, Rates};
use super::slot::{Connection, SourceSlot};
use super::state::{Backend, LastBlock, Shared, State};
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{PauseReasons, Tally};
use crate::job::SourceId;
use crate::scan::{BackendId, BackendInfo, Throttle};
use crate::units::Joules;

/// The state of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// What it does.
    pub run: RunState,
    /// When it began.
    pub started: SystemTime,
    /// How long ago that was when this was read.
    pub uptime: Duration,
    /// (version, nonce) pairs tried, by all backends together.
    pub hashes: u64,
    /// Their hash rates.
    pub rates: Rates,
    /// Each backend, in the order in which they were started.
    pub backends: Vec<BackendStatus>,
    /// Each source, in their order; never empty.
    pub sources: Vec<SourceStatus>,
    /// The job of the source that is mined, if it has one.
    pub job: Option<JobStatus>,
    /// Verdicts on shares, of all sources together.
    pub shares: Tally,
    /// Verdicts on blocks, of all sources together.
    pub blocks: Tally,
    /// The highest difficulty that a solution met.
    pub best_difficulty: Option<Difficulty>,
    /// The block whose verdict came last.
    pub last_block: Option<LastBlock>,
    /// Candidates that failed verification.
    pub hardware_errors: u64,
    /// Events that were lost to listeners that were too slow.
    pub events_lost: u64,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// No source has answered yet.
    Starting,
    /// There is a job, and it is mined.
    Mining,
    /// Nothing is hashed, for these reasons; connections are kept.
    Paused(PauseReasons),
    /// There is no job: the source has none, or none that works is left.
    Idle,
    /// It ends: what was found may still be answered.
    Stopping,
}

/// The state of a backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendStatus {
    /// Which one, on what.
    pub info: BackendInfo,
    /// What it does.
    pub state: BackendState,
    /// (version, nonce) pairs tried.
    pub hashes: u64,
    /// Its hash rates.
    pub rates: Rates,
    /// Candidates of its that failed verification.
    pub hardware_errors: u64,
    /// The share of the time that it is to hash.
    pub throttle: Throttle,
    /// The energy that it has used since the start, where there is a meter for it
    /// ([`super::Engine::measure_energy`]): read once a second. Counters may be those of more than the
    /// backend: a processor's (RAPL) count whole packages, with everything else that runs on them, and a
    /// card's count the whole card. So the figures of two CPU backends are of the same packages, and must
    /// not be added.
    pub energy: Option<Joules>,
}

/// What a backend does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It has been given work and has not finished any: it is being initialised.
    Starting,
    /// It hashes, or would as soon as its driver lets it.
    Hashing,
    /// It waits: mining is paused, there is no job, or the run ends.
    Resting,
    /// It does not hash, for this reason: it is disabled, or its device has failed and is being
    /// initialised again.
    Failed(String),
}

/// The state of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceStatus {
    /// Which one.
    pub id: SourceId,
    /// Its name, without secrets.
    pub name: String,
    /// The protocol that it speaks: `builtin`, `getblocktemplate`, `stratum_v1`.
    pub kind: &'static str,
    /// Its connection.
    pub connection: Connection,
    /// What it said with the last change of that.
    pub reason: Option<String>,
    /// Whether it is the one whose jobs are mined.
    pub is_mined: bool,
    /// Its chain, where it tells.
    pub network: Option<Network>,
    /// The share difficulty of its job (the network's where every solution is a block).
    pub difficulty: Option<Difficulty>,
    /// Under the twenty-minute rule: which difficulty it mines, and how long that holds.
    pub stage: Option<(Stage, Difficulty)>,
    /// From found to answered, of the last share that it accepted.
    pub latency: Option<Duration>,
    /// When that was answered.
    pub last_share: Option<SystemTime>,
    /// The difficulty that its hash met.
    pub last_share_difficulty: Option<Difficulty>,
    /// Its verdicts on shares.
    pub shares: Tally,
    /// Its verdicts on blocks.
    pub blocks: Tally,
    /// Why it rejected solutions, and how often, in the order in which the reasons came first. In the
    /// source's own words, fit to be shown; a bounded number of them.
    pub reject_reasons: Vec<(String, u64)>,
    /// Rejections for reasons beyond that number.
    pub other_rejects: u64,
}

/// The job that is mined.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct JobStatus {
    /// The height of the block to be found, where the source tells.
    pub height: Option<u32>,
    /// The block that it builds on.
    pub previous_block_hash: BlockHash,
    /// The share difficulty (the network's where every solution is a block).
    pub difficulty: Difficulty,
    /// The difficulty of a block.
    pub network_difficulty: Difficulty,
    /// When it was received.
    pub received: SystemTime,
}

impl Status {
    /// The source that is mined, or would be.
    #[must_use]
    pub fn mined(&self) -> Option<&SourceStatus> {
        self.sources.iter().find(|source| source.is_mined)
    }

    /// The backend of this id.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&BackendStatus> {
        self.backends.iter().find(|backend| backend.info.id == id)
    }

    /// Reads everything at this moment.
    /// `energy`: what each backend has used, in their order.
    pub(super) fn read(shared: &Shared, history: &RateHistory, energy: &[Option<Joules>]) -> Self {
        let (wall_clock, now) = (SystemTime::now(), Instant::now());
        let hashes = shared.hashes();
        let (rates, rates_of_each) = history.rates(now, &hashes);
        let state = shared.state();
        let run = RunState::of(&state);
        let mut backends: Vec<_> = shared
            .backends
            .iter()
            .zip(&hashes)
            .zip(rates_of_each)
            .map(|((backend, hashes), rates)| BackendStatus::of(backend, run, *hashes, rates))
            .collect();
        let job = state.slots[state.chosen.index()].job.map(|job| JobStatus {
            height: job.height,
            previous_block_hash: job.previous_block_hash,
            difficulty: job.share_target.difficulty(),
            network_difficulty: job.network_target.difficulty(),
            received: wall_clock - now.saturating_duration_since(job.received),
        });
        let sources = state.slots.iter().enumerate();
        let status = Self {
            run,
            started: shared.begun.0,
            uptime: now.saturating_duration_since(shared.begun.1),
            hashes: hashes.iter().sum(),
            rates,
            backends: Vec::new(),
            sources: sources
                .map(|(index, slot)| SourceStatus::of(SourceId(index), slot, state.chosen))
                .collect(),
            job,
            shares: state.shares(),
            blocks: state.blocks(),
            best_difficulty: state.best.as_ref().map(Difficulty::of_hash),
            last_block: state.last_block.clone(),
            hardware_errors: shared.hardware_errors(),
            events_lost: shared.announcer.lost(),
        };
        drop(state);
        for (status, energy) in backends.iter_mut().zip(energy) {
            status.energy = *energy;
        }
        // A card's kernel is known once it is tuned.
        for (status, backend) in backends.iter_mut().zip(&shared.backends) {
            if backend.info.id.is_gpu() {
                status.info = backend.scanner.info();
            }
        }
        Self { backends, ..status }
    }
}

impl RunState {
    fn of(state: &State) -> Self {
        if state.stopped {
            Self::Stopping
        } else if !state.pauses.is_empty() {
            Self::Paused(state.pauses)
        } else if state.slots[state.chosen.index()].job.is_some() {
            Self::Mining
        } else if state.started {
            Self::Idle
        } else {
            Self::Starting
        }
    }
}

impl BackendStatus {
    fn of(backend: &Backend, run: RunState, hashes: u64, rates: Rates) -> Self {
        let state = match backend.fault() {
            Some(why) => BackendState::Failed(why),
            None if run != RunState::Mining => BackendState::Resting,
            None if hashes == 0 => BackendState::Starting,
            None => BackendState::Hashing,
        };
        Self {
            info: backend.info.clone(),
            state,
            hashes,
            rates,
            hardware_errors: backend.errors.load(std::sync::atomic::Ordering::Relaxed),
            throttle: backend.throttle.get(),
            energy: None,
        }
    }
}

impl SourceStatus {
    fn of(id: SourceId, slot: &SourceSlot, chosen: SourceId) -> Self {
        Self {
            id,
            name: slot.name.to_string(),
            kind: slot.kind,
            connection: slot.connection,
            reason: slot.reason.clone(),
            is_mined: id == chosen,
            network: slot.network,
            difficulty: slot.job.map(|job| job.share_target.difficulty()),
            stage: slot.stage,
            latency: slot.latency,
            last_share: slot.last_share.map(|(time, _)| time),
            last_share_difficulty: slot.last_share.map(|(_, difficulty)| difficulty),
            shares: slot.shares,
            blocks: slot.blocks,
            reject_reasons: slot.reject_reasons.counts.clone(),
            other_rejects: slot.reject_reasons.others,
        }
    }
}
