//! One connection to the pool, from the handshake to its end.
//!
//! This file has the lines that are sent and received, the timeouts, and the end. [`handshake`] has what
//! comes before mining, [`notifications`] what the pool sends unasked, [`jobs`] what goes to the engine,
//! [`shares`] what comes from it, and [`loss`] why a connection was lost.

mod handshake;
mod jobs;
mod learning;
mod limits;
mod loss;
mod notifications;
mod resumed;
mod shares;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep_until;

use super::config::Config;
use super::line::LineBuffer;
use super::message::{self, Answer, Message};
use super::pool_state::PoolState;
use super::profile::OptionalRequest;
use super::work::{Extranonce, Notify};
use crate::chain::target::Target;
use crate::engine::Port;
use crate::job::{RejectReason, Verdict};
use crate::printable::printable;
use crate::source::pool::in_flight::InFlight;
use crate::source::pool::responsiveness::UnansweredShares;

use self::jobs::PoolJob;
use self::learning::LowerDifficulty;
use self::limits::{NoticeLimiter, UnusableMessages};
use self::loss::{TLS_ALERT, is_tls_alert};
use self::resumed::ResumedJobs;
use self::shares::Share;

/// The user agent that the pool is told.
const AGENT: &str = concat!("adit/", env!("CARGO_PKG_VERSION"));
/// How many shares may be in flight; more wait in the engine.
const IN_FLIGHT_MAX: usize = 1_024;
/// How many bytes may wait to be written; beyond that no share and no answer is added.
const OUT_MAX: usize = 256 << 10;

/// The reason where the pool has sent `client.reconnect`.
const RECONNECT: &str = "it asked for a new connection";

/// What a connection came to.
pub(super) struct Outcome {
    pub(super) end: End,
    /// Whether the pool accepted a share, or was mined for a while.
    pub(super) was_useful: bool,
    pub(super) redirect: Redirect,
}

/// How a connection ends.
pub(super) enum End {
    /// It is time to stop.
    Stopped,
    /// The pool rejects the worker, for this reason; trying again does not help.
    Rejected(String),
    /// It is lost, for this reason; the pool may be tried again.
    Lost(String),
    /// It was left because the user wants another one, whatever has ended it in the meantime.
    ReconnectRequested,
}

/// What the pool has asked for in `client.reconnect`.
#[derive(Clone, Copy, Default)]
pub(super) struct Redirect {
    /// Another port of the same host.
    pub(super) port: Option<u16>,
    /// The shortest wait before the next connection.
    pub(super) least_wait: Duration,
}

/// A request other than a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Configure,
    Subscribe { resuming: bool },
    Authorize,
    Extranonce,
    Suggest,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakePhase {
    Configuring,
    Subscribing,
    Authorizing,
    /// It is complete.
    Mining,
    /// The pool or the user has asked for a new connection: only answers are waited for.
    Leaving,
}

/// Who wants a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requester {
    Pool,
    User,
}

pub(super) struct Connection<'a> {
    config: &'a Config,
    port: &'a mut Port,
    pool: &'a mut PoolState,

    /// Bytes received that are no whole line yet.
    lines: LineBuffer,
    /// Bytes to be written.
    out: BytesMut,
    opened: Instant,
    /// When the last bytes came.
    last_bytes: Instant,
    /// When the last readable message came.
    last_message: Instant,
    /// Since when bytes wait to be written and the pool reads none.
    write_blocked: Option<Instant>,

    phase: HandshakePhase,
    /// When the phase is over, if nothing ends it before.
    phase_deadline: Instant,
    next_id: u64,
    /// Requests without an answer: id, which, and when they were sent.
    pending_requests: Vec<(u64, Request, Instant)>,
    /// Requests that were answered by an error or `false`, and when.
    refused_requests: Vec<(Request, Instant)>,
    /// When the login may be tried again.
    reauthorize_at: Instant,
    /// When a difficulty is suggested, if the request before it is not answered sooner.
    suggest_at: Option<Instant>,

    extranonce: Option<Extranonce>,
    /// How often the pool has changed the extranonce.
    extranonce_changes: u32,
    /// The pool's version mask, where rolling was agreed on.
    mask: Option<u32>,
    target: Target,
    /// Whether the pool has set a difficulty.
    target_set: bool,
    /// A job that came before there was an extranonce.
    early_notify: Option<Notify>,
    /// The newest job, not yet published.
    next_job: Option<PoolJob>,
    /// The job that is mined.
    current_job: Option<PoolJob>,
    /// What is known of a difficulty that was lowered while a job is mined.
    lower_difficulty: LowerDifficulty,
    /// Whether the pool knows the jobs of the connection before.
    resumed_jobs: ResumedJobs,

    in_flight: InFlight<Share>,
    unanswered_shares: UnansweredShares,
    /// Shares refused for want of a login since the last accepted one.
    unauthorized_shares: u32,
    /// Whether a share was accepted.
    accepted: bool,

    unusable_messages: UnusableMessages,
    notice_limiter: NoticeLimiter,
    redirect: Redirect,
    /// Who wants a new connection, where this one is being left.
    leaving_for: Requester,
    /// Whether it is time to stop: only answers are waited for.
    stopping: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(config: &'a Config, port: &'a mut Port, pool: &'a mut PoolState) -> Self {
        let now = Instant::now();
        Self {
            config,
            port,
            pool,
            lines: LineBuffer::default(),
            out: BytesMut::new(),
            opened: now,
            last_bytes: now,
            last_message: now,
            write_blocked: None,
            phase: HandshakePhase::Configuring,
            phase_deadline: now,
            next_id: 1,
            pending_requests: Vec::new(),
            refused_requests: Vec::new(),
            reauthorize_at: now,
            suggest_at: None,
            extranonce: None,
            extranonce_changes: 0,
            mask: None,
            target: Target::DIFFICULTY_1,
            target_set: false,
            early_notify: None,
            next_job: None,
            current_job: None,
            lower_difficulty: LowerDifficulty::No,
            resumed_jobs: ResumedJobs::None,
            in_flight: InFlight::default(),
            unanswered_shares: UnansweredShares::new(config.timing.unanswered_shares),
            unauthorized_shares: 0,
            accepted: false,
            unusable_messages: UnusableMessages::new(now),
            notice_limiter: NoticeLimiter::new(now),
            redirect: Redirect::default(),
            leaving_for: Requester::Pool,
            stopping: false,
        }
    }

    /// Mines over `stream` until the connection ends.
    pub(super) async fn run<S>(mut self, stream: S) -> Outcome
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut end = self.exchange(stream).await;
        if let End::Lost(_) = end {
            if self.leaving_for == Requester::User {
                // Requests without an answer are not why it ended.
                end = End::ReconnectRequested;
            } else {
                self.skip_suspects();
            }
        }
        for share in self.in_flight.drain() {
            let why = "the connection was lost before the pool answered";
            self.port.verdict(&share.solution, Verdict::Unknown(RejectReason::new("", why)));
        }
        let lasted =
            self.current_job.is_some() && self.opened.elapsed() > self.config.timing.first_job;
        let responds = self.unanswered_shares.deadline().is_none();
        let was_useful = responds && (self.accepted || lasted);
        Outcome { end, was_useful, redirect: self.redirect }
    }

    /// Receives, sends, submits and waits, until there is a reason to end.
    async fn exchange<S>(&mut self, stream: S) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        self.send_configure();
        loop {
            if let Err(end) = self.process_lines() {
                return end;
            }
            if self.stopping && self.in_flight.is_empty() && self.out.is_empty() {
                return End::Stopped;
            }
            if self.phase == HandshakePhase::Leaving && self.in_flight.is_empty() {
                return End::Lost(RECONNECT.to_owned());
            }
            let listening =
                !self.stopping && self.in_flight.len() < IN_FLIGHT_MAX && self.out.len() < OUT_MAX;
            let due = self.due();
            let reconnect = self.port.reconnect_requested();
            tokio::select! {
                read = reader.read_buf(self.lines.room()) => match read {
                    Ok(0) => return End::Lost(self.closed()),
                    Ok(_) => self.last_bytes = Instant::now(),
                    Err(error) => return End::Lost(self.broken(&error)),
                },
                written = write(&mut writer, &mut self.out), if self.write_blocked.is_some() => match written {
                    Ok(()) => self.write_blocked = (!self.out.is_empty()).then(Instant::now),
                    Err(error) => return End::Lost(self.broken(&error)),
                },
                solution = self.port.solution(), if listening => match solution {
                    Some(solution) => self.take_solution(solution),
                    None => self.stopping = true,
                },
                () = reconnect, if !self.stopping => {
                    self.leaving_for = Requester::User;
                    self.leave();
                }
                () = sleep_until(due.into()) => {
                    if let Err(end) = self.on_timer(Instant::now()) {
                        return end;
                    }
                }
            }
        }
    }

    /// Leaves the pool for a new connection, once the answers on their way have come.
    fn leave(&mut self) {
        if self.phase != HandshakePhase::Leaving {
            self.enter_phase(HandshakePhase::Leaving);
            // What is found from now on could not be sent.
            if !self.pool.profile.may_resume() {
                self.next_job = None;
                self.port.clear_job();
            }
        }
    }

    /// Begins a phase of the handshake, and its timeout.
    fn enter_phase(&mut self, phase: HandshakePhase) {
        let timing = &self.config.timing;
        let timeout = match phase {
            HandshakePhase::Configuring => timing.configure,
            HandshakePhase::Subscribing => self.pool.profile.subscribe_timeout(),
            HandshakePhase::Authorizing => timing.authorize,
            HandshakePhase::Mining => timing.first_job,
            HandshakePhase::Leaving => timing.leave,
        };
        self.phase = phase;
        self.phase_deadline = Instant::now() + timeout;
    }

    /// Sends a request whose answer [`Self::on_answer`] handles.
    fn send_request(&mut self, request: Request, method: &str, params: &str) {
        let id = self.next_request_id();
        self.pending_requests.push((id, request, Instant::now()));
        tracing::trace!(id, method, "request");
        self.send_line(&message::request(id, method, params));
    }

    /// Whether a request has no answer yet.
    fn is_pending(&self, request: Request) -> bool {
        self.pending_requests.iter().any(|(_, pending, _)| *pending == request)
    }

    fn next_request_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn send_line(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.write_blocked.get_or_insert_with(Instant::now);
    }

    /// Answers a request of the pool's, unless it sends requests and does not read the answers.
    fn send_answer(&mut self, line: &str) {
        if self.out.len() < OUT_MAX {
            self.send_line(line);
        }
    }

    /// Handles every line that has come. Of several jobs only the newest is published.
    fn process_lines(&mut self) -> Result<(), End> {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => self.on_line(&line)?,
                Ok(None) => break,
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        if let Some(job) = self.next_job.take()
            && self.phase != HandshakePhase::Leaving
        {
            self.publish(job);
        }
        Ok(())
    }

    fn on_line(&mut self, line: &[u8]) -> Result<(), End> {
        tracing::trace!(line = %printable(&String::from_utf8_lossy(line), 1_000), "pool");
        let message = match message::read(line) {
            Ok(message) => message,
            Err(error) => {
                let text = String::from_utf8_lossy(line);
                // An alert may have a byte that ends a line.
                if is_tls_alert(line) {
                    return Err(End::Lost(TLS_ALERT.to_owned()));
                }
                if text.starts_with("HTTP/") {
                    return Err(End::Lost("it answers in HTTP, not in Stratum".to_owned()));
                }
                return self.on_unusable(&format!("a line {:?}: {error}", printable(&text, 60)));
            }
        };
        self.last_message = self.last_bytes;
        match message {
            Message::Call { method, params, id } => self.on_call(&method, &params, id),
            Message::Answer(answer) => self.on_answer(&answer),
        }
    }

    /// Reports something unusable that the pool sent, and leaves the pool when that happens too often.
    fn on_unusable(&mut self, what: &str) -> Result<(), End> {
        if self.unusable_messages.count(self.last_bytes) {
            return Err(End::Lost(format!("too many unusable messages, the last: {what}")));
        }
        self.notice(format!("the pool sent {what}"));
        Ok(())
    }

    fn on_answer(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let Some(id) = answer.id else {
            tracing::debug!("an answer without the id of a request");
            return Ok(());
        };
        if let Some(share) = self.in_flight.answered(id) {
            self.unusable_messages.reset();
            self.shares_answered();
            return self.on_verdict(id, &share, answer);
        }
        let Some(at) = self.pending_requests.iter().position(|(pending, ..)| *pending == id) else {
            tracing::debug!(id, "an answer to no request that waits for one");
            if self.unanswered_shares.may_answer_late(id, self.next_id) {
                self.shares_answered();
            }
            return Ok(());
        };
        let (_, request, _) = self.pending_requests.swap_remove(at);
        self.unusable_messages.reset();
        if answer.error.is_some() || answer.result.is_none_or(|result| result.get() == "false") {
            self.refused_requests.push((request, self.last_bytes));
        }
        match request {
            Request::Configure => {
                self.on_configured(answer);
                Ok(())
            }
            Request::Subscribe { resuming } => self.on_subscribed(answer, resuming),
            Request::Authorize => self.on_authorized(answer),
            Request::Extranonce | Request::Suggest => {
                if let Some(error) = &answer.error {
                    tracing::debug!(?request, error = %error.words, "the pool refuses this request");
                }
                if request == Request::Extranonce {
                    self.suggest_difficulty_again();
                }
                Ok(())
            }
        }
    }

    /// When [`Self::on_timer`] has something to do, if nothing happens before.
    fn due(&self) -> Instant {
        let timing = &self.config.timing;
        let mut due = self.last_message + timing.silence;
        if !(self.phase == HandshakePhase::Mining && self.current_job.is_some()) {
            due = due.min(self.phase_deadline);
        }
        if let Some(sent) = self.in_flight.oldest() {
            due = due.min(sent + timing.answer);
        }
        if let Some(deadline) = self.unanswered_shares.deadline() {
            due = due.min(deadline);
        }
        if let Some(suggest_at) = self.suggest_at {
            due = due.min(suggest_at);
        }
        if let Some(probe_at) = self.probe_lower_at() {
            due = due.min(probe_at);
        }
        if let Some(since) = self.write_blocked {
            due = due.min(since + timing.write);
        }
        if self.is_limited() {
            due = due.min(self.pool.share_limiter.due());
        }
        due
    }

    /// Acts on the timeouts that are over at `now`.
    fn on_timer(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.config.timing;
        if now >= self.last_message + timing.silence {
            let seconds = timing.silence.as_secs();
            return Err(End::Lost(format!("it has said nothing for {seconds} s")));
        }
        if self.write_blocked.is_some_and(|since| now >= since + timing.write) {
            return Err(End::Lost("it does not read what is sent".to_owned()));
        }
        self.expire(now)?;
        if now >= self.phase_deadline {
            match self.phase {
                HandshakePhase::Configuring => {
                    self.pool.profile.skip(OptionalRequest::Configure);
                    self.subscribe();
                }
                HandshakePhase::Subscribing => {
                    self.pool.profile.subscribe_timed_out();
                    let what = "it does not answer mining.subscribe".to_owned();
                    return Err(End::Lost(self.or_tls(what)));
                }
                HandshakePhase::Authorizing => self.start_mining(),
                HandshakePhase::Mining if self.current_job.is_none() => {
                    return Err(End::Lost("it sends no job".to_owned()));
                }
                HandshakePhase::Mining => {}
                HandshakePhase::Leaving => {
                    return Err(End::Lost(RECONNECT.to_owned()));
                }
            }
        }
        if self.suggest_at.is_some_and(|at| now >= at) {
            self.suggest_difficulty_again();
        }
        self.probe_lower(now);
        let (is_limited, behind) = (self.is_limited(), self.is_behind());
        if is_limited && self.pool.share_limiter.tick(now, is_limited, behind) {
            self.republish_at_limit();
        }
        Ok(())
    }

    /// Shows the user a notice that the pool has caused, unless there are too many.
    fn notice(&mut self, text: String) {
        if self.notice_limiter.allows(&text) {
            self.port.notice(text);
        } else {
            tracing::debug!("{text}");
        }
    }
}

/// Writes some of `out`, and flushes when nothing is left of it.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, out: &mut BytesMut) -> io::Result<()> {
    if !out.is_empty() && writer.write_buf(out).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    if out.is_empty() { writer.flush().await } else { Ok(()) }
}
