//! The size of batches.

use std::time::Duration;

use super::shader::{HIT_CAPACITY, MAX_NONCES};
use crate::scan::WorkUnit;

/// How long a batch takes where a display may be connected to the card: longer pauses are visible.
pub(super) const WITH_DISPLAY: Duration = Duration::from_millis(10);
/// The same where none is: longer batches would hardly be more efficient, and would delay job changes.
pub(super) const WITHOUT_DISPLAY: Duration = Duration::from_millis(50);

/// The first batch of a device with an unknown rate, in hashes.
const FIRST_BATCH: u64 = 1 << 16;
/// The most hashes of the first batch, whatever rate was measured before: a device that has become far
/// slower must not seem to hang. Batches double in size, so those of the fastest card reach their full
/// size after some ten milliseconds.
const MAX_FIRST_BATCH: u64 = 1 << 22;
/// The smallest batch, in hashes: a smaller one would take longer to submit than to run.
const MIN_BATCH: u64 = 1 << 10;

/// Chooses the size of batches by how long the last ones took.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSizer {
    target: Duration,
    /// Hashes of the next batch.
    hashes: u64,
}

impl BatchSizer {
    /// For batches that take about `target`, on a device measured at `rate` hashes per second.
    pub(super) fn new(target: Duration, rate: f64) -> Self {
        // Begins with a quarter of the size: the device may be busy.
        let guess = (rate * target.as_secs_f64() / 4.0) as u64;
        Self { target, hashes: guess.clamp(FIRST_BATCH, MAX_FIRST_BATCH) }
    }

    /// Makes batches of about `target` from now on.
    pub(super) fn aim(&mut self, target: Duration) {
        if target < self.target {
            let share = target.as_secs_f64() / self.target.as_secs_f64();
            self.hashes = ((self.hashes as f64 * share) as u64).max(MIN_BATCH);
        }
        self.target = target;
    }

    /// How many nonces the next batch has, each for this many midstates.
    pub(super) fn nonces(&self, midstates: usize) -> u64 {
        (self.hashes / midstates.max(1) as u64).clamp(1, MAX_NONCES)
    }

    /// How many hashes the next batch has.
    pub(super) fn hashes(&self) -> u64 {
        self.hashes
    }

    /// Records that a batch of this many hashes took this long. The size at most doubles, so that one odd
    /// measurement does little harm, but shrinks at once, so that no batch comes near the second or two
    /// after which operating systems reset a card.
    pub(super) fn record(&mut self, hashes: u64, took: Duration) {
        let ideal = hashes as f64 * self.target.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let ideal = (ideal as u64).max(MIN_BATCH);
        // The time of a batch that is smaller than requested is mostly that of its submission.
        if hashes.saturating_mul(8) >= self.hashes.saturating_mul(7) || took > self.target {
            self.hashes = ideal.min(hashes.max(MIN_BATCH).saturating_mul(2));
        }
    }
}

/// The most hashes that a batch of this unit's job should have, however fast the device is.
///
/// Where the first solution ends the job, that is twice the average number of hashes for a solution:
/// with a probability of seven in eight the batch holds one, and little work is wasted. Otherwise it
/// keeps the list of hits at most half full almost always.
pub(super) fn max_hashes(unit: &WorkUnit) -> u64 {
    let expected = unit.target.difficulty().expected_hashes();
    let max =
        if unit.template.job.ends_when_solved { 2.0 } else { HIT_CAPACITY as f64 / 4.0 } * expected;
    (max as u64).max(MIN_BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn batches_grow_to_their_time_and_shrink_at_once() {
        let mut sizer = BatchSizer::new(10 * MS, 0.0);
        assert_eq!(sizer.nonces(1), FIRST_BATCH);
        // A device of 1 GH/s, with 100 µs to send a batch.
        let took = |hashes: u64| Duration::from_secs_f64(1e-4 + hashes as f64 / 1e9);
        let mut batches = 0;
        while took(sizer.nonces(1)) < 9 * MS {
            let hashes = sizer.nonces(1);
            sizer.record(hashes, took(hashes));
            assert!(sizer.nonces(1) <= 2 * hashes);
            batches += 1;
            assert!(batches < 12, "{sizer:?}");
        }
        assert!(took(sizer.nonces(1)) < 12 * MS, "{sizer:?}");
        assert_eq!(sizer.nonces(4), sizer.nonces(1) / 4);
        // Something else uses the device.
        let hashes = sizer.nonces(1);
        sizer.record(hashes, 100 * MS);
        assert!(sizer.nonces(1) <= hashes / 9);
    }

    #[test]
    fn the_number_of_midstates_does_not_matter() {
        for k in [1, 2, 4, 64] {
            let mut sizer = BatchSizer::new(10 * MS, 123_456_789.0);
            for _ in 0..12 {
                let hashes = sizer.nonces(k) * k as u64;
                sizer.record(hashes, Duration::from_secs_f64(hashes as f64 / 1e9));
            }
            assert!((9_000_000..11_000_000).contains(&sizer.hashes()), "{k}: {sizer:?}");
        }
    }

    #[test]
    fn small_batches_hardly_count() {
        let mut sizer = BatchSizer::new(10 * MS, 4e9);
        let before = sizer.nonces(1);
        sizer.record(1000, MS);
        assert_eq!(sizer.nonces(1), before);
        sizer.record(1000, 20 * MS);
        assert!(sizer.nonces(1) < before);
    }

    #[test]
    fn no_batch_is_empty_or_too_large() {
        let mut sizer = BatchSizer::new(50 * MS, 1e15);
        assert_eq!(sizer.nonces(1), MAX_FIRST_BATCH, "a wrong rate does no harm");
        while sizer.nonces(1) < MAX_NONCES {
            let before = sizer.nonces(1);
            sizer.record(before, Duration::ZERO);
            assert!(sizer.nonces(1) > before);
        }
        assert_eq!(sizer.nonces(1), MAX_NONCES);
        sizer.record(sizer.nonces(1), Duration::from_secs(1 << 30));
        assert_eq!(sizer.nonces(1), MIN_BATCH);
        sizer.record(MIN_BATCH, Duration::ZERO);
        assert_eq!(sizer.nonces(1), 2 * MIN_BATCH);
        assert_eq!(sizer.nonces(usize::MAX), 1);
    }
}
