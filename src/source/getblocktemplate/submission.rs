//! From a solution to its verdict: the block on disk, on its way, and sent again.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use super::client::request;
use super::fetch::template_request;
use super::resubmit::UnresolvedBlock;
use super::*;
use crate::job::Refusal;
use crate::journal::Pending;
use crate::source::node_reject::SubmitResponse;

/// How old a block of a regtest chain may grow before it is given up where no node takes it: such
/// chains are thrown away, and others come in their places.
const REGTEST_AGE: Duration = Duration::from_secs(24 * 3600);

impl Submitter {
    /// Builds the block and writes it to the journal.
    pub(super) fn keep(&self, solution: Solution, port: &Port) -> FoundBlock {
        let job = &solution.job;
        let block_hex = match (&job.merkle_root, &job.body) {
            (MerkleRoot::Rolled(coinbase), Some(body)) => {
                block::assemble_hex(&solution.header, coinbase, solution.extranonce, body)
            }
            // Jobs of this source have both.
            _ => String::new(),
        };
        let found = Found {
            network: self.network,
            source: &self.name,
            height: job.height,
            header: &solution.header,
            block_hex: &block_hex,
        };
        let entry = match self.journal.record(&found) {
            Ok(entry) => Some(entry),
            Err(error) => {
                // A block that is not on disk is still worth sending.
                port.notice(format!("{error}; the block is sent without being on disk"));
                None
            }
        };
        for warning in self.journal.warnings() {
            port.notice(warning.to_string());
        }
        FoundBlock { solution, block_hex, entry }
    }

    /// Notes in the journal what became of a block.
    pub(super) fn record_fate(&self, entry: EntryId, verdict: &Verdict) {
        if let Some(fate) = Fate::of(verdict) {
            self.journal.settle(entry, fate);
        }
    }
}

impl Client {
    /// Sends blocks again whose answer never came.
    pub(super) async fn send_again(&mut self) -> Result<(), RpcError> {
        while let Some(found) = self.unanswered.first() {
            let (block_hex, hash) = (found.block_hex.clone(), found.solution.hash);
            let verdict = self.submit_alone(&block_hex, hash).await?;
            let found = self.unanswered.remove(0);
            self.settle(&found, verdict);
        }
        Ok(())
    }

    /// Sends blocks of earlier runs on this node whose fate is unknown.
    pub(super) async fn send_earlier_runs(&mut self) -> Result<(), RpcError> {
        let mut elsewhere = Elsewhere::default();
        let mut too_old = 0;
        while let Some(entry) = self.earlier.first().copied() {
            match self.submitter.journal.read(entry) {
                Ok(Some(found)) if found.source == self.submitter.name => {
                    let verdict = self.submit_alone(&found.block_hex, found.hash).await?;
                    let block = UnresolvedBlock::of_journal(&found);
                    if !matches!(verdict, Verdict::Unknown(_)) {
                        self.submitter.record_fate(entry, &verdict);
                        self.port.late_verdict(&block.reported, verdict);
                    } else if self.is_too_old(&found) {
                        too_old += 1;
                        self.submitter.journal.settle(entry, Fate::Stale);
                    } else {
                        self.waiting.add(block);
                    }
                }
                // Another source of this run sees to its own.
                Ok(Some(_)) if !entry.is_adopted() => {}
                Ok(Some(found)) if self.is_too_old(&found) => {
                    too_old += 1;
                    self.submitter.journal.settle(entry, Fate::Stale);
                }
                Ok(Some(found)) => elsewhere.count(found.source),
                Ok(None) => {}
                Err(error) => self.port.notice(error.to_string()),
            }
            self.earlier.remove(0);
        }
        let of_earlier_runs = self.waiting.of_earlier_runs();
        if of_earlier_runs > 0 {
            self.port.notice(format!(
                "{} of earlier runs: the node cannot judge {} yet; sent again at every new tip",
                blocks(of_earlier_runs),
                if of_earlier_runs == 1 { "it" } else { "them" },
            ));
        }
        if too_old > 0 {
            self.port.notice(format!(
                "{} of earlier runs on regtest given up: found over {} hours ago, and no node that \
                 takes them came back",
                blocks(too_old),
                REGTEST_AGE.as_secs() / 3600,
            ));
        }
        if let Some(line) = elsewhere.line() {
            self.port.notice(line);
        }
        Ok(())
    }

    /// Whether a block of an earlier run is one of a regtest chain that is most likely gone.
    fn is_too_old(&self, found: &Pending) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.params.is_some_and(|params| params.network == Network::Regtest)
            && now.as_secs_f64() - found.time > REGTEST_AGE.as_secs_f64()
    }

    /// Sends the blocks again that the node could not judge, if that is due; nothing waits for it.
    pub(super) fn send_waiting(&mut self) {
        let Self { waiting, submitter, submit, .. } = self;
        waiting.send(&submitter.journal, || submit.sibling());
    }

    /// Takes what the node said of a block that it could not judge before; gives it back where it is
    /// the block's fate.
    pub(super) fn on_judged(&mut self, judged: Option<(BlockHash, Verdict)>) -> Option<Verdict> {
        let (hash, verdict) = judged?;
        let verdict = match verdict {
            Verdict::Unknown(why) if self.waiting.is_passed_by(hash) => {
                let meaning =
                    "the node could not judge it, and its chain is 100 blocks further now";
                Verdict::Stale(Refusal { meaning, ..why })
            }
            Verdict::Unknown(_) => return None,
            verdict => verdict,
        };
        let block = self.waiting.remove(hash)?;
        self.settle_waiting(&block, verdict.clone());
        Some(verdict)
    }

    fn settle_waiting(&self, block: &UnresolvedBlock, verdict: Verdict) {
        if let Some(entry) = block.entry {
            self.submitter.record_fate(entry, &verdict);
        }
        self.port.late_verdict(&block.reported, verdict);
    }

    /// Submits a block in a call of its own. [`Verdict::Unknown`]: the node cannot judge it yet.
    pub(super) async fn submit_alone(
        &mut self,
        block_hex: &str,
        hash: BlockHash,
    ) -> Result<Verdict, RpcError> {
        let answer = self.call(submit_request(block_hex, "", ""), RESPONSE_BYTES).await?;
        self.judge(parse_submit_response(&answer)?, hash).await
    }

    /// The verdict that an answer comes to, with what else the node is to be asked for it.
    async fn judge(
        &mut self,
        answer: SubmitResponse,
        hash: BlockHash,
    ) -> Result<Verdict, RpcError> {
        verdict_of(answer, hash, self).await
    }

    /// Submits a block, and fetches the next template with it.
    pub(super) async fn submit(
        &mut self,
        solution: Solution,
        payout: &Payout,
    ) -> Result<AfterSubmit, NodeError> {
        let found = self.submitter.keep(solution, &self.port);
        tracing::debug!(
            hash = %found.solution.hash,
            after = ?found.solution.found.elapsed(),
            "submitting"
        );
        // At a pace the next template is not wanted yet.
        if !self.batches || self.pacer.pace().is_some() {
            return self.submit_apart(found).await;
        }
        let and_template = format!(",{}]", template_request(false));
        let batch = submit_request(&found.block_hex, "[", &and_template);
        let body = match self.call(batch, TEMPLATE_BYTES).await {
            Ok(body) => body,
            // One of both calls, or batches: apart, the node says which.
            Err(RpcError::Forbidden(_)) => return self.submit_apart(found).await,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.classify(error));
            }
        };
        let received = Instant::now();
        if !body.starts_with(b"[") {
            let lone = template::parse::<Envelope<IgnoredAny>>(&body);
            return match lone.map(Envelope::into_result) {
                // Parse error, invalid request, unknown method: it takes no batches.
                Ok(Err(RpcError::Node { code: -32700 | -32600 | -32601, .. })) => {
                    tracing::debug!("the node does not take batches");
                    self.batches = false;
                    self.submit_apart(found).await
                }
                Ok(Err(error)) => {
                    self.unanswered.push(found);
                    Err(self.classify(error))
                }
                Ok(Ok(_)) | Err(_) => {
                    self.unanswered.push(found);
                    Err(NodeError::Temporary("the answer to a batch is no list".to_owned()))
                }
            };
        }
        let (answer, template) =
            match template::parse::<BatchResponse<'_, Envelope<Template<'_>>>>(&body) {
                Ok((answer, template)) => (answer, template::make(template, payout, received)),
                // A template that can't be read must not hide the block's fate.
                Err(error) => match template::parse::<BatchResponse<'_, IgnoredAny>>(&body) {
                    Ok((answer, _)) => (answer, Err(error)),
                    Err(error) => {
                        self.unanswered.push(found);
                        return Err(NodeError::Temporary(error.to_string()));
                    }
                },
            };
        let answer = answer.into_result().map(|answer| answer.map(Cow::into_owned));
        let verdict = match answer_of(answer) {
            Ok(answer) => self.judge(answer, found.solution.hash).await,
            Err(error) => Err(error),
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.classify(error));
            }
        };
        let stale = matches!(verdict, Verdict::Stale(_));
        let wait = self.settle(&found, verdict);
        let lost_to = |ready: &PreparedTemplate| {
            stale && ready.previous_block_hash() != found.solution.job.previous_block_hash
        };
        match (wait, template) {
            // The block that won the race is there to build on.
            (Some(_), Ok(ready)) if lost_to(&ready) => Ok(AfterSubmit::Template(Box::new(ready))),
            (Some(wait), _) => Ok(AfterSubmit::FetchIn(wait)),
            (None, Ok(ready)) => Ok(AfterSubmit::Template(Box::new(ready))),
            (None, Err(error)) => match self.on_template_error(error) {
                Ok(None) => Ok(AfterSubmit::FetchIn(BACKOFF.0)),
                Ok(Some(lost)) => Err(NodeError::Temporary(lost)),
                Err(error) => Err(NodeError::Fatal(error)),
            },
        }
    }

    /// Submits a block in a call of its own.
    pub(super) async fn submit_apart(
        &mut self,
        found: FoundBlock,
    ) -> Result<AfterSubmit, NodeError> {
        match self.submit_alone(&found.block_hex, found.solution.hash).await {
            Ok(verdict) => {
                let wait = self.settle(&found, verdict);
                Ok(AfterSubmit::FetchIn(wait.unwrap_or(Duration::ZERO)))
            }
            Err(error) => {
                self.unanswered.push(found);
                Err(self.classify(error))
            }
        }
    }

    /// Records a block's fate, and says how long to leave its height alone if it was not taken.
    pub(super) fn settle(&mut self, found: &FoundBlock, verdict: Verdict) -> Option<Duration> {
        if let Some(entry) = found.entry {
            self.submitter.record_fate(entry, &verdict);
        }
        let refused = verdict != Verdict::Accepted;
        self.setbacks = if refused { self.setbacks + 1 } else { 0 };
        if matches!(verdict, Verdict::Unknown(_)) {
            self.waiting.add(UnresolvedBlock::found_now(found));
        }
        if verdict.refusal().is_some_and(|why| why.words == "time-too-new") {
            self.template_cache = TemplateCache::Outdated;
            self.say_ahead();
        } else {
            self.template_cache = TemplateCache::Trusted;
        }
        self.port.verdict(&found.solution, verdict);
        // The job is over: a template like its own would be a new one.
        self.current = None;
        if !refused {
            self.known_tips.push(found.solution.hash);
            self.pacer.block_made(Instant::now());
        }
        // And would be refused the same way: no storm of it.
        refused.then(|| doubled(REJECTED_BACKOFF, self.setbacks - 1))
    }
}

/// The call that submits a block, between two other pieces of text. A block can be megabytes of hex:
/// it is copied once.
fn submit_request(block_hex: &str, before: &str, after: &str) -> String {
    let (head, tail) =
        (r#"{"jsonrpc":"1.0","id":"adit","method":"submitblock","params":[""#, "\"]}");
    let parts = [before, head, block_hex, tail, after];
    let mut body = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    body.extend(parts);
    body
}

/// What the answer to `submitblock` says of the block (null is `None`). Errors are answers only where
/// they speak of the block: Bitcoin Core's RPC_DESERIALIZATION_ERROR and RPC_VERIFY_*. A node that is
/// starting, stopping or overloaded has not looked at it.
fn answer_of(answer: Result<Option<String>, RpcError>) -> Result<SubmitResponse, RpcError> {
    match answer {
        Ok(None) => Ok(SubmitResponse::Verdict(Verdict::Accepted)),
        Ok(Some(words)) => Ok(node_reject::parse_response(&words)),
        Err(RpcError::Node { code: -22 | -25 | -26 | -27, message }) => {
            Ok(node_reject::parse_response(&message))
        }
        Err(error) => Err(error),
    }
}

/// Reads the answer to a lone `submitblock` call.
///
/// # Errors
/// When it says nothing of the block.
pub(crate) fn parse_submit_response(body: &[u8]) -> Result<SubmitResponse, RpcError> {
    // The parser's words can hold the node's, of any length.
    let nonsense = |error: serde_json::Error| {
        RpcError::Nonsense(printable(&error.to_string(), node_reject::WORDS_MAX))
    };
    let envelope: Envelope<String> = serde_json::from_slice(body).map_err(nonsense)?;
    answer_of(envelope.into_result())
}

/// Where a block stands.
#[derive(Debug, Deserialize)]
struct Place {
    /// How many blocks of the best chain begin with it; -1 where it is not in the best chain.
    confirmations: i64,
    height: Option<u32>,
}

/// How far the node's best chain is.
#[derive(Debug, Deserialize)]
struct BestChain {
    /// The height of its tip.
    blocks: Option<u32>,
}

/// What the answer to a small call says.
fn read_result<T: DeserializeOwned>(answer: &[u8]) -> Result<Option<T>, RpcError> {
    serde_json::from_slice::<Envelope<T>>(answer)
        .map_err(|error| RpcError::Nonsense(printable(&error.to_string(), node_reject::WORDS_MAX)))?
        .into_result()
}

/// What makes a small call.
trait Ask: Send {
    /// Makes a call and gives the answer.
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send;
}

impl Ask for Client {
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        self.call(call, RESPONSE_BYTES)
    }
}

impl Ask for Rpc {
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        self.call(call.into(), RESPONSE_BYTES, CALL_TIMEOUT)
    }
}

/// The verdict that an answer comes to. A block that the node has is accepted where it is in the best
/// chain, and stale where another one is in its place. A node that has its headers before its blocks,
/// as after a crash, has not come to it yet: that is no verdict.
async fn verdict_of(
    answer: SubmitResponse,
    hash: BlockHash,
    node: &mut impl Ask,
) -> Result<Verdict, RpcError> {
    let why = match answer {
        SubmitResponse::Verdict(verdict) => return Ok(verdict),
        SubmitResponse::Undecided(why) => return Ok(Verdict::Unknown(why)),
        SubmitResponse::AlreadyKnown(why) => why,
    };
    let answer = node.ask(request("getblockheader", &format!("\"{hash}\""))).await;
    let place = match answer.and_then(|answer| read_result(&answer)) {
        Ok(Some(Place { confirmations: 0.., .. })) => return Ok(Verdict::Accepted),
        Ok(Some(place)) => place,
        Ok(None) | Err(RpcError::Node { .. } | RpcError::Forbidden(_) | RpcError::Nonsense(_)) => {
            let meaning = "the node has this block, and does not say where it stands";
            return Ok(Verdict::Unknown(Refusal { meaning, ..why }));
        }
        Err(error) => return Err(error),
    };
    let answer = node.ask(request("getblockchaininfo", "")).await?;
    let tip = read_result(&answer).ok().flatten().and_then(|chain: BestChain| chain.blocks);
    Ok(match (place.height, tip) {
        (Some(height), Some(tip)) if tip < height => {
            let meaning = "the node has this block, and has not come to it yet";
            Verdict::Unknown(Refusal { meaning, ..why })
        }
        _ => {
            let meaning = "the node has this block, and it is not in its best chain";
            Verdict::Stale(Refusal { meaning, ..why })
        }
    })
}

/// Submits a block over `rpc`, aside from mining. [`Verdict::Unknown`]: the node cannot judge it yet.
pub(super) async fn submit_aside(
    rpc: &mut Rpc,
    block_hex: &str,
    hash: BlockHash,
) -> Result<Verdict, RpcError> {
    let call = submit_request(block_hex, "", "");
    let answer = rpc.call(call.into(), RESPONSE_BYTES, CALL_TIMEOUT).await?;
    let answer = parse_submit_response(&answer)?;
    verdict_of(answer, hash, rpc).await
}

/// Blocks of earlier runs that are for other nodes: how many, and which nodes.
#[derive(Debug, Default)]
struct Elsewhere {
    blocks: usize,
    sources: BTreeSet<String>,
}

impl Elsewhere {
    /// So many nodes are named.
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
                "the journal has {} of unknown fate for {}: mine there to have them sent again",
                blocks(self.blocks),
                named.join(", "),
            )
        })
    }
}

fn blocks(count: usize) -> String {
    if count == 1 { "1 block".to_owned() } else { format!("{count} blocks") }
}
