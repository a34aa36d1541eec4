//! Waits between attempts.

use std::time::Duration;

/// How often a wait is doubled at most, so that the number stays small.
const DOUBLINGS_MAX: u32 = 16;

/// Exponential backoff: each wait is twice as long as the one before, up to a longest.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// With the first wait and the longest.
    #[must_use]
    pub const fn new((first, longest): (Duration, Duration)) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after another failed attempt.
    pub fn next(&mut self) -> Duration {
        let doublings = self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.longest.min(self.first * 2u32.saturating_pow(doublings))
    }

    /// The same, longer or shorter by up to a half at random: miners that lost the same server at the
    /// same moment do not all come back at once.
    pub fn next_with_jitter(&mut self) -> Duration {
        self.next().mul_f64(0.5 + fastrand::f64())
    }

    /// Begins with the first wait again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let milliseconds = Duration::from_millis;
        let mut backoff = Backoff::new((milliseconds(200), milliseconds(1_000)));
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1_000].map(milliseconds));
        assert!(waits[4..].iter().all(|wait| *wait == milliseconds(1_000)));
        backoff.reset();
        for wait in [200, 400, 800, 1_000, 1_000].map(milliseconds) {
            let jittered = backoff.next_with_jitter();
            assert!(wait / 2 <= jittered && jittered <= wait * 3 / 2, "{jittered:?}");
        }
    }
}
