//! A graphics card as a backend: it keeps two batches under way, and brings the device up again when
//! it fails.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::batch::{Pace, WITH_DISPLAY, WITHOUT_DISPLAY, most_hashes};
use super::calibration::{Memory, Tuning};
use super::device::{SLOTS, Trouble};
use super::shader::MAX_NONCES;
use super::suspects::Suspects;
use super::thread::Waited;
use super::worker::{Link, STEP_DEADLINE, Start};
use crate::scan::rest::{pause, rest};
use crate::scan::{BackendError, BackendId, BackendInfo, Feed, Scanner, WorkUnit};

/// A device that fails so many times in a row is left out.
const TRIES: u32 = 4;
/// How long it is left alone after the first failure; twice as long after each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// A device that did batches for so long has recovered from whatever it had before.
const HEALTHY: Duration = Duration::from_secs(60);
/// After so much hashing a device has to find something that is known to be there.
const CONTROL: Duration = Duration::from_secs(60);

/// How a card is to be used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether jobs may have versions to roll.
    pub version_rolling: bool,
    /// The folder in which it is remembered what a card does best.
    pub cache: Option<PathBuf>,
}

/// What is taken for hung, what for healthy, and what for long enough. Tests have less time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long each step of bringing the device up may take.
    pub(super) step: Duration,
    /// After how much hashing a control comes.
    pub(super) control: Duration,
    /// How long it has to do batches until what it had before is forgotten.
    pub(super) healthy: Duration,
}

/// A graphics card.
#[derive(Debug)]
pub struct GpuScanner {
    gpu: Gpu,
    options: Options,
    /// How long a batch is to take.
    target: Duration,
    /// What it runs, once that is known.
    tuning: Mutex<Option<Tuning>>,
    device: Mutex<Running>,
    /// What the device died of before, perhaps.
    suspects: Suspects,
    pub(super) limits: Limits,
    #[cfg(debug_assertions)]
    pub(super) wish: Option<super::fault::Wish>,
}

/// The device, while it is up.
#[derive(Default)]
struct Running {
    link: Option<(Link, Pace)>,
    /// Whether it was ever up.
    again: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.link.is_some() { "up" } else { "down" })
    }
}

/// The value of a mutex, whatever became of another thread that held it.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GpuScanner {
    /// A backend on `gpu`, which is brought up when there is something to scan.
    #[must_use]
    pub fn new(gpu: Gpu, options: Options) -> Self {
        let target = if gpu.may_have_display() { WITH_DISPLAY } else { WITHOUT_DISPLAY };
        let cache = options.cache.as_deref();
        let tuning = cache.and_then(|folder| Memory::of(folder, &gpu).recall(&gpu));
        Self {
            gpu,
            options,
            target,
            tuning: Mutex::new(tuning),
            device: Mutex::default(),
            suspects: Suspects::default(),
            limits: Limits { step: STEP_DEADLINE, control: CONTROL, healthy: HEALTHY },
            #[cfg(debug_assertions)]
            wish: super::fault::Wish::of_environment(),
        }
    }

    /// Brings the device up, unless it is.
    fn bring_up<'a>(
        &self,
        running: &'a mut Running,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<&'a mut (Link, Pace)>, Trouble> {
        if running.link.is_none() {
            let start = Start {
                gpu: self.gpu.clone(),
                again: std::mem::replace(&mut running.again, true),
                version_rolling: self.options.version_rolling,
                cache: self.options.cache.clone(),
                step: self.limits.step,
                control: self.limits.control,
                suspects: self.suspects.clone(),
                #[cfg(debug_assertions)]
                wish: self.wish.clone(),
            };
            let opened = Link::open(start, has_ended).inspect_err(|trouble| self.blame(trouble));
            let Waited::For(link) = opened? else { return Ok(Waited::Ended) };
            let pace = Pace::new(self.target, link.tuning.rolled.rate.to_f64());
            *held(&self.tuning) = Some(link.tuning);
            running.link = Some((link, pace));
        }
        Ok(running.link.as_mut().map_or(Waited::Ended, Waited::For))
    }

    /// Remembers what the device did when it died, if it did it for the first time.
    fn blame(&self, trouble: &Trouble) {
        if trouble.is_death() {
            self.suspects.convict(&self.gpu);
        }
    }

    /// Scans until the feed says stop (`Ended`: with batches still under way), or something is wrong
    /// with the device: then what it had is given back. `worked` is from its first batch that was
    /// done to the last.
    fn scan(
        &self,
        link: &Link,
        pace: &mut Pace,
        feed: &dyn Feed,
        worked: &mut Duration,
    ) -> Result<Waited<()>, Trouble> {
        let mut work = Work {
            first_done: None,
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            most: u64::MAX,
            width: link.midstates,
            worked: Duration::ZERO,
        };
        let scanned = self.batches(link, pace, feed, &mut work);
        *worked = work.worked;
        for unit in work.under_way.into_iter().chain(work.waiting) {
            feed.give_back(unit);
        }
        scanned
    }

    fn batches(
        &self,
        link: &Link,
        pace: &mut Pace,
        feed: &dyn Feed,
        work: &mut Work,
    ) -> Result<Waited<()>, Trouble> {
        let has_ended = || feed.has_ended();
        loop {
            // A batch of a device that is throttled is to be short, as its rests are to be.
            let is_throttled = feed.throttle().rests();
            pace.aim(if is_throttled { WITH_DISPLAY } else { self.target });
            while work.under_way.len() < depth(work, is_throttled)
                && let Some(unit) = work.next(link.midstates, pace, feed)
            {
                link.send(unit.clone());
                work.under_way.push_back(unit);
            }
            if work.under_way.is_empty() {
                return Ok(Waited::For(()));
            }
            let Waited::For((outcome, took)) = link.oldest(&has_ended)? else {
                return Ok(Waited::Ended);
            };
            let Some(unit) = work.under_way.pop_front() else { continue };
            work.worked = work.first_done.get_or_insert_with(Instant::now).elapsed();
            let hashes = unit.nonces.count() * unit.midstates.len() as u64;
            pace.learn(hashes, took);
            if outcome.overflowed() {
                work.halve(unit);
                continue;
            }
            // The batch is done, so whatever was found in it is judged: `Break` is about hashes yet
            // to be done, and a job that was replaced may still take its shares.
            for hit in outcome.hits {
                if feed.hit(&unit, hit).is_break() && feed.has_ended() {
                    break;
                }
            }
            feed.count(0, hashes);
            rest(took, feed);
        }
    }

    fn info_of(&self, rolled: bool) -> BackendInfo {
        let tuning = *held(&self.tuning);
        let choice = tuning.map(|t| if rolled { t.rolled } else { t.plain });
        BackendInfo {
            id: BackendId::Gpu(self.gpu.index),
            kernel: choice.map_or_else(|| "wgsl".to_owned(), |c| c.variant.name().to_owned()),
            device: self.gpu.name.clone(),
            threads: 1,
        }
    }
}

/// Jobs of which a batch is to have fewer hashes than this are easy.
const EASY: u64 = 1 << 16;

/// How many batches are to be under way. Where the first one ends the job, as a rule, a second is
/// for nothing; and a device that is throttled is to stand still in between.
fn depth(work: &Work, is_throttled: bool) -> usize {
    if is_throttled || work.most < EASY { 1 } else { SLOTS }
}

/// What the feed has dealt and is not done.
struct Work {
    /// To be sent.
    waiting: VecDeque<WorkUnit>,
    /// Sent, the oldest first.
    under_way: VecDeque<WorkUnit>,
    /// The most hashes of a batch of the job that is mined.
    most: u64,
    /// How many midstates its batches have.
    width: usize,
    /// When the first batch was done.
    first_done: Option<Instant>,
    /// From then to the last one that was.
    worked: Duration,
}

impl Work {
    /// The next batch; waits for one only while nothing is under way.
    fn next(&mut self, midstates: usize, pace: &Pace, feed: &dyn Feed) -> Option<WorkUnit> {
        loop {
            // During a pause, what waits here stays, and `next` waits for the end of it.
            while !feed.is_paused()
                && let Some(unit) = self.waiting.pop_front()
            {
                if feed.wants(&unit) {
                    return Some(unit);
                }
            }
            let nonces = pace.nonces(self.width).min((self.most / self.width as u64).max(1));
            let unit = if self.under_way.is_empty() {
                feed.next(midstates, nonces)?
            } else {
                feed.try_next(midstates, nonces)?
            };
            self.cut(unit, midstates, pace, feed);
        }
    }

    /// Cuts a unit into batches: none longer than is good for its job, and each of as many midstates
    /// as one of the two programs takes.
    fn cut(&mut self, unit: WorkUnit, midstates: usize, pace: &Pace, feed: &dyn Feed) {
        self.most = most_hashes(&unit);
        self.width = if unit.midstates.len() == midstates { midstates } else { 1 };
        // More midstates than the last time are no reason for a longer batch.
        let most = self.most.min(pace.hashes().saturating_mul(2));
        let most = (most / self.width as u64).clamp(1, MAX_NONCES);
        let (nonces, rest) = unit.nonces.split(most);
        if let Some(nonces) = rest {
            feed.give_back(WorkUnit { nonces, ..unit.clone() });
        }
        let cut = if unit.midstates.len() == midstates { midstates } else { 1 };
        for start in unit.midstates.clone().step_by(cut) {
            self.waiting.push_back(WorkUnit {
                midstates: start..start + cut,
                nonces,
                ..unit.clone()
            });
        }
    }

    /// Does a batch again, in halves: there were more hits than its list holds, and nobody was told
    /// of any.
    fn halve(&mut self, unit: WorkUnit) {
        let (head, rest) = unit.nonces.split(unit.nonces.count() / 2);
        if let Some(nonces) = rest {
            self.waiting.push_front(WorkUnit { nonces, ..unit.clone() });
        }
        self.waiting.push_front(WorkUnit { nonces: head, ..unit });
    }
}

impl From<Trouble> for BackendError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Lies(_) => Self::Lies(trouble.to_string()),
            _ => Self::Device(trouble.to_string()),
        }
    }
}

impl Scanner for GpuScanner {
    fn info(&self) -> BackendInfo {
        self.info_of(self.options.version_rolling)
    }

    fn info_when(&self, version_rolling: bool) -> BackendInfo {
        self.info_of(version_rolling && self.options.version_rolling)
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.bring_up(&mut held(&self.device), &|| false)?;
        Ok(())
    }

    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError> {
        let mut running = held(&self.device);
        let mut failures = 0;
        loop {
            let mut worked = Duration::ZERO;
            let trouble = match self.bring_up(&mut running, &|| feed.has_ended()) {
                Ok(Waited::Ended) => return Ok(()),
                Ok(Waited::For((link, pace))) => match self.scan(link, pace, feed, &mut worked) {
                    Ok(Waited::For(())) => return Ok(()),
                    // What is under way there is nobody's any more.
                    Ok(Waited::Ended) => {
                        running.link = None;
                        return Ok(());
                    }
                    Err(trouble) => trouble,
                },
                Err(trouble) => trouble,
            };
            if running.link.take().is_some() {
                self.blame(&trouble);
            }
            failures = if worked > self.limits.healthy { 1 } else { failures + 1 };
            if !trouble.may_pass() {
                return Err(trouble.into());
            }
            if failures >= TRIES {
                let text = format!("{trouble}, {failures} times in a row");
                return Err(BackendError::Device(text));
            }
            let wait = BACKOFF * 2_u32.pow(failures - 1);
            tracing::warn!(
                "backend gpu:{}: {trouble}; what it had is given to others, and it is brought up \
                 again in {} s",
                self.gpu.index,
                wait.as_secs(),
            );
            pause(wait, feed);
            if feed.has_ended() {
                return Ok(());
            }
        }
    }
}
