//! The table of all kernels. Option values, help texts, `adit devices` and the tests are made from it.

use std::fmt;
use std::sync::Arc;

use super::features::{CpuFeature, CpuFeatures, Unavailable};
use super::implementation::{Implementation, open};
use super::portable::Sha2;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2::Avx2, avx512::Avx512, sha_ni::ShaNi};
use crate::scan::Kernel;

/// A row of the table.
struct Entry {
    name: &'static str,
    needs: &'static [CpuFeature],
    open: fn(CpuFeatures) -> Result<Arc<dyn Kernel>, Unavailable>,
}

impl Entry {
    const fn of<K: Implementation>() -> Self {
        Self { name: K::NAME, needs: K::NEEDS, open: open::<K> }
    }
}

/// Every kernel for this kind of processor: the reference first, then in the order in which they are
/// usually faster. A new kernel takes one more line here.
const KERNELS: &[Entry] = &[
    Entry::of::<Sha2>(),
    #[cfg(target_arch = "x86_64")]
    Entry::of::<Avx2>(),
    #[cfg(target_arch = "x86_64")]
    Entry::of::<ShaNi>(),
    #[cfg(target_arch = "x86_64")]
    Entry::of::<Avx512>(),
];

/// The name of a kernel in the table, whether or not this processor can run it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelName(
    /// Index into the table.
    usize,
);

impl KernelName {
    /// Every kernel for this kind of processor: the reference first, then in the order in which they are
    /// usually faster.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..KERNELS.len()).map(Self)
    }

    /// Looks a name up; `None` if there is no such kernel.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|kernel| kernel.as_str() == name)
    }

    /// The name, as in `--backend cpu:NAME`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        KERNELS[self.0].name
    }

    /// The CPU features that the kernel needs.
    #[must_use]
    pub const fn needs(self) -> &'static [CpuFeature] {
        KERNELS[self.0].needs
    }

    /// Opens the kernel, which uses only these `features`.
    ///
    /// # Errors
    /// Names the first feature that it needs and that is missing or disabled.
    pub fn kernel(self, features: CpuFeatures) -> Result<Arc<dyn Kernel>, Unavailable> {
        let kernel = (KERNELS[self.0].open)(features);
        #[cfg(debug_assertions)]
        let kernel = kernel.map(super::faults::maybe_faulty);
        kernel
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelName({self})")
    }
}

/// A kernel, or why it cannot be used here.
pub type Opened = (KernelName, Result<Arc<dyn Kernel>, Unavailable>);

/// Opens every kernel for this kind of processor, as far as `features` allow.
#[must_use]
pub fn open_all(features: CpuFeatures) -> Vec<Opened> {
    KernelName::all().map(|name| (name, name.kernel(features))).collect()
}
