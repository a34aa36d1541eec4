//! From the first words to the login: version rolling, the session, the worker, and what is nice to
//! have.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::super::client::{OptionalRequest, Resume, Resumption, Trust};
use super::super::difficulty::target_of;
use super::super::message::{self, Answer, quoted};
use super::super::reject;
use super::super::work::{self, Extranonce};
use super::{AGENT, Connection, End, HandshakePhase, PoolJob, Request, ResumedJobs};
use crate::chain::version::VersionMask;
use crate::printable::printable;
use crate::source::{Refused, SourceError};

/// How often a login is tried again when the pool says that it does not know us.
const REAUTHORIZE_AFTER: Duration = Duration::from_secs(60);
/// How often a first login is refused for what may pass until it is final.
const LOGINS_MAX: u32 = 8;
/// How long the answer to `mining.extranonce.subscribe` is waited for before the next request.
const OPTIONAL_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

impl Connection<'_> {
    /// The first words.
    pub(super) fn send_configure(&mut self) {
        if self.client.config.version_rolling && self.client.wants(OptionalRequest::Configure) {
            let mask = VersionMask::BIP320.bits();
            let params = format!(
                "[[\"version-rolling\"],{{\"version-rolling.mask\":\"{mask:08x}\",\
                 \"version-rolling.min-bit-count\":2}}]"
            );
            self.send_request(Request::Configure, "mining.configure", &params);
            self.enter_phase(HandshakePhase::Configuring);
        } else {
            self.subscribe();
        }
    }

    pub(super) fn subscribe(&mut self) {
        let (resuming, params) = match &self.client.resumption {
            Resumption::May(resume) => {
                (true, format!("[{},{}]", quoted(AGENT), quoted(&resume.id)))
            }
            Resumption::Unknown | Resumption::Never => (false, format!("[{}]", quoted(AGENT))),
        };
        self.send_request(Request::Subscribe { resuming }, "mining.subscribe", &params);
        self.enter_phase(HandshakePhase::Subscribing);
    }

    pub(super) fn authorize(&mut self) {
        let config = &self.client.config;
        let params = format!("[{},{}]", quoted(&config.user), quoted(config.password.reveal()));
        self.send_request(Request::Authorize, "mining.authorize", &params);
        self.reauthorize_at = Instant::now() + REAUTHORIZE_AFTER;
    }

    /// Asks for what is nice to have, and sends what has waited.
    pub(super) fn start_mining(&mut self) {
        self.enter_phase(HandshakePhase::Mining);
        self.warn_if_rolling_stopped();
        self.suggest_at = Some(Instant::now() + OPTIONAL_REQUEST_TIMEOUT);
        if self.client.wants(OptionalRequest::Extranonce) {
            self.send_request(Request::Extranonce, "mining.extranonce.subscribe", "[]");
        } else {
            self.suggest_difficulty_again();
        }
        let mut queued = self.client.take_queued();
        if self.resumed_jobs == ResumedJobs::Unproven && !queued.is_empty() {
            // If the pool does not know the newest one's job, it knows none.
            queued.rotate_right(1);
        }
        for solution in queued {
            self.submit(solution);
        }
    }

    /// Asks for a difficulty, once. What had no answer until then is not to blame for what follows.
    pub(super) fn suggest_difficulty_again(&mut self) {
        if self.suggest_at.take().is_none() || self.phase != HandshakePhase::Mining {
            return;
        }
        self.pending_requests.retain(|(_, ask, _)| *ask != Request::Extranonce);
        // Some heed it only after the login.
        let suggested = self.client.config.suggest_difficulty.as_deref();
        let has_it = suggested.is_none_or(|text| target_of(text) == Ok(self.target));
        if !(self.target_set && has_it) {
            self.suggest_difficulty();
        }
    }

    fn suggest_difficulty(&mut self) {
        if let Some(difficulty) = self.client.config.suggest_difficulty.clone()
            && self.client.wants(OptionalRequest::Suggest)
        {
            self.send_request(
                Request::Suggest,
                "mining.suggest_difficulty",
                &format!("[{difficulty}]"),
            );
        }
    }

    /// Says that the version is not rolled any more, where it was.
    fn warn_if_rolling_stopped(&mut self) {
        let session = &mut *self.client;
        if session.config.version_rolling
            && self.mask.is_none()
            && !session.wants(OptionalRequest::Configure)
            && std::mem::take(&mut session.rolled)
        {
            let minutes = session.config.timing.skip_for.as_secs() / 60;
            self.notice(format!(
                "the pool did not answer mining.configure: no version rolling for up to {minutes} \
                 minutes"
            ));
        }
    }

    pub(super) fn on_configured(&mut self, answer: &Answer<'_>) {
        self.mask = answer.result.and_then(agreed_mask);
        if self.mask.is_some() {
            self.client.rolled = true;
            self.client.restore(OptionalRequest::Configure);
        } else {
            tracing::debug!("the pool does not let the version roll");
        }
        if self.phase == HandshakePhase::Configuring {
            self.subscribe();
        } else if let Some(current) = self.current_job.clone() {
            // A late answer is an agreement too.
            self.republish(current);
        }
    }

    pub(super) fn on_subscribed(&mut self, answer: &Answer<'_>, resuming: bool) -> Result<(), End> {
        if self.phase != HandshakePhase::Subscribing {
            return Ok(());
        }
        let fields: Vec<&RawValue> = answer
            .result
            .and_then(|result| serde_json::from_str(result.get()).ok())
            .unwrap_or_default();
        if fields.len() < 3 {
            if resuming {
                // It may only mind the session's id.
                self.client.resumption = Resumption::Never;
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
        let resumed = match &self.client.resumption {
            Resumption::May(before) if resuming => before.extranonce == extranonce,
            _ => false,
        };
        if resumed {
            self.client.resume_session();
            self.resumed_jobs = ResumedJobs::Unproven;
        } else {
            self.client.begin_session();
        }
        self.client.resumption = match (&self.client.resumption, session_id(fields[0])) {
            (Resumption::Never, _) => Resumption::Never,
            _ if resuming && !resumed => Resumption::Never,
            (_, Some(id)) => Resumption::May(Resume { id, extranonce: extranonce.clone() }),
            (_, None) => Resumption::Unknown,
        };
        if let Some(notify) = self.early_notify.take() {
            self.next_job = Some(PoolJob {
                notify,
                extranonce: extranonce.clone(),
                target: self.target,
                target_at_arrival: self.target,
                received: self.last_bytes,
            });
        }
        self.extranonce = Some(extranonce);
        // A pool that sends the next job only in a minute has the first at this difficulty.
        self.suggest_difficulty();
        self.enter_phase(HandshakePhase::Authorizing);
        self.authorize();
        Ok(())
    }

    pub(super) fn on_authorized(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let refused =
            answer.error.is_some() || answer.result.is_some_and(|result| result.get() == "false");
        if refused {
            let words = answer.error.as_ref().map(|error| error.words.as_str()).unwrap_or_default();
            // A pool that has let us in before is rather out of order itself.
            if self.client.trust > Trust::Unknown {
                return Err(End::Lost(format!("it does not let us log in any more: {words}")));
            }
            self.client.logins_refused += 1;
            let is_final = answer.error.as_ref().is_none_or(reject::is_final_login)
                || self.client.logins_refused >= LOGINS_MAX;
            return Err(if is_final {
                End::Final(self.refused(words))
            } else {
                End::Lost(format!("it does not let us log in: {words}"))
            });
        }
        self.client.trust = self.client.trust.max(Trust::Authorized);
        if self.phase == HandshakePhase::Authorizing {
            self.start_mining();
        }
        Ok(())
    }

    /// The pool will not have this worker.
    pub(super) fn refused(&self, words: &str) -> SourceError {
        let user = printable(&self.client.config.user, 80);
        let why = match words {
            "" => format!("it refuses the worker {user:?}"),
            words => format!("it refuses the worker {user:?}: {words}"),
        };
        SourceError::new(Refused::BySource, self.client.what(), why).hint(
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
