//! Shares for jobs of the connection before, after the pool has resumed its session.
//!
//! A pool that gives every connection the same extranonce seems to have resumed the session even where
//! it has forgotten the jobs. So one share is sent first, the newest, and the others only when the pool
//! knows its job.

use super::super::profile::Resumption;
use super::super::reject::RejectKind;
use super::super::session::mark_stale;
use super::{Connection, HandshakePhase};
use crate::job::Solution;

/// Said of shares that are not sent.
const FORGOTTEN: &str = "the pool does not know the jobs from before the reconnect; not sent";

/// Whether the pool knows the jobs of the connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResumedJobs {
    /// There are none, or the pool knows them.
    None,
    /// No share was sent for one.
    Unproven,
    /// One was sent, in the request with this id; others wait for the answer.
    Sent(u64),
    /// It does not know them.
    Forgotten,
}

impl Connection<'_> {
    /// Returns the share if it may be sent now. One for a job of the connection before is queued while
    /// the answer to the first such share is waited for, and stale if the pool does not know the jobs.
    pub(super) fn resumed_job_first(&mut self, solution: Solution) -> Option<Solution> {
        if solution.job.received >= self.opened {
            return Some(solution);
        }
        match self.resumed_jobs {
            ResumedJobs::None => Some(solution),
            ResumedJobs::Unproven => {
                self.resumed_jobs = ResumedJobs::Sent(self.next_id);
                Some(solution)
            }
            ResumedJobs::Sent(_) => {
                self.pool.session.queue(self.port, solution);
                None
            }
            ResumedJobs::Forgotten => {
                mark_stale(self.port, &solution, FORGOTTEN);
                None
            }
        }
    }

    /// Shares in flight have expired: maybe the first one for a job of the connection before.
    pub(super) fn resumed_job_expired(&mut self) {
        if let ResumedJobs::Sent(id) = self.resumed_jobs
            && !self.in_flight.contains(id)
        {
            self.resumed_job_judged(id, None);
        }
    }

    /// The pool has answered a share, or refused it for the reason `kind`: maybe the first one for a job
    /// of the connection before.
    pub(super) fn resumed_job_judged(&mut self, id: u64, kind: Option<RejectKind>) {
        if self.resumed_jobs != ResumedJobs::Sent(id) {
            return;
        }
        self.resumed_jobs = match kind {
            Some(RejectKind::UnknownJob) => {
                self.pool.profile.resumption = Resumption::Never;
                ResumedJobs::Forgotten
            }
            // The newest job is over, and with it those before.
            Some(RejectKind::Stale) => ResumedJobs::Forgotten,
            _ => ResumedJobs::None,
        };
        if self.phase == HandshakePhase::Mining {
            for solution in self.pool.session.take_queued() {
                self.submit(solution);
            }
        }
    }
}
