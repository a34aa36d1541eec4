//! Two runs against each other, with a verdict that accounts for the noise.
//!
//! Three things make two runs of one program differ. Other programs take the cores away: Linux
//! counts how long our threads waited for one, and each slice's rate is divided by the share of the
//! time that they had. The clock rises and falls, and other programs on the same cores or the same host
//! slow everything down: where the run has the reference kernel on as many threads, each slice is
//! divided by the reference's slice of the same turn. What is left is drift, which the error
//! includes since it is taken from blocks of slices; and what sets one run apart from another
//! without showing within either, for which [`BETWEEN`] is allowed.
//!
//! A reference that itself moved from one run to the other is no measure: rows that were divided by
//! it would all seem to have moved the other way ([`Basis::ReferenceMoved`]).

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
            card: (!info.id.is_cpu()).then(|| info.device.clone()),
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

    /// Whether it can be compared with the reference: that is a processor's, as the others are.
    fn is_cpu(&self) -> bool {
        self.name.starts_with("cpu:")
    }

    fn is_reference(&self) -> bool {
        self.name == REFERENCE && !self.version_rolling
    }

    /// Whether it is what `row` is divided by: the reference on as many threads.
    fn divides(&self, row: &Self) -> bool {
        let is_divided = row.is_cpu() && !row.is_reference();
        self.is_reference() && self.threads == row.threads && is_divided
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
    /// The reference moved, and rates of two machines say nothing of a program.
    NotComparable,
}

/// What a row is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The quotient with the reference's slices of the same turns of the same run.
    Relative,
    /// Hashes per second: it is the reference, or there is none to divide it by.
    Absolute,
    /// Hashes per second if anything: there is a reference, and it is shown to have moved itself.
    ReferenceMoved,
}

/// Whether two runs are of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// Hashes per second of the one can be compared with those of the other.
    Same,
    /// They can not.
    Different,
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
    /// that lies; `None` where a run is too short, or nothing can be compared.
    pub ratio: Option<Difference>,
    /// By what that is.
    pub basis: Basis,
    /// What that means.
    pub verdict: Verdict,
}

impl Compared {
    /// `after` against `before`: relative to their `references` where there are any.
    fn of(before: &Row, after: &Row, references: Option<(&Row, &Row)>, confidence: f64) -> Self {
        let (old_reference, new_reference) = references.unzip();
        let (basis, between) = match references {
            Some(_) => (Basis::Relative, BETWEEN[0]),
            None => (Basis::Absolute, BETWEEN[1]),
        };
        let old = Location::of(&before.relative_to(old_reference));
        let new = Location::of(&after.relative_to(new_reference));
        let ratio = old.zip(new).map(|(old, new)| {
            let Difference { middle, low, high } = difference(old, new, between, confidence);
            Difference { middle: middle.exp(), low: low.exp(), high: high.exp() }
        });
        let verdict = match ratio {
            None => Verdict::TooShort,
            Some(ratio) if ratio.low > 1.0 => Verdict::Faster,
            Some(ratio) if ratio.high < 1.0 => Verdict::Slower,
            Some(_) => Verdict::NoDifference,
        };
        let medians = [before.median(), after.median()];
        Self { row: after.clone(), before: before.clone(), medians, ratio, basis, verdict }
    }

    /// Whether it is shown to be faster or slower.
    #[must_use]
    pub const fn differs(&self) -> bool {
        matches!(self.verdict, Verdict::Faster | Verdict::Slower)
    }

    /// The ratios beyond which these two runs' noise lets a difference be shown: slower below the
    /// first, faster above the second. `None` where there is no ratio.
    #[must_use]
    pub fn shown_beyond(&self) -> Option<[f64; 2]> {
        self.ratio.map(|ratio| [ratio.low / ratio.middle, ratio.high / ratio.middle])
    }
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
    pub fn of(before: &[Row], after: &[Row], machines: Machines) -> Self {
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
        let compared = |&(old, new): &(&Row, &Row)| {
            let divides = |(_, row): &&(&Row, &Row)| row.divides(new);
            let Some(&(old_reference, new_reference)) = pairs.iter().find(divides) else {
                return Compared::of(old, new, None, confidence);
            };
            if !Compared::of(old_reference, new_reference, None, confidence).differs() {
                return Compared::of(old, new, Some((old_reference, new_reference)), confidence);
            }
            let absolute = Compared {
                basis: Basis::ReferenceMoved,
                ..Compared::of(old, new, None, confidence)
            };
            match machines {
                Machines::Same => absolute,
                Machines::Different => {
                    Compared { ratio: None, verdict: Verdict::NotComparable, ..absolute }
                }
            }
        };
        let rows = pairs.iter().map(compared).collect();
        Self { rows, only_before: only(before, after), only_after: only(after, before) }
    }

    /// Whether any row is shown to be faster or slower.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.rows.iter().any(Compared::differs)
    }

    /// The rows of the reference that are shown to have moved, and by which others would have been
    /// divided.
    pub fn moved_references(&self) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(|reference| {
            let affects = |row: &Compared| {
                row.basis == Basis::ReferenceMoved && reference.row.divides(&row.row)
            };
            self.rows.iter().any(affects)
        })
    }

    /// The rows of which nothing can be said.
    pub fn untold(&self) -> impl Iterator<Item = &Compared> {
        let untold =
            |row: &&Compared| matches!(row.verdict, Verdict::TooShort | Verdict::NotComparable);
        self.rows.iter().filter(untold)
    }

    /// The rows that are shown to be slower, and by more than down to `ratio` of what they were.
    pub fn below(&self, ratio: f64) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(move |row| {
            row.verdict == Verdict::Slower && row.ratio.is_some_and(|found| found.middle < ratio)
        })
    }

    /// The rows of which luck decides whether a slowdown to about `ratio` is shown: the noise is
    /// larger. A reference is omitted: it is there to be divided by.
    pub fn undecided(&self, ratio: f64) -> impl Iterator<Item = &Compared> {
        self.rows.iter().filter(move |row| {
            let is_divisor = self.rows.iter().any(|other| row.row.divides(&other.row));
            !is_divisor && row.shown_beyond().is_some_and(|[below, _]| below < ratio)
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
    /// other programs that take cores away for a while. `factors` are by how much each row is faster.
    fn run(random: &mut Random, factors: [f64; 3]) -> Vec<Row> {
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
            for ((row, speed), factor) in rows.iter_mut().zip([1.0, 1.5, 3.0]).zip(factors) {
                let busy = (busy_from..busy_from + busy_for).contains(&turn);
                let cores = if busy { 0.5 + random.below(400) as f64 / 1e3 } else { 0.99 };
                let noise = (drift + 0.02 * normal(random)).exp();
                let rate = 1e7 * level * speed * factor * noise * cores;
                row.slices.push(Slice {
                    hashes: (rate * 0.25) as u64,
                    seconds: 0.25,
                    cores: Some(cores),
                });
            }
        }
        rows
    }

    const EVEN: [f64; 3] = [1.0; 3];

    #[test]
    fn two_runs_of_one_program_do_not_differ() {
        let mut random = Random(42);
        let same = |random: &mut Random| {
            let (before, after) = (run(random, EVEN), run(random, EVEN));
            !Comparison::of(&before, &after, Machines::Same).differs()
        };
        let agreed = (0..400).filter(|_| same(&mut random)).count();
        assert!(agreed >= 360, "{agreed} of 400: fewer than 18 of 20");
    }

    #[test]
    fn a_slower_kernel_is_found_and_no_other() {
        let mut random = Random(43);
        let (mut found, mut below, mut others) = (0, 0, 0);
        for _ in 0..100 {
            let (before, after) = (run(&mut random, EVEN), run(&mut random, [1.0, 1.0, 0.8]));
            let comparison = Comparison::of(&before, &after, Machines::Same);
            let [sha2, avx2, avx512] = &comparison.rows[..] else { panic!("three rows") };
            found += usize::from(avx512.verdict == Verdict::Slower);
            others += usize::from(avx2.verdict != Verdict::NoDifference);
            others += usize::from(sha2.verdict != Verdict::NoDifference);
            below += comparison.below(0.9).count();
            let ratio = avx512.ratio.unwrap();
            assert!(ratio.low < ratio.middle && ratio.middle < ratio.high);
            // Once in a hundred or two the reference is taken to have moved.
            assert_eq!(sha2.basis, Basis::Absolute);
            assert_eq!(avx512.basis == Basis::Relative, !sha2.differs());
        }
        assert!(found >= 95 && others <= 10, "{found} found, {others} made up");
        assert!(below >= 90 && below <= found + others, "{below}");
    }

    #[test]
    fn a_reference_that_moved_is_no_measure() {
        let mut random = Random(44);
        let (mut noticed, mut made_up) = (0, 0);
        for _ in 0..100 {
            let (before, after) = (run(&mut random, EVEN), run(&mut random, [2.0, 1.0, 1.0]));
            let same = Comparison::of(&before, &after, Machines::Same);
            let moved: Vec<_> = same.moved_references().collect();
            if moved.is_empty() {
                continue;
            }
            noticed += 1;
            assert!(moved.len() == 1 && moved[0].row.name == REFERENCE);
            for row in &same.rows[1..] {
                assert_eq!(row.basis, Basis::ReferenceMoved);
                made_up += usize::from(row.differs());
            }
            let other = Comparison::of(&before, &after, Machines::Different);
            let untold: Vec<_> = other.untold().map(|row| row.row.name.as_str()).collect();
            assert_eq!(untold, ["cpu:avx2", "cpu:avx512"]);
            assert!(other.below(1.0).next().is_none() && other.moved_references().count() == 1);
        }
        assert!(noticed >= 90 && made_up <= 10, "{noticed} noticed, {made_up} made up");
    }

    #[test]
    fn what_could_have_been_shown_is_what_is_shown() {
        let mut random = Random(45);
        for _ in 0..100 {
            let factor = 0.7 + random.below(600) as f64 / 1e3;
            let (before, after) = (run(&mut random, EVEN), run(&mut random, [1.0, 1.0, factor]));
            let comparison = Comparison::of(&before, &after, Machines::Same);
            for row in &comparison.rows {
                let (ratio, [slower, faster]) = (row.ratio.unwrap(), row.shown_beyond().unwrap());
                assert!(slower < 1.0 && 1.0 < faster);
                assert_eq!(row.verdict == Verdict::Slower, ratio.middle < slower);
                assert_eq!(row.verdict == Verdict::Faster, ratio.middle > faster);
            }
            // The reference shows 30 % at best, and is not spoken of; others could show 20 %.
            assert_eq!(comparison.undecided(0.999).count(), 2);
            assert_eq!(comparison.undecided(0.1).count(), 0);
        }
    }

    #[test]
    fn rows_of_one_run_alone_are_named() {
        let mut random = Random(1);
        let (before, mut after) = (run(&mut random, EVEN), run(&mut random, EVEN));
        after[1].threads = 1;
        let comparison = Comparison::of(&before, &after, Machines::Same);
        assert_eq!(comparison.rows.len(), 2);
        assert_eq!(comparison.only_before, [before[1].clone()]);
        assert_eq!(comparison.only_after, [after[1].clone()]);
    }

    #[test]
    fn a_short_run_says_nothing() {
        let mut random = Random(1);
        let (before, mut after) = (run(&mut random, EVEN), run(&mut random, [0.1; 3]));
        for row in &mut after {
            row.slices.truncate(4);
        }
        let comparison = Comparison::of(&before, &after, Machines::Same);
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
