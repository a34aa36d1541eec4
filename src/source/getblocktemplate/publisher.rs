//! The template that is mined, and the jobs that are made of it.

use std::time::{Duration, Instant};

use bitcoin::BlockHash;

use super::limits::TIP_WATCH_DELAY;
use super::min_difficulty::MinDifficulty;
use super::node_state::NodeState;
use super::proposal::Proposals;
use super::rpc::Rpc;
use super::template::{Fingerprint, PreparedTemplate};
use crate::chain::params::Params;
use crate::engine::Port;
use crate::job::JobKey;

/// How old a job may grow before it is replaced for the sake of its nTime alone.
const NTIME_AGE: Duration = Duration::from_secs(60);
/// How long the last template is mined while the node is away. What is found is kept and submitted
/// when it is back.
const MINE_WITHOUT_NODE: Duration = Duration::from_secs(60);

/// The template that is mined.
#[derive(Debug)]
struct CurrentTemplate {
    previous_block_hash: BlockHash,
    fingerprint: Fingerprint,
    published: Instant,
    /// When the twenty-minute rule makes another template of it.
    until: Option<Instant>,
}

/// Publishes templates as jobs, and knows which one is mined.
#[derive(Debug)]
pub struct JobPublisher {
    current: Option<CurrentTemplate>,
    /// How many connections there were to a node that can be mined on.
    connection: u64,
    /// How many jobs were published.
    jobs: u64,
    /// When the node last gave a template.
    renewed: Instant,
    pub min_difficulty: MinDifficulty,
    /// Whether the node would accept our blocks.
    pub proposals: Proposals,
}

impl JobPublisher {
    /// Nothing is mined yet.
    pub fn new() -> Self {
        Self {
            current: None,
            connection: 0,
            jobs: 0,
            renewed: Instant::now(),
            min_difficulty: MinDifficulty::default(),
            proposals: Proposals::default(),
        }
    }

    /// Jobs from now on come over another connection.
    pub const fn new_connection(&mut self) {
        self.connection += 1;
    }

    /// Whether no connection has brought a template yet.
    pub const fn is_first_connection(&self) -> bool {
        self.connection == 0
    }

    /// The block that the current template builds on.
    pub fn tip(&self) -> Option<BlockHash> {
        self.current.as_ref().map(|current| current.previous_block_hash)
    }

    /// When the current template becomes another one by the twenty-minute rule.
    pub fn until(&self) -> Option<Instant> {
        self.current.as_ref().and_then(|current| current.until)
    }

    /// When the current template will have lasted, which one of a chain that is just growing does
    /// not;
    /// `None` if it has.
    pub fn lasts_at(&self) -> Option<Instant> {
        let current = self.current.as_ref()?;
        (current.published.elapsed() < TIP_WATCH_DELAY).then(|| current.published + TIP_WATCH_DELAY)
    }

    /// The node has given a template: announces that it works, or that it would reject our blocks.
    pub fn on_template_received(&mut self, port: &Port, state: &mut NodeState) {
        if !self.announce_rejection(port, state) {
            state.connected(port);
        }
        state.template_received();
        self.renewed = Instant::now();
    }

    /// Announces that the node would reject our blocks, if it said so; returns whether it did.
    pub fn announce_rejection(&self, port: &Port, state: &mut NodeState) -> bool {
        let rejection = self.proposals.rejection(self.connection);
        let is_rejected = rejection.is_some();
        if let Some(why) = rejection {
            state.retrying(port, why);
        }
        is_rejected
    }

    /// Publishes a template as a job, unless it would be mined just as the current one. `rpc` makes a
    /// client of the node; it is called only to propose a block.
    pub fn publish(
        &mut self,
        mut template: PreparedTemplate,
        params: Option<&Params>,
        port: &Port,
        state: &mut NodeState,
        rpc: impl FnOnce() -> Rpc,
    ) {
        let until = match self.min_difficulty.apply_min_difficulty_rule(&mut template, params, port)
        {
            Ok(until) => until,
            Err(why) => return state.retrying(port, why),
        };
        let clean = self.tip() != Some(template.previous_block_hash());
        let same = self.current.as_mut().filter(|current| {
            current.fingerprint == template.fingerprint && current.published.elapsed() < NTIME_AGE
        });
        if let Some(current) = same {
            current.until = until;
            return;
        }
        self.current = Some(CurrentTemplate {
            previous_block_hash: template.previous_block_hash(),
            fingerprint: template.fingerprint.clone(),
            published: Instant::now(),
            until,
        });
        self.proposals.consider(&template, self.connection, rpc);
        self.jobs += 1;
        let key = JobKey { connection: self.connection, number: self.jobs };
        port.publish(template.into_job(key, clean));
    }

    /// The current job is solved: a template like its own would be a new job.
    pub fn job_solved(&mut self) {
        self.current = None;
    }

    /// Mines nothing until there is a template that is wanted: the node works all the same.
    pub fn rest(&mut self, port: &Port) {
        self.current = None;
        port.idle();
    }

    /// Mines nothing until the node gives a template.
    pub fn stop_mining(&mut self, port: &Port) {
        if self.current.take().is_some() {
            port.clear_job();
        }
    }

    /// Stops mining a template that the node has not renewed for long.
    pub fn drop_old_template(&mut self, port: &Port) {
        if self.renewed.elapsed() > MINE_WITHOUT_NODE {
            self.stop_mining(port);
        }
    }
}
