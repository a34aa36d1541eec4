//! Waits that double from one attempt to the next.

use std::time::Duration;

/// The wait before the next attempt, where attempts fail.
#[derive(Debug)]
pub struct Backoff {
    range: (Duration, Duration),
    attempts: u32,
}

impl Backoff {
    /// Starts with the first wait of `range`, and doubles up to the last.
    pub const fn new(range: (Duration, Duration)) -> Self {
        Self { range, attempts: 0 }
    }

    /// The next wait.
    pub fn next(&mut self) -> Duration {
        self.attempts += 1;
        doubled(self.range, self.attempts - 1)
    }

    /// Starts again with the first wait.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The first wait doubled `times` times, and never more than the last.
pub fn doubled((first, last): (Duration, Duration), times: u32) -> Duration {
    last.min(first * 2u32.saturating_pow(times.min(16)))
}
