//! Fetching templates: the one on its way, and when the next is due.

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
const BETWEEN: Duration = Duration::from_millis(50);

/// A template on its way, with the connection it comes over.
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
    /// Why the one under way takes so long.
    stalled: Option<Pin<Box<dyn Future<Output = String> + Send>>>,
    connection: Option<Rpc>,
    /// When the next is fetched.
    pub(super) due: Instant,
    /// When the last was begun.
    begun: Option<Instant>,
    /// Whether the tip has moved since the one under way was asked for.
    is_old: bool,
}

impl TemplateFetcher {
    /// The first is due at once.
    pub(super) fn new() -> Self {
        let due = Instant::now();
        Self { under_way: None, stalled: None, connection: None, due, begun: None, is_old: false }
    }

    /// Begins, if one is due and none is under way, over the kept connection or one like `rpc`.
    pub(super) fn begin(&mut self, rpc: &Rpc, fresh: bool, payout: &Payout) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + REFRESH;
        // One that is still on its way has its own deadline.
        if self.under_way.is_none() {
            self.begun = Some(now);
            let connection = self.connection.take().unwrap_or_else(|| rpc.sibling());
            self.under_way = Some(fetch(connection, template_request(fresh), payout.clone()));
            let another = rpc.sibling();
            self.stalled = Some(Box::pin(slow_node::diagnose(|| another)));
        }
    }

    /// What comes next of the one under way; never returns where none is. May be dropped at any time
    /// and called again.
    pub(super) async fn next(&mut self) -> Fetched {
        let Some(under_way) = &mut self.under_way else { return pending().await };
        let stalled = async {
            match &mut self.stalled {
                Some(stalled) => stalled.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            (connection, outcome) = under_way => {
                (self.under_way, self.stalled) = (None, None);
                self.connection = Some(connection);
                Fetched::Template(outcome.map(Box::new))
            }
            reason = stalled => {
                self.stalled = None;
                Fetched::Slow(reason)
            }
        }
    }

    /// Has the next fetched at `due`, or soon where the tip has moved since the last was asked for.
    pub(super) fn next_at(&mut self, due: Instant) {
        self.due = if std::mem::take(&mut self.is_old) { self.soon() } else { due };
    }

    /// The tip has moved.
    pub(super) fn tip_moved(&mut self) {
        // Dropping what is under way would bring no template at all while many blocks come in a row.
        if self.under_way.is_some() {
            self.is_old = true;
        } else {
            self.due = self.soon();
        }
    }

    /// At once, unless one has just been begun.
    fn soon(&self) -> Instant {
        let now = Instant::now();
        self.begun.map_or(now, |begun| now.max(begun + BETWEEN))
    }

    /// Forgets the one under way.
    pub(super) fn drop_under_way(&mut self) {
        (self.under_way, self.stalled) = (None, None);
        self.is_old = false;
    }

    /// Forgets all that is open, and has the next fetched at once.
    pub(super) fn start_again(&mut self) {
        *self = Self::new();
    }
}

/// Fetches a template over `rpc` and makes it ready.
fn fetch(mut rpc: Rpc, request: String, payout: Payout) -> Fetch {
    Box::pin(async move {
        let answer = rpc.call(request.into(), TEMPLATE_BYTES, CALL_TIMEOUT).await;
        let received = Instant::now();
        let ready = match answer {
            Ok(body) => parse_off_thread(body, payout, received).await,
            Err(error) => Err(error.into()),
        };
        (rpc, ready)
    })
}

async fn parse_off_thread(
    body: Bytes,
    payout: Payout,
    received: Instant,
) -> Result<PreparedTemplate, TemplateError> {
    if body.len() <= PARSE_OFF_THREAD_BYTES {
        return parse_template(&body, &payout, received);
    }
    let read = move || parse_template(&body, &payout, received);
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_| Err(TemplateError::Json("reading it failed".to_owned())))
}
