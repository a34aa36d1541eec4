//! A thread that calls a driver, and the wait for its messages. Whatever the driver does there, the
//! waiting thread goes on: a call that does not return is abandoned, and a panic becomes a
//! [`DeviceError`].

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::deadlines::{POLL_INTERVAL, SHUTDOWN, Timeout};
use super::error::{DeviceError, DeviceErrorSlot};

/// How a wait for a message ended.
pub(super) enum Waited<T> {
    /// The message arrived.
    Ready(T),
    /// The caller wants to stop.
    Stopped,
}

/// A thread that calls a driver and sends messages of type `M`.
pub(super) struct DeviceThread<M> {
    messages: Receiver<M>,
    handle: JoinHandle<()>,
    errors: DeviceErrorSlot,
}

impl<M: Send + 'static> DeviceThread<M> {
    /// Runs `work` on a thread of its own. `errors` is the slot of the device that it uses.
    pub(super) fn start(
        name: String,
        errors: DeviceErrorSlot,
        work: impl FnOnce(&Sender<M>) + Send + 'static,
    ) -> Result<Self, DeviceError> {
        let (sender, messages) = channel();
        let thread_errors = errors.clone();
        let body = move || {
            if let Err(panic) = catch_panic(|| work(&sender)) {
                thread_errors.report(DeviceError::Lost(panic));
            }
            // Closed only after the report, so that the receiver finds the reason.
            drop(sender);
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        let handle = spawned.map_err(|error| DeviceError::Unavailable(error.to_string()))?;
        Ok(Self { messages, handle, errors })
    }

    /// Waits at most `limit` for the next message. Returns [`Waited::Stopped`] once `has_ended` is true
    /// and nothing has arrived for `grace`.
    pub(super) fn wait(
        &self,
        limit: Duration,
        grace: Duration,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<M>, DeviceError> {
        let (mut timeout, mut grace) = (Timeout::new(limit), Timeout::new(grace));
        loop {
            match self.messages.recv_timeout(POLL_INTERVAL) {
                Ok(message) => return Ok(Waited::Ready(message)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.errors.first_or_lost("its thread has ended".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {
                    timeout.tick();
                    grace.tick();
                    if let Err(error) = timeout.check() {
                        // Should the driver's call return after all, the thread is to stop.
                        self.errors.report(error.clone());
                        return Err(error);
                    }
                    if grace.check().is_err() && has_ended() {
                        return Ok(Waited::Stopped);
                    }
                }
            }
        }
    }

    /// Waits up to [`SHUTDOWN`] for the thread to end; not at all if it hangs.
    pub(super) fn shutdown(&self) {
        if let Err(DeviceError::Hung(_)) = self.errors.check() {
            return;
        }
        let begun = Instant::now();
        while !self.handle.is_finished() && begun.elapsed() < SHUTDOWN {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

thread_local! {
    /// Whether a panic of this thread is caught, and so not printed.
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call in which wgpu may panic, as it does when a device is lost during a wait. Returns the
/// panic's message in one line, and keeps it from being printed.
pub(super) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_CATCHING.get() {
                tracing::debug!("a driver call panicked: {info}");
            } else {
                hook(info);
            }
        }));
    });
    let before = IS_CATCHING.replace(true);
    // After a panic the callers abandon everything that the call may have left half done.
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IS_CATCHING.set(before);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(work: impl FnOnce(&Sender<u8>) + Send + 'static) -> DeviceThread<u8> {
        DeviceThread::start("a test".to_owned(), DeviceErrorSlot::default(), work).unwrap()
    }

    #[test]
    fn time_while_the_process_is_stopped_does_not_count() {
        let (now, go) = channel();
        let thread = thread(move |messages| {
            go.recv().unwrap();
            messages.send(7).unwrap();
            // Until the test ends.
            let _ = go.recv();
        });
        let limit = 10 * POLL_INTERVAL;
        let checks = Cell::new(0);
        let stopped = || {
            checks.set(checks.get() + 1);
            match checks.get() {
                // As if the process were stopped here for longer than the limit.
                1 => std::thread::sleep(limit + POLL_INTERVAL),
                2 => now.send(()).unwrap(),
                _ => {}
            }
            false
        };
        let waited = thread.wait(limit, Duration::ZERO, &stopped);
        assert!(matches!(waited, Ok(Waited::Ready(7))), "after {} checks", checks.get());
        // Now nothing arrives at all.
        let error = thread.wait(limit, Duration::ZERO, &|| false).err();
        assert_eq!(error, Some(DeviceError::Hung(limit)));
        assert_eq!(thread.errors.check(), Err(DeviceError::Hung(limit)), "the thread can see it");
        assert!(matches!(thread.wait(limit, POLL_INTERVAL, &|| true), Ok(Waited::Stopped)));
    }

    #[test]
    fn a_wait_returns_why_the_thread_ended() {
        let limit = Duration::from_secs(60);
        let error = |thread: DeviceThread<u8>| thread.wait(limit, limit, &|| false).err();
        let lost = |why: &str| Some(DeviceError::Lost(why.to_owned()));
        assert_eq!(error(thread(|_| {})), lost("its thread has ended"));
        let panics = |_: &Sender<u8>| panic!("Error in Device::poll:\n\n  gone\n");
        assert_eq!(error(thread(panics)), lost("Error in Device::poll: gone"));
        // The driver reported something before the panic.
        let errors = DeviceErrorSlot::default();
        errors.report(DeviceError::OutOfMemory);
        let thread = DeviceThread::start("a test".to_owned(), errors, panics).unwrap();
        assert_eq!(error(thread), Some(DeviceError::OutOfMemory));
    }
}
