//! A backend - the processor, or a graphics card - and where its work comes from and goes to.

use std::ops::ControlFlow;

use super::kernel::Hit;
use super::work::WorkUnit;

/// What a backend is, in the words that `--json` promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// `cpu` or `gpu`.
    pub backend: &'static str,
    /// The kernel's name, or the shader variant's.
    pub kernel: String,
    /// The processor or graphics card, as it names itself.
    pub device: String,
    /// Host threads that it keeps busy.
    pub threads: usize,
    /// The number that `gpu:N` takes; none for the processor.
    pub index: Option<usize>,
}

impl BackendInfo {
    /// As `--backend` names it: `cpu:avx512`, `gpu:0`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.index {
            Some(index) => format!("{}:{index}", self.backend),
            None => format!("{}:{}", self.backend, self.kernel),
        }
    }
}

/// Where a scanner's work comes from and goes to. The engine is the only one in the product; tests
/// and benches bring their own.
pub trait Feed: Sync {
    /// The next unit, of at most `midstates` midstates and `nonces` nonces. Waits while there is
    /// nothing to do; `None` means that it is time to stop.
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit>;

    /// The same without waiting: `None` where there is nothing to do at once, or it is time to stop.
    fn try_next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit>;

    /// Takes back what was dealt and is not done: it is dealt again before anything new. Nothing of
    /// it may have been counted.
    fn give_back(&self, unit: WorkUnit);

    /// Whether a unit is still of the job that is mined.
    fn wants(&self, _unit: &WorkUnit) -> bool {
        true
    }

    /// Whether it is time to stop: [`Feed::next`] gives nothing any more.
    fn has_ended(&self) -> bool;

    /// Takes a hit of `unit`. `Break` says that the rest of the unit is not wanted any more.
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()>;

    /// Counts `hashes` done by the scanner's thread number `thread`.
    fn count(&self, thread: usize, hashes: u64);
}

/// Why a backend cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It computes wrong results.
    #[error("{0}")]
    WrongResult(String),
    /// Its device is not there, or not any more.
    #[error("{0}")]
    Device(String),
}

/// A backend: it owns its threads, pulls units from a [`Feed`] and reports hits to it.
pub trait Scanner: Send + Sync {
    /// What it is.
    fn info(&self) -> BackendInfo;

    /// What it is where the version may be rolled, or may not: a GPU has a shader variant for each.
    fn info_when(&self, _version_rolling: bool) -> BackendInfo {
        self.info()
    }

    /// Does beforehand what [`Scanner::run`] would do first, so that a measurement need not include
    /// it.
    ///
    /// # Errors
    /// When the backend is not fit for use.
    fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Scans until the feed says stop. Blocks its caller. What was dealt to it and is not done when
    /// it fails has been given back.
    ///
    /// # Errors
    /// When the backend has failed for good.
    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError>;

    /// Scans one unit of at most `nonces` nonces on the caller's own thread, for jobs so easy that
    /// waking a thread takes longer than solving them. Whether it did; a backend that has to wait
    /// for anything does not.
    fn sip(&self, _feed: &dyn Feed, _nonces: u64) -> bool {
        false
    }
}
