//! Scanning on graphics cards, through wgpu: Vulkan, Metal and DX12, without a line of unsafe code.
//!
//! `adapter` finds the cards, `device` is one of them open, `programs` what it runs, `calibration`
//! which variant that is, `suspects` what a device may have died of, `worker` the thread that a device
//! belongs to and `thread` the wait for it, `batch` how much it is given at once, and `scanner` the
//! backend that is made of it. `shader` makes the variants from `shaders/sha256d.wgsl`.

mod adapter;
mod batch;
mod calibration;
mod checkup;
mod device;
#[cfg(debug_assertions)]
mod fault;
mod programs;
mod scanner;
pub mod shader;
mod suspects;
#[cfg(test)]
mod tests;
mod thread;
mod worker;

pub use self::adapter::{Gpu, Kind, enumerate, may_be_there};
pub use self::checkup::{CheckUp, check_up};
pub use self::scanner::{GpuScanner, Options};
