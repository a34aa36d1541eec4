//! Devices made to fail, so that tests can see what becomes of it: no real driver does so on demand.
//!
//! None of this is in a release build. In a debug build the environment variable `ADIT_FAULT` says
//! what goes wrong, as in `gpu:lost`. What is lost or hangs does so with its third batch of mining;
//! `-always` says that it does so each time it has been brought up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::shader::Outcome;
use crate::scan::Hit;

/// The batch with which it happens.
const AT: u64 = 3;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Each batch leaves out a hit.
    Leaves,
    /// Each batch reports its first nonce as well.
    MakesUp,
    /// The same, but only once the self-test is passed.
    Lies,
    /// Each batch says that it found 2^32 - 1 hits; with `-always` those of the self-test, too.
    Garbage,
    /// The device is lost.
    Lost,
    /// The driver does not come back.
    Hangs,
    /// The driver does not come back while the device is brought up.
    HangsAtOnce,
    /// There is no memory.
    OutOfMemory,
}

/// A fault of one device.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    fault: Fault,
    always: bool,
    /// Batches of mining so far; none before it begins.
    batches: Option<u64>,
    /// Whether what happens once has happened.
    happened: Arc<AtomicBool>,
}

impl Wish {
    /// What the environment asks for.
    pub(super) fn of_environment() -> Option<Self> {
        let wish = std::env::var("ADIT_FAULT").unwrap_or_default();
        let wish = wish.strip_prefix("gpu:")?;
        let (name, always) = wish.strip_suffix("-always").map_or((wish, false), |n| (n, true));
        let fault = match name {
            "leaves" => Fault::Leaves,
            "makes-up" => Fault::MakesUp,
            "lies" => Fault::Lies,
            "garbage" => Fault::Garbage,
            "lost" => Fault::Lost,
            "hangs" => Fault::Hangs,
            "hangs-at-once" => Fault::HangsAtOnce,
            "out-of-memory" => Fault::OutOfMemory,
            _ => return None,
        };
        Some(Self::new(fault, always))
    }

    /// This fault: once, or each time that the device is brought up.
    pub(super) fn new(fault: Fault, always: bool) -> Self {
        Self { fault, always, batches: None, happened: Arc::default() }
    }

    /// Says that the tests are over.
    pub(super) fn mining_begins(&mut self) {
        self.batches = Some(0);
    }

    /// A batch begins: what happens now, if anything does.
    pub(super) fn strikes(&mut self) -> Option<Fault> {
        if self.fault == Fault::HangsAtOnce && self.batches.is_none() {
            return Some(self.fault);
        }
        let batches = self.batches.as_mut()?;
        *batches += 1;
        let sudden = matches!(self.fault, Fault::Lost | Fault::Hangs | Fault::OutOfMemory);
        let due = sudden && *batches == AT;
        (due && (self.always || !self.happened.swap(true, Ordering::Relaxed))).then_some(self.fault)
    }

    /// What a batch says it found, instead of what it did.
    pub(super) fn bend(&self, mut outcome: Outcome, first_nonce: u32) -> Outcome {
        let made_up = Hit { midstate: 0, nonce: first_nonce };
        match self.fault {
            Fault::Leaves => drop(outcome.hits.pop()),
            Fault::MakesUp => outcome.hits.push(made_up),
            Fault::Lies if self.batches.is_some() => outcome.hits.push(made_up),
            Fault::Garbage if self.batches.is_some() || self.always => outcome.found = u32::MAX,
            _ => {}
        }
        outcome
    }
}
