//! How a run ends: the promised exit codes, and the promised form of an error.

use std::fmt;

use crate::printable::{one_line, one_line_of};
use crate::source::{Refused, SourceError};

/// The exit codes that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// It failed while running.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// A backend failed its self-test.
    SelfTest,
    /// The work source refused us for good.
    Refused,
    /// The time was over before as much was mined as was asked for.
    TimeOver,
    /// Stopped by SIGHUP after a clean end.
    HungUp,
    /// Stopped by SIGINT after a clean end.
    Interrupted,
    /// Stopped by SIGTERM after a clean end.
    Terminated,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::SelfTest,
        Self::Refused,
        Self::TimeOver,
        Self::HungUp,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// What it means, in the words of the help.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed while running",
            Self::Usage => "wrong usage or configuration",
            Self::SelfTest => "a backend failed its self-test",
            Self::Refused => "the work source refused us for good",
            Self::TimeOver => "--for ran out before --blocks or --shares was reached",
            Self::HungUp => "stopped by SIGHUP after a clean end",
            Self::Interrupted => "stopped by SIGINT after a clean end",
            Self::Terminated => "stopped by SIGTERM after a clean end",
        }
    }

    /// The number that the process hands to its parent.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::SelfTest => 3,
            Self::Refused => 4,
            Self::TimeOver => 5,
            // As shells count a signal: 128 and its number.
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error as the user sees it: what failed and why, and where something can be done about it,
/// what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// The exit code it leads to.
    pub exit: Exit,
    /// What failed.
    pub what: String,
    /// Why; may be empty.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: why.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From any error: its first line says what failed, what caused it says why.
    #[must_use]
    pub fn from_chain(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes: Vec<_> =
            std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect();
        // Some say what their cause says.
        causes.dedup();
        Self::new(exit, causes.remove(0), causes.join(": "))
    }

    /// `error: <what>: <why>`, and a second line `hint: <what to do>` where there is one. Each is
    /// one line, whatever the parts hold. A long `what` is cut, so that the reason is always there.
    #[must_use]
    pub fn render(&self) -> String {
        let what = one_line_of(&self.what, WHAT_MAX);
        let shown = Self { what, ..self.clone() };
        let mut text = format!("error: {}\n", one_line(&shown.to_string()));
        if let Some(hint) = &self.hint {
            text.extend(["hint: ", &one_line(hint), "\n"]);
        }
        text
    }
}

/// What to do about an error that comes of a limit which the system sets a process.
#[must_use]
pub fn limit_hint(error: &std::io::Error) -> Option<&'static str> {
    #[cfg(unix)]
    if [Some(libc::EMFILE), Some(libc::ENFILE)].contains(&error.raw_os_error()) {
        return Some("the limit on open files (ulimit -n) is reached");
    }
    match error.kind() {
        // Of a thread: there are no more to be had.
        std::io::ErrorKind::WouldBlock => Some("the limit on processes (ulimit -u) is reached"),
        std::io::ErrorKind::FileTooLarge => {
            Some("the limit on a file's size (ulimit -f) is reached")
        }
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why.as_str() {
            "" => f.write_str(&self.what),
            why => write!(f, "{}: {why}", self.what),
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let exit = match error.refused {
            Refused::Configuration => Exit::Usage,
            Refused::BySource => Exit::Refused,
            Refused::Failure => Exit::Failed,
        };
        Self { exit, what: error.what, why: error.why, hint: error.hint }
    }
}

/// Longest part of an error that says what failed: it may repeat a value that was given.
const WHAT_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_two_lines_at_most() {
        let plain = Failure::new(Exit::Failed, "the journal", "disk full");
        assert_eq!(plain.render(), "error: the journal: disk full\n");
        let hinted = Failure::new(Exit::Usage, "a\nb", "\u{1b}[31mred").hint("do\r\nthis");
        assert_eq!(hinted.render(), "error: a b: \u{fffd}[31mred\nhint: do  this\n");
    }

    #[test]
    fn each_source_error_has_its_exit_code() {
        for (refused, code) in
            [(Refused::Configuration, 2), (Refused::BySource, 4), (Refused::Failure, 1)]
        {
            let failure = Failure::from(SourceError::new(refused, "a", "b").hint("c"));
            assert_eq!(failure.exit.code(), code);
            assert_eq!(failure.render(), "error: a: b\nhint: c\n");
        }
    }

    #[test]
    fn causes_become_the_why() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(Failure::from_chain(Exit::Failed, &error).to_string(), "outer: inner");
    }

    #[test]
    fn a_long_value_leaves_room_for_the_reason() {
        let text = Failure::new(Exit::Usage, "x".repeat(5_000), "it is too long").render();
        assert!(text.ends_with("…: it is too long\n") && text.len() < 400, "{text}");
    }

    #[test]
    fn long_and_hostile_text_is_cut_and_cleaned() {
        let shown = one_line(&"x".repeat(5_000));
        assert_eq!(shown.chars().count(), crate::printable::LINE_MAX);
        assert_eq!(one_line("a\u{202e}b\u{9b}c\u{7f}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
    }
}
