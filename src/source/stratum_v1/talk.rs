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

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep_until;

use super::line::LineBuffer;
use super::message::{self, Answer, Message};
use super::session::{Optional, Resumption, Session, Silence};
use super::work::{Extranonce, Notify};
use crate::chain::target::Target;
use crate::job::{Refusal, Verdict};
use crate::printable::printable;
use crate::source::SourceError;

use self::jobs::Upcoming;
use self::learning::Lowered;
use self::resumed::ResumedJobs;
use self::shares::{Sent, Unheeded};

/// What we call ourselves.
const AGENT: &str = concat!("adit/", env!("CARGO_PKG_VERSION"));
/// How many shares may be without an answer; more wait in the engine.
const UNANSWERED: usize = 1_024;
/// How many bytes may wait to be sent; from here on nothing is added.
const OUT_MAX: usize = 256 << 10;
/// How many lines of no use a pool may send in this time with none of use in between: a job, or an
/// answer to what was asked.
const UNREADABLE: (u32, Duration) = (16, Duration::from_secs(60));
/// How long after a request that a pool need not know its loss is put down to that.
const BLAME: Duration = Duration::from_secs(10);
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
enum Ask {
    Configure,
    Subscribe { resuming: bool },
    Authorize,
    Extranonce,
    Suggest,
}

/// How far we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Configuring,
    Subscribing,
    Authorizing,
    Mining,
    /// The pool wants us to connect anew: only answers are waited for.
    Leaving,
}

pub(super) struct Talk<'a> {
    session: &'a mut Session,
    lines: LineBuffer,
    /// Bytes to be sent.
    out: BytesMut,
    asked: Vec<(u64, Ask, Instant)>,
    /// Requests that were answered by an error or a no, and when.
    refused_asks: Vec<(Ask, Instant)>,
    sent: BTreeMap<u64, Sent>,
    unheeded: Option<Unheeded>,
    /// Whether jobs of the connection before are worth something.
    resumed_jobs: ResumedJobs,
    /// A difficulty that was lowered while a job is mined.
    lowered: Lowered,
    /// How often the pool has changed the extranonce.
    extranonce_changes: u32,
    next_id: u64,
    stage: Stage,
    /// When the stage is over, if nothing ends it before.
    stage_until: Instant,
    extranonce: Option<Extranonce>,
    /// The pool's version mask, where rolling was agreed on.
    mask: Option<u32>,
    target: Target,
    /// Whether the pool has named a difficulty.
    target_said: bool,
    /// A job that came before there was an extranonce.
    early: Option<Notify>,
    /// The newest job, not yet published.
    fresh: Option<Upcoming>,
    /// The job that is mined.
    current: Option<Upcoming>,
    begun: Instant,
    /// When the last bytes came.
    received: Instant,
    /// When the pool last said something that we could read.
    heard: Instant,
    /// Since when bytes wait that the pool does not take.
    stuck: Option<Instant>,
    /// Lines of no use since the last that was of use, and since when they are counted.
    unreadable: (u32, Instant),
    strangers: u32,
    login_again: Instant,
    /// When a difficulty is suggested, if the request before it is not answered sooner.
    suggest_at: Option<Instant>,
    accepted: bool,
    stopping: bool,
    notices: (u32, Instant),
    said: String,
}

impl<'a> Talk<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        let now = Instant::now();
        Self {
            session,
            lines: LineBuffer::default(),
            out: BytesMut::new(),
            asked: Vec::new(),
            refused_asks: Vec::new(),
            sent: BTreeMap::new(),
            unheeded: None,
            resumed_jobs: ResumedJobs::None,
            lowered: Lowered::No,
            extranonce_changes: 0,
            next_id: 1,
            stage: Stage::Configuring,
            stage_until: now,
            extranonce: None,
            mask: None,
            target: Target::DIFFICULTY_1,
            target_said: false,
            early: None,
            fresh: None,
            current: None,
            begun: now,
            received: now,
            heard: now,
            stuck: None,
            unreadable: (0, now),
            strangers: 0,
            login_again: now,
            suggest_at: None,
            accepted: false,
            stopping: false,
            notices: (NOTICES.0, now),
            said: String::new(),
        }
    }

    /// Talks until there is nothing more to say. The second value says whether it was worth it.
    pub(super) async fn run<S>(mut self, stream: S) -> (End, bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let end = self.talk(stream).await;
        if let End::Lost(_) = end {
            self.blame();
        }
        for (_, sent) in std::mem::take(&mut self.sent) {
            let why = "the connection was lost before the pool answered";
            self.session.port.verdict(&sent.solution, Verdict::Unknown(Refusal::new("", why)));
        }
        let lasted =
            self.current.is_some() && self.begun.elapsed() > self.session.config.timing.first_job;
        (end, self.deaf_at().is_none() && (self.accepted || lasted))
    }

    async fn talk<S>(&mut self, stream: S) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        self.greet();
        loop {
            if let Err(end) = self.take_lines() {
                return end;
            }
            if self.stopping && self.sent.is_empty() && self.out.is_empty() {
                return End::Stopped;
            }
            if self.stage == Stage::Leaving && self.sent.is_empty() {
                return End::Lost("it asked us to connect anew".to_owned());
            }
            let listening =
                !self.stopping && self.sent.len() < UNANSWERED && self.out.len() < OUT_MAX;
            let due = self.due();
            tokio::select! {
                read = reader.read_buf(self.lines.room()) => match read {
                    Ok(0) => return End::Lost(self.closed()),
                    Ok(_) => self.received = Instant::now(),
                    Err(error) => return End::Lost(self.broken(&error)),
                },
                written = write(&mut writer, &mut self.out), if self.stuck.is_some() => match written {
                    Ok(()) => self.stuck = (!self.out.is_empty()).then(Instant::now),
                    Err(error) => return End::Lost(self.broken(&error)),
                },
                solution = self.session.port.solution(), if listening => match solution {
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

    fn enter(&mut self, stage: Stage) {
        let timing = &self.session.config.timing;
        let patience = match stage {
            Stage::Configuring => timing.configure,
            Stage::Subscribing => self.session.subscribe_patience(),
            Stage::Authorizing => timing.authorize,
            Stage::Mining => timing.first_job,
            Stage::Leaving => timing.leave,
        };
        self.stage = stage;
        self.stage_until = Instant::now() + patience;
    }

    fn ask(&mut self, ask: Ask, method: &str, params: &str) {
        let id = self.number();
        self.asked.push((id, ask, Instant::now()));
        tracing::trace!(id, method, "asking");
        self.say(&message::request(id, method, params));
    }

    /// Whether a request has no answer yet.
    fn awaits(&self, what: Ask) -> bool {
        self.asked.iter().any(|(_, ask, _)| *ask == what)
    }

    fn number(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.stuck.get_or_insert_with(Instant::now);
    }

    /// Answers a question of the pool's, unless it asks more than it listens.
    fn answer(&mut self, line: &str) {
        if self.out.len() < OUT_MAX {
            self.say(line);
        }
    }

    /// Reads every line that has come. Of several jobs only the newest is begun.
    fn take_lines(&mut self) -> Result<(), End> {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => self.on_line(&line)?,
                Ok(None) => break,
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        if let Some(fresh) = self.fresh.take()
            && self.stage != Stage::Leaving
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
                return self.cannot_read(&format!("a line {:?}: {error}", printable(&text, 60)));
            }
        };
        self.heard = self.received;
        match message {
            Message::Call { method, params, id } => self.on_call(&method, &params, id),
            Message::Answer(answer) => self.on_answer(&answer),
        }
    }

    /// Says that something of the pool's is of no use, and leaves it when that happens too often.
    fn cannot_read(&mut self, what: &str) -> Result<(), End> {
        let (most, time) = UNREADABLE;
        let (count, since) = &mut self.unreadable;
        if *count == 0 || self.received.duration_since(*since) > time {
            (*count, *since) = (0, self.received);
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
        if let Some(sent) = self.sent.remove(&id) {
            self.unreadable.0 = 0;
            self.shares_answered();
            return self.on_verdict(id, &sent, answer);
        }
        let Some(at) = self.asked.iter().position(|(asked, ..)| *asked == id) else {
            tracing::debug!(id, "the pool answers what is not asked, or no more");
            let is_late = |unheeded: &Unheeded| (unheeded.first..self.next_id).contains(&id);
            if self.unheeded.as_ref().is_some_and(is_late) {
                self.shares_answered();
            }
            return Ok(());
        };
        let (_, ask, _) = self.asked.swap_remove(at);
        self.unreadable.0 = 0;
        if answer.error.is_some() || answer.result.is_none_or(|result| result.get() == "false") {
            self.refused_asks.push((ask, self.received));
        }
        match ask {
            Ask::Configure => {
                self.on_configured(answer);
                Ok(())
            }
            Ask::Subscribe { resuming } => self.on_subscribed(answer, resuming),
            Ask::Authorize => self.on_authorized(answer),
            Ask::Extranonce | Ask::Suggest => {
                if let Some(error) = &answer.error {
                    tracing::debug!(?ask, error = %error.words, "the pool does not know this");
                }
                if ask == Ask::Extranonce {
                    self.suggest();
                }
                Ok(())
            }
        }
    }

    /// When there is something to be done even if nothing happens.
    fn due(&self) -> Instant {
        let timing = &self.session.config.timing;
        let mut due = self.heard + timing.silence;
        if !(self.stage == Stage::Mining && self.current.is_some()) {
            due = due.min(self.stage_until);
        }
        if let Some((_, sent)) = self.sent.first_key_value() {
            due = due.min(sent.at + timing.answer);
        }
        if let Some(deaf_at) = self.deaf_at() {
            due = due.min(deaf_at);
        }
        if let Some(suggest_at) = self.suggest_at {
            due = due.min(suggest_at);
        }
        if let Some(tries_at) = self.tries_lower_at() {
            due = due.min(tries_at);
        }
        if let Some(stuck) = self.stuck {
            due = due.min(stuck + timing.write);
        }
        if self.paces() {
            due = due.min(self.session.pace.due());
        }
        due
    }

    fn on_time(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.session.config.timing;
        if now >= self.heard + timing.silence {
            let seconds = timing.silence.as_secs();
            return Err(End::Lost(format!("it has said nothing for {seconds} s")));
        }
        if self.stuck.is_some_and(|stuck| now >= stuck + timing.write) {
            return Err(End::Lost("it does not take what we send".to_owned()));
        }
        self.expire(now)?;
        if now >= self.stage_until {
            match self.stage {
                Stage::Configuring => {
                    self.session.leave_out(Optional::Configure);
                    self.subscribe();
                }
                Stage::Subscribing => {
                    self.session.subscribes_slowly();
                    let what = "it does not answer mining.subscribe".to_owned();
                    return Err(End::Lost(self.maybe_tls(what)));
                }
                Stage::Authorizing => self.begin_mining(),
                Stage::Mining if self.current.is_none() => {
                    return Err(End::Lost("it sends no job".to_owned()));
                }
                Stage::Mining => {}
                Stage::Leaving => return Err(End::Lost("it asked us to connect anew".to_owned())),
            }
        }
        if self.suggest_at.is_some_and(|at| now >= at) {
            self.suggest();
        }
        self.try_lower(now);
        let (binds, behind) = (self.paces(), self.is_behind());
        if binds && self.session.pace.tick(now, binds, behind) {
            self.repaced();
        }
        Ok(())
    }

    /// In whose middle the pool has closed the connection.
    fn closed(&self) -> String {
        let what = match self.stage {
            Stage::Configuring => "it closed the connection at mining.configure",
            Stage::Subscribing => "it closed the connection at mining.subscribe",
            Stage::Authorizing => "it closed the connection at mining.authorize",
            Stage::Mining if !self.lines.rest().is_empty() => {
                "it closed the connection in the middle of a line"
            }
            Stage::Mining | Stage::Leaving => "it closed the connection",
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
        } else if !self.session.config.endpoint.tls && self.received == self.begun {
            what + "; it has sent nothing at all: if this is a TLS port, write stratum+tls:// to it"
        } else {
            what
        }
    }

    /// Some pools close the connection on what they do not know, others refuse it first and then close
    /// it, or say nothing more. What had no answer when the connection was lost soon after it was asked,
    /// and what was refused shortly before the pool's last word, is left out the next time. But a proxy
    /// whose server is away closes it at the first words too, whatever they are.
    fn blame(&mut self) {
        if self.received > self.begun {
            self.session.silence = Silence::default();
        } else {
            let without = self.asked.iter().all(|(_, ask, _)| *ask != Ask::Configure);
            if without {
                self.session.take_back_in(Optional::Configure);
            }
            if !self.session.silence.blames(without) {
                self.asked.retain(|(_, ask, _)| *ask == Ask::Subscribe { resuming: true });
            }
        }
        let unanswered = std::mem::take(&mut self.asked).into_iter().filter(|(_, ask, at)| {
            *ask == Ask::Subscribe { resuming: true } || at.elapsed() <= BLAME
        });
        let last_word = self.received;
        let refused = std::mem::take(&mut self.refused_asks);
        let refused = refused.into_iter().filter(|(_, at)| last_word <= *at + BLAME);
        for ask in unanswered.map(|(_, ask, _)| ask).chain(refused.map(|(ask, _)| ask)) {
            match ask {
                Ask::Configure => self.session.leave_out(Optional::Configure),
                Ask::Extranonce => self.session.leave_out(Optional::Extranonce),
                Ask::Suggest => self.session.leave_out(Optional::Suggest),
                Ask::Subscribe { resuming: true } => {
                    self.session.resumption = Resumption::Never;
                }
                Ask::Subscribe { resuming: false } | Ask::Authorize => {}
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
        if text == self.said || *left == 0 {
            tracing::debug!("{text}");
            return;
        }
        *left -= 1;
        self.session.port.notice(text.clone());
        self.said = text;
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
