//! Splits a stream of bytes into lines of bounded length.

use bytes::{Buf as _, BytesMut};

/// The longest line that is read. A job with a coinbase of 100,000 bytes fits.
pub const LINE_MAX: usize = 256 << 10;
/// How much is read at once.
const READ: usize = 64 << 10;

/// A line is longer than [`LINE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sent a line longer than {} KiB", LINE_MAX >> 10)]
pub struct TooLong;

/// Received bytes, and the lines in them.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: BytesMut,
    /// How many bytes were searched for the end of a line.
    searched: usize,
}

impl LineBuffer {
    /// The buffer to read the next bytes into, with room for some.
    pub fn room(&mut self) -> &mut BytesMut {
        self.bytes.reserve(READ);
        &mut self.bytes
    }

    /// The next complete line, without its end. Empty lines are skipped.
    ///
    /// # Errors
    /// When it is longer than [`LINE_MAX`], whether or not its end has come.
    pub fn next_line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        loop {
            let end = self.bytes[self.searched..].iter().position(|b| *b == b'\n');
            let length = end.map_or(self.bytes.len(), |end| self.searched + end);
            if length > LINE_MAX {
                return Err(TooLong);
            }
            if end.is_none() {
                self.searched = length;
                return Ok(None);
            }
            let mut line = self.bytes.split_to(length);
            self.bytes.advance(1);
            self.searched = 0;
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }

    /// The beginning of a line whose end has not come.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(buffer: &mut LineBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_line().unwrap()).map(|line| line.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn lines_come_whole_however_they_are_cut(
            lines in proptest::collection::vec("[a-z{}\"]{1,40}", 0..20),
            cuts in proptest::collection::vec(1usize..50, 1..20),
        ) {
            let text: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n\n"]).collect();
            let mut buffer = LineBuffer::default();
            let (mut got, mut rest, mut cut) = (Vec::new(), text.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                buffer.room().extend_from_slice(now);
                got.extend(all(&mut buffer));
                rest = later;
            }
            let expected: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(got, expected);
            prop_assert!(buffer.rest().is_empty());
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_not_kept() {
        let mut buffer = LineBuffer::default();
        for _ in 0..LINE_MAX / 1024 {
            buffer.room().extend_from_slice(&[b'x'; 1024]);
            assert_eq!(buffer.next_line(), Ok(None));
        }
        buffer.room().extend_from_slice(b"\n");
        assert_eq!(buffer.next_line().unwrap().unwrap().len(), LINE_MAX);
        buffer.room().extend_from_slice(&[b'x'; LINE_MAX + 1]);
        assert_eq!(buffer.next_line(), Err(TooLong));
        buffer.room().extend_from_slice(b"\n");
        assert_eq!(buffer.next_line(), Err(TooLong));
    }
}
