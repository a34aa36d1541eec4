//! Faults injected into a device, so that tests can see how the backend deals with them: no real driver
//! fails on demand.
//!
//! [`Faults`] is empty in a release build and does nothing there. In a debug build the environment
//! variable `ADIT_FAULT` selects a fault, as in `gpu:lost`. Faults that stop the device strike with its
//! third batch of mining, or with the suffix `-at-once` while it is being initialised; `-always` makes
//! them strike again after every reinitialisation.

use super::error::{DeviceError, DeviceErrorSlot};
use super::shader::{Outcome, Variant};

/// The fault injected into one device, if there is one. The device calls it wherever a fault may strike.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    #[cfg(debug_assertions)]
    injected: Option<injected::Injected>,
}

#[cfg(all(test, debug_assertions))]
pub(super) use self::injected::Fault;

/// A release build has no switch that breaks it.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Faults>() == 0);

#[cfg(not(debug_assertions))]
#[allow(clippy::unused_self, reason = "the debug build's methods use it")]
impl Faults {
    pub(super) const fn from_environment() -> Self {
        Self {}
    }

    pub(super) const fn mining_begins(&mut self) {}

    pub(super) const fn maybe_fail(&mut self, _: Variant, _: &wgpu::Device, _: &DeviceErrorSlot) {}

    pub(super) const fn maybe_refuse(&self, _: Variant) -> Result<(), DeviceError> {
        Ok(())
    }

    pub(super) fn maybe_corrupt(&self, outcome: Outcome, _: u32) -> Outcome {
        outcome
    }
}

#[cfg(debug_assertions)]
mod injected {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::shader::Midstates;
    use super::{DeviceError, DeviceErrorSlot, Faults, Outcome, Variant};
    use crate::scan::Hit;

    /// The batch of mining with which the device fails.
    const DEFAULT_BATCH: u64 = 3;

    /// What goes wrong.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in super::super) enum Fault {
        /// Each batch drops a hit.
        DropsHits,
        /// Each batch also reports its first nonce.
        InventsHits,
        /// The same, but only once the self-test has passed.
        InventsHitsLater,
        /// Each batch claims 2^32 - 1 hits; with `-always` during the self-test, too.
        BadCount,
        /// Batches find nothing once the self-test has passed.
        Silent,
        /// The device is lost.
        Lost,
        /// The device is lost, and wgpu panics.
        Panics,
        /// A call of the driver never returns.
        Hangs,
        /// The device is out of memory.
        OutOfMemory,
        /// The device is lost when it runs two midstates at once during calibration.
        LostOnTwoMidstates,
        /// The driver refuses variants of several midstates; with `-always`, all of them.
        Refuses,
    }

    #[derive(Clone, Debug)]
    pub(in super::super) struct Injected {
        fault: Fault,
        /// Whether it strikes again each time the device is reinitialised.
        always: bool,
        /// The batch of mining with which it strikes; 0: before mining begins.
        at: u64,
        /// Batches of mining so far; `None` before mining begins.
        batches: Option<u64>,
        /// Whether a fault that strikes once has done so. Clones share it.
        struck: Arc<AtomicBool>,
    }

    impl Faults {
        /// The fault that `ADIT_FAULT` selects.
        pub(in super::super) fn from_environment() -> Self {
            let value = std::env::var("ADIT_FAULT").unwrap_or_default();
            let parsed = value.strip_prefix("gpu:").and_then(|value| {
                let (name, always) =
                    value.strip_suffix("-always").map_or((value, false), |n| (n, true));
                let (name, at) =
                    name.strip_suffix("-at-once").map_or((name, DEFAULT_BATCH), |n| (n, 0));
                Some(Self::inject(Fault::named(name)?, always).at_batch(at))
            });
            parsed.unwrap_or_default()
        }

        /// This fault, once or always.
        pub(in super::super) fn inject(fault: Fault, always: bool) -> Self {
            let (at, batches, struck) = (DEFAULT_BATCH, None, Arc::default());
            Self { injected: Some(Injected { fault, always, at, batches, struck }) }
        }

        /// The same with this batch of mining; with 0, before mining begins.
        pub(in super::super) fn at_batch(mut self, at: u64) -> Self {
            if let Some(injected) = &mut self.injected {
                injected.at = at;
            }
            self
        }

        /// Marks the end of the self-tests.
        pub(in super::super) fn mining_begins(&mut self) {
            if let Some(injected) = &mut self.injected {
                injected.batches = Some(0);
            }
        }

        /// Makes the device fail with the batch that begins, if that is due.
        pub(in super::super) fn maybe_fail(
            &mut self,
            variant: Variant,
            device: &wgpu::Device,
            errors: &DeviceErrorSlot,
        ) {
            match self.injected.as_mut().and_then(|injected| injected.due(variant)) {
                Some(Fault::Lost | Fault::LostOnTwoMidstates) => device.destroy(),
                // As wgpu does while it waits, after it has reported the reason.
                Some(Fault::Panics) => {
                    errors.report(DeviceError::Lost("injected by a test".to_owned()));
                    panic!("Error in Device::poll: Parent device is lost");
                }
                Some(Fault::OutOfMemory) => errors.report(DeviceError::OutOfMemory),
                Some(Fault::Hangs) => loop {
                    std::thread::park();
                },
                _ => {}
            }
        }

        /// Makes the driver refuse to compile this variant.
        pub(in super::super) fn maybe_refuse(&self, variant: Variant) -> Result<(), DeviceError> {
            match &self.injected {
                Some(Injected { fault: Fault::Refuses, always, .. })
                    if *always || variant.midstates != Midstates::One =>
                {
                    Err(DeviceError::Refused("injected by a test".to_owned()))
                }
                _ => Ok(()),
            }
        }

        /// Replaces what a batch found with what a faulty device would report.
        pub(in super::super) fn maybe_corrupt(
            &self,
            mut outcome: Outcome,
            first_nonce: u32,
        ) -> Outcome {
            let Some(injected) = &self.injected else { return outcome };
            let invented = Hit { midstate: 0, nonce: first_nonce };
            let is_mining = injected.batches.is_some();
            match injected.fault {
                Fault::DropsHits => drop(outcome.hits.pop()),
                Fault::InventsHits => outcome.hits.push(invented),
                Fault::InventsHitsLater if is_mining => outcome.hits.push(invented),
                Fault::Silent if is_mining => outcome = Outcome { hits: vec![], found: 0 },
                Fault::BadCount if is_mining || injected.always => outcome.found = u32::MAX,
                _ => {}
            }
            outcome
        }
    }

    impl Fault {
        fn named(name: &str) -> Option<Self> {
            Some(match name {
                "drops-hits" => Self::DropsHits,
                "invents-hits" => Self::InventsHits,
                "invents-hits-later" => Self::InventsHitsLater,
                "bad-count" => Self::BadCount,
                "silent" => Self::Silent,
                "lost" => Self::Lost,
                "panics" => Self::Panics,
                "hangs" => Self::Hangs,
                "out-of-memory" => Self::OutOfMemory,
                "lost-on-two-midstates" => Self::LostOnTwoMidstates,
                "refuses" => Self::Refuses,
                _ => return None,
            })
        }
    }

    impl Injected {
        /// Counts a batch, and returns the fault if it stops the device now.
        fn due(&mut self, variant: Variant) -> Option<Fault> {
            if let Some(batches) = &mut self.batches {
                *batches += 1;
            }
            let due = match self.fault {
                Fault::Lost | Fault::Panics | Fault::Hangs | Fault::OutOfMemory => {
                    self.batches.unwrap_or_default() == self.at
                }
                Fault::LostOnTwoMidstates => {
                    self.batches.is_none() && variant.midstates == Midstates::Two
                }
                _ => false,
            };
            let always = self.always || self.fault == Fault::LostOnTwoMidstates;
            (due && (always || !self.struck.swap(true, Ordering::Relaxed))).then_some(self.fault)
        }
    }
}
