//! Sends shares, and handles the answers to them or the lack of one.

use std::time::Instant;

use super::super::message::{Answer, Submit, quoted};
use super::super::profile::{OptionalRequest, Trust};
use super::super::reject::{self, RejectKind};
use super::super::session::mark_stale;
use super::super::version_bits::Form;
use super::{Connection, End, HandshakePhase, Request};
use crate::job::{MerkleRoot, RejectReason, Solution, Verdict};
use crate::source::pool::responsiveness::PoolFault;

/// With more shares in flight than this the pool is behind with its answers.
const BEHIND: usize = 512;
/// How many shares may be refused for want of a login until the run ends, if none was ever accepted.
const UNAUTHORIZED_SHARES_MAX: u32 = 3;

/// A share in flight.
pub(super) struct Share {
    pub(super) solution: Solution,
    /// The form of its version bits, where the other form would differ.
    pub(super) form: Option<Form>,
}

impl Connection<'_> {
    /// Sends or queues what the engine has found.
    pub(super) fn take_solution(&mut self, solution: Solution) {
        // Shares found before the limit last moved show nothing about the current one.
        let at_limit = solution.is_share()
            && solution.job.share_target <= self.pool.share_limiter.easiest_target();
        let (is_limited, behind) = (self.is_limited(), self.is_behind());
        if at_limit && self.pool.share_limiter.found(Instant::now(), is_limited, behind) {
            self.republish_at_limit();
        }
        match self.phase {
            HandshakePhase::Mining => self.submit(solution),
            _ => self.pool.session.queue(self.port, solution),
        }
    }

    /// Sends a share, if the pool can still take it.
    pub(super) fn submit(&mut self, solution: Solution) {
        let job = &solution.job;
        let table = &self.pool.session.job_table;
        let id = table.id(job.key, &solution.hash).or_else(|why| {
            // The block it builds on is still the tip, whatever became of the job.
            table.id_of_block(job.key).filter(|_| solution.is_block()).ok_or(why)
        });
        let id = match id {
            Ok(id) => id.to_owned(),
            Err(why) => return mark_stale(self.port, &solution, why),
        };
        if let Some(why) = self.reason_to_withhold(&solution) {
            return mark_stale(self.port, &solution, why);
        }
        // A mask also holds for the jobs before it (BIP 310).
        let version = solution.header.version.to_consensus().cast_unsigned();
        if (version ^ job.version) & !self.mask.unwrap_or(0) != 0 {
            let why = "the pool has withdrawn version bits that it uses; not sent";
            return mark_stale(self.port, &solution, why);
        }
        // Checked last: the answer to a share that is withheld for another reason would never come.
        let Some(solution) = self.resumed_job_first(solution) else { return };
        let job = &solution.job;
        let MerkleRoot::Rolled(coinbase) = &job.merkle_root else {
            return mark_stale(self.port, &solution, "its job has no extranonce; not sent");
        };
        let form = self.pool.profile.version_bits.form();
        let user = quoted(&self.config.user);
        let submit = Submit {
            user: &user,
            job: &id,
            extranonce2: &coinbase.extranonce_bytes(solution.extranonce),
            ntime: solution.header.time,
            nonce: solution.header.nonce,
            version_bits: self.mask.map(|mask| form.bits(version, job.version, mask)),
        };
        let request_id = self.next_request_id();
        let line = submit.request(request_id);
        let after_ms = solution.found.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(id = request_id, hash = %solution.hash, after_ms, "submitting");
        self.send_line(&line);
        let forms_differ = self.mask.is_some_and(|mask| job.version & mask != 0);
        self.on_share_sent(request_id, &solution);
        let form = forms_differ.then_some(form);
        self.in_flight.insert(request_id, Share { solution, form }, Instant::now());
    }

    /// The pool has answered a share, in time or late.
    pub(super) fn shares_answered(&mut self) {
        self.unanswered_shares.answered();
        self.pool.health.fault_cleared(PoolFault::Unresponsive, self.port);
    }

    /// Handles the answer to a share.
    pub(super) fn on_verdict(
        &mut self,
        id: u64,
        share: &Share,
        answer: &Answer<'_>,
    ) -> Result<(), End> {
        let (verdict, kind) = reject::verdict_of(answer, self.maybe_other_header(share));
        let words = verdict.reject_reason().map(ToString::to_string).unwrap_or_default();
        if verdict == Verdict::Accepted {
            self.accepted = true;
            self.pool.profile.trust = Trust::ShareAccepted;
            self.unauthorized_shares = 0;
        }
        let refused_all = self.count_refusal(share, &verdict);
        self.port.verdict(&share.solution, verdict.clone());
        self.resumed_job_judged(id, kind);
        self.learn(id, share, &verdict, kind)?;
        match kind {
            Some(RejectKind::NotSubscribed) => Err(End::Lost(words)),
            _ if refused_all => Err(self.refuses_all(&words)),
            // The pool may be slow, and not have decided on the login yet.
            Some(RejectKind::Unauthorized) if self.is_pending(Request::Authorize) => Ok(()),
            Some(RejectKind::Unauthorized) => {
                self.unauthorized_shares += 1;
                if self.unauthorized_shares >= UNAUTHORIZED_SHARES_MAX
                    && self.pool.profile.trust < Trust::ShareAccepted
                {
                    return Err(End::Rejected(self.rejection(&words)));
                }
                if Instant::now() >= self.reauthorize_at {
                    self.authorize();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts shares refused in a row. Whether there are so many that the pool is left.
    fn count_refusal(&mut self, share: &Share, verdict: &Verdict) -> bool {
        if *verdict == Verdict::Accepted {
            self.pool.health.refused_shares.reset();
            self.pool.health.fault_cleared(PoolFault::RefusesAll, self.port);
            return false;
        }
        // A block that is no share may be refused. And a share whose job was replaced while it was in
        // flight is late, which is not the pool's fault.
        let Solution { job, hash, .. } = &share.solution;
        let is_late = matches!(verdict, Verdict::Stale(_))
            && self.pool.session.job_table.id(job.key, hash).is_err();
        if is_late || !share.solution.is_share() {
            return false;
        }
        self.pool.health.refused_shares.refused(Instant::now())
    }

    /// Leaves a pool that refuses every share: another connection may do better, or another pool.
    fn refuses_all(&mut self, words: &str) -> End {
        self.pool.health.refused_shares.reset();
        self.pool.health.fault_found(PoolFault::RefusesAll);
        if self.extranonce_changes > 0 {
            // Some pools set an extranonce and do not use it themselves.
            self.pool.profile.skip(OptionalRequest::Extranonce);
        }
        End::Lost(format!("it refuses every share, the last with: {words}"))
    }

    /// Whether the pool is behind with its answers.
    pub(super) fn is_behind(&self) -> bool {
        self.in_flight.len() > BEHIND
    }

    /// Gives up on answers that are overdue, and on a pool that answers no share.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.config.timing;
        let mut is_silent = false;
        while let Some(expired) = self.in_flight.expire(now, timing.answer) {
            let why = RejectReason::new("", "the pool did not answer in time");
            self.port.verdict(&expired.share.solution, Verdict::Unknown(why));
            is_silent |= expired.sent > self.last_message;
            self.unanswered_shares.timed_out(expired.id, expired.sent);
        }
        self.resumed_job_expired();
        if is_silent {
            let seconds = timing.answer.as_secs();
            return Err(End::Lost(format!(
                "it has not answered, nor sent anything else, for {seconds} s"
            )));
        }
        if self.unanswered_shares.deadline().is_some_and(|at| now >= at) {
            self.pool.health.fault_found(PoolFault::Unresponsive);
            let seconds = timing.unanswered_shares.1.as_secs();
            return Err(End::Lost(format!(
                "it takes shares and has answered none for {seconds} s"
            )));
        }
        Ok(())
    }
}
