//! What is known of a pool from one connection to the next.

use std::time::{Duration, Instant};

use super::config::Config;
use super::quirks::Quirks;
use super::version_bits::Learner;
use super::work::Extranonce;

/// How often the timeout of a subscription is doubled at most.
const SUBSCRIBE_DOUBLINGS_MAX: u32 = 3;

/// A request that a pool need not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionalRequest {
    /// `mining.configure`.
    Configure,
    /// `mining.extranonce.subscribe`.
    Extranonce,
    /// `mining.suggest_difficulty`.
    Suggest,
}

/// What the pool gave to resume a session with.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    /// The session's id.
    pub id: String,
    /// The session's extranonce: if the pool gives the same one again, it has resumed the session.
    pub extranonce: Extranonce,
}

/// Whether the pool resumes sessions.
#[derive(Clone, Debug)]
pub(super) enum Resumption {
    /// It has given no session id.
    Unknown,
    /// It has given one, and may.
    May(Resume),
    /// It was asked to, and did not.
    Never,
}

/// How far the pool has ever accepted this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Not yet.
    Unknown,
    /// It has authorized the worker.
    Authorized,
    /// It has accepted a share.
    ShareAccepted,
}

/// Connections in a row that the pool closed before it sent anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct SilentCloses {
    count: u32,
    /// After how many of them `mining.configure` is suspected.
    enough: u32,
}

impl Default for SilentCloses {
    fn default() -> Self {
        Self { count: 0, enough: 2 }
    }
}

impl SilentCloses {
    /// Counts another one; says whether `mining.configure` is suspected. If the connection was closed
    /// without that request too, it was not the cause: the next suspicion takes twice as many.
    pub(super) fn record(&mut self, without_configure: bool) -> bool {
        self.count += 1;
        if self.count < self.enough && !without_configure {
            return false;
        }
        self.count = 0;
        if without_configure {
            self.enough = (self.enough * 2).min(8);
        }
        !without_configure
    }
}

/// What is known of the pool.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) trust: Trust,
    pub(super) resumption: Resumption,
    pub(super) silent_closes: SilentCloses,
    /// Optional requests that the pool did not cope with, and until when they are skipped.
    skipped_requests: Vec<(OptionalRequest, Instant)>,
    skip_for: Duration,
    /// Whether version rolling was agreed on, and its loss was not reported since.
    pub(super) was_rolling: bool,
    /// In which form the pool takes version bits.
    pub(super) version_bits: Learner,
    /// What its answers have shown, kept for the next run too.
    pub(super) quirks: Quirks,
    subscribe_timeout: Duration,
    /// How often a subscription was not answered in time.
    subscribe_timeouts: u32,
    /// How often a first login was refused for a reason that may pass.
    logins_refused: u32,
}

impl Profile {
    /// What is known of the pool before the first connection.
    pub(super) fn new(config: &Config) -> Self {
        let quirks = Quirks::of(&config.endpoint, config.quirks_dir.as_deref());
        Self {
            trust: Trust::Unknown,
            resumption: Resumption::Unknown,
            silent_closes: SilentCloses::default(),
            skipped_requests: Vec::new(),
            skip_for: config.timing.skip_for,
            was_rolling: false,
            version_bits: Learner::new(quirks.version_bits()),
            quirks,
            subscribe_timeout: config.timing.subscribe,
            subscribe_timeouts: 0,
            logins_refused: 0,
        }
    }

    /// How long the answer to `mining.subscribe` is waited for: longer each time that none came.
    pub(super) fn subscribe_timeout(&self) -> Duration {
        self.subscribe_timeout * 2u32.pow(self.subscribe_timeouts.min(SUBSCRIBE_DOUBLINGS_MAX))
    }

    /// No answer to `mining.subscribe` came in time.
    pub(super) const fn subscribe_timed_out(&mut self) {
        self.subscribe_timeouts += 1;
    }

    /// Counts a first login that was refused; gives the number of them so far.
    pub(super) const fn login_refused(&mut self) -> u32 {
        self.logins_refused += 1;
        self.logins_refused
    }

    /// Whether an optional request is sent to this pool.
    pub(super) fn wants(&self, request: OptionalRequest) -> bool {
        self.skipped_requests
            .iter()
            .all(|(skipped, until)| *skipped != request || *until < Instant::now())
    }

    /// Does not send an optional request for a while, since the pool did not cope with it.
    pub(super) fn skip(&mut self, request: OptionalRequest) {
        tracing::debug!(?request, "not sent to this pool from now on");
        self.restore(request);
        self.skipped_requests.push((request, Instant::now() + self.skip_for));
    }

    /// Sends an optional request again that was skipped without need.
    pub(super) fn restore(&mut self, request: OptionalRequest) {
        self.skipped_requests.retain(|(skipped, _)| *skipped != request);
    }

    /// Whether the pool may resume the session.
    pub(super) const fn may_resume(&self) -> bool {
        matches!(self.resumption, Resumption::May(_))
    }
}
