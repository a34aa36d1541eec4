//! Counts hashes without getting in their way.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter on a cache line of its own, so that threads which count do not slow each other down.
/// 128 bytes, since some processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// The hashes of one backend, a counter a thread.
#[derive(Debug)]
pub struct Meter {
    threads: Vec<Counter>,
}

impl Meter {
    /// For `threads` threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: (0..threads.max(1)).map(|_| Counter::default()).collect() }
    }

    /// Adds `hashes` done by thread number `thread`.
    pub fn add(&self, thread: usize, hashes: u64) {
        self.threads[thread % self.threads.len()].0.fetch_add(hashes, Ordering::Relaxed);
    }

    /// All hashes so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.threads.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum()
    }
}
