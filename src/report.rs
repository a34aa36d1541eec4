//! Shows what is announced: lines for the user or JSON for scripts on stdout, progress and log on
//! stderr. Nothing waits for it.

mod json;
mod lines;
pub mod log;
mod progress;
mod writer;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use json::Json;
use lines::Lines;
use progress::Board;
pub use progress::Progress;
use tokio::sync::watch;
pub use writer::{Stream, Writer};

use crate::chain::params::Params;
use crate::engine::Status;
use crate::event::{Announcement, Event, Listener, Summary};
use crate::printable::one_line;

/// What stdout carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for the user.
    Lines,
    /// One JSON object a line.
    Json,
}

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader of stdout has closed it. That is no failure, and reason enough to stop.
    #[error("stdout was closed")]
    Closed,
    /// The reader of stdout takes nothing for this long, though it has not closed it.
    #[error("stdout: its reader took nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Anything else, such as a full disk.
    #[error("stdout")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Writes a whole result to stdout.
///
/// # Errors
/// When stdout does not take it.
pub fn print(text: &str) -> Result<(), OutputError> {
    // On a terminal the log comes first.
    log::flush();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(OutputError::from)
}

/// What the report came to.
#[derive(Debug)]
pub struct Outcome {
    /// The run in figures, if it was announced.
    pub summary: Option<Summary>,
    /// Whether everything reached stdout.
    pub output: Result<(), OutputError>,
}

/// The thread that shows what is announced.
#[derive(Debug)]
pub struct Report {
    thread: JoinHandle<Outcome>,
}

impl Report {
    /// Starts showing what comes out of `events` until the summary came or all senders are gone, and
    /// a progress line of `status`, where something is mined.
    ///
    /// When stdout takes no more, `on_output_lost` is called once and it goes on without, up to the
    /// end of the events. A reader that stalls is not waited for: what it does not take is dropped
    /// and counted.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        events: Listener,
        status: Option<watch::Receiver<Status>>,
        format: Format,
        progress: Progress,
        log: &Writer,
        on_output_lost: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let out = Writer::for_results(log)?;
        out.on_failure(on_output_lost);
        let terminal = io::stdout().is_terminal();
        let view: Box<dyn View> = match format {
            Format::Json => Box::new(Json),
            Format::Lines => Box::new(Lines::new(terminal, terminal && log::colours())),
        };
        let show = Show {
            view,
            board: Board::new(status, SystemTime::now()),
            // Only on a shared terminal do result lines and the progress line meet.
            line_below: if terminal { progress.clone() } else { Progress::hidden() },
            progress,
            plain_status: format == Format::Lines,
            out,
            pending: Vec::new(),
            busy: false,
            lost: None,
            dropped: 0,
        };
        let thread =
            thread::Builder::new().name("report".into()).spawn(move || show.run(&events))?;
        Ok(Self { thread })
    }

    /// Waits for the end and says what it came to.
    #[must_use]
    pub fn join(self) -> Outcome {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Turns events into what stdout carries. It does not write it.
trait View: Send {
    /// Adds what the event looks like.
    fn event(&mut self, announcement: &Announcement, out: &mut Vec<u8>);

    /// Adds what was held back and is due. Called now and then, and before the end.
    fn tick(&mut self, _now: SystemTime, _out: &mut Vec<u8>) {}

    /// Whether there is anything to be due.
    fn ticks(&self) -> bool {
        false
    }
}

/// How often the progress line is drawn and held-back lines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long a listener that has shown something waits for more before it waits for a wake-up.
const COALESCE: Duration = Duration::from_millis(4);

/// How many bytes are collected at most before they are written.
const PENDING_MAX: usize = 64 * 1024;

/// How long the reader of stdout may take nothing at the end before what is left is given up.
const LAST_RESULTS: Duration = Duration::from_secs(5);

struct Show {
    view: Box<dyn View>,
    board: Board,
    progress: Progress,
    line_below: Progress,
    plain_status: bool,
    out: Writer,
    pending: Vec<u8>,
    /// Whether there was something to show since the last wait.
    busy: bool,
    lost: Option<OutputError>,
    /// Lines that stdout's reader did not keep up with.
    dropped: u64,
}

impl Show {
    fn run(mut self, events: &Listener) -> Outcome {
        let mut summary = None;
        let mut next_tick = SystemTime::now();
        while let Some(announcement) = self.next(events, &mut next_tick) {
            self.take(&announcement);
            if let Event::Summary(figures) = announcement.event {
                summary = Some(figures);
                break;
            }
            self.tick(&mut next_tick);
        }
        self.view.tick(SystemTime::now() + Duration::from_secs(3_600), &mut self.pending);
        // The summary comes always.
        self.write(true);
        self.progress.finish();
        if !self.out.drain(LAST_RESULTS) {
            self.lost = Some(OutputError::Stalled(LAST_RESULTS));
        }
        if let Some(error) = self.out.failure() {
            self.lost = Some(error);
        }
        let events_lost = events.lost();
        if summary.is_some() && events_lost > 0 {
            tracing::warn!(
                "{events_lost} events came too fast to be shown; the summary counts them all"
            );
        }
        if self.dropped > 0 {
            tracing::warn!(
                "{} lines of results were dropped: stdout was not read; the summary counts them all",
                self.dropped
            );
        }
        Outcome { summary, output: self.lost.map_or(Ok(()), Err) }
    }

    /// The next event. What is pending is written before there is anything to wait for.
    fn next(&mut self, events: &Listener, next_tick: &mut SystemTime) -> Option<Announcement> {
        loop {
            match events.try_recv() {
                Ok(announcement) => return Some(announcement),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.flush(),
            }
            if std::mem::take(&mut self.busy) {
                // Where one event came, more may follow: waking for each of thousands a second
                // would take time from the threads that announce them.
                thread::sleep(COALESCE);
                continue;
            }
            self.busy = true;
            if !self.progress.is_shown() && !self.view.ticks() {
                return events.recv().ok();
            }
            match events.recv_timeout(TICK) {
                Ok(announcement) => return Some(announcement),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.tick(next_tick),
            }
        }
    }

    fn take(&mut self, announcement: &Announcement) {
        if matches!(announcement.event, Event::Summary(_)) {
            // What was held back comes before the summary, and no progress after it.
            self.view.tick(SystemTime::now() + Duration::from_secs(3_600), &mut self.pending);
            self.progress.finish();
        }
        self.view.event(announcement, &mut self.pending);
        log_event(&announcement.event);
        if let Event::Stage { stage, difficulty, .. } = announcement.event {
            tracing::info!("{}", one_line(&self.board.stage(stage, difficulty)));
        }
        if self.plain_status
            && !self.progress.is_shown()
            && let Some(status) = self.board.line_due(announcement)
        {
            tracing::info!("{status}");
        }
        // The summary is handed over by itself, since it must not be dropped.
        if self.pending.len() > PENDING_MAX && !matches!(announcement.event, Event::Summary(_)) {
            self.flush();
        }
    }

    fn tick(&mut self, next_tick: &mut SystemTime) {
        let now = SystemTime::now();
        // A clock that was set back must not stop the ticks.
        let wait = next_tick.duration_since(now).unwrap_or_default();
        if wait.is_zero() || wait > TICK {
            *next_tick = now + TICK;
            self.view.tick(now, &mut self.pending);
            // However busy it is: no line is held back longer than this.
            self.flush();
            if self.progress.is_shown() {
                self.progress.show(&self.board.line());
            }
        }
    }

    fn flush(&mut self) {
        self.write(false);
    }

    /// Hands over what is pending; even where there is no room, if it is the `last`.
    fn write(&mut self, last: bool) {
        if self.lost.is_none() {
            self.lost = self.out.failure();
        }
        if !self.pending.is_empty() && self.lost.is_none() {
            let Self { out, pending, .. } = &*self;
            out.wait_for_room(pending.len());
            let taken = self.line_below.suspend(|| {
                if last {
                    out.insist(Stream::Stdout, pending);
                }
                last || out.results(pending)
            });
            if !taken {
                self.dropped += pending.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        }
        self.pending.clear();
    }
}

/// Logs what of an event goes in the log.
fn log_event(event: &Event) {
    use crate::event::SourceState;
    match event {
        Event::Started { source, network, backends, .. } => {
            // A pool does not tell its chain.
            let chain = network.map_or("", |chain| Params::of(chain).name);
            let on = if chain.is_empty() { "" } else { " on " };
            let backends: Vec<_> = backends
                .iter()
                .map(|b| {
                    let s = if b.threads == 1 { "" } else { "s" };
                    let threads = format!("{} thread{s}", b.threads);
                    format!("{} {} on {} ({threads})", b.id.kind(), b.kernel, b.device)
                })
                .collect();
            tracing::info!(
                "mining{on}{chain} from {} with {}",
                one_line(source),
                one_line(&backends.join(", "))
            );
        }
        Event::Job { height, previous_block_hash, difficulty, clean, .. } => {
            tracing::debug!(
                height,
                %previous_block_hash,
                difficulty = difficulty.to_f64(),
                clean,
                "new job"
            );
        }
        Event::Source { state, source, reason, .. } => {
            let source = one_line(source);
            let reason = reason.as_deref().map(one_line).unwrap_or_default();
            let gap = if reason.is_empty() { "" } else { ": " };
            match state {
                SourceState::Connected => tracing::info!("{source}: connected{gap}{reason}"),
                SourceState::Lost => tracing::warn!("{source}: lost{gap}{reason}"),
                SourceState::Retrying => tracing::warn!("{source}: retrying{gap}{reason}"),
            }
        }
        Event::HardwareError { backend, detail } => {
            tracing::error!("hardware error on {backend}: {}", one_line(detail));
        }
        Event::BackendFailed { backend, reason } => {
            tracing::error!("backend {backend} has failed and is disabled: {}", one_line(reason));
        }
        Event::Paused(reasons) if reasons.is_empty() => tracing::info!("resumed"),
        Event::Paused(reasons) => tracing::info!("paused ({reasons})"),
        Event::Notice(text) => tracing::info!("{}", one_line(text)),
        Event::Share { .. }
        | Event::Block { .. }
        | Event::Rate { .. }
        // The board knows the rate that goes with it.
        | Event::Stage { .. }
        | Event::Summary(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use bitcoin::hashes::Hash as _;
    use bitcoin::{BlockHash, Network};

    use super::*;
    use crate::chain::target::Target;
    use crate::event::{Announcer, SourceState, Tally};
    use crate::job::{RejectReason, SourceId, Verdict};
    use crate::scan::{BackendId, BackendInfo};
    use crate::units::HashRate;

    /// A time with a fraction.
    pub(super) fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
    }

    pub(super) fn backend() -> BackendInfo {
        BackendInfo {
            id: BackendId::Cpu("sha2"),
            kernel: "sha2".into(),
            device: "A CPU".into(),
            threads: 2,
        }
    }

    pub(super) fn block(height: Option<u32>, verdict: Verdict) -> Event {
        let header = bitcoin::constants::genesis_block(Network::Regtest).header;
        let hash = header.block_hash();
        Event::Block {
            source: SourceId(0),
            verdict,
            height,
            header,
            hash,
            was_unknown: false,
            resent: false,
        }
    }

    pub(super) fn rejected() -> Verdict {
        Verdict::Rejected(RejectReason::new("high-hash", "the hash does not meet the target"))
    }

    pub(super) fn summary(events_lost: u64) -> Event {
        Event::Summary(Summary {
            elapsed: Duration::from_millis(12_345),
            hashes: 1_234_567_890,
            blocks: Tally { accepted: 1_234, rejected: 1, stale: 2, unknown: 3 },
            shares: Tally::default(),
            hardware_errors: 0,
            events_lost,
        })
    }

    pub(super) fn all_events() -> Vec<Event> {
        let difficulty = Target::DIFFICULTY_1.difficulty();
        let hash = BlockHash::all_zeros();
        let source = SourceId(0);
        vec![
            Event::Started {
                id: source,
                source: "builtin".into(),
                network: Some(Network::Regtest),
                backends: vec![backend()],
            },
            Event::Source {
                state: SourceState::Retrying,
                id: source,
                source: "http://h:1".into(),
                reason: Some("it said\u{1b}[31m \"no\"".into()),
            },
            Event::Job {
                source,
                height: Some(7),
                previous_block_hash: hash,
                difficulty,
                clean: true,
            },
            Event::Share {
                source,
                verdict: Verdict::Stale(RejectReason::new("", "too late")),
                difficulty,
                hash,
                latency: Duration::from_millis(12),
            },
            block(Some(7), Verdict::Accepted),
            block(None, rejected()),
            Event::Rate {
                total: HashRate::of(3_000_000, 2.0),
                backends: vec![(backend(), HashRate::of(3_000_000, 2.0))],
            },
            Event::HardwareError { backend: backend().id, detail: "H7 differs".into() },
            Event::Notice("for the log only".into()),
            summary(0),
        ]
    }

    pub(super) fn rendered(view: &mut dyn View, events: Vec<Event>) -> String {
        let mut out = Vec::new();
        for event in events {
            view.event(&Announcement { time: at(123), event }, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    /// Writes to memory and counts the writes; refuses when told to.
    #[derive(Clone, Default)]
    struct Sink {
        bytes: Arc<Mutex<Vec<u8>>>,
        writes: Arc<AtomicUsize>,
        refuses: Option<io::ErrorKind>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.refuses {
                return Err(kind.into());
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.bytes.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn show(sink: &Sink, view: impl View + 'static, lost: &Arc<AtomicUsize>) -> Show {
        let lost = Arc::clone(lost);
        let out = [Box::new(sink.clone()) as Box<dyn Write + Send>, Box::new(io::sink())];
        let out = Writer::start("test", out).unwrap();
        out.on_failure(move || {
            lost.fetch_add(1, Ordering::Relaxed);
        });
        Show {
            view: Box::new(view),
            board: Board::new(None, at(0)),
            progress: Progress::hidden(),
            line_below: Progress::hidden(),
            plain_status: true,
            out,
            pending: Vec::new(),
            busy: false,
            lost: None,
            dropped: 0,
        }
    }

    #[test]
    fn a_flood_of_blocks_is_shown_in_full_and_in_few_writes() {
        let (announcer, events) = Announcer::new();
        for height in 0..50_000 {
            announcer.announce(block(Some(height), Verdict::Accepted));
        }
        announcer.announce(summary(0));
        let (sink, lost) = (Sink::default(), Arc::default());
        let start = std::time::Instant::now();
        let outcome = show(&sink, Lines::new(false, false), &lost).run(&events);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(outcome.output.is_ok() && outcome.summary.is_some());
        let text = String::from_utf8(sink.bytes.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("block ")).count(), 50_000);
        // Many lines in each: one has about a hundred bytes.
        assert!(sink.writes.load(Ordering::Relaxed) < 5_000);
    }

    #[test]
    fn a_closed_stdout_is_told_once_and_events_go_on() {
        for (kind, closed) in
            [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)]
        {
            let (announcer, events) = Announcer::new();
            let sink = Sink { refuses: Some(kind), ..Sink::default() };
            let lost = Arc::default();
            let show = show(&sink, Json, &lost);
            let thread = thread::spawn(move || show.run(&events));
            for height in 0..3 {
                announcer.announce(block(Some(height), Verdict::Accepted));
                thread::sleep(Duration::from_millis(5));
            }
            announcer.announce(summary(0));
            let outcome = thread.join().unwrap();
            assert_eq!(lost.load(Ordering::Relaxed), 1);
            assert_eq!(matches!(outcome.output, Err(OutputError::Closed)), closed);
            assert!(outcome.summary.is_some() && outcome.output.is_err());
        }
    }

    #[test]
    fn it_ends_with_the_summary_or_with_the_last_sender() {
        let (announcer, events) = Announcer::new();
        announcer.announce(summary(0));
        announcer.announce(block(Some(1), Verdict::Accepted));
        let sink = Sink::default();
        assert!(show(&sink, Json, &Arc::default()).run(&events).summary.is_some());
        let text = String::from_utf8(sink.bytes.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);

        let (announcer, events) = Announcer::new();
        announcer.announce(block(Some(1), Verdict::Accepted));
        drop(announcer);
        let sink = Sink::default();
        assert!(show(&sink, Json, &Arc::default()).run(&events).summary.is_none());
        assert!(!sink.bytes.lock().unwrap().is_empty());
    }

    #[test]
    fn a_lone_event_is_not_held_back() {
        let (announcer, events) = Announcer::new();
        let sink = Sink::default();
        let show = show(&sink, Json, &Arc::default());
        let thread = thread::spawn(move || show.run(&events));
        announcer.announce(block(Some(1), Verdict::Accepted));
        let start = std::time::Instant::now();
        while sink.bytes.lock().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
        drop(announcer);
        thread.join().unwrap();
    }
}
