//! How long drivers and devices may take. One that takes longer counts as hung.

use std::time::Duration;

use super::error::DeviceError;

/// Drivers may take this long to list their cards.
pub(super) const SEARCH: Duration = Duration::from_secs(20);
/// Each step of initialising a device may take this long: finding and opening it, or compiling,
/// testing and timing one variant. Drivers can take seconds to compile.
pub(super) const STEP: Duration = Duration::from_secs(60);
/// A batch may take this long. Batches are sized to take less than a tenth of a second, and operating
/// systems reset a card after about two; but a software device shares its processor with others.
pub(super) const BATCH: Duration = Duration::from_secs(6);
/// A batch of a self-test may take this long: a driver may compile a variant a second time when it is
/// first run.
pub(super) const TEST_BATCH: Duration = Duration::from_secs(30);
/// A thread may take this long to close its device.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(2);

/// The longest single wait. Between waits the caller checks whether to stop.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The time left until a wait is given up.
///
/// It counts poll intervals rather than reading a clock: while a process is stopped, by Ctrl-Z or
/// because a laptop sleeps, its driver has not had that time either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    limit: Duration,
    waited: Duration,
}

impl Timeout {
    /// A timeout that expires after this much waiting.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO }
    }

    /// Counts one [`POLL_INTERVAL`] in which nothing arrived.
    pub(super) fn tick(&mut self) {
        self.waited += POLL_INTERVAL;
    }

    /// Fails with [`DeviceError::Hung`] once the timeout has expired.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        if self.waited < self.limit { Ok(()) } else { Err(DeviceError::Hung(self.limit)) }
    }
}
