//! Faulty kernels, so that tests can see that wrong results are detected.
//!
//! None of this is in a release build: a shipped miner has no switch that breaks it. In a debug build the
//! environment variable `ADIT_FAULT` names a kernel and its fault, as in `avx2:drops-hits`, so that tests
//! of the commands see what a user with a broken processor would see.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::scan::{Hit, Kernel, Scan};

/// What a [`FaultyKernel`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It drops every third hit, beginning with the first.
    DropsHits,
    /// It also reports the first nonce of each range.
    InventsHits,
    /// It reports each hit twice.
    RepeatsHits,
    /// It counts one hash too many.
    Miscounts,
    /// It does everything [`SLOWDOWN`] times, and is correct otherwise.
    Slow,
    /// It never reports the highest nonce, 2^32 - 1.
    #[cfg(test)]
    MissesLastNonce,
}

/// How many times as long a slow kernel takes.
const SLOWDOWN: u32 = 3;

/// A kernel with one fault.
#[derive(Debug)]
pub(crate) struct FaultyKernel {
    /// The correct kernel that it wraps.
    pub kernel: Arc<dyn Kernel>,
    /// What it does wrong.
    pub fault: Fault,
}

impl Kernel for FaultyKernel {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn midstates(&self) -> usize {
        self.kernel.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        if self.fault == Fault::InventsHits {
            let _ = found(Hit { midstate: 0, nonce: scan.nonces.first() });
        }
        if self.fault == Fault::Slow {
            for _ in 1..SLOWDOWN {
                self.kernel.scan(scan, &mut |_| ControlFlow::Continue(()));
            }
        }
        let mut hits = 0_u64;
        let hashes = self.kernel.scan(scan, &mut |hit| {
            hits += 1;
            match self.fault {
                Fault::DropsHits if hits % 3 == 1 => ControlFlow::Continue(()),
                #[cfg(test)]
                Fault::MissesLastNonce if hit.nonce == u32::MAX => ControlFlow::Continue(()),
                Fault::RepeatsHits => {
                    found(hit)?;
                    found(hit)
                }
                _ => found(hit),
            }
        });
        hashes + u64::from(self.fault == Fault::Miscounts)
    }
}

/// Wraps `kernel` in a [`FaultyKernel`] if `ADIT_FAULT` says so.
#[cfg(debug_assertions)]
pub(super) fn maybe_faulty(kernel: Arc<dyn Kernel>) -> Arc<dyn Kernel> {
    let value = std::env::var("ADIT_FAULT").unwrap_or_default();
    let fault = match value.split_once(':') {
        Some((name, fault)) if name == kernel.name() => match fault {
            "drops-hits" => Fault::DropsHits,
            "invents-hits" => Fault::InventsHits,
            "repeats-hits" => Fault::RepeatsHits,
            "miscounts" => Fault::Miscounts,
            "slow" => Fault::Slow,
            _ => return kernel,
        },
        _ => return kernel,
    };
    Arc::new(FaultyKernel { kernel, fault })
}
