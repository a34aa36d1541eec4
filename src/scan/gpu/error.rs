//! What can go wrong with a device, and the place where driver callbacks record it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::scan::BackendError;

/// What went wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeviceError {
    /// It cannot be found or opened.
    #[error("the device cannot be opened: {0}")]
    Unavailable(String),
    /// It is gone, or its driver says so.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// It has no memory left.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// It has not answered within this time.
    #[error("the device has not answered for {} s", .0.as_secs())]
    Hung(Duration),
    /// The driver rejects a request, such as compiling a shader.
    #[error("the driver refuses: {0}")]
    Refused(String),
    /// It computes wrong results.
    #[error("{0}")]
    WrongResult(String),
    /// It was told to stop before it had finished.
    #[error("the operation was cancelled")]
    Cancelled,
}

impl DeviceError {
    /// Whether reinitialising the device may help.
    pub(super) fn may_recover(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::WrongResult(_))
    }

    /// Whether the operation in progress may have caused it.
    pub(super) fn may_be_caused_by_work(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Hung(_) | Self::OutOfMemory)
    }
}

impl From<DeviceError> for BackendError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::WrongResult(_) => Self::WrongResult(error.to_string()),
            _ => Self::Device(error.to_string()),
        }
    }
}

/// Where callbacks on the driver's own threads record what went wrong. Only the first error is kept,
/// since later ones follow from it. Clones share one slot.
#[derive(Clone, Default)]
pub(super) struct DeviceErrorSlot {
    /// Lets `check` skip the lock while there is no error.
    is_set: Arc<AtomicBool>,
    first: Arc<Mutex<Option<DeviceError>>>,
}

impl DeviceErrorSlot {
    /// Records an error, unless there is one already.
    pub(super) fn report(&self, error: DeviceError) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.is_set.store(true, Ordering::Release);
    }

    /// Returns the recorded error, if there is one.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        if !self.is_set.load(Ordering::Acquire) {
            return Ok(());
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().map_or(Ok(()), Err)
    }

    /// The recorded error, or else that the device is lost for this reason.
    pub(super) fn first_or_lost(&self, reason: String) -> DeviceError {
        self.check().err().unwrap_or(DeviceError::Lost(reason))
    }
}
