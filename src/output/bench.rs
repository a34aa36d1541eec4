//! What `adit bench` has to show: a table, JSON, comma-separated values, a chart.

mod chart;
mod comparison;
mod csv;
mod table;

use serde::Serialize;

use self::comparison::ComparisonRow;
use crate::bench::compare::{Row, to_reference};
use crate::bench::machine::{Machine, Processor};
use crate::bench::{self, Measurement, Summary, limits, stats};
use crate::exit::{Exit, Failure};
use crate::printable::one_line;
use crate::scan::gpu::Gpu;
use crate::units::{HashRate, plural};

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
            name: one_line(&card.name),
            api: card.api,
            driver: one_line(&card.driver),
        };
        self.machine.gpus = cards.iter().map(row).collect();
        self
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
        let limit = info
            .id
            .is_cpu()
            .then(|| limits::cycles_per_hash(processor, &info.kernel, measured.version_rolling))
            .flatten();
        let cycles = measured.cycles_per_hash.as_ref();
        let energy = measured.energy.as_ref();
        Self {
            backend: info.id.kind(),
            kernel: info.kernel.clone(),
            device: one_line(&info.device),
            index: info.id.index(),
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

/// What is said of `count` rows behind the first.
fn and_more(count: usize) -> String {
    match count.saturating_sub(1) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
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

/// The first kernel that did not tell the truth, and what it got wrong.
#[must_use]
pub fn disagreement(measured: &[Measurement]) -> Option<Failure> {
    measured.iter().find_map(|measured| {
        let what = format!("backend {}:{}", measured.info.id.kind(), measured.info.kernel);
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
