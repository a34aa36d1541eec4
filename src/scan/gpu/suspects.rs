//! What a device may have died of. It is kept from one time that the device is brought up to the
//! next, so that the same does not kill it again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::Gpu;
use super::shader::{Shape, Variant};

/// Whom a device's death is blamed on. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the device does for the first time just now.
    on_trial: Option<Trial>,
    /// Variants that were on trial when it died.
    variants: Vec<(Variant, Shape)>,
    /// Whether what is remembered of it was.
    remembered: bool,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trial {
    /// This variant in this shape, which is measured.
    Variant(Variant, Shape),
    /// What was fastest in an earlier run, until its first batch is done.
    Remembered,
}

impl Suspects {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device is to do this next.
    pub(super) fn put_on_trial(&self, trial: Trial) {
        self.state().on_trial = Some(trial);
    }

    /// It has survived that.
    pub(super) fn acquit(&self) {
        self.state().on_trial = None;
    }

    /// It has not.
    pub(super) fn convict(&self, gpu: &Gpu) {
        let mut state = self.state();
        match state.on_trial.take() {
            Some(Trial::Variant(variant, shape)) => {
                tracing::debug!(
                    "gpu:{}: it failed with {variant}, workgroups of {}, {} nonces each, which is \
                     not tried again",
                    gpu.index,
                    shape.workgroup_size,
                    shape.nonces_per_invocation,
                );
                state.variants.push((variant, shape));
            }
            Some(Trial::Remembered) => {
                tracing::debug!("gpu:{}: it failed with what was fastest before", gpu.index);
                state.remembered = true;
            }
            None => {}
        }
    }

    /// Whether the device died of this variant, perhaps.
    pub(super) fn has(&self, variant: Variant, shape: Shape) -> bool {
        self.state().variants.contains(&(variant, shape))
    }

    /// Whether it died of what is remembered of it, perhaps.
    pub(super) fn have_remembered(&self) -> bool {
        self.state().remembered
    }
}
