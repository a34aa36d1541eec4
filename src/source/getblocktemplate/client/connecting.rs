//! Connecting to the node, the first time and again: the handshake, the waits between attempts, and what a
//! request to reconnect does.

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::super::calls::{parse_chain_name, request};
use super::super::node_error::NodeError;
use super::super::payout::payout;
use super::super::rpc::RpcError;
use super::super::template::{Payout, TemplateError};
use super::{Client, ConnectionEnd};
use crate::chain::params::Params;
use crate::printable::printable;
use crate::source::{NO_ADDRESS, RECONNECT_REQUESTED, Refused, SourceError};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitOutcome {
    Elapsed,
    Stopped,
    /// The user wants a connection now.
    ReconnectRequested,
}

impl Client {
    /// Connects and mines, again and again.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn reconnect_until_stopped(&mut self) -> Result<(), SourceError> {
        loop {
            let end = match self.connect().await? {
                Some(payout) => self.mine(&payout).await?,
                None => ConnectionEnd::Stopped,
            };
            let waited = match end {
                ConnectionEnd::Stopped => {
                    self.state.ended(&self.port);
                    return Ok(());
                }
                ConnectionEnd::Lost(reason) => {
                    self.disconnect(reason);
                    self.back_off().await
                }
                ConnectionEnd::ReconnectRequested => WaitOutcome::ReconnectRequested,
            };
            match waited {
                WaitOutcome::Elapsed => {}
                WaitOutcome::ReconnectRequested => self.reconnect(),
                WaitOutcome::Stopped => return Ok(()),
            }
        }
    }

    /// Closes the connections, those of the watches too, and announces why.
    fn disconnect(&mut self, reason: String) {
        self.submitter.hang_up();
        self.pacer.disconnected();
        self.state.lost(&self.port, reason);
    }

    /// Has the next connection made at once, as the user asks for it.
    fn reconnect(&mut self) {
        self.disconnect(RECONNECT_REQUESTED.to_owned());
        self.publisher.drop_old_template(&self.port);
        self.backoff.reset();
    }

    /// Tries until the node answers and is one that can be mined on; `None` if it is time to stop.
    async fn connect(&mut self) -> Result<Option<Payout>, SourceError> {
        loop {
            let requested = self.port.reconnect_requested();
            let chain_info = tokio::select! {
                biased;
                answer = self.call(request("getblockchaininfo", "")) => answer,
                // The calls after this one may submit blocks, which is not broken off.
                () = requested => {
                    self.reconnect();
                    continue;
                }
            };
            match self.handshake(chain_info).await {
                Ok(payout) => {
                    self.publisher.new_connection();
                    self.errors.node_connected();
                    return Ok(Some(payout));
                }
                Err(NodeError::Fatal(error)) => return Err(error),
                Err(NodeError::Temporary(reason)) => self.state.retrying(&self.port, reason),
            }
            self.publisher.drop_old_template(&self.port);
            match self.back_off().await {
                WaitOutcome::Elapsed => {}
                WaitOutcome::ReconnectRequested => self.reconnect(),
                WaitOutcome::Stopped => return Ok(None),
            }
        }
    }

    /// Waits for the next attempt, and keeps what is found meanwhile.
    async fn back_off(&mut self) -> WaitOutcome {
        let end = Instant::now() + self.backoff.next();
        loop {
            let requested = self.port.reconnect_requested();
            tokio::select! {
                solution = self.port.solution() => match solution {
                    Some(solution) => self.submitter.keep_for_later(solution, &self.port),
                    None => return WaitOutcome::Stopped,
                },
                () = requested => return WaitOutcome::ReconnectRequested,
                () = sleep_until(end) => return WaitOutcome::Elapsed,
            }
        }
    }

    /// Reads which chain the node is on in its answer to `getblockchaininfo`, and submits again what
    /// has no verdict yet.
    async fn handshake(
        &mut self,
        chain_info: Result<Bytes, RpcError>,
    ) -> Result<Payout, NodeError> {
        let body = match chain_info {
            Ok(body) => body,
            Err(error) => {
                if matches!(error, RpcError::Connection(_)) {
                    self.errors.node_unreachable();
                }
                return Err(self.errors.classify(&error));
            }
        };
        let chain = match parse_chain_name(&body) {
            Ok(Some(chain)) => chain,
            Ok(None) => {
                return Err(NodeError::Temporary("the node says nothing of itself".to_owned()));
            }
            Err(TemplateError::Rpc(error)) => return Err(self.errors.classify(&error)),
            Err(error) => return Err(NodeError::Temporary(error.to_string())),
        };
        let Some(params) = Params::from_chain_name(&chain) else {
            let chain = printable(&chain, 40);
            let why = format!("it is on the chain {chain:?}, which adit does not know");
            return Err(self.errors.fatal(Refused::BySource, why, None));
        };
        let payout = payout(&self.config, params, &self.errors)?;
        self.params = Some(params);
        self.submitter.set_chain(params);
        self.port.started(Some(params.network));
        self.resend_unanswered().await.map_err(|error| self.errors.classify(&error))?;
        let Self { submitter, port, state, errors, .. } = self;
        let resent = submitter.resend_earlier_runs(port, state).await;
        resent.map_err(|error| errors.classify(&error))?;
        if self.config.address.is_none() && self.publisher.is_first_connection() {
            self.port.notice(NO_ADDRESS);
        }
        Ok(payout)
    }

    /// Submits blocks again whose answer never came.
    async fn resend_unanswered(&mut self) -> Result<(), RpcError> {
        loop {
            let Self { submitter, port, state, .. } = self;
            let Some((found, verdict)) = submitter.resend_unanswered(port, state).await? else {
                return Ok(());
            };
            self.settle(&found, verdict);
        }
    }
}
