//! What every kernel's file provides, and what all of them share.

use std::marker::PhantomData;
use std::sync::Arc;

use super::features::{CpuFeature, CpuFeatures, Unavailable};
use crate::scan::{Kernel, MAX_MIDSTATES, Scan};

/// A kernel for this kind of processor.
pub(super) trait Implementation: Kernel + Sized + 'static {
    /// The name that `--backend cpu:NAME` takes.
    const NAME: &'static str;

    /// The CPU features without which it must not run.
    const NEEDS: &'static [CpuFeature];

    /// The kernel, given evidence that its features may be used.
    fn new(granted: Granted<Self>) -> Self;
}

/// Evidence that the processor has all features that `K` needs, and that none of them is disabled. Only
/// [`open`] makes one, so a kernel that keeps its constructor to itself can rely on its features.
pub(super) struct Granted<K>(PhantomData<K>);

/// Opens the kernel `K`, if `features` allow it.
///
/// # Errors
/// Names the first feature that is missing or disabled.
pub(super) fn open<K: Implementation>(
    features: CpuFeatures,
) -> Result<Arc<dyn Kernel>, Unavailable> {
    features.require(K::NEEDS)?;
    Ok(Arc::new(K::new(Granted(PhantomData))))
}

/// Checks the one thing that every kernel demands of its caller.
///
/// # Panics
/// When there is no midstate, or more than [`MAX_MIDSTATES`].
pub(super) fn assert_midstate_count(scan: &Scan<'_>) {
    assert!(
        (1..=MAX_MIDSTATES).contains(&scan.midstates.len()),
        "a scan takes 1 to {MAX_MIDSTATES} midstates, not {}",
        scan.midstates.len(),
    );
}
