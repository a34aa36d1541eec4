//! Steering a run from outside: pausing, throttling, choosing a source, stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::state::Shared;
use super::status::Status;
use crate::event::{Event, PauseReason, PauseReasons};
use crate::job::SourceId;
use crate::scan::{BackendId, Throttle};

/// A handle on a run. Cheap to clone; any thread may use it, and none of its methods waits for
/// anything but the engine's own lock. Once the run has ended it does nothing.
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) status: watch::Receiver<Status>,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The run has no such backend.
    #[error("there is no backend {0}")]
    NoSuchBackend(BackendId),
    /// The run has no such source.
    #[error("there is no source number {}", .0.index())]
    NoSuchSource(SourceId),
    /// The source is not started, so it has no connection.
    #[error("source number {} is not running", .0.index())]
    SourceNotRunning(SourceId),
}

impl Control {
    /// The state of the run, published ten times a second.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stops hashing until no reason for a pause is left. A range on the processor, which takes about
    /// a millisecond, and the batches that are under way on a card are finished. Connections are kept,
    /// jobs go on being replaced, and what was found is still sent.
    pub fn pause(&self, reason: PauseReason) {
        self.change_pauses(|reasons| reasons.with(reason));
    }

    /// Takes a reason for a pause back. If it was the last one, hashing goes on with the job of now.
    pub fn resume(&self, reason: PauseReason) {
        self.change_pauses(|reasons| reasons.without(reason));
    }

    fn change_pauses(&self, change: impl FnOnce(PauseReasons) -> PauseReasons) {
        let shared = &self.shared;
        let mut state = shared.state();
        let reasons = change(state.pauses);
        if reasons == state.pauses || state.stopped {
            return;
        }
        state.pauses = reasons;
        shared.is_paused.store(!reasons.is_empty(), Ordering::Relaxed);
        // Under the lock: changes are announced in their order.
        shared.announcer.announce(Event::Paused(reasons));
        drop(state);
        if reasons.is_empty() {
            shared.wake.notify_all();
        }
    }

    /// The reasons for which hashing is paused now.
    #[must_use]
    pub fn pause_reasons(&self) -> PauseReasons {
        self.shared.state().pauses
    }

    /// Makes one backend, or every one, hash this share of the time from now on: each notices after
    /// the range or batch that is under way.
    ///
    /// # Errors
    /// When there is no such backend.
    pub fn set_throttle(
        &self,
        backend: Option<BackendId>,
        throttle: Throttle,
    ) -> Result<(), ControlError> {
        let mut is_found = backend.is_none();
        for each in &self.shared.backends {
            if backend.is_none_or(|id| id == each.info.id) {
                each.throttle.set(throttle);
                is_found = true;
            }
        }
        match backend {
            Some(id) if !is_found => Err(ControlError::NoSuchBackend(id)),
            _ => Ok(()),
        }
    }

    /// Has this source mined as long as it is healthy, whatever its place in the order; with `None`,
    /// the order alone decides again. It is a request to whatever chooses among the sources.
    ///
    /// # Errors
    /// When there is no such source.
    pub fn prefer(&self, source: Option<SourceId>) -> Result<(), ControlError> {
        if let Some(source) = source {
            self.check(source)?;
        }
        self.shared
            .preferred
            .send_if_modified(|preferred| std::mem::replace(preferred, source) != source);
        Ok(())
    }

    /// Asks a source to close its connection and to connect again at once, also in the midst of a wait
    /// between attempts: `stratum_v1` collects the answers that are on their way before (two seconds at
    /// most), `getblocktemplate` the one to a block that is being submitted. Either announces it as a
    /// change of its state, with a reason that says so. The built-in chain has no connection: nothing
    /// follows there. It is a request that the source awaits on its port
    /// ([`super::Port::reconnect_requested`]).
    ///
    /// # Errors
    /// When there is no such source, or it is not running.
    pub fn reconnect(&self, source: SourceId) -> Result<(), ControlError> {
        self.check(source)?;
        let mut state = self.shared.state();
        let slot = state.slot(source);
        if slot.solutions.is_none() {
            return Err(ControlError::SourceNotRunning(source));
        }
        slot.reconnect.notify_one();
        Ok(())
    }

    /// Ends the run as [`super::Engine::stop`] does.
    pub fn stop(&self) {
        self.shared.stop(&mut self.shared.state());
    }

    fn check(&self, source: SourceId) -> Result<(), ControlError> {
        if source.index() < self.shared.state().slots.len() {
            Ok(())
        } else {
            Err(ControlError::NoSuchSource(source))
        }
    }
}
