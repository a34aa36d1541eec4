//! Shares on their way to the pool, and what it says to them, or does not.

use std::time::Instant;

use super::super::client::{OptionalRequest, Trust};
use super::super::message::{Answer, Submit, quoted};
use super::super::reject::{self, RejectKind};
use super::super::version_bits::Form;
use super::{Connection, End, HandshakePhase, Request};
use crate::job::{MerkleRoot, Refusal, Solution, Verdict};
use crate::source::pool::responsiveness::PoolFault;

/// From here on the pool is behind with its answers.
const BEHIND: usize = 512;
/// How many shares may be refused for want of a login before it is the end, if none was accepted.
const UNAUTHORIZED_SHARES_MAX: u32 = 3;

/// A share that waits for its answer.
pub(super) struct Share {
    pub(super) solution: Solution,
    /// The form of its version bits, where the other form would differ.
    pub(super) form: Option<Form>,
}

impl Connection<'_> {
    pub(super) fn take_solution(&mut self, solution: Solution) {
        // Those found before the floor last moved say nothing of the one of now.
        let at_floor =
            solution.is_share() && solution.job.share_target <= self.client.share_limiter.floor();
        let (is_limited, behind) = (self.is_limited(), self.is_behind());
        if at_floor && self.client.share_limiter.found(Instant::now(), is_limited, behind) {
            self.republish_at_limit();
        }
        match self.phase {
            HandshakePhase::Mining => self.submit(solution),
            _ => self.client.queue(solution),
        }
    }

    /// Sends a share, if the pool can still take it.
    pub(super) fn submit(&mut self, solution: Solution) {
        let job = &solution.job;
        let table = &self.client.job_table;
        let id = table.id(job.key, &solution.hash).or_else(|why| {
            // The block it builds on is the tip still, whatever became of the job.
            table.id_of_block(job.key).filter(|_| solution.is_block()).ok_or(why)
        });
        let id = match id {
            Ok(id) => id.to_owned(),
            Err(why) => return self.client.mark_stale(&solution, why),
        };
        if let Some(why) = self.reason_to_withhold(&solution) {
            return self.client.mark_stale(&solution, why);
        }
        // The mask of now holds also for jobs from before it (BIP 310).
        let version = solution.header.version.to_consensus().cast_unsigned();
        if (version ^ job.version) & !self.mask.unwrap_or(0) != 0 {
            let why = "the pool has taken back version bits that it uses; not sent";
            return self.client.mark_stale(&solution, why);
        }
        // Last, so that a share that is held back for another reason is not waited for.
        let Some(solution) = self.resumed_job_first(solution) else { return };
        let job = &solution.job;
        let MerkleRoot::Rolled(coinbase) = &job.merkle_root else {
            return self.client.mark_stale(&solution, "its job has no extranonce; not sent");
        };
        let form = self.client.version_bits.form();
        let user = quoted(&self.client.config.user);
        let submit = Submit {
            user: &user,
            job: &id,
            extranonce2: &coinbase.extranonce_bytes(solution.extranonce),
            ntime: solution.header.time,
            nonce: solution.header.nonce,
            version_bits: self.mask.map(|mask| form.bits(version, job.version, mask)),
        };
        let number = self.next_request_id();
        let line = submit.request(number);
        let after_ms = solution.found.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(number, hash = %solution.hash, after_ms, "submitting");
        self.send_line(&line);
        let forms_differ = self.mask.is_some_and(|mask| job.version & mask != 0);
        self.on_share_sent(number, &solution);
        let form = forms_differ.then_some(form);
        self.in_flight.insert(number, Share { solution, form }, Instant::now());
    }

    /// The pool answers shares.
    pub(super) fn shares_answered(&mut self) {
        self.unanswered_shares.answered();
        self.client.clear_fault(PoolFault::Unresponsive);
    }

    pub(super) fn on_verdict(
        &mut self,
        number: u64,
        share: &Share,
        answer: &Answer<'_>,
    ) -> Result<(), End> {
        let (verdict, kind) = reject::verdict_of(answer, self.maybe_other_header(share));
        let words = verdict.refusal().map(ToString::to_string).unwrap_or_default();
        if verdict == Verdict::Accepted {
            self.accepted = true;
            self.client.trust = Trust::ShareAccepted;
            self.unauthorized_shares = 0;
        }
        let refused_all = self.count_refusal(share, &verdict);
        self.client.port.verdict(&share.solution, verdict.clone());
        self.resumed_job_judged(number, kind);
        self.learn(number, share, &verdict, kind)?;
        match kind {
            Some(RejectKind::NotSubscribed) => Err(End::Lost(words)),
            _ if refused_all => Err(self.refuses_all(&words)),
            // The pool has not decided about the login yet; it may be slow.
            Some(RejectKind::Unauthorized) if self.is_pending(Request::Authorize) => Ok(()),
            Some(RejectKind::Unauthorized) => {
                self.unauthorized_shares += 1;
                if self.unauthorized_shares >= UNAUTHORIZED_SHARES_MAX
                    && self.client.trust < Trust::ShareAccepted
                {
                    return Err(End::Final(self.refused(&words)));
                }
                if Instant::now() >= self.reauthorize_at {
                    self.authorize();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts what the pool refuses without taking anything in between. Whether that is too much.
    fn count_refusal(&mut self, share: &Share, verdict: &Verdict) -> bool {
        if *verdict == Verdict::Accepted {
            self.client.refused_shares.reset();
            self.client.clear_fault(PoolFault::RefusesAll);
            return false;
        }
        // The pool asks for nothing but shares; a block that is none may be refused. And a share of a
        // job that was replaced while it was on its way is late, which is not the pool's fault.
        let Solution { job, hash, .. } = &share.solution;
        let is_late = matches!(verdict, Verdict::Stale(_))
            && self.client.job_table.id(job.key, hash).is_err();
        if is_late || !share.solution.is_share() {
            return false;
        }
        self.client.refused_shares.refused(Instant::now())
    }

    /// Leaves a pool that refuses everything: another connection may do better, or another pool.
    fn refuses_all(&mut self, words: &str) -> End {
        self.client.refused_shares.reset();
        self.client.mark_faulty(PoolFault::RefusesAll);
        if self.extranonce_changes > 0 {
            // Some hand out an extranonce that they do not go by themselves.
            self.client.skip(OptionalRequest::Extranonce);
        }
        End::Lost(format!("it refuses every share, the last with: {words}"))
    }

    /// Whether the pool lets us wait for its answers.
    pub(super) fn is_behind(&self) -> bool {
        self.in_flight.len() > BEHIND
    }

    /// Gives up on answers that are overdue, and on a pool that gives none.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.client.config.timing;
        let mut is_silent = false;
        while let Some(expired) = self.in_flight.expire(now, timing.answer) {
            let why = Refusal::new("", "the pool did not answer in time");
            self.client.port.verdict(&expired.share.solution, Verdict::Unknown(why));
            is_silent |= expired.sent > self.last_message;
            self.unanswered_shares.timed_out(expired.id, expired.sent);
        }
        self.resumed_job_expired();
        if is_silent {
            let seconds = timing.answer.as_secs();
            return Err(End::Lost(format!(
                "it has not answered, nor said anything else, for {seconds} s"
            )));
        }
        if self.unanswered_shares.deadline().is_some_and(|at| now >= at) {
            self.client.mark_faulty(PoolFault::Unresponsive);
            let seconds = timing.unanswered_shares.1.as_secs();
            return Err(End::Lost(format!(
                "it takes shares and has answered none for {seconds} s"
            )));
        }
        Ok(())
    }
}
