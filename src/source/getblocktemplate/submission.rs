//! From a solution to its verdict: the block on disk, on its way, and sent again.

use super::session::template_request;
use super::*;

impl Keeper {
    /// Builds the block and writes it to the journal.
    pub(super) fn keep(&self, solution: Solution, port: &Port) -> Unanswered {
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
        Unanswered { solution, block_hex, entry }
    }

    /// Notes in the journal what became of a block.
    pub(super) fn record_fate(&self, entry: EntryId, verdict: &Verdict) {
        if let Some(fate) = Fate::of(verdict) {
            self.journal.settle(entry, fate);
        }
    }
}

impl Session {
    /// Sends blocks again whose answer never came.
    pub(super) async fn send_again(&mut self) -> Result<(), RpcError> {
        while let Some(block_hex) = self.unanswered.first().map(|found| found.block_hex.clone()) {
            let verdict = self.submit_alone(&block_hex).await?;
            let found = self.unanswered.remove(0);
            self.settle(&found, verdict);
        }
        Ok(())
    }

    /// Sends blocks of earlier runs on this node whose fate nobody knows.
    pub(super) async fn send_earlier_runs(&mut self) -> Result<(), RpcError> {
        while let Some(entry) = self.earlier.first().copied() {
            match self.keeper.journal.read(entry) {
                Ok(Some(found)) if found.source == self.keeper.name => {
                    let verdict = self.submit_alone(&found.block_hex).await?;
                    let why = verdict.refusal().map(|why| format!(": {why}")).unwrap_or_default();
                    self.port.notice(format!(
                        "block {} of an earlier run was sent again, since its fate was unknown: {}{why}",
                        found.hash,
                        verdict.result(),
                    ));
                    self.keeper.record_fate(entry, &verdict);
                }
                // Another source of this run sees to its own.
                Ok(Some(_)) if !entry.is_adopted() => {}
                Ok(Some(found)) => self.port.notice(format!(
                    "the journal has block {} for {}, whose fate is unknown: mine there to have it \
                     sent again",
                    found.hash, found.source,
                )),
                Ok(None) => {}
                Err(error) => self.port.notice(error.to_string()),
            }
            self.earlier.remove(0);
        }
        Ok(())
    }

    /// Submits a block in a call of its own.
    pub(super) async fn submit_alone(&mut self, block_hex: &str) -> Result<Verdict, RpcError> {
        let answer = self.call(submit_request(block_hex, "", ""), ANSWER_BYTES).await?;
        read_answer(&answer)
    }

    /// Submits a block, and fetches the next template with it.
    pub(super) async fn submit(
        &mut self,
        solution: Solution,
        payout: &Payout,
    ) -> Result<Next, Trouble> {
        let found = self.keeper.keep(solution, &self.port);
        tracing::debug!(
            hash = %found.solution.hash,
            after = ?found.solution.found.elapsed(),
            "submitting"
        );
        // At a pace the next template is not wanted yet.
        if !self.batches || self.pacer.pace().is_some() {
            return self.submit_apart(found).await;
        }
        let and_template = format!(",{}]", template_request(None, false));
        let batch = submit_request(&found.block_hex, "[", &and_template);
        let body = match self.call(batch, TEMPLATE_BYTES).await {
            Ok(body) => body,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.trouble_of(error));
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
                    Err(self.trouble_of(error))
                }
                Ok(Ok(_)) | Err(_) => {
                    self.unanswered.push(found);
                    Err(Trouble::Passing("the answer to a batch is no list".to_owned()))
                }
            };
        }
        let (answer, template) = match template::parse::<Both<'_, Envelope<Template<'_>>>>(&body) {
            Ok((answer, template)) => (answer, template::make(template, payout, received)),
            // A template that can't be read must not hide the block's fate.
            Err(error) => match template::parse::<Both<'_, IgnoredAny>>(&body) {
                Ok((answer, _)) => (answer, Err(error)),
                Err(error) => {
                    self.unanswered.push(found);
                    return Err(Trouble::Passing(error.to_string()));
                }
            },
        };
        let answer = answer.into_result().map(|answer| answer.map(Cow::into_owned));
        let verdict = match verdict_of(answer) {
            Ok(verdict) => verdict,
            Err(error) => {
                self.unanswered.push(found);
                return Err(self.trouble_of(error));
            }
        };
        let stale = matches!(verdict, Verdict::Stale(_));
        let wait = self.settle(&found, verdict);
        let lost_to = |ready: &Ready| {
            stale && ready.previous_block_hash() != found.solution.job.previous_block_hash
        };
        match (wait, template) {
            // The block that won the race is there to build on.
            (Some(_), Ok(ready)) if lost_to(&ready) => Ok(Next::Template(Box::new(ready))),
            (Some(wait), _) => Ok(Next::FetchIn(wait)),
            (None, Ok(ready)) => Ok(Next::Template(Box::new(ready))),
            (None, Err(error)) => match self.survive(error) {
                Ok(None) => Ok(Next::FetchIn(BACKOFF.0)),
                Ok(Some(lost)) => Err(Trouble::Passing(lost)),
                Err(error) => Err(Trouble::Final(error)),
            },
        }
    }

    /// Submits a block in a call of its own.
    pub(super) async fn submit_apart(&mut self, found: Unanswered) -> Result<Next, Trouble> {
        match self.submit_alone(&found.block_hex).await {
            Ok(verdict) => {
                let wait = self.settle(&found, verdict);
                Ok(Next::FetchIn(wait.unwrap_or(Duration::ZERO)))
            }
            Err(error) => {
                self.unanswered.push(found);
                Err(self.trouble_of(error))
            }
        }
    }

    /// Records a block's fate, and says how long to leave its height alone if it was not taken.
    pub(super) fn settle(&mut self, found: &Unanswered, verdict: Verdict) -> Option<Duration> {
        if let Some(entry) = found.entry {
            self.keeper.record_fate(entry, &verdict);
        }
        let refused = matches!(verdict, Verdict::Rejected(_) | Verdict::Stale(_));
        self.setbacks = if refused { self.setbacks + 1 } else { 0 };
        let accepted = verdict == Verdict::Accepted;
        if verdict.refusal().is_some_and(|why| why.words == "time-too-new") {
            self.kept_templates = Kept::Distrusted;
            self.say_ahead();
        } else {
            self.kept_templates = Kept::Taken;
        }
        self.port.verdict(&found.solution, verdict);
        // The job is over: a template like its own would be a new one.
        self.current = None;
        if accepted {
            self.known_tips.push(found.solution.hash);
            self.pacer.made(Instant::now());
        }
        // And would be refused the same way: no storm of it.
        refused.then(|| doubled(SETBACK, self.setbacks - 1))
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

/// Reads the answer to a lone `submitblock` call.
///
/// # Errors
/// When it says nothing of the block.
pub(crate) fn read_answer(body: &[u8]) -> Result<Verdict, RpcError> {
    // The parser's words can hold the node's, of any length.
    let nonsense = |error: serde_json::Error| {
        RpcError::Nonsense(printable(&error.to_string(), refusals::WORDS_MAX))
    };
    let envelope: Envelope<String> = serde_json::from_slice(body).map_err(nonsense)?;
    verdict_of(envelope.into_result())
}

/// What the answer to `submitblock` says of the block (null is `None`). Errors are verdicts only
/// where they speak of the block: Bitcoin Core's RPC_DESERIALIZATION_ERROR and RPC_VERIFY_*. A node
/// that is starting, stopping or overloaded has not looked at it.
fn verdict_of(answer: Result<Option<String>, RpcError>) -> Result<Verdict, RpcError> {
    match answer {
        Ok(None) => Ok(Verdict::Accepted),
        Ok(Some(words)) => Ok(refusals::verdict_for(&words)),
        Err(RpcError::Node { code: -22 | -25 | -26 | -27, message }) => {
            Ok(refusals::verdict_for(&message))
        }
        Err(error) => Err(error),
    }
}
