//! Text from outside (a node, a pool, a command line), made safe for a terminal and a log.

use std::fmt::{self, Write as _};

/// `text` on one line of at most `max` characters: what would move the cursor, start an escape
/// sequence or turn the writing direction is replaced by `U+FFFD`, and what is too much is cut off
/// with `…`.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut chars = text.chars().map(|c| if is_printable(c) { c } else { '\u{fffd}' });
    let mut line: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// The same of what `what` shows, of which no more is written than is kept: an error may quote
/// megabytes.
#[must_use]
pub fn printable_display(what: &dyn fmt::Display, max: usize) -> String {
    struct Beginning {
        text: String,
        room: usize,
    }
    impl fmt::Write for Beginning {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let end = part.char_indices().nth(self.room).map_or(part.len(), |(at, _)| at);
            self.room -= part[..end].chars().count();
            self.text.push_str(&part[..end]);
            if self.room > 0 { Ok(()) } else { Err(fmt::Error) }
        }
    }
    // One more than is kept, so that it shows where something is cut off.
    let mut beginning = Beginning { text: String::new(), room: max + 1 };
    // An error means that this was enough.
    let _ = write!(beginning, "{what}");
    printable(&beginning.text, max)
}

/// Longest text of a peer's that is shown in one line, in characters.
pub const LINE_MAX: usize = 1_000;

/// `text` fit to be shown: one line of at most [`LINE_MAX`] characters, nothing that steers a terminal
/// or turns the direction of writing.
#[must_use]
pub fn one_line(text: &str) -> String {
    one_line_of(text, LINE_MAX)
}

/// The same with at most `max` characters.
#[must_use]
pub fn one_line_of(text: &str, max: usize) -> String {
    printable(&text.replace(['\n', '\r', '\t'], " "), max)
}

/// Whether `c` leaves a terminal and the order of the text around it alone.
#[must_use]
pub fn is_printable(c: char) -> bool {
    let invisible = matches!(
        c,
        '\u{200b}'..='\u{200f}'     // zero width, and direction marks
            | '\u{2028}'..='\u{202e}'   // separators of lines, and direction overrides
            | '\u{2060}'..='\u{206f}'   // direction isolates
            | '\u{feff}'                // byte order mark
    );
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_left_alone() {
        assert_eq!(printable("high-hash", 200), "high-hash");
        assert_eq!(printable("größer ⛏", 8), "größer ⛏");
        assert_eq!(printable("", 8), "");
    }

    #[test]
    fn hostile_text_stays_on_one_short_line() {
        assert_eq!(
            printable("a\x1b[2J\r\nb\u{202e}c\u{7f}", 99),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"
        );
        assert_eq!(printable("abcdef", 4), "abc…");
        assert_eq!(printable(&"x".repeat(1 << 20), 200).chars().count(), 200);
        assert_eq!(printable("abc", 0), "…");
        for text in ["abcdef", "abcd", "abc", "", "größer als", "a\x1bb"] {
            assert_eq!(printable_display(&text, 4), printable(text, 4));
            assert_eq!(
                printable_display(&format_args!("{}{text}", "x"), 4),
                printable(&format!("x{text}"), 4)
            );
        }
    }
}
