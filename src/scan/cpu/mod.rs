//! Scanning on the processor: one file a kernel, and this one to choose among them.

mod sha2;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::sha2::Sha2;

use crate::scan::{BackendInfo, Feed, Kernel, Scanner};

/// How long one range of nonces should take: short enough that a job change reaches every thread
/// within a millisecond or two, long enough that fetching the next one costs nothing.
const RANGE: Duration = Duration::from_millis(1);

/// The kernel of this name, if there is one and this processor can run it.
#[must_use]
pub fn kernel(name: &str) -> Option<Arc<dyn Kernel>> {
    match name {
        "sha2" => Some(Arc::new(Sha2)),
        _ => None,
    }
}

/// A kernel on some threads.
#[derive(Debug)]
pub struct CpuScanner {
    kernel: Arc<dyn Kernel>,
    pool: rayon::ThreadPool,
    /// Share of the time spent hashing, 1 to 100.
    percent: u8,
}

impl CpuScanner {
    /// `kernel` on `threads` threads of a rayon pool, hashing `percent` (1 to 100) of the time.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(
        kernel: Arc<dyn Kernel>,
        threads: usize,
        percent: u8,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("scan-{index}"))
            .build()?;
        Ok(Self { kernel, pool, percent: percent.clamp(1, 100) })
    }

    /// One thread's loop.
    fn scan(&self, thread: usize, feed: &dyn Feed) {
        let midstates = self.kernel.midstates();
        // Grows to what a range's time allows; the first ones are small, since on an easy target
        // one vector of nonces is plenty.
        let mut nonces: u64 = 256;
        while let Some(unit) = feed.next(midstates, nonces) {
            let scan = unit.scan();
            let begun = Instant::now();
            let hashes = self.kernel.scan(&scan, &mut |hit| feed.hit(&unit, hit));
            let took = begun.elapsed();
            feed.count(thread, hashes);
            if hashes == scan.nonces.count() * scan.midstates.len() as u64 {
                nonces = next_range(scan.nonces.count(), took);
            }
            if self.percent < 100 {
                std::thread::sleep(took * u32::from(100 - self.percent) / u32::from(self.percent));
            }
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
            backend: "cpu",
            kernel: self.kernel.name().to_owned(),
            device: model_name(),
            threads: self.pool.current_num_threads(),
        }
    }

    fn run(&self, feed: &dyn Feed) {
        self.pool.broadcast(|context| self.scan(context.index(), feed));
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
