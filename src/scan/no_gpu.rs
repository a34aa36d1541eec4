//! What stands in for graphics cards in a build without the feature `gpu`: the same names, and no card.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use crate::scan::{BackendError, BackendInfo, Feed, Scanner};

/// Why this build of adit has no GPU support, if it has none.
pub const NOT_BUILT: Option<&str> =
    Some("this build of adit has no GPU support: it was built without the feature `gpu`");

/// The kind of a device. There is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuKind(Infallible);

impl GpuKind {
    /// The word in `--json` output.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self.0 {}
    }
}

/// A graphics card over one API. There is none.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number, as in `gpu:N`.
    pub index: usize,
    /// Its name, as the driver reports it.
    pub name: String,
    /// `Vulkan`, `Metal` or `DX12`.
    pub api: &'static str,
    /// The driver and its version.
    pub driver: String,
    /// The kind of device.
    pub kind: GpuKind,
    /// The number of an earlier entry for the same card, over another API or driver.
    pub same_as: Option<usize>,
}

impl Gpu {
    /// Whether `gpu` and `auto` use it.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        match self.kind.0 {}
    }
}

/// Every card: none.
#[must_use]
pub const fn enumerate() -> Vec<Gpu> {
    Vec::new()
}

/// Whether there may be a card: never.
#[must_use]
pub const fn may_be_present() -> bool {
    false
}

/// A way of writing the shader. There is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant(Infallible);

impl Variant {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {}
    }
}

/// The result of [`check_gpu`].
#[derive(Clone, Debug)]
pub struct GpuCheck {
    /// Whether the card computes correctly.
    pub result: Result<(), BackendError>,
    /// Variants that the driver refuses.
    pub skipped: Vec<Variant>,
    /// How long it took.
    pub took: Duration,
}

/// Never called, since there is no card.
#[must_use]
pub const fn check_gpu(gpu: &Gpu, _seed: u64) -> GpuCheck {
    match gpu.kind.0 {}
}

/// How a card is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether jobs may allow the version to be rolled.
    pub version_rolling: bool,
    /// The folder with the tunings of cards.
    pub cache: Option<PathBuf>,
}

/// A backend that hashes on one graphics card. There is none.
#[derive(Debug)]
pub struct GpuScanner(Infallible);

impl GpuScanner {
    /// Never called, since there is no card.
    #[must_use]
    pub fn new(gpu: Gpu, _options: Options) -> Self {
        match gpu.kind.0 {}
    }
}

impl Scanner for GpuScanner {
    fn info(&self) -> BackendInfo {
        match self.0 {}
    }

    fn run(&self, _feed: &dyn Feed) -> Result<(), BackendError> {
        match self.0 {}
    }
}
