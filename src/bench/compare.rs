//! Two runs against each other, with a verdict that accounts for the noise.
//!
//! Three things make two runs of one program differ. Other programs take the cores away: Linux
//! counts how long our threads waited for one, and each slice's rate is divided by the share of the
//! time that they had. The clock rises and falls, and neighbours on the same cores or the same host
//! slow everything down: where the run has the reference kernel on as many threads, each slice is
//! divided by the reference's slice of the same turn. What is left is drift, which the error
//! includes since it is taken from blocks of slices; and what sets one run apart from another
//! without showing within either, for which [`BETWEEN`] is allowed.

use super::stats::{Difference, Location, difference, median};
use super::{Measurement, Slice};
use crate::scan::BackendInfo;

/// The standard deviation, in natural logarithms (0.02 is 2 %), that runs of one program have among
/// each other beside what is seen within each: relative to the reference, and without it. From runs
/// of one program on shared virtual machines (benches/README.md).
pub const BETWEEN: [f64; 2] = [0.02, 0.1];

/// How sure a verdict is over all rows together: where nothing has changed, one comparison in twenty
/// says that something has.
pub const CONFIDENCE: f64 = 0.95;

/// The kernel that others are compared with.
const REFERENCE: &str = "cpu:sha2";

/// A row of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The backend, as `--backend` names it.
    pub name: String,
    /// The device, where it is or has a card: a card's number is but the order in which drivers name
    /// them.
    pub card: Option<String>,
    /// Its threads.
    pub threads: usize,
    /// Whether with rolled versions.
    pub version_rolling: bool,
    /// Slice by slice, one a turn.
    pub slices: Vec<Slice>,
}

impl From<&Measurement> for Row {
    fn from(measurement: &Measurement) -> Self {
        let slices = measurement.slices.clone();
        Self { slices, ..Self::planned(&measurement.info, measurement.version_rolling) }
    }
}

impl Row {
    /// Of a backend that has not been measured yet.
    #[must_use]
    pub fn planned(info: &BackendInfo, version_rolling: bool) -> Self {
        Self {
            name: info.name(),
            card: (info.backend != "cpu").then(|| info.device.clone()),
            threads: info.threads,
            version_rolling,
            slices: Vec::new(),
        }
    }

    /// Whether `other` measured the same.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.name == other.name
            && self.card == other.card
            && self.threads == other.threads
            && self.version_rolling == other.version_rolling
    }

    /// Whether it can be held against the reference: that is a processor's, as the others are.
    fn is_cpu(&self) -> bool {
        self.name.starts_with("cpu:")
    }

    fn is_reference(&self) -> bool {
        self.name == REFERENCE && !self.version_rolling
    }

    /// Half of the slices were faster, in hashes per second.
    fn median(&self) -> f64 {
        let rates: Vec<f64> = self.slices.iter().map(|slice| slice.rate().to_f64()).collect();
        median(&rates).unwrap_or_default()
    }

    /// The logarithms of the rates at which it hashed while it had the cores.
    fn logarithms(&self) -> impl Iterator<Item = f64> {
        self.slices.iter().map(|s| (s.rate().to_f64() / s.cores.unwrap_or(1.0)).ln())
    }

    /// The same, relative to `reference`'s slices of the same turns where there is one.
    fn relative_to(&self, reference: Option<&Self>) -> Vec<f64> {
        match reference {
            Some(reference) => {
                self.logarithms().zip(reference.logarithms()).map(|(a, b)| a - b).collect()
            }
            None => self.logarithms().collect(),
        }
    }
}

/// The reference's row for `row`: on as many threads, or where there is none, on one.
#[must_use]
pub fn reference<'a>(rows: &'a [Row], row: &Row) -> Option<&'a Row> {
    let on = |threads| rows.iter().find(|r| r.is_reference() && r.threads == threads);
    on(row.threads).or_else(|| if row.is_cpu() { None } else { on(1) })
}

/// How many times as fast as the reference a row was: the median over the turns, what other programs
/// took of the cores divided out.
#[must_use]
pub fn to_reference(rows: &[Row], row: &Row) -> Option<f64> {
    let reference = reference(rows, row)?;
    median(&row.relative_to(Some(reference))).map(f64::exp)
}

/// What a comparison says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is faster than before.
    Faster,
    /// It is slower than before.
    Slower,
    /// The noise is larger than whatever difference there may be.
    NoDifference,
    /// A run has too few slices to say anything.
    TooShort,
}

/// A row of both runs.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The row of this run.
    pub row: Row,
    /// The row of the earlier run.
    pub before: Row,
    /// The medians, before and after, in hashes per second, as they were.
    pub medians: [f64; 2],
    /// How many times as fast it is, without what the noise accounts for, and the interval in which
    /// that lies; `None` where a run is too short.
    pub ratio: Option<Difference>,
    /// Whether relative to the reference of the same run.
    pub relative: bool,
    /// What that means.
    pub verdict: Verdict,
}

/// Both runs.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The rows that both have.
    pub rows: Vec<Compared>,
    /// Rows of the earlier run alone.
    pub only_before: Vec<Row>,
    /// Rows of this run alone.
    pub only_after: Vec<Row>,
}

impl Comparison {
    /// Compares two runs.
    #[must_use]
    pub fn of(before: &[Row], after: &[Row]) -> Self {
        let only = |rows: &[Row], others: &[Row]| {
            let alone = |row: &&Row| !others.iter().any(|other| other.matches(row));
            rows.iter().filter(alone).cloned().collect::<Vec<_>>()
        };
        let pairs: Vec<(&Row, &Row)> = after
            .iter()
            .filter_map(|row| Some((before.iter().find(|other| other.matches(row))?, row)))
            .collect();
        // Every row is a chance to be wrong (Bonferroni).
        let confidence = 1.0 - (1.0 - CONFIDENCE) / pairs.len().max(1) as f64;
        let rows = pairs
            .iter()
            .map(|(old, new)| {
                let normalised = new.is_cpu() && !new.is_reference();
                let references = (reference(before, old), reference(after, new));
                let (old_reference, new_reference) = match references {
                    (Some(a), Some(b)) if normalised => (Some(a), Some(b)),
                    _ => (None, None),
                };
                let relative = old_reference.is_some();
                let between = BETWEEN[usize::from(!relative)];
                let locations = (
                    Location::of(&old.relative_to(old_reference)),
                    Location::of(&new.relative_to(new_reference)),
                );
                let ratio = match locations {
                    (Some(old), Some(new)) => {
                        let found = difference(old, new, between, confidence);
                        Some(Difference {
                            middle: found.middle.exp(),
                            low: found.low.exp(),
                            high: found.high.exp(),
                        })
                    }
                    _ => None,
                };
                let verdict = match ratio {
                    None => Verdict::TooShort,
                    Some(ratio) if ratio.low > 1.0 => Verdict::Faster,
                    Some(ratio) if ratio.high < 1.0 => Verdict::Slower,
                    Some(_) => Verdict::NoDifference,
                };
                let medians = [old.median(), new.median()];
                Compared {
                    row: (*new).clone(),
                    before: (*old).clone(),
                    medians,
                    ratio,
                    relative,
                    verdict,
                }
            })
            .collect();
        Self { rows, only_before: only(before, after), only_after: only(after, before) }
    }

    /// Whether any row is shown to be faster or slower.
    #[must_use]
    pub fn differs(&self) -> bool {
        let shown = |row: &Compared| matches!(row.verdict, Verdict::Faster | Verdict::Slower);
        self.rows.iter().any(shown)
    }

    /// The rows of which too little was measured to say anything.
    pub fn too_short(&self) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(|row| row.verdict == Verdict::TooShort)
    }

    /// The rows that are shown to be slower, and by more than down to `ratio` of what they were.
    pub fn below(&self, ratio: f64) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(move |row| {
            row.verdict == Verdict::Slower && row.ratio.is_some_and(|found| found.middle < ratio)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::cpu::Random;

    /// A number around 0 with a standard deviation of about 1.
    fn normal(random: &mut Random) -> f64 {
        (0..12).map(|_| random.below(1 << 32) as f64 / f64::from(u32::MAX)).sum::<f64>() - 6.0
    }

    /// A whole run on a shared machine: a level and a drift that all rows share, noise of each, and
    /// other programs that take cores away for a while. `factor` is by how much the third row is
    /// faster.
    fn run(random: &mut Random, factor: f64) -> Vec<Row> {
        let level = (0.1 * normal(random)).exp();
        let (busy_from, busy_for) = (random.below(20), random.below(12));
        let names = ["cpu:sha2", "cpu:avx2", "cpu:avx512"];
        let mut rows: Vec<Row> = names
            .iter()
            .map(|name| Row {
                name: (*name).to_owned(),
                card: None,
                threads: 2,
                version_rolling: false,
                slices: Vec::new(),
            })
            .collect();
        let mut drift = 0.0;
        for turn in 0..20 {
            drift = 0.9 * drift + 0.03 * normal(random);
            for (row, speed) in rows.iter_mut().zip([1.0, 1.5, 3.0 * factor]) {
                let busy = (busy_from..busy_from + busy_for).contains(&turn);
                let cores = if busy { 0.5 + random.below(400) as f64 / 1e3 } else { 0.99 };
                let noise = (drift + 0.02 * normal(random)).exp();
                let rate = 1e7 * level * speed * noise * cores;
                row.slices.push(Slice {
                    hashes: (rate * 0.25) as u64,
                    seconds: 0.25,
                    cores: Some(cores),
                });
            }
        }
        rows
    }

    #[test]
    fn two_runs_of_one_program_do_not_differ() {
        let mut random = Random(42);
        let same =
            |random: &mut Random| !Comparison::of(&run(random, 1.0), &run(random, 1.0)).differs();
        let agreed = (0..400).filter(|_| same(&mut random)).count();
        assert!(agreed >= 360, "{agreed} of 400: fewer than 18 of 20");
    }

    #[test]
    fn a_slower_kernel_is_found_and_no_other() {
        let mut random = Random(43);
        let (mut found, mut below, mut others) = (0, 0, 0);
        for _ in 0..100 {
            let comparison = Comparison::of(&run(&mut random, 1.0), &run(&mut random, 0.8));
            let [sha2, avx2, avx512] = &comparison.rows[..] else { panic!("three rows") };
            found += usize::from(avx512.verdict == Verdict::Slower);
            others += usize::from(avx2.verdict != Verdict::NoDifference);
            others += usize::from(sha2.verdict != Verdict::NoDifference);
            below += comparison.below(0.9).count();
            let ratio = avx512.ratio.unwrap();
            assert!(ratio.low < ratio.middle && ratio.middle < ratio.high);
            assert!(avx512.relative && !sha2.relative);
        }
        assert!(found >= 95 && others <= 10, "{found} found, {others} made up");
        assert!(below >= 90 && below <= found + others, "{below}");
    }

    #[test]
    fn rows_of_one_run_alone_are_named() {
        let mut random = Random(1);
        let (before, mut after) = (run(&mut random, 1.0), run(&mut random, 1.0));
        after[1].threads = 1;
        let comparison = Comparison::of(&before, &after);
        assert_eq!(comparison.rows.len(), 2);
        assert_eq!(comparison.only_before, [before[1].clone()]);
        assert_eq!(comparison.only_after, [after[1].clone()]);
    }

    #[test]
    fn a_short_run_says_nothing() {
        let mut random = Random(1);
        let (before, mut after) = (run(&mut random, 1.0), run(&mut random, 0.1));
        for row in &mut after {
            row.slices.truncate(4);
        }
        let comparison = Comparison::of(&before, &after);
        assert!(comparison.rows.iter().all(|row| row.verdict == Verdict::TooShort));
        assert!(!comparison.differs() && comparison.below(0.9).next().is_none());
    }

    #[test]
    fn the_ratio_to_the_reference_is_taken_turn_by_turn() {
        let row = |name: &str, rates: &[u64]| Row {
            name: name.into(),
            card: None,
            threads: 1,
            version_rolling: false,
            slices: rates.iter().map(|r| Slice { hashes: *r, seconds: 1.0, cores: None }).collect(),
        };
        let rows = [row("cpu:sha2", &[10, 100, 1000]), row("cpu:avx2", &[20, 200, 2000])];
        assert!((to_reference(&rows, &rows[1]).unwrap() - 2.0).abs() < 1e-12);
        assert!(to_reference(&rows[1..], &rows[1]).is_none());
    }
}
