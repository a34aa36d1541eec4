//! The progress line: what it says, and where it is drawn.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::Writer;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::Difficulty;
use crate::event::{Announcement, Event, SourceState, Summary, Tally};
use crate::printable::one_line;
use crate::units::{HashRate, grouped};

/// The line at the bottom of a terminal that says how it goes. Cheap to clone; hidden where there
/// is no terminal to draw on.
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

    /// A line on stderr if that is a terminal that one can draw on.
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

    /// Draws the line anew.
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

/// What the progress line speaks of.
pub(super) struct Board {
    started: SystemTime,
    rate: Option<HashRate>,
    blocks: Tally,
    shares: Tally,
    height: Option<u32>,
    source: Option<SourceState>,
    stage: Option<(Stage, Difficulty)>,
    /// The source that was last said to be connected.
    mined: Option<String>,
    status_at: SystemTime,
}

impl Board {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            started: now,
            rate: None,
            blocks: Tally::default(),
            shares: Tally::default(),
            height: None,
            source: None,
            stage: None,
            mined: None,
            status_at: now,
        }
    }

    pub(super) fn note(&mut self, announcement: &Announcement) {
        match &announcement.event {
            Event::Started { .. } => self.source = Some(SourceState::Connected),
            Event::Job { height, .. } => self.height = *height,
            Event::Share { verdict, .. } => self.shares.count(verdict),
            Event::Block { verdict, was_unknown, .. } => {
                let unknown = &mut self.blocks.unknown;
                *unknown = unknown.saturating_sub(u64::from(*was_unknown));
                self.blocks.count(verdict);
            }
            Event::Rate { total, .. } => self.rate = Some(*total),
            Event::Stage { stage, difficulty } => self.stage = Some((*stage, *difficulty)),
            Event::Source { state, source, .. } => {
                // One of several that has no luck is no news while another is mined.
                let is_mined = self.mined.as_ref().is_none_or(|mined| mined == source);
                if *state == SourceState::Connected {
                    self.mined = Some(source.clone());
                }
                if is_mined || *state == SourceState::Connected {
                    self.source = Some(*state);
                }
            }
            Event::HardwareError { .. }
            | Event::BackendFailed(_)
            | Event::Notice(_)
            | Event::Summary(_) => {}
        }
    }

    /// Under the twenty-minute rule: the difficulty that is mined and until when, and the time that
    /// a block takes on the average.
    pub(super) fn stage(&self) -> Option<String> {
        let (stage, difficulty) = self.stage?;
        let mut text = match stage {
            Stage::PeriodStart => format!("difficulty {difficulty} (a period's first block)"),
            Stage::Period { last } => {
                format!("difficulty {difficulty} until {} UTC, then the lowest", time_of_day(last))
            }
            Stage::Minimum { .. } => {
                format!("difficulty {difficulty}, the lowest, until a block comes")
            }
        };
        let rate = self.rate.map_or(0.0, HashRate::to_f64);
        if rate > 0.0 {
            let seconds = difficulty.expected_hashes() / rate;
            let _ = write!(text, ", a block takes {} on the average", rough_time(seconds));
        }
        Some(text)
    }

    /// The line: rate, blocks, shares, height, time, and the source where it is not well.
    pub(super) fn status(&self, now: SystemTime) -> String {
        let mut parts = Vec::with_capacity(6);
        parts.push(self.rate.map_or_else(|| "- H/s".to_owned(), |rate| rate.to_string()));
        parts.push(counted(&self.blocks, "block"));
        if self.shares != Tally::default() {
            parts.push(counted(&self.shares, "share"));
        }
        if let Some(height) = self.height {
            parts.push(format!("height {height}"));
        }
        parts.extend(self.stage());
        let elapsed = now.duration_since(self.started).unwrap_or_default();
        parts.push(clock(Duration::from_secs(elapsed.as_secs())));
        match self.source {
            None => parts.push("connecting".to_owned()),
            Some(SourceState::Connected) => parts.push("connected".to_owned()),
            Some(SourceState::Lost) => parts.push("source lost".to_owned()),
            Some(SourceState::Retrying) => parts.push("source lost, retrying".to_owned()),
        }
        one_line(&parts.join(" · "))
    }

    /// The same now and then, as a line for a log.
    pub(super) fn status_due(&mut self, announcement: &Announcement) -> Option<String> {
        let now = announcement.time;
        let rated = matches!(announcement.event, Event::Rate { .. });
        let due = now.duration_since(self.status_at).map_or(true, |age| age >= STATUS_EVERY);
        (rated && due).then(|| {
            self.status_at = now;
            self.status(now)
        })
    }
}

/// The mean rate of the whole run.
pub(super) fn overall(summary: &Summary) -> HashRate {
    HashRate::of(summary.hashes, summary.elapsed.as_secs_f64())
}

/// `12 blocks`, `1 block`, `13 blocks (1 not accepted)`.
fn counted(tally: &Tally, what: &str) -> String {
    let not_accepted = tally.rejected + tally.stale + tally.unknown;
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
    use super::super::tests::{all_events, at};
    use super::*;
    use crate::chain::target::Target;

    #[test]
    fn the_status_says_how_it_goes() {
        let mut board = Board::new(at(0));
        assert_eq!(board.status(at(0)), "- H/s · 0 blocks · 0:00 · connecting");
        for event in all_events() {
            board.note(&Announcement { time: at(1), event });
        }
        assert_eq!(
            board.status(at(3_725_900)),
            "1.500 MH/s · 1 block (1 not accepted) · 0 shares (1 not accepted) · height 7 · \
             1:02:05 · source lost, retrying"
        );
    }

    #[test]
    fn the_difficulty_is_told_where_it_changes_with_time() {
        let mut board = Board::new(at(0));
        let mut note = |event| board.note(&Announcement { time: at(1), event });
        let difficulty = Target::DIFFICULTY_1.difficulty();
        note(Event::Stage { stage: Stage::Minimum { from: 9 }, difficulty });
        let lowest = "difficulty 1, the lowest, until a block comes";
        assert_eq!(board.stage().as_deref(), Some(lowest));
        let rate = Event::Rate { total: HashRate::of(150_000_000, 1.0), backends: vec![] };
        board.note(&Announcement { time: at(1), event: rate });
        let line = board.status(at(0));
        assert!(line.contains("a block comes, a block takes 29 s on the average"), "{line}");
        let stage = Stage::Period { last: 1_700_000_000 };
        board.note(&Announcement { time: at(1), event: Event::Stage { stage, difficulty } });
        let until = board.stage().unwrap();
        assert!(until.contains("until 22:13:20 UTC, then the lowest"), "{until}");
        let times = [0.1, 29.4, 700.0, 9_000.0, 400_000.0, 1e9, 1e17].map(rough_time);
        assert_eq!(
            times.map(|time| time.replace(' ', "")),
            ["lessthanasecond", "29s", "12min", "2.5h", "4.6days", "31.7years", "3.2e9years"]
        );
    }

    #[test]
    fn a_log_gets_the_status_now_and_then() {
        let mut board = Board::new(at(0));
        let rate = |time| Announcement {
            time,
            event: Event::Rate { total: HashRate::of(1, 1.0), backends: vec![] },
        };
        let due: Vec<_> = [5, 29, 30, 31, 59, 60]
            .map(|s| board.status_due(&rate(at(s * 1_000))).is_some())
            .into();
        assert_eq!(due, [false, false, true, false, false, true]);
    }
}
