//! Core cycles by the processor's own counter, where the system lets us have it.
//!
//! Only a counter of the cycles in which a core ran our code will do. The time stamp counter ticks at
//! a rate of its own, whatever the core's clock is, and is not asked.

/// Why there is no count of cycles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCycles {
    /// The system gives us none.
    #[error("no cycle counter ({0})")]
    Unavailable(String),
    /// It was shared with somebody who counts other things, and a part of the time is missing.
    #[error("the cycle counter was not ours all the time")]
    Shared,
    /// What hashes is no processor.
    #[error("a graphics card's cycles are not counted")]
    NoCpu,
}

/// Counts the cycles of this thread in user mode, and of every thread that it or one of them starts
/// from now on.
#[cfg(all(target_os = "linux", feature = "energy"))]
#[derive(Debug)]
pub struct CycleCounter(perf_event::Counter);

#[cfg(all(target_os = "linux", feature = "energy"))]
impl CycleCounter {
    /// Begins to count. To be called before the threads that are to be counted are started.
    ///
    /// # Errors
    /// Where there is no such counter (as on most virtual machines), or it is not for us.
    pub fn start() -> Result<Self, NoCycles> {
        let event = perf_event::events::Hardware::CPU_CYCLES;
        let counter = perf_event::Builder::new(event).inherit(true).enabled(true).build();
        counter.map(Self).map_err(|error| {
            NoCycles::Unavailable(match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported => {
                    "this machine has none; virtual machines often have not".to_owned()
                }
                std::io::ErrorKind::PermissionDenied => {
                    "not permitted; see kernel.perf_event_paranoid".to_owned()
                }
                _ => error.to_string(),
            })
        })
    }

    /// The cycles so far.
    ///
    /// # Errors
    /// Where some of the time was not counted.
    pub fn read(&mut self) -> Result<u64, NoCycles> {
        let data = self.0.read_full().map_err(|error| NoCycles::Unavailable(error.to_string()))?;
        if data.time_running() < data.time_enabled() {
            return Err(NoCycles::Shared);
        }
        Ok(data.count())
    }
}

/// There is none on this system, or in this build.
#[cfg(not(all(target_os = "linux", feature = "energy")))]
#[derive(Debug)]
pub struct CycleCounter(std::convert::Infallible);

#[cfg(not(all(target_os = "linux", feature = "energy")))]
impl CycleCounter {
    /// Begins to count.
    ///
    /// # Errors
    /// Always: it is read on Linux only, and with the feature `energy`.
    pub fn start() -> Result<Self, NoCycles> {
        let why = if cfg!(feature = "energy") {
            "it is read on Linux only"
        } else {
            "this build of adit reads none: it was built without the feature `energy`"
        };
        Err(NoCycles::Unavailable(why.to_owned()))
    }

    /// The cycles so far.
    ///
    /// # Errors
    /// Never, since there is no counter.
    pub fn read(&mut self) -> Result<u64, NoCycles> {
        match self.0 {}
    }
}
