//! What is announced to whoever listens. Nothing waits for a listener.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Network};

use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::job::Verdict;
use crate::scan::BackendInfo;
use crate::units::HashRate;

/// Something that happened, and when.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// When it happened.
    pub time: SystemTime,
    /// What happened.
    pub event: Event,
}

/// The state of the connection to a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It answers.
    Connected,
    /// It answered before and does not any more.
    Lost,
    /// It is tried again.
    Retrying,
}

impl SourceState {
    /// The word that `--json` promises.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Lost => "lost",
            Self::Retrying => "retrying",
        }
    }
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The source has answered for the first time.
    Started {
        /// The source, as a person names it, without secrets.
        source: String,
        /// The chain, where the source tells.
        network: Option<Network>,
        /// What hashes.
        backends: Vec<BackendInfo>,
    },
    /// There is a new job.
    Job {
        /// The height of the block to be found.
        height: Option<u32>,
        /// The block it builds on.
        previous_block_hash: BlockHash,
        /// The job's share difficulty (the network's where every solution is a block).
        difficulty: Difficulty,
        /// Whether earlier work is worthless now.
        clean: bool,
    },
    /// On a chain with the twenty-minute rule: another difficulty is mined now.
    Stage {
        /// Which, and how long it holds.
        stage: Stage,
        /// The difficulty.
        difficulty: Difficulty,
    },
    /// A share got its verdict.
    Share {
        /// The verdict.
        verdict: Verdict,
        /// The difficulty that its hash meets.
        difficulty: Difficulty,
        /// Its hash.
        hash: BlockHash,
        /// From found to answered.
        latency: Duration,
    },
    /// A block got its verdict.
    Block {
        /// The verdict.
        verdict: Verdict,
        /// Its height.
        height: Option<u32>,
        /// Its header.
        header: Header,
        /// Its hash.
        hash: BlockHash,
        /// Whether it was announced before with the verdict unknown, which this one replaces.
        was_unknown: bool,
        /// Whether it was found by an earlier run and sent again by this one.
        resent: bool,
    },
    /// How fast it goes, over the seconds since the last such event.
    Rate {
        /// All backends together.
        total: HashRate,
        /// Each of them.
        backends: Vec<(BackendInfo, HashRate)>,
    },
    /// The connection to the source changed.
    Source {
        /// To what.
        state: SourceState,
        /// The source, as a person names it, without secrets.
        source: String,
        /// Why.
        reason: Option<String>,
    },
    /// A backend reported a candidate whose hash is not what it said.
    HardwareError {
        /// The backend and its kernel.
        backend: String,
        /// What differed.
        detail: String,
    },
    /// A backend is left out from now on: which, and why.
    BackendFailed(String),
    /// Something a person should know and no script needs.
    Notice(String),
    /// The end.
    Summary(Summary),
}

impl Event {
    /// The rates between two readings of the hash counters, `seconds` apart. The backends stand in
    /// the same order in both.
    #[must_use]
    pub fn rate(before: &[(BackendInfo, u64)], now: &[(BackendInfo, u64)], seconds: f64) -> Self {
        let mut total = 0;
        let backends = before
            .iter()
            .zip(now)
            .map(|((_, before), (info, now))| {
                let done = now.saturating_sub(*before);
                total += done;
                (info.clone(), HashRate::of(done, seconds))
            })
            .collect();
        Self::Rate { total: HashRate::of(total, seconds), backends }
    }
}

/// Verdicts counted. Their sum is what was submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken.
    pub accepted: u64,
    /// Refused.
    pub rejected: u64,
    /// Too late.
    pub stale: u64,
    /// Never answered.
    pub unknown: u64,
}

impl Tally {
    /// Counts one verdict.
    pub fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Accepted => self.accepted += 1,
            Verdict::Rejected(_) => self.rejected += 1,
            Verdict::Stale(_) => self.stale += 1,
            Verdict::Unknown(_) => self.unknown += 1,
        }
    }
}

/// The whole run in figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// From start to stop.
    pub elapsed: Duration,
    /// (version, nonce) pairs tried.
    pub hashes: u64,
    /// Blocks by verdict.
    pub blocks: Tally,
    /// Shares by verdict.
    pub shares: Tally,
    /// Candidates whose hash was not what the backend said.
    pub hardware_errors: u64,
    /// Events that no listener was quick enough to take.
    pub events_lost: u64,
}

/// Sends events to the one listener without ever waiting for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Announcer {
    to: mpsc::SyncSender<Announcement>,
    lost: Arc<AtomicU64>,
}

impl Announcer {
    /// How many events wait for a listener at most; what comes on top is counted and dropped.
    pub const CAPACITY: usize = 65_536;

    /// An announcer and the end to listen at.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Announcement>) {
        let (to, from) = mpsc::sync_channel(Self::CAPACITY);
        (Self { to, lost: Arc::default() }, from)
    }

    /// Announces `event` as of now.
    pub fn announce(&self, event: Event) {
        if self.to.try_send(Announcement { time: SystemTime::now(), event }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Announces the end. This one is never dropped: it waits for room, which there is as soon as
    /// the listener has shown what came before.
    pub fn conclude(&self, summary: Summary) {
        let end = Announcement { time: SystemTime::now(), event: Event::Summary(summary) };
        // Without a listener there is nobody to tell.
        let _ = self.to.send(end);
    }

    /// How many events were dropped.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
