//! `adit bench`: how fast each kernel is, and whether it tells the truth meanwhile.

use std::ops::ControlFlow;

use adit::bench::{Plan, measure};
use adit::cli::{BenchArgs, OutputArgs};
use adit::exit::Exit;
use adit::report::{Progress, results};
use adit::scan::cpu;
use adit::signals::Signals;
use anyhow::Context as _;

use super::backends;

/// Measures, and shows the figures.
pub fn run(args: &BenchArgs, output: &OutputArgs, progress: &Progress) -> anyhow::Result<Exit> {
    let scanners = backends::to_measure(&args.hashing)?;
    let signals = Signals::listen().context("signal handlers")?;
    let measured = measure(&Plan { scanners, run_for: args.run_for }, &mut |at| {
        progress.show(&results::measuring(at));
        if signals.received().is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    progress.finish();
    let Some(measured) = measured.map_err(backends::unfit)? else {
        return Ok(signals.received().unwrap_or(Exit::Failed));
    };
    let bench = results::Bench::new(cpu::model_name(), cpu::usable_threads(), &measured);
    let text = if args.csv { bench.csv() } else { results::shown(&bench, output.json) };
    let exit = super::finish(&text, Exit::Done)?;
    results::disagreement(&measured).map_or(Ok(exit), |failure| Err(failure.into()))
}
