//! `adit devices`: the kernels and graphics cards, which of them are available, and why others are not.

use adit::cli::{DevicesArgs, OutputArgs};
use adit::exit::Exit;
use adit::output::results;
use adit::scan::{cpu, gpu};

/// Lists them.
pub fn run(_: DevicesArgs, output: &OutputArgs) -> anyhow::Result<Exit> {
    let (kernels, gpus) = (cpu::open_all(output.cpu_features()), gpu::enumerate());
    let devices = results::Devices::new(cpu::model_name(), cpu::usable_threads(), &kernels, &gpus);
    super::finish(&results::shown(&devices, output.json), Exit::Done)
}
