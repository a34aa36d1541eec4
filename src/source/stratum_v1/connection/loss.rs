//! Why a connection was lost: the reason that is announced, and the requests that may have caused it.

use std::io;
use std::time::Duration;

use super::super::profile::{OptionalRequest, Resumption, SilentCloses};
use super::{Connection, HandshakePhase, Request};

/// The reason where a server expects TLS and is not spoken to in TLS.
pub(super) const TLS_ALERT: &str = "it answers in TLS: write stratum+tls:// to it";
/// How long after an optional request the loss of the connection is put down to it.
const SUSPECT_FOR: Duration = Duration::from_secs(10);

impl Connection<'_> {
    /// The reason where the pool has closed the connection.
    pub(super) fn closed(&self) -> String {
        let what = match self.phase {
            HandshakePhase::Configuring => "it closed the connection at mining.configure",
            HandshakePhase::Subscribing => "it closed the connection at mining.subscribe",
            HandshakePhase::Authorizing => "it closed the connection at mining.authorize",
            HandshakePhase::Mining if !self.lines.rest().is_empty() => {
                "it closed the connection in the middle of a line"
            }
            HandshakePhase::Mining | HandshakePhase::Leaving => "it closed the connection",
        };
        self.or_tls(what.to_owned())
    }

    /// The reason where reading or writing failed.
    pub(super) fn broken(&self, error: &io::Error) -> String {
        self.or_tls(format!("the connection was lost: {error}"))
    }

    /// The reason `what`, or that the port may be one for TLS: a server that expects TLS answers a client
    /// without it by an alert, closes the connection without a byte, or sends nothing.
    pub(super) fn or_tls(&self, what: String) -> String {
        if is_tls_alert(self.lines.rest()) {
            TLS_ALERT.to_owned()
        } else if !self.config.transport.uses_tls() && self.last_bytes == self.opened {
            what + "; it has sent nothing at all: if this is a TLS port, write stratum+tls:// to it"
        } else {
            what
        }
    }

    /// Skips the requests from now on that may be why the connection was lost. Some pools close it at a
    /// request that they do not know; others refuse the request first, and then close the connection or
    /// send nothing more. So a request is a suspect if it had no answer when the connection was lost soon
    /// after it, or was refused shortly before the pool's last message. But a proxy whose server is away
    /// closes every connection at the first request.
    pub(super) fn skip_suspects(&mut self) {
        let profile = &mut self.pool.profile;
        let resuming = Request::Subscribe { resuming: true };
        if self.last_bytes > self.opened {
            profile.silent_closes = SilentCloses::default();
        } else {
            let without_configure =
                !self.pending_requests.iter().any(|(_, request, _)| *request == Request::Configure);
            if without_configure {
                profile.restore(OptionalRequest::Configure);
            }
            if !profile.silent_closes.record(without_configure) {
                self.pending_requests.retain(|(_, request, _)| *request == resuming);
            }
        }
        let unanswered = std::mem::take(&mut self.pending_requests)
            .into_iter()
            .filter(|(_, request, sent)| *request == resuming || sent.elapsed() <= SUSPECT_FOR)
            .map(|(_, request, _)| request);
        let refused = std::mem::take(&mut self.refused_requests)
            .into_iter()
            .filter(|(_, at)| self.last_bytes <= *at + SUSPECT_FOR)
            .map(|(request, _)| request);
        for request in unanswered.chain(refused) {
            match request {
                Request::Configure => profile.skip(OptionalRequest::Configure),
                Request::Extranonce => profile.skip(OptionalRequest::Extranonce),
                Request::Suggest => profile.skip(OptionalRequest::Suggest),
                Request::Subscribe { resuming: true } => profile.resumption = Resumption::Never,
                Request::Subscribe { resuming: false } | Request::Authorize => {}
            }
        }
    }
}

/// Whether this is the beginning of a TLS alert (RFC 8446, section 5.1: content type 21, version 3.x).
pub(super) fn is_tls_alert(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x15, 0x03])
}
