//! What `adit bench` has to show: a table, JSON, comma-separated values, a chart.

use std::fmt::Write as _;

use serde::Serialize;

use super::results::Shown;
use crate::bench::compare::{
    Basis, CONFIDENCE, Compared, Comparison, Machines, Row, Verdict, to_reference,
};
use crate::bench::machine::{Machine, Processor};
use crate::bench::{self, Measurement, Saved, Summary, limits, stats};
use crate::chain::target::HashRate;
use crate::exit::{Exit, Failure, one_line};
use crate::plot::{self, Chart};
use crate::scan::gpu::Gpu;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    version: &'static str,
    machine: MachineRow,
    results: Vec<BenchRow>,
    comparison: Option<ComparisonRow>,
    #[serde(skip)]
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct MachineRow {
    cpu: String,
    cores: usize,
    os: String,
    kernel: Option<String>,
    vendor: Option<String>,
    family: Option<u32>,
    model: Option<u32>,
    stepping: Option<u32>,
    microcode: Option<String>,
    features: Vec<String>,
    virtual_machine: bool,
    governor: Option<String>,
    smt: Option<bool>,
    cgroup_cpus: Option<f64>,
    load_average: Option<f64>,
    gpus: Vec<CardRow>,
    rustc: &'static str,
    target_features: &'static str,
    build: &'static str,
}

/// A card that was measured.
#[derive(Clone, Debug, Serialize)]
struct CardRow {
    index: usize,
    name: String,
    api: &'static str,
    driver: String,
}

#[derive(Clone, Debug, Serialize)]
struct BenchRow {
    backend: &'static str,
    kernel: String,
    device: String,
    index: Option<usize>,
    threads: usize,
    version_rolling: bool,
    verified: bool,
    reason: Option<String>,
    hashes_per_second: Rates,
    to_reference: Option<f64>,
    cycles_per_hash: Option<f64>,
    cycles_reason: Option<String>,
    share_of_limit: Option<f64>,
    limit_cycles_per_hash: Option<f64>,
    joules_per_gigahash: Option<f64>,
    watts: Option<f64>,
    energy_from: Option<&'static str>,
    energy_reason: Option<String>,
    outliers: Vec<usize>,
    slices: Vec<SliceRow>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Rates {
    median: f64,
    min: f64,
    max: f64,
    samples: usize,
    mean: f64,
    lower_quartile: f64,
    upper_quartile: f64,
    undisturbed: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct SliceRow {
    hashes: u64,
    seconds: f64,
    cores: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct ComparisonRow {
    with: String,
    with_version: String,
    same_machine: bool,
    with_build: Option<String>,
    confidence: f64,
    differs: bool,
    rows: Vec<ComparedRow>,
    only_before: Vec<Name>,
    only_after: Vec<Name>,
    #[serde(skip)]
    with_cpu: String,
    #[serde(skip)]
    compared: Comparison,
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
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::NoDifference => "no difference shown",
        Verdict::TooShort => "too short to say",
        Verdict::NotComparable => "not comparable",
    }
}

/// What stands behind a ratio, or a verdict.
const fn mark(basis: Basis) -> &'static str {
    match basis {
        Basis::Absolute => "",
        Basis::Relative => "*",
        Basis::ReferenceMoved => "**",
    }
}

impl Bench {
    /// The measurements of this machine, whose processor has `cores` usable threads.
    #[must_use]
    pub fn new(cpu: String, cores: usize, machine: &Machine, measured: &[Measurement]) -> Self {
        let rows: Vec<Row> = measured.iter().map(Row::from).collect();
        let results = measured.iter().zip(&rows);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine: MachineRow::new(cpu, cores, machine),
            results: results
                .map(|(m, row)| BenchRow::new(m, row, &rows, &machine.processor))
                .collect(),
            comparison: None,
            rows,
        }
    }

    /// The same, with the cards that were measured.
    #[must_use]
    pub fn with_cards(mut self, cards: &[Gpu]) -> Self {
        let row = |card: &Gpu| CardRow {
            index: card.index,
            name: card.name.clone(),
            api: card.api,
            driver: card.driver.clone(),
        };
        self.machine.gpus = cards.iter().map(row).collect();
        self
    }

    /// The same, held against a run that `file` has saved.
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

    /// The results as comma-separated values, a line each below a line of names.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "backend,kernel,device,threads,version_rolling,verified,hashes_per_second_median,\
             hashes_per_second_min,hashes_per_second_max,samples,joules_per_gigahash,watts,\
             hashes_per_second_mean,hashes_per_second_lower_quartile,\
             hashes_per_second_upper_quartile,to_reference,cycles_per_hash,share_of_limit,outliers,\
             index,hashes_per_second_undisturbed\n",
        );
        for row in &self.results {
            let Rates {
                median,
                min,
                max,
                samples,
                mean,
                lower_quartile,
                upper_quartile,
                undisturbed,
            } = row.hashes_per_second;
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{median},{min},{max},{samples},{},{},{mean},{lower_quartile},\
                 {upper_quartile},{},{},{},{},{},{}",
                row.backend,
                quoted(&row.kernel),
                quoted(&row.device),
                row.threads,
                row.version_rolling,
                row.verified,
                number(row.joules_per_gigahash),
                number(row.watts),
                number(row.to_reference),
                number(row.cycles_per_hash),
                number(row.share_of_limit),
                row.outliers.len(),
                row.index.map_or_else(String::new, |index| index.to_string()),
                number(undisturbed),
            );
        }
        text
    }

    /// The results as a chart; where they are held against a saved run, before and after.
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

impl MachineRow {
    fn new(cpu: String, cores: usize, machine: &Machine) -> Self {
        let Machine { processor, kernel, governor, smt, cgroup_cpus, load_average } =
            machine.clone();
        let Processor { vendor, family, model, stepping, microcode, features, virtual_machine } =
            processor;
        Self {
            cpu,
            cores,
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            kernel,
            vendor,
            family,
            model,
            stepping,
            microcode,
            features,
            virtual_machine,
            governor,
            smt,
            cgroup_cpus,
            load_average,
            gpus: Vec::new(),
            rustc: env!("ADIT_RUSTC"),
            target_features: env!("ADIT_TARGET_FEATURES"),
            build: BUILD,
        }
    }

    /// What one has to know to repeat it, in a line.
    fn circumstances(&self) -> String {
        let mut parts = vec![match &self.kernel {
            Some(kernel) => format!("{} {kernel}", self.os),
            None => self.os.clone(),
        }];
        if self.virtual_machine {
            parts.push("virtual machine".to_owned());
        }
        if let Some(governor) = &self.governor {
            parts.push(format!("governor {governor}"));
        }
        if let Some(cpus) = self.cgroup_cpus {
            parts.push(format!("limited to {cpus} cores' time"));
        }
        if let Some(load) = self.load_average {
            parts.push(format!("load {load}"));
        }
        parts.push(format!("adit {}", env!("CARGO_PKG_VERSION")));
        if self.build == "debug" {
            parts.push("a DEBUG build".to_owned());
        }
        for CardRow { index, name, api, driver } in &self.gpus {
            parts.push(format!("gpu:{index} {name} ({api}, {driver})"));
        }
        // Without the commit in brackets.
        parts.push(self.rustc.split(" (").next().unwrap_or_default().to_owned());
        one_line(&parts.join(", "))
    }
}

impl BenchRow {
    fn new(measured: &Measurement, row: &Row, rows: &[Row], processor: &Processor) -> Self {
        let Summary {
            median,
            min,
            max,
            lower_quartile,
            upper_quartile,
            mean,
            undisturbed,
            samples,
        } = measured.summary();
        let info = &measured.info;
        let limit = (info.backend == "cpu")
            .then(|| limits::cycles_per_hash(processor, &info.kernel, measured.version_rolling))
            .flatten();
        let cycles = measured.cycles_per_hash.as_ref();
        let energy = measured.energy.as_ref();
        Self {
            backend: info.backend,
            kernel: info.kernel.clone(),
            device: info.device.clone(),
            index: info.index,
            threads: info.threads,
            version_rolling: measured.version_rolling,
            verified: measured.verified.is_ok(),
            reason: measured.verified.as_ref().err().map(ToString::to_string),
            hashes_per_second: Rates {
                median: median.to_f64(),
                min: min.to_f64(),
                max: max.to_f64(),
                samples,
                mean: mean.to_f64(),
                lower_quartile: lower_quartile.to_f64(),
                upper_quartile: upper_quartile.to_f64(),
                undisturbed: undisturbed.map(HashRate::to_f64),
            },
            to_reference: to_reference(rows, row),
            cycles_per_hash: cycles.ok().copied(),
            cycles_reason: cycles.err().map(ToString::to_string),
            share_of_limit: limit.zip(cycles.ok()).map(|(limit, cycles)| limit / cycles),
            limit_cycles_per_hash: limit,
            joules_per_gigahash: energy.ok().map(|energy| energy.joules_per_gigahash),
            watts: energy.ok().map(|energy| energy.watts),
            energy_from: energy.ok().map(|e| if e.given { "given" } else { "measured" }),
            energy_reason: energy.err().map(ToString::to_string),
            outliers: stats::outliers(&measured.rates()),
            slices: measured
                .slices
                .iter()
                .map(|s| SliceRow { hashes: s.hashes, seconds: s.seconds, cores: s.cores })
                .collect(),
        }
    }

    /// How far apart the quartiles are, in percent of the median.
    fn spread(&self) -> f64 {
        let Rates { median, lower_quartile, upper_quartile, .. } = self.hashes_per_second;
        if median > 0.0 { (upper_quartile - lower_quartile) / median * 100.0 } else { 0.0 }
    }
}

/// A value as it stands between commas (RFC 4180).
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

/// What is said of `count` rows behind the first.
fn and_more(count: usize) -> String {
    match count.saturating_sub(1) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `cpu:avx2 on 2 threads, versions rolled`.
fn described(row: &Row) -> String {
    let versions = if row.version_rolling { "versions rolled" } else { "one version" };
    let name = match &row.card {
        Some(card) => one_line(&format!("{} ({card})", row.name)),
        None => one_line(&row.name),
    };
    format!("{name} on {} thread{}, {versions}", row.threads, plural(row.threads))
}

/// How this program was built.
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// At most so many outliers are named; the JSON has them all.
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
    /// The columns after those that say what was measured. One that would be empty is left out.
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

impl ComparisonRow {
    /// How the other run's program was built, where this one was not.
    fn other_build(&self) -> Option<&str> {
        self.with_build.as_deref().filter(|build| *build != BUILD)
    }

    /// A line for each reference that moved, and what that means for the rows with two stars.
    fn reference_moved(&self) -> Vec<String> {
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

    fn table(&self, text: &mut String) {
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

/// The first kernel that did not tell the truth, and what it got wrong.
#[must_use]
pub fn disagreement(measured: &[Measurement]) -> Option<Failure> {
    measured.iter().find_map(|measured| {
        let what = format!("backend {}:{}", measured.info.backend, measured.info.kernel);
        let disagreement = measured.verified.as_ref().err()?;
        Some(Failure::new(Exit::SelfTest, what, disagreement.to_string()))
    })
}

/// The progress line of a measurement.
#[must_use]
pub fn measuring(at: &bench::Progress) -> String {
    let s = if at.next.threads == 1 { "" } else { "s" };
    format!(
        "{} {}, {} thread{s}, {} · {} of {} · {} s left",
        if at.warming_up { "warming up" } else { "measuring" },
        at.next.name(),
        at.next.threads,
        if at.version_rolling { "versions rolled" } else { "one version" },
        at.done + 1,
        at.slices,
        at.left.as_secs() + 1,
    )
}
