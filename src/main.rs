//! Arguments in, exit code out.

mod commands;

use std::io::Write as _;
use std::process::ExitCode;

use adit::cli::{Cli, Command};
use adit::config::{self, Invocation, NotRun, Surroundings};
use adit::exit::{Exit, Failure};
use adit::report::{OutputError, Progress, log};
use adit::source::SourceError;

fn main() -> ExitCode {
    commands::desktop::say_that_there_is_none();
    let Invocation { cli: Cli { command, output }, warnings } =
        match config::invocation(std::env::args_os(), &Surroundings::process()) {
            Ok(invocation) => invocation,
            Err(NotRun::Display(text)) => {
                // Whoever closed our stdout does not want to read it.
                let _ = text.print();
                return if text.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
            }
            Err(NotRun::Failure(failure)) => return fail(&failure),
        };
    let progress = if output.quiet > 0 { Progress::hidden() } else { Progress::on_stderr() };
    log::init(&output, &progress);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let done = match command {
        Command::Mine(args) => commands::mine::run(*args, &output, progress),
        Command::Bench(args) => commands::bench::run(&args, &output, &progress),
        Command::Grind(args) => commands::grind::run(&args, &output, &progress),
        Command::Check(args) => commands::check::run(&args, &output, &progress),
        Command::Devices(args) => commands::devices::run(args, &output),
        Command::Estimate(args) => commands::estimate::run(&args, &output, &progress),
        Command::Completions(args) => commands::completions::run(args, &output),
        Command::Man(args) => commands::man::run(&args, &output),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(error) => fail(&explain(&error)),
    }
}

/// Says what failed, in the promised form, and hands on the exit code.
fn fail(failure: &Failure) -> ExitCode {
    // Not eprint!, which panics where stderr is closed.
    let _ = std::io::stderr().write_all(failure.render().as_bytes());
    failure.exit.into()
}

/// The errors that know their exit code keep it; any other is a failure while running.
fn explain(error: &anyhow::Error) -> Failure {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return error.clone().into();
    }
    let hint = match error.downcast_ref::<OutputError>() {
        Some(OutputError::Failed(_)) => Some("is the disk full?".to_owned()),
        _ => None,
    };
    Failure { hint, ..Failure::from_chain(Exit::Failed, error.as_ref()) }
}
