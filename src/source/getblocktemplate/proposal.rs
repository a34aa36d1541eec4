//! Asks a node whether it would accept our blocks, before hours of hashing go into one: whether
//! this user may submit any, and what the node says of an unsolved one (BIP 23, "Block Proposal"),
//! which it checks as it would check a solved one, except for the proof of work.

use std::borrow::Cow;
use std::future::pending;

use bitcoin::BlockHash;
use tokio::sync::oneshot;

use super::calls;
use super::limits::{CALL_TIMEOUT, RESPONSE_BYTES};
use super::rpc::{Envelope, METHOD_NOT_FOUND, Rpc, RpcError};
use super::template::{Layout, PreparedTemplate};
use crate::chain::block::BlockBody;
use crate::job::{RejectReason, Verdict};
use crate::source::node_reject;

/// How many hashes a block must take on average to be proposed: about a second on a few cores. If it
/// takes fewer, the first block itself shows sooner whether it is accepted.
const PROPOSE_FROM: f64 = 16e6;

/// What a node says of a proposed block.
#[derive(Debug)]
pub enum ProposalResult {
    /// It would accept it.
    Valid,
    /// It would reject it.
    Rejected(RejectReason),
    /// It did not check it: the node does not support proposals.
    Unsupported(String),
    /// It did not check this one: its tip has changed, or the call failed.
    Inconclusive(String),
}

/// What was proposed to the node, and what it said.
#[derive(Debug, Default)]
pub struct Proposals {
    /// The last proposal.
    last: Option<Proposed>,
    /// Receives the result of the last proposal while that is under way.
    answer: Option<oneshot::Receiver<ProposalResult>>,
    /// The last result of this connection's node, if there is one. An inconclusive one is not kept.
    result: Option<ProposalResult>,
}

#[derive(Debug)]
struct Proposed {
    connection: u64,
    layout: Layout,
    tip: BlockHash,
}

impl Proposals {
    /// Proposes a block of this template to the node of this connection, if that is due: the first
    /// block of each layout; after an inconclusive result, the next block; after a rejection, one
    /// on another tip, since it may have been a transaction of this one that was rejected.
    ///
    /// The call is made over a connection of its own (`rpc`), and nothing waits for it.
    pub fn consider(
        &mut self,
        ready: &PreparedTemplate,
        connection: u64,
        rpc: impl FnOnce() -> Rpc,
    ) {
        if !ready.takes_proposals || ready.difficulty().expected_hashes() < PROPOSE_FROM {
            return;
        }
        let tip = ready.previous_block_hash();
        let is_same =
            |last: &Proposed| last.connection == connection && last.layout == ready.layout;
        if let Some(last) = self.last.as_ref().filter(|last| is_same(last)) {
            let is_due = match &self.result {
                _ if self.answer.is_some() => false,
                None => true,
                Some(ProposalResult::Rejected(_)) => last.tip != tip,
                Some(_) => false,
            };
            if !is_due {
                return;
            }
        }
        let Some((head, body)) = ready.unsolved_block() else { return };
        if self.last.as_ref().is_none_or(|last| last.connection != connection) {
            self.result = None;
        }
        self.last = Some(Proposed { connection, layout: ready.layout.clone(), tip });
        let (tell, answer) = oneshot::channel();
        self.answer = Some(answer);
        let rpc = rpc();
        tokio::spawn(async move {
            // The source may have ended meanwhile.
            let _ = tell.send(propose(rpc, &head, &body).await);
        });
    }

    /// Waits for the result of the last proposal, and keeps it; for ever if none is under way. May be
    /// dropped at any time and called again.
    pub async fn answered(&mut self) {
        let result = match &mut self.answer {
            Some(answer) => answer.await,
            None => pending().await,
        };
        self.answer = None;
        match result {
            Ok(ProposalResult::Inconclusive(why)) => {
                tracing::debug!("the proposed block was not checked: {why}");
            }
            Ok(result) => {
                match &result {
                    ProposalResult::Valid => {
                        tracing::debug!("the node would accept the proposed block");
                    }
                    ProposalResult::Unsupported(why) => {
                        tracing::debug!("the node does not support block proposals: {why}");
                    }
                    ProposalResult::Rejected(_) | ProposalResult::Inconclusive(_) => {}
                }
                self.result = Some(result);
            }
            Err(_) => tracing::debug!("a bug in adit ended a proposal"),
        }
    }

    /// Why the node of this connection would reject our blocks, if it has said so.
    pub fn rejection(&self, connection: u64) -> Option<String> {
        match (&self.last, &self.result) {
            (Some(last), Some(ProposalResult::Rejected(why))) if last.connection == connection => {
                Some(format!("the node would reject our blocks: {why}"))
            }
            _ => None,
        }
    }
}

/// Finds out whether this user may submit blocks, and proposes one: `head` is all that comes before
/// the transactions of `body`.
async fn propose(mut rpc: Rpc, head: &[u8], body: &BlockBody) -> ProposalResult {
    // Without a block the call does nothing, and shows whether this user may make it at all.
    let may_submit =
        rpc.call(calls::request("submitblock", "").into(), RESPONSE_BYTES, CALL_TIMEOUT);
    // Whatever else is wrong, the next call shows it too.
    if let Err(error @ (RpcError::Forbidden(_) | RpcError::Node { code: METHOD_NOT_FOUND, .. })) =
        may_submit.await
    {
        let meaning = "its -rpcwhitelist must have the call";
        return ProposalResult::Rejected(RejectReason::new(error.to_string(), meaning));
    }
    match rpc.call(request(head, body).into(), RESPONSE_BYTES, CALL_TIMEOUT).await {
        Ok(answer) => read(&answer),
        Err(error) => of_error(error),
    }
}

/// The call, with the block copied into it once.
fn request(head: &[u8], body: &BlockBody) -> String {
    let before = r#"{"jsonrpc":"1.0","id":"adit","method":"getblocktemplate","params":[{"mode":"proposal","rules":["segwit","signet"],"data":""#;
    let after = "\"}]}";
    let length = before.len() + 2 * head.len() + body.transactions_hex.len() + after.len();
    let mut request = String::with_capacity(length);
    request.extend([before, &hex::encode(head), &body.transactions_hex, after]);
    request
}

/// Parses the response to a proposal: null means valid, words are those of `submitblock` (BIP 22).
fn read(answer: &[u8]) -> ProposalResult {
    match serde_json::from_slice::<Envelope<Cow<'_, str>>>(answer).map(Envelope::into_result) {
        Ok(Ok(None)) => ProposalResult::Valid,
        Ok(Ok(Some(words))) => of_words(&words),
        Ok(Err(error)) => of_error(error),
        // Most likely a template: a server that does not look at the mode.
        Err(error) => ProposalResult::Unsupported(error.to_string()),
    }
}

fn of_words(words: &str) -> ProposalResult {
    match node_reject::verdict_for(words) {
        Verdict::Accepted => ProposalResult::Valid,
        // These say nothing of the block itself: another tip has come, which btcd calls bad-prevblk,
        // or the node's clock is behind.
        Verdict::Rejected(why)
            if matches!(words, "bad-prevblk" | "prev-blk-not-found" | "time-too-new") =>
        {
            ProposalResult::Inconclusive(why.to_string())
        }
        Verdict::Rejected(why) => ProposalResult::Rejected(why),
        Verdict::Stale(why) | Verdict::Unknown(why) => {
            ProposalResult::Inconclusive(why.to_string())
        }
    }
}

fn of_error(error: RpcError) -> ProposalResult {
    match error {
        // The node could not read the block.
        RpcError::Node { code: -22 | -25 | -26 | -27, message } => of_words(&message),
        // Invalid parameters or mode, or a template in place of an answer.
        RpcError::Node { code: -1 | -3 | -8 | -32_602..=-32_600, .. }
        | RpcError::TooLarge(_)
        | RpcError::Forbidden(_) => ProposalResult::Unsupported(error.to_string()),
        error => ProposalResult::Inconclusive(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_response_is_a_result() {
        let judged = |answer: &str| match read(answer.as_bytes()) {
            ProposalResult::Valid => "good".to_owned(),
            ProposalResult::Rejected(why) => format!("refused: {why}"),
            ProposalResult::Unsupported(_) => "unknown".to_owned(),
            ProposalResult::Inconclusive(_) => "later".to_owned(),
        };
        let result = |result: &str| judged(&format!(r#"{{"result":{result},"error":null}}"#));
        assert_eq!(result("null"), "good");
        assert_eq!(result(r#""bad-cb-length""#)[..22], *"refused: bad-cb-length");
        assert_eq!(result(r#""of-the-year-3000""#), "refused: of-the-year-3000");
        for words in
            ["inconclusive-not-best-prevblk", "bad-prevblk", "time-too-new", "stale-prevblk"]
        {
            assert_eq!(result(&format!("\"{words}\"")), "later", "{words}");
        }
        for other in [r#"{"version":1}"#, "7", "[]"] {
            assert_eq!(result(other), "unknown", "{other}");
        }
        let error = |code: i64, message: &str| {
            judged(&format!(r#"{{"error":{{"code":{code},"message":"{message}"}}}}"#))
        };
        assert_eq!(error(-22, "Block decode failed")[..28], *"refused: Block decode failed");
        assert_eq!(error(-8, "Invalid mode"), "unknown");
        assert_eq!(error(-32601, "Method not found"), "unknown");
        assert_eq!(error(-28, "Loading"), "later");
    }
}
