//! Limits on what a pool may make the miner say and bear.

use std::time::{Duration, Instant};

/// How many unusable messages a pool may send within this time with no usable one in between: a job, or
/// an answer to a request.
const UNUSABLE_MAX: (u32, Duration) = (16, Duration::from_secs(60));
/// How many notices are shown at once, and after which time one more.
const NOTICES: (u32, Duration) = (20, Duration::from_secs(10));

/// Counts unusable messages in a row.
#[derive(Debug)]
pub(super) struct UnusableMessages {
    count: u32,
    since: Instant,
}

impl UnusableMessages {
    pub(super) const fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    /// Counts another one; says whether the limit is reached.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        let (most, time) = UNUSABLE_MAX;
        if self.count == 0 || now.duration_since(self.since) > time {
            *self = Self::new(now);
        }
        self.count += 1;
        self.count == most
    }

    /// A usable message has come.
    pub(super) const fn reset(&mut self) {
        self.count = 0;
    }
}

/// Limits the notices that a pool causes, so that it cannot flood the log.
#[derive(Debug)]
pub(super) struct NoticeLimiter {
    left: u32,
    since: Instant,
    last: String,
}

impl NoticeLimiter {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: NOTICES.0, since: now, last: String::new() }
    }

    /// Whether this notice is shown: it is not the last one again, and there were not too many.
    pub(super) fn allows(&mut self, text: &str) -> bool {
        let more = self.since.elapsed().as_secs() / NOTICES.1.as_secs();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = NOTICES.0.min(self.left.saturating_add(more));
            self.since = Instant::now();
        }
        if text == self.last || self.left == 0 {
            return false;
        }
        self.left -= 1;
        text.clone_into(&mut self.last);
        true
    }
}
