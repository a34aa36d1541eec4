//! One connection, from the first word to its end.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::sleep_until;

use super::line::LineBuffer;
use super::message::{self, Answer, Message, Params, Submit, quoted};
use super::session::{Optional, Resume, Resumption, Session, Silence, Trust};
use super::verdict::{self, Kind};
use super::work::{self, Extranonce, Notify};
use super::{difficulty, message::WORDS_MAX};
use crate::chain::target::Target;
use crate::job::{Coinbase, Job, MerkleRoot, Refusal, Solution, TimeRange, Verdict, VersionMask};
use crate::printable::printable;
use crate::source::{Refused, SourceError};

/// What we call ourselves.
const AGENT: &str = concat!("adit/", env!("CARGO_PKG_VERSION"));
/// How many shares may be without an answer; more wait in the engine.
const UNANSWERED: usize = 1_024;
/// From here on the pool is behind with its answers.
const BEHIND: usize = 512;
/// How many bytes may wait to be sent; from here on nothing is added.
const OUT_MAX: usize = 256 << 10;
/// How many unreadable lines a pool may send.
const UNREADABLE: u32 = 16;
/// How far nTime is rolled beyond a job's own, with the clock. It is only rolled when all else is
/// used up, and pools take some minutes at least.
const NTIME_AHEAD: u32 = 600;
/// How long after a request that a pool need not know its loss is put down to that.
const BLAME: Duration = Duration::from_secs(10);
/// How often a login is tried again when the pool says that it does not know us.
const LOGIN_AGAIN: Duration = Duration::from_secs(60);
/// How many shares may be refused for want of a login before it is the end, if none was accepted.
const STRANGERS: u32 = 3;
/// How long the answer to `mining.extranonce.subscribe` is waited for before the next request.
const ONE_AT_A_TIME: Duration = Duration::from_secs(3);
/// The longest wait before a new connection that a pool may ask for.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(60);
/// How many words of the pool's are shown at once, and how often one more.
const NOTICES: (u32, Duration) = (20, Duration::from_secs(10));

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

/// A job to be published, with what the connection has added.
#[derive(Clone, Debug)]
struct Upcoming {
    notify: Notify,
    extranonce: Extranonce,
    target: Target,
    received: Instant,
}

/// A share without an answer.
struct Sent {
    solution: Solution,
    at: Instant,
}

/// Shares in a row whose answers did not come in time.
struct Unheeded {
    /// The number of the first one's request.
    first: u64,
    /// When that was sent.
    since: Instant,
    count: u32,
}

pub(super) struct Talk<'a> {
    session: &'a mut Session,
    lines: LineBuffer,
    /// Bytes to be sent.
    out: BytesMut,
    asked: Vec<(u64, Ask, Instant)>,
    sent: BTreeMap<u64, Sent>,
    unheeded: Option<Unheeded>,
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
    unreadable: u32,
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
            sent: BTreeMap::new(),
            unheeded: None,
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
            unreadable: 0,
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
                    Err(error) => return End::Lost(lost(&error)),
                },
                written = write(&mut writer, &mut self.out), if self.stuck.is_some() => match written {
                    Ok(()) => self.stuck = (!self.out.is_empty()).then(Instant::now),
                    Err(error) => return End::Lost(lost(&error)),
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

    // What we say.

    /// The first words.
    fn greet(&mut self) {
        if self.session.config.version_rolling && self.session.wants(Optional::Configure) {
            let mask = VersionMask::BIP320.bits();
            let params = format!(
                "[[\"version-rolling\"],{{\"version-rolling.mask\":\"{mask:08x}\",\
                 \"version-rolling.min-bit-count\":2}}]"
            );
            self.ask(Ask::Configure, "mining.configure", &params);
            self.enter(Stage::Configuring);
        } else {
            self.subscribe();
        }
    }

    fn subscribe(&mut self) {
        let (resuming, params) = match &self.session.resumption {
            Resumption::May(resume) => {
                (true, format!("[{},{}]", quoted(AGENT), quoted(&resume.id)))
            }
            Resumption::Unknown | Resumption::Never => (false, format!("[{}]", quoted(AGENT))),
        };
        self.ask(Ask::Subscribe { resuming }, "mining.subscribe", &params);
        self.enter(Stage::Subscribing);
    }

    fn authorize(&mut self) {
        let config = &self.session.config;
        let params = format!("[{},{}]", quoted(&config.user), quoted(config.password.reveal()));
        self.ask(Ask::Authorize, "mining.authorize", &params);
        self.login_again = Instant::now() + LOGIN_AGAIN;
    }

    /// Asks for what is nice to have, and sends what has waited.
    fn begin_mining(&mut self) {
        self.enter(Stage::Mining);
        self.say_whether_versions_roll();
        self.suggest_at = Some(Instant::now() + ONE_AT_A_TIME);
        if self.session.wants(Optional::Extranonce) {
            self.ask(Ask::Extranonce, "mining.extranonce.subscribe", "[]");
        } else {
            self.suggest();
        }
        for solution in self.session.take_held() {
            self.submit(solution);
        }
    }

    /// Asks for a difficulty, once. What had no answer until then is not to blame for what follows.
    fn suggest(&mut self) {
        if self.suggest_at.take().is_none() || self.stage != Stage::Mining {
            return;
        }
        self.asked.retain(|(_, ask, _)| *ask != Ask::Extranonce);
        if let Some(difficulty) = self.session.config.suggest_difficulty.clone()
            && self.session.wants(Optional::Suggest)
        {
            self.ask(Ask::Suggest, "mining.suggest_difficulty", &format!("[{difficulty}]"));
        }
    }

    /// Says that the version is not rolled any more, where it was.
    fn say_whether_versions_roll(&mut self) {
        let session = &mut *self.session;
        if session.config.version_rolling
            && self.mask.is_none()
            && !session.wants(Optional::Configure)
            && std::mem::take(&mut session.rolled)
        {
            let minutes = session.config.timing.grudge.as_secs() / 60;
            self.notice(format!(
                "the pool did not answer mining.configure: no version rolling for up to {minutes} \
                 minutes"
            ));
        }
    }

    fn enter(&mut self, stage: Stage) {
        let timing = &self.session.config.timing;
        let patience = match stage {
            Stage::Configuring => timing.configure,
            Stage::Subscribing => timing.subscribe,
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

    fn take_solution(&mut self, solution: Solution) {
        // Those found before the floor last moved say nothing of the one of now.
        let at_floor = solution.job.share_target <= self.session.pace.floor();
        let (binds, behind) = (self.paces(), self.is_behind());
        if at_floor && self.session.pace.found(Instant::now(), binds, behind) {
            self.repaced();
        }
        match self.stage {
            Stage::Mining => self.submit(solution),
            _ => self.session.hold(solution),
        }
    }

    /// Sends a share, if the pool can still take it.
    fn submit(&mut self, solution: Solution) {
        let job = &solution.job;
        let id = match self.session.table.id(job.key) {
            Ok(id) => id.to_owned(),
            Err(why) => return self.session.too_late(&solution, why),
        };
        // The mask of now holds also for jobs from before it (BIP 310).
        let version = solution.header.version.to_consensus().cast_unsigned();
        if (version ^ job.version) & !self.mask.unwrap_or(0) != 0 {
            let why = "the pool has taken back version bits that it uses; not sent";
            return self.session.too_late(&solution, why);
        }
        let MerkleRoot::Rolled(coinbase) = &job.merkle_root else {
            return self.session.too_late(&solution, "its job has no extranonce; not sent");
        };
        let user = quoted(&self.session.config.user);
        let submit = Submit {
            user: &user,
            job: &id,
            extranonce2: &coinbase.extranonce_bytes(solution.extranonce),
            ntime: solution.header.time,
            nonce: solution.header.nonce,
            version_bits: self.mask.map(|mask| version & mask),
        };
        let number = self.number();
        let line = submit.request(number);
        tracing::debug!(number, hash = %solution.hash, after = ?solution.found.elapsed(), "submitting");
        self.say(&line);
        self.sent.insert(number, Sent { solution, at: Instant::now() });
    }

    // What the pool says.

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
        self.unreadable += 1;
        if self.unreadable == UNREADABLE {
            return Err(End::Lost(format!(
                "too much of what it sends is of no use, at last {what}"
            )));
        }
        self.notice(format!("the pool sent {what}"));
        Ok(())
    }

    fn on_call(
        &mut self,
        method: &str,
        params: &Params<'_>,
        id: Option<&RawValue>,
    ) -> Result<(), End> {
        let id = id.map(RawValue::get).filter(|id| *id != "null");
        match method {
            "mining.notify" => self.on_notify(params),
            "mining.set_difficulty" => {
                self.on_difficulty(params.get(0));
                Ok(())
            }
            "mining.set_extranonce" => match Extranonce::read(params.get(0), params.get(1)) {
                Ok(extranonce) => {
                    self.extranonce = Some(extranonce);
                    // What was given with the session's id does not hold any more.
                    if let Resumption::May(_) = self.session.resumption {
                        self.session.resumption = Resumption::Unknown;
                    }
                    Ok(())
                }
                Err(error) => Err(End::Lost(format!("its extranonce is of no use: {error}"))),
            },
            "mining.set_version_mask" => {
                match params.get(0).map(work::mask) {
                    Some(Ok(mask)) if self.mask.is_some() => self.on_mask(mask),
                    Some(Ok(_)) => tracing::debug!("a version mask without an agreement"),
                    _ => return self.cannot_read("a version mask that is none"),
                }
                Ok(())
            }
            "client.reconnect" => {
                self.on_reconnect(params);
                Ok(())
            }
            "client.show_message" => {
                if let Some(text) = params.text(0) {
                    self.notice(format!("the pool says: {}", printable(&text, WORDS_MAX)));
                }
                Ok(())
            }
            "client.get_version" => {
                self.answer(&message::answer(id.unwrap_or("null"), &quoted(AGENT)));
                Ok(())
            }
            "mining.ping" | "client.ping" | "ping" => {
                self.answer(&message::answer(id.unwrap_or("null"), "\"pong\""));
                Ok(())
            }
            _ => {
                tracing::debug!(
                    method = printable(method, 60),
                    "the pool calls what we do not know"
                );
                if let Some(id) = id {
                    self.answer(&message::unknown_method(id));
                }
                Ok(())
            }
        }
    }

    fn on_notify(&mut self, params: &Params<'_>) -> Result<(), End> {
        let mut notify = match Notify::read(params) {
            Ok(notify) => notify,
            Err(error) => return self.cannot_read(&format!("a job that is of no use: {error}")),
        };
        // A clean job that another one has overtaken still ended those before it.
        let overtaken = self.fresh.as_ref().map(|fresh| &fresh.notify).or(self.early.as_ref());
        notify.clean |= overtaken.is_some_and(|overtaken| overtaken.clean);
        match &self.extranonce {
            Some(extranonce) => {
                self.fresh = Some(Upcoming {
                    notify,
                    extranonce: extranonce.clone(),
                    target: self.target,
                    received: self.received,
                });
            }
            None => self.early = Some(notify),
        }
        Ok(())
    }

    /// A difficulty holds for later jobs. Only the first one also for the job at hand: that came from
    /// a pool which says it afterwards, and was begun at a difficulty that nobody has named.
    fn on_difficulty(&mut self, value: Option<&RawValue>) {
        let text = value.map_or("nothing", RawValue::get);
        match difficulty::target_of(text) {
            Ok(target) => {
                self.target = target;
                if !std::mem::replace(&mut self.target_said, true) {
                    if let Some(fresh) = &mut self.fresh {
                        fresh.target = target;
                    } else if let Some(mut current) = self.current.clone() {
                        current.target = target;
                        self.publish_again(current);
                    }
                }
            }
            Err(error) => self.notice(format!(
                "the pool set the difficulty to {}: {error}; it stays at {}",
                printable(text, 60),
                self.target.difficulty(),
            )),
        }
    }

    /// A mask holds at once (BIP 310).
    fn on_mask(&mut self, mask: u32) {
        if self.mask.replace(mask) != Some(mask)
            && let Some(current) = self.current.clone()
        {
            self.publish_again(current);
        }
    }

    /// Another port of the same host is no harm; another host could be anybody's.
    fn on_reconnect(&mut self, params: &Params<'_>) {
        let host = params.text(0).unwrap_or_default();
        let port = match params.get(1).map(message::number) {
            None | Some(Some(0)) => None,
            Some(None) if says_nothing(params.get(1)) => None,
            Some(port) => Some(port.and_then(|port| u16::try_from(port).ok())),
        };
        let ours = &self.session.config.endpoint;
        let same =
            host.is_empty() || host.trim_matches(['[', ']']).eq_ignore_ascii_case(&ours.host);
        match (same, port) {
            (true, None) => {}
            (true, Some(Some(port))) => self.session.moved_to = Some(port),
            (true, Some(None)) | (false, _) => {
                let to = printable(&host, 60);
                self.notice(format!(
                    "the pool wants to send us to {to:?}, which is not where you sent us: refused"
                ));
                return;
            }
        }
        let wait = params.get(2).and_then(message::number);
        self.session.least_wait = RECONNECT_WAIT_MAX.min(Duration::from_secs(wait.unwrap_or(0)));
        if self.stage != Stage::Leaving {
            self.enter(Stage::Leaving);
            // What is found from now on would count nowhere.
            if !matches!(self.session.resumption, Resumption::May(_)) {
                self.fresh = None;
                self.session.port.withdraw();
            }
        }
    }

    fn on_answer(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let Some(id) = answer.id else {
            tracing::debug!("the pool answers nothing that we asked");
            return Ok(());
        };
        if let Some(sent) = self.sent.remove(&id) {
            self.shares_answered();
            return self.on_verdict(&sent.solution, answer);
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

    /// The pool answers shares.
    fn shares_answered(&mut self) {
        self.unheeded = None;
        self.session.shares_answered();
    }

    fn on_verdict(&mut self, solution: &Solution, answer: &Answer<'_>) -> Result<(), End> {
        let (verdict, kind) = verdict::verdict_of(answer);
        if verdict == Verdict::Accepted {
            self.accepted = true;
            self.session.trust = Trust::Proven;
            self.strangers = 0;
        }
        let words = verdict.refusal().map(ToString::to_string).unwrap_or_default();
        self.session.port.verdict(solution, verdict);
        match kind {
            Some(Kind::NotSubscribed) => Err(End::Lost(words)),
            Some(Kind::Unauthorized) => {
                self.strangers += 1;
                if self.strangers >= STRANGERS && self.session.trust < Trust::Proven {
                    return Err(End::Final(self.refused(&words)));
                }
                if Instant::now() >= self.login_again {
                    self.authorize();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_configured(&mut self, answer: &Answer<'_>) {
        self.mask = answer.result.and_then(agreed_mask);
        if self.mask.is_some() {
            self.session.rolled = true;
            self.session.take_back_in(Optional::Configure);
        } else {
            tracing::debug!("the pool does not let the version roll");
        }
        if self.stage == Stage::Configuring {
            self.subscribe();
        } else if let Some(current) = self.current.clone() {
            // A late answer is an agreement too.
            self.publish_again(current);
        }
    }

    fn on_subscribed(&mut self, answer: &Answer<'_>, resuming: bool) -> Result<(), End> {
        if self.stage != Stage::Subscribing {
            return Ok(());
        }
        let fields: Vec<&RawValue> = answer
            .result
            .and_then(|result| serde_json::from_str(result.get()).ok())
            .unwrap_or_default();
        if fields.len() < 3 {
            if resuming {
                // It may only mind the session's id.
                self.session.resumption = Resumption::Never;
                self.subscribe();
                return Ok(());
            }
            let why = match &answer.error {
                Some(error) if !error.words.is_empty() => error.words.clone(),
                _ => "it gives no extranonce".to_owned(),
            };
            return Err(End::Lost(format!("it does not let us subscribe: {why}")));
        }
        let extranonce = Extranonce::read(Some(fields[1]), Some(fields[2]))
            .map_err(|error| End::Lost(format!("its extranonce is of no use: {error}")))?;
        let resumed = match &self.session.resumption {
            Resumption::May(before) if resuming => before.extranonce == extranonce,
            _ => false,
        };
        if resumed {
            self.session.go_on();
        } else {
            self.session.begin_session();
        }
        self.session.resumption = match (&self.session.resumption, session_id(fields[0])) {
            (Resumption::Never, _) => Resumption::Never,
            _ if resuming && !resumed => Resumption::Never,
            (_, Some(id)) => Resumption::May(Resume { id, extranonce: extranonce.clone() }),
            (_, None) => Resumption::Unknown,
        };
        if let Some(notify) = self.early.take() {
            self.fresh = Some(Upcoming {
                notify,
                extranonce: extranonce.clone(),
                target: self.target,
                received: self.received,
            });
        }
        self.extranonce = Some(extranonce);
        self.enter(Stage::Authorizing);
        self.authorize();
        Ok(())
    }

    fn on_authorized(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let refused =
            answer.error.is_some() || answer.result.is_some_and(|result| result.get() == "false");
        if refused {
            let words = answer.error.as_ref().map(|error| error.words.as_str()).unwrap_or_default();
            // A pool that has let us in before is rather out of order itself.
            return Err(if self.session.trust > Trust::Stranger {
                End::Lost(format!("it does not let us log in any more: {words}"))
            } else {
                End::Final(self.refused(words))
            });
        }
        self.session.trust = self.session.trust.max(Trust::Welcome);
        if self.stage == Stage::Authorizing {
            self.begin_mining();
        }
        Ok(())
    }

    /// The pool will not have this worker.
    fn refused(&self, words: &str) -> SourceError {
        let user = printable(&self.session.config.user, 80);
        let why = match words {
            "" => format!("it refuses the worker {user:?}"),
            words => format!("it refuses the worker {user:?}: {words}"),
        };
        SourceError::new(Refused::BySource, self.session.what(), why).hint(
            "check --user and ADIT_POOL_PASSWORD; many pools take a pay-out address as the user name",
        )
    }

    // Jobs.

    /// Begins a job that the pool has sent.
    fn publish(&mut self, job: Upcoming) {
        let clean = job.notify.clean;
        self.begin_job(&job, clean);
        self.current = Some(job);
    }

    /// Begins the current job anew, since something about it has changed: not its work, of which
    /// what was found for it still counts. Nothing is begun where the pool wants us to connect anew.
    fn publish_again(&mut self, mut job: Upcoming) {
        if self.stage == Stage::Leaving {
            return;
        }
        job.received = Instant::now();
        self.begin_job(&job, false);
        self.current = Some(job);
    }

    fn begin_job(&mut self, upcoming: &Upcoming, clean: bool) {
        let Upcoming { notify, extranonce, target, received } = upcoming;
        let work = &notify.work;
        if self.session.pace.binds(target) && self.session.pace.first_time() {
            self.notice(format!(
                "the pool's difficulty, {}, asks for more shares than anybody needs: only the best \
                 of them are sought, some hundred a second",
                target.difficulty(),
            ));
        }
        let (key, again) = self.session.table.add(&notify.id, work, extranonce, clean);
        // What was found for the same work is not worthless, whatever was said; the table sees to it
        // that everything else is.
        let clean = clean && !again;
        let rolled = self.mask.unwrap_or(0) & VersionMask::BIP320.bits();
        self.session.well();
        self.session.port.publish(Job {
            key,
            version: work.version,
            version_mask: VersionMask::new(rolled),
            previous_block_hash: work.previous_block_hash,
            height: work.height(),
            nbits: work.nbits,
            ntime: TimeRange { first: work.ntime, ahead: NTIME_AHEAD },
            merkle_root: MerkleRoot::Rolled(Coinbase {
                prefix: work.prefix.clone(),
                fixed_extranonce: extranonce.fixed.clone(),
                extranonce_len: extranonce.len,
                suffix: work.suffix.clone(),
                merkle_branch: work.merkle_branch.clone(),
            }),
            share_target: (*target).min(self.session.pace.floor()),
            network_target: work.network_target,
            clean,
            ends_when_solved: false,
            body: None,
            received: *received,
        });
    }

    /// Mines the current job at the floor of now.
    fn repaced(&mut self) {
        if let Some(current) = self.current.clone() {
            self.publish_again(current);
        }
    }

    // Time.

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
        if let Some(stuck) = self.stuck {
            due = due.min(stuck + timing.write);
        }
        if self.paces() {
            due = due.min(self.session.pace.due());
        }
        due
    }

    /// Whether the floor keeps shares of the current job away.
    fn paces(&self) -> bool {
        self.current.as_ref().is_some_and(|current| self.session.pace.binds(&current.target))
    }

    /// Whether the pool lets us wait for its answers.
    fn is_behind(&self) -> bool {
        self.sent.len() > BEHIND
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
                    return Err(End::Lost("it does not answer mining.subscribe".to_owned()));
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
        let (binds, behind) = (self.paces(), self.is_behind());
        if binds && self.session.pace.tick(now, binds, behind) {
            self.repaced();
        }
        Ok(())
    }

    /// Gives up on answers that are overdue, and on a pool that gives none.
    fn expire(&mut self, now: Instant) -> Result<(), End> {
        let timing = self.session.config.timing;
        let mut is_silent = false;
        while let Some(entry) = self.sent.first_entry() {
            if now < entry.get().at + timing.answer {
                break;
            }
            let (first, Sent { solution, at }) = entry.remove_entry();
            let why = Refusal::new("", "the pool did not answer in time");
            self.session.port.verdict(&solution, Verdict::Unknown(why));
            is_silent |= at > self.heard;
            self.unheeded.get_or_insert(Unheeded { first, since: at, count: 0 }).count += 1;
        }
        if is_silent {
            let seconds = timing.answer.as_secs();
            return Err(End::Lost(format!(
                "it has not answered, nor said anything else, for {seconds} s"
            )));
        }
        if self.deaf_at().is_some_and(|at| now >= at) {
            self.session.shares_ignored();
            let seconds = timing.unheeded.1.as_secs();
            return Err(End::Lost(format!("it takes shares and has answered none for {seconds} s")));
        }
        Ok(())
    }

    /// When the pool is left for the answers that it does not give, if it gives none before.
    fn deaf_at(&self) -> Option<Instant> {
        let (enough, patience) = self.session.config.timing.unheeded;
        let unheeded = self.unheeded.as_ref().filter(|unheeded| unheeded.count >= enough)?;
        Some(unheeded.since + patience)
    }

    // The end.

    /// In whose middle the pool has closed the connection.
    fn closed(&self) -> String {
        let rest = self.lines.rest();
        if rest.starts_with(&[0x15, 0x03]) {
            return "it answers in TLS: write stratum+tls:// to it".to_owned();
        }
        match self.stage {
            Stage::Configuring => "it closed the connection at mining.configure".to_owned(),
            Stage::Subscribing => "it closed the connection at mining.subscribe".to_owned(),
            Stage::Authorizing => "it closed the connection at mining.authorize".to_owned(),
            Stage::Mining if !rest.is_empty() => {
                "it closed the connection in the middle of a line".to_owned()
            }
            Stage::Mining | Stage::Leaving => "it closed the connection".to_owned(),
        }
    }

    /// Some pools close the connection on what they do not know. What had no answer when one was
    /// lost, soon after it was asked, is left out the next time. But a proxy whose server is away
    /// closes it at the first words too, whatever they are.
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
        for (_, ask, at) in std::mem::take(&mut self.asked) {
            if at.elapsed() > BLAME {
                continue;
            }
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

/// Whether a parameter is null or an empty text.
fn says_nothing(value: Option<&RawValue>) -> bool {
    value.is_none_or(|value| matches!(value.get(), "null" | "\"\""))
}

fn lost(error: &io::Error) -> String {
    format!("the connection was lost: {error}")
}

/// The mask in the answer to `mining.configure`, if it agrees to version rolling (BIP 310).
fn agreed_mask(result: &RawValue) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Configured<'a> {
        #[serde(borrow, default, rename = "version-rolling")]
        rolling: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "version-rolling.mask")]
        mask: Option<&'a RawValue>,
    }
    let configured: Configured<'_> = serde_json::from_str(result.get()).ok()?;
    match (configured.rolling.map(RawValue::get), configured.mask) {
        (Some("true") | None, Some(mask)) => work::mask(mask).ok(),
        (Some("true"), None) => Some(VersionMask::BIP320.bits()),
        _ => None,
    }
}

/// The session's id among the subscriptions: a pair, or a list of pairs, of a method and an id.
fn session_id(subscriptions: &RawValue) -> Option<String> {
    let pair_of = |value: &RawValue| {
        let pair: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
        let id = message::text(pair.get(1)?).filter(|id| !id.is_empty() && id.len() <= 256)?;
        Some((message::text(pair[0])?, id))
    };
    if let Some((_, id)) = pair_of(subscriptions) {
        return Some(id);
    }
    let list: Vec<&RawValue> = serde_json::from_str(subscriptions.get()).ok()?;
    let pairs: Vec<_> = list.into_iter().take(16).filter_map(pair_of).collect();
    let notify = pairs.iter().find(|(method, _)| method == "mining.notify");
    notify.or(pairs.first()).map(|(_, id)| id.clone())
}
