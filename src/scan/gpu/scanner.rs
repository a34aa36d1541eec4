//! A graphics card as a backend: keeps two batches in flight, and reinitialises the device when it
//! fails.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::batch::{BatchSizer, WITH_DISPLAY, WITHOUT_DISPLAY, max_hashes};
use super::deadlines;
use super::device::SLOTS;
use super::error::DeviceError;
use super::faults::Faults;
use super::quarantine::Quarantine;
use super::shader::MAX_NONCES;
use super::thread::Waited;
use super::tuning::Tuning;
use super::tuning_cache::TuningCache;
use super::worker::{DeviceConfig, DeviceHandle};
use crate::scan::rest::{TICK, rest};
use crate::scan::{BackendError, BackendId, BackendInfo, Feed, Scanner, WorkUnit};

/// A device is disabled after this many failures in a row.
const MAX_FAILURES: u32 = 4;
/// How long to wait before reinitialising after the first failure; doubled after each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// A device that has completed batches for this long has recovered from its earlier failures.
const HEALTHY: Duration = Duration::from_secs(60);
/// How much hashing there is between two known-answer tests.
const RETEST_INTERVAL: Duration = Duration::from_secs(60);
/// On jobs for which a batch has fewer hashes than this, only one batch is in flight.
const EASY_BATCH: u64 = 1 << 16;

/// How a card is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether jobs may allow the version to be rolled.
    pub version_rolling: bool,
    /// The folder with the tunings of cards; without one, each start calibrates.
    pub cache: Option<PathBuf>,
}

/// Times that tests shorten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long each step of the initialisation may take.
    pub(super) step: Duration,
    /// How much hashing there is between two known-answer tests.
    pub(super) retest_interval: Duration,
    /// How long it has to complete batches until its earlier failures no longer count.
    pub(super) healthy: Duration,
}

/// A backend that hashes on one graphics card. The device is initialised when it is first needed, and
/// stays open between runs.
#[derive(Debug)]
pub struct GpuScanner {
    gpu: Gpu,
    options: Options,
    /// How long a batch should take.
    target: Duration,
    /// What it runs, once that is known.
    tuning: Mutex<Option<Tuning>>,
    device: Mutex<DeviceState>,
    /// What may have made the device fail before.
    quarantine: Quarantine,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
}

/// The device, if it is open.
#[derive(Default)]
struct DeviceState {
    open: Option<(DeviceHandle, BatchSizer)>,
    /// Whether it was opened before.
    reopen: bool,
}

impl std::fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.open.is_some() { "open" } else { "closed" })
    }
}

/// Locks a mutex, even if a thread panicked while it held it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `time`, or until it is time to stop.
fn pause(time: Duration, feed: &dyn Feed) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || feed.has_ended() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}

impl GpuScanner {
    /// A backend on `gpu`, which is not opened yet.
    #[must_use]
    pub fn new(gpu: Gpu, options: Options) -> Self {
        let target = if gpu.may_have_display() { WITH_DISPLAY } else { WITHOUT_DISPLAY };
        let cache = options.cache.as_deref();
        let tuning = cache.and_then(|folder| TuningCache::for_gpu(folder, &gpu).load(&gpu));
        Self {
            gpu,
            options,
            target,
            tuning: Mutex::new(tuning),
            device: Mutex::default(),
            quarantine: Quarantine::default(),
            limits: Limits {
                step: deadlines::STEP,
                retest_interval: RETEST_INTERVAL,
                healthy: HEALTHY,
            },
            faults: Faults::from_environment(),
        }
    }

    /// Initialises the device, unless it is open.
    fn initialise<'a>(
        &self,
        device: &'a mut DeviceState,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<&'a mut (DeviceHandle, BatchSizer)>, DeviceError> {
        if device.open.is_none() {
            let config = DeviceConfig {
                gpu: self.gpu.clone(),
                reopen: std::mem::replace(&mut device.reopen, true),
                version_rolling: self.options.version_rolling,
                cache: self.options.cache.clone(),
                step: self.limits.step,
                retest_interval: self.limits.retest_interval,
                quarantine: self.quarantine.clone(),
                faults: self.faults.clone(),
            };
            let opened = DeviceHandle::open(config, has_ended)
                .inspect_err(|error| self.quarantine_cause(error));
            let Waited::Ready(handle) = opened? else { return Ok(Waited::Stopped) };
            let sizer = BatchSizer::new(self.target, handle.tuning.rolled.rate.to_f64());
            *lock(&self.tuning) = Some(handle.tuning);
            device.open = Some((handle, sizer));
        }
        Ok(device.open.as_mut().map_or(Waited::Stopped, Waited::Ready))
    }

    /// Quarantines what was on probation when the device failed.
    fn quarantine_cause(&self, error: &DeviceError) {
        if error.may_be_caused_by_work() {
            self.quarantine.mark_failed(&self.gpu);
        }
    }

    /// Scans until the feed ends (`Stopped`: with batches still in flight) or the device fails, and
    /// gives back whatever is not done. Sets `worked` to the time from the first completed batch to the
    /// last.
    fn scan(
        &self,
        device: &DeviceHandle,
        sizer: &mut BatchSizer,
        feed: &dyn Feed,
        worked: &mut Duration,
    ) -> Result<Waited<()>, DeviceError> {
        let mut work = Work {
            first_done: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            max_hashes: u64::MAX,
            width: device.midstates,
            worked: Duration::ZERO,
        };
        let scanned = self.run_batches(device, sizer, feed, &mut work);
        *worked = work.worked;
        for unit in work.in_flight.into_iter().chain(work.waiting) {
            feed.give_back(unit);
        }
        scanned
    }

    fn run_batches(
        &self,
        device: &DeviceHandle,
        sizer: &mut BatchSizer,
        feed: &dyn Feed,
        work: &mut Work,
    ) -> Result<Waited<()>, DeviceError> {
        let has_ended = || feed.has_ended();
        loop {
            // A throttled device gets short batches, too, since it rests between them.
            let is_throttled = feed.throttle().rests();
            sizer.aim(if is_throttled { WITH_DISPLAY } else { self.target });
            while work.in_flight.len() < depth(work, is_throttled)
                && let Some(unit) = work.next(device.midstates, sizer, feed)
            {
                device.submit(unit.clone());
                work.in_flight.push_back(unit);
            }
            if work.in_flight.is_empty() {
                return Ok(Waited::Ready(()));
            }
            let Waited::Ready((outcome, took)) = device.collect(&has_ended)? else {
                return Ok(Waited::Stopped);
            };
            let Some(unit) = work.in_flight.pop_front() else { continue };
            work.worked = work.first_done.get_or_insert_with(Instant::now).elapsed();
            let hashes = unit.nonces.count() * unit.midstates.len() as u64;
            sizer.record(hashes, took);
            if outcome.overflowed() {
                work.halve(unit);
                continue;
            }
            // The batch is done, so every hit is reported: `Break` only says that further hashes are
            // not wanted, and the pool may still accept shares of a job that was replaced.
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
        let tuning = *lock(&self.tuning);
        let choice = tuning.map(|t| if rolled { t.rolled } else { t.plain });
        BackendInfo {
            id: BackendId::Gpu(self.gpu.index),
            kernel: choice.map_or_else(|| "wgsl".to_owned(), |c| c.variant.name().to_owned()),
            device: self.gpu.name.clone(),
            threads: 1,
        }
    }
}

/// How many batches may be in flight. Where the first usually ends the job, a second would be wasted;
/// and a throttled device rests between batches.
fn depth(work: &Work, is_throttled: bool) -> usize {
    if is_throttled || work.max_hashes < EASY_BATCH { 1 } else { SLOTS }
}

/// Work units from the feed that are not done.
struct Work {
    /// Batches to be submitted.
    waiting: VecDeque<WorkUnit>,
    /// Batches that were submitted, the oldest first.
    in_flight: VecDeque<WorkUnit>,
    /// The most hashes of a batch of the current job.
    max_hashes: u64,
    /// How many midstates the job's batches have.
    width: usize,
    /// When the first batch was completed.
    first_done: Option<Instant>,
    /// The time from then to the last completed batch.
    worked: Duration,
}

impl Work {
    /// The next batch. Waits for work only while no batch is in flight.
    fn next(&mut self, midstates: usize, sizer: &BatchSizer, feed: &dyn Feed) -> Option<WorkUnit> {
        loop {
            // During a pause, what waits here stays, and `next` waits for the end of it.
            while !feed.is_paused()
                && let Some(unit) = self.waiting.pop_front()
            {
                if feed.wants(&unit) {
                    return Some(unit);
                }
            }
            let nonces = sizer.nonces(self.width).min((self.max_hashes / self.width as u64).max(1));
            let unit = if self.in_flight.is_empty() {
                feed.next(midstates, nonces)?
            } else {
                feed.try_next(midstates, nonces)?
            };
            self.cut(unit, midstates, sizer, feed);
        }
    }

    /// Cuts a unit into batches with as many midstates as one of the two programs hashes at once, and
    /// gives back nonces beyond what a batch of its job should have.
    fn cut(&mut self, unit: WorkUnit, midstates: usize, sizer: &BatchSizer, feed: &dyn Feed) {
        self.max_hashes = max_hashes(&unit);
        self.width = if unit.midstates.len() == midstates { midstates } else { 1 };
        // A unit may have more midstates than it was asked for; its batches are not longer for that.
        let most = self.max_hashes.min(sizer.hashes().saturating_mul(2));
        let most = (most / self.width as u64).clamp(1, MAX_NONCES);
        let (nonces, rest) = unit.nonces.split(most);
        if let Some(nonces) = rest {
            feed.give_back(WorkUnit { nonces, ..unit.clone() });
        }
        for start in unit.midstates.clone().step_by(self.width) {
            self.waiting.push_back(WorkUnit {
                midstates: start..start + self.width,
                nonces,
                ..unit.clone()
            });
        }
    }

    /// Repeats a batch in halves: it had more hits than its list holds, and none were reported.
    fn halve(&mut self, unit: WorkUnit) {
        let (head, rest) = unit.nonces.split(unit.nonces.count() / 2);
        if let Some(nonces) = rest {
            self.waiting.push_front(WorkUnit { nonces, ..unit.clone() });
        }
        self.waiting.push_front(WorkUnit { nonces: head, ..unit });
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
        self.initialise(&mut lock(&self.device), &|| false)?;
        Ok(())
    }

    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError> {
        let mut device = lock(&self.device);
        let mut failures = 0;
        loop {
            let mut worked = Duration::ZERO;
            let error = match self.initialise(&mut device, &|| feed.has_ended()) {
                Ok(Waited::Stopped) => return Ok(()),
                Ok(Waited::Ready((handle, sizer))) => {
                    if failures > 0 {
                        feed.interrupted(None);
                    }
                    match self.scan(handle, sizer, feed, &mut worked) {
                        Ok(Waited::Ready(())) => return Ok(()),
                        // Batches are still in flight, so the device cannot be used again.
                        Ok(Waited::Stopped) => {
                            device.open = None;
                            return Ok(());
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if device.open.take().is_some() {
                self.quarantine_cause(&error);
            }
            failures = if worked > self.limits.healthy { 1 } else { failures + 1 };
            if !error.may_recover() {
                return Err(error.into());
            }
            if failures >= MAX_FAILURES {
                let text = format!("{error}, {failures} times in a row");
                return Err(BackendError::Device(text));
            }
            let wait = BACKOFF * 2_u32.pow(failures - 1);
            tracing::warn!(
                "backend gpu:{}: {error}; its work is returned to the queue; reinitialising in {} s",
                self.gpu.index,
                wait.as_secs(),
            );
            feed.interrupted(Some(format!("{error}; it is being initialised again")));
            pause(wait, feed);
            if feed.has_ended() {
                return Ok(());
            }
        }
    }
}
