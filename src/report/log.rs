//! The log on stderr.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{Progress, Stream, Writer};

/// How much is logged, and in which form.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// How often `-q` was given.
    pub quiet: u8,
    /// How often `-v` was given.
    pub verbose: u8,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Whether the terminal says of itself that it can only add lines.
pub(super) fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether colours are wanted where there is a terminal.
pub(super) fn colours() -> bool {
    !dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is logged: of ourselves, what a user should know, and more or less of it as `-v` and `-q`
/// say. What the crates we use log is about them (a Vulkan layer, a driver): it comes with `-v`, which
/// shows whose line it is. What of it concerns the user is an error of ours as well.
fn levels(options: LogOptions) -> Targets {
    let (ours, theirs) = match (options.quiet, options.verbose) {
        (2.., _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (1, _) => (LevelFilter::WARN, LevelFilter::OFF),
        (0, 0) => (LevelFilter::INFO, LevelFilter::OFF),
        (0, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
        (0, _) => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new().with_default(theirs).with_target("adit", ours)
}

/// The whole process's, like the subscriber that writes to it.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// How long the reader of stderr may take nothing before it is not waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until what was logged is written, if its reader reads.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        let _ = writer.drain(DRAIN_TIMEOUT);
    }
}

/// Writes `text` to stderr behind what was logged, and waits for it as [`flush`] does.
pub fn write(writer: &Writer, text: &str) {
    writer.insist(Stream::Stderr, text.as_bytes());
    let _ = writer.drain(DRAIN_TIMEOUT);
}

/// Sets the log up for the whole process. To be called once; a second call changes nothing.
pub fn init(options: LogOptions, progress: &Progress, log: &Writer) {
    let _ = WRITER.set(log.clone());
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(AroundProgress { progress: progress.clone(), log: log.clone() })
        .with_ansi(terminal && colours())
        .with_target(options.verbose > 0);
    let registry = tracing_subscriber::registry().with(levels(options));
    // On a terminal the time is known; in a file that is read later it is not.
    let _ = match (options.json, terminal) {
        (true, _) => registry.with(layer.json().flatten_event(true)).try_init(),
        (false, true) => registry.with(layer.without_time()).try_init(),
        (false, false) => registry.with(layer).try_init(),
    };
}

/// Writes to stderr with the progress line out of the way.
#[derive(Clone)]
struct AroundProgress {
    progress: Progress,
    log: Writer,
}

impl<'a> MakeWriter<'a> for AroundProgress {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for AroundProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The subscriber hands over whole lines.
        self.progress.suspend(|| self.log.log(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn logs(quiet: u8, verbose: u8, target: &str, level: Level) -> bool {
        let options = LogOptions { quiet, verbose, json: false };
        levels(options).would_enable(target, &level)
    }

    #[test]
    fn quiet_and_verbose_change_what_is_logged() {
        assert!(logs(0, 0, "adit::report", Level::INFO));
        assert!(!logs(0, 0, "adit::report", Level::DEBUG));
        assert!(!logs(0, 1, "hyper", Level::INFO) && logs(0, 1, "hyper", Level::WARN));
        // A driver's complaint is no error of ours.
        let theirs = |quiet, verbose| logs(quiet, verbose, "wgpu_hal::vulkan", Level::ERROR);
        assert!(!theirs(0, 0) && !theirs(1, 0) && !theirs(2, 0));
        assert!(theirs(0, 1) && theirs(0, 2));
        assert!(logs(0, 1, "adit", Level::DEBUG) && logs(0, 2, "adit", Level::TRACE));
        assert!(!logs(1, 0, "adit", Level::INFO) && logs(1, 0, "adit", Level::WARN));
        assert!(!logs(2, 0, "adit", Level::WARN) && logs(9, 0, "adit", Level::ERROR));
    }
}
