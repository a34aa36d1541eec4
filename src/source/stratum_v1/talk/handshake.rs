//! From the first words to the login: version rolling, the session, the worker, and what is nice to
//! have.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::super::difficulty::target_of;
use super::super::message::{self, Answer, quoted};
use super::super::session::{Optional, Resume, Resumption, Trust};
use super::super::verdict;
use super::super::work::{self, Extranonce};
use super::{AGENT, Ask, End, ResumedJobs, Stage, Talk, Upcoming};
use crate::chain::version::VersionMask;
use crate::printable::printable;
use crate::source::{Refused, SourceError};

/// How often a login is tried again when the pool says that it does not know us.
const LOGIN_AGAIN: Duration = Duration::from_secs(60);
/// How often a first login is refused for what may pass until it is final.
const LOGIN_TRIES: u32 = 8;
/// How long the answer to `mining.extranonce.subscribe` is waited for before the next request.
const ONE_AT_A_TIME: Duration = Duration::from_secs(3);

impl Talk<'_> {
    /// The first words.
    pub(super) fn greet(&mut self) {
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

    pub(super) fn subscribe(&mut self) {
        let (resuming, params) = match &self.session.resumption {
            Resumption::May(resume) => {
                (true, format!("[{},{}]", quoted(AGENT), quoted(&resume.id)))
            }
            Resumption::Unknown | Resumption::Never => (false, format!("[{}]", quoted(AGENT))),
        };
        self.ask(Ask::Subscribe { resuming }, "mining.subscribe", &params);
        self.enter(Stage::Subscribing);
    }

    pub(super) fn authorize(&mut self) {
        let config = &self.session.config;
        let params = format!("[{},{}]", quoted(&config.user), quoted(config.password.reveal()));
        self.ask(Ask::Authorize, "mining.authorize", &params);
        self.login_again = Instant::now() + LOGIN_AGAIN;
    }

    /// Asks for what is nice to have, and sends what has waited.
    pub(super) fn begin_mining(&mut self) {
        self.enter(Stage::Mining);
        self.say_whether_versions_roll();
        self.suggest_at = Some(Instant::now() + ONE_AT_A_TIME);
        if self.session.wants(Optional::Extranonce) {
            self.ask(Ask::Extranonce, "mining.extranonce.subscribe", "[]");
        } else {
            self.suggest();
        }
        let mut held = self.session.take_held();
        if self.resumed_jobs == ResumedJobs::Unproven && !held.is_empty() {
            // If the pool does not know the newest one's job, it knows none.
            held.rotate_right(1);
        }
        for solution in held {
            self.submit(solution);
        }
    }

    /// Asks for a difficulty, once. What had no answer until then is not to blame for what follows.
    pub(super) fn suggest(&mut self) {
        if self.suggest_at.take().is_none() || self.stage != Stage::Mining {
            return;
        }
        self.asked.retain(|(_, ask, _)| *ask != Ask::Extranonce);
        // Some heed it only after the login.
        let suggested = self.session.config.suggest_difficulty.as_deref();
        let has_it = suggested.is_none_or(|text| target_of(text) == Ok(self.target));
        if !(self.target_said && has_it) {
            self.suggest_difficulty();
        }
    }

    fn suggest_difficulty(&mut self) {
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

    pub(super) fn on_configured(&mut self, answer: &Answer<'_>) {
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

    pub(super) fn on_subscribed(&mut self, answer: &Answer<'_>, resuming: bool) -> Result<(), End> {
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
            self.resumed_jobs = ResumedJobs::Unproven;
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
                as_sent: self.target,
                received: self.received,
            });
        }
        self.extranonce = Some(extranonce);
        // A pool that sends the next job only in a minute has the first at this difficulty.
        self.suggest_difficulty();
        self.enter(Stage::Authorizing);
        self.authorize();
        Ok(())
    }

    pub(super) fn on_authorized(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let refused =
            answer.error.is_some() || answer.result.is_some_and(|result| result.get() == "false");
        if refused {
            let words = answer.error.as_ref().map(|error| error.words.as_str()).unwrap_or_default();
            // A pool that has let us in before is rather out of order itself.
            if self.session.trust > Trust::Stranger {
                return Err(End::Lost(format!("it does not let us log in any more: {words}")));
            }
            self.session.logins_refused += 1;
            let is_final = answer.error.as_ref().is_none_or(verdict::is_final_login)
                || self.session.logins_refused >= LOGIN_TRIES;
            return Err(if is_final {
                End::Final(self.refused(words))
            } else {
                End::Lost(format!("it does not let us log in: {words}"))
            });
        }
        self.session.trust = self.session.trust.max(Trust::Welcome);
        if self.stage == Stage::Authorizing {
            self.begin_mining();
        }
        Ok(())
    }

    /// The pool will not have this worker.
    pub(super) fn refused(&self, words: &str) -> SourceError {
        let user = printable(&self.session.config.user, 80);
        let why = match words {
            "" => format!("it refuses the worker {user:?}"),
            words => format!("it refuses the worker {user:?}: {words}"),
        };
        SourceError::new(Refused::BySource, self.session.what(), why).hint(
            "check --user and ADIT_POOL_PASSWORD; many pools take a pay-out address as the user name",
        )
    }
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
