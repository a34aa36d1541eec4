//! Turns what the pool has sent into jobs for the engine.

use std::time::Instant;

use super::super::work::{Extranonce, Notify};
use super::{Connection, HandshakePhase};
use crate::chain::coinbase::Coinbase;
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::job::{Job, MerkleRoot, TimeRange};

/// How far nTime is rolled beyond a job's own, in seconds, as the clock advances. It is only rolled when
/// all else is used up, and pools accept some minutes at least.
const NTIME_AHEAD: u32 = 600;

/// A job of the pool's with what the connection adds to it.
#[derive(Clone, Debug)]
pub(super) struct PoolJob {
    pub(super) notify: Notify,
    pub(super) extranonce: Extranonce,
    /// The target at which it is mined.
    pub(super) target: Target,
    /// The target that was set when the job came.
    pub(super) target_at_arrival: Target,
    pub(super) received: Instant,
}

impl Connection<'_> {
    /// Publishes a job that the pool has sent.
    pub(super) fn publish(&mut self, job: PoolJob) {
        let clean = job.notify.clean;
        // The difficulty may have been set after the job, and both have come in one read.
        self.lower_difficulty = self.lowered_for(&job, Instant::now());
        self.publish_job(&job, clean);
        self.current_job = Some(job);
    }

    /// Publishes the current job again, since something about it has changed, but not its work: what was
    /// found for it still counts. Nothing is published once the pool has asked for a new connection.
    pub(super) fn republish(&mut self, mut job: PoolJob) {
        if self.phase == HandshakePhase::Leaving {
            return;
        }
        job.received = Instant::now();
        self.publish_job(&job, false);
        self.current_job = Some(job);
    }

    fn publish_job(&mut self, upcoming: &PoolJob, clean: bool) {
        let PoolJob { notify, extranonce, target, received, .. } = upcoming;
        let work = &notify.work;
        if self.pool.share_limiter.limits(target) && self.pool.share_limiter.announce_once() {
            self.notice(format!(
                "the pool's difficulty, {}, is so low that shares would come by the thousand: only \
                 the best are searched for, some hundred a second",
                target.difficulty(),
            ));
        }
        let (key, is_known) =
            self.pool.session.job_table.add(&notify.id, work, extranonce, *target, clean);
        // What was found for the same work still counts, even if the pool calls the job clean; the table
        // sees to it that nothing else does.
        let clean = clean && !is_known;
        // A bit that the job sets itself is never cleared: pools differ in how they read that.
        let rolled = self.mask.unwrap_or(0) & VersionMask::BIP320.bits() & !work.version;
        self.pool.health.has_job(self.port);
        self.port.publish(Job {
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
            share_target: (*target).min(self.pool.share_limiter.easiest_target()),
            network_target: work.network_target,
            clean,
            ends_when_solved: false,
            body: None,
            received: *received,
        });
    }

    /// Publishes the current job again after the share limit has moved.
    pub(super) fn republish_at_limit(&mut self) {
        if let Some(current) = self.current_job.clone() {
            self.republish(current);
        }
    }

    /// Whether the share limit excludes shares that the current job asks for.
    pub(super) fn is_limited(&self) -> bool {
        self.current_job
            .as_ref()
            .is_some_and(|current| self.pool.share_limiter.limits(&current.target))
    }
}
