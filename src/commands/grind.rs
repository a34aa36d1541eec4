//! `adit grind`: solves one header, in the place of `bitcoin-util grind`.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::time::Duration;

use adit::bench::BenchError;
use adit::cli::{GrindArgs, OutputArgs};
use adit::exit::Exit;
use adit::grind::{GrindError, Puzzle, grind};
use adit::output::results;
use adit::report::{Progress, log};
use adit::signals::Signals;

use super::backends;

/// How often it is shown how far it is, and looked whether a signal came.
const TICK: Duration = Duration::from_millis(100);

/// Fewer hashes than this on average are done sooner than the kernels would be measured, or not so
/// much later that it would pay.
const EASY: f64 = 268_435_456.0;

/// Grinds, and says why not in the words of `bitcoin-util grind`.
pub fn run(
    args: &GrindArgs,
    output: &OutputArgs,
    progress: &Progress,
    signals: &Signals,
) -> anyhow::Result<Exit> {
    // The backend first: that it is missing is wrong usage, and holds for every header.
    let backend = backends::One::find(&args.hashing, output.cpu_features())?;
    let puzzle = match &args.header[..] {
        [header] => match header.to_str().ok_or(GrindError::NoHeader).and_then(Puzzle::read) {
            Ok(puzzle) => puzzle,
            Err(error) => return Ok(refuse(error)),
        },
        _ => return Ok(refuse(GrindError::NotOne)),
    };
    let easy = puzzle.expected_hashes() < EASY;
    let scanner = backend.scanner(&args.hashing, easy)?;
    let ending = signals.ends_cleanly(backends::BREAK_OFF);
    let ground = grind(&puzzle, &*scanner, TICK, &mut |at| {
        progress.show(&results::grinding(&at));
        if signals.received().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    progress.finish();
    drop(ending);
    match ground {
        Ok(Some(nonce)) if output.json => {
            super::finish(&results::shown(&results::Ground::new(&puzzle, nonce), true), Exit::Done)
        }
        Ok(Some(nonce)) => super::finish(&format!("{}\n", puzzle.solved(nonce)), Exit::Done),
        Ok(None) => Ok(signals.received().unwrap_or(Exit::Failed)),
        Err(GrindError::Backend(error)) => {
            Err(backends::unfit(BenchError { backend: scanner.info().name(), error }).into())
        }
        Err(error) => Ok(refuse(error)),
    }
}

/// A script gets the promised sentence and nothing else; on a terminal the reason is shown as well.
fn refuse(error: GrindError) -> Exit {
    let mut text = format!("{error}\n");
    if std::io::stderr().is_terminal() {
        text.extend(["hint: ", &error.hint(), "\n"]);
    }
    log::flush();
    // If stderr is gone there is nothing left to report to.
    let _ = std::io::stderr().write_all(text.as_bytes());
    Exit::Failed
}
