//! Kernels made to lie, so that tests can see that lies are found out.
//!
//! None of this is in a release build: a shipped miner has no switch that breaks it. In a debug
//! build the environment variable `ADIT_FAULT` names the kernel and what it does wrong, as in
//! `avx2:leaves`, so that the tests of the commands see the same as a user of a broken processor.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::scan::{Hit, Kernel, Scan};

/// What a [`Liar`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It leaves out every third hit, the first to begin with.
    Leaves,
    /// It reports the first nonce of each range as well.
    MakesUp,
    /// It reports each hit twice.
    Twice,
    /// It counts a hash too many.
    Miscounts,
    /// It does everything [`SLOWER`] times, and is otherwise honest.
    Slows,
    /// It never reports the last nonce there is.
    #[cfg(test)]
    LastNonce,
}

/// How many times as long a slowed kernel takes.
const SLOWER: u32 = 3;

/// A kernel that gets one thing wrong.
#[derive(Debug)]
pub(crate) struct Liar {
    /// The honest kernel behind it.
    pub kernel: Arc<dyn Kernel>,
    /// What it does wrong.
    pub fault: Fault,
}

impl Kernel for Liar {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn midstates(&self) -> usize {
        self.kernel.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        if self.fault == Fault::MakesUp {
            let _ = found(Hit { midstate: 0, nonce: scan.nonces.first() });
        }
        if self.fault == Fault::Slows {
            for _ in 1..SLOWER {
                self.kernel.scan(scan, &mut |_| ControlFlow::Continue(()));
            }
        }
        let mut hits = 0_u64;
        let hashes = self.kernel.scan(scan, &mut |hit| {
            hits += 1;
            match self.fault {
                Fault::Leaves if hits % 3 == 1 => ControlFlow::Continue(()),
                #[cfg(test)]
                Fault::LastNonce if hit.nonce == u32::MAX => ControlFlow::Continue(()),
                Fault::Twice => {
                    found(hit)?;
                    found(hit)
                }
                _ => found(hit),
            }
        });
        hashes + u64::from(self.fault == Fault::Miscounts)
    }
}

/// `kernel`, or a liar in its place where `ADIT_FAULT` says so.
#[cfg(debug_assertions)]
pub(super) fn perhaps(kernel: Arc<dyn Kernel>) -> Arc<dyn Kernel> {
    let wish = std::env::var("ADIT_FAULT").unwrap_or_default();
    let fault = match wish.split_once(':') {
        Some((name, fault)) if name == kernel.name() => match fault {
            "leaves" => Fault::Leaves,
            "makes-up" => Fault::MakesUp,
            "twice" => Fault::Twice,
            "miscounts" => Fault::Miscounts,
            "slows" => Fault::Slows,
            _ => return kernel,
        },
        _ => return kernel,
    };
    Arc::new(Liar { kernel, fault })
}
