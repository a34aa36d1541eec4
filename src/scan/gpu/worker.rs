//! The thread that owns a device, and the backend's handle to it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::calibration::Calibration;
use super::deadlines;
use super::device::{Device, Ticket};
use super::error::{DeviceError, DeviceErrorSlot};
use super::faults::Faults;
use super::programs::Programs;
use super::quarantine::{Probation, Quarantine};
use super::shader::Outcome;
use super::thread::{DeviceThread, Waited};
use super::tuning::Tuning;
use super::tuning_cache::TuningCache;
use crate::scan::WorkUnit;

/// How long the result of a batch is still waited for when the backend is to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
enum Command {
    /// Start this batch.
    Submit(WorkUnit),
    /// Wait for the oldest batch, and send its result.
    Collect,
}

/// What the thread sends.
enum Reply {
    /// A step of the initialisation is done.
    StepDone,
    /// The device is ready: what it runs, and how many midstates it hashes at once.
    Ready(Tuning, usize),
    /// The oldest batch is done: what it found, and how long it took.
    Done(Outcome, Duration),
    /// The device has failed, and the thread has ended.
    Failed(DeviceError),
}

/// The backend's handle to the thread. Dropping it closes the device.
pub(super) struct DeviceHandle {
    /// `None` once the handle is being dropped.
    commands: Option<Sender<Command>>,
    thread: DeviceThread<Reply>,
    /// What the device runs.
    pub(super) tuning: Tuning,
    /// How many midstates it hashes at once.
    pub(super) midstates: usize,
}

/// What a thread needs to know to initialise a device.
pub(super) struct DeviceConfig {
    pub(super) gpu: Gpu,
    /// Whether it was initialised before, and so has to be found again.
    pub(super) reopen: bool,
    pub(super) version_rolling: bool,
    /// The folder with the tunings of cards.
    pub(super) cache: Option<PathBuf>,
    /// How long each step may take.
    pub(super) step: Duration,
    /// How much hashing there is between two known-answer tests.
    pub(super) retest_interval: Duration,
    /// What may have made it fail before.
    pub(super) quarantine: Quarantine,
    pub(super) faults: Faults,
}

impl DeviceHandle {
    /// Initialises a device on a thread of its own.
    ///
    /// # Errors
    /// Why the device cannot be used.
    pub(super) fn open(
        config: DeviceConfig,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<Self>, DeviceError> {
        let (commands, to_thread) = channel();
        let (errors, limit) = (DeviceErrorSlot::default(), config.step);
        let name = format!("gpu-{}-device", config.gpu.index);
        let thread_errors = errors.clone();
        let thread = DeviceThread::start(name, errors.clone(), move |replies| {
            work(&config, thread_errors, &to_thread, replies);
        })?;
        loop {
            match thread.wait(limit, Duration::ZERO, has_ended)? {
                Waited::Ready(Reply::StepDone) => {}
                Waited::Ready(Reply::Ready(tuning, midstates)) => {
                    let commands = Some(commands);
                    return Ok(Waited::Ready(Self { commands, thread, tuning, midstates }));
                }
                Waited::Ready(Reply::Failed(error)) => return Err(error),
                Waited::Ready(Reply::Done(..)) => return Err(unexpected_reply()),
                Waited::Stopped => {
                    // A process that exits while one of its threads is inside a driver may crash.
                    errors.report(DeviceError::Cancelled);
                    thread.shutdown();
                    return Ok(Waited::Stopped);
                }
            }
        }
    }

    /// Starts a batch; at most [`super::device::SLOTS`] may be in flight.
    pub(super) fn submit(&self, unit: WorkUnit) {
        self.command(Command::Submit(unit));
    }

    /// Waits for the oldest batch in flight. Returns what it found, and how long it took.
    ///
    /// # Errors
    /// When the device has failed.
    pub(super) fn collect(
        &self,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<(Outcome, Duration)>, DeviceError> {
        self.command(Command::Collect);
        match self.thread.wait(deadlines::BATCH, STOP_GRACE, has_ended)? {
            Waited::Stopped => Ok(Waited::Stopped),
            Waited::Ready(Reply::Done(outcome, took)) => Ok(Waited::Ready((outcome, took))),
            Waited::Ready(Reply::Failed(error)) => Err(error),
            Waited::Ready(Reply::Ready(..) | Reply::StepDone) => Err(unexpected_reply()),
        }
    }

    fn command(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // If the thread has ended, its last reply says why and is read next.
            let _ = commands.send(command);
        }
    }
}

fn unexpected_reply() -> DeviceError {
    DeviceError::Lost("its thread sent an unexpected reply".to_owned())
}

impl Drop for DeviceHandle {
    fn drop(&mut self) {
        // When the channel closes, the thread closes the device and ends.
        self.commands = None;
        self.thread.shutdown();
    }
}

/// The thread's body: initialises the device, then obeys commands until the channel is closed.
fn work(
    config: &DeviceConfig,
    errors: DeviceErrorSlot,
    commands: &Receiver<Command>,
    replies: &Sender<Reply>,
) {
    // The receiver is gone if a step took too long.
    let send = |reply| drop(replies.send(reply));
    let mut mining = match initialise(config, errors, &|| send(Reply::StepDone)) {
        Ok((mining, tuning)) => {
            send(Reply::Ready(tuning, mining.programs.midstates()));
            mining
        }
        Err(error) => return send(Reply::Failed(error)),
    };
    while let Ok(command) = commands.recv() {
        let done = match command {
            Command::Submit(unit) => mining.submit(&unit),
            Command::Collect => {
                mining.collect().map(|(outcome, took)| send(Reply::Done(outcome, took)))
            }
        };
        if let Err(error) = done {
            return send(Reply::Failed(error));
        }
    }
}

/// A device that mines.
struct MiningDevice<'a> {
    config: &'a DeviceConfig,
    device: Device,
    programs: Programs,
    /// Batches in flight, the oldest first.
    in_flight: VecDeque<Ticket>,
    /// Results that have not been collected yet, the oldest first.
    done: VecDeque<(Outcome, Duration)>,
    /// How long it has hashed since the last known-answer test.
    since_test: Duration,
    /// How many known-answer tests it has passed.
    tests_passed: u64,
}

impl MiningDevice<'_> {
    fn submit(&mut self, unit: &WorkUnit) -> Result<(), DeviceError> {
        if self.since_test >= self.config.retest_interval {
            // The device idles for a moment: the test needs a free slot, and has to pass before another
            // batch starts whose result it would put in doubt.
            while let Some(ticket) = self.in_flight.pop_front() {
                let done = self.finish(ticket)?;
                self.done.push_back(done);
            }
            self.programs.known_answer_test(&mut self.device, self.tests_passed)?;
            self.tests_passed += 1;
            self.since_test = Duration::ZERO;
        }
        let scan = unit.scan();
        let program = self.programs.for_midstates(scan.midstates.len());
        self.in_flight.push_back(self.device.submit(program, &scan)?);
        Ok(())
    }

    fn collect(&mut self) -> Result<(Outcome, Duration), DeviceError> {
        if let Some(done) = self.done.pop_front() {
            return Ok(done);
        }
        let nothing = || DeviceError::Lost("no batch is in flight".to_owned());
        let ticket = self.in_flight.pop_front().ok_or_else(nothing)?;
        self.finish(ticket)
    }

    fn finish(&mut self, ticket: Ticket) -> Result<(Outcome, Duration), DeviceError> {
        let (outcome, took) = self.device.wait(ticket, deadlines::BATCH)?;
        if self.since_test.is_zero() {
            // Only the first batch, and the first after each test: the others need not take the lock.
            self.config.quarantine.clear();
        }
        self.since_test += took;
        Ok((outcome, took))
    }
}

fn initialise<'a>(
    config: &'a DeviceConfig,
    errors: DeviceErrorSlot,
    step_done: &dyn Fn(),
) -> Result<(MiningDevice<'a>, Tuning), DeviceError> {
    let gpu = if config.reopen {
        let gone = || DeviceError::Unavailable("its driver no longer lists it".to_owned());
        config.gpu.find_again().ok_or_else(gone)?
    } else {
        config.gpu.clone()
    };
    let begun = Instant::now();
    let mut device = Device::open(&gpu, errors, config.faults.clone())?;
    step_done();
    let (programs, tuning) = tuned_programs(config, &mut device, &gpu, step_done, begun)?;
    device.mining_begins();
    let mining = MiningDevice {
        config,
        device,
        programs,
        in_flight: VecDeque::new(),
        done: VecDeque::new(),
        since_test: Duration::ZERO,
        tests_passed: 0,
    };
    Ok((mining, tuning))
}

/// Compiles and tests what the device runs: the cached tuning, or the result of a calibration.
fn tuned_programs(
    config: &DeviceConfig,
    device: &mut Device,
    gpu: &Gpu,
    step_done: &dyn Fn(),
    begun: Instant,
) -> Result<(Programs, Tuning), DeviceError> {
    let quarantine = &config.quarantine;
    quarantine.clear();
    let cache = config.cache.as_deref().map(|folder: &Path| TuningCache::for_gpu(folder, gpu));
    let usable = cache.as_ref().filter(|_| !quarantine.contains_cached_tuning());
    if let Some(tuning) = usable.and_then(|cache| cache.load(gpu)) {
        // Until the first batch is done.
        quarantine.begin(Probation::CachedTuning);
        match Programs::of_tuning(device, &tuning, config.version_rolling) {
            Ok(programs) => {
                log_tuning(gpu, &tuning, config, "cached", begun);
                return Ok((programs, tuning));
            }
            // It worked when it was measured, and does not now: everything is measured again.
            Err(error @ (DeviceError::WrongResult(_) | DeviceError::Refused(_))) => {
                tracing::warn!("gpu:{}: the cached tuning fails: {error}", gpu.index);
            }
            Err(error) => return Err(error),
        }
        quarantine.clear();
        step_done();
    }
    tracing::info!("gpu:{} {}: calibrating, once for this card and driver", gpu.index, gpu.name);
    let tuning = Calibration::new(device, gpu, quarantine, step_done).measure()?;
    step_done();
    let programs = Programs::of_tuning(device, &tuning, config.version_rolling)?;
    if let Some(cache) = cache {
        cache.store(gpu, &tuning);
    }
    log_tuning(gpu, &tuning, config, "measured", begun);
    Ok((programs, tuning))
}

fn log_tuning(gpu: &Gpu, tuning: &Tuning, config: &DeviceConfig, how: &str, begun: Instant) {
    let choice = if config.version_rolling { tuning.rolled } else { tuning.plain };
    tracing::info!(
        "gpu:{} {}: shader {}, {how} rate {}; ready in {:.1} s",
        gpu.index,
        gpu.name,
        choice.variant,
        choice.rate,
        begun.elapsed().as_secs_f64(),
    );
}
