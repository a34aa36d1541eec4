//! Devices made to fail, so that tests can see what becomes of it: no real driver does so on demand.
//!
//! None of this is in a release build. In a debug build the environment variable `ADIT_FAULT` says
//! what goes wrong, as in `gpu:lost`. What is lost or hangs does so with its third batch of mining,
//! or with `-at-once` while it is brought up; `-always` says that it does so each time it has been
//! brought up again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::shader::{Midstates, Outcome, Variant};
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
    /// No batch finds anything, once the self-test is passed.
    Silent,
    /// The device is lost.
    Lost,
    /// It is lost, and wgpu panics.
    Panics,
    /// The driver does not come back.
    Hangs,
    /// There is no memory.
    OutOfMemory,
    /// The device is lost when it runs two midstates at once before it mines.
    Chokes,
    /// The driver takes no variant of several midstates; with `-always`, none at all.
    Refuses,
}

/// A fault of one device.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    fault: Fault,
    always: bool,
    /// With which batch of mining it happens; with 0, before that begins.
    at: u64,
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
        let (name, at) = name.strip_suffix("-at-once").map_or((name, AT), |n| (n, 0));
        let fault = match name {
            "leaves" => Fault::Leaves,
            "makes-up" => Fault::MakesUp,
            "lies" => Fault::Lies,
            "garbage" => Fault::Garbage,
            "silent" => Fault::Silent,
            "lost" => Fault::Lost,
            "panics" => Fault::Panics,
            "hangs" => Fault::Hangs,
            "out-of-memory" => Fault::OutOfMemory,
            "chokes" => Fault::Chokes,
            "refuses" => Fault::Refuses,
            _ => return None,
        };
        Some(Self::new(fault, always).at(at))
    }

    /// This fault: once, or each time that the device is brought up.
    pub(super) fn new(fault: Fault, always: bool) -> Self {
        Self { fault, always, at: AT, batches: None, happened: Arc::default() }
    }

    /// The same with this batch of mining; with 0, before that begins.
    pub(super) fn at(self, at: u64) -> Self {
        Self { at, ..self }
    }

    /// Says that the tests are over.
    pub(super) fn mining_begins(&mut self) {
        self.batches = Some(0);
    }

    /// A batch of this variant begins: what happens now, if anything does.
    pub(super) fn strikes(&mut self, variant: Variant) -> Option<Fault> {
        if let Some(batches) = &mut self.batches {
            *batches += 1;
        }
        let due = match self.fault {
            Fault::Lost | Fault::Panics | Fault::Hangs | Fault::OutOfMemory => {
                self.batches.unwrap_or_default() == self.at
            }
            Fault::Chokes => self.batches.is_none() && variant.midstates == Midstates::Two,
            _ => false,
        };
        let always = self.always || self.fault == Fault::Chokes;
        (due && (always || !self.happened.swap(true, Ordering::Relaxed))).then_some(self.fault)
    }

    /// Whether the driver does not take this variant.
    pub(super) fn refuses(&self, variant: Variant) -> bool {
        self.fault == Fault::Refuses && (self.always || variant.midstates != Midstates::One)
    }

    /// What a batch says it found, instead of what it did.
    pub(super) fn bend(&self, mut outcome: Outcome, first_nonce: u32) -> Outcome {
        let made_up = Hit { midstate: 0, nonce: first_nonce };
        match self.fault {
            Fault::Leaves => drop(outcome.hits.pop()),
            Fault::MakesUp => outcome.hits.push(made_up),
            Fault::Lies if self.batches.is_some() => outcome.hits.push(made_up),
            Fault::Silent if self.batches.is_some() => outcome = Outcome { hits: vec![], found: 0 },
            Fault::Garbage if self.batches.is_some() || self.always => outcome.found = u32::MAX,
            _ => {}
        }
        outcome
    }
}
