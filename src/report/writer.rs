//! Writes to stdout and stderr from a thread of its own, out of a bounded queue: a reader that
//! stalls holds up that thread and nothing else.
//!
//! `tracing-appender` has such a writer for logs. It bounds the number of lines instead of their
//! bytes, cannot wait for room (which results need), and does not tell that lines were dropped.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use super::OutputError;

/// How many bytes of results wait at most.
const RESULTS_MAX: usize = 8 << 20;

/// How many bytes of the log wait at most.
const LOG_MAX: usize = 1 << 20;

/// How many bytes are written at once. A reader that takes them is one that reads; and Linux writes
/// so many to a pipe in one piece, so that lines of several processes do not mix.
const PIECE: usize = 4096;

/// Beyond this many waiting bytes the progress line is not drawn: it would be outdated.
const DRAWING_MAX: usize = 16 << 10;

/// How long a reader may take nothing before results are dropped instead of waiting for it.
const STALLED: Duration = Duration::from_secs(1);

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Results.
    Stdout,
    /// Log and progress.
    Stderr,
}

/// One thread that writes, and what waits for it. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("bytes", &self.shared.state().bytes).finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<(Stream, Vec<u8>)>,
    /// How many bytes wait.
    bytes: usize,
    /// Whether something that was taken out of the queue is being written.
    writing: bool,
    /// When the reader last took something, or there was nothing to take.
    moved: Instant,
    /// Lines of the log that were not taken, and have not been told of yet.
    dropped: u64,
    /// Why stdout takes no more.
    failed: Option<OutputError>,
    on_failure: Option<Box<dyn FnOnce() + Send>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }

    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if self.is_idle() {
            self.moved = Instant::now();
        }
        self.bytes += bytes.len();
        match self.waiting.back_mut() {
            Some((last, more)) if *last == stream && more.len() < PIECE => {
                more.extend_from_slice(bytes);
            }
            _ => self.waiting.push_back((stream, bytes.to_vec())),
        }
    }
}

impl Writer {
    /// Starts the thread that writes the log.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn for_log() -> io::Result<Self> {
        Self::start("log", standard_streams())
    }

    /// Starts the thread that writes results. Where they go to the log's terminal it is the log's
    /// thread, so that the order is kept.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn for_results(log: &Self) -> io::Result<Self> {
        if io::stdout().is_terminal() && io::stderr().is_terminal() {
            return Ok(log.clone());
        }
        Self::start("results", standard_streams())
    }

    /// Starts a thread of this name that writes to `out`: stdout and stderr, in this order.
    pub(super) fn start(name: &str, out: [Box<dyn Write + Send>; 2]) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                writing: false,
                moved: Instant::now(),
                dropped: 0,
                failed: None,
                on_failure: None,
            }),
            changed: Condvar::new(),
        });
        let writing = shared.clone();
        // It lives as long as the process: what it waits for may never come.
        thread::Builder::new().name(name.into()).spawn(move || write_all_of(&writing, out))?;
        Ok(Self { shared })
    }

    /// Takes `bytes` for stdout if there is room for them; never waits.
    #[must_use]
    pub fn results(&self, bytes: &[u8]) -> bool {
        self.offer(Stream::Stdout, bytes, RESULTS_MAX).is_ok()
    }

    /// Takes a line of the log, or counts it where there is no room.
    pub fn log(&self, line: &[u8]) {
        if let Err(mut state) = self.offer(Stream::Stderr, line, LOG_MAX) {
            state.dropped += 1;
        }
    }

    /// Takes the progress line, unless what waits already would make it old news.
    pub fn draw(&self, bytes: &[u8]) {
        let _ = self.offer(Stream::Stderr, bytes, DRAWING_MAX);
    }

    fn offer(
        &self,
        stream: Stream,
        bytes: &[u8],
        capacity: usize,
    ) -> Result<(), MutexGuard<'_, State>> {
        let mut state = self.shared.state();
        if state.bytes + bytes.len() > capacity {
            return Err(state);
        }
        state.push(stream, bytes);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Takes `bytes` even where there is no room: for the little that must come at the end.
    pub fn insist(&self, stream: Stream, bytes: &[u8]) {
        self.shared.state().push(stream, bytes);
        self.shared.changed.notify_all();
    }

    /// Waits until there is room for `bytes` more, but no longer than the reader reads.
    pub fn wait_for_room(&self, bytes: usize) {
        let mut state = self.shared.state();
        while state.bytes + bytes > RESULTS_MAX && state.moved.elapsed() < STALLED {
            state = self.shared.wait(state, STALLED);
        }
    }

    /// Waits until all is written; gives up when nothing of it is for this long. Says whether all
    /// is.
    #[must_use]
    pub fn drain(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.shared.state();
        while !state.is_idle() {
            let since = state.moved.max(begun);
            let Some(left) = timeout.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
            else {
                return false;
            };
            state = self.shared.wait(state, left);
        }
        true
    }

    /// Has `call` called once when stdout takes no more.
    pub fn on_failure(&self, call: impl FnOnce() + Send + 'static) {
        self.shared.state().on_failure = Some(Box::new(call));
    }

    /// Why stdout takes no more, if it does not. It is told once.
    #[must_use]
    pub fn failure(&self) -> Option<OutputError> {
        self.shared.state().failed.take()
    }
}

fn standard_streams() -> [Box<dyn Write + Send>; 2] {
    [Box::new(io::stdout()), Box::new(io::stderr())]
}

/// The thread.
fn write_all_of(shared: &Shared, [mut stdout, mut stderr]: [Box<dyn Write + Send>; 2]) {
    let mut stdout_is_lost = false;
    loop {
        let (stream, bytes) = next(shared);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(piece_of(rest));
            rest = after;
            let written = match stream {
                Stream::Stdout if stdout_is_lost => Ok(()),
                Stream::Stdout => stdout.write_all(piece).and_then(|()| stdout.flush()),
                // There is nothing left to tell it to.
                Stream::Stderr => {
                    let _ = stderr.write_all(piece).and_then(|()| stderr.flush());
                    Ok(())
                }
            };
            let mut state = shared.state();
            state.moved = Instant::now();
            state.bytes -= piece.len();
            if let Err(error) = written {
                stdout_is_lost = true;
                state.failed = Some(error.into());
                if let Some(call) = state.on_failure.take() {
                    drop(state);
                    call();
                }
            }
            shared.changed.notify_all();
        }
        let mut state = shared.state();
        let dropped =
            if state.bytes <= LOG_MAX / 2 { std::mem::take(&mut state.dropped) } else { 0 };
        drop(state);
        if dropped > 0 {
            tracing::warn!("{dropped} lines of the log were dropped: stderr was not read");
        }
        shared.state().writing = false;
        shared.changed.notify_all();
    }
}

/// Waits for the next bytes to be written, and takes them out of the queue.
fn next(shared: &Shared) -> (Stream, Vec<u8>) {
    let mut state = shared.state();
    loop {
        if let Some(next) = state.waiting.pop_front() {
            state.writing = true;
            return next;
        }
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// How much of `bytes` to write at once: whole lines, where they are short enough.
fn piece_of(bytes: &[u8]) -> usize {
    let most = bytes.len().min(PIECE);
    bytes[..most].iter().rposition(|byte| *byte == b'\n').map_or(most, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes one write for each permit.
    struct Gate(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // When there are no permits any more, it takes everything.
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Writer, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (permit, permits) = channel();
        let read = Arc::default();
        let gate = Gate(permits, Arc::clone(&read));
        (Writer::start("test", [Box::new(gate), Box::new(io::sink())]).unwrap(), permit, read)
    }

    #[test]
    fn a_reader_that_stalls_costs_bounded_memory_and_no_time() {
        let (writer, permit, read) = gated();
        let line = [b'x'; 1 << 16];
        let taken = (0..1_000).filter(|_| writer.results(&line)).count();
        assert!(
            (RESULTS_MAX / line.len()..=RESULTS_MAX / line.len() + 1).contains(&taken),
            "{taken}"
        );
        assert!(!writer.drain(Duration::from_millis(10)));
        writer.wait_for_room(line.len());
        assert!(!writer.results(&line));
        writer.insist(Stream::Stdout, b"the end");
        drop(permit);
        assert!(writer.drain(Duration::from_secs(60)));
        let read = read.lock().unwrap();
        assert_eq!(read.len(), taken * line.len() + 7);
        assert!(read.ends_with(b"the end"));
    }

    #[test]
    fn a_reader_that_reads_slowly_is_waited_for() {
        let (writer, permit, read) = gated();
        while writer.results(&[b'x'; PIECE]) {}
        let slow = thread::spawn(move || {
            for _ in 0..50 {
                thread::sleep(Duration::from_millis(5));
                let _ = permit.send(());
            }
        });
        for _ in 0..20 {
            writer.wait_for_room(PIECE);
            assert!(writer.results(&[b'y'; PIECE]));
        }
        slow.join().unwrap();
        assert!(writer.drain(Duration::from_secs(60)));
        assert_eq!(read.lock().unwrap().iter().filter(|byte| **byte == b'y').count(), 20 * PIECE);
    }

    #[test]
    fn pieces_are_whole_lines_where_they_can_be() {
        assert_eq!(piece_of(b"one\ntwo\nthr"), 8);
        assert_eq!(piece_of(b"one"), 3);
        assert_eq!(piece_of(&[b'x'; 2 * PIECE]), PIECE);
        let long = [[b'x'; 100].as_slice(), b"\n", &[b'x'; PIECE]].concat();
        assert_eq!(piece_of(&long), 101);
    }
}
