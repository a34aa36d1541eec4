//! The calls that are made of a node, and what their responses say.
//!
//! `docs/NODES.md` lists them for operators who restrict users with `-rpcwhitelist`. `getmininginfo`
//! is in [`mining_info`](super::mining_info), and what a response to `submitblock` comes to is in
//! [`verdict`](super::verdict).

use std::borrow::Cow;
use std::time::Duration;

use bitcoin::BlockHash;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Number;

use super::limits::{CALL_TIMEOUT, RESPONSE_BYTES, SMALL_CALL_TIMEOUT};
use super::rpc::{Envelope, Rpc, RpcError};
use super::template::{self, TemplateError};
use crate::printable::printable_display;
use crate::source::node_reject::WORDS_MAX;

/// A JSON-RPC call. `params` are JSON already.
pub fn request(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"1.0\",\"id\":\"adit\",\"method\":\"{method}\",\"params\":[{params}]}}")
}

/// The call for a template: one that the node may have cached, or one made for this call (`fresh`).
pub fn template_request(fresh: bool) -> String {
    let mut request_object = serde_json::json!({ "rules": ["segwit", "signet"] });
    if fresh {
        // Knots gives out a cached template for five seconds unless it is asked for one with limits
        // of its own: here the usual room for the coinbase and one weight unit of four. Bitcoin
        // Core does not know this.
        request_object["blockreservedweight"] = 8_004.into();
    }
    request("getblocktemplate", &request_object.to_string())
}

/// The call that submits a block, between two other pieces of text. A block can be megabytes of hex:
/// it is copied once.
pub fn submit_request(block_hex: &str, before: &str, after: &str) -> String {
    let (head, tail) =
        (r#"{"jsonrpc":"1.0","id":"adit","method":"submitblock","params":[""#, "\"]}");
    let parts = [before, head, block_hex, tail, after];
    let mut body = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    body.extend(parts);
    body
}

/// The call for what a node knows of a block.
pub fn header_request(hash: BlockHash) -> String {
    request("getblockheader", &format!("\"{hash}\""))
}

/// Parses a small response; `None` where the result is null.
///
/// # Errors
/// When the node answered with an error, or with something else.
pub fn parse_result<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, RpcError> {
    // The parser's words can hold the node's, of any length.
    serde_json::from_slice::<Envelope<T>>(body)
        .map_err(|error| RpcError::Nonsense(printable_display(&error, WORDS_MAX)))?
        .into_result()
}

/// Parses a small response whose result must not be null.
fn parse_present<T: DeserializeOwned>(body: &[u8]) -> Result<T, RpcError> {
    parse_result(body)?.ok_or_else(|| RpcError::Nonsense("the result is null".to_owned()))
}

/// Parses the response to `getblockchaininfo`: the chain's name as the node gives it.
///
/// # Errors
/// When the node answered with an error, or with something else.
pub fn parse_chain_name(body: &[u8]) -> Result<Option<String>, TemplateError> {
    #[derive(Debug, Deserialize)]
    struct ChainInfo<'a> {
        #[serde(borrow)]
        chain: Cow<'a, str>,
    }
    let envelope: Envelope<ChainInfo<'_>> = template::parse(body)?;
    Ok(envelope.into_result()?.map(|info| info.chain.into_owned()))
}

/// Parses the response to `getblockheader`: the block's nTime in seconds since 1970.
///
/// # Errors
/// When the node answered with an error, or with something else.
pub fn parse_block_time(body: &[u8]) -> Result<Option<u32>, RpcError> {
    #[derive(Debug, Deserialize)]
    struct BlockHeader {
        time: u32,
    }
    Ok(parse_result::<BlockHeader>(body)?.map(|header| header.time))
}

/// Asks for the tip of the best chain.
///
/// # Errors
/// When the call fails or its response holds no hash.
pub async fn best_block_hash(rpc: &mut Rpc) -> Result<BlockHash, RpcError> {
    let call = request("getbestblockhash", "");
    let body = rpc.call(call.into(), RESPONSE_BYTES, SMALL_CALL_TIMEOUT).await?;
    parse_hash(&parse_present::<String>(&body)?)
}

/// Waits for the next block for this long at most; the tip by then, which may be the one that it was.
///
/// # Errors
/// When the call fails or its response holds no hash.
pub async fn wait_for_new_block(rpc: &mut Rpc, time: Duration) -> Result<BlockHash, RpcError> {
    #[derive(Deserialize)]
    struct NewBlock {
        hash: String,
    }
    let call = request("waitfornewblock", &time.as_millis().to_string());
    let body = rpc.call(call.into(), RESPONSE_BYTES, time + SMALL_CALL_TIMEOUT).await?;
    parse_hash(&parse_present::<NewBlock>(&body)?.hash)
}

fn parse_hash(hash: &str) -> Result<BlockHash, RpcError> {
    hash.parse().map_err(|error| RpcError::Nonsense(printable_display(&error, WORDS_MAX)))
}

/// The size of a node's mempool: two that are equal most likely hold the same transactions.
#[derive(Debug, PartialEq, Deserialize)]
pub struct MempoolInfo {
    /// How many transactions it holds.
    pub size: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    usage: u64,
    #[serde(default)]
    total_fee: Option<Number>,
}

/// Asks how much the mempool holds.
///
/// # Errors
/// When the call fails or its response is something else.
pub async fn mempool_info(rpc: &mut Rpc) -> Result<MempoolInfo, RpcError> {
    let body = rpc.call(request("getmempoolinfo", "").into(), RESPONSE_BYTES, CALL_TIMEOUT).await?;
    parse_result(&body)?
        .ok_or_else(|| RpcError::Nonsense("the node says nothing of its mempool".to_owned()))
}

/// One entry of the response to `getzmqnotifications`.
#[derive(Debug, Deserialize)]
pub struct ZmqNotification {
    /// `pub` and the topic.
    pub r#type: String,
    /// Where the publisher listens, as `tcp://HOST:PORT`.
    pub address: String,
}

/// Asks what the node publishes over ZeroMQ; `None` where it does not say so in time. A node without
/// ZeroMQ does not know the call.
pub async fn zmq_notifications(rpc: &mut Rpc) -> Option<Vec<ZmqNotification>> {
    let body: Bytes = request("getzmqnotifications", "").into();
    let body = rpc.call(body, RESPONSE_BYTES, SMALL_CALL_TIMEOUT).await.ok()?;
    parse_result(&body).ok()?
}
