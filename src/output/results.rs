//! What the commands that come to one result have to show: a table for people, one JSON object for
//! scripts.

use std::fmt::Write as _;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::grind::{self, Puzzle};
use crate::printable::one_line;
use crate::scan::cpu::{CheckError, KernelCheck, Opened};
use crate::scan::gpu::{self, Gpu, GpuCheck};

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
    gpus: Vec<GpuRow>,
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

#[derive(Clone, Debug, Serialize)]
struct GpuRow {
    index: usize,
    name: String,
    api: &'static str,
    driver: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Whether `auto` and `gpu` take it, or only its number.
    default: bool,
    /// The number of the same card over another API.
    same_as: Option<usize>,
}

impl Devices {
    /// A processor with its usable threads and kernels, and the graphics cards. Names are those that
    /// firmware and drivers give, made fit to be shown ([`one_line`]) in JSON too.
    #[must_use]
    pub fn new(model: String, threads: usize, kernels: &[Opened], gpus: &[Gpu]) -> Self {
        let kernels = kernels
            .iter()
            .map(|(name, kernel)| KernelRow {
                kernel: name.as_str(),
                available: kernel.is_ok(),
                reason: kernel.as_ref().err().map(ToString::to_string),
            })
            .collect();
        let gpus = gpus
            .iter()
            .map(|gpu| GpuRow {
                index: gpu.index,
                name: one_line(&gpu.name),
                api: gpu.api,
                driver: one_line(&gpu.driver),
                kind: gpu.kind.word(),
                default: gpu.is_default(),
                same_as: gpu.same_as,
            })
            .collect();
        Self { cpu: Cpu { model: one_line(&model), threads, kernels }, gpus }
    }
}

impl Shown for Devices {
    fn table(&self) -> String {
        let Cpu { model, threads, kernels } = &self.cpu;
        let s = if *threads == 1 { "" } else { "s" };
        let mut text = format!("cpu: {model}, {threads} thread{s}\n");
        for row in kernels {
            let state = row.reason.as_deref().unwrap_or("available");
            let _ = writeln!(text, "  cpu:{:<8} {state}", row.kernel);
        }
        for gpu in &self.gpus {
            let GpuRow { index, name, api, driver, kind, .. } = gpu;
            let used = match gpu.same_as {
                Some(other) => format!("; the same card as gpu:{other}"),
                None if gpu.default => String::new(),
                None => "; used only if named".to_owned(),
            };
            let line = format!("gpu:{index}: {name}, {kind}, {api}, {driver}{used}");
            text.extend([&one_line(&line), "\n"]);
        }
        if self.gpus.is_empty() {
            text.extend(["gpu: ", gpu::NOT_BUILT.unwrap_or("none found"), "\n"]);
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
    device: Option<String>,
    index: Option<usize>,
    result: &'static str,
    reason: Option<String>,
    /// Variants of a card's shader that its driver does not take.
    skipped: Vec<&'static str>,
    seconds: f64,
}

impl CheckRow {
    /// As `--backend` names it.
    fn name(&self) -> String {
        match self.index {
            Some(index) => format!("{}:{index}", self.backend),
            None => format!("{}:{}", self.backend, self.kernel),
        }
    }
}

impl Checks {
    /// A row for each kernel, and one for each graphics card.
    #[must_use]
    pub fn new(checked: &[KernelCheck], gpus: &[(Gpu, GpuCheck)]) -> Self {
        let row = |checked: &KernelCheck| CheckRow {
            backend: "cpu",
            kernel: checked.kernel.as_str(),
            device: None,
            index: None,
            result: match &checked.result {
                Ok(()) => "pass",
                Err(CheckError::SelfTest(_)) => "fail",
                Err(CheckError::Unavailable(_)) => "unavailable",
            },
            reason: checked.result.as_ref().err().map(ToString::to_string),
            skipped: Vec::new(),
            seconds: checked.took.as_secs_f64(),
        };
        // A card that is there and cannot be used has failed, whatever the reason.
        let gpu_row = |(gpu, checked): &(Gpu, GpuCheck)| CheckRow {
            backend: "gpu",
            kernel: "wgsl",
            device: Some(one_line(&gpu.name)),
            index: Some(gpu.index),
            result: if checked.result.is_ok() { "pass" } else { "fail" },
            // It may quote the driver.
            reason: checked.result.as_ref().err().map(|error| one_line(&error.to_string())),
            skipped: checked.skipped.iter().map(|variant| variant.name()).collect(),
            seconds: checked.took.as_secs_f64(),
        };
        Self { backends: checked.iter().map(row).chain(gpus.iter().map(gpu_row)).collect() }
    }

    /// What failed, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let failed: Vec<_> = self.backends.iter().filter(|row| row.result == "fail").collect();
        let first = failed.first()?;
        let names: Vec<_> = failed.iter().map(|row| row.name()).collect();
        let why = first.reason.clone().unwrap_or_default();
        let what = format!("self-test of {}", names.join(", "));
        let why = if names.len() > 1 { format!("{}: {why}", names[0]) } else { why };
        Some(
            Failure::new(Exit::SelfTest, what, why)
                .hint("it or its driver is at fault, or adit is: mine with another backend"),
        )
    }
}

impl Shown for Checks {
    fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.backends {
            let _ = write!(text, "{:<12} {}", row.name(), row.result);
            if let Some(reason) = &row.reason {
                text.extend([": ", &one_line(reason)]);
            } else {
                let _ = write!(text, " ({:.0} ms)", row.seconds * 1e3);
            }
            if !row.skipped.is_empty() {
                let _ = write!(text, "; refused by the driver: {}", row.skipped.join(", "));
            }
            text.push('\n');
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scan::gpu;

    const HOSTILE: &str = "a\u{1b}[2J\u{202e}name\n";

    #[test]
    fn the_names_that_drivers_give_are_fit_to_be_shown_in_json_too() {
        // Where the machine has cards, or a driver for one in software.
        let mut gpus = gpu::enumerate();
        for gpu in &mut gpus {
            (gpu.name, gpu.driver) = (HOSTILE.to_owned(), HOSTILE.to_owned());
        }
        let checks = gpus.iter().map(|gpu| {
            let check = GpuCheck { result: Ok(()), skipped: Vec::new(), took: Duration::ZERO };
            (gpu.clone(), check)
        });
        let checks = Checks::new(&[], &checks.collect::<Vec<_>>());
        let devices = Devices::new(HOSTILE.to_owned(), 1, &[], &gpus);
        for text in [shown(&devices, true), shown(&devices, false), shown(&checks, true)] {
            let value = text.replace('\n', "");
            assert!(value.chars().all(crate::printable::is_printable), "{value}");
            // Control characters would be escaped in JSON.
            assert!(!value.contains("\\u") && !value.contains("\\n"), "{value}");
        }
    }
}
