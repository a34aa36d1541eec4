//! Turns `--backend` into scanners, with the errors and log lines that belong to it.

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use adit::bench::compare::Row;
use adit::bench::{BenchError, Measurement, Plan, measure};
use adit::cli::{BackendSpec, HashingArgs};
use adit::exit::{Exit, Failure};
use adit::output;
use adit::report::Progress;
use adit::scan::cpu::{
    self, Calibration, CpuFeatures, KernelName, Opened, TimedKernel, Unavailable,
};
use adit::scan::gpu::{self, Gpu, GpuScanner, Options};
use adit::scan::{BackendError, Kernel, Scanner};
use adit::signals::Signals;
use anyhow::Context as _;

/// How long a measurement may take to stop after a signal. Some of its steps do not check for one, such as
/// opening a card; then the process is ended.
pub const BREAK_OFF: Duration = Duration::from_secs(2);

/// How many CPU threads to use: `--threads`, or as many as the process may use.
pub fn threads(hashing: &HashingArgs) -> usize {
    hashing.threads.map_or_else(cpu::usable_threads, NonZero::get)
}

/// The backends that `--backend` selects. One that fails its self-test is logged and disabled as long as
/// another remains. Cards test themselves when they are initialised, so that the CPU need not wait for
/// them.
pub fn scanners(
    hashing: &HashingArgs,
    features: CpuFeatures,
    version_rolling: bool,
) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    // Drivers take time to list their cards; meanwhile the kernels are measured.
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
            tracing::error!("{failure}; it is disabled");
            Ok(scanners)
        }
        None => Ok(scanners),
    }
}

/// The CPU backend, if it is selected: with the named kernel, or the fastest of those selected.
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
            let kernel = self_tested(*name, features)?;
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

/// The graphics cards that `--backend` selects. `gpu:N` must exist, and `gpu` needs at least one card;
/// `auto` accepts none.
pub fn gpus(hashing: &HashingArgs) -> Result<Vec<Gpu>, Failure> {
    let specs = hashing.backend.specs();
    let named = specs.iter().any(|spec| matches!(spec, BackendSpec::Gpu(_)));
    if !named {
        if !specs.contains(&BackendSpec::Auto) {
            return Ok(Vec::new());
        }
        let no_file = "no graphics card: the system has no device file for one";
        let none = (!gpu::may_be_present()).then_some(no_file);
        if let Some(why) = gpu::NOT_BUILT.or(none) {
            tracing::debug!("{why}");
            return Ok(Vec::new());
        }
    }
    let all = gpu::enumerate();
    let mut selected: Vec<Gpu> = Vec::new();
    for spec in specs {
        let found: Vec<&Gpu> = match spec {
            BackendSpec::Cpu(_) => continue,
            BackendSpec::Auto | BackendSpec::Gpu(None) => {
                all.iter().filter(|gpu| gpu.is_default()).collect()
            }
            BackendSpec::Gpu(Some(index)) => all.iter().filter(|gpu| gpu.index == *index).collect(),
        };
        match spec {
            BackendSpec::Gpu(index) if found.is_empty() => return Err(no_gpu(*index, &all)),
            _ if found.is_empty() => tracing::debug!("no graphics card was found"),
            _ => {}
        }
        for gpu in found {
            if selected.iter().all(|other| other.index != gpu.index) {
                selected.push(gpu.clone());
            }
        }
    }
    Ok(selected)
}

/// The error for a card that was not found among `all`.
fn no_gpu(index: Option<usize>, all: &[Gpu]) -> Failure {
    let name = index.map_or_else(|| "gpu".to_owned(), |index| format!("gpu:{index}"));
    let failure = |why: &str| Failure::new(Exit::Usage, format!("backend {name}"), why);
    if let Some(why) = gpu::NOT_BUILT {
        return failure(why).hint("--backend cpu needs none");
    }
    match (index, all) {
        (_, []) => failure("no graphics card and no driver for one was found").hint(
            "a card needs a driver for Vulkan (on Debian libvulkan1 and mesa-vulkan-drivers, or \
             NVIDIA's own), Metal or DX12; --backend cpu needs none",
        ),
        (None, [first, ..]) => {
            failure("only software devices were found, which are used only if named")
                .hint(format!("--backend gpu:{} selects {}", first.index, first.name))
        }
        (Some(_), all) => failure("there is no device with this number")
            .hint(format!("the devices are 0 to {}; `adit devices` lists them", all.len() - 1)),
    }
}

/// The kernels that `--backend` selects. One that is named must be available; others that are not come
/// with the reason.
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

/// The numbers of threads on which kernels are measured.
fn thread_counts(hashing: &HashingArgs) -> Vec<usize> {
    match hashing.threads {
        Some(threads) => vec![threads.get()],
        None if cpu::usable_threads() == 1 => vec![1],
        None => vec![1, cpu::usable_threads()],
    }
}

/// Whether this run would measure the backend and number of threads of `row`, a result of an earlier run,
/// if the backend exists. False for rows of all backends together: each backend is measured by itself.
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

/// The available backends that `--backend` selects: kernels on one thread and on all, or on `--threads`;
/// and graphics cards.
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

/// The error for a backend that cannot be measured.
pub fn unfit(error: BenchError) -> Failure {
    let exit = match &error.error {
        BackendError::WrongResult(_) => Exit::SelfTest,
        BackendError::Device(_) => Exit::Failed,
    };
    Failure::from_chain(exit, &error)
}

/// Runs `plan` and shows its progress. Returns the exit code instead if a signal interrupts it.
pub fn measured(
    plan: Plan,
    signals: &Signals,
    progress: &Progress,
) -> anyhow::Result<Result<Vec<Measurement>, Exit>> {
    // Results are verified on rayon's global pool, whose lazy start would panic on failure.
    rayon::ThreadPoolBuilder::new().build_global().context("threads")?;
    let _ending = signals.ends_cleanly(BREAK_OFF);
    let measured = measure(plan, &mut |at| {
        progress.show(&output::bench::measuring(at));
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

/// The backend that the first entry of `--backend` selects, not yet initialised.
pub enum One {
    /// A graphics card.
    Gpu(Box<Gpu>),
    /// The CPU with this kernel, which has passed its self-test.
    Named(Arc<dyn Kernel>),
    /// The CPU with the fastest of its kernels.
    Fastest(Vec<Opened>),
}

impl One {
    /// Finds it. Nothing is measured yet, so that a wrong option is reported before anything else.
    pub fn find(hashing: &HashingArgs, features: CpuFeatures) -> Result<Self, Failure> {
        match hashing.backend.specs() {
            [BackendSpec::Gpu(_), ..] => {
                let gpu = gpus(hashing)?.into_iter().next().ok_or_else(|| no_gpu(None, &[]))?;
                Ok(Self::Gpu(Box::new(gpu)))
            }
            [BackendSpec::Cpu(Some(name)), ..] => self_tested(*name, features).map(Self::Named),
            _ => Ok(Self::Fastest(cpu::open_all(features))),
        }
    }

    /// A scanner on it that does not roll versions. If the work is `easy`, so that it takes less time than
    /// a measurement, the usually fastest kernel is used without measuring.
    pub fn scanner(self, hashing: &HashingArgs, easy: bool) -> anyhow::Result<Arc<dyn Scanner>> {
        let kernel = match self {
            Self::Gpu(gpu) => {
                return Ok(Arc::new(GpuScanner::new(*gpu, options(false))));
            }
            Self::Named(kernel) => kernel,
            Self::Fastest(opened) if easy => cpu::usually_fastest(&opened).ok_or_else(no_kernel)?,
            Self::Fastest(opened) => {
                let (fastest, line) = fastest(&opened, false)?;
                tracing::debug!("{line}");
                fastest.kernel
            }
        };
        Ok(Arc::new(cpu::CpuScanner::new(kernel, threads(hashing)).context("scanner threads")?))
    }
}

/// Opens the named kernel.
fn named(name: KernelName, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Failure> {
    name.kernel(features).map_err(|unavailable| {
        let hint = match unavailable {
            Unavailable::Missing(_) => "--backend auto selects the fastest that this processor has",
            Unavailable::Disabled(_) => {
                "the option is on the command line, in ADIT_DISABLE_CPU_FEATURES or in adit.toml; \
                 --backend auto selects the fastest remaining kernel"
            }
        };
        Failure::new(Exit::Usage, format!("backend cpu:{name}"), unavailable.to_string()).hint(hint)
    })
}

/// Opens the named kernel and runs its self-test.
fn self_tested(name: KernelName, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Failure> {
    let kernel = named(name, features)?;
    match cpu::self_test(&*kernel) {
        Ok(()) => Ok(kernel),
        Err(error) => {
            Err(Failure::new(Exit::SelfTest, format!("backend cpu:{name}"), error.to_string()))
        }
    }
}

/// The fastest of these kernels, and a line for the log with the rates of all.
fn fastest(opened: &[Opened], version_rolling: bool) -> Result<(TimedKernel, String), Failure> {
    let Calibration { timed, failed } = cpu::calibrate(opened, version_rolling);
    for (name, error) in &failed {
        tracing::error!("backend cpu:{name} failed its self-test and is disabled: {error}");
    }
    let fastest = timed.first().ok_or_else(no_kernel)?;
    // The first, and so the best, entry of each kernel.
    let mut named: Vec<&str> = Vec::new();
    let mut rates = Vec::new();
    for TimedKernel { kernel, rate, .. } in &timed {
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
    let line =
        format!("kernel {name}{versions}, the fastest of {} on one thread", rates.join(", "));
    Ok((fastest.clone(), line))
}

fn no_kernel() -> Failure {
    Failure::new(Exit::SelfTest, "backend cpu", "no kernel passed its self-test")
}
