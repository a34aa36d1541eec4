//! Scanning on the processor: one file a kernel, and this one to choose among them.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod checkup;
mod choice;
#[cfg(any(test, debug_assertions))]
mod fault;
mod features;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod pending;
mod sha2;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::checkup::{Checked, Unfit, check_up};
pub use self::choice::{Failed, Measured, Opened, Timed, calibrate, open_all, usually_fastest};
#[cfg(test)]
pub(crate) use self::fault::{Fault, Liar};
pub use self::features::{CpuFeature, CpuFeatures, Unavailable};
pub use self::sha2::Sha2;
pub(crate) use crate::scan::self_test::{Differ, Random};
pub use crate::scan::self_test::{Lie, long_self_test, self_test};

use crate::scan::rest::rest;
use crate::scan::{
    BackendError, BackendId, BackendInfo, Feed, Kernel, MAX_MIDSTATES, Scan, Scanner,
};

/// How long one range of nonces should take: short enough that a job change reaches every thread
/// within a millisecond or two, long enough that fetching the next one costs nothing.
const RANGE: Duration = Duration::from_millis(1);

/// A kernel's name, and how to get it.
type Entry = (&'static str, fn(CpuFeatures) -> Result<Arc<dyn Kernel>, Unavailable>);

/// Every kernel there is for this kind of processor, the reference first; as a rule, the further
/// down the faster. A new one is one more line here.
const KERNELS: &[Entry] = &[
    ("sha2", |_| Ok(Arc::new(Sha2))),
    #[cfg(target_arch = "x86_64")]
    ("avx2", |features| opened(avx2::Avx2::new(features))),
    #[cfg(target_arch = "x86_64")]
    ("sha-ni", |features| opened(sha_ni::ShaNi::new(features))),
    #[cfg(target_arch = "x86_64")]
    ("avx512", |features| opened(avx512::Avx512::new(features))),
];

/// A kernel that was opened, or not, on its way into the table.
#[cfg(target_arch = "x86_64")]
fn opened<K: Kernel + 'static>(
    kernel: Result<K, Unavailable>,
) -> Result<Arc<dyn Kernel>, Unavailable> {
    kernel.map(|kernel| Arc::new(kernel) as Arc<dyn Kernel>)
}

/// What every kernel demands of its caller.
fn check(scan: &Scan<'_>) {
    assert!(
        (1..=MAX_MIDSTATES).contains(&scan.midstates.len()),
        "a scan takes 1 to {MAX_MIDSTATES} midstates, not {}",
        scan.midstates.len(),
    );
}

/// The name of a kernel that there is, whether or not this processor can run it: its place in the
/// table of kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelName(usize);

impl KernelName {
    /// Every kernel.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..KERNELS.len()).map(Self)
    }

    /// The kernel of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|kernel| kernel.as_str() == name)
    }

    /// As `--backend cpu:NAME` takes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        KERNELS[self.0].0
    }

    /// The kernel itself, which uses none but these `features`.
    ///
    /// # Errors
    /// When it needs others, or ones that this processor lacks.
    pub fn kernel(self, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Unavailable> {
        let kernel = KERNELS[self.0].1(features);
        #[cfg(debug_assertions)]
        let kernel = kernel.map(fault::perhaps);
        kernel
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelName({self})")
    }
}

/// As many threads as the process may use: its affinity and its cgroup are respected.
#[must_use]
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// A kernel on some threads.
#[derive(Debug)]
pub struct CpuScanner {
    kernel: Arc<dyn Kernel>,
    /// The most midstates that it is handed at once.
    midstates: usize,
    pool: rayon::ThreadPool,
}

impl CpuScanner {
    /// `kernel` on `threads` threads of a rayon pool.
    ///
    /// # Errors
    /// When the system gives no threads.
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

    /// The same with this many midstates at once instead of as many as the kernel likes.
    #[must_use]
    pub fn with_midstates(self, midstates: usize) -> Self {
        Self { midstates: midstates.clamp(1, MAX_MIDSTATES), ..self }
    }

    /// One thread's loop.
    fn scan(&self, thread: usize, feed: &dyn Feed) {
        // Grows to what a range's time allows; the first ones are small, since on an easy target
        // one vector of nonces is plenty.
        let mut nonces: u64 = 256;
        while let Some(unit) = feed.next(self.midstates, nonces) {
            let scan = unit.scan();
            let begun = Instant::now();
            let hashes = self.kernel.scan(&scan, &mut |hit| {
                let flow = feed.hit(&unit, hit);
                // Every core hashes, so the thread that is to send this would wait for a time slice to end.
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

/// How many nonces take [`RANGE`], when `nonces` took `took`. At most twice as many as before, so
/// that one odd measurement does no harm.
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

/// The processor as it names itself; its architecture where it does not say.
#[must_use]
pub fn model_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
