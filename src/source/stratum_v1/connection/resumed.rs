//! Jobs of the connection before, after the pool has resumed its session.
//!
//! A pool that gives every connection the same extranonce seems to have resumed the session even where
//! it has forgotten the jobs. So one share is sent first, the newest, and the others only when the pool
//! knows its job.

use super::super::client::Resumption;
use super::super::reject::RejectKind;
use super::{Connection, HandshakePhase};
use crate::job::Solution;

/// Why a share is not sent.
const FORGOTTEN: &str = "the pool does not know the jobs from before the reconnect; not sent";

/// Whether the pool knows the jobs of the connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResumedJobs {
    /// There are none, or the pool knows them.
    None,
    /// No share was sent for one.
    Unproven,
    /// One was sent, in the request of this number; others wait for the answer.
    Asked(u64),
    /// It does not know them.
    Forgotten,
}

impl Connection<'_> {
    /// Gives the share back if it may be sent now; keeps it, or says that it is too late, if it is for
    /// a job of the connection before and the pool's answer to the first such one has to come before.
    pub(super) fn resumed_job_first(&mut self, solution: Solution) -> Option<Solution> {
        if solution.job.received >= self.opened {
            return Some(solution);
        }
        match self.resumed_jobs {
            ResumedJobs::None => Some(solution),
            ResumedJobs::Unproven => {
                self.resumed_jobs = ResumedJobs::Asked(self.next_id);
                Some(solution)
            }
            ResumedJobs::Asked(_) => {
                self.client.queue(solution);
                None
            }
            ResumedJobs::Forgotten => {
                self.client.mark_stale(&solution, FORGOTTEN);
                None
            }
        }
    }

    /// Shares have been given up that the pool did not answer: maybe the first of a job of the connection
    /// before.
    pub(super) fn resumed_job_expired(&mut self) {
        if let ResumedJobs::Asked(number) = self.resumed_jobs
            && !self.in_flight.contains(number)
        {
            self.resumed_job_judged(number, None);
        }
    }

    /// The pool has answered a share, refused for this if it was: maybe the first of a job of the
    /// connection before.
    pub(super) fn resumed_job_judged(&mut self, number: u64, kind: Option<RejectKind>) {
        if self.resumed_jobs != ResumedJobs::Asked(number) {
            return;
        }
        self.resumed_jobs = match kind {
            Some(RejectKind::UnknownJob) => {
                self.client.resumption = Resumption::Never;
                ResumedJobs::Forgotten
            }
            // The job is over, and with it those before.
            Some(RejectKind::Stale) => ResumedJobs::Forgotten,
            _ => ResumedJobs::None,
        };
        if self.phase == HandshakePhase::Mining {
            for solution in self.client.take_queued() {
                self.submit(solution);
            }
        }
    }
}
