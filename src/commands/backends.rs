//! From `--backend` to kernels, with the failures and the log line that go with it.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use adit::bench::compare::Row;
use adit::bench::{BenchError, Measurement, Plan, measure};
use adit::cli::{BackendSpec, HashingArgs};
use adit::exit::{Exit, Failure};
use adit::report::{self, Progress};
use adit::scan::cpu::{self, CpuFeatures, KernelName, Measured, Opened, Timed, Unavailable};
use adit::scan::gpu::{self, Gpu, GpuScanner, Options};
use adit::scan::{BackendError, Kernel, Scanner};
use adit::signals::Signals;
use anyhow::Context as _;

/// How long a measurement may take to notice a signal. Some of its steps do not look for one, such as
/// the first opening of a card; then it is ended.
pub const BREAK_OFF: Duration = Duration::from_secs(2);

/// As many threads as were asked for.
pub fn threads(hashing: &HashingArgs) -> usize {
    hashing.threads.map_or_else(cpu::usable_threads, NonZero::get)
}

/// The backends that were asked for. One that fails its self-test is named and left out,
/// as long as another is there. Cards are tested once they are up: the processor does not wait for
/// them.
pub fn scanners(
    hashing: &HashingArgs,
    features: CpuFeatures,
    version_rolling: bool,
) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    // Drivers take their time to say what there is; meanwhile the kernels are measured.
    let (cpu, gpus) = std::thread::scope(|scope| {
        let aside = std::thread::Builder::new().name("gpus".into());
        let gpus = aside.spawn_scoped(scope, || gpus(hashing)).context("threads")?;
        let cpu = cpu_scanner(hashing, features, version_rolling);
        let gpus = gpus.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        anyhow::Ok((cpu, gpus))
    })?;
    let options = options(version_rolling);
    let mut scanners: Vec<Arc<dyn Scanner>> = Vec::new();
    let mut failed = None;
    match cpu {
        Ok(scanner) => scanners.extend(scanner),
        Err(error) => match error.downcast::<Failure>() {
            Ok(failure) if failure.exit == Exit::SelfTest => failed = Some(failure),
            Ok(failure) => return Err(failure.into()),
            Err(error) => return Err(error),
        },
    }
    for gpu in gpus? {
        scanners.push(Arc::new(GpuScanner::new(gpu, options.clone())));
    }
    match failed {
        Some(failure) if scanners.is_empty() => Err(failure.into()),
        Some(failure) => {
            tracing::error!("{failure}; it is left out");
            Ok(scanners)
        }
        None => Ok(scanners),
    }
}

/// The processor as a backend, where it was asked for: with the fastest of the kernels, where there
/// is more than one to choose from.
fn cpu_scanner(
    hashing: &HashingArgs,
    features: CpuFeatures,
    version_rolling: bool,
) -> anyhow::Result<Option<Arc<dyn Scanner>>> {
    let mut wanted =
        hashing.backend.specs().iter().filter(|spec| !matches!(spec, BackendSpec::Gpu(_)));
    let (kernel, midstates) = match (wanted.next(), wanted.next()) {
        (None, _) => return Ok(None),
        (Some(BackendSpec::Cpu(Some(name))), None) => {
            let kernel = trusted(*name, features)?;
            let midstates = kernel.midstates();
            (kernel, midstates)
        }
        _ => {
            let (fastest, line) = fastest(&kernels(hashing, features)?, version_rolling)?;
            tracing::info!("{line}");
            (fastest.kernel, fastest.midstates)
        }
    };
    let scanner = cpu::CpuScanner::new(kernel, threads(hashing)).context("scanner threads")?;
    Ok(Some(Arc::new(scanner.with_midstates(midstates))))
}

fn options(version_rolling: bool) -> Options {
    Options { version_rolling, cache: adit::dirs::cache_dir() }
}

/// Every graphics card that `--backend` speaks of. One that was named must be there; `gpu` needs at
/// least one; for `auto` there may be none.
pub fn gpus(hashing: &HashingArgs) -> Result<Vec<Gpu>, Failure> {
    let specs = hashing.backend.specs();
    let named = specs.iter().any(|spec| matches!(spec, BackendSpec::Gpu(_)));
    if !named {
        if !specs.contains(&BackendSpec::Auto) {
            return Ok(Vec::new());
        }
        if !gpu::may_be_there() {
            tracing::debug!("no graphics card: the system has no device file of one");
            return Ok(Vec::new());
        }
    }
    let all = gpu::enumerate();
    let mut taken: Vec<Gpu> = Vec::new();
    for spec in specs {
        let found: Vec<&Gpu> = match spec {
            BackendSpec::Cpu(_) => continue,
            BackendSpec::Auto | BackendSpec::Gpu(None) => {
                all.iter().filter(|gpu| gpu.is_taken_unasked()).collect()
            }
            BackendSpec::Gpu(Some(index)) => all.iter().filter(|gpu| gpu.index == *index).collect(),
        };
        match spec {
            BackendSpec::Gpu(index) if found.is_empty() => return Err(no_gpu(*index, &all)),
            _ if found.is_empty() => tracing::debug!("no graphics card was found"),
            _ => {}
        }
        for gpu in found {
            if taken.iter().all(|other| other.index != gpu.index) {
                taken.push(gpu.clone());
            }
        }
    }
    Ok(taken)
}

/// There is no such card.
fn no_gpu(index: Option<usize>, all: &[Gpu]) -> Failure {
    let name = index.map_or_else(|| "gpu".to_owned(), |index| format!("gpu:{index}"));
    let failure = |why: &str| Failure::new(Exit::Usage, format!("backend {name}"), why);
    match (index, all) {
        (_, []) => failure("no graphics card was found, and no driver of one").hint(
            "it takes the card's driver with Vulkan (on Debian libvulkan1 and mesa-vulkan-drivers, \
             or NVIDIA's own), Metal or DX12; --backend cpu needs none",
        ),
        (None, [first, ..]) => {
            failure("only software devices were found, and they are not taken unless named")
                .hint(format!("--backend gpu:{} takes {}", first.index, first.name))
        }
        (Some(_), all) => failure("there is no device of this number")
            .hint(format!("there are 0 to {}; `adit devices` lists them", all.len() - 1)),
    }
}

/// Every kernel that `--backend` speaks of. One that was named must be there; the others
/// come with the reason why they are not.
pub fn kernels(hashing: &HashingArgs, features: CpuFeatures) -> Result<Vec<Opened>, Failure> {
    let mut kernels = Vec::new();
    for spec in hashing.backend.specs() {
        match spec {
            BackendSpec::Auto | BackendSpec::Cpu(None) => kernels.extend(cpu::open_all(features)),
            BackendSpec::Cpu(Some(name)) => kernels.push((*name, Ok(named(*name, features)?))),
            BackendSpec::Gpu(_) => {}
        }
    }
    Ok(kernels)
}

/// On how many threads kernels are measured.
fn thread_counts(hashing: &HashingArgs) -> Vec<usize> {
    match hashing.threads {
        Some(threads) => vec![threads.get()],
        None if cpu::usable_threads() == 1 => vec![1],
        None => vec![1, cpu::usable_threads()],
    }
}

/// Whether `row` of an earlier run is of a backend and of a number of threads that are to be measured
/// now, were they there. All backends together are not: each of them is by itself.
pub fn is_to_measure(hashing: &HashingArgs, row: &Row) -> bool {
    let specs = hashing.backend.specs();
    if let Some(kernel) = row.name.strip_prefix("cpu:") {
        let named = |spec: &BackendSpec| match spec {
            BackendSpec::Auto | BackendSpec::Cpu(None) => true,
            BackendSpec::Cpu(Some(name)) => name.to_string() == kernel,
            BackendSpec::Gpu(_) => false,
        };
        return specs.iter().any(named) && thread_counts(hashing).contains(&row.threads);
    }
    let Some(index) = row.name.strip_prefix("gpu:") else { return false };
    specs.iter().any(|spec| match spec {
        BackendSpec::Auto | BackendSpec::Gpu(None) => true,
        BackendSpec::Gpu(Some(named)) => named.to_string() == index,
        BackendSpec::Cpu(_) => false,
    })
}

/// Every backend that `--backend` speaks of and that is there: kernels on one thread and on all, or
/// on as many as were asked for; and graphics cards.
pub fn to_measure(
    hashing: &HashingArgs,
    features: CpuFeatures,
) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    let counts = thread_counts(hashing);
    let mut scanners: Vec<Arc<dyn Scanner>> = Vec::new();
    for (name, kernel) in kernels(hashing, features)? {
        let kernel = match kernel {
            Ok(kernel) => kernel,
            Err(unavailable) => {
                tracing::info!("backend cpu:{name} is not measured: {unavailable}");
                continue;
            }
        };
        for threads in &counts {
            let scanner = cpu::CpuScanner::new(kernel.clone(), *threads);
            scanners.push(Arc::new(scanner.context("scanner threads")?));
        }
    }
    for gpu in gpus(hashing)? {
        scanners.push(Arc::new(GpuScanner::new(gpu, options(true))));
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

/// What `plan` comes to, shown as it goes on; or with which code to end where a signal broke it off.
pub fn measured(
    plan: Plan,
    signals: &Signals,
    progress: &Progress,
) -> anyhow::Result<Result<Vec<Measurement>, Exit>> {
    // What is found is verified by rayon's own threads, and it panics where it gets none.
    rayon::ThreadPoolBuilder::new().build_global().context("threads")?;
    let _ending = signals.ends_cleanly(BREAK_OFF);
    let measured = measure(plan, &mut |at| {
        progress.show(&report::bench::measuring(at));
        if signals.received().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    progress.finish();
    let measured = measured.map_err(unfit)?;
    Ok(measured.ok_or_else(|| signals.received().unwrap_or(Exit::Failed)))
}

/// One backend that is there, not yet initialised: what the first entry of `--backend` names.
pub enum One {
    /// A graphics card.
    Gpu(Box<Gpu>),
    /// The CPU with this kernel, which has passed its self-test.
    Named(Arc<dyn Kernel>),
    /// The CPU with the fastest of its kernels.
    Fastest(Vec<Opened>),
}

impl One {
    /// Looks for it. Nothing is measured yet, so that this can come before anything else that may
    /// be wrong.
    pub fn find(hashing: &HashingArgs, features: CpuFeatures) -> Result<Self, Failure> {
        match hashing.backend.specs() {
            [BackendSpec::Gpu(_), ..] => {
                let gpu = gpus(hashing)?.into_iter().next().ok_or_else(|| no_gpu(None, &[]))?;
                Ok(Self::Gpu(Box::new(gpu)))
            }
            [BackendSpec::Cpu(Some(name)), ..] => trusted(*name, features).map(Self::Named),
            _ => Ok(Self::Fastest(cpu::open_all(features))),
        }
    }

    /// A scanner on it, which rolls no versions. Where `easy` says that the work is done before a
    /// measurement would be, the kernel that usually is the fastest is taken unmeasured.
    pub fn scanner(self, hashing: &HashingArgs, easy: bool) -> anyhow::Result<Arc<dyn Scanner>> {
        let kernel = match self {
            Self::Gpu(gpu) => {
                return Ok(Arc::new(GpuScanner::new(*gpu, options(false))));
            }
            Self::Named(kernel) => kernel,
            Self::Fastest(opened) if easy => cpu::usually_fastest(&opened).ok_or_else(none)?,
            Self::Fastest(opened) => {
                let (fastest, line) = fastest(&opened, false)?;
                tracing::debug!("{line}");
                fastest.kernel
            }
        };
        Ok(Arc::new(cpu::CpuScanner::new(kernel, threads(hashing)).context("scanner threads")?))
    }
}

/// The kernel of this name, if it is there.
fn named(name: KernelName, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Failure> {
    name.kernel(features).map_err(|unavailable| {
        let hint = match unavailable {
            Unavailable::Missing(_) => "--backend auto takes the fastest that this processor has",
            Unavailable::Disabled(_) => {
                "it is on the command line, in ADIT_DISABLE_CPU_FEATURES or in adit.toml; \
                 --backend auto takes the fastest kernel that is left"
            }
        };
        Failure::new(Exit::Usage, format!("backend cpu:{name}"), unavailable.to_string()).hint(hint)
    })
}

/// The same, if it does not lie either.
fn trusted(name: KernelName, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Failure> {
    let kernel = named(name, features)?;
    match cpu::self_test(&*kernel) {
        Ok(()) => Ok(kernel),
        Err(lie) => {
            Err(Failure::new(Exit::SelfTest, format!("backend cpu:{name}"), lie.to_string()))
        }
    }
}

/// The one of these kernels that is fastest here, and a line for the log that names it beside the
/// others' rates.
fn fastest(opened: &[Opened], version_rolling: bool) -> Result<(Timed, String), Failure> {
    let Measured { timed, failed } = cpu::calibrate(opened, version_rolling);
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
