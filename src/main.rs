//! Arguments in, exit code out.

mod commands;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use adit::cli::{Cli, Command};
use adit::config::{self, Invocation, NotRun, ProcessEnvironment};
use adit::exit::{Exit, Failure, limit_hint};
use adit::report::{OutputError, Progress, Writer, log};
use adit::signals::{self, EndsCleanly, Signals};
use adit::source::SourceError;

/// How long mining may take to end after a signal: longer than the longest step of opening a graphics
/// card, which is waited for.
const LAST_STEPS: Duration = Duration::from_secs(75);

fn main() -> ExitCode {
    commands::desktop::say_that_there_is_none();
    // Before all that takes time: a signal is to find a program that ends cleanly.
    let (signals, stderr) = match Signals::listen().and_then(|s| Ok((s, Writer::for_log()?))) {
        Ok(started) => started,
        Err(error) => {
            let failure = explain(&anyhow::Error::new(error).context("start"));
            // Not eprint!, which panics where stderr is closed.
            let _ = std::io::stderr().write_all(failure.render().as_bytes());
            return failure.exit.into();
        }
    };
    // To the very end, so that no signal overtakes what the run comes to.
    let mut ending = None;
    let exit = run(&signals, &stderr, &mut ending).unwrap_or_else(|failure| {
        log::write(&stderr, &failure.render());
        failure.exit
    });
    log::flush();
    if signals.received().is_some() {
        // What was broken off may still run.
        signals::leave(exit);
    }
    exit.into()
}

/// Does what the command line says.
fn run(
    signals: &Signals,
    stderr: &Writer,
    ending: &mut Option<EndsCleanly>,
) -> Result<Exit, Failure> {
    let Invocation { cli: Cli { command, output }, warnings } =
        match config::invocation(std::env::args_os(), &ProcessEnvironment::process()) {
            Ok(invocation) => invocation,
            Err(NotRun::Display(text)) => {
                signals.end_at_once();
                // stdout was closed: there is no reader for it.
                let _ = text.print();
                return Ok(if text.use_stderr() { Exit::Usage } else { Exit::Done });
            }
            Err(NotRun::Failure(failure)) => return Err(failure),
        };
    match &command {
        Command::Mine(_) => *ending = Some(signals.ends_cleanly(LAST_STEPS)),
        _ => signals.end_at_once(),
    }
    let progress = if output.quiet > 0 { Progress::hidden() } else { Progress::on_stderr(stderr) };
    let line = progress.clone();
    signals.before_the_end(move || {
        line.finish();
        log::flush();
    });
    log::init(output.log_options(), &progress, stderr);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let done = match command {
        Command::Mine(args) => commands::mine::run(*args, &output, progress, stderr, signals),
        Command::Bench(args) => commands::bench::run(&args, &output, &progress, signals),
        Command::Grind(args) => commands::grind::run(&args, &output, &progress, signals),
        Command::Check(args) => commands::check::run(&args, &output, &progress),
        Command::Devices(args) => commands::devices::run(args, &output),
        Command::Estimate(args) => commands::estimate::run(&args, &output, &progress, signals),
        Command::Completions(args) => commands::completions::run(args, &output),
        Command::Man(args) => commands::man::run(&args, &output),
    };
    done.map_err(|error| explain(&error))
}

/// The errors that know their exit code keep it; any other is a failure while running.
fn explain(error: &anyhow::Error) -> Failure {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return error.clone().into();
    }
    let limit = error.chain().find_map(|cause| limit_hint(cause.downcast_ref()?));
    let hint = limit.or_else(|| match error.downcast_ref::<OutputError>()? {
        OutputError::Failed(_) => Some("is the disk full?"),
        OutputError::Stalled(_) => Some("does what reads it still run, and read?"),
        OutputError::Closed => None,
    });
    let hint = hint.map(str::to_owned);
    Failure { hint, ..Failure::from_chain(Exit::Failed, error.as_ref()) }
}
