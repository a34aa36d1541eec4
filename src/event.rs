//! What is announced to any number of listeners. Nothing waits for a listener.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvError, RecvTimeoutError, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Network};

use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::job::{SourceId, Verdict};
use crate::scan::{BackendId, BackendInfo};
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

/// Why mining is paused. It goes on when no reason is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// The user asked for it: `--paused`, a signal, a request.
    User,
    /// It is outside the hours of the schedule.
    Schedule,
    /// The power that may be drawn does not suffice.
    Power,
    /// Something is too hot.
    Temperature,
    /// The machine runs on its battery.
    Battery,
}

impl PauseReason {
    /// Every reason, in the order in which they are listed.
    pub const ALL: [Self; 5] =
        [Self::User, Self::Schedule, Self::Power, Self::Temperature, Self::Battery];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Schedule => "schedule",
            Self::Power => "power",
            Self::Temperature => "temperature",
            Self::Battery => "battery",
        }
    }
}

/// The reasons for which mining is paused now; empty while it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PauseReasons(u8);

impl PauseReasons {
    /// Whether none holds: mining is not paused.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one holds.
    #[must_use]
    pub const fn contains(self, reason: PauseReason) -> bool {
        self.0 >> reason as u8 & 1 == 1
    }

    /// The same with this one.
    #[must_use]
    pub const fn with(self, reason: PauseReason) -> Self {
        Self(self.0 | 1 << reason as u8)
    }

    /// The same without this one.
    #[must_use]
    pub const fn without(self, reason: PauseReason) -> Self {
        Self(self.0 & !(1 << reason as u8))
    }

    /// Those that hold.
    pub fn iter(self) -> impl Iterator<Item = PauseReason> {
        PauseReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

/// `user, power`.
impl fmt::Display for PauseReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reason) in self.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            f.write_str(reason.word())?;
        }
        Ok(())
    }
}

/// What can happen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The source has answered for the first time.
    Started {
        /// Which source.
        id: SourceId,
        /// Its name, without secrets.
        source: String,
        /// The chain, where the source tells it.
        network: Option<Network>,
        /// The backends that hash.
        backends: Vec<BackendInfo>,
    },
    /// There is a new job.
    Job {
        /// The source that gave it.
        source: SourceId,
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
        /// The source that mines on that chain.
        source: SourceId,
        /// Which, and how long it holds.
        stage: Stage,
        /// The difficulty.
        difficulty: Difficulty,
    },
    /// A share got its verdict.
    Share {
        /// The source that gave the job.
        source: SourceId,
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
        /// The source that answered.
        source: SourceId,
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
    /// The hash rate over the seconds since the last such event.
    Rate {
        /// All backends together.
        total: HashRate,
        /// Each of them.
        backends: Vec<(BackendInfo, HashRate)>,
    },
    /// The connection to the source changed.
    Source {
        /// Its new state.
        state: SourceState,
        /// Which source.
        id: SourceId,
        /// Its name, without secrets.
        source: String,
        /// Why it changed, where there is more to say than the state.
        reason: Option<String>,
    },
    /// A backend reported a candidate whose hash differs from what it claimed.
    HardwareError {
        /// Which backend.
        backend: BackendId,
        /// What differed.
        detail: String,
    },
    /// A backend is disabled from now on.
    BackendFailed {
        /// Which backend.
        backend: BackendId,
        /// Why.
        reason: String,
    },
    /// The reasons for which mining is paused have changed; with none left, it goes on.
    Paused(PauseReasons),
    /// Something that the user should know and no script needs.
    Notice(String),
    /// The run has ended; the last event.
    Summary(Summary),
}

impl Event {
    /// Whether there can be thousands of its kind a second, on a chain that is easy enough. Those give
    /// way where a listener has no room, since figures count all of them; what is said once does not.
    const fn is_frequent(&self) -> bool {
        matches!(
            self,
            Self::Job { .. } | Self::Share { .. } | Self::Block { .. } | Self::Rate { .. }
        )
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

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            accepted: sum.accepted + tally.accepted,
            rejected: sum.rejected + tally.rejected,
            stale: sum.stale + tally.stale,
            unknown: sum.unknown + tally.unknown,
        })
    }
}

impl Tally {
    /// All verdicts together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.accepted + self.rejected + self.stale + self.unknown
    }

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
    /// Events that were lost to listeners that were too slow, all listeners together.
    pub events_lost: u64,
}

/// How long the end of a run may wait for a listener that has no room for it.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Sends events to every listener without ever waiting for one. Cheap to clone.
///
/// Each listener has a queue of its own: what does not fit is lost to that listener alone. Blocks, shares
/// and jobs cannot take all of its room, so that a failure is heard whatever else there is to hear.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    outlets: Arc<Mutex<Vec<Outlet>>>,
    /// What was lost, all listeners together.
    lost: Arc<AtomicU64>,
}

/// Room in each queue that is kept for events that are not frequent.
const RESERVED: usize = 1024;

/// The announcer's end of a listener's queue.
#[derive(Debug)]
struct Outlet {
    to: mpsc::SyncSender<Announcement>,
    queue: Arc<Queue>,
}

/// What both ends of a listener's queue know of it.
#[derive(Debug)]
struct Queue {
    /// How many frequent events may wait.
    capacity: usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Outlet {
    /// # Errors
    /// When there is no room for it, or nobody listens any more.
    #[expect(
        clippy::result_large_err,
        reason = "it gives back what it did not take, as the channel does"
    )]
    fn try_send(&self, announcement: Announcement) -> Result<(), TrySendError<Announcement>> {
        let Queue { capacity, waiting, .. } = &*self.queue;
        if announcement.event.is_frequent() && waiting.load(Ordering::Relaxed) >= *capacity {
            return Err(TrySendError::Full(announcement));
        }
        // Before it is sent, so that the listener does not take away what was not added yet.
        waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.to.try_send(announcement);
        if sent.is_err() {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }
}

/// A listener's end of its queue. As an iterator it gives the events up to the end, and waits for each.
#[derive(Debug)]
pub struct Listener {
    from: mpsc::Receiver<Announcement>,
    queue: Arc<Queue>,
    /// How many of the lost ones the listener has asked about.
    told: AtomicU64,
}

impl Announcer {
    /// How many events wait for a listener at most; further ones are counted and dropped. There is a
    /// little more room for those that are not frequent, such as a backend's failure.
    pub const CAPACITY: usize = 65_536;

    /// An announcer and its first listener.
    #[must_use]
    pub fn new() -> (Self, Listener) {
        let announcer = Self::default();
        let listener = announcer.subscribe();
        (announcer, listener)
    }

    /// One more listener, which hears what is announced from now on.
    #[must_use]
    pub fn subscribe(&self) -> Listener {
        self.subscribe_with(Self::CAPACITY)
    }

    /// The same with room for `capacity` events instead of [`Announcer::CAPACITY`].
    #[must_use]
    pub fn subscribe_with(&self, capacity: usize) -> Listener {
        let (to, from) = mpsc::sync_channel(capacity + RESERVED);
        let (waiting, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        let queue = Arc::new(Queue { capacity, waiting, lost });
        self.outlets().push(Outlet { to, queue: queue.clone() });
        Listener { from, queue, told: AtomicU64::new(0) }
    }

    fn outlets(&self) -> MutexGuard<'_, Vec<Outlet>> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces `event` as of now.
    pub fn announce(&self, event: Event) {
        self.announce_at(SystemTime::now(), event);
    }

    /// Announces `event` as of `time`.
    pub fn announce_at(&self, time: SystemTime, event: Event) {
        let mut outlets = self.outlets();
        let send = |outlet: &Outlet, event| match outlet.try_send(Announcement { time, event }) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                outlet.queue.lost.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        };
        // The usual single listener gets the event itself, and no copy of it.
        if let [only] = &outlets[..] {
            if !send(only, event) {
                outlets.clear();
            }
        } else {
            outlets.retain(|outlet| send(outlet, event.clone()));
        }
    }

    /// Announces the end of the run. A listener without room for it is waited for, though not for
    /// ever; who reads its queue never misses it.
    pub fn conclude(&self, summary: Summary) {
        let end = Announcement { time: SystemTime::now(), event: Event::Summary(summary) };
        let until = Instant::now() + LAST_WORD;
        for outlet in std::mem::take(&mut *self.outlets()) {
            let mut left = end.clone();
            while let Err(TrySendError::Full(back)) = outlet.try_send(left) {
                if Instant::now() >= until {
                    outlet.queue.lost.fetch_add(1, Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
                left = back;
            }
        }
    }

    /// How many events were lost, all listeners together.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Listener {
    /// The next event; waits for one.
    ///
    /// # Errors
    /// When there will be none any more.
    pub fn recv(&self) -> Result<Announcement, RecvError> {
        self.from.recv().inspect(|_| self.taken())
    }

    /// The next event, if it comes within `time`.
    ///
    /// # Errors
    /// When none came, or there will be none any more.
    pub fn recv_timeout(&self, time: Duration) -> Result<Announcement, RecvTimeoutError> {
        self.from.recv_timeout(time).inspect(|_| self.taken())
    }

    /// The next event, if it is there.
    ///
    /// # Errors
    /// When it is not, or there will be none any more.
    pub fn try_recv(&self) -> Result<Announcement, TryRecvError> {
        self.from.try_recv().inspect(|_| self.taken())
    }

    /// The events that are there.
    pub fn try_iter(&self) -> impl Iterator<Item = Announcement> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    fn taken(&self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many events this listener has lost because its queue was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }

    /// How many it has lost since this was last asked.
    #[must_use]
    pub fn newly_lost(&self) -> u64 {
        let lost = self.lost();
        lost - self.told.swap(lost, Ordering::Relaxed)
    }
}

impl Iterator for Listener {
    type Item = Announcement;

    fn next(&mut self) -> Option<Announcement> {
        self.recv().ok()
    }
}
