//! A run as a table, with what is missing and what was odd.

use std::fmt::Write as _;

use super::{Bench, BenchRow, MachineRow, described};
use crate::bench::compare::Row;
use crate::bench::stats;
use crate::output::results::Shown;
use crate::printable::one_line;
use crate::units::{HashRate, plural};

/// The most outliers that are named; the JSON has them all.
const OUTLIERS_MAX: usize = 8;

/// Less than this share of the cores, and a run is one of a busy machine.
const BUSY: f64 = 0.97;

impl Shown for Bench {
    fn table(&self) -> String {
        let MachineRow { cpu, cores, .. } = &self.machine;
        let mut text = format!("{}, {cores} thread{}\n", one_line(cpu), plural(*cores));
        text.extend([&self.machine.circumstances(), "\n\n"]);
        let columns = self.columns();
        let names = self.rows.iter().map(|row| one_line(&row.name)).collect::<Vec<_>>();
        let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(12);
        let mut line = format!("{:<wide$} {:>7} {:<8}", "backend", "threads", "versions");
        for (name, width, _) in &columns {
            let _ = write!(line, " {name:>width$}");
        }
        text.extend([&line, " verified\n"]);
        for (row, name) in self.results.iter().zip(&names) {
            let versions = if row.version_rolling { "rolled" } else { "one" };
            let _ = write!(text, "{name:<wide$} {:>7} {versions:<8}", row.threads);
            for (_, width, value) in &columns {
                let _ = write!(text, " {:>width$}", value(row).unwrap_or_else(|| "-".to_owned()));
            }
            text += if row.verified { " yes\n" } else { " NO\n" };
        }
        self.notes(&mut text);
        if let Some(comparison) = &self.comparison {
            comparison.table(&mut text);
        }
        text
    }
}

/// A column: its name, its width, and its value where there is one.
type Column = (&'static str, usize, fn(&BenchRow) -> Option<String>);

impl Bench {
    /// The columns after those that say what was measured. One that would be empty is omitted.
    fn columns(&self) -> Vec<Column> {
        fn rate(value: f64) -> String {
            HashRate::from_f64(value).to_string()
        }
        let all: [Column; 10] = [
            ("median", 12, |row| Some(rate(row.hashes_per_second.median))),
            ("min", 12, |row| Some(rate(row.hashes_per_second.min))),
            ("max", 12, |row| Some(rate(row.hashes_per_second.max))),
            ("spread", 7, |row| Some(format!("{:.1} %", row.spread()))),
            ("undisturbed", 12, |row| row.hashes_per_second.undisturbed.map(rate)),
            ("to sha2", 8, |row| row.to_reference.map(|ratio| format!("{ratio:.2}"))),
            ("cycles/hash", 11, |row| row.cycles_per_hash.map(|cycles| format!("{cycles:.1}"))),
            ("of limit", 8, |row| row.share_of_limit.map(|s| format!("{:.0} %", s * 100.0))),
            ("watts", 7, |row| row.watts.map(|watts| format!("{watts:.1}"))),
            ("J/GH", 7, |row| row.joules_per_gigahash.map(|joules| format!("{joules:.1}"))),
        ];
        let quiet = self.others_share().is_none();
        all.into_iter()
            .filter(|(name, ..)| *name != "undisturbed" || !quiet)
            .filter(|(_, _, value)| self.results.iter().any(|row| value(row).is_some()))
            .collect()
    }

    /// The share of the cores' time that other programs had in half of the slices, where it is worth
    /// a word.
    fn others_share(&self) -> Option<f64> {
        let shares: Vec<f64> =
            self.rows.iter().flat_map(|row| &row.slices).filter_map(|slice| slice.cores).collect();
        stats::median(&shares).filter(|share| *share < BUSY).map(|share| 1.0 - share)
    }

    /// What is missing and why, and what was odd.
    fn notes(&self, text: &mut String) {
        let mut notes: Vec<String> = Vec::new();
        let mut missing = |what: &str, reason: Option<&String>| {
            let note = reason.map(|reason| format!("{what}: -, {reason}"));
            notes.extend(note.filter(|note| !notes.contains(note)));
        };
        for row in &self.results {
            missing("cycles/hash", row.cycles_reason.as_ref());
        }
        let unknown = "no limit is counted for this processor's kernels".to_owned();
        let counted = self.results.iter().any(|row| row.cycles_per_hash.is_some());
        if counted && self.results.iter().all(|row| row.share_of_limit.is_none()) {
            missing("of limit", Some(&unknown));
        }
        for row in &self.results {
            missing("watts, J/GH", row.energy_reason.as_ref());
        }
        if self.results.iter().any(|row| row.energy_from == Some("given")) {
            notes.push("watts: as given, the same for every row".to_owned());
        }
        let outliers: Vec<(&BenchRow, &Row, usize)> = self
            .results
            .iter()
            .zip(&self.rows)
            .flat_map(|(row, plain)| row.outliers.iter().map(move |slice| (row, plain, *slice)))
            .collect();
        for (row, plain, index) in outliers.iter().take(OUTLIERS_MAX) {
            let slice = plain.slices[*index];
            let ratio = slice.rate().to_f64() / row.hashes_per_second.median;
            let cores = match slice.cores {
                Some(share) if share < BUSY => {
                    format!("; other programs had {:.0} % of its cores", (1.0 - share) * 100.0)
                }
                _ => String::new(),
            };
            notes.push(format!(
                "outlier: {}, slice {} of {}: {ratio:.2} of the median{cores}",
                described(plain),
                index + 1,
                plain.slices.len(),
            ));
        }
        if outliers.len() > OUTLIERS_MAX {
            let more = outliers.len() - OUTLIERS_MAX;
            notes.push(format!("outlier: {more} more, all in --json"));
        }
        if let Some(share) = self.others_share() {
            notes.push(format!(
                "a busy machine: other programs had {:.0} % of the cores' time; `undisturbed` is the \
                 rate while they had not",
                share * 100.0,
            ));
        }
        if self.machine.build == "debug" {
            notes.push("a debug build: its figures say nothing of a release build".to_owned());
        }
        if !notes.is_empty() {
            *text += "\n";
        }
        for note in notes {
            text.extend([&one_line(&note), "\n"]);
        }
    }
}
