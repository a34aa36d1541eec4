//! SIGINT and SIGTERM: the first asks for a clean end, the second ends at once.

use std::io;
use std::thread;

use tokio::sync::watch;

use crate::exit::Exit;

/// Listens for the signals that ask us to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Signals {
    received: watch::Receiver<Option<Exit>>,
}

impl Signals {
    /// Starts listening, on a thread of its own: so a second signal is heard whatever else hangs.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut incoming = {
            let _context = runtime.enter();
            Incoming::new()?
        };
        let (tell, received) = watch::channel(None);
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async move {
                let first = incoming.next().await;
                tell.send_replace(Some(first));
                let second = incoming.next().await;
                std::process::exit(second.code().into());
            });
        })?;
        Ok(Self { received })
    }

    /// Whether a signal came, as the exit code it leads to.
    #[must_use]
    pub fn received(&self) -> Option<Exit> {
        *self.received.borrow()
    }

    /// Waits for the first signal.
    pub async fn stop(&self) -> Exit {
        let mut received = self.received.clone();
        match received.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Incoming {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Incoming {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

#[cfg(windows)]
struct Incoming(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Incoming {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> Exit {
        self.0.recv().await;
        Exit::Interrupted
    }
}
