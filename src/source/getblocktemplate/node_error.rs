//! What goes wrong with a node, and whether it is the end.

use std::io::ErrorKind;

use super::rpc::{METHOD_NOT_FOUND, Protocol};
use super::*;

impl Client {
    /// Whether a template that failed ends it all; whether the connection is to be made anew is in
    /// the answer: `Some` with the reason.
    pub(super) fn on_template_error(
        &mut self,
        error: TemplateError,
    ) -> Result<Option<String>, SourceError> {
        let reason = error.to_string();
        match error {
            TemplateError::Rpc(RpcError::Node { message, .. })
                if message.contains("time-too-new") =>
            {
                self.say_ahead();
            }
            TemplateError::Rpc(error) => {
                let lost = matches!(error, RpcError::Connection(_) | RpcError::Deadline(_));
                match self.classify(error) {
                    NodeError::Fatal(error) => return Err(error),
                    NodeError::Temporary(reason) if lost => return Ok(Some(reason)),
                    NodeError::Temporary(reason) => self.say(reason),
                }
            }
            TemplateError::Unsupported(_) => {
                let error = SourceError::new(Refused::BySource, self.what(), reason);
                return Err(error.hint("a node of a released Bitcoin Core or Knots will do"));
            }
            TemplateError::SignetSignature => {
                let error = SourceError::new(Refused::BySource, self.what(), reason);
                return Err(error.hint(
                    "whoever holds the key mines with the miner script of Bitcoin Core's \
                     contrib/signet: miner --cli=\"bitcoin-cli -signet\" generate \
                     --grind-cmd=\"adit grind\" --address=ADDR --min-nbits --ongoing; a signet of \
                     one's own with -signetchallenge=51 needs no key",
                ));
            }
            TemplateError::Json(_)
            | TemplateError::Field { .. }
            | TemplateError::CoinbaseAux(_) => {
                self.say(reason);
            }
        }
        Ok(None)
    }

    /// Says that block time is too far ahead of the clock, now and then: on a chain that has grown
    /// quickly for long each second has room for a few blocks, and the node refuses to make a
    /// template in between.
    pub(super) fn say_ahead(&mut self) {
        if self.said_ahead.is_none_or(|said| said.elapsed() > AHEAD_NOTICE_INTERVAL) {
            self.said_ahead = Some(Instant::now());
            self.port.notice(
                "the chain's time is two hours ahead of the node's clock, which is all it may be: \
                 blocks come as the clock goes on",
            );
        }
    }

    /// Whether the node may be one that has just been started and has not written its cookie.
    fn may_be_starting(&self) -> bool {
        let seen_down = |at: Instant| at.elapsed() < COOKIE_GRACE_AFTER_DOWN;
        self.connection > 0
            || self.begun.elapsed() < COOKIE_GRACE
            || self.unreachable.is_some_and(seen_down)
    }

    /// What a failed call means: the end, or another try.
    pub(super) fn classify(&self, error: RpcError) -> NodeError {
        let why = error.to_string();
        // A node that is starting again has no cookie yet, or not the one that we read.
        let by_cookie = matches!(self.config.credentials, Credentials::Cookie(_));
        let may_pass = match &error {
            RpcError::NoCookie(_) | RpcError::BadCookie { .. } | RpcError::Unauthorized(_) => {
                by_cookie && self.may_be_starting()
            }
            // A node has answered there before.
            RpcError::NotHttp { .. } | RpcError::Moved { .. } => self.connection > 0,
            _ => false,
        };
        let Some((refused, hint)) =
            fatal_cause(&error, &self.config.credentials).filter(|_| !may_pass)
        else {
            return NodeError::Temporary(why);
        };
        NodeError::Fatal(SourceError::new(refused, self.what(), why).hint(hint))
    }

    /// What fails when the node will not have us.
    pub(super) fn what(&self) -> String {
        format!("node {}", self.config.endpoint)
    }

    pub(super) fn refused(&self, refused: Refused, why: String, hint: Option<String>) -> NodeError {
        NodeError::Fatal(SourceError { hint, ..SourceError::new(refused, self.what(), why) })
    }
}

/// What kind of end a failed call is and what can be done about it, where trying again is of no use.
pub(super) fn fatal_cause(
    error: &RpcError,
    credentials: &Credentials,
) -> Option<(Refused, String)> {
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
    fn what_may_pass_is_tried_again() {
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
