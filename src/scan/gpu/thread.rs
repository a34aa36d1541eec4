//! A thread that calls a driver, and the wait for what it reports. Whatever the driver does there,
//! whoever waits goes on: a call that does not come back is left where it is, and a panic is a
//! [`Trouble`] like any other.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device::{Told, Trouble};

/// How long a single wait takes at most: then it is looked whether it is time to stop.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// How long a thread has to close its device.
const GOODBYE: Duration = Duration::from_secs(2);

/// How much longer something is waited for.
///
/// It counts ticks that were waited, and not what a clock says: a process that was stopped, by Ctrl-Z
/// or a laptop's sleep, has not given its driver that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    limit: Duration,
    waited: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO }
    }

    /// A wait of one [`TICK`] has brought nothing.
    pub(super) fn tick(&mut self) {
        self.waited += TICK;
    }

    /// Whether nothing is waited for any more.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        if self.waited < self.limit { Ok(()) } else { Err(Trouble::Hang(self.limit)) }
    }
}

/// How the wait for a report ended.
pub(super) enum Waited<T> {
    /// With what was waited for.
    For(T),
    /// It is time to stop.
    Ended,
}

/// A thread that calls a driver and reports `R`.
pub(super) struct DeviceThread<R> {
    reports: Receiver<R>,
    handle: JoinHandle<()>,
    told: Told,
}

impl<R: Send + 'static> DeviceThread<R> {
    /// Starts `work` on a thread of its own. What it does with its device is told through `told`.
    pub(super) fn start(
        name: String,
        told: Told,
        work: impl FnOnce(&Sender<R>) + Send + 'static,
    ) -> Result<Self, Trouble> {
        let (to_us, reports) = channel();
        let last_words = told.clone();
        let body = move || {
            if let Err(panic) = caught(|| work(&to_us)) {
                last_words.tell(Trouble::Lost(panic));
            }
            // Only now, so that whoever finds the channel closed finds these words, too.
            drop(to_us);
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        let handle = spawned.map_err(|error| Trouble::Closed(error.to_string()))?;
        Ok(Self { reports, handle, told })
    }

    /// The next report; at most `limit` is waited for it. `Ended` if it is time to stop and nothing
    /// has come for `grace`.
    pub(super) fn wait(
        &self,
        limit: Duration,
        grace: Duration,
        has_ended: &dyn Fn() -> bool,
    ) -> Result<Waited<R>, Trouble> {
        let (mut patience, mut grace) = (Patience::new(limit), Patience::new(grace));
        loop {
            match self.reports.recv_timeout(TICK) {
                Ok(report) => return Ok(Waited::For(report)),
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = || Trouble::Lost("its thread has ended".to_owned());
                    return Err(self.told.check().err().unwrap_or_else(ended));
                }
                Err(RecvTimeoutError::Timeout) => {
                    patience.tick();
                    grace.tick();
                    if let Err(trouble) = patience.check() {
                        // A thread that comes back after all is to break off.
                        self.told.tell(trouble.clone());
                        return Err(trouble);
                    }
                    if grace.check().is_err() && has_ended() {
                        return Ok(Waited::Ended);
                    }
                }
            }
        }
    }

    /// Waits for the thread to end, but not for ever, and not at all if it hangs.
    pub(super) fn say_goodbye(&self) {
        if let Err(Trouble::Hang(_)) = self.told.check() {
            return;
        }
        let begun = Instant::now();
        while !self.handle.is_finished() && begun.elapsed() < GOODBYE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

thread_local! {
    /// Whether a panic of this thread is caught and told.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Makes a call in which wgpu may panic, which is how it reports a device that is lost while it is
/// waited for. The panic is returned in one line, and is not printed.
pub(super) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CAUGHT.get() {
                tracing::debug!("a driver's call ends in a panic: {info}");
            } else {
                hook(info);
            }
        }));
    });
    let before = CAUGHT.replace(true);
    // Whoever is told of the panic uses nothing of what it left half done.
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(before);
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
        DeviceThread::start("a test".to_owned(), Told::default(), work).unwrap()
    }

    #[test]
    fn the_time_in_which_a_process_was_stopped_is_not_waited() {
        let (now, go) = channel();
        let thread = thread(move |reports| {
            go.recv().unwrap();
            reports.send(7).unwrap();
            // Until nobody listens.
            let _ = go.recv();
        });
        let limit = 10 * TICK;
        let looked = Cell::new(0);
        let stopped = || {
            looked.set(looked.get() + 1);
            match looked.get() {
                // As if the process were stopped here for longer than it waits.
                1 => std::thread::sleep(limit + TICK),
                2 => now.send(()).unwrap(),
                _ => {}
            }
            false
        };
        let waited = thread.wait(limit, Duration::ZERO, &stopped);
        assert!(matches!(waited, Ok(Waited::For(7))), "after {} looks", looked.get());
        // Now nothing comes at all.
        let error = thread.wait(limit, Duration::ZERO, &|| false).err();
        assert_eq!(error, Some(Trouble::Hang(limit)));
        assert_eq!(thread.told.check(), Err(Trouble::Hang(limit)), "the thread is told");
        assert!(matches!(thread.wait(limit, TICK, &|| true), Ok(Waited::Ended)));
    }

    #[test]
    fn what_a_thread_ends_with_is_told() {
        let limit = Duration::from_secs(60);
        let error = |thread: DeviceThread<u8>| thread.wait(limit, limit, &|| false).err();
        let lost = |why: &str| Some(Trouble::Lost(why.to_owned()));
        assert_eq!(error(thread(|_| {})), lost("its thread has ended"));
        let panics = |_: &Sender<u8>| panic!("Error in Device::poll:\n\n  gone\n");
        assert_eq!(error(thread(panics)), lost("Error in Device::poll: gone"));
        // The driver's own word came first.
        let told = Told::default();
        told.tell(Trouble::OutOfMemory);
        let thread = DeviceThread::start("a test".to_owned(), told, panics).unwrap();
        assert_eq!(error(thread), Some(Trouble::OutOfMemory));
    }
}
