//! What goes wrong with a node, and whether trying again can help.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::rpc::{Credentials, Endpoint, METHOD_NOT_FOUND, Protocol, RpcError};
use super::template::TemplateError;
use crate::source::{Refused, SourceError};

/// How long a node that has just been started may be without its cookie, where it is not known to
/// have been started.
const COOKIE_GRACE: Duration = Duration::from_secs(1);
/// The same for a node that was seen not to be up.
const COOKIE_GRACE_AFTER_DOWN: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Debug)]
pub enum NodeError {
    /// Trying again cannot help: the source ends.
    Fatal(SourceError),
    /// It may work later; the reason.
    Temporary(String),
}

/// What follows from a template that could not be fetched or read.
#[derive(Debug)]
pub enum TemplateFailure {
    /// The chain's time is so far ahead of the node's clock that the node makes no template.
    AheadOfClock,
    /// It is fetched again; the reason.
    Retry(String),
    /// The connection is lost; the reason.
    Lost(String),
    /// Trying again cannot help: the source ends.
    Fatal(SourceError),
}

/// Decides what a failed call means, by the error and by what is known of the node so far.
#[derive(Debug)]
pub struct ErrorClassifier {
    endpoint: Endpoint,
    credentials: Credentials,
    started: Instant,
    /// When the node was last seen not to be up.
    unreachable_at: Option<Instant>,
    has_connected: bool,
}

impl ErrorClassifier {
    /// For the node at `endpoint`, with which nothing has been exchanged yet.
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Self {
        let started = Instant::now();
        Self { endpoint, credentials, started, unreachable_at: None, has_connected: false }
    }

    /// Notes that the node was seen not to be up.
    pub fn node_unreachable(&mut self) {
        self.unreachable_at = Some(Instant::now());
    }

    /// Notes that the node was one that can be mined on.
    pub const fn node_connected(&mut self) {
        self.has_connected = true;
    }

    /// Whether the node may be one that has just been started and has not written its cookie.
    fn may_be_starting(&self) -> bool {
        let seen_down = |at: Instant| at.elapsed() < COOKIE_GRACE_AFTER_DOWN;
        self.has_connected
            || self.started.elapsed() < COOKIE_GRACE
            || self.unreachable_at.is_some_and(seen_down)
    }

    /// What a failed call means: the end, or another attempt.
    pub fn classify(&self, error: &RpcError) -> NodeError {
        let why = error.to_string();
        // A node that is starting again has no cookie yet, or not the one that we read.
        let by_cookie = matches!(self.credentials, Credentials::Cookie(_));
        let may_pass = match error {
            RpcError::NoCookie(_) | RpcError::BadCookie { .. } | RpcError::Unauthorized(_) => {
                by_cookie && self.may_be_starting()
            }
            // A node has answered there before.
            RpcError::NotHttp { .. } | RpcError::Moved { .. } => self.has_connected,
            _ => false,
        };
        let Some((refused, hint)) = fatal_cause(error, &self.credentials).filter(|_| !may_pass)
        else {
            return NodeError::Temporary(why);
        };
        self.fatal(refused, why, Some(hint))
    }

    /// What a template means that could not be fetched or read.
    pub fn on_template_error(&self, error: TemplateError) -> TemplateFailure {
        let reason = error.to_string();
        let hint = match error {
            TemplateError::Rpc(RpcError::Node { message, .. })
                if message.contains("time-too-new") =>
            {
                return TemplateFailure::AheadOfClock;
            }
            TemplateError::Rpc(error) => {
                return match self.classify(&error) {
                    NodeError::Fatal(error) => TemplateFailure::Fatal(error),
                    NodeError::Temporary(reason)
                        if matches!(error, RpcError::Connection(_) | RpcError::Deadline(_)) =>
                    {
                        TemplateFailure::Lost(reason)
                    }
                    NodeError::Temporary(reason) => TemplateFailure::Retry(reason),
                };
            }
            TemplateError::Json(_)
            | TemplateError::Field { .. }
            | TemplateError::CoinbaseAux(_) => return TemplateFailure::Retry(reason),
            TemplateError::Unsupported(_) => "use a released version of Bitcoin Core or Knots",
            TemplateError::SignetSignature => {
                "the holder of its key mines with the miner script of Bitcoin Core's contrib/signet: \
                 miner --cli=\"bitcoin-cli -signet\" generate --grind-cmd=\"adit grind\" \
                 --address=ADDR --min-nbits --ongoing; a signet of your own with \
                 -signetchallenge=51 needs no key"
            }
        };
        TemplateFailure::Fatal(SourceError::new(Refused::BySource, self.node(), reason).hint(hint))
    }

    /// The node, as errors name it.
    fn node(&self) -> String {
        format!("node {}", self.endpoint)
    }

    /// The end, because of the node.
    pub fn fatal(&self, refused: Refused, why: String, hint: Option<String>) -> NodeError {
        NodeError::Fatal(SourceError { hint, ..SourceError::new(refused, self.node(), why) })
    }
}

/// What kind of end a failed call is and what can be done about it, where trying again cannot help.
pub fn fatal_cause(error: &RpcError, credentials: &Credentials) -> Option<(Refused, String)> {
    let by_cookie = matches!(credentials, Credentials::Cookie(_));
    let (refused, hint) = match error {
        RpcError::Unauthorized(_) if by_cookie => (
            Refused::BySource,
            "is it the cookie of this node? name its file with --rpc-cookie, or its data directory \
             with --datadir",
        ),
        RpcError::Unauthorized(_) => (
            Refused::BySource,
            "check --rpc-user and ADIT_RPC_PASSWORD against the node's rpcauth or rpcuser",
        ),
        RpcError::Forbidden(calls) => {
            let hint = format!(
                "the node's -rpcallowip must have this machine's address, and its -rpcwhitelist, where \
                 there is one for this user, {calls} (docs/NODES.md lists all calls that adit makes)"
            );
            return Some((Refused::BySource, hint));
        }
        RpcError::NoCookie(_) => (
            Refused::Configuration,
            "name the node's data directory with --datadir, its cookie with --rpc-cookie, or log in \
             with --rpc-user and ADIT_RPC_PASSWORD",
        ),
        RpcError::BadCookie { why, .. } if why.kind() == ErrorKind::PermissionDenied => (
            Refused::Configuration,
            "run adit as the node's user, or start the node with -rpccookieperms=group (or all), or \
             log in with --rpc-user and ADIT_RPC_PASSWORD (the node's rpcauth)",
        ),
        RpcError::BadCookie { .. } => {
            (Refused::Configuration, "name the node's cookie with --rpc-cookie")
        }
        RpcError::NotHttp { protocol: Protocol::JsonLines, .. } => {
            (Refused::Configuration, "a pool is named stratum+tcp://HOST:PORT")
        }
        RpcError::NotHttp { protocol: Protocol::Tls, .. } => (
            Refused::Configuration,
            "adit speaks no TLS with nodes: name the node's own port, through an SSH tunnel or a \
             VPN where it is on another machine",
        ),
        RpcError::NotHttp { .. } => {
            (Refused::Configuration, "name the node's JSON-RPC port: http://HOST:PORT")
        }
        RpcError::Moved { to, .. } if to.starts_with("https:") => (
            Refused::Configuration,
            "adit speaks no TLS with nodes: name the node's own port, not that of a web server \
             before it",
        ),
        RpcError::Moved { .. } => (Refused::Configuration, "name that address as the source"),
        // A wallet, a proxy, another daemon.
        RpcError::Node { code: METHOD_NOT_FOUND, .. } => {
            (Refused::BySource, "the source must be a node that knows getblocktemplate")
        }
        RpcError::Node { code: -8, message } if message.contains("rule") => {
            (Refused::BySource, "this chain needs rules that adit does not know")
        }
        _ => return None,
    };
    Some((refused, hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::limits::CALL_TIMEOUT;
    use super::*;

    #[test]
    fn what_can_be_done_about_a_cookie_depends_on_what_is_wrong_with_it() {
        let credentials = Credentials::Cookie(vec!["cookie".into()]);
        let hint = |why: ErrorKind| {
            let error = RpcError::BadCookie { path: "cookie".into(), why: why.into() };
            fatal_cause(&error, &credentials).unwrap()
        };
        let (refused, denied) = hint(ErrorKind::PermissionDenied);
        assert_eq!(refused, Refused::Configuration);
        for way in ["the node's user", "-rpccookieperms", "rpcauth"] {
            assert!(denied.contains(way), "{denied}");
        }
        assert!(hint(ErrorKind::InvalidData).1.contains("--rpc-cookie"));
    }

    #[test]
    fn what_may_pass_is_not_fatal() {
        let credentials = Credentials::Cookie(Vec::new());
        for error in [
            RpcError::Connection(String::new()),
            RpcError::Deadline(CALL_TIMEOUT),
            RpcError::Status { status: 503, body: String::new() },
            RpcError::Node { code: -28, message: String::new() },
        ] {
            assert_eq!(fatal_cause(&error, &credentials), None, "{error:?}");
        }
    }
}
