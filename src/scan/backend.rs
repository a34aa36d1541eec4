//! A backend - the processor, or a graphics card - and where its work comes from and goes to.

use std::fmt;
use std::ops::ControlFlow;

use super::kernel::Hit;
use super::throttle::Throttle;
use super::work::WorkUnit;

/// Which backend, as `--backend` names it: `cpu:avx512`, `gpu:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendId {
    /// The processor with the kernel of this name.
    Cpu(&'static str),
    /// The graphics card of this number, as `adit devices` counts them.
    Gpu(usize),
    /// Several backends that are measured together.
    All,
}

impl BackendId {
    /// What kind of backend it is, as `--json` promises it under `backend`: `cpu`, `gpu` or `all`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Gpu(_) => "gpu",
            Self::All => "all",
        }
    }

    /// The number of a graphics card.
    #[must_use]
    pub const fn index(self) -> Option<usize> {
        match self {
            Self::Gpu(index) => Some(index),
            Self::Cpu(_) | Self::All => None,
        }
    }

    /// Whether it is the processor.
    #[must_use]
    pub const fn is_cpu(self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// Whether it is a graphics card.
    #[must_use]
    pub const fn is_gpu(self) -> bool {
        matches!(self, Self::Gpu(_))
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(kernel) => write!(f, "cpu:{kernel}"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// What a backend is, in the words that `--json` promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// Which one it is.
    pub id: BackendId,
    /// The kernel's name, or the shader variant's; of several backends, each of theirs.
    pub kernel: String,
    /// The processor or graphics card, as it names itself.
    pub device: String,
    /// Host threads that it keeps busy.
    pub threads: usize,
}

impl BackendInfo {
    /// Its id; of several backends that are measured together, also what each of them runs.
    #[must_use]
    pub fn name(&self) -> String {
        match self.id {
            BackendId::All => format!("{}:{}", self.id, self.kernel),
            id => id.to_string(),
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

    /// Takes back what was handed out and is not done: it is handed out again before anything new.
    /// Nothing of it may have been counted.
    fn give_back(&self, unit: WorkUnit);

    /// Whether a unit is still of the job that is mined.
    fn wants(&self, _unit: &WorkUnit) -> bool {
        true
    }

    /// Whether it is time to stop: [`Feed::next`] gives nothing any more.
    fn has_ended(&self) -> bool;

    /// Whether hashing is paused: [`Feed::next`] waits, and nothing that was handed out before is
    /// begun.
    fn is_paused(&self) -> bool {
        false
    }

    /// The share of the time that the scanner is to hash. Read after each range or batch, since it
    /// may change at any moment.
    fn throttle(&self) -> Throttle {
        Throttle::NONE
    }

    /// Takes a hit of `unit`. `Break` says that the rest of the unit is not wanted any more.
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()>;

    /// Counts `hashes` done by the scanner's thread number `thread`.
    fn count(&self, thread: usize, hashes: u64);

    /// Says why the scanner does not hash for a while, as when its device has failed and is initialised
    /// again; `None` once it does again.
    fn interrupted(&self, _why: Option<String>) {}
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

    /// Scans until the feed says stop. Blocks its caller. What was handed out to it and is not done when
    /// it fails has been given back.
    ///
    /// # Errors
    /// When the backend has failed for good.
    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError>;

    /// Scans one unit of at most `nonces` nonces on the caller's own thread, for jobs so easy that
    /// waking a thread takes longer than solving them. Whether it did; a backend that has to wait
    /// for anything does not.
    fn scan_inline(&self, _feed: &dyn Feed, _nonces: u64) -> bool {
        false
    }
}
