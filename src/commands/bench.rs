//! `adit bench`: how fast each backend is, and whether it tells the truth meanwhile.

use std::path::Path;
use std::sync::Arc;

use adit::bench::compare::Row;
use adit::bench::machine::Machine;
use adit::bench::{CycleCounter, Plan, Saved, Team};
use adit::cli::{BenchArgs, HashingArgs, OutputArgs};
use adit::exit::{Exit, Failure};
use adit::output::{bench, results};
use adit::report::Progress;
use adit::scan::Scanner;
use adit::scan::cpu::{self, CpuFeatures};
use adit::signals::Signals;

use super::backends;

/// Measures, and shows the figures.
pub fn run(
    args: &BenchArgs,
    output: &OutputArgs,
    progress: &Progress,
    signals: &Signals,
) -> anyhow::Result<Exit> {
    // Before any other thread, so that all of theirs are counted.
    let cycles = CycleCounter::start();
    let machine = Machine::read(Path::new("/"));
    let saved = args.compare.as_deref().map(|file| read(file).map(|saved| (file, saved)));
    let saved = saved.transpose()?;
    let teams = teams(&args.hashing, output.cpu_features())?;
    let plan = Plan { teams, run_for: args.run_for, cycles, watts: args.watts };
    if let Some((file, saved)) = &saved {
        in_common(&plan, file, saved)?;
    }

    let measured = match backends::measured(plan, signals, progress)? {
        Ok(measured) => measured,
        Err(signal) => return Ok(signal),
    };

    let mut bench =
        bench::Bench::new(cpu::model_name(), cpu::usable_threads(), &machine, &measured);
    if measured.iter().any(|row| row.info.id.is_gpu()) {
        bench = bench.with_cards(&backends::gpus(&args.hashing)?);
    }
    if let Some((file, saved)) = &saved {
        bench = bench.compared(&file.display().to_string(), saved);
    }
    let text = if args.csv { bench.csv() } else { results::shown(&bench, output.json) };
    let exit = super::finish(&text, Exit::Done)?;
    if let Some(file) = &args.plot {
        file.write(&bench.chart()).map_err(|error| {
            let what = format!("chart {}", file.path.display());
            Failure::new(Exit::Failed, what, error.to_string())
        })?;
    }
    if let Some(failure) = bench::disagreement(&measured) {
        return Err(failure.into());
    }
    let asked = |row: &Row| backends::is_to_measure(&args.hashing, row);
    if let Some(warning) = args.fail_below.and_then(|ratio| bench.undecided(ratio)) {
        tracing::warn!("{warning}");
    }
    match args.fail_below.and_then(|ratio| bench.below(ratio).or_else(|| bench.untold(asked))) {
        Some(failure) => Err(failure.into()),
        None => Ok(exit),
    }
}

/// Every backend by itself; and where both the processor and a card are among them, all together,
/// the processor with the fastest of these kernels.
fn teams(hashing: &HashingArgs, features: CpuFeatures) -> anyhow::Result<Vec<Team>> {
    let scanners = backends::to_measure(hashing, features)?;
    let is_gpu = |scanner: &&Arc<dyn Scanner>| scanner.info().id.is_gpu();
    let cards: Vec<_> = scanners.iter().filter(is_gpu).cloned().collect();
    let all = if cards.is_empty() || cards.len() == scanners.len() {
        // Two cards or more are together without a processor, too.
        (cards.len() > 1).then_some(cards)
    } else {
        let mining = backends::scanners(hashing, features, true)?;
        let processor = mining.into_iter().filter(|scanner| scanner.info().id.is_cpu());
        Some(processor.chain(cards).collect())
    };
    let mut teams: Vec<Team> = scanners.into_iter().map(Team::from).collect();
    teams.extend(all.and_then(Team::of));
    Ok(teams)
}

/// Reads the run to compare with.
fn read(file: &Path) -> Result<Saved, Failure> {
    Saved::read(file).map_err(|error| {
        Failure::new(Exit::Usage, format!("saved run {}", file.display()), error.to_string())
            .hint("save one with: adit bench --json > FILE")
    })
}

/// Refuses to measure what could not be compared.
fn in_common(plan: &Plan, file: &Path, saved: &Saved) -> Result<(), Failure> {
    let planned = plan.rows();
    let common = planned.iter().any(|(info, version_rolling)| {
        let row = Row::planned(info, *version_rolling);
        saved.rows.iter().any(|other| other.matches(&row))
    });
    if common {
        return Ok(());
    }
    let why = "it has no result of a backend and a number of threads that are measured now";
    Err(Failure::new(Exit::Usage, format!("saved run {}", file.display()), why)
        .hint("give the same --backend and --threads as then"))
}
