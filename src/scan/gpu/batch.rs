//! How large the next batch is.

use std::time::Duration;

use super::shader::{HIT_CAPACITY, MAX_NONCES};
use crate::scan::WorkUnit;

/// A batch where a display may hang on the card: what stands still for longer is seen to stutter.
pub(super) const WITH_DISPLAY: Duration = Duration::from_millis(10);
/// A batch where none does: longer ones save nothing worth naming, and hold up job changes.
pub(super) const WITHOUT_DISPLAY: Duration = Duration::from_millis(50);

/// The first batch of a device of which nothing is known yet, in hashes.
const FIRST: u64 = 1 << 16;
/// The most hashes of the first batch, whatever rate was remembered: a device that is far slower than
/// that must not be taken for one that hangs. Doubled each time, the batches of the fastest card have
/// their size after some ten milliseconds.
const FIRST_MAX: u64 = 1 << 22;
/// No batch is smaller: sending it costs more than doing it.
const SMALLEST: u64 = 1 << 10;

/// Sizes batches by the time that the last ones took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    target: Duration,
    /// Hashes of the next batch.
    hashes: u64,
}

impl Pace {
    /// Batches of about `target`, on a device that did `rate` hashes a second when it was measured.
    pub(super) fn new(target: Duration, rate: f64) -> Self {
        // A quarter of what that comes to: the device may be busy today.
        let guess = (rate * target.as_secs_f64() / 4.0) as u64;
        Self { target, hashes: guess.clamp(FIRST, FIRST_MAX) }
    }

    /// Makes batches of about `target` from now on.
    pub(super) fn aim(&mut self, target: Duration) {
        if target < self.target {
            let share = target.as_secs_f64() / self.target.as_secs_f64();
            self.hashes = ((self.hashes as f64 * share) as u64).max(SMALLEST);
        }
        self.target = target;
    }

    /// Nonces to ask for, with so many midstates each.
    pub(super) fn nonces(&self, midstates: usize) -> u64 {
        (self.hashes / midstates.max(1) as u64).clamp(1, MAX_NONCES)
    }

    /// Hashes that a batch is to have.
    pub(super) fn hashes(&self) -> u64 {
        self.hashes
    }

    /// Learns that a batch of so many hashes took so long. At most twice as many are next, so that
    /// one odd measurement does no harm; as few as it takes, so that a batch never comes near the
    /// second or two after which a system takes the device for hung.
    pub(super) fn learn(&mut self, hashes: u64, took: Duration) {
        let ideal = hashes as f64 * self.target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let ideal = (ideal as u64).max(SMALLEST);
        // A smaller one than was asked for takes its time to be sent, and says little else.
        if hashes.saturating_mul(8) >= self.hashes.saturating_mul(7) || took > self.target {
            self.hashes = ideal.min(hashes.max(SMALLEST).saturating_mul(2));
        }
    }
}

/// The most hashes that a batch of this unit's job is to have, whatever time it takes; and whether more than
/// one batch under way makes sense.
///
/// Where the first solution ends the job, twice as many as it takes on the average: in seven of eight
/// cases a solution is among them, and nobody waits for the rest. Otherwise so many that the list of
/// hits is seldom more than half full.
pub(super) fn most_hashes(unit: &WorkUnit) -> u64 {
    let expected = unit.target.difficulty().expected_hashes();
    let most =
        if unit.template.job.ends_when_solved { 2.0 } else { HIT_CAPACITY as f64 / 4.0 } * expected;
    (most as u64).max(SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn batches_grow_to_their_time_and_shrink_at_once() {
        let mut pace = Pace::new(10 * MS, 0.0);
        assert_eq!(pace.nonces(1), FIRST);
        // A device of 1 GH/s, with 100 µs to send a batch.
        let took = |hashes: u64| Duration::from_secs_f64(1e-4 + hashes as f64 / 1e9);
        let mut batches = 0;
        while took(pace.nonces(1)) < 9 * MS {
            let hashes = pace.nonces(1);
            pace.learn(hashes, took(hashes));
            assert!(pace.nonces(1) <= 2 * hashes);
            batches += 1;
            assert!(batches < 12, "{pace:?}");
        }
        assert!(took(pace.nonces(1)) < 12 * MS, "{pace:?}");
        assert_eq!(pace.nonces(4), pace.nonces(1) / 4);
        // Something else wants the device.
        let hashes = pace.nonces(1);
        pace.learn(hashes, 100 * MS);
        assert!(pace.nonces(1) <= hashes / 9);
    }

    #[test]
    fn several_midstates_are_no_obstacle() {
        for k in [1, 2, 4, 64] {
            let mut pace = Pace::new(10 * MS, 123_456_789.0);
            for _ in 0..12 {
                let hashes = pace.nonces(k) * k as u64;
                pace.learn(hashes, Duration::from_secs_f64(hashes as f64 / 1e9));
            }
            assert!((9_000_000..11_000_000).contains(&pace.hashes()), "{k}: {pace:?}");
        }
    }

    #[test]
    fn a_small_batch_says_little() {
        let mut pace = Pace::new(10 * MS, 4e9);
        let before = pace.nonces(1);
        pace.learn(1000, MS);
        assert_eq!(pace.nonces(1), before);
        pace.learn(1000, 20 * MS);
        assert!(pace.nonces(1) < before);
    }

    #[test]
    fn no_batch_is_empty_or_endless() {
        let mut pace = Pace::new(50 * MS, 1e15);
        assert_eq!(pace.nonces(1), FIRST_MAX, "a rate that is not true does no harm");
        while pace.nonces(1) < MAX_NONCES {
            let before = pace.nonces(1);
            pace.learn(before, Duration::ZERO);
            assert!(pace.nonces(1) > before);
        }
        assert_eq!(pace.nonces(1), MAX_NONCES);
        pace.learn(pace.nonces(1), Duration::from_secs(1 << 30));
        assert_eq!(pace.nonces(1), SMALLEST);
        pace.learn(SMALLEST, Duration::ZERO);
        assert_eq!(pace.nonces(1), 2 * SMALLEST);
        assert_eq!(pace.nonces(usize::MAX), 1);
    }
}
