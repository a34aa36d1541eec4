//! What a pool's answers teach: from when on a difficulty holds, and in which form it takes version
//! bits.

use std::time::{Duration, Instant};

use super::super::client::OptionalRequest;
use super::super::quirks::DifficultyHolds;
use super::super::reject::RejectKind;
use super::super::version_bits::{Form, Learned};
use super::shares::Share;
use super::{Connection, End, PoolJob};
use crate::chain::target::Target;
use crate::job::{Solution, Verdict};

/// How long a job at the lower difficulty is waited for until one share is tried without.
const JOB_FOLLOWS: Duration = Duration::from_secs(2);

/// What is known of a difficulty that was lowered after the job at hand came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LowerDifficulty {
    /// There is none.
    No,
    /// It was lowered then, and no job has followed.
    Since(Instant),
    /// One share that meets only the lower difficulty is sought.
    Seeking,
    /// That share was sent, in the request of this number.
    Asked(u64),
}

impl Connection<'_> {
    /// The pool has set another difficulty, not the first.
    pub(super) fn difficulty_changed(&mut self, now: Instant) {
        if self.client.quirks.difficulty() == Some(DifficultyHolds::AtOnce) {
            self.mine_at_newest_difficulty();
            return;
        }
        if self.lower_difficulty == LowerDifficulty::Seeking {
            self.mine_current_as_sent();
        }
        self.lower_difficulty =
            self.current_job.as_ref().map_or(LowerDifficulty::No, |job| self.lowered_for(job, now));
    }

    /// Whether the difficulty that was set last is lower than the one that this job came with, and
    /// the pool has not yet shown when it holds.
    pub(super) fn lowered_for(&self, job: &PoolJob, now: Instant) -> LowerDifficulty {
        let is_lower = job.target_at_arrival < self.target;
        let learns = self.client.quirks.difficulty().is_none();
        if is_lower && learns { LowerDifficulty::Since(now) } else { LowerDifficulty::No }
    }

    /// When a share at the lower difficulty is tried.
    pub(super) fn probe_lower_at(&self) -> Option<Instant> {
        match self.lower_difficulty {
            LowerDifficulty::Since(at) => Some(at + JOB_FOLLOWS),
            LowerDifficulty::No | LowerDifficulty::Seeking | LowerDifficulty::Asked(_) => None,
        }
    }

    /// Seeks one share at the lower difficulty, if it is time.
    pub(super) fn probe_lower(&mut self, now: Instant) {
        if self.probe_lower_at().is_some_and(|at| now >= at) {
            self.lower_difficulty = LowerDifficulty::Seeking;
            self.mine_current_at(self.target);
        }
    }

    /// Whether a share is not sent because of a difficulty that has changed since, and why.
    pub(super) fn reason_to_withhold(&self, solution: &Solution) -> Option<&'static str> {
        if solution.is_block() {
            return None;
        }
        if self.client.quirks.difficulty() == Some(DifficultyHolds::AtOnce)
            && !self.target.is_met_by(&solution.hash)
        {
            return Some("the pool has raised the difficulty since; not sent");
        }
        let is_for_lower = || {
            self.current_job
                .as_ref()
                .is_some_and(|current| !current.target.is_met_by(&solution.hash))
        };
        (matches!(self.lower_difficulty, LowerDifficulty::Asked(_)) && is_for_lower())
            .then_some("another share tries whether the lower difficulty holds yet; not sent")
    }

    /// A share goes out in the request of this number: it may be the one that was sought.
    pub(super) fn on_share_sent(&mut self, number: u64, solution: &Solution) {
        let Some(target_at_arrival) =
            self.current_job.as_ref().map(|current| current.target_at_arrival)
        else {
            return;
        };
        // A block that is too easy even for the lower difficulty tells nothing of it.
        let tells =
            self.target.is_met_by(&solution.hash) && !target_at_arrival.is_met_by(&solution.hash);
        if self.lower_difficulty == LowerDifficulty::Seeking && tells {
            self.lower_difficulty = LowerDifficulty::Asked(number);
            self.mine_current_at(target_at_arrival);
        }
    }

    /// Whether the pool may have made another header of what it was sent.
    pub(super) fn maybe_other_header(&self, share: &Share) -> bool {
        share.form.is_some()
            && !self.client.version_bits.is_proven()
            && share.solution.is_share()
            && self.target.is_met_by(&share.solution.hash)
    }

    /// Learns from the answer to a share.
    pub(super) fn learn(
        &mut self,
        number: u64,
        share: &Share,
        verdict: &Verdict,
        kind: Option<RejectKind>,
    ) -> Result<(), End> {
        self.learn_difficulty(number, &share.solution, verdict, kind);
        let Some(form) = share.form else { return Ok(()) };
        let lesson = match (verdict, kind) {
            (Verdict::Accepted, _) => self.client.version_bits.accepted(form),
            (_, Some(RejectKind::OtherHeader)) => self.client.version_bits.refused(form),
            _ => Learned::Nothing,
        };
        match lesson {
            Learned::Nothing => Ok(()),
            Learned::Proven(form) => {
                if form == Form::Difference && self.client.quirks.version_bits() != Some(form) {
                    self.notice(
                        "the pool XORs version bits into the job's version, not as BIP 310 says: \
                         they are sent for that from now on"
                            .to_owned(),
                    );
                }
                self.client.quirks.learn_version_bits(form);
                Ok(())
            }
            Learned::Switched => {
                tracing::debug!("right shares are refused: version bits are sent in another form");
                Ok(())
            }
            Learned::NeitherForm => {
                self.client.skip(OptionalRequest::Configure);
                self.client.rolled = false;
                Err(End::Lost(
                    "it refuses right shares, however their version bits are sent: connecting \
                     without version rolling"
                        .to_owned(),
                ))
            }
        }
    }

    fn learn_difficulty(
        &mut self,
        number: u64,
        solution: &Solution,
        verdict: &Verdict,
        kind: Option<RejectKind>,
    ) {
        let too_easy = kind == Some(RejectKind::LowDifficulty);
        if self.lower_difficulty == LowerDifficulty::Asked(number) {
            self.lower_difficulty = LowerDifficulty::No;
            if *verdict == Verdict::Accepted {
                self.client.quirks.learn_difficulty(DifficultyHolds::AtOnce);
                self.mine_at_newest_difficulty();
            } else if too_easy {
                self.client.quirks.learn_difficulty(DifficultyHolds::ForLaterJobs);
            }
            return;
        }
        if !too_easy || !solution.is_share() {
            return;
        }
        if !self.target.is_met_by(&solution.hash) {
            // It met its job's difficulty, and not the one that was set since.
            self.client.quirks.learn_difficulty(DifficultyHolds::AtOnce);
            self.mine_at_newest_difficulty();
        } else if self.client.quirks.difficulty() == Some(DifficultyHolds::AtOnce) {
            self.client.quirks.learn_difficulty(DifficultyHolds::ForLaterJobs);
            self.mine_current_as_sent();
        }
    }

    /// Mines the job at hand at the difficulty that was set last.
    fn mine_at_newest_difficulty(&mut self) {
        match &mut self.next_job {
            Some(fresh) => fresh.target = self.target,
            None => self.mine_current_at(self.target),
        }
    }

    /// Mines the job at hand at the difficulty that held when it came.
    fn mine_current_as_sent(&mut self) {
        if let Some(target_at_arrival) =
            self.current_job.as_ref().map(|current| current.target_at_arrival)
        {
            self.mine_current_at(target_at_arrival);
        }
    }

    fn mine_current_at(&mut self, target: Target) {
        if let Some(mut current) = self.current_job.clone()
            && current.target != target
        {
            current.target = target;
            self.republish(current);
        }
    }
}
