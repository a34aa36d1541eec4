//! From `--backend` to kernels, with the failures and the log line that go with it.

use std::num::NonZero;
use std::sync::Arc;

use adit::bench::BenchError;
use adit::cli::{BackendSpec, HashingArgs};
use adit::exit::{Exit, Failure};
use adit::scan::cpu::{self, KernelName, Measured, Opened, Timed};
use adit::scan::{BackendError, Kernel, Scanner};
use anyhow::Context as _;

/// As many threads as were asked for.
pub fn threads(hashing: &HashingArgs) -> usize {
    hashing.threads.map_or_else(cpu::usable_threads, NonZero::get)
}

/// The backends that were asked for, hashing `percent` of the time. One that fails its self-test is
/// named and left out, as long as another is there.
pub fn scanners(
    hashing: &HashingArgs,
    version_rolling: bool,
    percent: u8,
) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    let mut scanners: Vec<Arc<dyn Scanner>> = Vec::new();
    let mut failed = None;
    for spec in hashing.backend.specs() {
        let (kernel, midstates) = match spec {
            BackendSpec::Auto | BackendSpec::Cpu(None) => {
                let (fastest, line) = measured(version_rolling)?;
                tracing::info!("{line}");
                (fastest.kernel, fastest.midstates)
            }
            BackendSpec::Cpu(Some(name)) => match trusted(*name) {
                Ok(kernel) => {
                    let midstates = kernel.midstates();
                    (kernel, midstates)
                }
                Err(failure) if failure.exit == Exit::SelfTest => {
                    tracing::error!("{failure}; it is left out");
                    failed = Some(failure);
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            },
        };
        let scanner = cpu::CpuScanner::new(kernel, threads(hashing), percent);
        let scanner = scanner.context("scanner threads")?.with_midstates(midstates);
        scanners.push(Arc::new(scanner));
    }
    match failed {
        Some(failure) if scanners.is_empty() => Err(failure.into()),
        _ => Ok(scanners),
    }
}

/// Every kernel that `--backend` speaks of. One that was named must be there; the others
/// come with the reason why they are not.
pub fn kernels(hashing: &HashingArgs) -> Result<Vec<Opened>, Failure> {
    let mut kernels = Vec::new();
    for spec in hashing.backend.specs() {
        match spec {
            BackendSpec::Auto | BackendSpec::Cpu(None) => kernels.extend(cpu::open_all()),
            BackendSpec::Cpu(Some(name)) => kernels.push((*name, Ok(named(*name)?))),
        }
    }
    Ok(kernels)
}

/// Every backend that `--backend` speaks of and that is there: kernels on one thread and on all, or
/// on as many as were asked for.
pub fn to_measure(hashing: &HashingArgs) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    let counts = match hashing.threads {
        Some(threads) => vec![threads.get()],
        None if cpu::usable_threads() == 1 => vec![1],
        None => vec![1, cpu::usable_threads()],
    };
    let mut scanners: Vec<Arc<dyn Scanner>> = Vec::new();
    for (_, kernel) in kernels(hashing)? {
        let Ok(kernel) = kernel else { continue };
        for threads in &counts {
            let scanner = cpu::CpuScanner::new(kernel.clone(), *threads, 100);
            scanners.push(Arc::new(scanner.context("scanner threads")?));
        }
    }
    Ok(scanners)
}

/// What to say of a backend with which nothing can be measured.
pub fn unfit(error: BenchError) -> Failure {
    let exit = match &error.error {
        BackendError::Lies(_) => Exit::SelfTest,
        BackendError::Device(_) => Exit::Failed,
    };
    Failure::from_chain(exit, &error)
}

/// One kernel, as far as the first entry of `--backend` says which, and otherwise the fastest; where
/// `easy` says that the work is done before a measurement would be, the one that usually is.
pub fn one(
    hashing: &HashingArgs,
    version_rolling: bool,
    easy: bool,
) -> Result<Arc<dyn Kernel>, Failure> {
    match hashing.backend.specs() {
        [BackendSpec::Cpu(Some(name)), ..] => trusted(*name),
        _ if easy => cpu::usually_fastest(&cpu::open_all()).ok_or_else(none),
        _ => measured(version_rolling).map(|(fastest, line)| {
            tracing::debug!("{line}");
            fastest.kernel
        }),
    }
}

/// The kernel of this name, if it is there.
fn named(name: KernelName) -> Result<Arc<dyn Kernel>, Failure> {
    name.kernel().map_err(|missing| {
        Failure::new(Exit::Usage, format!("backend cpu:{name}"), missing.to_string())
            .hint("--backend auto takes the fastest that this processor has")
    })
}

/// The same, if it does not lie either.
fn trusted(name: KernelName) -> Result<Arc<dyn Kernel>, Failure> {
    let kernel = named(name)?;
    match cpu::self_test(&*kernel) {
        Ok(()) => Ok(kernel),
        Err(lie) => {
            Err(Failure::new(Exit::SelfTest, format!("backend cpu:{name}"), lie.to_string()))
        }
    }
}

/// The kernel that is fastest here, and a line for the log that names it beside the others' rates.
fn measured(version_rolling: bool) -> Result<(Timed, String), Failure> {
    let Measured { timed, failed } = cpu::calibrate(&cpu::open_all(), version_rolling);
    for (name, lie) in &failed {
        tracing::error!("backend cpu:{name} failed its self-test and is left out: {lie}");
    }
    let fastest = timed.first().ok_or_else(none)?;
    // The best of each kernel; they come sorted.
    let mut named: Vec<&str> = Vec::new();
    let mut rates = Vec::new();
    for Timed { kernel, rate, .. } in &timed {
        if !named.contains(&kernel.name()) {
            named.push(kernel.name());
            rates.push(format!("{} {rate}", kernel.name()));
        }
    }
    let versions = match fastest.midstates {
        1 => String::new(),
        k => format!(" with {k} versions at once"),
    };
    let name = fastest.kernel.name();
    let line = format!("kernel {name}{versions}, of {} on one thread", rates.join(", "));
    Ok((fastest.clone(), line))
}

fn none() -> Failure {
    Failure::new(Exit::SelfTest, "backend cpu", "no kernel passed its self-test")
}
