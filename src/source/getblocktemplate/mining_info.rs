//! How hard a node's next block is: its answer to `getmininginfo`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::rpc::Envelope;
use super::{ANSWER_BYTES, Credentials, Endpoint, Rpc, RpcError, template};
use crate::chain::params::Params;
use crate::chain::target::Difficulty;
use crate::printable::printable;
use crate::source::{Refused, SourceError};

/// How long the node may take: whoever asks waits for it.
const DEADLINE: Duration = Duration::from_secs(15);

/// What a node says of its chain's next block.
#[derive(Clone, Debug)]
pub struct MiningInfo {
    /// The chain.
    pub params: &'static Params,
    /// The next block's height.
    pub height: u64,
    /// The next block's difficulty; of nodes that don't tell it, the last block's.
    pub difficulty: Difficulty,
}

#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
    blocks: u64,
    difficulty: f64,
    next: Option<Next>,
}

#[derive(Debug, Deserialize)]
struct Next {
    difficulty: f64,
}

impl MiningInfo {
    /// Asks the node.
    ///
    /// # Errors
    /// When it can't be reached, won't have us, or answers nonsense.
    pub async fn ask(endpoint: Endpoint, credentials: Credentials) -> Result<Self, SourceError> {
        let what = format!("node {endpoint}");
        let mut rpc = Rpc::new(endpoint, credentials);
        let body = Bytes::from_static(
            br#"{"jsonrpc":"1.0","id":"adit","method":"getmininginfo","params":[]}"#,
        );
        let answer =
            rpc.call(body, ANSWER_BYTES, DEADLINE).await.and_then(|body| Self::read(&body));
        answer.map_err(|error| {
            let (refused, hint) = match &error {
                RpcError::Connection(_) => (Refused::Failure, "is the node running, and is this its port?"),
                RpcError::Unauthorized(_) => (
                    Refused::BySource,
                    "check --rpc-user and ADIT_RPC_PASSWORD, or name the right --rpc-cookie or --datadir",
                ),
                RpcError::NoCookie(_) | RpcError::BadCookie { .. } => (
                    Refused::Configuration,
                    "name the node's data directory with --datadir, its cookie with --rpc-cookie, or \
                     log in with --rpc-user and ADIT_RPC_PASSWORD",
                ),
                RpcError::Forbidden => (Refused::BySource, "allow it with the node's -rpcallowip"),
                _ => (Refused::Failure, "--difficulty takes one without a node"),
            };
            SourceError::new(refused, what, error.to_string()).hint(hint)
        })
    }

    fn read(body: &Bytes) -> Result<Self, RpcError> {
        let nonsense = |why: &str| RpcError::Nonsense(why.to_owned());
        let envelope: Envelope<Answer<'_>> =
            template::parse(body).map_err(|error| RpcError::Nonsense(error.to_string()))?;
        let answer = envelope.into_result()?.ok_or_else(|| nonsense("the result is null"))?;
        let params = Params::from_chain_name(&answer.chain).ok_or_else(|| {
            RpcError::Nonsense(format!("it is on the chain {:?}", printable(&answer.chain, 40)))
        })?;
        let difficulty = answer.next.map_or(answer.difficulty, |next| next.difficulty);
        let difficulty = Difficulty::from_f64(difficulty)
            .ok_or_else(|| nonsense("its difficulty is not above zero"))?;
        Ok(Self { params, height: answer.blocks.saturating_add(1), difficulty })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(result: &str) -> Result<MiningInfo, RpcError> {
        MiningInfo::read(&Bytes::from(format!(r#"{{"result":{result},"error":null}}"#)))
    }

    #[test]
    fn the_next_blocks_difficulty_is_taken_where_there_is_one() {
        let old = read(r#"{"chain":"main","blocks":7,"difficulty":2.5,"x":[]}"#).unwrap();
        assert_eq!((old.params.name, old.height), ("main", 8));
        assert_eq!(old.difficulty, Difficulty::from_f64(2.5).unwrap());
        let new = read(
            r#"{"chain":"testnet4","blocks":7,"difficulty":2.5,"next":{"height":8,"difficulty":1}}"#,
        );
        assert_eq!(new.unwrap().difficulty, Difficulty::from_f64(1.0).unwrap());
    }

    #[test]
    fn nonsense_is_one_line() {
        for (answer, told) in [
            ("null", "null"),
            ("[]", "invalid"),
            (r#"{"chain":"moon\n","blocks":7,"difficulty":1}"#, "chain"),
            (r#"{"chain":"main","blocks":7,"difficulty":0}"#, "above zero"),
            (r#"{"chain":"main","blocks":7,"difficulty":-1e300}"#, "above zero"),
            (r#"{"chain":"main","blocks":-7,"difficulty":1}"#, "integer"),
        ] {
            let error = read(answer).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{answer}: {error}");
        }
    }
}
