//! What outlives a connection: the jobs, the shares that wait, the pool's manners, the waits between
//! tries.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::Config;
use super::connection::{Connection, End};
use super::job_table::JobTable;
use super::quirks::Quirks;
use super::version_bits::Learner;
use super::work::Extranonce;
use crate::engine::Port;
use crate::job::{Refusal, Solution, Verdict};
use crate::source::backoff::Backoff;
use crate::source::connection_state::ConnectionState;
use crate::source::net::ConnectError;
use crate::source::pool::responsiveness::{FaultCooldown, PoolFault, RefusedShares};
use crate::source::pool::share_limiter::ShareLimiter;
use crate::source::{Refused, SourceError};

/// How many shares wait for a session to be resumed, or for the pool to let us in.
const QUEUE_MAX: usize = 1_024;

/// How often a first TLS handshake has to fail until that is final.
const TLS_FAILURES_MAX: u32 = 3;
/// How often the patience for a subscription is doubled at most.
const SUBSCRIBE_DOUBLINGS_MAX: u32 = 3;

/// A request that a pool need not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionalRequest {
    Configure,
    Extranonce,
    Suggest,
}

/// What the pool gave to take a session up again.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    /// The session's id.
    pub id: String,
    /// The room it gave us in the coinbase: the same again, and it is the same session.
    pub extranonce: Extranonce,
}

/// Whether the pool takes sessions up again.
#[derive(Clone, Debug)]
pub(super) enum Resumption {
    /// It has given nothing to do it with.
    Unknown,
    /// It may.
    May(Resume),
    /// It was asked to, and gave us another session.
    Never,
}

/// How far the pool has ever trusted us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Not at all yet.
    Unknown,
    /// It has let us in.
    Authorized,
    /// It has accepted a share.
    ShareAccepted,
}

/// Connections in a row that ended before the pool had said a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilentCloses {
    count: u32,
    /// How many of them are put down to what was asked.
    enough: u32,
}

impl Default for SilentCloses {
    fn default() -> Self {
        Self { count: 0, enough: 2 }
    }
}

impl SilentCloses {
    /// Notes another one; says whether that is put down to what was asked. If it ended so `without`
    /// what pools need not know, that was not the reason before either: the next doubt takes longer.
    pub(super) fn record(&mut self, without: bool) -> bool {
        self.count += 1;
        if self.count < self.enough && !without {
            return false;
        }
        self.count = 0;
        if without {
            self.enough = (self.enough * 2).min(8);
        }
        !without
    }
}

/// What is known of a pool from one connection to the next, and the loop that connects to it.
pub(super) struct Client {
    pub(super) config: Config,
    pub(super) name: String,
    pub(super) port: Port,
    pub(super) job_table: JobTable,
    pub(super) share_limiter: ShareLimiter,
    pub(super) resumption: Resumption,
    pub(super) trust: Trust,
    /// What the pool took badly, and until when it is left out.
    skipped_requests: Vec<(OptionalRequest, Instant)>,
    pub(super) silent_closes: SilentCloses,
    /// Whether version rolling was agreed on, and nothing else was said since.
    pub(super) rolled: bool,
    /// Shares that cannot be sent yet.
    queued: VecDeque<Solution>,
    /// Until when the last job is mined on without a connection.
    gap_until: Option<Instant>,
    /// Whether shares that are found now may still count.
    pub(super) connected: bool,
    /// Whether the pool was left for a fault, and is not reported healthy.
    cooldown: FaultCooldown,
    pub(super) refused_shares: RefusedShares,
    /// What was learned of the pool.
    pub(super) quirks: Quirks,
    /// In which form it takes version bits.
    pub(super) version_bits: Learner,
    /// How often a subscription was not answered in time.
    subscribe_timeouts: u32,
    /// How often a first login was refused for what may pass.
    pub(super) logins_refused: u32,
    /// How often the first connection failed for what looks lasting.
    lasting_failures: u32,
    /// Another port of the same host, where the pool has sent us.
    pub(super) moved_to: Option<u16>,
    /// The least wait before the next try, where the pool asked for one.
    pub(super) least_wait: Duration,
    /// What was announced of the connection.
    state: ConnectionState,
    /// The waits between two attempts.
    backoff: Backoff,
}

impl Client {
    pub(super) fn new(config: Config, name: String, port: Port) -> Self {
        let quirks = Quirks::of(&config.endpoint, config.quirks_dir.as_deref());
        Self {
            version_bits: Learner::new(quirks.version_bits()),
            quirks,
            subscribe_timeouts: 0,
            logins_refused: 0,
            lasting_failures: 0,
            name,
            port,
            job_table: JobTable::default(),
            share_limiter: ShareLimiter::new(Instant::now()),
            resumption: Resumption::Unknown,
            trust: Trust::Unknown,
            skipped_requests: Vec::new(),
            silent_closes: SilentCloses::default(),
            rolled: false,
            queued: VecDeque::new(),
            gap_until: None,
            connected: false,
            cooldown: FaultCooldown::new(config.timing.fault_cooldown),
            refused_shares: RefusedShares::new(config.timing.refused),
            backoff: Backoff::new(config.timing.backoff),
            state: ConnectionState::default(),
            moved_to: None,
            least_wait: Duration::ZERO,
            config,
        }
    }

    /// Mines until it is time to go, or the pool will not have us.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let outcome = loop {
            let mut endpoint = self.config.endpoint.clone();
            let moved_to = self.moved_to.take();
            endpoint.port = moved_to.unwrap_or(endpoint.port);
            let transport = self.config.transport.clone();
            let attempt = async move { transport.connect(&endpoint).await };
            let reason = match self.queueing_meanwhile(attempt).await {
                None => break Ok(()),
                Some(Ok(stream)) => {
                    self.connected = true;
                    let (end, useful) = Connection::new(&mut self).run(stream).await;
                    self.connected = false;
                    if useful {
                        self.backoff.reset();
                        self.moved_to = self.moved_to.or(moved_to);
                    }
                    match end {
                        End::Stopped => break Ok(()),
                        // The pool itself has sent us there.
                        End::Final(error) if moved_to.is_some() => {
                            self.moved_to = None;
                            error.to_string()
                        }
                        End::Final(error) => break Err(error),
                        End::Lost(reason) => reason,
                    }
                }
                Some(Err(error)) if moved_to.is_some() => error.to_string(),
                Some(Err(error)) => match self.final_error(&error) {
                    Some(error) => break Err(error),
                    None => error.to_string(),
                },
            };
            self.lost(reason);
            let least = std::mem::take(&mut self.least_wait);
            let wait = self.backoff.next_with_jitter().max(least);
            if self.queueing_meanwhile(tokio::time::sleep(wait)).await.is_none() {
                break Ok(());
            }
        };
        self.end_session("the connection was lost before it could be sent");
        outcome
    }

    /// Whether a failed connection is the end: what cannot get better by itself, if it never worked. A
    /// handshake that fails once may have been garbled on its way.
    fn final_error(&mut self, error: &ConnectError) -> Option<SourceError> {
        let is_lasting = error.is_final() && self.trust == Trust::Unknown;
        self.lasting_failures = if is_lasting { self.lasting_failures + 1 } else { 0 };
        let enough = if error.may_be_garbled() { TLS_FAILURES_MAX } else { 1 };
        (self.lasting_failures >= enough).then(|| {
            let refusal = SourceError::new(Refused::BySource, self.what(), error.to_string());
            SourceError { hint: error.hint().map(Into::into), ..refusal }
        })
    }

    /// What fails when the pool will not have us.
    pub(super) fn what(&self) -> String {
        format!("pool {}", self.name)
    }

    /// What is to be done when there is no connection any more.
    pub(super) fn lost(&mut self, reason: String) {
        if !matches!(self.resumption, Resumption::May(_)) || self.job_table.is_empty() {
            self.end_session("the connection was lost before it could be sent");
        } else if self.gap_until.is_none() {
            self.gap_until = Some(Instant::now() + self.config.timing.gap);
        }
        self.state.lost(&self.port, reason);
    }

    /// Says that all is well, if it was not. A pool that has a job for us may still be one that
    /// answers no share or refuses all; its jobs are mined where there is nothing better.
    pub(super) fn report_healthy(&mut self) {
        self.port.started(None);
        if self.cooldown.is_active(Instant::now()) {
            return;
        }
        self.state.worked();
        self.state.connected(&self.port);
    }

    /// The pool is left for this fault: it is not reported healthy for a while.
    pub(super) fn mark_faulty(&mut self, fault: PoolFault) {
        self.cooldown.begin(fault, Instant::now());
    }

    /// The pool has shown that it does not have this fault (any more).
    pub(super) fn clear_fault(&mut self, fault: PoolFault) {
        if self.cooldown.clear(fault) {
            self.report_healthy();
        }
    }

    /// How long an answer to `mining.subscribe` is waited for: longer each time that none came.
    pub(super) fn subscribe_timeout(&self) -> Duration {
        let longer = 2u32.pow(self.subscribe_timeouts.min(SUBSCRIBE_DOUBLINGS_MAX));
        self.config.timing.subscribe * longer
    }

    /// No answer to `mining.subscribe` came in time.
    pub(super) fn subscribe_timed_out(&mut self) {
        self.subscribe_timeouts += 1;
    }

    /// Does `work`, keeping what is found meanwhile; `None` if it is time to go.
    async fn queueing_meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let gap = self.gap_until;
            let gap_is_over = async {
                match gap {
                    Some(until) => sleep_until(until.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                done = &mut work => return Some(done),
                solution = self.port.solution() => match solution {
                    Some(solution) => self.queue(solution),
                    None => return None,
                },
                () = gap_is_over => self.end_session("the pool did not come back in time; not sent"),
            }
        }
    }

    /// Keeps a share until it can be sent, if it ever can.
    pub(super) fn queue(&mut self, solution: Solution) {
        if !self.connected && self.gap_until.is_none() {
            self.mark_stale(&solution, "there is no connection to the pool; not sent");
        } else if self.queued.len() == QUEUE_MAX {
            self.mark_stale(&solution, "too many shares wait for the pool; not sent");
        } else {
            self.queued.push_back(solution);
        }
    }

    /// The shares that wait, the oldest first.
    pub(super) fn take_queued(&mut self) -> VecDeque<Solution> {
        std::mem::take(&mut self.queued)
    }

    /// Ends mining for a session that is over.
    fn end_session(&mut self, why: &'static str) {
        self.gap_until = None;
        self.port.clear_job();
        for solution in self.take_queued() {
            self.mark_stale(&solution, why);
        }
    }

    /// Begins a session that has nothing to do with the one before.
    pub(super) fn begin_session(&mut self) {
        if !self.job_table.is_empty() {
            self.end_session("the pool did not resume the session it was found in; not sent");
        }
        self.gap_until = None;
        self.job_table.begin_session();
    }

    /// Goes on with the session that was interrupted.
    pub(super) fn resume_session(&mut self) {
        if self.gap_until.take().is_none() {
            // Mining had stopped; what is found from now on belongs to the session all the same.
            tracing::debug!("the pool has resumed the session after mining had stopped");
        }
    }

    /// A share that must not be sent.
    pub(super) fn mark_stale(&self, solution: &Solution, why: &'static str) {
        self.port.verdict(solution, Verdict::Stale(Refusal::new("", why)));
    }

    /// Whether something that pools need not know is sent to this one.
    pub(super) fn wants(&self, what: OptionalRequest) -> bool {
        self.skipped_requests.iter().all(|(which, until)| *which != what || *until < Instant::now())
    }

    /// Leaves something out for a while that the pool took badly.
    pub(super) fn skip(&mut self, what: OptionalRequest) {
        tracing::debug!(?what, "left out with this pool from now on");
        self.skipped_requests.retain(|(which, _)| *which != what);
        self.skipped_requests.push((what, Instant::now() + self.config.timing.skip_for));
    }

    /// Sends something again that was left out for nothing.
    pub(super) fn restore(&mut self, what: OptionalRequest) {
        self.skipped_requests.retain(|(which, _)| *which != what);
    }
}
