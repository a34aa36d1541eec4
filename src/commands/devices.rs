//! `adit devices`: what this machine can hash with, and what not and why.

use adit::cli::{DevicesArgs, OutputArgs};
use adit::exit::Exit;
use adit::report::results;
use adit::scan::cpu;

/// Lists them.
pub fn run(_: DevicesArgs, output: &OutputArgs) -> anyhow::Result<Exit> {
    let devices = results::Devices::new(cpu::model_name(), cpu::usable_threads(), &cpu::open_all());
    super::finish(&results::shown(&devices, output.json), Exit::Done)
}
