//! Figures from slices: quantiles, outliers, and whether two runs differ.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// The value below which `share` (0 to 1) of `values` lie, by linear interpolation between the two
/// nearest; `None` where there are none.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

/// The middle of `values`; `None` where there are none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Which of `values` lie far out (Tukey): more than three times the distance of the quartiles
/// outside of these, and at least 5 % off the median. None where there are fewer than five.
#[must_use]
pub fn outliers(values: &[f64]) -> Vec<usize> {
    let quartiles = (quantile(values, 0.25), median(values), quantile(values, 0.75));
    let (Some(lower), Some(middle), Some(upper)) = quartiles else { return Vec::new() };
    if values.len() < BLOCKS {
        return Vec::new();
    }
    let reach = (3.0 * (upper - lower)).max(0.05 * middle.abs());
    let far = |value: f64| value < lower.min(middle) - reach || value > upper.max(middle) + reach;
    (0..values.len()).filter(|index| far(values[*index])).collect()
}

/// Into how many blocks a run's slices are parted for its error.
pub const BLOCKS: usize = 5;

/// How many times larger the error is than it would be if blocks that follow each other had nothing in
/// common. Drifts are longer than a block; this is for one as long as a block or a little longer.
const ALIKE: f64 = 1.5;

/// Where a run's values lie, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// The median of all values.
    pub middle: f64,
    /// The standard error of it, from the run's own drift.
    pub error: f64,
}

impl Location {
    /// Of values in the order of time. Values close in time are alike, so single values say too much
    /// of their sureness: the error comes from the medians of [`BLOCKS`] blocks that follow each
    /// other. `None` where there are fewer values than that.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.len() < BLOCKS {
            return None;
        }
        let edge = |block: usize| block * values.len() / BLOCKS;
        let blocks: Vec<f64> =
            (0..BLOCKS).filter_map(|block| median(&values[edge(block)..edge(block + 1)])).collect();
        let mean = blocks.iter().sum::<f64>() / BLOCKS as f64;
        let squares: f64 = blocks.iter().map(|block| (block - mean).powi(2)).sum();
        let variance = squares / (BLOCKS - 1) as f64;
        Some(Self { middle: median(values)?, error: ALIKE * (variance / BLOCKS as f64).sqrt() })
    }
}

/// A difference with the interval in which it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The difference.
    pub middle: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// The difference `after` - `before` of two runs with its interval of `confidence` (such as 0.95).
/// `between` is the standard deviation that runs have among each other beside what can be seen
/// within one.
#[must_use]
pub fn difference(before: Location, after: Location, between: f64, confidence: f64) -> Difference {
    let middle = after.middle - before.middle;
    // Welch-Satterthwaite: each part of the variance with the freedom it was had with. What runs
    // differ by is known from many.
    let freedom = (BLOCKS - 1) as f64;
    let parts = [
        (before.error.powi(2), freedom),
        (after.error.powi(2), freedom),
        (2.0 * between.powi(2), 40.0),
    ];
    let variance: f64 = parts.iter().map(|(variance, _)| variance).sum();
    let sum: f64 = parts.iter().map(|(variance, freedom)| variance.powi(2) / freedom).sum();
    let freedom = if sum > 0.0 { variance.powi(2) / sum } else { freedom };
    // It fails for no number that can come here.
    let reach = StudentsT::new(0.0, 1.0, freedom.max(1.0))
        .map_or(f64::INFINITY, |t| t.inverse_cdf(f64::midpoint(1.0, confidence)) * variance.sqrt());
    Difference { middle, low: middle - reach, high: middle + reach }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::cpu::Random;

    #[test]
    fn quantiles_interpolate() {
        let near = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        let values = [4.0, 1.0, 3.0, 2.0];
        assert!(near(median(&values), 2.5) && near(quantile(&values, 0.25), 1.75));
        assert!(near(quantile(&values, 0.0), 1.0) && near(quantile(&values, 1.0), 4.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn outliers_are_those_far_out() {
        let mut values = vec![100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 60.0];
        assert_eq!(outliers(&values), [6]);
        values[6] = 96.0;
        assert!(outliers(&values).is_empty(), "4 % off is no outlier, however quiet the rest is");
        assert!(outliers(&[1.0, 9.0]).is_empty() && outliers(&[]).is_empty());
    }

    #[test]
    fn a_location_is_as_sure_as_its_blocks_agree() {
        let steady = Location::of(&[1.0; 20]).unwrap();
        assert!((steady.middle - 1.0).abs() < 1e-12 && steady.error < 1e-12);
        // A drift makes it unsure, and a shuffled one would not.
        let drift: Vec<f64> = (0..20).map(f64::from).collect();
        assert!(Location::of(&drift).unwrap().error > 2.0);
        assert_eq!(Location::of(&[1.0; 4]), None);
    }

    #[test]
    fn intervals_are_students() {
        // Two runs of equal error and nothing between: 8 degrees of freedom, t = 2.306.
        let at = |middle| Location { middle, error: 0.5 };
        let found = difference(at(1.0), at(3.0), 0.0, 0.95);
        assert!((found.middle - 2.0).abs() < 1e-12);
        let reach = 2.306_004 * 0.5_f64.sqrt();
        assert!((found.high - found.middle - reach).abs() < 1e-4, "{found:?}");
        let exact = difference(Location { middle: 1.0, error: 0.0 }, at(1.0), 0.0, 0.95);
        assert!(exact.low < 0.0);
    }

    /// A run as a shared machine gives it: a level of its own, a drift that goes on from slice to
    /// slice, and noise.
    pub(crate) fn noisy(random: &mut Random, level: f64, between: f64, slices: usize) -> Vec<f64> {
        let mut normal = || {
            // The sum of twelve is close enough to normal.
            (0..12).map(|_| random.below(1 << 32) as f64 / f64::from(u32::MAX)).sum::<f64>() - 6.0
        };
        let level = level + between * normal();
        let mut drift = 0.0;
        let mut slice = || {
            drift = 0.8 * drift + 0.01 * normal();
            level + drift + 0.01 * normal()
        };
        (0..slices).map(|_| slice()).collect()
    }

    #[test]
    fn equal_runs_differ_as_rarely_as_promised_and_unequal_ones_mostly() {
        let mut random = Random(7);
        let (mut differ, mut found) = (0, 0);
        for _ in 0..1_000 {
            let mut run = |level| Location::of(&noisy(&mut random, level, 0.01, 20)).unwrap();
            let (before, same, faster) = (run(0.0), run(0.0), run(0.15));
            let same = difference(before, same, 0.01, 0.95);
            differ += u32::from(same.low > 0.0 || same.high < 0.0);
            found += u32::from(difference(before, faster, 0.01, 0.95).low > 0.0);
        }
        assert!(differ <= 60, "{differ} of 1000 equal runs were said to differ");
        assert!(found >= 900, "{found} of 1000 differences of 15 % were found");
    }
}
