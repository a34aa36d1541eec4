//! The thread that a device belongs to. Whatever a driver does to it, the backend goes on: it waits
//! for what the thread reports with a deadline, and leaves it where it is if nothing comes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::calibration::{self, Memory, Tuning};
use super::device::{Device, Ticket, Told, Trouble};
use super::programs::Programs;
use super::shader::Outcome;
use crate::job::WorkUnit;

/// How long a batch may take. None is made to take a tenth of a second, and systems take a device for
/// hung after two; a software device may have to share its processor with others.
pub(super) const BATCH_DEADLINE: Duration = Duration::from_secs(6);
/// How long bringing a device up may take: drivers compile for seconds, and all variants once.
pub(super) const UP_DEADLINE: Duration = Duration::from_secs(180);
/// How often it is looked whether it is time to stop meanwhile.
const TICK: Duration = Duration::from_millis(50);
/// How long the thread has to close the device.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the thread is told.
enum Order {
    /// Send this on its way.
    Batch(WorkUnit),
    /// Wait for the oldest batch, and report.
    Wait,
}

/// What the thread reports.
enum Report {
    /// The device is up.
    Up(Tuning, usize),
    /// The oldest batch is done.
    Done(Outcome, Duration),
    /// The device is of no use any more. The thread has ended.
    Failed(Trouble),
}

/// How the wait for a report ended.
pub(super) enum Waited<T> {
    /// With what was waited for.
    For(T),
    /// It is time to stop.
    Ended,
}

/// The backend's end of the thread.
pub(super) struct Link {
    orders: Option<Sender<Order>>,
    reports: Receiver<Report>,
    thread: Option<JoinHandle<()>>,
    /// What it runs.
    pub(super) tuning: Tuning,
    /// How many midstates it takes at once.
    pub(super) midstates: usize,
}

/// What a thread needs to know to bring a device up.
pub(super) struct Start {
    pub(super) gpu: Gpu,
    /// Whether it was up before: then it has to be found again first.
    pub(super) again: bool,
    pub(super) version_rolling: bool,
    pub(super) cache: Option<PathBuf>,
    /// How long that may take.
    pub(super) deadline: Duration,
    /// Where it is broken off.
    pub(super) told: Told,
    /// What goes wrong with it.
    #[cfg(debug_assertions)]
    pub(super) wish: Option<super::fault::Wish>,
}

impl Link {
    /// Brings a device up on a thread of its own.
    pub(super) fn open(
        start: Start,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<Self>, Trouble> {
        let (orders, to_thread) = channel();
        let (to_us, reports) = channel();
        let (told, deadline) = (start.told.clone(), start.deadline);
        let thread = std::thread::Builder::new()
            .name(format!("gpu-{}-device", start.gpu.index))
            .spawn(move || work(&start, &to_thread, &to_us))
            .map_err(|error| Trouble::Closed(error.to_string()))?;
        match wait(&reports, deadline, Duration::ZERO, has_ended)? {
            Waited::Ended => {
                // A process that ends while a thread of it is deep in a driver may crash.
                told.tell(Trouble::Lost("it is not wanted any more".to_owned()));
                say_goodbye(&thread);
                Ok(Waited::Ended)
            }
            Waited::For(Report::Up(tuning, midstates)) => Ok(Waited::For(Self {
                orders: Some(orders),
                reports,
                thread: Some(thread),
                tuning,
                midstates,
            })),
            Waited::For(Report::Failed(trouble)) => Err(trouble),
            Waited::For(Report::Done(..)) => Err(Trouble::Lost("it reports nonsense".to_owned())),
        }
    }

    /// Sends a batch on its way; at most [`super::device::SLOTS`] may be.
    pub(super) fn send(&self, unit: WorkUnit) {
        self.order(Order::Batch(unit));
    }

    /// Waits for the oldest batch under way.
    pub(super) fn oldest(
        &self,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<(Outcome, Duration)>, Trouble> {
        self.order(Order::Wait);
        // Who is to stop still takes what is as good as done.
        match wait(&self.reports, BATCH_DEADLINE, Duration::from_secs(1), has_ended)? {
            Waited::Ended => Ok(Waited::Ended),
            Waited::For(Report::Done(outcome, took)) => Ok(Waited::For((outcome, took))),
            Waited::For(Report::Failed(trouble)) => Err(trouble),
            Waited::For(Report::Up(..)) => Err(Trouble::Lost("it reports nonsense".to_owned())),
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has said why, and that is read next.
            let _ = orders.send(order);
        }
    }

    /// Leaves the thread to itself: it hangs in a driver.
    pub(super) fn abandon(mut self) {
        self.thread = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without orders the thread closes the device and ends.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            say_goodbye(&thread);
        }
    }
}

/// Waits for a thread to end, but not for ever.
fn say_goodbye(thread: &JoinHandle<()>) {
    let begun = Instant::now();
    while !thread.is_finished() && begun.elapsed() < GOODBYE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next report. `Ended` if it is time to stop and nothing has come for `grace`.
fn wait(
    reports: &Receiver<Report>,
    deadline: Duration,
    grace: Duration,
    has_ended: &dyn Fn() -> bool,
) -> Result<Waited<Report>, Trouble> {
    let begun = Instant::now();
    loop {
        match reports.recv_timeout(TICK) {
            Ok(report) => return Ok(Waited::For(report)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Trouble::Lost("its thread has ended".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let waited = begun.elapsed();
                if waited >= deadline {
                    return Err(Trouble::Hang(deadline));
                }
                if waited >= grace && has_ended() {
                    return Ok(Waited::Ended);
                }
            }
        }
    }
}

/// The thread: brings the device up, and does what it is told until nobody is there to tell it.
fn work(start: &Start, orders: &Receiver<Order>, reports: &Sender<Report>) {
    // Nobody listens any more if it took too long.
    let tell = |report| drop(reports.send(report));
    let (mut device, programs, tuning) = match bring_up(start) {
        Ok(up) => up,
        Err(trouble) => return tell(Report::Failed(trouble)),
    };
    device.mining_begins();
    tell(Report::Up(tuning, programs.midstates()));
    let mut under_way: VecDeque<Ticket> = VecDeque::new();
    while let Ok(order) = orders.recv() {
        let done = match order {
            Order::Batch(unit) => {
                let scan = unit.scan();
                let program = programs.for_midstates(scan.midstates.len());
                device.submit(program, &scan).map(|ticket| under_way.push_back(ticket))
            }
            Order::Wait => match under_way.pop_front() {
                Some(ticket) => device
                    .wait(ticket, BATCH_DEADLINE)
                    .map(|(outcome, took)| tell(Report::Done(outcome, took))),
                None => Err(Trouble::Lost("nothing is under way".to_owned())),
            },
        };
        if let Err(trouble) = done {
            return tell(Report::Failed(trouble));
        }
    }
}

fn bring_up(start: &Start) -> Result<(Device, Programs, Tuning), Trouble> {
    let gpu = if start.again {
        let gone = || Trouble::Closed("it is not found any more".to_owned());
        start.gpu.found_again().ok_or_else(gone)?
    } else {
        start.gpu.clone()
    };
    let begun = Instant::now();
    let mut device = Device::open(&gpu, start.told.clone())?;
    #[cfg(debug_assertions)]
    {
        device.wish.clone_from(&start.wish);
    }
    let memory = start.cache.as_deref().map(|folder: &Path| Memory::of(folder, &gpu));
    if let Some(tuning) = memory.as_ref().and_then(|memory| memory.recall(&gpu)) {
        // What was fastest and right then may be refused or wrong now: then all is measured anew.
        match tuning.programs(&mut device, start.version_rolling) {
            Ok(programs) => {
                said(&gpu, &tuning, start, "remembered", begun);
                return Ok((device, programs, tuning));
            }
            Err(trouble @ (Trouble::Lies(_) | Trouble::Refused(_))) => {
                tracing::warn!("gpu:{}: what was fastest before: {trouble}", gpu.index);
            }
            Err(trouble) => return Err(trouble),
        }
    }
    tracing::info!("gpu:{} {}: measuring what it does best, this once", gpu.index, gpu.name);
    let tuning = calibration::measure(&mut device, &gpu)?;
    let programs = tuning.programs(&mut device, start.version_rolling)?;
    if let Some(memory) = memory {
        memory.keep(&gpu, &tuning);
    }
    said(&gpu, &tuning, start, "measured", begun);
    Ok((device, programs, tuning))
}

fn said(gpu: &Gpu, tuning: &Tuning, start: &Start, how: &str, begun: Instant) {
    let choice = if start.version_rolling { tuning.rolled } else { tuning.plain };
    tracing::info!(
        "gpu:{} {}: shader {}, {how} at {}; up in {:.1} s",
        gpu.index,
        gpu.name,
        choice.variant,
        choice.rate,
        begun.elapsed().as_secs_f64(),
    );
}
