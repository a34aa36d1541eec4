//! SIGINT, SIGTERM and SIGHUP: the first asks for an end, the second ends at once. On Unix, SIGUSR1
//! asks for a pause and SIGUSR2 for the end of it.
//!
//! What the first one does depends on what runs. A command that has something to bring to its end
//! (`mine`: the answers on their way and the summary) says so by [`Signals::ends_cleanly`], and is
//! told of the signal. Everything else is ended at once: it has printed nothing yet, and what it
//! waits for, a driver or a reader, may never come.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fmt, io, thread};

use tokio::sync::watch;

use crate::exit::Exit;

/// How long the command line and the configuration file may take to be read after a signal.
const UNDECIDED: Duration = Duration::from_secs(2);

/// What the first signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It is not known yet which command runs.
    Undecided,
    /// It ends the process.
    AtOnce,
    /// The command is told and ends by itself, within this time.
    Clean(Duration),
}

/// Listens for signals. Cheap to clone.
#[derive(Clone)]
pub struct Signals {
    received: watch::Receiver<Option<Exit>>,
    /// Whether the last signal of that kind asked for a pause or for the end of one.
    pause: watch::Receiver<Option<bool>>,
    ending: watch::Sender<Ending>,
    last_act: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("received", &self.received).finish_non_exhaustive()
    }
}

/// As long as this lives, a signal is told to the command instead of ending the process.
#[derive(Debug)]
pub struct EndsCleanly(watch::Sender<Ending>);

impl Drop for EndsCleanly {
    fn drop(&mut self) {
        self.0.send_replace(Ending::AtOnce);
    }
}

impl Signals {
    /// Starts listening, on a thread of its own: so a second signal is heard whatever else hangs.
    /// From now on, a write beyond the limit on a file's size (`ulimit -f`) fails instead of ending
    /// the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed, or there is no thread to be had.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        files_for_tokio()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut incoming = {
            let _context = runtime.enter();
            Incoming::new()?
        };
        let (tell, received) = watch::channel(None);
        let (tell_pause, pause) = watch::channel(None);
        let signals = Self {
            received,
            pause,
            ending: watch::Sender::new(Ending::Undecided),
            last_act: Arc::default(),
        };
        let Self { ending, last_act, .. } = signals.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let exit = runtime.block_on(async move {
                let first = loop {
                    match incoming.next().await {
                        Received::End(exit) => break exit,
                        Received::Pause(pause) => {
                            tell_pause.send_replace(Some(pause));
                        }
                    }
                };
                tell.send_replace(Some(first));
                let second = async {
                    loop {
                        if let Received::End(exit) = incoming.next().await {
                            return exit;
                        }
                    }
                };
                tokio::select! {
                    second = second => second,
                    () = end_is_due(ending) => first,
                }
            });
            if let Some(act) = last_act.get() {
                act();
            }
            leave(exit);
        })?;
        Ok(signals)
    }

    /// Sets what is done right before a signal ends the process, such as to leave a terminal in
    /// order. It must come back soon. Only the first call counts.
    pub fn before_the_end(&self, act: impl Fn() + Send + Sync + 'static) {
        let _ = self.last_act.set(Box::new(act));
    }

    /// A signal ends the process from now on. To be called once it is known what runs.
    pub fn end_at_once(&self) {
        self.ending.send_replace(Ending::AtOnce);
    }

    /// A signal is told to the caller, until what is returned is dropped. It ends the process all the
    /// same where that takes longer than `timeout`.
    #[must_use]
    pub fn ends_cleanly(&self, timeout: Duration) -> EndsCleanly {
        self.ending.send_replace(Ending::Clean(timeout));
        EndsCleanly(self.ending.clone())
    }

    /// Whether a signal asked for the end, as the exit code it leads to.
    #[must_use]
    pub fn received(&self) -> Option<Exit> {
        *self.received.borrow()
    }

    /// Whether a pause (`true`) or the end of one (`false`) was asked for last; `None` while neither
    /// was.
    #[must_use]
    pub fn pause_requests(&self) -> watch::Receiver<Option<bool>> {
        self.pause.clone()
    }

    /// Waits for the first signal that asks for the end.
    pub async fn stop(&self) -> Exit {
        let mut received = self.received.clone();
        match received.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            _ => std::future::pending().await,
        }
    }
}

/// Ends the process at once. What C libraries have registered for the end of a process is not run: a
/// graphics driver that another thread is loading or using at that moment crashes in it.
pub fn leave(exit: Exit) -> ! {
    let code = exit.code().into();
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(not(unix))]
    std::process::exit(code);
}

/// Comes back when the process is to be ended after the first signal.
async fn end_is_due(ending: watch::Sender<Ending>) {
    let mut ending = ending.subscribe();
    let mut leaves = async |one: Ending, time| {
        let left = ending.wait_for(|ending| *ending != one);
        let left = tokio::time::timeout(time, left).await;
        left.ok().and_then(Result::ok).map(|ending| *ending)
    };
    if let Some(clean @ Ending::Clean(timeout)) = leaves(Ending::Undecided, UNDECIDED).await {
        leaves(clean, timeout).await;
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
enum Received {
    /// The end, with this exit code.
    End(Exit),
    /// A pause, or the end of one.
    #[cfg_attr(windows, expect(dead_code, reason = "Windows has no such signals"))]
    Pause(bool),
}

#[cfg(unix)]
struct Incoming {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` where it is ignored: `nohup` starts programs so, and they go on without a terminal.
    hang_up: Option<tokio::signal::unix::Signal>,
    pause: tokio::signal::unix::Signal,
    resume: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Incoming {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays when what is returned is dropped, and is all that it takes.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
        let hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Received {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Received::End(Exit::Interrupted),
            _ = self.terminate.recv() => Received::End(Exit::Terminated),
            _ = hang_up => Received::End(Exit::HungUp),
            _ = self.pause.recv() => Received::Pause(true),
            _ = self.resume.recv() => Received::Pause(false),
        }
    }
}

/// Fails where there are not as many files to be had as tokio opens to hear of signals (of three
/// pairs): it panics when it gets the first of them and not the last.
#[cfg(unix)]
fn files_for_tokio() -> io::Result<()> {
    let pair = std::os::unix::net::UnixStream::pair;
    drop((pair()?, pair()?, pair()?));
    Ok(())
}

/// Whether SIGHUP was ignored when we were started, as far as the system tells: where it does not,
/// the signal is left as it is.
#[cfg(unix)]
fn hang_up_is_ignored() -> bool {
    // Linux: the mask of ignored signals in hex, the lowest bit for signal 1, which is SIGHUP.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & 1 == 1)
}

#[cfg(windows)]
struct Incoming(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Incoming {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> Received {
        self.0.recv().await;
        Received::End(Exit::Interrupted)
    }
}
