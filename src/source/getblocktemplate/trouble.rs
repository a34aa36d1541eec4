//! What goes wrong with a node, and whether it is the end.

use super::*;

impl Session {
    /// Whether a template that failed ends it all; whether the connection is to be made anew is in
    /// the answer: `Some` with the reason.
    pub(super) fn survive(&mut self, error: TemplateError) -> Result<Option<String>, SourceError> {
        let reason = error.to_string();
        match error {
            TemplateError::Rpc(RpcError::Node { message, .. })
                if message.contains("time-too-new") =>
            {
                self.say_ahead();
            }
            TemplateError::Rpc(error) => {
                let lost = matches!(error, RpcError::Connection(_) | RpcError::Deadline(_));
                match self.trouble_of(error) {
                    Trouble::Final(error) => return Err(error),
                    Trouble::Passing(reason) if lost => return Ok(Some(reason)),
                    Trouble::Passing(reason) => self.say(reason),
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
        if self.said_ahead.is_none_or(|said| said.elapsed() > SAY_AHEAD) {
            self.said_ahead = Some(Instant::now());
            self.port.notice(
                "the chain's time is two hours ahead of the node's clock, which is all it may be: \
                 blocks come as the clock goes on",
            );
        }
    }

    /// Whether the node may be one that has just been started and has not written its cookie.
    fn may_be_starting(&self) -> bool {
        let seen_down = |at: Instant| at.elapsed() < COOKIE_IS_WRITTEN_SURELY;
        self.connection > 0
            || self.begun.elapsed() < COOKIE_IS_WRITTEN
            || self.unreachable.is_some_and(seen_down)
    }

    /// What a failed call means: the end, or another try.
    pub(super) fn trouble_of(&self, error: RpcError) -> Trouble {
        let why = error.to_string();
        // A node that is starting again has no cookie yet, or not the one that we read.
        let by_cookie = matches!(self.config.credentials, Credentials::Cookie(_));
        let (refused, hint) = match &error {
            RpcError::NoCookie(_) | RpcError::BadCookie { .. } | RpcError::Unauthorized(_)
                if by_cookie && self.may_be_starting() =>
            {
                return Trouble::Passing(why);
            }
            RpcError::Unauthorized(_) => (
                Refused::BySource,
                match self.config.credentials {
                    Credentials::UserPassword { .. } => {
                        "check --rpc-user and ADIT_RPC_PASSWORD against the node's rpcauth or rpcuser"
                    }
                    Credentials::Cookie(_) => {
                        "is it the cookie of this node? name its file with --rpc-cookie, or its data \
                         directory with --datadir"
                    }
                },
            ),
            RpcError::Forbidden => (Refused::BySource, "allow it with the node's -rpcallowip"),
            RpcError::NoCookie(_) => (
                Refused::Configuration,
                "name the node's data directory with --datadir, its cookie with --rpc-cookie, or log \
                 in with --rpc-user and ADIT_RPC_PASSWORD",
            ),
            RpcError::BadCookie { .. } => {
                (Refused::Configuration, "name the node's cookie with --rpc-cookie")
            }
            // Method not found: a wallet, a proxy, another daemon.
            RpcError::Node { code: -32601, .. } => {
                (Refused::BySource, "the source must be a node that knows getblocktemplate")
            }
            RpcError::Node { code: -8, message } if message.contains("rule") => {
                (Refused::BySource, "this chain needs rules that adit does not know")
            }
            _ => return Trouble::Passing(why),
        };
        Trouble::Final(SourceError::new(refused, self.what(), why).hint(hint))
    }

    /// What fails when the node will not have us.
    pub(super) fn what(&self) -> String {
        format!("node {}", self.config.endpoint)
    }

    pub(super) fn refused(&self, refused: Refused, why: String, hint: Option<String>) -> Trouble {
        Trouble::Final(SourceError { hint, ..SourceError::new(refused, self.what(), why) })
    }
}
