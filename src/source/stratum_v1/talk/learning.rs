//! What a pool's answers teach: from when on a difficulty holds, and in which form it takes version
//! bits.

use std::time::{Duration, Instant};

use super::super::habits::DifficultyHolds;
use super::super::session::Optional;
use super::super::verdict::Kind;
use super::super::version_bits::{Form, Lesson};
use super::shares::Sent;
use super::{End, Talk, Upcoming};
use crate::chain::target::Target;
use crate::job::{Solution, Verdict};

/// How long a job at the lower difficulty is waited for until one share is tried without.
const JOB_FOLLOWS: Duration = Duration::from_secs(2);

/// What is known of a difficulty that was lowered after the job at hand came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lowered {
    /// There is none.
    No,
    /// It was lowered then, and no job has followed.
    Since(Instant),
    /// One share that meets only the lower difficulty is sought.
    Seeking,
    /// That share was sent, in the request of this number.
    Asked(u64),
}

impl Talk<'_> {
    /// The pool has set another difficulty, not the first.
    pub(super) fn difficulty_changed(&mut self, now: Instant) {
        if self.session.habits.difficulty() == Some(DifficultyHolds::AtOnce) {
            self.mine_at_newest_difficulty();
            return;
        }
        if self.lowered == Lowered::Seeking {
            self.mine_current_as_sent();
        }
        self.lowered = self.current.as_ref().map_or(Lowered::No, |job| self.lowered_for(job, now));
    }

    /// Whether the difficulty that was set last is lower than the one that this job came with, and
    /// the pool has not yet shown when it holds.
    pub(super) fn lowered_for(&self, job: &Upcoming, now: Instant) -> Lowered {
        let is_lower = job.as_sent < self.target;
        let learns = self.session.habits.difficulty().is_none();
        if is_lower && learns { Lowered::Since(now) } else { Lowered::No }
    }

    /// When a share at the lower difficulty is tried.
    pub(super) fn tries_lower_at(&self) -> Option<Instant> {
        match self.lowered {
            Lowered::Since(at) => Some(at + JOB_FOLLOWS),
            Lowered::No | Lowered::Seeking | Lowered::Asked(_) => None,
        }
    }

    /// Seeks one share at the lower difficulty, if it is time.
    pub(super) fn try_lower(&mut self, now: Instant) {
        if self.tries_lower_at().is_some_and(|at| now >= at) {
            self.lowered = Lowered::Seeking;
            self.mine_current_at(self.target);
        }
    }

    /// Whether a share is not sent because of a difficulty that has changed since, and why.
    pub(super) fn held_back(&self, solution: &Solution) -> Option<&'static str> {
        if solution.is_block() {
            return None;
        }
        if self.session.habits.difficulty() == Some(DifficultyHolds::AtOnce)
            && !self.target.is_met_by(&solution.hash)
        {
            return Some("the pool has raised the difficulty since; not sent");
        }
        let is_for_lower = || {
            self.current.as_ref().is_some_and(|current| !current.target.is_met_by(&solution.hash))
        };
        (matches!(self.lowered, Lowered::Asked(_)) && is_for_lower())
            .then_some("another share tries whether the lower difficulty holds yet; not sent")
    }

    /// A share goes out in the request of this number: it may be the one that was sought.
    pub(super) fn sends(&mut self, number: u64, solution: &Solution) {
        let Some(as_sent) = self.current.as_ref().map(|current| current.as_sent) else { return };
        // A block that is too easy even for the lower difficulty tells nothing of it.
        let tells = self.target.is_met_by(&solution.hash) && !as_sent.is_met_by(&solution.hash);
        if self.lowered == Lowered::Seeking && tells {
            self.lowered = Lowered::Asked(number);
            self.mine_current_at(as_sent);
        }
    }

    /// Whether the pool may have made another header of what it was sent.
    pub(super) fn maybe_other_header(&self, sent: &Sent) -> bool {
        sent.form.is_some()
            && !self.session.version_bits.is_proven()
            && sent.solution.is_share()
            && self.target.is_met_by(&sent.solution.hash)
    }

    /// Learns from the answer to a share.
    pub(super) fn learn(
        &mut self,
        number: u64,
        sent: &Sent,
        verdict: &Verdict,
        kind: Option<Kind>,
    ) -> Result<(), End> {
        self.learn_difficulty(number, &sent.solution, verdict, kind);
        let Some(form) = sent.form else { return Ok(()) };
        let lesson = match (verdict, kind) {
            (Verdict::Accepted, _) => self.session.version_bits.accepted(form),
            (_, Some(Kind::OtherHeader)) => self.session.version_bits.refused(form),
            _ => Lesson::Nothing,
        };
        match lesson {
            Lesson::Nothing => Ok(()),
            Lesson::Proven(form) => {
                if form == Form::Difference && self.session.habits.version_bits() != Some(form) {
                    self.notice(
                        "the pool XORs version bits into the job's version, not as BIP 310 says: \
                         they are sent for that from now on"
                            .to_owned(),
                    );
                }
                self.session.habits.learn_version_bits(form);
                Ok(())
            }
            Lesson::Switched => {
                tracing::debug!("right shares are refused: version bits are sent in another form");
                Ok(())
            }
            Lesson::Neither => {
                self.session.leave_out(Optional::Configure);
                self.session.rolled = false;
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
        kind: Option<Kind>,
    ) {
        let too_easy = kind == Some(Kind::LowDifficulty);
        if self.lowered == Lowered::Asked(number) {
            self.lowered = Lowered::No;
            if *verdict == Verdict::Accepted {
                self.session.habits.learn_difficulty(DifficultyHolds::AtOnce);
                self.mine_at_newest_difficulty();
            } else if too_easy {
                self.session.habits.learn_difficulty(DifficultyHolds::ForLaterJobs);
            }
            return;
        }
        if !too_easy || !solution.is_share() {
            return;
        }
        if !self.target.is_met_by(&solution.hash) {
            // It met its job's difficulty, and not the one that was set since.
            self.session.habits.learn_difficulty(DifficultyHolds::AtOnce);
            self.mine_at_newest_difficulty();
        } else if self.session.habits.difficulty() == Some(DifficultyHolds::AtOnce) {
            self.session.habits.learn_difficulty(DifficultyHolds::ForLaterJobs);
            self.mine_current_as_sent();
        }
    }

    /// Mines the job at hand at the difficulty that was set last.
    fn mine_at_newest_difficulty(&mut self) {
        match &mut self.fresh {
            Some(fresh) => fresh.target = self.target,
            None => self.mine_current_at(self.target),
        }
    }

    /// Mines the job at hand at the difficulty that held when it came.
    fn mine_current_as_sent(&mut self) {
        if let Some(as_sent) = self.current.as_ref().map(|current| current.as_sent) {
            self.mine_current_at(as_sent);
        }
    }

    fn mine_current_at(&mut self, target: Target) {
        if let Some(mut current) = self.current.clone()
            && current.target != target
        {
            current.target = target;
            self.publish_again(current);
        }
    }
}
