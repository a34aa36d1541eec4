//! One file a command: they connect modules and hold no logic of their own.

mod backends;
pub mod bench;
pub mod check;
pub mod completions;
pub mod desktop;
pub mod devices;
pub mod estimate;
pub mod grind;
pub mod man;
pub mod mine;

use std::thread;
use std::time::Duration;

use adit::exit::Exit;
use adit::report::{OutputError, print};
use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

/// One thread for all of the network, and one for what waits without it: names that are resolved, and
/// large templates that are read. That one is taken now and kept: where there are no more threads to be
/// had, tokio panics instead of saying so.
fn network_runtime() -> anyhow::Result<Runtime> {
    const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(FOR_EVER)
        .build()
        .context("network runtime")?;
    let is_to_be_had = thread::Builder::new().spawn(|| ()).context("threads")?;
    let _ = is_to_be_had.join();
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

/// Writes a result to stdout and ends with `exit`. If stdout was closed the result is not wanted,
/// and that is no failure of ours.
fn finish(text: &str, exit: Exit) -> anyhow::Result<Exit> {
    match print(text) {
        Ok(()) | Err(OutputError::Closed) => Ok(exit),
        Err(error) => Err(error.into()),
    }
}
