//! The outcome of a call: a JSON-RPC response, or why there is none.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::cookie_paths::{list, missing_folder};
use super::peer::Protocol;
use crate::printable::printable;

/// The most characters that are kept of a node's words.
pub(super) const WORDS: usize = 200;

/// JSON-RPC's code for a method that the server does not know.
pub const METHOD_NOT_FOUND: i64 = -32601;

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The response is larger than any honest one.
    #[error("the answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// There is no cookie file in any of these places.
    #[error("no cookie file at {}{}", list(.0), missing_folder(.0))]
    NoCookie(Vec<PathBuf>),
    /// A cookie file exists and cannot be used.
    #[error("cookie file {}: {why}", .path.display())]
    BadCookie {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: std::io::Error,
    },
    /// HTTP 401.
    #[error("the node refuses {0} (HTTP 401)")]
    Unauthorized(&'static str),
    /// HTTP 403: the node is up, and does not allow this user these calls.
    #[error("the node does not allow the call {0} (HTTP 403)")]
    Forbidden(String),
    /// HTTP 301, 302, 307 or 308: a web server redirects the call.
    #[error("HTTP {status} says that the node is at {}", printable(.to, WORDS))]
    Moved {
        /// The status.
        status: u16,
        /// The header `Location`.
        to: String,
    },
    /// What answers is not an HTTP server.
    #[error("what answers speaks {protocol}, not HTTP{ports}")]
    NotHttp {
        /// The protocol that it speaks.
        protocol: Protocol,
        /// The ports of a node's JSON-RPC, after a semicolon; empty if the port is one of them.
        ports: String,
    },
    /// Another HTTP status without a JSON-RPC answer.
    #[error("HTTP {status}: {body}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of the body, made printable.
        body: String,
    },
    /// The node's own error.
    #[error("{message} (error {code})")]
    Node {
        /// Its code.
        code: i64,
        /// Its words, made printable. `METHOD_NOT_FOUND` names the method too.
        message: String,
    },
    /// A response that is not what was asked for.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
}

/// The error member of a JSON-RPC answer.
#[derive(Debug, Deserialize)]
pub struct ErrorObject {
    code: i64,
    #[serde(default)]
    message: Option<String>,
}

impl From<ErrorObject> for RpcError {
    fn from(error: ErrorObject) -> Self {
        let message = error.message.unwrap_or_default();
        Self::Node { code: error.code, message: printable(&message, WORDS) }
    }
}

/// A JSON-RPC answer.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Envelope<T> {
    #[serde(default = "Member::missing", deserialize_with = "Member::read")]
    result: Member<T>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

/// The member `result`. If `submitblock` has the result null, the block was accepted; if it has no
/// result at all, the block was not looked at.
#[derive(Debug)]
enum Member<T> {
    Missing,
    /// `None` is null.
    There(Option<T>),
}

impl<'de, T: Deserialize<'de>> Member<T> {
    fn missing() -> Self {
        Self::Missing
    }

    fn read<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::There)
    }
}

impl<T> Envelope<T> {
    /// The result (`None` for null), or the node's error.
    ///
    /// # Errors
    /// When the node answered with one, or with neither.
    pub fn into_result(self) -> Result<Option<T>, RpcError> {
        match (self.error, self.result) {
            (Some(error), _) => Err(error.into()),
            (None, Member::There(result)) => Ok(result),
            (None, Member::Missing) => {
                Err(RpcError::Nonsense("it has neither a result nor an error".to_owned()))
            }
        }
    }
}

/// The names of the calls in a request's body, for an error about them.
pub(super) fn calls_of(request: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
    }
    let calls = serde_json::from_slice::<Vec<Call<'_>>>(request)
        .or_else(|_| serde_json::from_slice(request).map(|call| vec![call]));
    // A request that cannot be parsed was not written by adit.
    let names: Vec<Cow<'_, str>> =
        calls.unwrap_or_default().into_iter().map(|call| call.method).collect();
    names.join(" or ")
}

/// Adds the method's name to a server's error that it does not know the method. A batch that is
/// refused as a whole is left to the caller.
pub(super) fn name_unknown_method(request: &[u8], answer: &[u8]) -> Result<(), RpcError> {
    /// A response that only says so is short.
    const SHORT: usize = 4096;
    if request.starts_with(b"[") || !answer.starts_with(b"{") || answer.len() > SHORT {
        return Ok(());
    }
    let envelope = serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(answer);
    match envelope.map(Envelope::into_result) {
        Ok(Err(RpcError::Node { code: METHOD_NOT_FOUND, message })) => Err(RpcError::Node {
            code: METHOD_NOT_FOUND,
            message: format!("it does not know the call {}: {message}", calls_of(request)),
        }),
        // Any other response is the caller's.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_not_known_is_named() {
        let request = br#"{"jsonrpc":"1.0","id":"adit","method":"getblocktemplate","params":[{}]}"#;
        let answer =
            br#"{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":"adit"}"#;
        let error = name_unknown_method(request, answer).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it does not know the call getblocktemplate: Method not found (error -32601)"
        );
        let other = br#"{"result":null,"error":{"code":-28,"message":null}}"#;
        name_unknown_method(request, other).unwrap();
        name_unknown_method(request, b"{").unwrap();
        let batch = [b"[".as_slice(), request, b",", request, b"]"].concat();
        name_unknown_method(&batch, answer).unwrap();
        assert_eq!(calls_of(&batch), "getblocktemplate or getblocktemplate");
    }

    #[test]
    fn null_in_an_error_is_absence() {
        let answer = br#"{"result":null,"error":{"code":-28,"message":null}}"#;
        let envelope: Envelope<u8> = serde_json::from_slice(answer).unwrap();
        assert_eq!(envelope.into_result().unwrap_err().to_string(), " (error -28)");
        let envelope: Envelope<u8> =
            serde_json::from_slice(br#"{"result":7,"error":null}"#).unwrap();
        assert_eq!(envelope.into_result().unwrap(), Some(7));
    }
}
