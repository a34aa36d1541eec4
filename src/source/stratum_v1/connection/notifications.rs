//! What the pool sends unasked: jobs, difficulties, extranonces, version masks, redirects, messages.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::super::difficulty;
use super::super::message::{self, Params, WORDS_MAX, quoted};
use super::super::profile::Resumption;
use super::super::work::{self, Extranonce, Notify};
use super::{AGENT, Connection, End, PoolJob};
use crate::printable::printable;

/// The longest wait before a new connection that a pool may impose.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(60);

impl Connection<'_> {
    pub(super) fn on_call(
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
                    self.extranonce_changes += 1;
                    // The session's id belongs to the extranonce before.
                    if self.pool.profile.may_resume() {
                        self.pool.profile.resumption = Resumption::Unknown;
                    }
                    Ok(())
                }
                Err(error) => Err(End::Lost(format!("it gives an invalid extranonce: {error}"))),
            },
            "mining.set_version_mask" => {
                match params.get(0).map(work::mask) {
                    Some(Ok(mask)) if self.mask.is_some() => self.on_mask(mask),
                    Some(Ok(_)) => {
                        tracing::debug!("a version mask, though version rolling was not agreed on");
                    }
                    _ => return self.on_unusable("an invalid version mask"),
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
                self.send_answer(&message::answer(id.unwrap_or("null"), &quoted(AGENT)));
                Ok(())
            }
            "mining.ping" | "client.ping" | "ping" => {
                self.send_answer(&message::answer(id.unwrap_or("null"), "\"pong\""));
                Ok(())
            }
            _ => {
                tracing::debug!(method = printable(method, 60), "unknown method");
                if let Some(id) = id {
                    self.send_answer(&message::unknown_method(id));
                }
                Ok(())
            }
        }
    }

    fn on_notify(&mut self, params: &Params<'_>) -> Result<(), End> {
        let mut notify = match Notify::read(params) {
            Ok(notify) => notify,
            Err(error) => return self.on_unusable(&format!("an invalid job: {error}")),
        };
        self.unusable_messages.reset();
        // A clean job that another replaces before it is published still ends those before it.
        let replaced = self.next_job.as_ref().map(|job| &job.notify).or(self.early_notify.as_ref());
        notify.clean |= replaced.is_some_and(|replaced| replaced.clean);
        match &self.extranonce {
            Some(extranonce) => {
                self.next_job = Some(PoolJob {
                    notify,
                    extranonce: extranonce.clone(),
                    target: self.target,
                    target_at_arrival: self.target,
                    received: self.last_bytes,
                });
            }
            None => self.early_notify = Some(notify),
        }
        Ok(())
    }

    /// A difficulty holds for later jobs, unless this pool has shown otherwise. The first one of a
    /// connection also holds for the current job: such a pool sets it after the job, which was published
    /// at a difficulty that the pool had not set.
    fn on_difficulty(&mut self, value: Option<&RawValue>) {
        let text = value.map_or("nothing", RawValue::get);
        match difficulty::target_of(text) {
            Ok(target) => {
                self.target = target;
                if std::mem::replace(&mut self.target_set, true) {
                    self.difficulty_changed(Instant::now());
                } else if let Some(fresh) = &mut self.next_job {
                    (fresh.target, fresh.target_at_arrival) = (target, target);
                } else if let Some(mut current) = self.current_job.clone() {
                    (current.target, current.target_at_arrival) = (target, target);
                    self.republish(current);
                }
            }
            Err(error) => self.notice(format!(
                "the pool set the difficulty to {}: {error}; it stays at {}",
                printable(text, 60),
                self.target.difficulty(),
            )),
        }
    }

    /// A version mask holds at once (BIP 310).
    fn on_mask(&mut self, mask: u32) {
        if self.mask.replace(mask) != Some(mask)
            && let Some(current) = self.current_job.clone()
        {
            self.republish(current);
        }
    }

    /// Another port of the same host is accepted; another host could be an attacker's.
    fn on_reconnect(&mut self, params: &Params<'_>) {
        let host = params.text(0).unwrap_or_default();
        let port = match params.get(1).map(message::number) {
            None | Some(Some(0)) => None,
            Some(None) if says_nothing(params.get(1)) => None,
            Some(port) => Some(port.and_then(|port| u16::try_from(port).ok())),
        };
        let ours = &self.config.endpoint;
        let same =
            host.is_empty() || host.trim_matches(['[', ']']).eq_ignore_ascii_case(&ours.host);
        match (same, port) {
            (true, None) => {}
            (true, Some(Some(port))) => self.redirect.port = Some(port),
            (true, Some(None)) | (false, _) => {
                let to = printable(&host, 60);
                self.notice(format!(
                    "the pool redirects to {to:?}, which is not the host that you named: ignored"
                ));
                return;
            }
        }
        let wait = params.get(2).and_then(message::number);
        self.redirect.least_wait = RECONNECT_WAIT_MAX.min(Duration::from_secs(wait.unwrap_or(0)));
        self.leave();
    }
}

/// Whether a parameter is null or an empty text.
fn says_nothing(value: Option<&RawValue>) -> bool {
    value.is_none_or(|value| matches!(value.get(), "null" | "\"\""))
}
