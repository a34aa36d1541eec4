//! `adit mine`: a source, the engine and a report, wired together.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit::bench::BenchError;
use adit::chain::payout::{PayoutError, PayoutScript};
use adit::cli::{MineArgs, OutputArgs, PoolLogin, PoolUrl, SourceSpec, VersionRolling};
use adit::engine::{Engine, Goal};
use adit::event::{Announcer, Event};
use adit::exit::{Exit, Failure};
use adit::journal::Journal;
use adit::report::{Format, OutputError, Progress, Report};
use adit::scan::Scanner;
use adit::signals::Signals;
use adit::source::Source;
use adit::source::builtin::Builtin;
use adit::source::getblocktemplate::{Config, Endpoint, GetBlockTemplate, local_endpoint};
use adit::source::net::{self, Transport};
use adit::source::pace::Pace;
use adit::source::stratum_v1::{self, StratumV1, Timing};
use anyhow::Context as _;
use bitcoin::Network;
use tokio::sync::Notify;

use super::{backends, node};

/// How often the hash rate is announced.
const RATE_EVERY: Duration = Duration::from_secs(2);
/// The first rate comes sooner, so that there is something to see.
const FIRST_RATE: Duration = Duration::from_millis(500);
/// How long a source may take to get the last answers when it is time to go.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// The same when it waits for none, and has but to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Mines until told to stop.
pub fn run(args: MineArgs, output: &OutputArgs, progress: Progress) -> anyhow::Result<Exit> {
    let percent = args.throttle.map_or(100, adit::cli::Percent::get);
    let version_rolling = args.version_rolling == VersionRolling::Auto;
    let scanners = backends::scanners(&args.hashing, version_rolling, percent)?;
    let source = source(&args)?;
    let signals = Signals::listen().context("signal handlers")?;

    let (announcer, events) = Announcer::new();
    let output_lost = Arc::new(Notify::new());
    let lost = output_lost.clone();
    let format = if output.json { Format::Json } else { Format::Lines };
    let report = Report::start(events, format, progress, move || lost.notify_one())
        .context("report thread")?;

    // One thread for all of the network: a job and its solution need no hand-over between workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("network runtime")?;
    let mined = runtime.block_on(mine(&args, scanners, source, &signals, &output_lost, &announcer));
    runtime.shutdown_timeout(Duration::from_millis(100));
    drop(announcer);
    let shown = report.join();
    let exit = mined?;
    match shown.output {
        Ok(()) | Err(OutputError::Closed) => Ok(exit),
        Err(error) => Err(error.into()),
    }
}

/// Runs engine and source against each other until one of the reasons to stop is there.
async fn mine(
    args: &MineArgs,
    scanners: Vec<Arc<dyn Scanner>>,
    source: Box<dyn Source>,
    signals: &Signals,
    output_lost: &Notify,
    announcer: &Announcer,
) -> anyhow::Result<Exit> {
    let goal =
        Goal { blocks: args.blocks.map(NonZero::get), shares: args.shares.map(NonZero::get) };
    let begun = Instant::now();
    let (engine, port) = Engine::start(scanners, source.name(), goal, announcer.clone())
        .context("scanner threads")?;
    let mut running = tokio::spawn(source.run(port));
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
        () = deadline => None,
        () = output_lost.notified() => None,
        signal = signals.stop() => {
            exit = signal;
            None
        }
        () = announce_rates(&engine, announcer) => None,
    };
    engine.stop();
    let ended = if ended.is_some() {
        ended
    } else {
        // What is on its way may still be answered.
        let patience = if engine.awaits_answers() { LAST_ANSWERS } else { GOODBYE };
        tokio::time::timeout(patience, &mut running).await.ok()
    };
    running.abort();
    let failure = engine.failure();
    announcer.conclude(engine.finish());
    if let Some((backend, error)) = failure {
        return Err(backends::unfit(BenchError { backend, error }).into());
    }
    match ended {
        Some(ended) => ended.context("source")?.map(|()| exit).map_err(Into::into),
        None => Ok(exit),
    }
}

/// Announces the hash rate now and then, for ever.
async fn announce_rates(engine: &Engine, announcer: &Announcer) {
    let (mut before, mut at) = (engine.hashes(), Instant::now());
    let mut wait = FIRST_RATE;
    loop {
        tokio::time::sleep(wait).await;
        wait = RATE_EVERY;
        let (now, passed) = (engine.hashes(), at.elapsed().as_secs_f64());
        at = Instant::now();
        announcer.announce(Event::rate(&before, &now, passed));
        before = now;
    }
}

/// The source that was asked for.
fn source(args: &MineArgs) -> anyhow::Result<Box<dyn Source>> {
    let version_rolling = args.version_rolling == VersionRolling::Auto;
    let text = args.coinbase_text.clone().unwrap_or_default();
    let pace = Pace::new(args.every, args.on_transaction);
    let (endpoint, network) = match &args.source {
        SourceSpec::Builtin => {
            if args.on_transaction {
                let why = "the built-in chain has no mempool for a transaction to come to";
                return Err(Failure::new(Exit::Usage, "--on-transaction", why)
                    .hint("name a node: adit mine regtest --on-transaction")
                    .into());
            }
            let payout = match &args.address {
                Some(address) => {
                    Some(PayoutScript::of(address, Network::Regtest).map_err(|error| {
                        let exit = match error {
                            PayoutError::OtherNetwork { .. } => Exit::Refused,
                            _ => Exit::Usage,
                        };
                        Failure::new(exit, "pay-out address", error.to_string()).hint(
                            "the built-in chain is a regtest chain, and pays no one: leave --address away",
                        )
                    })?)
                }
                None => None,
            };
            return Ok(Box::new(Builtin { payout, text, version_rolling, every: args.every }));
        }
        SourceSpec::Rpc(url) => (Endpoint { host: url.host.clone(), port: url.port }, None),
        SourceSpec::LocalNode(network) => {
            (local_endpoint(*network, args.node.datadir.as_deref())?, Some(*network))
        }
        SourceSpec::Pool(url) => {
            if let Some(pace) = pace {
                let why = "a pool's jobs are mined as they come";
                return Err(Failure::new(Exit::Usage, pace.options(), why)
                    .hint("the pace is for regtest and for signets that need no signature")
                    .into());
            }
            return pool(args, url, Transport::new());
        }
    };
    let credentials = node::credentials(args.rpc_login()?, &endpoint, network)?;
    let address = args.address.clone();
    let config = Config { endpoint, credentials, network, address, text, version_rolling, pace };
    Ok(Box::new(GetBlockTemplate::new(config, Arc::new(journal(args)?))))
}

/// A pool, reached by `transport`.
fn pool(args: &MineArgs, url: &PoolUrl, transport: Transport) -> anyhow::Result<Box<dyn Source>> {
    let PoolLogin { user, password } = args.pool.login(url)?;
    let PoolUrl { host, port, tls, .. } = url.clone();
    Ok(Box::new(StratumV1::new(stratum_v1::Config {
        endpoint: net::Endpoint { host, port, tls },
        transport,
        user,
        password,
        version_rolling: args.version_rolling == VersionRolling::Auto,
        suggest_difficulty: args.pool.suggest_difficulty.clone(),
        timing: Timing::default(),
    })))
}

/// The journal where it was asked for, or where the user's state is kept.
fn journal(args: &MineArgs) -> anyhow::Result<Journal> {
    let dir = match &args.journal {
        Some(dir) => dir.clone(),
        None => {
            adit::config::state_folder().map(|state| state.join("journal")).ok_or_else(|| {
                Failure::new(Exit::Usage, "journal", "this system names no place to keep it")
                    .hint("name a directory with --journal")
            })?
        }
    };
    let (journal, left_alone) = Journal::open(&dir).map_err(|error| {
        let mut failure = Failure::from_chain(Exit::Usage, &error);
        failure.hint = error.hint().map(str::to_owned);
        failure
    })?;
    for file in left_alone {
        tracing::warn!("{file}");
    }
    Ok(journal)
}
