//! A run compared with a saved one: its JSON, its table, and what of it is a failure.

use std::fmt::Write as _;

use serde::Serialize;

use super::{BUILD, Bench, and_more, described};
use crate::bench::compare::{Basis, CONFIDENCE, Compared, Comparison, Machines, Row, Verdict};
use crate::bench::{Saved, stats};
use crate::exit::{Exit, Failure};
use crate::printable::one_line;
use crate::units::{HashRate, plural};

#[derive(Clone, Debug, Serialize)]
pub(super) struct ComparisonRow {
    pub(super) with: String,
    pub(super) with_version: String,
    pub(super) same_machine: bool,
    with_build: Option<String>,
    confidence: f64,
    differs: bool,
    rows: Vec<ComparedRow>,
    only_before: Vec<Name>,
    only_after: Vec<Name>,
    #[serde(skip)]
    pub(super) with_cpu: String,
    #[serde(skip)]
    pub(super) compared: Comparison,
}

#[derive(Clone, Debug, Serialize)]
struct Name {
    backend: String,
    card: Option<String>,
    threads: usize,
    version_rolling: bool,
}

#[derive(Clone, Debug, Serialize)]
struct ComparedRow {
    #[serde(flatten)]
    name: Name,
    before_hashes_per_second: f64,
    after_hashes_per_second: f64,
    ratio: Option<f64>,
    ratio_low: Option<f64>,
    ratio_high: Option<f64>,
    relative_to_reference: bool,
    reference_moved: bool,
    shown_slower_below: Option<f64>,
    shown_faster_above: Option<f64>,
    verdict: &'static str,
}

impl From<&Compared> for ComparedRow {
    fn from(compared: &Compared) -> Self {
        let shown_beyond = compared.shown_beyond();
        Self {
            name: Name::from(&compared.row),
            before_hashes_per_second: compared.medians[0],
            after_hashes_per_second: compared.medians[1],
            ratio: compared.ratio.map(|ratio| ratio.middle),
            ratio_low: compared.ratio.map(|ratio| ratio.low),
            ratio_high: compared.ratio.map(|ratio| ratio.high),
            relative_to_reference: compared.basis == Basis::Relative,
            reference_moved: compared.basis == Basis::ReferenceMoved,
            shown_slower_below: shown_beyond.map(|[slower, _]| slower),
            shown_faster_above: shown_beyond.map(|[_, faster]| faster),
            verdict: word(compared.verdict),
        }
    }
}

impl From<&Row> for Name {
    fn from(row: &Row) -> Self {
        let Row { name, card, threads, version_rolling, .. } = row;
        Self {
            backend: name.clone(),
            card: card.clone(),
            threads: *threads,
            version_rolling: *version_rolling,
        }
    }
}

/// A verdict in a word or three.
pub(super) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::NoDifference => "no difference shown",
        Verdict::TooShort => "too short to say",
        Verdict::NotComparable => "not comparable",
    }
}

/// What stands behind a ratio, or a verdict.
pub(super) const fn mark(basis: Basis) -> &'static str {
    match basis {
        Basis::Absolute => "",
        Basis::Relative => "*",
        Basis::ReferenceMoved => "**",
    }
}

impl Bench {
    /// The same, compared with a run that `file` has saved.
    #[must_use]
    pub fn compared(mut self, file: &str, saved: &Saved) -> Self {
        let cores = self.machine.cores as u64;
        let same_machine = (&saved.cpu, saved.cores) == (&self.machine.cpu, cores);
        let machines = if same_machine { Machines::Same } else { Machines::Different };
        let compared = Comparison::of(&saved.rows, &self.rows, machines);
        self.comparison = Some(ComparisonRow {
            with: file.to_owned(),
            with_version: one_line(&saved.version),
            with_cpu: one_line(&saved.cpu),
            with_build: saved.build.as_deref().map(one_line),
            same_machine,
            confidence: CONFIDENCE,
            differs: compared.differs(),
            rows: compared.rows.iter().map(ComparedRow::from).collect(),
            only_before: compared.only_before.iter().map(Name::from).collect(),
            only_after: compared.only_after.iter().map(Name::from).collect(),
            compared,
        });
        self
    }

    /// What is shown to be slower than `ratio` times what it was, as a failure.
    #[must_use]
    pub fn below(&self, ratio: f64) -> Option<Failure> {
        let comparison = self.comparison.as_ref()?;
        let below: Vec<&Compared> = comparison.compared.below(ratio).collect();
        let first = below.first()?;
        let found = first.ratio?;
        let more = and_more(below.len());
        let why = format!(
            "{} is at {:.3} of what it was ({:.3} to {:.3}), below {ratio}{more}",
            described(&first.row),
            found.middle,
            found.low,
            found.high,
        );
        Some(comparison.failure(why))
    }

    /// What cannot be said to be as fast as it was, as a failure: a row of the saved run that is
    /// `asked` for and is missing now, or a row of which too little was measured.
    #[must_use]
    pub fn untold(&self, asked: impl Fn(&Row) -> bool) -> Option<Failure> {
        let comparison = self.comparison.as_ref()?;
        let missing: Vec<&Row> =
            comparison.compared.only_before.iter().filter(|row| asked(row)).collect();
        if let Some(first) = missing.first() {
            let more = and_more(missing.len());
            let why = format!("{} was measured then, and is missing now{more}", described(first));
            return Some(comparison.failure(why));
        }
        let untold: Vec<&Compared> = comparison.compared.untold().collect();
        let first = untold.first()?;
        let why =
            format!("{}: {}{}", described(&first.row), word(first.verdict), and_more(untold.len()));
        let hint = match first.verdict {
            Verdict::NotComparable => {
                "sha2 itself moved and is no measure: compare with a run of this machine".to_owned()
            }
            _ => format!("both runs need {} slices at least: see --for", stats::BLOCKS),
        };
        Some(comparison.failure(why).hint(hint))
    }

    /// What to warn of where a slowdown to `ratio` is less than what the noise of these runs lets be
    /// shown: whether one is shown is luck.
    #[must_use]
    pub fn undecided(&self, ratio: f64) -> Option<String> {
        let rows: Vec<&Compared> = self.comparison.as_ref()?.compared.undecided(ratio).collect();
        let shown = |row: &Compared| row.shown_beyond().map_or(f64::NAN, |[slower, _]| slower);
        let worst = rows.iter().min_by(|a, b| shown(a).total_cmp(&shown(b)))?;
        Some(format!(
            "--fail-below {ratio} is nearer to 1 than the noise of these runs: {} is shown to be slower \
             below {:.3} only{}",
            described(&worst.row),
            shown(worst),
            and_more(rows.len()),
        ))
    }
}

impl ComparisonRow {
    /// How the other run's program was built, where this one was not.
    pub(super) fn other_build(&self) -> Option<&str> {
        self.with_build.as_deref().filter(|build| *build != BUILD)
    }

    /// A line for each reference that moved, and what that means for the rows with two stars.
    pub(super) fn reference_moved(&self) -> Vec<String> {
        let consequence = if self.same_machine {
            "are compared by MH/s"
        } else {
            "can't be compared, since the machines differ too"
        };
        let line = |reference: &Compared| {
            let ratio = reference.ratio?;
            Some(format!(
                "** {} itself is at {:.3} of what it was ({:.3} to {:.3}), so the others on {} \
                 thread{} {consequence}",
                one_line(&reference.row.name),
                ratio.middle,
                ratio.low,
                ratio.high,
                reference.row.threads,
                plural(reference.row.threads),
            ))
        };
        self.compared.moved_references().filter_map(line).collect()
    }

    fn failure(&self, why: String) -> Failure {
        Failure::new(Exit::Failed, format!("compared with {}", one_line(&self.with)), why)
    }

    pub(super) fn table(&self, text: &mut String) {
        let _ =
            writeln!(text, "\ncompared with {} (adit {})", one_line(&self.with), self.with_version);
        if !self.same_machine {
            let _ = writeln!(text, "that was another machine: {}", self.with_cpu);
        }
        if let Some(build) = self.other_build() {
            let _ = writeln!(text, "that was a {build} build, and this is a {BUILD} build");
        }
        let _ = writeln!(
            text,
            "{:<12} {:>7} {:<8} {:>12} {:>12} {:>7} {:>15} {:>11}  verdict",
            "backend", "threads", "versions", "before", "after", "ratio", "interval", "shown below",
        );
        let rate = |value: f64| HashRate::from_f64(value).to_string();
        for row in &self.compared.rows {
            let (ratio, interval) = match row.ratio {
                Some(found) => (
                    format!("{:.3}", found.middle),
                    format!("{:.3} to {:.3}", found.low, found.high),
                ),
                None => ("-".to_owned(), "-".to_owned()),
            };
            let ratio = format!("{ratio}{:<2}", mark(row.basis));
            let shown = row.shown_beyond().map(|[slower, _]| format!("{slower:.3}"));
            let _ = writeln!(
                text,
                "{:<12} {:>7} {:<8} {:>12} {:>12} {ratio:>7} {interval:>15} {:>11}  {}",
                one_line(&row.row.name),
                row.row.threads,
                if row.row.version_rolling { "rolled" } else { "one" },
                rate(row.medians[0]),
                rate(row.medians[1]),
                shown.as_deref().unwrap_or("-"),
                word(row.verdict),
            );
        }
        if self.compared.rows.iter().any(|row| row.basis == Basis::Relative) {
            *text += "* relative to sha2 in the same turns of the same run\n";
        }
        for line in self.reference_moved() {
            text.extend([&line, "\n"]);
        }
        if self.compared.rows.iter().any(|row| row.ratio.is_some()) {
            *text += "shown below: with this noise, only a smaller ratio is shown to be slower\n";
        }
        for (rows, which) in
            [(&self.compared.only_before, "before"), (&self.compared.only_after, "after")]
        {
            for row in rows {
                let _ = writeln!(text, "only {which}: {}", described(row));
            }
        }
        let shown =
            |verdict| self.compared.rows.iter().filter(|row| row.verdict == verdict).count();
        let _ = match (shown(Verdict::Faster), shown(Verdict::Slower)) {
            (0, 0) => writeln!(text, "no difference shown"),
            (faster, slower) => writeln!(text, "faster: {faster}, slower: {slower}"),
        };
    }
}
