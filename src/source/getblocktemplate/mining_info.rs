//! How hard a node's next block is: its answer to `getmininginfo`.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::limits::RESPONSE_BYTES;
use super::node_error::fatal_cause;
use super::rpc::{Credentials, Endpoint, Envelope, Rpc, RpcError};
use super::template;
use crate::chain::min_difficulty::PERIOD;
use crate::chain::params::Params;
use crate::chain::target::Difficulty;
use crate::printable::printable;
use crate::source::{Refused, SourceError};

/// How long the node may take: the user waits for it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Which of two difficulties a node's answer is, on a chain with the twenty-minute rule
/// ([`crate::chain::min_difficulty`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A period's first block: the difficulty is computed and holds at all times.
    PeriodStart,
    /// The period's own, until the tip is twenty minutes old.
    Period,
    /// The lowest, since the tip is older than that.
    Lowest,
}

impl Side {
    /// The side that a block at `height` with this difficulty is on.
    fn of(height: u64, difficulty: f64) -> Self {
        if height.is_multiple_of(u64::from(PERIOD)) {
            Self::PeriodStart
        } else if difficulty > LOWEST {
            Self::Period
        } else {
            // If the period's own difficulty is the lowest, both are the same.
            Self::Lowest
        }
    }
}

/// The difficulty of the highest target that a test chain allows.
const LOWEST: f64 = 1.0;

/// What a node says of its chain's next block.
#[derive(Clone, Debug)]
pub struct MiningInfo {
    /// The chain.
    pub params: &'static Params,
    /// The next block's height.
    pub height: u64,
    /// The next block's difficulty if it were found now; from nodes that do not tell it, the last
    /// block's, except on chains with the twenty-minute rule.
    pub difficulty: Difficulty,
    /// Which difficulty that is, on a chain with the twenty-minute rule.
    pub side: Option<Side>,
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

/// Why the node's answer cannot be used.
#[derive(Debug, thiserror::Error)]
enum AskError {
    /// The call failed, or its response cannot be read.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// A node before Bitcoin Core 29 on a chain with the twenty-minute rule.
    #[error(
        "its getmininginfo does not tell the next block's difficulty, and on {0} the last block's \
         says nothing of it"
    )]
    NoNext(&'static str),
}

impl MiningInfo {
    /// Asks the node.
    ///
    /// # Errors
    /// When the node cannot be reached, rejects the login, or gives an invalid answer.
    pub async fn ask(endpoint: Endpoint, credentials: Credentials) -> Result<Self, SourceError> {
        let what = format!("node {endpoint}");
        let mut rpc = Rpc::new(endpoint, credentials.clone());
        let body = Bytes::from_static(
            br#"{"jsonrpc":"1.0","id":"adit","method":"getmininginfo","params":[]}"#,
        );
        let answer = rpc.call(body, RESPONSE_BYTES, TIMEOUT).await.map_err(AskError::from);
        answer.and_then(|body| Self::read(&body)).map_err(|error| {
            let refusal = match &error {
                AskError::Rpc(error) => fatal_cause(error, &credentials),
                AskError::NoNext(_) => None,
            };
            let (refused, hint) = refusal.unwrap_or_else(|| {
                let hint = match &error {
                    AskError::Rpc(RpcError::Connection(_)) => {
                        "is the node running, and is this its port?"
                    }
                    _ => "--difficulty takes one without a node",
                };
                (Refused::Failure, hint.to_owned())
            });
            SourceError::new(refused, what, error.to_string()).hint(hint)
        })
    }

    fn read(body: &Bytes) -> Result<Self, AskError> {
        let nonsense = |why: &str| RpcError::Nonsense(why.to_owned());
        let envelope: Envelope<Answer<'_>> =
            template::parse(body).map_err(|error| RpcError::Nonsense(error.to_string()))?;
        let answer = envelope.into_result()?.ok_or_else(|| nonsense("the result is null"))?;
        let params = Params::from_chain_name(&answer.chain).ok_or_else(|| {
            RpcError::Nonsense(format!("it is on the chain {:?}", printable(&answer.chain, 40)))
        })?;
        let ruled = params.has_twenty_minute_rule();
        let difficulty = match answer.next {
            Some(next) => next.difficulty,
            // The tip may be a late block of the lowest difficulty, which says nothing of the next.
            None if ruled => return Err(AskError::NoNext(params.name)),
            None => answer.difficulty,
        };
        let height = answer.blocks.saturating_add(1);
        let side = ruled.then(|| Side::of(height, difficulty));
        let difficulty = Difficulty::from_f64(difficulty)
            .ok_or_else(|| nonsense("its difficulty is not above zero"))?;
        Ok(Self { params, height, difficulty, side })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(result: &str) -> Result<MiningInfo, AskError> {
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
        assert_eq!(old.side, None);
    }

    #[test]
    fn under_the_twenty_minute_rule_it_says_which_difficulty_it_is() {
        let side = |chain: &str, blocks: u32, next: f64| {
            let text = format!(
                r#"{{"chain":"{chain}","blocks":{blocks},"difficulty":7,"next":{{"difficulty":{next}}}}}"#
            );
            read(&text).unwrap().side
        };
        for chain in ["testnet4", "test"] {
            assert_eq!(side(chain, 7, 1e6), Some(Side::Period));
            assert_eq!(side(chain, 7, 1.0), Some(Side::Lowest));
            assert_eq!(side(chain, 2_015, 1e6), Some(Side::PeriodStart));
            let old = format!(r#"{{"chain":"{chain}","blocks":7,"difficulty":1}}"#);
            let error = read(&old).unwrap_err().to_string();
            assert!(error.contains("does not tell the next block's difficulty"), "{error}");
        }
        for chain in ["main", "signet", "regtest"] {
            assert_eq!(side(chain, 7, 1.0), None);
        }
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
