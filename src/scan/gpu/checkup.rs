//! The long self-test of a card: every variant of the shader, whichever is fastest.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::calibration::{candidates, programs_of};
use super::device::{Device, Told, Trouble};
use super::programs::Examinee;
use super::shader::{Shape, Variant};
use super::thread::{DeviceThread, Waited};
use super::worker::STEP_DEADLINE;
use crate::scan::BackendError;
use crate::scan::cpu::long_self_test;

/// How many random headers each variant is tried with, besides the known blocks.
const HEADERS: u32 = 4;

/// What a check came to.
#[derive(Clone, Debug)]
pub struct CheckUp {
    /// Whether every variant that the driver takes tells the truth, and it takes one at least.
    pub result: Result<(), BackendError>,
    /// Variants that the driver does not take.
    pub skipped: Vec<Variant>,
    /// How long it took.
    pub took: Duration,
}

/// Holds every variant against plain code on `gpu`: known blocks, and random headers that `seed`
/// leads to. A device that hangs or is lost meanwhile is an error like any other.
#[must_use]
pub fn check_up(gpu: &Gpu, seed: u64) -> CheckUp {
    let examination = Examination {
        gpu: gpu.clone(),
        seed,
        #[cfg(debug_assertions)]
        wish: super::fault::Wish::of_environment(),
    };
    examination.within(STEP_DEADLINE)
}

/// What is examined, and how.
pub(super) struct Examination {
    pub(super) gpu: Gpu,
    pub(super) seed: u64,
    /// What goes wrong with it.
    #[cfg(debug_assertions)]
    pub(super) wish: Option<super::fault::Wish>,
}

/// What its thread reports.
enum Report {
    /// The device is open.
    Open,
    /// This variant tells the truth.
    Passed,
    /// The driver does not take this one.
    Refused(Variant, Trouble),
    /// It is over.
    Over(Result<(), Trouble>),
}

impl Examination {
    /// Does it, on a thread of its own: each variant has so long.
    pub(super) fn within(self, limit: Duration) -> CheckUp {
        let begun = Instant::now();
        let mut refused = Vec::new();
        let result = self.heard(limit, &mut refused).map_err(BackendError::from);
        let skipped = refused.into_iter().map(|(variant, _)| variant).collect();
        CheckUp { result, skipped, took: begun.elapsed() }
    }

    fn heard(self, limit: Duration, refused: &mut Vec<(Variant, Trouble)>) -> Result<(), Trouble> {
        let (name, told) = (format!("gpu-{}-check", self.gpu.index), Told::default());
        let thread = DeviceThread::start(name, told.clone(), move |reports| {
            let result = self.examine(told, reports);
            // Nobody listens any more if it took too long.
            let _ = reports.send(Report::Over(result));
        })?;
        let mut passed = 0;
        loop {
            match thread.wait(limit, Duration::ZERO, &|| false)? {
                Waited::For(Report::Open) => {}
                Waited::For(Report::Passed) => passed += 1,
                Waited::For(Report::Refused(variant, why)) => refused.push((variant, why)),
                Waited::For(Report::Over(result)) => {
                    thread.say_goodbye();
                    result?;
                    break;
                }
                Waited::Ended => return Err(Trouble::Unwanted),
            }
        }
        match refused.first() {
            Some((_, Trouble::Refused(why))) if passed == 0 => {
                Err(Trouble::Refused(format!("every variant of the shader: {why}")))
            }
            _ => Ok(()),
        }
    }

    fn examine(&self, told: Told, reports: &Sender<Report>) -> Result<(), Trouble> {
        let tell = |report| drop(reports.send(report));
        let mut device = Device::open(&self.gpu, told)?;
        #[cfg(debug_assertions)]
        {
            device.wish.clone_from(&self.wish);
        }
        tell(Report::Open);
        for (variant, shape) in candidates(&self.gpu) {
            match self.examine_one(&mut device, variant, shape) {
                Ok(()) => tell(Report::Passed),
                Err(why @ Trouble::Refused(_)) => {
                    tracing::warn!("gpu:{}: {variant} is left out: {why}", self.gpu.index);
                    tell(Report::Refused(variant, why));
                }
                Err(Trouble::Lies(why)) => return Err(Trouble::Lies(format!("{variant}: {why}"))),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    fn examine_one(
        &self,
        device: &mut Device,
        variant: Variant,
        shape: Shape,
    ) -> Result<(), Trouble> {
        let programs = programs_of(device, variant, shape)?;
        let examinee = Examinee::new(device, &programs);
        examinee.examine(|kernel| long_self_test(kernel, self.seed, HEADERS))
    }
}
