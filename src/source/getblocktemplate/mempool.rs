//! Knowing when a node's mempool has something to mine: told by the node over ZeroMQ where it
//! publishes what would tell, and by asking often where it does not.
//!
//! A longpoll is of no use for this: a node answers it sixty seconds after a mere transaction.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::calls::{MempoolInfo, mempool_info};
use super::rpc::{Endpoint, Rpc, RpcError};
use super::slow_node;
use super::zmq::{Publisher, ZmqEvent};

/// How often the mempool is looked at where nobody tells of it.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked at all the same where the node tells: what it publishes can get lost.
const LOOK_ALL_THE_SAME: Duration = Duration::from_millis(500);
/// How long there is no look after one transaction was told of, for others to come.
const GATHER: Duration = Duration::from_millis(10);
/// How often a mempool is told of that holds the same as before. What could not be mined then may be
/// worth its fee now.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// How long a node is left alone that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What tells of a transaction, the best first. `sequence` says in a few bytes what was added; the
/// others speak of the transactions of blocks too.
const TOPICS: [&str; 3] = ["sequence", "hashtx", "rawtx"];

/// What is told of a mempool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MempoolChange {
    /// It holds something that it did not before.
    New,
    /// It still holds what it held a while ago.
    Unchanged,
}

/// What comes of the watch.
#[derive(Debug)]
pub enum MempoolReport {
    /// The mempool holds something.
    Transactions(MempoolChange),
    /// The node has not answered for a while, with the likely cause; it is still waited for.
    Slow(String),
    /// The node does not answer, or the watch has failed: then another is to be started.
    Failed(RpcError),
}

/// Watches a node's mempool for as long as it is kept.
#[derive(Debug)]
pub struct MempoolWatch {
    reports: mpsc::Receiver<MempoolReport>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl MempoolWatch {
    /// Watches the mempool of the node that `rpc` calls.
    pub fn start(rpc: Rpc, endpoint: Endpoint) -> Self {
        // One is enough: whoever is told looks for himself.
        let (tell, reports) = mpsc::channel(1);
        let again = Arc::new(Notify::new());
        let task = tokio::spawn(watch(rpc, endpoint, tell, again.clone())).abort_handle();
        Self { reports, again, task }
    }

    /// Waits until the mempool holds something, and something else than when that was last said; or
    /// the same for a while; or until the node does not answer.
    pub async fn report(&mut self) -> MempoolReport {
        self.reports.recv().await.unwrap_or_else(|| {
            let why = "a bug in adit ended the watch of the mempool";
            MempoolReport::Failed(RpcError::Connection(why.to_owned()))
        })
    }

    /// Has the mempool told of again, if it holds anything: what was there before has been mined, or
    /// a part of it.
    pub fn look_again(&mut self) {
        while self.reports.try_recv().is_ok() {}
        self.again.notify_one();
    }
}

impl Drop for MempoolWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    mut rpc: Rpc,
    endpoint: Endpoint,
    tell: mpsc::Sender<MempoolReport>,
    again: Arc<Notify>,
) {
    let news = Arc::new(Notify::new());
    let publisher = Publisher::find(&mut rpc, &endpoint, &TOPICS).await;
    let pause = if publisher.is_some() { LOOK_ALL_THE_SAME } else { LOOK };
    tracing::debug!(
        "the mempool is watched {}",
        publisher.as_ref().map_or("by asking", |_| "over ZeroMQ")
    );
    let listening = async {
        if let Some(publisher) = &publisher {
            listen(publisher, &news).await;
        }
    };
    let another = rpc.sibling();
    let looking = async {
        let mut last: Option<(MempoolInfo, Instant)> = None;
        loop {
            let mut wait = pause;
            let looked = {
                let mut look = pin!(mempool_info(&mut rpc));
                tokio::select! {
                    biased;
                    looked = &mut look => looked,
                    reason = slow_node::diagnose(|| another.sibling()) => {
                        let _ = tell.try_send(MempoolReport::Slow(reason));
                        look.await
                    }
                }
            };
            match looked {
                Ok(mempool) => {
                    let sighting = match &last {
                        _ if mempool.size == 0 => None,
                        Some((seen, at)) if *seen == mempool => {
                            (at.elapsed() >= TELL_AGAIN).then_some(MempoolChange::Unchanged)
                        }
                        _ => Some(MempoolChange::New),
                    };
                    if let Some(sighting) = sighting {
                        // Where one is waiting to be heard, that will do.
                        let _ = tell.try_send(MempoolReport::Transactions(sighting));
                        last = Some((mempool, Instant::now()));
                    } else if mempool.size == 0 {
                        last = None;
                    }
                }
                Err(error) => {
                    let _ = tell.try_send(MempoolReport::Failed(error));
                    wait = PAUSE;
                }
            }
            tokio::select! {
                () = again.notified() => last = None,
                // Those that come together are for one block.
                () = news.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    tokio::join!(listening, looking);
}

/// Wakes the look at the mempool when the node publishes that it has changed.
async fn listen(publisher: &Publisher, news: &Notify) {
    let hear = |heard: ZmqEvent<'_>| match heard {
        // A hash of 32 bytes, and a letter that says what became of it: only what was added to
        // the mempool (A), or came back to it with a block that was undone (D), can be mined.
        ZmqEvent::Message(body) if publisher.topic() == "sequence" => {
            if body.get(32).is_none_or(|label| matches!(label, b'A' | b'D')) {
                news.notify_one();
            }
        }
        ZmqEvent::Message(_) => news.notify_one(),
        // The mempool is looked at all the same.
        ZmqEvent::Subscribed | ZmqEvent::Lost => {}
    };
    publisher.listen(hear).await;
}

#[cfg(test)]
mod tests {
    use super::super::rpc::Credentials;
    use super::*;

    #[tokio::test]
    async fn a_watch_that_has_failed_is_no_silence() {
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: 1 };
        let rpc = Rpc::new(endpoint.clone(), Credentials::Cookie(Vec::new()));
        let mut watch = MempoolWatch::start(rpc, endpoint);
        watch.task.abort();
        for _ in 0..3 {
            let report = watch.report().await;
            assert!(matches!(report, MempoolReport::Failed(RpcError::Connection(_))), "{report:?}");
        }
    }
}
