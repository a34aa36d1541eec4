//! What the engine keeps for one source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bitcoin::{BlockHash, Network};
use tokio::sync::{Notify, mpsc};

use super::confirmation::Confirmations;
use super::search_space::SearchSpace;
use crate::chain::min_difficulty::Stage;
use crate::chain::target::{Difficulty, Target};
use crate::event::{SourceState, Tally};
use crate::job::{Job, RejectReason, Solution, SourceId, Verdict};
use crate::printable::printable;

/// How many jobs that were replaced or cleared are remembered, so that the same work is not done
/// again when a pool sends it once more.
const RECENT_JOBS: usize = 8;

/// How many distinct reject reasons are counted one by one for each source: a pool may put
/// anything into them.
const REASONS_MAX: usize = 16;
/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 200;

/// How a source does, as far as its port tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It has published a job and not cleared it, or has said that nothing is to be mined now.
    pub is_ready: bool,
    /// Its last word was that it is lost or tries again.
    pub is_degraded: bool,
}

impl Health {
    /// Whether there is something to mine, or rightly nothing, and the source takes what is found.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        self.is_ready && !self.is_degraded
    }
}

/// The state of a source's connection, also of one that is not started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// The source is not running: a better-placed one is mined.
    #[default]
    Idle,
    /// It was started and has not answered yet.
    Connecting,
    /// It answers.
    Connected,
    /// It answered before and does not any more.
    Lost,
    /// It is tried again.
    Retrying,
}

impl From<SourceState> for Connection {
    fn from(state: SourceState) -> Self {
        match state {
            SourceState::Connected => Self::Connected,
            SourceState::Lost => Self::Lost,
            SourceState::Retrying => Self::Retrying,
        }
    }
}

/// What the engine is told of a source before it is started.
#[derive(Clone, Debug)]
pub struct SourceInfo {
    /// Its name, without secrets.
    pub name: String,
    /// The protocol that it speaks, as the status names it: `stratum_v1`.
    pub kind: &'static str,
}

impl SourceInfo {
    /// A source of this name (without secrets) and this protocol.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: &'static str) -> Self {
        Self { name: name.into(), kind }
    }
}

/// The facts of a job that the status shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobFacts {
    pub(super) height: Option<u32>,
    pub(super) previous_block_hash: BlockHash,
    pub(super) share_target: Target,
    pub(super) network_target: Target,
    pub(super) received: Instant,
}

/// The reasons for which a source refused solutions, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct RejectReasons {
    /// Distinct reasons in the order in which they came first, [`REASONS_MAX`] at most.
    pub(super) counts: Vec<(String, u64)>,
    /// Rejections for further reasons.
    pub(super) others: u64,
}

impl RejectReasons {
    fn count(&mut self, reason: &RejectReason) {
        let text = if reason.words.is_empty() { reason.meaning } else { &reason.words };
        let reason = printable(text, REASON_MAX);
        if let Some((_, count)) = self.counts.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        } else if self.counts.len() < REASONS_MAX {
            self.counts.push((reason, 1));
        } else {
            self.others += 1;
        }
    }
}

/// What the engine keeps for one source.
#[derive(Debug)]
pub(super) struct SourceSlot {
    /// Its name, without secrets.
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    /// What is left of its current job.
    pub(super) space: Option<SearchSpace>,
    /// What is left of jobs that are not mined now, the oldest first.
    recent_jobs: VecDeque<SearchSpace>,
    /// Candidates of units before this generation are stale, unless they are blocks on the tip.
    pub(super) valid_from: u64,
    /// The block that its current job builds on.
    pub(super) tip: Option<BlockHash>,
    /// The tip on which a block was found for a source that asks for shares.
    pub(super) block_found_on: Option<BlockHash>,
    /// Blocks that a pool has been given, until its next job shows what became of them.
    pub(super) confirmations: Confirmations,
    /// The block on top of which a solution was found that has no verdict yet: no second one is
    /// sought.
    pub(super) solved: Option<BlockHash>,
    /// Candidates of units before this generation are surplus: their height is solved.
    pub(super) surplus_before: u64,
    /// Gone when the source is to end.
    pub(super) solutions: Option<mpsc::Sender<Solution>>,
    pub(super) health: Health,
    /// Which difficulty the source mines under the twenty-minute rule, as it said last.
    pub(super) stage: Option<(Stage, Difficulty)>,

    // From here on: for the status alone.
    /// Its chain, where it tells.
    pub(super) network: Option<Network>,
    pub(super) connection: Connection,
    /// What it said with its last change of state.
    pub(super) reason: Option<String>,
    /// Its last job, until it is cleared.
    pub(super) job: Option<JobFacts>,
    pub(super) shares: Tally,
    pub(super) blocks: Tally,
    pub(super) reject_reasons: RejectReasons,
    /// When a share was accepted last, and the difficulty that its hash meets.
    pub(super) last_share: Option<(SystemTime, Difficulty)>,
    /// From found to answered, of that share.
    pub(super) latency: Option<Duration>,
    /// Where a request to connect again arrives.
    pub(super) reconnect: Arc<Notify>,
}

impl SourceSlot {
    pub(super) fn new(info: SourceInfo) -> Self {
        Self {
            name: info.name.into(),
            kind: info.kind,
            space: None,
            recent_jobs: VecDeque::with_capacity(RECENT_JOBS),
            valid_from: 0,
            tip: None,
            block_found_on: None,
            confirmations: Confirmations::default(),
            solved: None,
            surplus_before: 0,
            solutions: None,
            health: Health::default(),
            stage: None,
            network: None,
            connection: Connection::default(),
            reason: None,
            job: None,
            shares: Tally::default(),
            blocks: Tally::default(),
            reject_reasons: RejectReasons::default(),
            last_share: None,
            latency: None,
            reconnect: Arc::default(),
        }
    }

    /// Keeps what is left of the current job for later. A job that its first solution ends is never
    /// carried on.
    pub(super) fn park(&mut self) {
        let Some(space) = self.space.take().filter(|space| !space.job().ends_when_solved) else {
            return;
        };
        if self.recent_jobs.len() == RECENT_JOBS {
            self.recent_jobs.pop_front();
        }
        self.recent_jobs.push_back(space);
    }

    /// Makes a job the current one: what is left of the same work, or all of it.
    pub(super) fn adopt(&mut self, job: &Arc<Job>, source: SourceId, generation: u64) {
        self.park();
        let left = |space: &SearchSpace| space.carried_on(job, generation);
        let found = if job.ends_when_solved {
            None
        } else {
            let mut recent = self.recent_jobs.iter().enumerate().rev();
            recent.find_map(|(at, space)| Some((at, left(space)?)))
        };
        let space = match found {
            Some((at, space)) => {
                self.recent_jobs.remove(at);
                space
            }
            None => SearchSpace::new(job.clone(), generation),
        };
        self.tip = Some(job.previous_block_hash);
        self.job = Some(JobFacts {
            height: job.height,
            previous_block_hash: job.previous_block_hash,
            share_target: job.share_target,
            network_target: job.network_target,
            received: job.received,
        });
        if self.connection == Connection::Connecting {
            self.connection = Connection::Connected;
        }
        self.space = Some(space.of_source(source));
        self.seek_shares_only();
    }

    /// Stops seeking blocks that are no shares, where one was found on the tip already.
    fn seek_shares_only(&mut self) {
        if let Some(space) = &mut self.space
            && self.block_found_on == Some(space.job().previous_block_hash)
        {
            space.seek_shares_only();
        }
    }

    /// A block was found for a source that asks for shares. Whether it is the first on its tip.
    pub(super) fn block_found(&mut self, job: &Job) -> bool {
        let tip = Some(job.previous_block_hash);
        let is_first = self.block_found_on != tip;
        self.block_found_on = tip;
        self.seek_shares_only();
        is_first
    }

    /// Notes the new state of its connection, for the status.
    pub(super) fn note_connection(&mut self, connection: Connection, reason: Option<&str>) {
        self.connection = connection;
        self.reason = reason.map(|reason| printable(reason, REASON_MAX));
    }

    /// Counts why a solution was refused, if it was.
    pub(super) fn note_reject_reason(&mut self, verdict: &Verdict) {
        if let Verdict::Rejected(why) | Verdict::Stale(why) = verdict {
            self.reject_reasons.count(why);
        }
    }
}
