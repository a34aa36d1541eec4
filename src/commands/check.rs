//! `adit check`: the self-test of every backend.

use std::hash::{BuildHasher as _, RandomState};

use adit::cli::{CheckArgs, OutputArgs};
use adit::exit::Exit;
use adit::output::results;
use adit::report::Progress;
use adit::scan::{cpu, gpu};
use anyhow::Context as _;

use super::backends;

/// Tests the selected backends one by one. A failure is returned as an error with [`Exit::SelfTest`].
pub fn run(args: &CheckArgs, output: &OutputArgs, progress: &Progress) -> anyhow::Result<Exit> {
    let threads = backends::threads(&args.hashing);
    let seed = RandomState::new().hash_one(());
    let gpus = backends::gpus(&args.hashing)?;
    let mut checked = Vec::new();
    for opened in backends::kernels(&args.hashing, output.cpu_features())? {
        progress.show(&format!("checking cpu:{} on {threads} threads", opened.0));
        checked.push(cpu::check_kernel(&opened, threads, seed).context("threads")?);
    }
    let mut checked_gpus = Vec::new();
    for gpu in gpus {
        progress.show(&format!("checking gpu:{} {}", gpu.index, gpu.name));
        let checked = gpu::check_gpu(&gpu, seed);
        checked_gpus.push((gpu, checked));
    }
    progress.finish();
    let checks = results::Checks::new(&checked, &checked_gpus);
    let exit = super::finish(&results::shown(&checks, output.json), Exit::Done)?;
    checks.failure().map_or(Ok(exit), |failure| Err(failure.into()))
}
