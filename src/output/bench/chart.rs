//! A run as a chart.

use super::Bench;
use super::comparison::{mark, word};
use crate::bench::compare::{Basis, CONFIDENCE, Compared, Row};
use crate::bench::{self, stats};
use crate::plot::{self, Chart};
use crate::printable::one_line;
use crate::units::plural;

impl Bench {
    /// The results as a chart; where they are compared with a saved run, before and after.
    #[must_use]
    pub fn chart(&self) -> Chart {
        let machine = &self.machine;
        let s = plural(machine.cores);
        let title = format!("adit bench: {}, {} thread{s}", one_line(&machine.cpu), machine.cores);
        let mut remarks = vec![machine.circumstances()];
        let samples = self.results.iter().map(|row| row.hashes_per_second.samples).min();
        let seconds: Vec<f64> =
            self.rows.iter().flat_map(|row| &row.slices).map(|slice| slice.seconds).collect();
        let mut slices = format!(
            "Bars: median of {} slices of {:.0} ms in turns. Lines: slowest and fastest slice.",
            samples.unwrap_or_default(),
            stats::median(&seconds).unwrap_or_default() * 1e3,
        );
        if self.results.iter().any(|row| !row.verified) {
            slices += " NOT VERIFIED: a backend computed wrongly.";
        }
        remarks.push(slices);
        // A verdict leaves out what other programs took of the cores, and so do the bars beside it.
        let own = |slice: &bench::Slice| match (&self.comparison, slice.cores) {
            (Some(_), Some(share)) => slice.rate().to_f64() / share,
            _ => slice.rate().to_f64(),
        };
        let bar = |row: &Row, colour| {
            let rates: Vec<f64> = row.slices.iter().map(own).collect();
            let at = |share| stats::quantile(&rates, share).unwrap_or_default();
            plot::Bar { value: at(0.5), low: at(0.0), high: at(1.0), colour }
        };
        let label = |row: &Row| {
            let versions = if row.version_rolling { "rolled" } else { "one version" };
            format!("{} thread{}, {versions}", row.threads, plural(row.threads))
        };
        let Some(comparison) = &self.comparison else {
            let row = |row: &Row| plot::Row {
                group: row.name.clone(),
                label: label(row),
                bars: vec![bar(row, usize::from(row.version_rolling))],
                remark: String::new(),
            };
            let legend = vec![(0, "one version".to_owned()), (1, "versions rolled".to_owned())];
            return Chart { title, remarks, legend, rows: self.rows.iter().map(row).collect() };
        };
        remarks.push(format!(
            "Before: {}, adit {}. Other programs' share of the cores is divided out; verdicts hold at \
             {:.0} % for all rows together.",
            one_line(&comparison.with),
            comparison.with_version,
            CONFIDENCE * 100.0,
        ));
        if !comparison.same_machine {
            remarks.push(format!("BEFORE WAS ANOTHER MACHINE: {}", comparison.with_cpu));
        }
        if let Some(build) = comparison.other_build() {
            remarks.push(format!("BEFORE WAS A {} BUILD", build.to_uppercase()));
        }
        remarks.extend(comparison.reference_moved());
        let row = |row: &Compared| plot::Row {
            group: row.row.name.clone(),
            label: label(&row.row),
            bars: vec![bar(&row.before, 3), bar(&row.row, 0)],
            remark: {
                let verdict = match row.ratio {
                    Some(ratio) if row.differs() => {
                        format!("{:.2} times: {}", ratio.middle, word(row.verdict))
                    }
                    _ => word(row.verdict).to_owned(),
                };
                // By what it is compared is of interest where that is not what one expects.
                let moved = row.basis == Basis::ReferenceMoved;
                if moved { format!("{verdict} {}", mark(row.basis)) } else { verdict }
            },
        };
        let legend = vec![(3, "before".to_owned()), (0, "after".to_owned())];
        let rows = comparison.compared.rows.iter().map(row).collect();
        Chart { title, remarks, legend, rows }
    }
}
