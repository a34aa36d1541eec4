//! The handshake: version rolling, subscription and login; and the optional requests after it.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::super::difficulty::target_of;
use super::super::message::{self, Answer, quoted};
use super::super::profile::{OptionalRequest, Resume, Resumption, Trust};
use super::super::reject;
use super::super::work::{self, Extranonce};
use super::{AGENT, Connection, End, HandshakePhase, PoolJob, Request, ResumedJobs};
use crate::chain::version::VersionMask;
use crate::printable::printable;

/// How often the login is repeated at most where the pool refuses shares for want of one.
const REAUTHORIZE_AFTER: Duration = Duration::from_secs(60);
/// How many first logins are refused, for reasons that may pass, until that is final.
const LOGINS_MAX: u32 = 8;
/// How long the answer to `mining.extranonce.subscribe` is waited for before the next request.
const OPTIONAL_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

impl Connection<'_> {
    /// Begins the handshake with `mining.configure`, or without it where it is not wanted.
    pub(super) fn send_configure(&mut self) {
        if self.config.version_rolling && self.pool.profile.wants(OptionalRequest::Configure) {
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

    /// Sends `mining.subscribe`, with the session's id where the pool may resume it.
    pub(super) fn subscribe(&mut self) {
        let (resuming, params) = match &self.pool.profile.resumption {
            Resumption::May(resume) => {
                (true, format!("[{},{}]", quoted(AGENT), quoted(&resume.id)))
            }
            Resumption::Unknown | Resumption::Never => (false, format!("[{}]", quoted(AGENT))),
        };
        self.send_request(Request::Subscribe { resuming }, "mining.subscribe", &params);
        self.enter_phase(HandshakePhase::Subscribing);
    }

    /// Sends `mining.authorize`.
    pub(super) fn authorize(&mut self) {
        let config = &self.config;
        let params = format!("[{},{}]", quoted(&config.user), quoted(config.password.reveal()));
        self.send_request(Request::Authorize, "mining.authorize", &params);
        self.reauthorize_at = Instant::now() + REAUTHORIZE_AFTER;
    }

    /// Completes the handshake: sends the optional requests, and the shares that wait.
    pub(super) fn start_mining(&mut self) {
        self.enter_phase(HandshakePhase::Mining);
        self.warn_if_rolling_stopped();
        self.suggest_at = Some(Instant::now() + OPTIONAL_REQUEST_TIMEOUT);
        if self.pool.profile.wants(OptionalRequest::Extranonce) {
            self.send_request(Request::Extranonce, "mining.extranonce.subscribe", "[]");
        } else {
            self.suggest_difficulty_again();
        }
        let mut queued = self.pool.session.take_queued();
        if self.resumed_jobs == ResumedJobs::Unproven && !queued.is_empty() {
            // The newest first: if the pool does not know its job, it knows none of them.
            queued.rotate_right(1);
        }
        for solution in queued {
            self.submit(solution);
        }
    }

    /// Suggests a difficulty again, once. `mining.extranonce.subscribe` without an answer until then is
    /// not the cause of what follows.
    pub(super) fn suggest_difficulty_again(&mut self) {
        if self.suggest_at.take().is_none() || self.phase != HandshakePhase::Mining {
            return;
        }
        self.pending_requests.retain(|(_, request, _)| *request != Request::Extranonce);
        // Some pools honour it only after the login.
        let suggested = self.config.suggest_difficulty.as_deref();
        let has_it = suggested.is_none_or(|text| target_of(text) == Ok(self.target));
        if !(self.target_set && has_it) {
            self.suggest_difficulty();
        }
    }

    fn suggest_difficulty(&mut self) {
        if let Some(difficulty) = self.config.suggest_difficulty.clone()
            && self.pool.profile.wants(OptionalRequest::Suggest)
        {
            self.send_request(
                Request::Suggest,
                "mining.suggest_difficulty",
                &format!("[{difficulty}]"),
            );
        }
    }

    /// Tells the user if the version is not rolled any more.
    fn warn_if_rolling_stopped(&mut self) {
        let profile = &mut self.pool.profile;
        if self.config.version_rolling
            && self.mask.is_none()
            && !profile.wants(OptionalRequest::Configure)
            && std::mem::take(&mut profile.was_rolling)
        {
            let minutes = self.config.timing.skip_for.as_secs() / 60;
            self.notice(format!(
                "the pool did not answer mining.configure: no version rolling for up to {minutes} \
                 minutes"
            ));
        }
    }

    /// Handles the answer to `mining.configure`.
    pub(super) fn on_configured(&mut self, answer: &Answer<'_>) {
        self.mask = answer.result.and_then(agreed_mask);
        if self.mask.is_some() {
            self.pool.profile.was_rolling = true;
            self.pool.profile.restore(OptionalRequest::Configure);
        } else {
            tracing::debug!("the pool does not agree to version rolling");
        }
        if self.phase == HandshakePhase::Configuring {
            self.subscribe();
        } else if let Some(current) = self.current_job.clone() {
            // A late answer counts too.
            self.republish(current);
        }
    }

    /// Handles the answer to `mining.subscribe`.
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
                // It may refuse no more than the session's id.
                self.pool.profile.resumption = Resumption::Never;
                self.subscribe();
                return Ok(());
            }
            let why = match &answer.error {
                Some(error) if !error.words.is_empty() => error.words.clone(),
                _ => "it gives no extranonce".to_owned(),
            };
            return Err(End::Lost(format!("subscription failed: {why}")));
        }
        let extranonce = Extranonce::read(Some(fields[1]), Some(fields[2]))
            .map_err(|error| End::Lost(format!("it gives an invalid extranonce: {error}")))?;
        let resumed = match &self.pool.profile.resumption {
            Resumption::May(before) if resuming => before.extranonce == extranonce,
            _ => false,
        };
        if resumed {
            self.pool.session.resume();
            self.resumed_jobs = ResumedJobs::Unproven;
        } else {
            self.pool.session.begin(self.port);
        }
        self.pool.profile.resumption = match (&self.pool.profile.resumption, session_id(fields[0]))
        {
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
        // Before the login, so that the first job has this difficulty: the next may be a minute away.
        self.suggest_difficulty();
        self.enter_phase(HandshakePhase::Authorizing);
        self.authorize();
        Ok(())
    }

    /// Handles the answer to `mining.authorize`.
    pub(super) fn on_authorized(&mut self, answer: &Answer<'_>) -> Result<(), End> {
        let refused =
            answer.error.is_some() || answer.result.is_some_and(|result| result.get() == "false");
        if refused {
            let words = answer.error.as_ref().map(|error| error.words.as_str()).unwrap_or_default();
            // A pool that has authorized the worker before is likely to be out of order.
            if self.pool.profile.trust > Trust::Unknown {
                return Err(End::Lost(format!(
                    "authorization failed, as it did not before: {words}"
                )));
            }
            let refused = self.pool.profile.login_refused();
            let is_final =
                answer.error.as_ref().is_none_or(reject::is_final_login) || refused >= LOGINS_MAX;
            return Err(if is_final {
                End::Rejected(self.rejection(words))
            } else {
                End::Lost(format!("authorization failed: {words}"))
            });
        }
        self.pool.profile.trust = self.pool.profile.trust.max(Trust::Authorized);
        if self.phase == HandshakePhase::Authorizing {
            self.start_mining();
        }
        Ok(())
    }

    /// Why the run ends where the pool rejects the worker in these words.
    pub(super) fn rejection(&self, words: &str) -> String {
        let user = printable(&self.config.user, 80);
        match words {
            "" => format!("it rejects the worker {user:?}"),
            words => format!("it rejects the worker {user:?}: {words}"),
        }
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
