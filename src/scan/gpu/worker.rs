//! The thread that a device belongs to, and the backend's end of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::calibration::{Calibration, Memory, Tuning};
use super::device::{Device, Ticket, Told, Trouble};
use super::programs::Programs;
use super::shader::Outcome;
use super::suspects::{Suspects, Trial};
use super::thread::{DeviceThread, Waited};
use crate::scan::WorkUnit;

/// How long a batch may take. None is made to take a tenth of a second, and systems take a device for
/// hung after two; a software device may have to share its processor with others.
pub(super) const BATCH_DEADLINE: Duration = Duration::from_secs(6);
/// How long each step of bringing a device up may take: to find and open it, or to compile, test and
/// time one variant. Drivers compile for seconds.
pub(super) const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// What the thread is told.
enum Order {
    /// Send this on its way.
    Batch(WorkUnit),
    /// Wait for the oldest batch, and report.
    Wait,
}

/// What the thread reports.
enum Report {
    /// A step of bringing the device up is done.
    Step,
    /// The device is up.
    Up(Tuning, usize),
    /// The oldest batch is done.
    Done(Outcome, Duration),
    /// The device is of no use any more. The thread has ended.
    Failed(Trouble),
}

/// The backend's end of the thread.
pub(super) struct Link {
    orders: Option<Sender<Order>>,
    thread: DeviceThread<Report>,
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
    /// How long each step of it may take.
    pub(super) step: Duration,
    /// After how much hashing it has to pass a control batch.
    pub(super) control: Duration,
    /// What it died of before.
    pub(super) suspects: Suspects,
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
        let (told, limit) = (Told::default(), start.step);
        let name = format!("gpu-{}-device", start.gpu.index);
        let tells = told.clone();
        let thread = DeviceThread::start(name, told.clone(), move |reports| {
            work(&start, tells, &to_thread, reports);
        })?;
        loop {
            match thread.wait(limit, Duration::ZERO, has_ended)? {
                Waited::For(Report::Step) => {}
                Waited::For(Report::Up(tuning, midstates)) => {
                    let orders = Some(orders);
                    return Ok(Waited::For(Self { orders, thread, tuning, midstates }));
                }
                Waited::For(Report::Failed(trouble)) => return Err(trouble),
                Waited::For(Report::Done(..)) => return Err(nonsense()),
                Waited::Ended => {
                    // A process that ends while a thread of it is deep in a driver may crash.
                    told.tell(Trouble::Unwanted);
                    thread.say_goodbye();
                    return Ok(Waited::Ended);
                }
            }
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
        match self.thread.wait(BATCH_DEADLINE, Duration::from_secs(1), has_ended)? {
            Waited::Ended => Ok(Waited::Ended),
            Waited::For(Report::Done(outcome, took)) => Ok(Waited::For((outcome, took))),
            Waited::For(Report::Failed(trouble)) => Err(trouble),
            Waited::For(Report::Up(..) | Report::Step) => Err(nonsense()),
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has said why, and that is read next.
            let _ = orders.send(order);
        }
    }
}

fn nonsense() -> Trouble {
    Trouble::Lost("it reports nonsense".to_owned())
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without orders the thread closes the device and ends.
        self.orders = None;
        self.thread.say_goodbye();
    }
}

/// The thread: brings the device up, and does what it is told until nobody is there to tell it.
fn work(start: &Start, told: Told, orders: &Receiver<Order>, reports: &Sender<Report>) {
    // Nobody listens any more if it took too long.
    let tell = |report| drop(reports.send(report));
    let mut mining = match bring_up(start, told, &|| tell(Report::Step)) {
        Ok((mining, tuning)) => {
            tell(Report::Up(tuning, mining.programs.midstates()));
            mining
        }
        Err(trouble) => return tell(Report::Failed(trouble)),
    };
    while let Ok(order) = orders.recv() {
        let done = match order {
            Order::Batch(unit) => mining.send(&unit),
            Order::Wait => mining.oldest().map(|(outcome, took)| tell(Report::Done(outcome, took))),
        };
        if let Err(trouble) = done {
            return tell(Report::Failed(trouble));
        }
    }
}

/// A device that mines.
struct Mining<'a> {
    start: &'a Start,
    device: Device,
    programs: Programs,
    /// Sent, the oldest first.
    under_way: VecDeque<Ticket>,
    /// Done, and not asked for yet, the oldest first.
    done: VecDeque<(Outcome, Duration)>,
    /// How long it has hashed since its last control.
    hashed: Duration,
    /// How many controls it has passed.
    controls: u64,
}

impl Mining<'_> {
    fn send(&mut self, unit: &WorkUnit) -> Result<(), Trouble> {
        if self.hashed >= self.start.control {
            // The device stands still for a moment: a slot has to be free, and a control to be over
            // before anything that it may put in doubt begins.
            while let Some(ticket) = self.under_way.pop_front() {
                let done = self.finish(ticket)?;
                self.done.push_back(done);
            }
            self.programs.control(&mut self.device, self.controls)?;
            self.controls += 1;
            self.hashed = Duration::ZERO;
        }
        let scan = unit.scan();
        let program = self.programs.for_midstates(scan.midstates.len());
        self.under_way.push_back(self.device.submit(program, &scan)?);
        Ok(())
    }

    fn oldest(&mut self) -> Result<(Outcome, Duration), Trouble> {
        if let Some(done) = self.done.pop_front() {
            return Ok(done);
        }
        let nothing = || Trouble::Lost("nothing is under way".to_owned());
        let ticket = self.under_way.pop_front().ok_or_else(nothing)?;
        self.finish(ticket)
    }

    fn finish(&mut self, ticket: Ticket) -> Result<(Outcome, Duration), Trouble> {
        let (outcome, took) = self.device.wait(ticket, BATCH_DEADLINE)?;
        if self.hashed.is_zero() {
            // The first batch, or the first after a control; the others have no lock to take.
            self.start.suspects.acquit();
        }
        self.hashed += took;
        Ok((outcome, took))
    }
}

fn bring_up<'a>(
    start: &'a Start,
    told: Told,
    step: &dyn Fn(),
) -> Result<(Mining<'a>, Tuning), Trouble> {
    let gpu = if start.again {
        let gone = || Trouble::Closed("it is not found any more".to_owned());
        start.gpu.found_again().ok_or_else(gone)?
    } else {
        start.gpu.clone()
    };
    let begun = Instant::now();
    let mut device = Device::open(&gpu, told)?;
    #[cfg(debug_assertions)]
    {
        device.wish.clone_from(&start.wish);
    }
    step();
    let (programs, tuning) = fit_for_mining(start, &mut device, &gpu, step, begun)?;
    device.mining_begins();
    let mining = Mining {
        start,
        device,
        programs,
        under_way: VecDeque::new(),
        done: VecDeque::new(),
        hashed: Duration::ZERO,
        controls: 0,
    };
    Ok((mining, tuning))
}

/// What the device is to run: as remembered, or measured now.
fn fit_for_mining(
    start: &Start,
    device: &mut Device,
    gpu: &Gpu,
    step: &dyn Fn(),
    begun: Instant,
) -> Result<(Programs, Tuning), Trouble> {
    let suspects = &start.suspects;
    suspects.acquit();
    let memory = start.cache.as_deref().map(|folder: &Path| Memory::of(folder, gpu));
    let recalled = memory.as_ref().filter(|_| !suspects.have_remembered());
    if let Some(tuning) = recalled.and_then(|memory| memory.recall(gpu)) {
        // Until its first batch is done.
        suspects.put_on_trial(Trial::Remembered);
        // What was fastest and right then may be refused or wrong now: then all is measured anew.
        match tuning.programs(device, start.version_rolling) {
            Ok(programs) => {
                said(gpu, &tuning, start, "remembered", begun);
                return Ok((programs, tuning));
            }
            Err(trouble @ (Trouble::Lies(_) | Trouble::Refused(_))) => {
                tracing::warn!("gpu:{}: what was fastest before: {trouble}", gpu.index);
            }
            Err(trouble) => return Err(trouble),
        }
        suspects.acquit();
        step();
    }
    tracing::info!("gpu:{} {}: measuring what it does best, this once", gpu.index, gpu.name);
    let tuning = Calibration::new(device, gpu, suspects, step).measure()?;
    step();
    let programs = tuning.programs(device, start.version_rolling)?;
    if let Some(memory) = memory {
        memory.keep(gpu, &tuning);
    }
    said(gpu, &tuning, start, "measured", begun);
    Ok((programs, tuning))
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
