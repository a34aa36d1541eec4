//! Hearing of new tips without leaving anything behind on the node.
//!
//! A node serves each call with one of its RPC threads (`-rpcthreads`), and goes on doing so when the
//! client has gone. A longpoll ends with the next block only: sixteen of them, left behind by short
//! runs on one tip, and the node answers no calls any more. So there are none here. In this order:
//!
//! 1. ZeroMQ, where the node publishes blocks: within a millisecond, and it takes no RPC thread.
//! 2. `waitfornewblock`, which frees its thread when its time is over. Each wait is watched by a small
//!    call on another connection. Where that has to wait too, a submission would as well (with
//!    `-rpcthreads=1` always, with more threads when other clients wait), and waiting is given up.
//!    A run that is young waits for short times only, so that short runs leave next to nothing behind.
//! 3. `getbestblockhash`, twice a second.
//! 4. Where the server does not know that call either, a template each second: it costs more, but
//!    serves a miner as well as a longpoll, and ends with its answer.
//!
//! Nothing of this begins before a template has been mined for half a second: a chain that just grows
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

/// What tells of a block, the best first: `hashblock` is 32 bytes a block, `sequence` also tells of
/// each transaction, `rawblock` is the whole block.
const TOPICS: [&str; 3] = ["hashblock", "sequence", "rawblock"];

/// How long a wait takes at least, and at most. In between it is half as long as the watch has
/// lasted: what a run leaves behind on the node is never longer than the run.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// When, after a wait began, the call is made that shows whether others are served meanwhile.
const PROBE_AFTER: Duration = Duration::from_millis(20);
/// A small call that takes longer than this while we wait has been held up.
const HELD_UP: Duration = Duration::from_secs(1);
/// After so many waits in a row that held up a call, waiting is given up.
const HELD_UP_TIMES: u32 = 2;
/// How often the tip is asked for.
const ASK: Duration = Duration::from_millis(500);
/// How often it is asked for although the node publishes it: messages can get lost, and none comes
/// for a block that is invalidated.
const ASK_BESIDES: Duration = Duration::from_secs(2);
/// How often a template is fetched where the tip cannot be had otherwise.
const FETCH: Duration = Duration::from_secs(1);
/// How long a node is left alone that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The least time from one call to the next of its kind, whatever the server answers.
const LEAST: Duration = Duration::from_millis(100);

/// What is known of the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipUpdate {
    /// The node's tip is this block.
    Tip(BlockHash),
    /// The tip may have moved: only a template tells.
    Unknown,
}

/// Watches a node's tip for as long as it is kept.
#[derive(Debug)]
pub struct TipWatch {
    mined: watch::Sender<Option<MinedTip>>,
    news: watch::Receiver<TipUpdate>,
    task: AbortHandle,
}

/// The block that is built on, and since when.
#[derive(Clone, Copy, Debug)]
struct MinedTip {
    tip: BlockHash,
    since: Instant,
}

impl TipWatch {
    /// Watches the tip of the node that `rpc` calls, over connections of its own.
    pub fn start(rpc: &Rpc, endpoint: Endpoint) -> Self {
        let (mined, seen) = watch::channel(None);
        let (tell, news) = watch::channel(TipUpdate::Unknown);
        let watcher = Watcher {
            asking: rpc.sibling(),
            waiting: rpc.sibling(),
            mined: seen,
            tell,
            waits: WaitPolicy { begun: Instant::now(), served: true, held_up: 0 },
            asks: true,
        };
        let task = tokio::spawn(watcher.run(endpoint)).abort_handle();
        Self { mined, news, task }
    }

    /// Says which block is built on: news of that one is none. Without one, nothing is looked for.
    pub fn mining_on(&self, tip: Option<BlockHash>) {
        self.mined.send_if_modified(|mined| {
            let other = mined.map(|mined| mined.tip) != tip;
            if other {
                *mined = tip.map(|tip| MinedTip { tip, since: Instant::now() });
            }
            other
        });
    }

    /// Waits for the next news. May be dropped at any time and called again.
    pub async fn next(&mut self) -> TipUpdate {
        match self.news.changed().await {
            Ok(()) => *self.news.borrow_and_update(),
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

/// Where news of the tip comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TipSource {
    ZeroMq,
    Wait,
    Ask,
    Template,
}

impl fmt::Display for TipSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroMq => "heard over ZeroMQ",
            Self::Wait => "waited for with waitfornewblock",
            Self::Ask => "asked for with getbestblockhash",
            Self::Template => "found by fetching a template each second",
        })
    }
}

/// The subscription to the node's publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscription {
    Pending,
    Stands,
    Missing,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TipResponse {
    Tip(BlockHash),
    /// The node does not know the call, or does not let us make it.
    NotServed,
    /// There was no answer, or none that lasts: the node is busy, restarting or gone.
    Failed,
}

/// What is known of waiting on this node.
#[derive(Clone, Copy, Debug)]
struct WaitPolicy {
    begun: Instant,
    /// Whether the node knows `waitfornewblock`.
    served: bool,
    /// How many of our waits in a row held up another call.
    held_up: u32,
}

impl WaitPolicy {
    /// Whether waiting is worth it.
    const fn may(self) -> bool {
        self.served && self.held_up < HELD_UP_TIMES
    }

    /// How long to wait.
    fn time(self, now: Instant) -> Duration {
        if self.held_up > 0 {
            return WAIT.0;
        }
        (now.saturating_duration_since(self.begun) / 2).clamp(WAIT.0, WAIT.1)
    }

    fn judge(&mut self, held_up: bool) {
        self.held_up = if held_up { self.held_up + 1 } else { 0 };
    }
}

struct Watcher {
    asking: Rpc,
    waiting: Rpc,
    mined: watch::Receiver<Option<MinedTip>>,
    tell: watch::Sender<TipUpdate>,
    waits: WaitPolicy,
    /// Whether the node knows `getbestblockhash`.
    asks: bool,
}

impl Watcher {
    async fn run(mut self, endpoint: Endpoint) {
        self.lasting_tip().await;
        let publisher = Publisher::find(&mut self.asking, &endpoint, &TOPICS).await;
        let pending =
            if publisher.is_some() { Subscription::Pending } else { Subscription::Missing };
        let (set, subscription) = watch::channel(pending);
        let (mined, tell) = (self.mined.clone(), self.tell.clone());
        let listening = async {
            let Some(publisher) = &publisher else { return };
            let hear = |heard: ZmqEvent<'_>| match heard {
                ZmqEvent::Subscribed => drop(set.send_replace(Subscription::Stands)),
                ZmqEvent::Lost => drop(set.send_replace(Subscription::Missing)),
                ZmqEvent::Message(body) => {
                    if let Some(news) = news_of(publisher.topic(), body) {
                        pass_on(news, &mined, &tell);
                    }
                }
            };
            publisher.listen(hear).await;
        };
        tokio::join!(listening, self.look(subscription));
    }

    /// Waits for the tip, asks for it, or has templates fetched, without end.
    async fn look(&mut self, mut subscription: watch::Receiver<Subscription>) {
        let mut said = None;
        loop {
            let tip = self.lasting_tip().await;
            let known = subscription.wait_for(|now| *now != Subscription::Pending).await;
            let stands = known.is_ok_and(|now| *now == Subscription::Stands);
            let means = match () {
                () if stands => TipSource::ZeroMq,
                () if self.waits.may() => TipSource::Wait,
                () if self.asks => TipSource::Ask,
                () => TipSource::Template,
            };
            if said.replace(means) != Some(means) {
                tracing::debug!("new tips are {means}");
            }
            let begun = tokio::time::Instant::now();
            match means {
                TipSource::ZeroMq => {
                    if self.asks {
                        self.ask().await;
                    }
                    tokio::select! {
                        () = sleep(ASK_BESIDES) => {}
                        _ = subscription.changed() => {}
                    }
                }
                TipSource::Wait => self.wait(tip).await,
                TipSource::Ask => {
                    self.ask().await;
                    sleep(ASK).await;
                }
                TipSource::Template => {
                    self.tell(TipUpdate::Unknown);
                    sleep(FETCH).await;
                }
            }
            sleep_until(begun + LEAST).await;
        }
    }

    /// The block that has been built on for a while.
    async fn lasting_tip(&mut self) -> BlockHash {
        loop {
            let mined = *self.mined.borrow_and_update();
            match mined.map(|MinedTip { tip, since }| {
                (tip, TIP_WATCH_DELAY.saturating_sub(since.elapsed()))
            }) {
                Some((tip, Duration::ZERO)) => return tip,
                // Not woken by each block of a chain that grows.
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

    fn tell(&self, news: TipUpdate) {
        pass_on(news, &self.mined, &self.tell);
    }

    /// Asks for the tip once.
    async fn ask(&mut self) {
        match response_of(best_block_hash(&mut self.asking).await) {
            TipResponse::Tip(tip) => self.tell(TipUpdate::Tip(tip)),
            TipResponse::NotServed => self.asks = false,
            TipResponse::Failed => {
                self.tell(TipUpdate::Unknown);
                sleep(PAUSE).await;
            }
        }
    }

    /// Waits once for another block than `tip`, and finds out whether that holds up other calls.
    async fn wait(&mut self, tip: BlockHash) {
        let time = self.waits.time(Instant::now());
        let Self { asking, waiting, mined, tell, waits, asks } = self;
        let tell = |news| pass_on(news, mined, tell);
        let mut wait = pin!(async { response_of(wait_for_new_block(waiting, time).await) });
        // It also tells of a tip that came between the template and the wait.
        let mut probe = pin!(async {
            sleep(PROBE_AFTER).await;
            let begun = Instant::now();
            (response_of(best_block_hash(asking).await), begun.elapsed())
        });
        let mut judge_probe = |probe: TipResponse, took: Duration| {
            match probe {
                TipResponse::Tip(tip) => tell(TipUpdate::Tip(tip)),
                TipResponse::NotServed => *asks = false,
                TipResponse::Failed => tell(TipUpdate::Unknown),
            }
            probe == TipResponse::Failed || took > HELD_UP
        };
        let waited = tokio::select! {
            biased;
            // Where both are there at once, the one may have waited for the other.
            waited = &mut wait => {
                if waited == TipResponse::Tip(tip) {
                    waits.judge(true);
                    let (answer, took) = probe.await;
                    judge_probe(answer, took);
                }
                waited
            }
            (answer, took) = &mut probe => {
                waits.judge(judge_probe(answer, took));
                wait.await
            }
        };
        match waited {
            TipResponse::Tip(tip) => tell(TipUpdate::Tip(tip)),
            TipResponse::NotServed => waits.served = false,
            TipResponse::Failed => {
                waits.judge(true);
                tell(TipUpdate::Unknown);
                sleep(PAUSE).await;
            }
        }
    }
}

/// Passes news on that are any.
fn pass_on(
    news: TipUpdate,
    mined: &watch::Receiver<Option<MinedTip>>,
    tell: &watch::Sender<TipUpdate>,
) {
    let Some(MinedTip { tip, .. }) = *mined.borrow() else { return };
    if news != TipUpdate::Tip(tip) {
        tell.send_replace(news);
    }
}

/// What a message of the node's publisher says of the tip.
fn news_of(topic: &str, body: &[u8]) -> Option<TipUpdate> {
    // Published as people write a hash: the last byte first.
    let hash = || {
        let mut bytes: [u8; 32] = body.get(..32)?.try_into().ok()?;
        bytes.reverse();
        Some(TipUpdate::Tip(BlockHash::from_byte_array(bytes)))
    };
    match topic {
        "hashblock" => hash(),
        "sequence" => match body.get(32)? {
            b'C' => hash(),
            // Disconnected: its parent is the tip, or another block that is connected next.
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
        // Method not found, refused by a whitelist, or answered with something else.
        Err(error) => {
            tracing::debug!(%error, "the node tells no tip");
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
        assert_eq!(news_of("hashblock", &shown), tip);
        let labelled = |label: u8| news_of("sequence", &[&shown[..], &[label, 1, 2]].concat());
        assert_eq!((labelled(b'C'), labelled(b'D')), (tip, Some(TipUpdate::Unknown)));
        assert_eq!((labelled(b'A'), labelled(b'R')), (None, None));
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let block = bitcoin::consensus::serialize(&genesis);
        assert_eq!(news_of("rawblock", &block[..80]), Some(TipUpdate::Tip(genesis.block_hash())));
        for topic in TOPICS {
            assert_eq!(news_of(topic, &[]), None, "{topic}");
            assert_eq!(news_of(topic, &shown[..31]), None, "{topic}");
        }
    }

    #[test]
    fn a_young_run_waits_shortly_and_one_that_holds_up_others_gives_it_up() {
        let begun = Instant::now();
        let mut waits = WaitPolicy { begun, served: true, held_up: 0 };
        assert_eq!(waits.time(begun), WAIT.0);
        assert_eq!(waits.time(begun + 4 * SECOND), 2 * SECOND);
        assert_eq!(waits.time(begun + 3_600 * SECOND), WAIT.1);
        waits.judge(true);
        assert!(waits.may());
        assert_eq!(waits.time(begun + 3_600 * SECOND), WAIT.0);
        // One busy moment is none.
        waits.judge(false);
        waits.judge(true);
        assert!(waits.may());
        waits.judge(true);
        assert!(!waits.may());
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
