//! The progress line: what it shows, and where it is drawn.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use tokio::sync::watch;

use super::Writer;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::engine::{Connection, RunState, Status};
use crate::event::{Announcement, Event, Summary, Tally};
use crate::printable::one_line;
use crate::units::{HashRate, grouped};

/// The line at the bottom of a terminal that shows the state of the run. Cheap to clone; hidden where
/// there is no terminal to draw on.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// No line.
    #[must_use]
    pub const fn hidden() -> Self {
        Self { bar: None }
    }

    /// A line on stderr, if that is a terminal that can be drawn on.
    #[must_use]
    pub fn on_stderr(log: &Writer) -> Self {
        if !io::stderr().is_terminal() || super::log::dumb() {
            return Self::hidden();
        }
        let style = ProgressStyle::with_template("{wide_msg}");
        let screen = Screen { log: log.clone(), drawn: Mutex::default(), terminal: Term::stderr() };
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen), 10);
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { bar: Some(bar) }
    }

    /// Whether there is a line.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        self.bar.as_ref().is_some_and(|bar| !bar.is_finished())
    }

    /// Draws the line with this text.
    pub fn show(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Takes the line away while `write` writes to the terminal.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the line away for good.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            super::log::flush();
        }
    }
}

/// A terminal that is drawn on by the thread that writes the log.
#[derive(Debug)]
struct Screen {
    log: Writer,
    /// What was drawn since the last flush.
    drawn: Mutex<Vec<u8>>,
    /// Only asked for its size.
    terminal: Term,
}

impl Screen {
    fn add(&self, text: &str) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.extend_from_slice(text.as_bytes());
    }

    /// Moves the cursor, in the given direction of ECMA-48, `n` times.
    fn move_cursor(&self, n: usize, direction: char) {
        if n > 0 {
            self.add(&format!("\u{1b}[{n}{direction}"));
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.terminal.size().1
    }

    fn height(&self) -> u16 {
        self.terminal.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D');
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        self.add("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\u{1b}[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        self.log.draw(&drawn);
        Ok(())
    }
}

/// How often the status is logged where there is no progress line.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// What the progress line shows: the engine's status, which misses nothing.
pub(super) struct Board {
    /// `None` where nothing was mined at all.
    status: Option<watch::Receiver<Status>>,
    /// When the status was logged last.
    logged_at: SystemTime,
}

impl Board {
    pub(super) fn new(status: Option<watch::Receiver<Status>>, now: SystemTime) -> Self {
        Self { status, logged_at: now }
    }

    /// The line as of now.
    pub(super) fn line(&self) -> String {
        self.status.as_ref().map_or_else(String::new, |status| line(&status.borrow()))
    }

    /// Under the twenty-minute rule: the difficulty that is mined now, for the log.
    pub(super) fn stage(&self, stage: Stage, difficulty: Difficulty) -> String {
        let rate = self.status.as_ref().map_or(HashRate::default(), |s| s.borrow().rates.seconds);
        stage_text(stage, difficulty, rate)
    }

    /// The same as [`Board::line`] every now and then, as a line for a log.
    pub(super) fn line_due(&mut self, announcement: &Announcement) -> Option<String> {
        let now = announcement.time;
        let rated = matches!(announcement.event, Event::Rate { .. });
        let due = now.duration_since(self.logged_at).map_or(true, |age| age >= STATUS_EVERY);
        (rated && due).then(|| {
            self.logged_at = now;
            self.line()
        })
    }
}

/// The progress line: rate, blocks, shares, height, time, and the connection to the source.
fn line(status: &Status) -> String {
    let mut parts = Vec::with_capacity(8);
    let rate = status.rates.seconds;
    parts.push(if status.hashes == 0 { "- H/s".to_owned() } else { rate.to_string() });
    parts.push(counted(&status.blocks, "block"));
    if status.shares != Tally::default() {
        parts.push(counted(&status.shares, "share"));
    }
    if let Some(height) = status.job.and_then(|job| job.height) {
        parts.push(format!("height {height}"));
    }
    let mined = status.mined();
    if let Some((stage, difficulty)) = mined.and_then(|source| source.stage) {
        parts.push(stage_text(stage, difficulty, rate));
    }
    parts.push(clock(Duration::from_secs(status.uptime.as_secs())));
    if let RunState::Paused(reasons) = status.run {
        parts.push(format!("paused ({reasons})"));
    }
    let connection = match mined.map(|source| source.connection) {
        None | Some(Connection::Idle | Connection::Connecting) => "connecting",
        Some(Connection::Connected) => "connected",
        Some(Connection::Lost) => "source lost",
        Some(Connection::Retrying) => "source lost, retrying",
    };
    parts.push(connection.to_owned());
    one_line(&parts.join(" · "))
}

/// Under the twenty-minute rule: the difficulty that is mined and until when, and the time that a
/// block takes on average at this rate.
fn stage_text(stage: Stage, difficulty: Difficulty, rate: HashRate) -> String {
    let mut text = match stage {
        Stage::PeriodStart => format!("difficulty {difficulty} (a period's first block)"),
        Stage::Period { last } => {
            format!("difficulty {difficulty} until {} UTC, then the lowest", time_of_day(last))
        }
        Stage::Minimum { .. } => {
            format!("difficulty {difficulty}, the lowest, until a block comes")
        }
    };
    let rate = rate.to_f64();
    if rate > 0.0 {
        let seconds = difficulty.expected_hashes() / rate;
        let _ = write!(text, ", a block takes {} on average", rough_time(seconds));
    }
    text
}

/// The mean rate of the whole run.
pub(super) fn overall(summary: &Summary) -> HashRate {
    HashRate::of(summary.hashes, summary.elapsed.as_secs_f64())
}

/// `12 blocks`, `1 block`, `13 blocks (1 not accepted)`.
fn counted(tally: &Tally, what: &str) -> String {
    let not_accepted = tally.total() - tally.accepted;
    let s = if tally.accepted == 1 { "" } else { "s" };
    let text = format!("{} {what}{s}", grouped(tally.accepted));
    match not_accepted {
        0 => text,
        n => format!("{text} ({} not accepted)", grouped(n)),
    }
}

/// `1 accepted, 0 rejected, 0 stale, 0 unknown`.
pub(super) fn tally(tally: &Tally) -> String {
    format!(
        "{} accepted, {} rejected, {} stale, {} unknown",
        grouped(tally.accepted),
        grouped(tally.rejected),
        grouped(tally.stale),
        grouped(tally.unknown)
    )
}

/// `0:12`, `1:02:03`; milliseconds where there are some.
pub(super) fn clock(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let text = match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    };
    if milliseconds == 0 { text } else { format!("{text}.{milliseconds:03}") }
}

/// The time of day in UTC of these seconds since 1970.
fn time_of_day(seconds: u32) -> String {
    let seconds = seconds % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `41 s`, `12 min`, `3.4 h`, `5.1 days`, `2.0 years`.
fn rough_time(seconds: f64) -> String {
    const YEAR: f64 = 365.25 * 86_400.0;
    match seconds {
        s if s < 0.95 => "less than a second".to_owned(),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 99.5 * 60.0 => format!("{:.0} min", s / 60.0),
        s if s < 48.0 * 3_600.0 => format!("{:.1} h", s / 3_600.0),
        s if s < 730.0 * 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s if s < 9_999.0 * YEAR => format!("{:.1} years", s / YEAR),
        s => format!("{:.1e} years", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::super::tests::at;
    use super::*;
    use crate::chain::target::Target;
    use crate::engine::{JobStatus, Rates, SourceStatus};
    use crate::event::{PauseReason, PauseReasons};
    use crate::job::SourceId;

    fn status() -> Status {
        let source = SourceStatus {
            id: SourceId(0),
            name: "a".to_owned(),
            kind: "test",
            connection: Connection::Connecting,
            reason: None,
            is_mined: true,
            network: None,
            difficulty: None,
            stage: None,
            latency: None,
            last_share: None,
            last_share_difficulty: None,
            shares: Tally::default(),
            blocks: Tally::default(),
            reject_reasons: Vec::new(),
            other_rejects: 0,
        };
        Status {
            run: RunState::Starting,
            started: at(0),
            uptime: Duration::ZERO,
            hashes: 0,
            rates: Rates::default(),
            backends: Vec::new(),
            sources: vec![source],
            job: None,
            shares: Tally::default(),
            blocks: Tally::default(),
            best_difficulty: None,
            last_block: None,
            hardware_errors: 0,
            events_lost: 0,
        }
    }

    #[test]
    fn the_line_shows_the_state_of_the_run() {
        let mut status = status();
        assert_eq!(line(&status), "- H/s · 0 blocks · 0:00 · connecting");
        let difficulty = Target::DIFFICULTY_1.difficulty();
        status.job = Some(JobStatus {
            height: Some(7),
            previous_block_hash: bitcoin::BlockHash::all_zeros(),
            difficulty,
            network_difficulty: difficulty,
            received: at(0),
        });
        status.hashes = 1;
        status.rates.seconds = HashRate::from_f64(1_500_000.0);
        status.blocks = Tally { accepted: 1, rejected: 1, ..Tally::default() };
        status.shares = Tally { stale: 1, ..Tally::default() };
        status.uptime = Duration::from_millis(3_725_900);
        status.sources[0].connection = Connection::Retrying;
        let counts = "1.500 MH/s · 1 block (1 not accepted) · 0 shares (1 not accepted) · height 7 · 1:02:05";
        assert_eq!(line(&status), format!("{counts} · source lost, retrying"));
        let reasons = PauseReasons::default().with(PauseReason::User);
        status.run = RunState::Paused(reasons);
        status.sources[0].connection = Connection::Connected;
        assert_eq!(line(&status), format!("{counts} · paused (user) · connected"));
    }

    #[test]
    fn the_difficulty_is_told_where_it_changes_with_time() {
        let difficulty = Target::DIFFICULTY_1.difficulty();
        let rate = HashRate::from_f64(150_000_000.0);
        let mut status = status();
        status.rates.seconds = rate;
        status.sources[0].stage = Some((Stage::Minimum { from: 9 }, difficulty));
        let lowest = "difficulty 1, the lowest, until a block comes";
        assert_eq!(stage_text(Stage::Minimum { from: 9 }, difficulty, HashRate::default()), lowest);
        let line = line(&status);
        let average = format!("{lowest}, a block takes 29 s on average");
        assert!(line.contains(&average), "{line}");
        let stage = Stage::Period { last: 1_700_000_000 };
        let until = Board::new(None, at(0)).stage(stage, difficulty);
        assert!(until.contains("until 22:13:20 UTC, then the lowest"), "{until}");
        let times = [0.1, 29.4, 700.0, 9_000.0, 400_000.0, 1e9, 1e17].map(rough_time);
        assert_eq!(
            times.map(|time| time.replace(' ', "")),
            ["lessthanasecond", "29s", "12min", "2.5h", "4.6days", "31.7years", "3.2e9years"]
        );
    }

    #[test]
    fn a_log_gets_the_status_now_and_then() {
        let mut board = Board::new(None, at(0));
        let rate = |time| Announcement {
            time,
            event: Event::Rate { total: HashRate::of(1, 1.0), backends: vec![] },
        };
        let due: Vec<_> =
            [5, 29, 30, 31, 59, 60].map(|s| board.line_due(&rate(at(s * 1_000))).is_some()).into();
        assert_eq!(due, [false, false, true, false, false, true]);
    }
}
