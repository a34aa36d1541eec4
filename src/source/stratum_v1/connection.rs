//! One connection, from the first word to its end.
//!
//! Here are the lines that come and go, the clock, and the end. What is said before there are jobs is
//! in [`handshake`], what the pool says unasked in [`notifications`]; [`jobs`] go to the engine, and
//! [`shares`] come from it.

mod handshake;
mod jobs;
mod learning;
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

use super::client::{Client, OptionalRequest, Resumption, SilentCloses};
use super::line::LineBuffer;
use super::message::{self, Answer, Message};
use super::work::{Extranonce, Notify};
use crate::chain::target::Target;
use crate::job::{Refusal, Verdict};
use crate::printable::printable;
use crate::source::SourceError;
use crate::source::pool::in_flight::InFlight;
use crate::source::pool::responsiveness::UnansweredShares;

use self::jobs::PoolJob;
use self::learning::LowerDifficulty;
use self::resumed::ResumedJobs;
use self::shares::Share;

/// What we call ourselves.
const AGENT: &str = concat!("adit/", env!("CARGO_PKG_VERSION"));
/// How many shares may be without an answer; more wait in the engine.
const IN_FLIGHT_MAX: usize = 1_024;
/// How many bytes may wait to be sent; from here on nothing is added.
const OUT_MAX: usize = 256 << 10;
/// How many lines of no use a pool may send in this time with none of use in between: a job, or an
/// answer to what was asked.
const UNUSABLE_LINES: (u32, Duration) = (16, Duration::from_secs(60));
/// How long after a request that a pool need not know its loss is put down to that.
const SUSPECT_FOR: Duration = Duration::from_secs(10);
/// How many words of the pool's are shown at once, and how often one more.
const NOTICES: (u32, Duration) = (20, Duration::from_secs(10));

/// Why a connection without TLS ends that is answered by an alert.
const TLS_ALERT: &str = "it answers in TLS: write stratum+tls:// to it";

/// How a connection ends.
pub(super) enum End {
    /// It is time to go.
    Stopped,
    /// The pool will not have us.
    Final(SourceError),
    /// It is gone; the pool may be tried again.
    Lost(String),
}

/// A request of ours, but for shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Configure,
    Subscribe { resuming: bool },
    Authorize,
    Extranonce,
    Suggest,
}

/// How far we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakePhase {
    Configuring,
    Subscribing,
    Authorizing,
    Mining,
    /// The pool wants us to connect anew: only answers are waited for.
    Leaving,
}

pub(super) struct Connection<'a> {
    client: &'a mut Client,
    lines: LineBuffer,
    /// Bytes to be sent.
    out: BytesMut,
    pending_requests: Vec<(u64, Request, Instant)>,
    /// Requests that were answered by an error or a no, and when.
    refused_requests: Vec<(Request, Instant)>,
    in_flight: InFlight<Share>,
    unanswered_shares: UnansweredShares,
    /// Whether jobs of the connection before are worth something.
    resumed_jobs: ResumedJobs,
    /// A difficulty that was lowered while a job is mined.
    lower_difficulty: LowerDifficulty,
    /// How often the pool has changed the extranonce.
    extranonce_changes: u32,
    next_id: u64,
    phase: HandshakePhase,
    /// When the stage is over, if nothing ends it before.
    phase_deadline: Instant,
    extranonce: Option<Extranonce>,
    /// The pool's version mask, where rolling was agreed on.
    mask: Option<u32>,
    target: Target,
    /// Whether the pool has named a difficulty.
    target_set: bool,
    /// A job that came before there was an extranonce.
    early_notify: Option<Notify>,
    /// The newest job, not yet published.
    next_job: Option<PoolJob>,
    /// The job that is mined.
    current_job: Option<PoolJob>,
    opened: Instant,
    /// When the last bytes came.
    last_bytes: Instant,
    /// When the pool last said something that we could read.
    last_message: Instant,
    /// Since when bytes wait that the pool does not take.
    write_blocked: Option<Instant>,
    /// Lines of no use since the last that was of use, and since when they are counted.
    unusable_lines: (u32, Instant),
    unauthorized_shares: u32,
    reauthorize_at: Instant,
    /// When a difficulty is suggested, if the request before it is not answered sooner.
    suggest_at: Option<Instant>,
    accepted: bool,
    stopping: bool,
    notices: (u32, Instant),
    last_notice: String,
}

impl<'a> Connection<'a> {
    pub(super) fn new(client: &'a mut Client) -> Self {
        let now = Instant::now();
        Self {
            lines: LineBuffer::default(),
            out: BytesMut::new(),
            pending_requests: Vec::new(),
            refused_requests: Vec::new(),
            in_flight: InFlight::default(),
            unanswered_shares: UnansweredShares::new(client.config.timing.unanswered_shares),
            resumed_jobs: ResumedJobs::None,
            lower_difficulty: LowerDifficulty::No,
            extranonce_changes: 0,
            next_id: 1,
            phase: HandshakePhase::Configuring,
            phase_deadline: now,
            extranonce: None,
            mask: None,
            target: Target::DIFFICULTY_1,
            target_set: false,
            early_notify: None,
            next_job: None,
            current_job: None,
            opened: now,
            last_bytes: now,
            last_message: now,
            write_blocked: None,
            unusable_lines: (0, now),
            unauthorized_shares: 0,
            reauthorize_at: now,
            suggest_at: None,
            accepted: false,
            stopping: false,
            notices: (NOTICES.0, now),
            last_notice: String::new(),
            client,
        }
    }

    /// Talks until there is nothing more to say. The second value says whether it was worth it.
    pub(super) async fn run<S>(mut self, stream: S) -> (End, bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let end = self.exchange(stream).await;
        if let End::Lost(_) = end {
            self.skip_suspects();
        }
        for share in self.in_flight.drain() {
            let why = "the connection was lost before the pool answered";
            self.client.port.verdict(&share.solution, Verdict::Unknown(Refusal::new("", why)));
        }
        let lasted = self.current_job.is_some()
            && self.opened.elapsed() > self.client.config.timing.first_job;
        (end, self.unanswered_shares.deadline().is_none() && (self.accepted || lasted))
    }

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
                return End::Lost("it asked us to connect anew".to_owned());
            }
            let listening =
                !self.stopping && self.in_flight.len() < IN_FLIGHT_MAX && self.out.len() < OUT_MAX;
            let due = self.due();
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
                solution = self.client.port.solution(), if listening => match solution {
                    Some(solution) => self.take_solution(solution),
                    None => self.stopping = true,
                },
                () = sleep_until(due.into()) => {
                    if let Err(end) = self.on_time(Instant::now()) {
                        return end;
                    }
                }
            }
        }
    }

    fn enter_phase(&mut self, phase: HandshakePhase) {
        let timing = &self.client.config.timing;
        let patience = match phase {
            HandshakePhase::Configuring => timing.configure,
            HandshakePhase::Subscribing => self.client.subscribe_timeout(),
            HandshakePhase::Authorizing => timing.authorize,
            HandshakePhase::Mining => timing.first_job,
            HandshakePhase::Leaving => timing.leave,
        };
        self.phase = phase;
        self.phase_deadline = Instant::now() + patience;
    }

    fn send_request(&mut self, ask: Request, method: &str, params: &str) {
        let id = self.next_request_id();
        self.pending_requests.push((id, ask, Instant::now()));
        tracing::trace!(id, method, "asking");
        self.send_line(&message::request(id, method, params));
    }

    /// Whether a request has no answer yet.
    fn is_pending(&self, what: Request) -> bool {
        self.pending_requests.iter().any(|(_, ask, _)| *ask == what)
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

    /// Answers a question of the pool's, unless it asks more than it listens.
    fn send_answer(&mut self, line: &str) {
        if self.out.len() < OUT_MAX {
            self.send_line(line);
        }
    }

    /// Reads every line that has come. Of several jobs only the newest is begun.
    fn process_lines(&mut self) -> Result<(), End> {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => self.on_line(&line)?,
                Ok(None) => break,
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        if let Some(fresh) = self.next_job.take()
            && self.phase != HandshakePhase::Leaving
        {
            self.publish(fresh);
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

    /// Says that something of the pool's is of no use, and leaves it when that happens too often.
    fn on_unusable(&mut self, what: &str) -> Result<(), End> {
        let (most, time) = UNUSABLE_LINES;
        let (count, since) = &mut self.unusable_lines;
        if *count == 0 || self.last_bytes.duration_since(*since) > time {
            (*count, *since) = (0, self.last_bytes);
        }
        *count += 1;
        if *count == most {
            return Err(End::Lost(format!(
                "too much of what it sends is of no use, at last {what}"
            )));
        }
        self.notice(format!("the pool sent {what}"));
        Ok(())
    }

    fn on_answer(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let Some(id) = answer.id else {
            tracing::debug!("the pool answers nothing that we asked");
            return Ok(());
        };
        if let Some(share) = self.in_flight.answered(id) {
            self.unusable_lines.0 = 0;
            self.shares_answered();
            return self.on_verdict(id, &share, answer);
        }
        let Some(at) = self.pending_requests.iter().position(|(asked, ..)| *asked == id) else {
            tracing::debug!(id, "the pool answers what is not asked, or no more");
            if self.unanswered_shares.may_answer_late(id, self.next_id) {
                self.shares_answered();
            }
            return Ok(());
        };
        let (_, ask, _) = self.pending_requests.swap_remove(at);
        self.unusable_lines.0 = 0;
        if answer.error.is_some() || answer.result.is_none_or(|result| result.get() == "false") {
            self.refused_requests.push((ask, self.last_bytes));
        }
        match ask {
            Request::Configure => {
                self.on_configured(answer);
                Ok(())
            }
            Request::Subscribe { resuming } => self.on_subscribed(answer, resuming),
            Request::Authorize => self.on_authorized(answer),
            Request::Extranonce | Request::Suggest => {
                if let Some(error) = &answer.error {
                    tracing::debug!(?ask, error = %error.words, "the pool does not know this");
                }
                if ask == Request::Extranonce {
                    self.suggest_difficulty_again();
                }
                Ok(())
            }
        }
    }

    /// When there is something to be done even if nothing happens.
    fn due(&self) -> Instant {
        let timing = &self.client.config.timing;
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
        if let Some(tries_at) = self.probe_lower_at() {
            due = due.min(tries_at);
        }
        if let Some(stuck) = self.write_blocked {
            due = due.min(stuck + timing.write);
        }
        if self.is_limited() {
            due = due.min(self.client.share_limiter.due());
        }
        due
    }

    fn on_time(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.client.config.timing;
        if now >= self.last_message + timing.silence {
            let seconds = timing.silence.as_secs();
            return Err(End::Lost(format!("it has said nothing for {seconds} s")));
        }
        if self.write_blocked.is_some_and(|stuck| now >= stuck + timing.write) {
            return Err(End::Lost("it does not take what we send".to_owned()));
        }
        self.expire(now)?;
        if now >= self.phase_deadline {
            match self.phase {
                HandshakePhase::Configuring => {
                    self.client.skip(OptionalRequest::Configure);
                    self.subscribe();
                }
                HandshakePhase::Subscribing => {
                    self.client.subscribe_timed_out();
                    let what = "it does not answer mining.subscribe".to_owned();
                    return Err(End::Lost(self.maybe_tls(what)));
                }
                HandshakePhase::Authorizing => self.start_mining(),
                HandshakePhase::Mining if self.current_job.is_none() => {
                    return Err(End::Lost("it sends no job".to_owned()));
                }
                HandshakePhase::Mining => {}
                HandshakePhase::Leaving => {
                    return Err(End::Lost("it asked us to connect anew".to_owned()));
                }
            }
        }
        if self.suggest_at.is_some_and(|at| now >= at) {
            self.suggest_difficulty_again();
        }
        self.probe_lower(now);
        let (is_limited, behind) = (self.is_limited(), self.is_behind());
        if is_limited && self.client.share_limiter.tick(now, is_limited, behind) {
            self.republish_at_limit();
        }
        Ok(())
    }

    /// In whose middle the pool has closed the connection.
    fn closed(&self) -> String {
        let what = match self.phase {
            HandshakePhase::Configuring => "it closed the connection at mining.configure",
            HandshakePhase::Subscribing => "it closed the connection at mining.subscribe",
            HandshakePhase::Authorizing => "it closed the connection at mining.authorize",
            HandshakePhase::Mining if !self.lines.rest().is_empty() => {
                "it closed the connection in the middle of a line"
            }
            HandshakePhase::Mining | HandshakePhase::Leaving => "it closed the connection",
        };
        self.maybe_tls(what.to_owned())
    }

    /// Why the connection broke.
    fn broken(&self, error: &io::Error) -> String {
        self.maybe_tls(format!("the connection was lost: {error}"))
    }

    /// The same, or what is the reason: a server that expects TLS answers a client that does not speak
    /// it with an alert, closes the connection without a byte, or says nothing.
    fn maybe_tls(&self, what: String) -> String {
        if is_tls_alert(self.lines.rest()) {
            TLS_ALERT.to_owned()
        } else if !self.client.config.transport.uses_tls() && self.last_bytes == self.opened {
            what + "; it has sent nothing at all: if this is a TLS port, write stratum+tls:// to it"
        } else {
            what
        }
    }

    /// Some pools close the connection on what they do not know, others refuse it first and then close
    /// it, or say nothing more. What had no answer when the connection was lost soon after it was asked,
    /// and what was refused shortly before the pool's last word, is left out the next time. But a proxy
    /// whose server is away closes it at the first words too, whatever they are.
    fn skip_suspects(&mut self) {
        if self.last_bytes > self.opened {
            self.client.silent_closes = SilentCloses::default();
        } else {
            let without =
                self.pending_requests.iter().all(|(_, ask, _)| *ask != Request::Configure);
            if without {
                self.client.restore(OptionalRequest::Configure);
            }
            if !self.client.silent_closes.record(without) {
                self.pending_requests
                    .retain(|(_, ask, _)| *ask == Request::Subscribe { resuming: true });
            }
        }
        let unanswered =
            std::mem::take(&mut self.pending_requests).into_iter().filter(|(_, ask, at)| {
                *ask == Request::Subscribe { resuming: true } || at.elapsed() <= SUSPECT_FOR
            });
        let last_word = self.last_bytes;
        let refused = std::mem::take(&mut self.refused_requests);
        let refused = refused.into_iter().filter(|(_, at)| last_word <= *at + SUSPECT_FOR);
        for ask in unanswered.map(|(_, ask, _)| ask).chain(refused.map(|(ask, _)| ask)) {
            match ask {
                Request::Configure => self.client.skip(OptionalRequest::Configure),
                Request::Extranonce => self.client.skip(OptionalRequest::Extranonce),
                Request::Suggest => self.client.skip(OptionalRequest::Suggest),
                Request::Subscribe { resuming: true } => {
                    self.client.resumption = Resumption::Never;
                }
                Request::Subscribe { resuming: false } | Request::Authorize => {}
            }
        }
    }

    /// Tells a person, unless the pool makes too many words.
    fn notice(&mut self, text: String) {
        let (left, since) = &mut self.notices;
        let more = since.elapsed().as_secs() / NOTICES.1.as_secs();
        if more > 0 {
            *left = NOTICES.0.min(*left + u32::try_from(more).unwrap_or(u32::MAX));
            *since = Instant::now();
        }
        if text == self.last_notice || *left == 0 {
            tracing::debug!("{text}");
            return;
        }
        *left -= 1;
        self.client.port.notice(text.clone());
        self.last_notice = text;
    }
}

/// Sends some of what waits, and makes sure that it goes out when it was the last.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, out: &mut BytesMut) -> io::Result<()> {
    if !out.is_empty() && writer.write_buf(out).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    if out.is_empty() { writer.flush().await } else { Ok(()) }
}

/// Whether this is the beginning of a TLS alert (RFC 8446, section 5.1: content type 21, version 3.x).
fn is_tls_alert(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x15, 0x03])
}
