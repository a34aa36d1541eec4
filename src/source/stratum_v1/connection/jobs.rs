//! From what the pool has sent to a job of the engine's.

use std::time::Instant;

use super::super::work::{Extranonce, Notify};
use super::{Connection, HandshakePhase};
use crate::chain::coinbase::Coinbase;
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::job::{Job, MerkleRoot, TimeRange};

/// How far nTime is rolled beyond a job's own, with the clock. It is only rolled when all else is
/// used up, and pools take some minutes at least.
const NTIME_AHEAD: u32 = 600;

/// A job to be published, with what the connection has added.
#[derive(Clone, Debug)]
pub(super) struct PoolJob {
    pub(super) notify: Notify,
    pub(super) extranonce: Extranonce,
    /// The target at which it is mined.
    pub(super) target: Target,
    /// The one that held when it came.
    pub(super) target_at_arrival: Target,
    pub(super) received: Instant,
}

impl Connection<'_> {
    /// Begins a job that the pool has sent.
    pub(super) fn publish(&mut self, job: PoolJob) {
        let clean = job.notify.clean;
        // The difficulty may have been set after the job, and both have come at once.
        self.lower_difficulty = self.lowered_for(&job, Instant::now());
        self.begin_job(&job, clean);
        self.current_job = Some(job);
    }

    /// Begins the current job anew, since something about it has changed: not its work, of which
    /// what was found for it still counts. Nothing is begun where the pool wants us to connect anew.
    pub(super) fn republish(&mut self, mut job: PoolJob) {
        if self.phase == HandshakePhase::Leaving {
            return;
        }
        job.received = Instant::now();
        self.begin_job(&job, false);
        self.current_job = Some(job);
    }

    fn begin_job(&mut self, upcoming: &PoolJob, clean: bool) {
        let PoolJob { notify, extranonce, target, received, .. } = upcoming;
        let work = &notify.work;
        if self.client.share_limiter.limits(target) && self.client.share_limiter.announce_once() {
            self.notice(format!(
                "the pool's difficulty, {}, asks for more shares than anybody needs: only the best \
                 of them are sought, some hundred a second",
                target.difficulty(),
            ));
        }
        let (key, again) = self.client.job_table.add(&notify.id, work, extranonce, *target, clean);
        // What was found for the same work is not worthless, whatever was said; the table sees to it
        // that everything else is.
        let clean = clean && !again;
        // A bit that the job sets itself is never cleared: pools differ in what they make of that.
        let rolled = self.mask.unwrap_or(0) & VersionMask::BIP320.bits() & !work.version;
        self.client.report_healthy();
        self.client.port.publish(Job {
            key,
            version: work.version,
            version_mask: VersionMask::new(rolled),
            previous_block_hash: work.previous_block_hash,
            height: work.height(),
            nbits: work.nbits,
            ntime: TimeRange { first: work.ntime, ahead: NTIME_AHEAD },
            merkle_root: MerkleRoot::Rolled(Coinbase {
                prefix: work.prefix.clone(),
                fixed_extranonce: extranonce.fixed.clone(),
                extranonce_len: extranonce.len,
                suffix: work.suffix.clone(),
                merkle_branch: work.merkle_branch.clone(),
            }),
            share_target: (*target).min(self.client.share_limiter.floor()),
            network_target: work.network_target,
            clean,
            ends_when_solved: false,
            body: None,
            received: *received,
        });
    }

    /// Mines the current job at the floor of now.
    pub(super) fn republish_at_limit(&mut self) {
        if let Some(current) = self.current_job.clone() {
            self.republish(current);
        }
    }

    /// Whether the floor keeps shares of the current job away.
    pub(super) fn is_limited(&self) -> bool {
        self.current_job
            .as_ref()
            .is_some_and(|current| self.client.share_limiter.limits(&current.target))
    }
}
