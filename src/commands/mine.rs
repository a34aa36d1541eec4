//! `adit mine`: a source, the engine and a report, wired together.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use adit::bench::{BenchError, consumer};
use adit::cli::{MineArgs, OutputArgs, VersionRolling};
use adit::energy::{Consumer, EnergyTotals};
use adit::engine::{Control, EnergyMeter, Engine, Goal, Sources};
use adit::event::{Announcer, PauseReason, Summary};
use adit::exit::{Exit, Failure};
use adit::protocols::{self, SharedJournal, Terms};
use adit::report::{Format, OutputError, Progress, Report, Writer};
use adit::scan::cpu::CpuFeatures;
use adit::scan::{Scanner, Throttle};
use adit::signals::Signals;
use adit::source::SourceError;
use adit::source::failover::Failover;
use anyhow::Context as _;
use tokio::sync::{Notify, oneshot};

use super::backends;

/// How long a source may take to get the last answers when it is time to go.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);
/// The same when it waits for none, and has only to close its connections.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Mines until it is to stop. Once the command line is known to be right, there is always a summary.
pub fn run(
    args: MineArgs,
    output: &OutputArgs,
    progress: Progress,
    stderr: &Writer,
    signals: &Signals,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    shares_are_to_be_had(&args)?;
    let sources = sources(&args)?;
    // One thread for all of the network: a job and its solution need no hand-over between workers.
    let runtime = super::network_runtime()?;
    let scanners = runtime.block_on(async {
        tokio::select! {
            scanners = scanners(&args, output.cpu_features()) => scanners.map(Ok),
            signal = signals.stop() => Ok(Err(signal)),
        }
    })?;

    let (announcer, events) = Announcer::new();
    let started = match scanners {
        Ok(scanners) => Ok(engine(&args, scanners, &sources, &announcer)?),
        Err(signal) => Err(signal),
    };
    let status = started.as_ref().ok().map(|(engine, _)| engine.status());
    let output_lost = Arc::new(Notify::new());
    let lost = output_lost.clone();
    let format = if output.json { Format::Json } else { Format::Lines };
    let report = Report::start(events, status, format, progress, stderr, move || lost.notify_one())
        .context("report thread")?;

    let mined = match started {
        Ok((engine, slots)) => {
            let running = sources.run(slots);
            runtime.block_on(mine(&args, engine, running, signals, &output_lost, &announcer))
        }
        Err(signal) => {
            announcer.conclude(Summary { elapsed: begun.elapsed(), ..Summary::default() });
            Ok(signal)
        }
    };
    runtime.shutdown_timeout(Duration::from_millis(100));
    drop(announcer);
    let shown = report.join();
    let exit = mined?;
    match shown.output {
        Ok(()) | Err(OutputError::Closed) => {}
        Err(error) => return Err(error.into()),
    }
    if exit != Exit::TimeOver {
        return Ok(exit);
    }
    match shown.summary.and_then(|summary| time_over(&args, &summary)) {
        Some(failure) => Err(failure.into()),
        None => Ok(Exit::Done),
    }
}

/// What hashes. It is measured on a thread of its own, so that a signal need not wait for it: a
/// driver may take its time.
async fn scanners(args: &MineArgs, features: CpuFeatures) -> anyhow::Result<Vec<Arc<dyn Scanner>>> {
    let version_rolling = args.version_rolling == VersionRolling::Auto;
    let hashing = args.hashing.clone();
    let (tell, told) = oneshot::channel();
    let measuring = thread::Builder::new()
        .name("backends".into())
        .spawn(move || {
            // If it is not wanted any more, the process is about to end.
            let _ = tell.send(backends::scanners(&hashing, features, version_rolling));
        })
        .context("threads")?;
    match told.await {
        Ok(scanners) => scanners,
        Err(_) => match measuring.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => anyhow::bail!("the backends were not measured"),
        },
    }
}

/// Refuses `--shares` where there will never be one.
fn shares_are_to_be_had(args: &MineArgs) -> Result<(), Failure> {
    if args.shares.is_none() || args.source.iter().any(|source| source.protocol().has_shares) {
        return Ok(());
    }
    let why = match &args.source[..] {
        [source] => format!("{} has blocks and no shares", source.protocol().called),
        _ => "none of the sources has shares".to_owned(),
    };
    Err(Failure::new(Exit::Usage, "--shares", why)
        .hint("count blocks with --blocks, or name a pool: stratum+tcp://HOST:PORT"))
}

/// What to say where the time ran out before any of the goals was reached.
fn time_over(args: &MineArgs, summary: &Summary) -> Option<Failure> {
    let goals: Vec<_> = [
        (args.blocks, "--blocks", "block", summary.blocks.accepted),
        (args.shares, "--shares", "share", summary.shares.accepted),
    ]
    .into_iter()
    .filter_map(|(goal, option, of, reached)| Some((goal?.get(), option, of, reached)))
    .collect();
    if goals.is_empty() || goals.iter().any(|(goal, .., reached)| reached >= goal) {
        return None;
    }
    let options: Vec<_> =
        goals.iter().map(|(goal, option, ..)| format!("{option} {goal}")).collect();
    let reached: Vec<_> = goals
        .iter()
        .map(|(.., of, reached)| format!("{reached} {of}{}", if *reached == 1 { "" } else { "s" }))
        .collect();
    let why = format!("accepted when --for ran out: {}", reached.join(" and "));
    Some(Failure::new(Exit::TimeOver, options.join(" and "), why))
}

/// The engine, and the slots of the sources in it.
fn engine(
    args: &MineArgs,
    scanners: Vec<Arc<dyn Scanner>>,
    sources: &Failover,
    announcer: &Announcer,
) -> anyhow::Result<(Engine, Sources)> {
    let goal =
        Goal { blocks: args.blocks.map(NonZero::get), shares: args.shares.map(NonZero::get) };
    let consumers = scanners.iter().map(|scanner| consumer(scanner.info())).collect();
    let (engine, slots) = Engine::with_sources(scanners, sources.infos(), goal, announcer.clone())
        .context("scanner threads")?;
    let control = engine.control();
    control.set_throttle(None, args.throttle.unwrap_or(Throttle::NONE))?;
    if args.paused {
        control.pause(PauseReason::User);
    }
    engine.measure_energy(energy_meter(consumers));
    Ok((engine, slots))
}

/// What tells the engine how much energy its backends have used.
fn energy_meter(mut consumers: Vec<Consumer>) -> EnergyMeter {
    consumers.sort();
    consumers.dedup();
    // Mining does without these figures.
    let totals = EnergyTotals::start(consumers)
        .inspect_err(|error| tracing::debug!(%error, "no thread to read the energy"))
        .ok();
    Box::new(move |backend| totals.as_ref()?.of(&consumer(backend.clone())))
}

/// Runs engine and sources against each other until one of the reasons to stop is there.
async fn mine(
    args: &MineArgs,
    engine: Engine,
    sources: impl Future<Output = Result<(), SourceError>> + Send + 'static,
    signals: &Signals,
    output_lost: &Notify,
    announcer: &Announcer,
) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let control = engine.control();
    let mut running = tokio::spawn(sources);
    let deadline = async {
        match args.run_for {
            Some(time) => tokio::time::sleep(time.saturating_sub(begun.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    let mut exit = Exit::Done;
    let ended = tokio::select! {
        ended = &mut running => Some(ended),
        () = engine.stopped() => None,
        () = deadline => {
            exit = Exit::TimeOver;
            None
        }
        () = output_lost.notified() => None,
        signal = signals.stop() => {
            exit = signal;
            None
        }
        () = follow_pause_signals(signals, &control) => None,
    };
    engine.stop();
    let ended = if ended.is_some() {
        ended
    } else {
        // What is on its way may still be answered.
        let timeout = if engine.awaits_answers() { LAST_ANSWERS_TIMEOUT } else { CLOSE_TIMEOUT };
        tokio::time::timeout(timeout, &mut running).await.ok()
    };
    running.abort();
    let failure = engine.failure();
    announcer.conclude(engine.finish());
    if let Some((backend, error)) = failure {
        return Err(backends::unfit(BenchError { backend: backend.to_string(), error }).into());
    }
    match ended {
        Some(ended) => ended.context("source")?.map(|()| exit).map_err(Into::into),
        None => Ok(exit),
    }
}

/// Pauses and resumes as signals ask for it; never resolves.
async fn follow_pause_signals(signals: &Signals, control: &Control) {
    let mut requests = signals.pause_requests();
    loop {
        let request = *requests.borrow_and_update();
        match request {
            Some(true) => control.pause(PauseReason::User),
            Some(false) => control.resume(PauseReason::User),
            None => {}
        }
        if requests.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The sources that were asked for, in their order.
fn sources(args: &MineArgs) -> Result<Failover, Failure> {
    let terms = Terms {
        address: args.address.clone(),
        text: args.coinbase_text.clone().unwrap_or_default(),
        version_rolling: args.version_rolling == VersionRolling::Auto,
        every: args.every,
        on_transaction: args.on_transaction,
        journal: SharedJournal::at(args.journal.clone()),
    };
    protocols::sources(&args.source, &args.reach, &terms)
}
