//! What the commands that come to one result have to show: a table for people, one JSON object for
//! scripts.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bench::{self, Measurement};
use crate::chain::target::HashRate;
use crate::exit::{Exit, Failure, one_line};
use crate::grind::{self, Puzzle};
use crate::scan::cpu::{Checked, Opened, Unfit};

/// A result that can be shown.
pub trait Shown: Serialize {
    /// For people.
    fn table(&self) -> String;
}

/// One JSON object in a line, or a table.
#[must_use]
pub fn shown<S: Shown>(result: &S, json: bool) -> String {
    if json {
        // Strings, numbers and lists always have a JSON form.
        serde_json::to_string(result).unwrap_or_default() + "\n"
    } else {
        result.table()
    }
}

/// A text that is a result by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Text {
    /// All of it, with its last newline.
    pub text: String,
}

impl Shown for Text {
    fn table(&self) -> String {
        self.text.clone()
    }
}

/// What a machine can hash with.
#[derive(Clone, Debug, Serialize)]
pub struct Devices {
    cpu: Cpu,
    gpus: Vec<Gpu>,
}

#[derive(Clone, Debug, Serialize)]
struct Cpu {
    model: String,
    threads: usize,
    kernels: Vec<KernelRow>,
}

#[derive(Clone, Debug, Serialize)]
struct KernelRow {
    kernel: &'static str,
    available: bool,
    reason: Option<String>,
}

/// There is none in this version, and a list that says so.
#[derive(Clone, Copy, Debug, Serialize)]
enum Gpu {}

impl Devices {
    /// A processor with its usable threads and kernels.
    #[must_use]
    pub fn new(model: String, threads: usize, kernels: &[Opened]) -> Self {
        let kernels = kernels
            .iter()
            .map(|(name, kernel)| KernelRow {
                kernel: name.as_str(),
                available: kernel.is_ok(),
                reason: kernel.as_ref().err().map(ToString::to_string),
            })
            .collect();
        Self { cpu: Cpu { model, threads, kernels }, gpus: Vec::new() }
    }
}

impl Shown for Devices {
    fn table(&self) -> String {
        let Cpu { model, threads, kernels } = &self.cpu;
        let s = if *threads == 1 { "" } else { "s" };
        let mut text = format!("cpu: {}, {threads} thread{s}\n", one_line(model));
        for row in kernels {
            let state = row.reason.as_deref().unwrap_or("available");
            let _ = writeln!(text, "  cpu:{:<8} {state}", row.kernel);
        }
        text
    }
}

/// What the self-tests came to.
#[derive(Clone, Debug, Serialize)]
pub struct Checks {
    backends: Vec<CheckRow>,
}

#[derive(Clone, Debug, Serialize)]
struct CheckRow {
    backend: &'static str,
    kernel: &'static str,
    result: &'static str,
    reason: Option<String>,
    seconds: f64,
}

impl Checks {
    /// A row for each kernel.
    #[must_use]
    pub fn new(checked: &[Checked]) -> Self {
        let row = |checked: &Checked| CheckRow {
            backend: "cpu",
            kernel: checked.kernel.as_str(),
            result: match &checked.result {
                Ok(()) => "pass",
                Err(Unfit::Lie(_)) => "fail",
                Err(Unfit::Unavailable(_)) => "unavailable",
            },
            reason: checked.result.as_ref().err().map(ToString::to_string),
            seconds: checked.took.as_secs_f64(),
        };
        Self { backends: checked.iter().map(row).collect() }
    }

    /// What failed, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<_> = self.backends.iter().filter(|row| row.result == "fail").collect();
        let first = failed.first()?;
        let name = |row: &CheckRow| format!("{}:{}", row.backend, row.kernel);
        let names: Vec<_> = failed.iter().map(|row| name(row)).collect();
        let why = first.reason.clone().unwrap_or_default();
        let what = format!("self-test of {}", names.join(", "));
        let why = if names.len() > 1 { format!("{}: {why}", names[0]) } else { why };
        Some(
            Failure::new(Exit::SelfTest, what, why)
                .hint("this processor computes wrongly, or adit does: mine with another backend"),
        )
    }
}

impl Shown for Checks {
    fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.backends {
            let name = format!("{}:{}", row.backend, row.kernel);
            let _ = write!(text, "{name:<12} {}", row.result);
            match &row.reason {
                Some(reason) => text.extend([": ", reason, "\n"]),
                None => {
                    let _ = writeln!(text, " ({:.0} ms)", row.seconds * 1e3);
                }
            }
        }
        text
    }
}

/// A solved header.
#[derive(Clone, Debug, Serialize)]
pub struct Ground {
    header: String,
    nonce: u32,
}

impl Ground {
    /// `puzzle` with this nonce.
    #[must_use]
    pub fn new(puzzle: &Puzzle, nonce: u32) -> Self {
        Self { header: puzzle.solved(nonce), nonce }
    }
}

impl Shown for Ground {
    fn table(&self) -> String {
        format!("{}\n", self.header)
    }
}

/// The progress line of a grind.
#[must_use]
pub fn grinding(at: &grind::Progress) -> String {
    let percent = at.tried as f64 / 4_294_967_296.0 * 100.0;
    format!("grinding: {percent:.1} % of all nonces tried, {}", at.rate)
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    version: &'static str,
    machine: Machine,
    results: Vec<BenchRow>,
}

#[derive(Clone, Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    os: String,
}

#[derive(Clone, Debug, Serialize)]
struct BenchRow {
    backend: &'static str,
    kernel: String,
    device: String,
    threads: usize,
    version_rolling: bool,
    verified: bool,
    hashes_per_second: Rates,
    joules_per_gigahash: Option<f64>,
    watts: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Rates {
    median: f64,
    min: f64,
    max: f64,
    samples: usize,
}

impl Bench {
    /// The measurements of this machine, whose processor has `cores` usable threads.
    #[must_use]
    pub fn new(cpu: String, cores: usize, measured: &[Measurement]) -> Self {
        let row = |measured: &Measurement| {
            let bench::Summary { median, min, max, samples } = measured.summary();
            BenchRow {
                backend: measured.info.backend,
                kernel: measured.info.kernel.clone(),
                device: measured.info.device.clone(),
                threads: measured.info.threads,
                version_rolling: measured.version_rolling,
                verified: measured.verified.is_ok(),
                hashes_per_second: Rates {
                    median: median.to_f64(),
                    min: min.to_f64(),
                    max: max.to_f64(),
                    samples,
                },
                joules_per_gigahash: None,
                watts: None,
            }
        };
        let os = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine { cpu, cores, os },
            results: measured.iter().map(row).collect(),
        }
    }

    /// The results as comma-separated values, a line each below a line of names.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "backend,kernel,device,threads,version_rolling,verified,hashes_per_second_median,\
             hashes_per_second_min,hashes_per_second_max,samples,joules_per_gigahash,watts\n",
        );
        for row in &self.results {
            let Rates { median, min, max, samples } = row.hashes_per_second;
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{median},{min},{max},{samples},{},{}",
                row.backend,
                quoted(&row.kernel),
                quoted(&row.device),
                row.threads,
                row.version_rolling,
                row.verified,
                number(row.joules_per_gigahash),
                number(row.watts),
            );
        }
        text
    }

    /// The plain rate of the reference on as many threads.
    fn reference(&self, threads: usize) -> Option<f64> {
        let same = |row: &&BenchRow| {
            row.kernel == "sha2" && !row.version_rolling && row.threads == threads
        };
        self.results.iter().find(same).map(|row| row.hashes_per_second.median)
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

impl Shown for Bench {
    fn table(&self) -> String {
        let Machine { cpu, cores, os } = &self.machine;
        let s = if *cores == 1 { "" } else { "s" };
        let mut text = format!(
            "{}, {cores} thread{s}, {os}\n\n{:<12} {:>7} {:<8} {:>12} {:>12} {:>12} {:>8} verified\n",
            one_line(cpu),
            "backend",
            "threads",
            "versions",
            "median",
            "min",
            "max",
            "to sha2",
        );
        for row in &self.results {
            let Rates { median, min, max, .. } = row.hashes_per_second;
            let rate = |value: f64| HashRate::from_f64(value).to_string();
            let ratio = self.reference(row.threads).filter(|reference| *reference > 0.0);
            let _ = writeln!(
                text,
                "{:<12} {:>7} {:<8} {:>12} {:>12} {:>12} {:>8} {}",
                format!("{}:{}", row.backend, row.kernel),
                row.threads,
                if row.version_rolling { "rolled" } else { "one" },
                rate(median),
                rate(min),
                rate(max),
                ratio.map_or_else(|| "-".to_owned(), |r| format!("{:.2}", median / r)),
                if row.verified { "yes" } else { "NO" },
            );
        }
        text
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
        "measuring {}:{}, {} thread{s}, {} · {} of {} · {} s left",
        at.next.backend,
        at.next.kernel,
        at.next.threads,
        if at.version_rolling { "versions rolled" } else { "one version" },
        at.done + 1,
        at.slices,
        at.left.as_secs() + 1,
    )
}
