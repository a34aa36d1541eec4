//! The loop that connects to the pool, again and again.

use std::future::{Future, pending};
use std::time::Duration;

use tokio::time::{sleep, sleep_until};

use super::config::Config;
use super::connection::{Connection, End, Outcome};
use super::pool_state::PoolState;
use super::profile::Trust;
use crate::engine::Port;
use crate::source::backoff::Backoff;
use crate::source::net::ConnectError;
use crate::source::{RECONNECT_REQUESTED, Refused, SourceError};

/// How often a first TLS handshake has to fail until that is final.
const TLS_FAILURES_MAX: u32 = 3;

/// What is said of shares that waited for a connection which did not come.
const NOT_SENT: &str = "the connection was lost before it could be sent";

/// How a connection ended, or the attempt to make one.
enum Ended {
    /// It is time to stop.
    Stopped,
    /// There is none, for this reason.
    Lost(String),
    /// The user wants another one.
    ReconnectRequested,
}

/// What has ended a time without a connection.
enum Waited<T> {
    /// What was waited for, which came to this.
    Done(T),
    /// It is time to stop.
    Stopped,
    /// The user wants a connection now.
    ReconnectRequested,
}

/// Mines on one pool, over one connection at a time.
pub(super) struct Client {
    config: Config,
    /// The source's name, as the user sees it.
    name: String,
    port: Port,
    pub(super) pool: PoolState,
    backoff: Backoff,
    /// How often in a row the first connection failed for what looks permanent.
    permanent_failures: u32,
    /// The port to connect to next, where the pool has redirected the miner.
    redirected_to: Option<u16>,
    /// The shortest wait before the next attempt, where the pool asked for one.
    least_wait: Duration,
}

impl Client {
    pub(super) fn new(config: Config, name: String, port: Port) -> Self {
        Self {
            pool: PoolState::new(&config),
            backoff: Backoff::new(config.timing.backoff),
            config,
            name,
            port,
            permanent_failures: 0,
            redirected_to: None,
            least_wait: Duration::ZERO,
        }
    }

    /// Mines until it is time to stop.
    ///
    /// # Errors
    /// When the pool rejects the worker for good, or cannot be connected to at all.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let outcome = loop {
            let waited = match self.connect_and_mine().await {
                Ok(Ended::Lost(reason)) => {
                    self.lost(reason);
                    let wait = self.backoff.next_with_jitter().max(self.least_wait);
                    self.queueing_meanwhile(sleep(wait)).await
                }
                Ok(Ended::ReconnectRequested) => Waited::ReconnectRequested,
                Ok(Ended::Stopped) => Waited::Stopped,
                Err(error) => break Err(error),
            };
            match waited {
                Waited::Done(()) => {}
                Waited::Stopped => break Ok(()),
                Waited::ReconnectRequested => {
                    self.lost(RECONNECT_REQUESTED.to_owned());
                    self.backoff.reset();
                }
            }
        };
        self.pool.session.end(&self.port, NOT_SENT);
        outcome
    }

    /// Mines over one connection.
    ///
    /// # Errors
    /// As [`Self::run`].
    async fn connect_and_mine(&mut self) -> Result<Ended, SourceError> {
        self.least_wait = Duration::ZERO;
        let redirected_to = self.redirected_to.take();
        let mut endpoint = self.config.endpoint.clone();
        endpoint.port = redirected_to.unwrap_or(endpoint.port);
        let transport = self.config.transport.clone();
        let attempt = async move { transport.connect(&endpoint).await };
        let stream = match self.queueing_meanwhile(attempt).await {
            Waited::Stopped => return Ok(Ended::Stopped),
            Waited::ReconnectRequested => {
                // This attempt takes too long for the user, who knows more than we do.
                self.redirected_to = redirected_to;
                return Ok(Ended::ReconnectRequested);
            }
            Waited::Done(Ok(stream)) => stream,
            Waited::Done(Err(error)) => {
                // A port that the pool named is no reason to give up the one that the user named.
                let permanent =
                    if redirected_to.is_some() { None } else { self.permanent_error(&error) };
                return permanent.map_or_else(|| Ok(Ended::Lost(error.to_string())), Err);
            }
        };
        self.pool.session.is_connected = true;
        let Outcome { end, was_useful, redirect } = self.connection().run(stream).await;
        self.pool.session.is_connected = false;
        self.least_wait = redirect.least_wait;
        self.redirected_to = redirect.port;
        if was_useful {
            self.backoff.reset();
            self.redirected_to = redirect.port.or(redirected_to);
        }
        match end {
            End::Stopped => Ok(Ended::Stopped),
            End::Lost(reason) => Ok(Ended::Lost(reason)),
            End::ReconnectRequested => Ok(Ended::ReconnectRequested),
            End::Rejected(why) => {
                let error = self.rejected(why);
                if redirected_to.is_none() {
                    return Err(error);
                }
                // The pool itself has sent the miner there.
                self.redirected_to = None;
                Ok(Ended::Lost(error.to_string()))
            }
        }
    }

    /// A connection that has not begun.
    pub(super) fn connection(&mut self) -> Connection<'_> {
        Connection::new(&self.config, &mut self.port, &mut self.pool)
    }

    /// The error of a failed connection if the run ends with it: one that never worked, and cannot get
    /// better by itself. A handshake that fails once may have been damaged on its way.
    fn permanent_error(&mut self, error: &ConnectError) -> Option<SourceError> {
        let is_permanent = error.is_final() && self.pool.profile.trust == Trust::Unknown;
        self.permanent_failures = if is_permanent { self.permanent_failures + 1 } else { 0 };
        let enough = if error.may_be_garbled() { TLS_FAILURES_MAX } else { 1 };
        (self.permanent_failures >= enough).then(|| {
            let refusal = SourceError::new(Refused::BySource, self.what(), error.to_string());
            SourceError { hint: error.hint().map(Into::into), ..refusal }
        })
    }

    /// The error of a worker that the pool rejects.
    fn rejected(&self, why: String) -> SourceError {
        SourceError::new(Refused::BySource, self.what(), why).hint(
            "check --user and ADIT_POOL_PASSWORD; many pools take a pay-out address as the user name",
        )
    }

    /// What an error names as failed.
    fn what(&self) -> String {
        format!("pool {}", self.name)
    }

    /// There is no connection any more, or none was made.
    pub(super) fn lost(&mut self, reason: String) {
        let PoolState { profile, session, health, .. } = &mut self.pool;
        if profile.may_resume() && !session.job_table.is_empty() {
            session.interrupt(self.config.timing.gap);
        } else {
            session.end(&self.port, NOT_SENT);
        }
        health.lost(&self.port, reason);
    }

    /// Does `work` and queues what is found meanwhile, until it is done or the user intervenes.
    async fn queueing_meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Waited<T> {
        let mut work = std::pin::pin!(work);
        let session = &mut self.pool.session;
        loop {
            let gap_until = session.gap_until();
            let gap_is_over = async {
                match gap_until {
                    Some(until) => sleep_until(until.into()).await,
                    None => pending().await,
                }
            };
            let requested = self.port.reconnect_requested();
            tokio::select! {
                done = &mut work => return Waited::Done(done),
                solution = self.port.solution() => match solution {
                    Some(solution) => session.queue(&self.port, solution),
                    None => return Waited::Stopped,
                },
                () = requested => return Waited::ReconnectRequested,
                () = gap_is_over => {
                    session.end(&self.port, "the pool did not come back in time; not sent");
                }
            }
        }
    }
}
