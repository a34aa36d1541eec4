//! From a solution to its verdict: the block on disk, submitted, and submitted again.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bitcoin::{BlockHash, Network};
use bytes::Bytes;
use serde::de::IgnoredAny;

use super::calls::{submit_request, template_request};
use super::limits::{CALL_TIMEOUT, RESPONSE_BYTES, SMALL_CALL_TIMEOUT, TEMPLATE_BYTES};
use super::node_state::NodeState;
use super::resubmit::{ResubmitQueue, UnresolvedBlock};
use super::rpc::{Envelope, Rpc, RpcError};
use super::slow_node;
use super::template::{self, Payout, PreparedTemplate, Template, TemplateError};
use super::verdict::{Ask, submit_block, submit_response, verdict_of};
use crate::chain::block;
use crate::chain::params::Params;
use crate::engine::Port;
use crate::job::{MerkleRoot, RejectReason, Solution, Verdict};
use crate::journal::{EntryId, Fate, Found, Journal, Pending};
use crate::source::backoff::Backoff;
use crate::source::node_reject::SubmitResponse;

/// How old a block of a regtest chain may grow before it is given up if no node accepts it: such
/// chains are thrown away, and others take their places.
const REGTEST_AGE: Duration = Duration::from_secs(24 * 3600);
/// The waits before a height is mined again on which the node did not accept our block.
const REJECTED_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(30));

/// A found block that was submitted, or is about to be, and has no answer.
#[derive(Debug)]
pub struct FoundBlock {
    pub solution: Solution,
    block_hex: String,
    /// Where it is on disk, if it is.
    entry: Option<EntryId>,
}

/// What came of submitting a block.
#[derive(Debug)]
pub struct Submitted {
    pub found: FoundBlock,
    pub verdict: Verdict,
    /// The template that was fetched with the answer, where one was: it builds on the block if the
    /// node accepted it.
    pub template: Option<Result<PreparedTemplate, TemplateError>>,
}

/// Why a submitted block has no verdict. It is kept and submitted again.
#[derive(Debug)]
pub enum SubmitError {
    /// The call failed.
    Rpc(RpcError),
    /// The response cannot be read.
    Unreadable(String),
}

impl From<RpcError> for SubmitError {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

/// Makes blocks of solutions, keeps them on disk and submits them, until each has its verdict.
///
/// Solutions that come in while it waits for an answer are written to the journal at once and
/// submitted later.
#[derive(Debug)]
pub struct Submitter {
    journal: Arc<Journal>,
    /// The node, as the journal names it: one name for each spelling of this machine.
    node_name: String,
    /// The node's chain, once it has told.
    params: Option<&'static Params>,
    /// The connection that submits.
    rpc: Rpc,
    /// A client like `rpc` that is never connected: others are made of it while `rpc` is busy.
    unconnected: Rpc,
    /// Blocks of this run whose answer never came.
    unanswered: Vec<FoundBlock>,
    /// Whether the node takes JSON-RPC batches, as far as we know.
    takes_batches: bool,
    /// How long to wait after a block that was not accepted.
    rejected: Backoff,
    /// Blocks that the node cannot judge yet.
    unresolved: ResubmitQueue,
    /// Blocks of earlier runs that have not been submitted again yet.
    earlier: Vec<EntryId>,
    /// Whether the journal was asked for them.
    asked_journal: bool,
}

impl Submitter {
    /// Submits over `rpc`; the journal names the node `node_name`.
    pub fn new(journal: Arc<Journal>, node_name: String, rpc: Rpc) -> Self {
        Self {
            journal,
            node_name,
            params: None,
            unconnected: rpc.sibling(),
            rpc,
            unanswered: Vec::new(),
            takes_batches: true,
            rejected: Backoff::new(REJECTED_BACKOFF),
            unresolved: ResubmitQueue::default(),
            earlier: Vec::new(),
            asked_journal: false,
        }
    }

    /// Notes which chain the node is on, by whose name blocks are recorded.
    pub const fn set_chain(&mut self, params: &'static Params) {
        self.params = Some(params);
    }

    /// The connection that submits.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Closes the connection; the next call opens another.
    pub fn hang_up(&mut self) {
        self.rpc.hang_up();
    }

    /// Writes the fates noted to the journal.
    pub fn flush_journal(&self, port: &Port) {
        if let Err(error) = self.journal.flush() {
            port.notice(error.to_string());
        }
    }

    /// Makes a call over the connection that submits, and keeps what is found meanwhile. Goes on
    /// when it is time to stop: a block may be on its way.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub async fn call(
        &mut self,
        body: String,
        limit: usize,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Bytes, RpcError> {
        let Self { rpc, unconnected, journal, node_name, params, unanswered, .. } = self;
        let (mut stopping, mut is_slow) = (false, false);
        let mut call = pin!(rpc.call(body.into(), limit, CALL_TIMEOUT));
        let mut reason = pin!(slow_node::diagnose(|| unconnected.sibling()));
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return answer,
                solution = port.solution(), if !stopping => {
                    if let Some(solution) = solution {
                        unanswered.push(record(solution, journal, node_name, *params, port));
                    } else {
                        stopping = true;
                        state.ended(port);
                    }
                }
                reason = &mut reason, if !is_slow => {
                    is_slow = true;
                    state.slow(port, reason);
                }
            }
        }
    }

    /// Makes a small call while mining goes on. What is found meanwhile waits in the port.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub async fn small_call(
        &mut self,
        call: String,
        port: &Port,
        state: &mut NodeState,
    ) -> Result<Bytes, RpcError> {
        let Self { rpc, unconnected, .. } = self;
        let mut call = pin!(rpc.call(call.into(), RESPONSE_BYTES, SMALL_CALL_TIMEOUT));
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            reason = slow_node::diagnose(|| unconnected.sibling()) => state.slow(port, reason),
        }
        call.await
    }

    /// Builds the block and writes it to the journal.
    fn record(&self, solution: Solution, port: &Port) -> FoundBlock {
        record(solution, &self.journal, &self.node_name, self.params, port)
    }

    /// Records a block that cannot be submitted now; it is with the next connection.
    pub fn keep_for_later(&mut self, solution: Solution, port: &Port) {
        let found = self.record(solution, port);
        self.unanswered.push(found);
    }

    /// Submits a block again whose answer never came; `None` when there is none left.
    ///
    /// # Errors
    /// When the call fails: the block is kept.
    pub async fn resend_unanswered(
        &mut self,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Option<(FoundBlock, Verdict)>, RpcError> {
        let Some(found) = self.unanswered.first() else { return Ok(None) };
        let (block_hex, hash) = (found.block_hex.clone(), found.solution.hash);
        let verdict = self.submit_alone(&block_hex, hash, port, state).await?;
        Ok(Some((self.unanswered.remove(0), verdict)))
    }

    /// Submits the blocks of earlier runs on this node whose fate is unknown.
    ///
    /// # Errors
    /// When a call fails: that block and the rest are kept.
    pub async fn resend_earlier_runs(
        &mut self,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<(), RpcError> {
        if !std::mem::replace(&mut self.asked_journal, true)
            && let Some(params) = self.params
        {
            self.earlier = self.journal.pending(params.name);
        }
        let mut elsewhere = OtherNodes::default();
        let mut too_old = 0;
        while let Some(entry) = self.earlier.first().copied() {
            match self.journal.read(entry) {
                Ok(Some(found)) if found.source == self.node_name => {
                    let verdict =
                        self.submit_alone(&found.block_hex, found.hash, port, state).await?;
                    let block = UnresolvedBlock::of_journal(&found);
                    if !matches!(verdict, Verdict::Unknown(_)) {
                        self.record_fate(entry, &verdict);
                        port.late_verdict(&block.reported, verdict);
                    } else if self.is_too_old(&found) {
                        too_old += 1;
                        self.journal.settle(entry, Fate::Stale);
                    } else {
                        self.unresolved.add(block);
                    }
                }
                // Another source of this run submits its own.
                Ok(Some(_)) if !entry.is_adopted() => {}
                Ok(Some(found)) if self.is_too_old(&found) => {
                    too_old += 1;
                    self.journal.settle(entry, Fate::Stale);
                }
                Ok(Some(found)) => elsewhere.count(found.source),
                Ok(None) => {}
                Err(error) => port.notice(error.to_string()),
            }
            self.earlier.remove(0);
        }
        let unresolved = self.unresolved.of_earlier_runs();
        if unresolved > 0 {
            port.notice(format!(
                "{} of earlier runs: the node cannot judge {} yet; submitted again at every new tip",
                blocks(unresolved),
                if unresolved == 1 { "it" } else { "them" },
            ));
        }
        if too_old > 0 {
            port.notice(format!(
                "{} of earlier runs on regtest given up: found over {} hours ago, and no node that \
                 accepts them came back",
                blocks(too_old),
                REGTEST_AGE.as_secs() / 3600,
            ));
        }
        if let Some(line) = elsewhere.line() {
            port.notice(line);
        }
        // Those that the node cannot judge are due with each new connection.
        self.unresolved.tip_moved();
        Ok(())
    }

    /// Whether a block of an earlier run is one of a regtest chain that is most likely gone.
    fn is_too_old(&self, found: &Pending) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.params.is_some_and(|params| params.network == Network::Regtest)
            && now.as_secs_f64() - found.time > REGTEST_AGE.as_secs_f64()
    }

    /// The node has a new tip, so what it could not judge may be due again.
    pub fn tip_moved(&mut self) {
        self.unresolved.tip_moved();
        self.resubmit_due();
    }

    /// The node gave a template on `tip`; `height` is that of the block to be found.
    pub fn template_received(&mut self, tip: BlockHash, height: Option<u32>) {
        self.unresolved.template_received(tip, height);
        self.resubmit_due();
    }

    /// When the blocks that the node could not judge are due next.
    pub fn resubmit_at(&self) -> Option<Instant> {
        self.unresolved.due()
    }

    /// Submits the blocks again that the node could not judge, if that is due; nothing waits for it.
    pub fn resubmit_due(&mut self) {
        let Self { unresolved, journal, rpc, .. } = self;
        unresolved.submit_due(journal, || rpc.sibling());
    }

    /// Waits for what the node says of a block that it could not judge before; `None` when all were
    /// submitted that were due. May be dropped at any time and called again.
    pub async fn next_resubmitted(&mut self) -> Option<(BlockHash, Verdict)> {
        self.unresolved.next_verdict().await
    }

    /// Announces what the node says of a block that it could not judge before; returns it if it is
    /// the block's fate.
    pub fn settle_resubmitted(
        &mut self,
        hash: BlockHash,
        verdict: Verdict,
        port: &Port,
    ) -> Option<Verdict> {
        let verdict = match verdict {
            Verdict::Unknown(why) if self.unresolved.is_passed_by(hash) => {
                let meaning =
                    "the node could not judge it, and its chain is 100 blocks further now";
                Verdict::Stale(RejectReason { meaning, ..why })
            }
            Verdict::Unknown(_) => return None,
            verdict => verdict,
        };
        let block = self.unresolved.remove(hash)?;
        if let Some(entry) = block.entry {
            self.record_fate(entry, &verdict);
        }
        port.late_verdict(&block.reported, verdict.clone());
        Some(verdict)
    }

    /// Submits a block in a call of its own. [`Verdict::Unknown`]: the node cannot judge it yet.
    async fn submit_alone(
        &mut self,
        block_hex: &str,
        hash: BlockHash,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Verdict, RpcError> {
        submit_block(&mut WhileMining { submitter: self, port, state }, block_hex, hash).await
    }

    /// Submits a block. With a payout, the next template is fetched in the same batch, if the node
    /// takes batches.
    ///
    /// # Errors
    /// When the block has no verdict: it is kept and submitted again with the next connection.
    pub async fn submit(
        &mut self,
        solution: Solution,
        with_template: Option<&Payout>,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Submitted, SubmitError> {
        let found = self.record(solution, port);
        tracing::debug!(
            hash = %found.solution.hash,
            after = ?found.solution.found.elapsed(),
            "submitting"
        );
        let outcome = match with_template.filter(|_| self.takes_batches) {
            Some(payout) => self.submit_in_batch(&found, payout, port, state).await,
            None => self.submit_apart(&found, port, state).await,
        };
        match outcome {
            Ok((verdict, template)) => Ok(Submitted { found, verdict, template }),
            Err(error) => {
                self.unanswered.push(found);
                Err(error)
            }
        }
    }

    /// Submits a block without fetching a template.
    async fn submit_apart(
        &mut self,
        found: &FoundBlock,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Outcome, SubmitError> {
        let hash = found.solution.hash;
        let verdict = self.submit_alone(&found.block_hex, hash, port, state).await?;
        Ok((verdict, None))
    }

    /// Submits a block and fetches the next template in one batch.
    async fn submit_in_batch(
        &mut self,
        found: &FoundBlock,
        payout: &Payout,
        port: &mut Port,
        state: &mut NodeState,
    ) -> Result<Outcome, SubmitError> {
        let and_template = format!(",{}]", template_request(false));
        let batch = submit_request(&found.block_hex, "[", &and_template);
        let body = match self.call(batch, TEMPLATE_BYTES, port, state).await {
            Ok(body) => body,
            // One of both calls, or batches: in calls of their own the node says which.
            Err(RpcError::Forbidden(_)) => return self.submit_apart(found, port, state).await,
            Err(error) => return Err(error.into()),
        };
        let Some((response, template)) = parse_batch(&body, payout, Instant::now())? else {
            tracing::debug!("the node does not take batches");
            self.takes_batches = false;
            return self.submit_apart(found, port, state).await;
        };
        let mut node = WhileMining { submitter: self, port, state };
        let verdict = verdict_of(response?, found.solution.hash, &mut node).await?;
        Ok((verdict, Some(template)))
    }

    /// Notes what became of a block of this run; how long to wait before its height is mined again,
    /// if the block was not accepted.
    pub fn settle(&mut self, found: &FoundBlock, verdict: &Verdict) -> Option<Duration> {
        if let Some(entry) = found.entry {
            self.record_fate(entry, verdict);
        }
        if matches!(verdict, Verdict::Unknown(_)) {
            let FoundBlock { solution, block_hex, entry } = found;
            self.unresolved.add(UnresolvedBlock::of_this_run(solution, block_hex, *entry));
        }
        if *verdict == Verdict::Accepted {
            self.rejected.reset();
            return None;
        }
        // Another block like it would be refused the same way: not at once, and less and less often.
        Some(self.rejected.next())
    }

    /// Notes in the journal what became of a block.
    fn record_fate(&self, entry: EntryId, verdict: &Verdict) {
        if let Some(fate) = Fate::of(verdict) {
            self.journal.settle(entry, fate);
        }
    }
}

/// A verdict, and the template that came with it where one was asked for.
type Outcome = (Verdict, Option<Result<PreparedTemplate, TemplateError>>);

/// The connection that submits, which keeps what is found while it waits for an answer.
struct WhileMining<'a> {
    submitter: &'a mut Submitter,
    port: &'a mut Port,
    state: &'a mut NodeState,
}

impl Ask for WhileMining<'_> {
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        self.submitter.call(call, RESPONSE_BYTES, self.port, self.state)
    }
}

/// Builds the block of a solution and writes it to the journal.
fn record(
    solution: Solution,
    journal: &Journal,
    node_name: &str,
    params: Option<&Params>,
    port: &Port,
) -> FoundBlock {
    let job = &solution.job;
    let block_hex = match (&job.merkle_root, &job.body) {
        (MerkleRoot::Rolled(coinbase), Some(body)) => {
            block::assemble_hex(&solution.header, coinbase, solution.extranonce, body)
        }
        // Jobs of this source have both.
        _ => String::new(),
    };
    let found = Found {
        network: params.map_or("", |params| params.name),
        source: node_name,
        height: job.height,
        header: &solution.header,
        block_hex: &block_hex,
    };
    let entry = match journal.record(&found) {
        Ok(entry) => Some(entry),
        Err(error) => {
            // A block that is not on disk is still worth submitting.
            port.notice(format!("{error}; the block is submitted without being on disk"));
            None
        }
    };
    for warning in journal.warnings() {
        port.notice(warning.to_string());
    }
    FoundBlock { solution, block_hex, entry }
}

/// The responses to a batch of `submitblock` and `getblocktemplate`.
type BatchResponse<'a, T> = (Envelope<Cow<'a, str>>, T);

/// What a batch comes to: the response to the block, and the template.
type BatchOutcome = (Result<SubmitResponse, RpcError>, Result<PreparedTemplate, TemplateError>);

/// Parses the response to a batch whose last byte came at `received`; `None` where the node does not
/// take batches.
fn parse_batch(
    body: &Bytes,
    payout: &Payout,
    received: Instant,
) -> Result<Option<BatchOutcome>, SubmitError> {
    if !body.starts_with(b"[") {
        let single = template::parse::<Envelope<IgnoredAny>>(body);
        return match single.map(Envelope::into_result) {
            // Parse error, invalid request, unknown method.
            Ok(Err(RpcError::Node { code: -32700 | -32600 | -32601, .. })) => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => {
                Err(SubmitError::Unreadable("the answer to a batch is not a list".to_owned()))
            }
        };
    }
    let (response, template) =
        match template::parse::<BatchResponse<'_, Envelope<Template<'_>>>>(body) {
            Ok((response, template)) => (response, template::prepare(template, payout, received)),
            // A template that cannot be read must not hide the block's fate.
            Err(error) => match template::parse::<BatchResponse<'_, IgnoredAny>>(body) {
                Ok((response, _)) => (response, Err(error)),
                Err(error) => return Err(SubmitError::Unreadable(error.to_string())),
            },
        };
    let response = response.into_result().map(|words| words.map(Cow::into_owned));
    Ok(Some((submit_response(response), template)))
}

/// Blocks of earlier runs that are for other nodes: how many, and which nodes.
#[derive(Debug, Default)]
struct OtherNodes {
    blocks: usize,
    sources: BTreeSet<String>,
}

impl OtherNodes {
    /// How many nodes are named at most.
    const NAMED: usize = 3;

    fn count(&mut self, source: String) {
        self.blocks += 1;
        self.sources.insert(source);
    }

    /// What is said of them, in one line.
    fn line(&self) -> Option<String> {
        let mut named: Vec<&str> =
            self.sources.iter().take(Self::NAMED).map(String::as_str).collect();
        if self.sources.len() > Self::NAMED {
            named.push("others");
        }
        (self.blocks > 0).then(|| {
            format!(
                "the journal has {} of unknown fate for {}: mine there to have them submitted again",
                blocks(self.blocks),
                named.join(", "),
            )
        })
    }
}

fn blocks(count: usize) -> String {
    if count == 1 { "1 block".to_owned() } else { format!("{count} blocks") }
}
