//! A session: the pool's jobs and the shares found for them. It outlives a connection where the pool
//! resumes it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::job_table::JobTable;
use crate::engine::Port;
use crate::job::{RejectReason, Solution, Verdict};

/// How many shares wait for the session to be resumed, or for the login.
const QUEUE_MAX: usize = 1_024;

/// The current session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) job_table: JobTable,
    /// Shares that cannot be sent yet.
    queued: VecDeque<Solution>,
    /// Until when the last job is mined without a connection.
    gap_until: Option<Instant>,
    /// Whether there is a connection, so that shares found now may count.
    pub(super) is_connected: bool,
}

impl Session {
    /// Begins a session that has nothing to do with the one before.
    pub(super) fn begin(&mut self, port: &Port) {
        if !self.job_table.is_empty() {
            self.end(port, "the pool did not resume the session it was found in; not sent");
        }
        self.gap_until = None;
        self.job_table.begin_session();
    }

    /// Continues the session that was interrupted.
    pub(super) fn resume(&mut self) {
        if self.gap_until.take().is_none() {
            // Mining had stopped, but what is found from now on belongs to the session all the same.
            tracing::debug!("the pool has resumed the session after mining had stopped");
        }
    }

    /// Ends the session: nothing is mined for it any more, and the shares that wait are stale.
    pub(super) fn end(&mut self, port: &Port, why: &'static str) {
        self.gap_until = None;
        port.clear_job();
        for solution in self.take_queued() {
            mark_stale(port, &solution, why);
        }
    }

    /// The connection is lost: the last job is mined on for `gap`, unless that has begun already.
    pub(super) fn interrupt(&mut self, gap: Duration) {
        self.gap_until.get_or_insert_with(|| Instant::now() + gap);
    }

    /// Until when the last job is mined without a connection, where it is.
    pub(super) const fn gap_until(&self) -> Option<Instant> {
        self.gap_until
    }

    /// Keeps a share until it can be sent; it is stale where it never can.
    pub(super) fn queue(&mut self, port: &Port, solution: Solution) {
        if !self.is_connected && self.gap_until.is_none() {
            mark_stale(port, &solution, "there is no connection to the pool; not sent");
        } else if self.queued.len() == QUEUE_MAX {
            mark_stale(port, &solution, "too many shares wait for the pool; not sent");
        } else {
            self.queued.push_back(solution);
        }
    }

    /// Takes out the shares that wait, the oldest first.
    pub(super) fn take_queued(&mut self) -> VecDeque<Solution> {
        std::mem::take(&mut self.queued)
    }
}

/// Reports a share as stale that must not be sent.
pub(super) fn mark_stale(port: &Port, solution: &Solution, why: &'static str) {
    port.verdict(solution, Verdict::Stale(RejectReason::new("", why)));
}
