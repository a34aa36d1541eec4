//! Learns of new tips without leaving calls behind on the node.
//!
//! A node serves each call with one of its RPC threads (`-rpcthreads`), and goes on doing so when the
//! client has gone. A longpoll ends with the next block only: sixteen of them, left behind by short
//! runs on one tip, and the node no longer answers any call. So there are none here. Instead, in this
//! order of preference:
//!
//! 1. ZeroMQ, where the node publishes blocks: within a millisecond, and it takes no RPC thread.
//! 2. `waitfornewblock`, which frees its thread when its time is over. During each wait a small call is
//!    made on another connection. If that has to wait too, a submission would as well (with
//!    `-rpcthreads=1` always, with more threads when other clients wait), and waiting is given up.
//!    A run that has just started waits for short times only, so that short runs leave next to nothing
//!    behind.
//! 3. `getbestblockhash`, twice a second.
//! 4. If the server does not know that call either, a template each second: it costs more, but serves
//!    a miner as well as a longpoll does, and ends with its response.
//!
//! None of this begins before a template has been mined for half a second: a chain that just grows
//! by our own blocks costs no call.

use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};

use super::calls::{best_block_hash, wait_for_new_block};
use super::limits::TIP_WATCH_DELAY;
use super::rpc::{Endpoint, Rpc, RpcError};
use super::zmq::{Publisher, ZmqEvent};

/// Topics that announce blocks, the best first: `hashblock` is 32 bytes a block, `sequence` also
/// announces each transaction, `rawblock` is the whole block.
const TOPICS: [&str; 3] = ["hashblock", "sequence", "rawblock"];

/// The shortest and the longest wait. In between it is half as long as the watch has lasted: what a
/// run leaves behind on the node never lasts longer than the run did.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long after the start of a wait the call is made that shows whether others are served
/// meanwhile.
const PROBE_AFTER: Duration = Duration::from_millis(20);
/// A small call that takes longer than this during a wait has been held up by it.
const HELD_UP: Duration = Duration::from_secs(1);
/// After this many waits in a row that held up a call, waiting is given up.
const HELD_UP_TIMES: u32 = 2;
/// How often the tip is polled.
const POLL: Duration = Duration::from_millis(500);
/// How often it is polled with ZeroMQ: messages can get lost, and there is none for a block that is
/// invalidated.
const POLL_WITH_ZMQ: Duration = Duration::from_secs(2);
/// How often a template is fetched if nothing else tells the tip.
const TEMPLATE_POLL: Duration = Duration::from_secs(1);
/// How long to wait after a call that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The least time from one call to the next of its kind, whatever the server answers.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What was learned of the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipUpdate {
    /// The node's tip is this block.
    Tip(BlockHash),
    /// The tip may have moved: only a template can show it.
    Unknown,
}

/// Watches a node's tip for as long as it is kept.
#[derive(Debug)]
pub struct TipWatch {
    mined: watch::Sender<Option<MinedTip>>,
    update: watch::Receiver<TipUpdate>,
    task: AbortHandle,
}

/// The block that is mined on, and since when.
#[derive(Clone, Copy, Debug)]
struct MinedTip {
    tip: BlockHash,
    since: Instant,
}

impl TipWatch {
    /// Watches the tip of the node that `rpc` calls, over connections of its own.
    pub fn start(rpc: &Rpc, endpoint: Endpoint) -> Self {
        let (mined, seen) = watch::channel(None);
        let (reports, update) = watch::channel(TipUpdate::Unknown);
        let watcher = Watcher {
            polling: rpc.sibling(),
            waiting: rpc.sibling(),
            mined: seen,
            reports,
            waits: WaitPolicy { started: Instant::now(), served: true, held_up: 0 },
            can_poll: true,
        };
        let task = tokio::spawn(watcher.run(endpoint)).abort_handle();
        Self { mined, update, task }
    }

    /// Notes which block is mined on: only another tip is reported. Without one, the tip is not
    /// watched.
    pub fn mining_on(&self, tip: Option<BlockHash>) {
        self.mined.send_if_modified(|mined| {
            let other = mined.map(|mined| mined.tip) != tip;
            if other {
                *mined = tip.map(|tip| MinedTip { tip, since: Instant::now() });
            }
            other
        });
    }

    /// Waits for another tip. May be dropped at any time and called again.
    pub async fn next(&mut self) -> TipUpdate {
        match self.update.changed().await {
            Ok(()) => *self.update.borrow_and_update(),
            // The task has failed; templates are still fetched every few seconds.
            Err(_) => pending().await,
        }
    }
}

impl Drop for TipWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How new tips are learned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TipSource {
    ZeroMq,
    Wait,
    Poll,
    Template,
}

impl fmt::Display for TipSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroMq => "announced over ZeroMQ",
            Self::Wait => "awaited with waitfornewblock",
            Self::Poll => "polled with getbestblockhash",
            Self::Template => "polled with getblocktemplate",
        })
    }
}

/// The subscription to the node's publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Pending,
    Active,
    Missing,
}

/// What the outcome of a call says of the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TipResponse {
    Tip(BlockHash),
    /// The node does not know the call, or does not let us make it.
    NotServed,
    /// There was no answer, or only a temporary one: the node is busy, restarting or gone.
    Failed,
}

/// Whether and how long to wait with `waitfornewblock` on this node.
#[derive(Clone, Copy, Debug)]
struct WaitPolicy {
    started: Instant,
    /// Whether the node knows `waitfornewblock`.
    served: bool,
    /// How many waits in a row held up another call.
    held_up: u32,
}

impl WaitPolicy {
    /// Whether to wait at all.
    const fn is_worth_it(self) -> bool {
        self.served && self.held_up < HELD_UP_TIMES
    }

    /// How long the next wait is.
    fn time(self, now: Instant) -> Duration {
        if self.held_up > 0 {
            return WAIT.0;
        }
        (now.saturating_duration_since(self.started) / 2).clamp(WAIT.0, WAIT.1)
    }

    /// Notes whether a wait held up another call.
    fn note(&mut self, held_up: bool) {
        self.held_up = if held_up { self.held_up + 1 } else { 0 };
    }
}

/// The task that watches the tip.
struct Watcher {
    polling: Rpc,
    waiting: Rpc,
    mined: watch::Receiver<Option<MinedTip>>,
    reports: watch::Sender<TipUpdate>,
    waits: WaitPolicy,
    /// Whether the node knows `getbestblockhash`.
    can_poll: bool,
}

impl Watcher {
    async fn run(mut self, endpoint: Endpoint) {
        self.wait_for_lasting_tip().await;
        let publisher = Publisher::find(&mut self.polling, &endpoint, &TOPICS).await;
        let pending =
            if publisher.is_some() { Subscription::Pending } else { Subscription::Missing };
        let (set, subscription) = watch::channel(pending);
        let (mined, reports) = (self.mined.clone(), self.reports.clone());
        let listening = async {
            let Some(publisher) = &publisher else { return };
            let on_event = |event: ZmqEvent<'_>| match event {
                ZmqEvent::Subscribed => drop(set.send_replace(Subscription::Active)),
                ZmqEvent::Lost => drop(set.send_replace(Subscription::Missing)),
                ZmqEvent::Message(body) => {
                    if let Some(update) = parse_message(publisher.topic(), body) {
                        report(update, &mined, &reports);
                    }
                }
            };
            publisher.listen(on_event).await;
        };
        tokio::join!(listening, self.watch(subscription));
    }

    /// Waits for another tip, polls it, or has templates fetched, without end.
    async fn watch(&mut self, mut subscription: watch::Receiver<Subscription>) {
        let mut logged = None;
        loop {
            let tip = self.wait_for_lasting_tip().await;
            let known = subscription.wait_for(|now| *now != Subscription::Pending).await;
            let active = known.is_ok_and(|now| *now == Subscription::Active);
            let source = match () {
                () if active => TipSource::ZeroMq,
                () if self.waits.is_worth_it() => TipSource::Wait,
                () if self.can_poll => TipSource::Poll,
                () => TipSource::Template,
            };
            if logged.replace(source) != Some(source) {
                tracing::debug!("new tips are {source}");
            }
            let started = tokio::time::Instant::now();
            match source {
                TipSource::ZeroMq => {
                    if self.can_poll {
                        self.poll().await;
                    }
                    tokio::select! {
                        () = sleep(POLL_WITH_ZMQ) => {}
                        _ = subscription.changed() => {}
                    }
                }
                TipSource::Wait => self.wait(tip).await,
                TipSource::Poll => {
                    self.poll().await;
                    sleep(POLL).await;
                }
                TipSource::Template => {
                    self.report(TipUpdate::Unknown);
                    sleep(TEMPLATE_POLL).await;
                }
            }
            sleep_until(started + MIN_INTERVAL).await;
        }
    }

    /// Waits until a block has been mined on for a while, and returns it.
    async fn wait_for_lasting_tip(&mut self) -> BlockHash {
        loop {
            let mined = *self.mined.borrow_and_update();
            match mined.map(|MinedTip { tip, since }| {
                (tip, TIP_WATCH_DELAY.saturating_sub(since.elapsed()))
            }) {
                Some((tip, Duration::ZERO)) => return tip,
                // Sleeping here means that no block of a chain that grows wakes it.
                Some((_, left)) => sleep(left).await,
                None => {
                    if self.mined.changed().await.is_err() {
                        // The watch is being dropped, and this task aborted.
                        return pending().await;
                    }
                }
            }
        }
    }

    fn report(&self, update: TipUpdate) {
        report(update, &self.mined, &self.reports);
    }

    /// Polls the tip once.
    async fn poll(&mut self) {
        match response_of(best_block_hash(&mut self.polling).await) {
            TipResponse::Tip(tip) => self.report(TipUpdate::Tip(tip)),
            TipResponse::NotServed => self.can_poll = false,
            TipResponse::Failed => {
                self.report(TipUpdate::Unknown);
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Waits once for another block than `tip`, and checks whether that holds up other calls.
    async fn wait(&mut self, tip: BlockHash) {
        let time = self.waits.time(Instant::now());
        let Self { polling, waiting, mined, reports, waits, can_poll } = self;
        let report = |update| report(update, mined, reports);
        let mut wait = pin!(async { response_of(wait_for_new_block(waiting, time).await) });
        // It also reports a tip that came between the template and the wait.
        let mut probe = pin!(async {
            sleep(PROBE_AFTER).await;
            let started = Instant::now();
            (response_of(best_block_hash(polling).await), started.elapsed())
        });
        let mut judge_probe = |probe: TipResponse, took: Duration| {
            match probe {
                TipResponse::Tip(tip) => report(TipUpdate::Tip(tip)),
                TipResponse::NotServed => *can_poll = false,
                TipResponse::Failed => report(TipUpdate::Unknown),
            }
            probe == TipResponse::Failed || took > HELD_UP
        };
        let waited = tokio::select! {
            biased;
            // If both are ready at once, the one may have waited for the other.
            waited = &mut wait => {
                if waited == TipResponse::Tip(tip) {
                    waits.note(true);
                    let (answer, took) = probe.await;
                    judge_probe(answer, took);
                }
                waited
            }
            (answer, took) = &mut probe => {
                waits.note(judge_probe(answer, took));
                wait.await
            }
        };
        match waited {
            TipResponse::Tip(tip) => report(TipUpdate::Tip(tip)),
            TipResponse::NotServed => waits.served = false,
            TipResponse::Failed => {
                waits.note(true);
                report(TipUpdate::Unknown);
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Reports a tip, unless it is the one that is mined on.
fn report(
    update: TipUpdate,
    mined: &watch::Receiver<Option<MinedTip>>,
    reports: &watch::Sender<TipUpdate>,
) {
    let Some(MinedTip { tip, .. }) = *mined.borrow() else { return };
    if update != TipUpdate::Tip(tip) {
        reports.send_replace(update);
    }
}

/// What a message of the node's publisher says of the tip.
fn parse_message(topic: &str, body: &[u8]) -> Option<TipUpdate> {
    // Published in display order: the last byte first.
    let hash = || {
        let mut bytes: [u8; 32] = body.get(..32)?.try_into().ok()?;
        bytes.reverse();
        Some(TipUpdate::Tip(BlockHash::from_byte_array(bytes)))
    };
    match topic {
        "hashblock" => hash(),
        "sequence" => match body.get(32)? {
            b'C' => hash(),
            // Disconnected: its parent is the tip now, or another block that is connected next.
            b'D' => Some(TipUpdate::Unknown),
            _ => None,
        },
        _ => {
            let header: Header = deserialize(body.get(..80)?).ok()?;
            Some(TipUpdate::Tip(header.block_hash()))
        }
    }
}

/// What the outcome of a call says.
fn response_of(outcome: Result<BlockHash, RpcError>) -> TipResponse {
    match outcome {
        Ok(tip) => TipResponse::Tip(tip),
        Err(
            RpcError::Connection(_)
            | RpcError::Deadline(_)
            // The work queue is full (503), or a proxy's complaint.
            | RpcError::Status { .. }
            // A node that restarts has no cookie yet, or another one.
            | RpcError::NoCookie(_)
            | RpcError::BadCookie { .. }
            | RpcError::Unauthorized(_)
            // It is warming up.
            | RpcError::Node { code: -28, .. },
        ) => TipResponse::Failed,
        // Method not found, not allowed by a whitelist, or another kind of response.
        Err(error) => {
            tracing::debug!(%error, "the call does not reports the tip");
            TipResponse::NotServed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn hash(first: u8) -> BlockHash {
        let mut bytes = [0; 32];
        bytes[0] = first;
        BlockHash::from_byte_array(bytes)
    }

    #[test]
    fn each_topic_tells_the_tip() {
        let mut shown = [0; 32];
        shown[31] = 7;
        let tip = Some(TipUpdate::Tip(hash(7)));
        assert_eq!(parse_message("hashblock", &shown), tip);
        let labelled =
            |label: u8| parse_message("sequence", &[&shown[..], &[label, 1, 2]].concat());
        assert_eq!((labelled(b'C'), labelled(b'D')), (tip, Some(TipUpdate::Unknown)));
        assert_eq!((labelled(b'A'), labelled(b'R')), (None, None));
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let block = bitcoin::consensus::serialize(&genesis);
        assert_eq!(
            parse_message("rawblock", &block[..80]),
            Some(TipUpdate::Tip(genesis.block_hash()))
        );
        for topic in TOPICS {
            assert_eq!(parse_message(topic, &[]), None, "{topic}");
            assert_eq!(parse_message(topic, &shown[..31]), None, "{topic}");
        }
    }

    #[test]
    fn a_run_that_has_just_started_waits_briefly_and_one_that_holds_up_others_stops_waiting() {
        let started = Instant::now();
        let mut waits = WaitPolicy { started, served: true, held_up: 0 };
        assert_eq!(waits.time(started), WAIT.0);
        assert_eq!(waits.time(started + 4 * SECOND), 2 * SECOND);
        assert_eq!(waits.time(started + 3_600 * SECOND), WAIT.1);
        waits.note(true);
        assert!(waits.is_worth_it());
        assert_eq!(waits.time(started + 3_600 * SECOND), WAIT.0);
        // One busy moment does not count.
        waits.note(false);
        waits.note(true);
        assert!(waits.is_worth_it());
        waits.note(true);
        assert!(!waits.is_worth_it());
    }

    #[test]
    fn a_node_that_is_busy_is_asked_again_and_one_that_does_not_know_the_call_is_not() {
        let of = |error| response_of(Err(error));
        assert_eq!(response_of(Ok(hash(1))), TipResponse::Tip(hash(1)));
        assert_eq!(of(RpcError::Deadline(SECOND)), TipResponse::Failed);
        assert_eq!(of(RpcError::Status { status: 503, body: String::new() }), TipResponse::Failed);
        let node = |code| RpcError::Node { code, message: String::new() };
        assert_eq!(of(node(-28)), TipResponse::Failed);
        assert_eq!(of(node(-32601)), TipResponse::NotServed);
        assert_eq!(of(RpcError::Nonsense(String::new())), TipResponse::NotServed);
    }
}
