//! What a node's response to `submitblock` comes to.

use bitcoin::BlockHash;
use bytes::Bytes;
use serde::Deserialize;

use super::calls::{header_request, parse_result, request, submit_request};
use super::limits::{CALL_TIMEOUT, RESPONSE_BYTES};
use super::rpc::{Rpc, RpcError};
use crate::job::{RejectReason, Verdict};
use crate::source::node_reject::{self, SubmitResponse};

/// What the response to `submitblock` says of the block (null is `None`). Errors are about the
/// block only if they are Bitcoin Core's RPC_DESERIALIZATION_ERROR or RPC_VERIFY_*. A node that is
/// starting, stopping or overloaded has not looked at the block.
///
/// # Errors
/// The node's error where it says nothing of the block.
pub fn submit_response(
    result: Result<Option<String>, RpcError>,
) -> Result<SubmitResponse, RpcError> {
    match result {
        Ok(None) => Ok(SubmitResponse::Verdict(Verdict::Accepted)),
        Ok(Some(words)) => Ok(node_reject::parse_response(&words)),
        Err(RpcError::Node { code: -22 | -25 | -26 | -27, message }) => {
            Ok(node_reject::parse_response(&message))
        }
        Err(error) => Err(error),
    }
}

/// Parses the response to a single `submitblock` call.
///
/// # Errors
/// When it says nothing of the block.
pub(crate) fn parse_submit_response(body: &[u8]) -> Result<SubmitResponse, RpcError> {
    submit_response(parse_result(body))
}

/// Makes small calls of a node.
pub trait Ask: Send {
    /// Makes a call and returns the body of its response.
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send;
}

impl Ask for Rpc {
    fn ask(&mut self, call: String) -> impl Future<Output = Result<Bytes, RpcError>> + Send {
        self.call(call.into(), RESPONSE_BYTES, CALL_TIMEOUT)
    }
}

/// Submits a block in a call of its own. [`Verdict::Unknown`]: the node cannot judge it yet.
///
/// # Errors
/// When the call fails, or its response says nothing of the block.
pub async fn submit_block(
    node: &mut impl Ask,
    block_hex: &str,
    hash: BlockHash,
) -> Result<Verdict, RpcError> {
    let answer = node.ask(submit_request(block_hex, "", "")).await?;
    verdict_of(parse_submit_response(&answer)?, hash, node).await
}

/// Where a block is in the node's block index.
#[derive(Debug, Deserialize)]
struct Position {
    /// The number of blocks of the best chain from this one on; -1 if it is not in the best chain.
    confirmations: i64,
    height: Option<u32>,
}

/// The length of the node's best chain.
#[derive(Debug, Deserialize)]
struct BestChain {
    /// The height of its tip.
    blocks: Option<u32>,
}

/// The verdict that a response comes to. A block that the node has already is accepted if it is in
/// the best chain, and stale if another one is in its place. A node that has its headers before its
/// blocks, as after a crash, has not come to it yet: that is no verdict.
///
/// # Errors
/// When another call is needed for the verdict and fails.
pub async fn verdict_of(
    response: SubmitResponse,
    hash: BlockHash,
    node: &mut impl Ask,
) -> Result<Verdict, RpcError> {
    let why = match response {
        SubmitResponse::Verdict(verdict) => return Ok(verdict),
        SubmitResponse::Undecided(why) => return Ok(Verdict::Unknown(why)),
        SubmitResponse::AlreadyKnown(why) => why,
    };
    let answer = node.ask(header_request(hash)).await;
    let position = match answer.and_then(|answer| parse_result(&answer)) {
        Ok(Some(Position { confirmations: 0.., .. })) => return Ok(Verdict::Accepted),
        Ok(Some(position)) => position,
        Ok(None) | Err(RpcError::Node { .. } | RpcError::Forbidden(_) | RpcError::Nonsense(_)) => {
            let meaning =
                "the node has this block, and does not say whether it is in its best chain";
            return Ok(Verdict::Unknown(RejectReason { meaning, ..why }));
        }
        Err(error) => return Err(error),
    };
    let answer = node.ask(request("getblockchaininfo", "")).await?;
    let tip = parse_result(&answer).ok().flatten().and_then(|chain: BestChain| chain.blocks);
    Ok(match (position.height, tip) {
        (Some(height), Some(tip)) if tip < height => {
            let meaning = "the node has this block, and has not come to it yet";
            Verdict::Unknown(RejectReason { meaning, ..why })
        }
        _ => {
            let meaning = "the node has this block, and it is not in its best chain";
            Verdict::Stale(RejectReason { meaning, ..why })
        }
    })
}
