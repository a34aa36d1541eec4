//! Scanning on the processor.
//!
//! `kernels` is the table of kernels, each of which stands in a file of its own: `portable`, and those in
//! `x86_64`. `features` says which CPU features they may use, `calibration` which kernel is fastest, and
//! `check` whether they are correct. [`CpuScanner`] is the backend.

mod calibration;
mod check;
#[cfg(any(test, debug_assertions))]
mod faults;
mod features;
mod implementation;
mod kernels;
mod portable;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use self::calibration::{
    Calibration, FailedKernel, TimedKernel, best_kernel, calibrate, usually_fastest,
};
pub use self::check::{CheckError, KernelCheck, check_kernel};
#[cfg(test)]
pub(crate) use self::faults::{Fault, FaultyKernel};
pub use self::features::{CpuFeature, CpuFeatures, Unavailable};
pub use self::kernels::{KernelName, Opened, open_all};
pub use self::portable::Sha2;
pub(crate) use crate::scan::self_test::{Differ, Random};
pub use crate::scan::self_test::{SelfTestError, long_self_test, self_test};

use crate::scan::rest::rest;
use crate::scan::{BackendError, BackendId, BackendInfo, Feed, Kernel, MAX_MIDSTATES, Scanner};

/// How long one range of nonces should take: short enough that every thread notices a job change within
/// a millisecond or two, long enough that fetching the next range costs nothing measurable.
const RANGE: Duration = Duration::from_millis(1);

/// How many threads the process may use, by its CPU affinity and its cgroup.
#[must_use]
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The CPU backend: one kernel on a pool of threads.
#[derive(Debug)]
pub struct CpuScanner {
    kernel: Arc<dyn Kernel>,
    /// How many midstates it gets at once, where a job has that many.
    midstates: usize,
    pool: rayon::ThreadPool,
}

impl CpuScanner {
    /// Runs `kernel` on `threads` threads (at least one) of a rayon pool, without throttling.
    ///
    /// # Errors
    /// When the threads cannot be created.
    pub fn new(
        kernel: Arc<dyn Kernel>,
        threads: usize,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("scan-{index}"))
            .build()?;
        let midstates = kernel.midstates();
        Ok(Self { kernel, midstates, pool })
    }

    /// Hands the kernel this many midstates at once instead of its preferred number.
    #[must_use]
    pub fn with_midstates(self, midstates: usize) -> Self {
        Self { midstates: midstates.clamp(1, MAX_MIDSTATES), ..self }
    }

    /// The loop of one thread.
    fn scan(&self, thread: usize, feed: &dyn Feed) {
        // Ranges grow until they take RANGE. The first are small, since on an easy target a few nonces
        // are enough.
        let mut nonces: u64 = 256;
        while let Some(unit) = feed.next(self.midstates, nonces) {
            let scan = unit.scan();
            let begun = Instant::now();
            let hashes = self.kernel.scan(&scan, &mut |hit| {
                let flow = feed.hit(&unit, hit);
                // Every core is busy hashing; this lets the thread run that submits the hit.
                std::thread::yield_now();
                flow
            });
            let took = begun.elapsed();
            feed.count(thread, hashes);
            if hashes == scan.nonces.count() * scan.midstates.len() as u64 {
                nonces = next_range(scan.nonces.count(), took);
            }
            rest(took, feed);
        }
    }
}

/// How many nonces take [`RANGE`] if `nonces` took `took`. At most twice as many as before, so that one
/// odd measurement does little harm.
fn next_range(nonces: u64, took: Duration) -> u64 {
    let ideal = nonces as f64 * RANGE.as_secs_f64() / took.as_secs_f64().max(1e-9);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let ideal = ideal.clamp(64.0, 1e9) as u64;
    ideal.min(nonces.saturating_mul(2))
}

impl Scanner for CpuScanner {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: BackendId::Cpu(self.kernel.name()),
            kernel: self.kernel.name().to_owned(),
            device: model_name(),
            threads: self.pool.current_num_threads(),
        }
    }

    fn scan_inline(&self, feed: &dyn Feed, nonces: u64) -> bool {
        let Some(unit) = feed.try_next(1, nonces) else { return false };
        let hashes = self.kernel.scan(&unit.scan(), &mut |hit| feed.hit(&unit, hit));
        feed.count(0, hashes);
        true
    }

    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError> {
        self.pool.broadcast(|context| self.scan(context.index(), feed));
        Ok(())
    }
}

/// The processor's model name, or the name of its architecture where that is unknown.
#[must_use]
pub fn model_name() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(read_model_name).clone()
}

fn read_model_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
