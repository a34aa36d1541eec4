//! Lines for the user: one for each block and share, and a table at the end.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::View;
use super::progress::{clock, overall, tally};
use crate::event::{Announcement, Event, Summary};
use crate::job::Verdict;
use crate::printable::one_line;
use crate::units::grouped;

/// The most block and share lines that a terminal is shown in a second.
const A_SECOND: u32 = 10;

/// One line for each block and share. A terminal gets a few a second and a count of the rest;
/// whatever else reads stdout gets them all.
pub(super) struct Lines {
    crowd: Option<Crowd>,
    colours: bool,
}

/// Thins lines out, window by window of one second.
struct Crowd {
    since: SystemTime,
    shown: u32,
    hidden: Hidden,
}

/// What was not shown in the current window.
#[derive(Default)]
struct Hidden {
    blocks: u64,
    shares: u64,
    not_accepted: u64,
}

impl Lines {
    /// Lines for a terminal, or for something else.
    pub(super) fn new(terminal: bool, colours: bool) -> Self {
        let crowd = terminal.then(|| Crowd {
            since: SystemTime::UNIX_EPOCH,
            shown: 0,
            hidden: Hidden::default(),
        });
        Self { crowd, colours }
    }

    /// ` accepted`, and ` rejected`, the hash and the reason, coloured by how good it is.
    fn verdict(&self, verdict: &Verdict) -> String {
        let word = verdict.result();
        let colour = match verdict {
            Verdict::Accepted => 32,
            Verdict::Rejected(_) => 31,
            Verdict::Stale(_) | Verdict::Unknown(_) => 33,
        };
        if self.colours { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word.to_owned() }
    }
}

impl Crowd {
    /// Whether there is room for one more line at `time`.
    fn admits(&mut self, time: SystemTime, out: &mut String) -> bool {
        self.renew(time, out);
        self.shown += 1;
        self.shown <= A_SECOND
    }

    /// Opens a new window when the current one is over, and says what that one hid.
    fn renew(&mut self, time: SystemTime, out: &mut String) {
        let over =
            time.duration_since(self.since).map_or(true, |age| age >= Duration::from_secs(1));
        if !over {
            return;
        }
        let hidden = std::mem::take(&mut self.hidden);
        let parts: Vec<String> = [(hidden.blocks, "block"), (hidden.shares, "share")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| {
                format!("{} more {what}{}", grouped(number), if number == 1 { "" } else { "s" })
            })
            .collect();
        if !parts.is_empty() {
            let _ = write!(out, "… and {}", parts.join(" and "));
            if hidden.not_accepted > 0 {
                let _ = write!(out, " ({} not accepted)", grouped(hidden.not_accepted));
            }
            out.push('\n');
        }
        self.since = time;
        self.shown = 0;
    }
}

impl View for Lines {
    fn event(&mut self, announcement: &Announcement, out: &mut Vec<u8>) {
        let mut text = String::new();
        match &announcement.event {
            Event::Block { verdict, .. } | Event::Share { verdict, .. } => {
                if let Some(crowd) = &mut self.crowd
                    && !crowd.admits(announcement.time, &mut text)
                {
                    match announcement.event {
                        Event::Block { .. } => crowd.hidden.blocks += 1,
                        _ => crowd.hidden.shares += 1,
                    }
                    crowd.hidden.not_accepted += u64::from(*verdict != Verdict::Accepted);
                } else {
                    let shown = self.verdict(verdict);
                    let _ = match &announcement.event {
                        Event::Block { height: Some(height), hash, .. } => {
                            write!(text, "block {height} {shown} {hash}")
                        }
                        Event::Block { hash, .. } => write!(text, "block - {shown} {hash}"),
                        Event::Share { difficulty, hash, latency, .. } => write!(
                            text,
                            "share {shown} {hash} difficulty {difficulty} {} ms",
                            latency.as_millis()
                        ),
                        _ => Ok(()),
                    };
                    if let Event::Block { resent: true, .. } = announcement.event {
                        text.push_str(" sent again");
                    }
                    if let Some(reason) = verdict.reject_reason() {
                        let _ = write!(text, " {}", one_line(&reason.to_string()));
                    }
                    text.push('\n');
                }
            }
            Event::Summary(summary) => text = table(summary),
            _ => {}
        }
        out.extend_from_slice(text.as_bytes());
    }

    fn tick(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        if let Some(crowd) = &mut self.crowd {
            let mut text = String::new();
            crowd.renew(now, &mut text);
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn ticks(&self) -> bool {
        self.crowd.as_ref().is_some_and(|crowd| crowd.hidden.blocks + crowd.hidden.shares > 0)
    }
}

/// The run in figures.
fn table(summary: &Summary) -> String {
    let mut rows = vec![
        ("time", clock(summary.elapsed)),
        ("hashes", grouped(summary.hashes)),
        ("hash rate", overall(summary).to_string()),
        ("blocks", tally(&summary.blocks)),
    ];
    if summary.shares != crate::event::Tally::default() {
        rows.push(("shares", tally(&summary.shares)));
    }
    rows.push(("hardware errors", grouped(summary.hardware_errors)));
    let mut text = String::from("\n");
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<16} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all_events, at, block, rejected, rendered, summary};
    use super::*;

    const HASH: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";

    #[test]
    fn a_pipe_gets_plain_lines() {
        let text = rendered(&mut Lines::new(false, false), all_events());
        let zeros = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                "share stale {zeros} difficulty 1 12 ms too late\n\
                 block 7 accepted {HASH}\n\
                 block - rejected {HASH} high-hash (the hash does not meet the target)\n\
                 \n\
                 time             0:12.345\n\
                 hashes           1,234,567,890\n\
                 hash rate        100.0 MH/s\n\
                 blocks           1,234 accepted, 1 rejected, 2 stale, 3 unknown\n\
                 hardware errors  0\n"
            )
        );
    }

    #[test]
    fn colours_only_where_wanted() {
        let events = || vec![block(Some(1), Verdict::Accepted)];
        let coloured = rendered(&mut Lines::new(true, true), events());
        assert_eq!(coloured, format!("block 1 \u{1b}[32maccepted\u{1b}[0m {HASH}\n"));
        assert!(!rendered(&mut Lines::new(true, false), events()).contains('\u{1b}'));
    }

    #[test]
    fn a_terminal_is_not_flooded_and_every_block_is_counted() {
        let mut lines = Lines::new(true, false);
        let mut out = Vec::new();
        for n in 0..1_000 {
            let verdict = if n == 500 { rejected() } else { Verdict::Accepted };
            lines.event(
                &Announcement { time: at(u64::from(n)), event: block(Some(n), verdict) },
                &mut out,
            );
        }
        assert!(lines.ticks());
        lines.tick(at(999), &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 10);
        lines.tick(at(1_000), &mut out);
        assert!(!lines.ticks());
        lines.tick(at(9_000), &mut out);
        lines.event(&Announcement { time: at(9_001), event: summary(0) }, &mut out);
        let text = String::from_utf8(out).unwrap();
        let last = text.lines().nth(10).unwrap();
        assert_eq!(last, "… and 990 more blocks (1 not accepted)");
        assert_eq!(text.lines().nth(11), Some(""));
    }

    #[test]
    fn a_pipe_gets_every_block() {
        let events = (0..1_000).map(|n| block(Some(n), Verdict::Accepted)).collect();
        assert_eq!(rendered(&mut Lines::new(false, false), events).lines().count(), 1_000);
    }

    #[test]
    fn a_clock_set_back_does_not_silence_it() {
        let mut lines = Lines::new(true, false);
        let mut out = Vec::new();
        for time in [at(10_000), at(0)] {
            for _ in 0..10 {
                lines.event(&Announcement { time, event: block(Some(1), rejected()) }, &mut out);
            }
        }
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 20);
    }
}
