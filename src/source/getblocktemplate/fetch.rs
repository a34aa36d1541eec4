//! Fetching templates: the call under way, and when the next is due.

use std::future::{Future, pending};
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::calls::template_request;
use super::limits::{CALL_TIMEOUT, REFRESH, TEMPLATE_BYTES};
use super::rpc::Rpc;
use super::slow_node;
use super::template::{Payout, PreparedTemplate, TemplateError, parse_template};

/// Templates larger than this are parsed on another thread, so that a solution need not wait.
const PARSE_OFF_THREAD_BYTES: usize = 64 << 10;
/// The least time from one fetch to the next for the sake of tips: they may come in quick succession,
/// or be those of another node whose publisher listens where ours was said to.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// A call for a template, which returns the connection that it was made over.
type Fetch = Pin<Box<dyn Future<Output = (Rpc, Result<PreparedTemplate, TemplateError>)> + Send>>;

/// What comes of a fetch.
pub(super) enum Fetched {
    /// A template, or why there is none.
    Template(Result<Box<PreparedTemplate>, TemplateError>),
    /// The call is slow and still under way; the likely cause.
    Slow(String),
}

/// The templates that are fetched over a connection of their own, one at a time.
pub(super) struct TemplateFetcher {
    under_way: Option<Fetch>,
    /// Diagnoses why the call under way takes so long, once it does.
    slow: Option<Pin<Box<dyn Future<Output = String> + Send>>>,
    connection: Option<Rpc>,
    /// When the next is fetched.
    pub(super) due: Instant,
    /// When the last call was started.
    started: Option<Instant>,
    /// Whether the tip has moved since the call under way was made.
    is_outdated: bool,
}

impl TemplateFetcher {
    /// The first is due at once.
    pub(super) fn new() -> Self {
        let due = Instant::now();
        Self {
            under_way: None,
            slow: None,
            connection: None,
            due,
            started: None,
            is_outdated: false,
        }
    }

    /// Makes a call if one is due and none is under way, over the kept connection or one like `rpc`.
    /// `fresh`: a template that the node has cached will not do.
    pub(super) fn begin(&mut self, rpc: &Rpc, fresh: bool, payout: &Payout) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + REFRESH;
        // A call that is still under way has its own deadline.
        if self.under_way.is_none() {
            self.started = Some(now);
            let connection = self.connection.take().unwrap_or_else(|| rpc.sibling());
            self.under_way = Some(fetch(connection, template_request(fresh), payout.clone()));
            let another = rpc.sibling();
            self.slow = Some(Box::pin(slow_node::diagnose(|| another)));
        }
    }

    /// Waits for the outcome of the call under way, or for word that it is slow; for ever if there
    /// is no call. May be dropped at any time and called again.
    pub(super) async fn next(&mut self) -> Fetched {
        let Some(under_way) = &mut self.under_way else { return pending().await };
        let slow = async {
            match &mut self.slow {
                Some(slow) => slow.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            (connection, outcome) = under_way => {
                (self.under_way, self.slow) = (None, None);
                self.connection = Some(connection);
                Fetched::Template(outcome.map(Box::new))
            }
            reason = slow => {
                self.slow = None;
                Fetched::Slow(reason)
            }
        }
    }

    /// Has the next template fetched at `due`, or as early as possible if the tip has moved since the
    /// last call was made.
    pub(super) fn next_at(&mut self, due: Instant) {
        self.due = if std::mem::take(&mut self.is_outdated) { self.earliest() } else { due };
    }

    /// The tip has moved: another template is needed.
    pub(super) fn tip_moved(&mut self) {
        // Dropping the call under way would bring no template at all while many blocks come in a row.
        if self.under_way.is_some() {
            self.is_outdated = true;
        } else {
            self.due = self.earliest();
        }
    }

    /// Now, unless a call has just been started.
    fn earliest(&self) -> Instant {
        let now = Instant::now();
        self.started.map_or(now, |started| now.max(started + MIN_INTERVAL))
    }

    /// Drops the call under way.
    pub(super) fn drop_under_way(&mut self) {
        (self.under_way, self.slow) = (None, None);
        self.is_outdated = false;
    }

    /// Drops the call and the connection, and has the next template fetched at once.
    pub(super) fn start_again(&mut self) {
        *self = Self::new();
    }
}

/// Fetches a template over `rpc` and prepares it.
fn fetch(mut rpc: Rpc, request: String, payout: Payout) -> Fetch {
    Box::pin(async move {
        let answer = rpc.call(request.into(), TEMPLATE_BYTES, CALL_TIMEOUT).await;
        let received = Instant::now();
        let template = match answer {
            Ok(body) => parse_off_thread(body, payout, received).await,
            Err(error) => Err(error.into()),
        };
        (rpc, template)
    })
}

/// Parses the response, a large one on another thread.
async fn parse_off_thread(
    body: Bytes,
    payout: Payout,
    received: Instant,
) -> Result<PreparedTemplate, TemplateError> {
    if body.len() <= PARSE_OFF_THREAD_BYTES {
        return parse_template(&body, &payout, received);
    }
    let parse = move || parse_template(&body, &payout, received);
    tokio::task::spawn_blocking(parse)
        .await
        .unwrap_or_else(|_| Err(TemplateError::Json("parsing it failed".to_owned())))
}
