//! The long self-test of a card, for `adit check`: every variant of the shader, not only the fastest.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::deadlines;
use super::device::Device;
use super::error::{DeviceError, DeviceErrorSlot};
use super::faults::Faults;
use super::programs::{KernelUnderTest, Programs};
use super::shader::{Shape, Variant};
use super::thread::{DeviceThread, Waited};
use super::tuning::candidates;
use crate::scan::BackendError;
use crate::scan::self_test::long_self_test;

/// How many random headers each variant hashes, besides the known blocks.
const HEADERS: u32 = 4;

/// The result of [`check_gpu`].
#[derive(Clone, Debug)]
pub struct GpuCheck {
    /// Whether the driver accepts at least one variant, and all that it accepts compute correctly.
    pub result: Result<(), BackendError>,
    /// Variants that the driver refuses.
    pub skipped: Vec<Variant>,
    /// How long it took.
    pub took: Duration,
}

/// Compares every variant on `gpu` with the reference implementation, over known blocks and random
/// headers generated from `seed`. A device that hangs or is lost during the check has failed it.
#[must_use]
pub fn check_gpu(gpu: &Gpu, seed: u64) -> GpuCheck {
    let check = Check { gpu: gpu.clone(), seed, faults: Faults::from_environment() };
    check.within(deadlines::STEP)
}

/// A check of one card.
pub(super) struct Check {
    pub(super) gpu: Gpu,
    pub(super) seed: u64,
    pub(super) faults: Faults,
}

/// What the checking thread sends.
enum Progress {
    /// The device is open.
    Open,
    /// A variant has passed.
    Passed,
    /// The driver refuses this variant, with this error.
    Refused(Variant, DeviceError),
    /// The check is over.
    Finished(Result<(), DeviceError>),
}

impl Check {
    /// Runs the check on a thread of its own. Each variant may take `limit`.
    pub(super) fn within(self, limit: Duration) -> GpuCheck {
        let begun = Instant::now();
        let mut refused = Vec::new();
        let result = self.supervise(limit, &mut refused).map_err(BackendError::from);
        let skipped = refused.into_iter().map(|(variant, _)| variant).collect();
        GpuCheck { result, skipped, took: begun.elapsed() }
    }

    fn supervise(
        self,
        limit: Duration,
        refused: &mut Vec<(Variant, DeviceError)>,
    ) -> Result<(), DeviceError> {
        let (name, errors) = (format!("gpu-{}-check", self.gpu.index), DeviceErrorSlot::default());
        let thread = DeviceThread::start(name, errors.clone(), move |progress| {
            let result = self.check(errors, progress);
            // The receiver is gone if the check took too long.
            let _ = progress.send(Progress::Finished(result));
        })?;
        let mut passed = 0;
        loop {
            match thread.wait(limit, Duration::ZERO, &|| false)? {
                Waited::Ready(Progress::Open) => {}
                Waited::Ready(Progress::Passed) => passed += 1,
                Waited::Ready(Progress::Refused(variant, why)) => refused.push((variant, why)),
                Waited::Ready(Progress::Finished(result)) => {
                    thread.shutdown();
                    result?;
                    break;
                }
                Waited::Stopped => return Err(DeviceError::Cancelled),
            }
        }
        match refused.first() {
            Some((_, DeviceError::Refused(why))) if passed == 0 => {
                Err(DeviceError::Refused(format!("every variant of the shader: {why}")))
            }
            _ => Ok(()),
        }
    }

    fn check(
        &self,
        errors: DeviceErrorSlot,
        progress: &Sender<Progress>,
    ) -> Result<(), DeviceError> {
        let send = |message| drop(progress.send(message));
        let mut device = Device::open(&self.gpu, errors, self.faults.clone())?;
        send(Progress::Open);
        for (variant, shape) in candidates(&self.gpu) {
            match self.check_variant(&mut device, variant, shape) {
                Ok(()) => send(Progress::Passed),
                Err(why @ DeviceError::Refused(_)) => {
                    tracing::warn!("gpu:{}: {variant} is skipped: {why}", self.gpu.index);
                    send(Progress::Refused(variant, why));
                }
                Err(DeviceError::WrongResult(why)) => {
                    return Err(DeviceError::WrongResult(format!("{variant}: {why}")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check_variant(
        &self,
        device: &mut Device,
        variant: Variant,
        shape: Shape,
    ) -> Result<(), DeviceError> {
        let programs = Programs::of_variant(device, variant, shape)?;
        let kernel = KernelUnderTest::new(device, &programs);
        kernel.run(|kernel| long_self_test(kernel, self.seed, HEADERS))
    }
}
