//! Scanning on graphics cards through wgpu (Vulkan, Metal and DX12), without unsafe code.
//!
//! | module | contents |
//! | --- | --- |
//! | `adapter` | finds and describes the cards |
//! | `scanner` | the backend: takes units from the engine, sizes batches (`batch`), recovers from failures |
//! | `worker`, `thread` | the thread that owns a device, and the wait for its replies (`deadlines`) |
//! | `device`, `error` | an open device: programs, buffers, errors |
//! | `programs` | the two compiled programs, their self-test and known-answer test |
//! | `tuning`, `calibration`, `tuning_cache` | which variant and shape a card runs, how that is measured, and where it is kept |
//! | `quarantine` | operations that may have made a device fail |
//! | `check` | `adit check` for a card |
//! | `faults` | faults that tests inject |
//! | `shader` | makes the variants from `shaders/sha256d.wgsl` |

mod adapter;
mod batch;
mod calibration;
mod check;
mod deadlines;
mod device;
mod error;
mod faults;
mod programs;
mod quarantine;
mod scanner;
pub mod shader;
#[cfg(test)]
mod tests;
mod thread;
mod tuning;
mod tuning_cache;
mod worker;

pub use self::adapter::{Gpu, GpuKind, enumerate, may_be_present};
pub use self::check::{GpuCheck, check_gpu};
pub use self::scanner::{GpuScanner, Options};

/// Why this build of adit has no GPU support, if it has none: it was built without the feature `gpu`.
pub const NOT_BUILT: Option<&str> = None;
