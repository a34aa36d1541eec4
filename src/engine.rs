//! The engine owns the search space: it cuts jobs into work units, keeps every backend fed, verifies
//! each candidate, and counts.

mod confirmation;
mod control;
mod feed;
mod meter;
mod port;
mod rates;
mod sampler;
mod search_space;
mod slot;
mod sources;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod verdicts;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use self::control::{Control, ControlError};
pub use self::port::Port;
pub use self::rates::Rates;
pub use self::sampler::EnergyMeter;
pub use self::search_space::{NextWork, SearchSpace};
pub use self::slot::{Connection, Health, SourceInfo};
pub use self::sources::Sources;
pub use self::state::{Goal, LastBlock};
pub use self::status::{BackendState, BackendStatus, JobStatus, RunState, SourceStatus, Status};
pub use self::verdicts::ReportedBlock;

use self::feed::BackendFeed;
use self::sampler::Sampler;
use self::slot::SourceSlot;
use self::state::{Shared, Unanswered};
use crate::event::{Announcer, Summary};
use crate::job::{RejectReason, SourceId, Verdict};
use crate::scan::{BackendError, BackendId, BackendInfo, Scanner};

/// Runs scanners, and stands between them and the sources.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The thread that publishes the status, and what gives it a meter and ends it when it is dropped.
    sampler: JoinHandle<Sampler>,
    sampling: mpsc::Sender<EnergyMeter>,
    status: watch::Receiver<Status>,
}

impl Engine {
    /// Starts a thread for each scanner; they wait for the first job. `source` says what the status
    /// shows of the only source, whose port is returned.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        scanners: Vec<Arc<dyn Scanner>>,
        source: SourceInfo,
        goal: Goal,
        announcer: Announcer,
    ) -> std::io::Result<(Self, Port)> {
        let (engine, sources) = Self::with_sources(scanners, vec![source], goal, announcer)?;
        Ok((engine, sources.open(SourceId::default())))
    }

    /// The same for several sources, of which one is mined at a time, at first the first. There must
    /// be one at least.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn with_sources(
        scanners: Vec<Arc<dyn Scanner>>,
        sources: Vec<SourceInfo>,
        goal: Goal,
        announcer: Announcer,
    ) -> std::io::Result<(Self, Sources)> {
        let slots = sources.into_iter().map(SourceSlot::new).collect();
        let shared = Arc::new(Shared::new(scanners, slots, goal, announcer));
        let mut threads = Vec::with_capacity(shared.backends.len());
        for (index, backend) in shared.backends.iter().enumerate() {
            let feed = BackendFeed { shared: shared.clone(), backend: index };
            let scanner = backend.scanner.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{}-{index}", backend.info.id.kind()))
                .spawn(move || {
                    let run = AssertUnwindSafe(|| scanner.run(&feed));
                    match std::panic::catch_unwind(run) {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => feed.failed(error),
                        Err(_) => feed.failed(BackendError::Device("a bug in adit".to_owned())),
                    }
                })?;
            threads.push(thread);
        }
        let sampler = Sampler::new(shared.clone());
        let status = sampler.status();
        let (sampling, meters) = mpsc::channel();
        let sampler = std::thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || sampler.run(&meters))?;
        let sources = Sources::of(shared.clone());
        Ok((Self { shared, threads, sampler, sampling, status }, sources))
    }

    /// The state of the run, published ten times a second, and once more when all is counted.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// A handle to steer the run with.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { shared: self.shared.clone(), status: self.status.clone() }
    }

    /// Has the energy of the backends read from now on, for [`BackendStatus::energy`]: the engine itself
    /// knows no counters.
    pub fn measure_energy(&self, meter: EnergyMeter) {
        // The thread at the other end lives as long as the engine.
        let _ = self.sampling.send(meter);
    }

    /// Stops: no more work is handed out, and the sources' ports end once they are drained.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.stop(&mut shared.state());
    }

    /// Resolves when the engine stops, for whatever reason.
    pub async fn stopped(&self) {
        let mut stopping = self.shared.stopping.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Where no backend is left that could find anything: the last one, and why it failed.
    #[must_use]
    pub fn failure(&self) -> Option<(BackendId, BackendError)> {
        let shared = &self.shared;
        if shared.alive.load(Ordering::Acquire) > 0 {
            return None;
        }
        let backend = &shared.backends[shared.state().failed_last?];
        backend.failure.get().map(|error| (backend.info.id, error.clone()))
    }

    /// Whether something that was found waits for its answer.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        !self.shared.state().unanswered.is_empty()
    }

    /// Hashes so far, a figure for each backend, in the order of the scanners.
    #[must_use]
    pub fn hashes(&self) -> Vec<(BackendInfo, u64)> {
        let backends = self.shared.backends.iter();
        backends.map(|backend| (backend.info.clone(), backend.meter.total())).collect()
    }

    /// The figures of the whole run. Solutions that got no answer are counted as unknown, and
    /// announced so. Call it when the sources have ended; waits for the scanners to end.
    #[must_use]
    pub fn finish(self) -> Summary {
        let Self { shared, threads, sampler, sampling, status: _ } = self;
        shared.stop(&mut shared.state());
        for thread in threads {
            // A panic in there was caught and announced.
            let _ = thread.join();
        }
        let mut state = shared.state();
        let unanswered = std::mem::take(&mut state.unanswered);
        for Unanswered { source, solution } in unanswered.values() {
            let why = RejectReason::new("", "the source had not answered when adit stopped");
            shared.judge(&mut state, *source, solution, Verdict::Unknown(why));
        }
        shared.announce_unconfirmed(&state);
        let summary = Summary {
            elapsed: shared.begun.1.elapsed(),
            hashes: shared.hashes().iter().sum(),
            blocks: state.blocks(),
            shares: state.shares(),
            hardware_errors: shared.hardware_errors(),
            events_lost: shared.announcer.lost(),
        };
        drop(state);
        drop(sampling);
        if let Ok(sampler) = sampler.join() {
            sampler.publish();
        }
        summary
    }
}
