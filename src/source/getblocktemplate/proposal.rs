//! Asking a node whether it would take our blocks, before hours of hashing go into one: whether we may
//! submit any, and what it says of an unsolved one (BIP 23, "Block Proposal"), which it checks as it
//! would a solved one, but for the proof of work.

use std::borrow::Cow;
use std::future::pending;

use bitcoin::BlockHash;
use tokio::sync::oneshot;

use super::calls;
use super::limits::{CALL_TIMEOUT, RESPONSE_BYTES};
use super::rpc::{Envelope, METHOD_NOT_FOUND, Rpc, RpcError};
use super::template::{Layout, PreparedTemplate};
use crate::chain::block::BlockBody;
use crate::job::{Refusal, Verdict};
use crate::source::node_reject;

/// How many hashes a block must take on average to be proposed first: about a second on a few cores.
/// Where it takes fewer, the first block itself shows sooner whether it is taken.
const HARD: f64 = 16e6;

/// What a node says of a proposed block.
#[derive(Debug)]
pub enum ProposalResult {
    /// It would accept it.
    Valid,
    /// It would reject it.
    Rejected(Refusal),
    /// It did not check it: the node does not support proposals.
    Unsupported(String),
    /// It did not check this one: its tip has changed, or the call failed.
    Inconclusive(String),
}

/// What was proposed to the node, and what it said.
#[derive(Debug, Default)]
pub struct Proposals {
    /// What was proposed last.
    last: Option<Proposed>,
    /// The answer to that, while it is on its way.
    answer: Option<oneshot::Receiver<ProposalResult>>,
    /// The last judgment of this connection's node; none where it has given none, and a refusal until
    /// it has given another one.
    judged: Option<ProposalResult>,
}

#[derive(Debug)]
struct Proposed {
    connection: u64,
    layout: Layout,
    tip: BlockHash,
}

impl Proposals {
    /// Proposes a block of this template to the node of this connection, where that is due: the first
    /// of each layout; after an answer that was no judgment, the next one; after a refusal, one on
    /// another tip, since it may have been this one's transactions that were refused.
    ///
    /// The call goes over a connection of its own (`rpc`), and nothing waits for it.
    pub fn consider(
        &mut self,
        ready: &PreparedTemplate,
        connection: u64,
        rpc: impl FnOnce() -> Rpc,
    ) {
        if !ready.takes_proposals || ready.difficulty().expected_hashes() < HARD {
            return;
        }
        let tip = ready.previous_block_hash();
        let is_same =
            |last: &Proposed| last.connection == connection && last.layout == ready.layout;
        if let Some(last) = self.last.as_ref().filter(|last| is_same(last)) {
            let is_due = match &self.judged {
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
            self.judged = None;
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

    /// Waits for the answer to the last proposal (for ever where none is on its way), and keeps it.
    pub async fn answered(&mut self) {
        let judgment = match &mut self.answer {
            Some(answer) => answer.await,
            None => pending().await,
        };
        self.answer = None;
        match judgment {
            Ok(ProposalResult::Inconclusive(why)) => {
                tracing::debug!("the proposed block was not judged: {why}");
            }
            Ok(judgment) => {
                match &judgment {
                    ProposalResult::Valid => {
                        tracing::debug!("the node would take the proposed block");
                    }
                    ProposalResult::Unsupported(why) => {
                        tracing::debug!("the node does not judge proposed blocks: {why}");
                    }
                    ProposalResult::Rejected(_) | ProposalResult::Inconclusive(_) => {}
                }
                self.judged = Some(judgment);
            }
            Err(_) => tracing::debug!("a bug in adit ended a proposal"),
        }
    }

    /// Why the node of this connection would refuse our blocks, if it has said that it would.
    pub fn rejection(&self, connection: u64) -> Option<String> {
        match (&self.last, &self.judged) {
            (Some(last), Some(ProposalResult::Rejected(why))) if last.connection == connection => {
                Some(format!("the node would refuse our blocks: {why}"))
            }
            _ => None,
        }
    }
}

async fn propose(mut rpc: Rpc, head: &[u8], body: &BlockBody) -> ProposalResult {
    // Without a block it does nothing, and shows whether this user may make the call at all.
    let may_submit =
        rpc.call(calls::request("submitblock", "").into(), RESPONSE_BYTES, CALL_TIMEOUT);
    // Whatever else is wrong, the next call shows it too.
    if let Err(error @ (RpcError::Forbidden(_) | RpcError::Node { code: METHOD_NOT_FOUND, .. })) =
        may_submit.await
    {
        let meaning = "its -rpcwhitelist must have the call";
        return ProposalResult::Rejected(Refusal::new(error.to_string(), meaning));
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

/// What the answer to a proposal says: null is good, words are those of `submitblock` (BIP 22).
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
        // They say nothing of the block itself: another tip has come, which btcd calls bad-prevblk,
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
    fn each_answer_is_a_judgment() {
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
