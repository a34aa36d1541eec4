//! Operations that may have made a device fail. The list outlives a reinitialisation of the device, so
//! that the same operation does not make it fail again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::Gpu;
use super::shader::{Shape, Variant};

/// What is not run again on a device because it may have made the device fail. Clones share one list.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
struct Records {
    /// What the device is running for the first time.
    on_probation: Option<Probation>,
    /// Variants that were on probation when the device failed.
    variants: Vec<(Variant, Shape)>,
    /// Whether the cached tuning was.
    cached_tuning: bool,
}

/// An operation that is blamed if the device fails during it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probation {
    /// Calibrating this variant in this shape.
    Variant(Variant, Shape),
    /// Running the cached tuning, until its first batch is done.
    CachedTuning,
}

impl Quarantine {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the device's next operation on probation.
    pub(super) fn begin(&self, probation: Probation) {
        self.records().on_probation = Some(probation);
    }

    /// Ends the probation: the device has survived the operation.
    pub(super) fn clear(&self) {
        self.records().on_probation = None;
    }

    /// Quarantines the operation on probation, if there is one: the device has failed.
    pub(super) fn mark_failed(&self, gpu: &Gpu) {
        let mut records = self.records();
        match records.on_probation.take() {
            Some(Probation::Variant(variant, shape)) => {
                tracing::debug!(
                    "gpu:{}: the device failed while running {variant} ({shape}), which will not be \
                     tried again",
                    gpu.index,
                );
                records.variants.push((variant, shape));
            }
            Some(Probation::CachedTuning) => {
                tracing::debug!("gpu:{}: the device failed with its cached tuning", gpu.index);
                records.cached_tuning = true;
            }
            None => {}
        }
    }

    /// Whether this variant in this shape is quarantined.
    pub(super) fn contains(&self, variant: Variant, shape: Shape) -> bool {
        self.records().variants.contains(&(variant, shape))
    }

    /// Whether the cached tuning is quarantined.
    pub(super) fn contains_cached_tuning(&self) -> bool {
        self.records().cached_tuning
    }
}
