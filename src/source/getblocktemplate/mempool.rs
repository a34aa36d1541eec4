//! Notices when a node's mempool has something to mine: over ZeroMQ if the node publishes its
//! transactions, and by polling often if it does not.
//!
//! A longpoll would not do: a node answers it only sixty seconds after a new transaction.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::calls::{MempoolInfo, mempool_info};
use super::rpc::{Endpoint, Rpc, RpcError};
use super::slow_node;
use super::zmq::{Publisher, ZmqEvent};

/// How often the mempool is polled without ZeroMQ.
const POLL: Duration = Duration::from_millis(100);
/// How often it is polled with ZeroMQ: messages can get lost.
const POLL_WITH_ZMQ: Duration = Duration::from_millis(500);
/// How long polling waits after a message, for other transactions that come with it.
const GATHER: Duration = Duration::from_millis(10);
/// How often a mempool is reported that holds the same as before. What could not be mined then may be
/// worth its fee now.
const REPORT_AGAIN: Duration = Duration::from_secs(10);
/// How long to wait after a call that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Topics that announce transactions, the best first. `sequence` says in a few bytes what was
/// added; the others announce the transactions of blocks too.
const TOPICS: [&str; 3] = ["sequence", "hashtx", "rawtx"];

/// How a mempool has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MempoolChange {
    /// It holds something that it did not before.
    New,
    /// It still holds what it held a while ago.
    Unchanged,
}

/// What the watch reports.
#[derive(Debug)]
pub enum MempoolReport {
    /// The mempool holds something.
    Transactions(MempoolChange),
    /// The node has not answered for a while, and the call is still under way; the likely cause.
    Slow(String),
    /// The node does not answer, or the watch has failed: another is to be started.
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
        // One is enough: the receiver fetches a template then.
        let (tell, reports) = mpsc::channel(1);
        let again = Arc::new(Notify::new());
        let task = tokio::spawn(watch(rpc, endpoint, tell, again.clone())).abort_handle();
        Self { reports, again, task }
    }

    /// Waits until the mempool holds something else than when it was last reported, or the same for a
    /// while, or until the node does not answer. May be dropped at any time and called again.
    pub async fn report(&mut self) -> MempoolReport {
        self.reports.recv().await.unwrap_or_else(|| {
            let why = "a bug in adit ended the watch of the mempool";
            MempoolReport::Failed(RpcError::Connection(why.to_owned()))
        })
    }

    /// Has the mempool reported again if it holds anything: what was there before has been mined,
    /// or a part of it.
    pub fn report_again(&mut self) {
        while self.reports.try_recv().is_ok() {}
        self.again.notify_one();
    }
}

impl Drop for MempoolWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Polls the mempool, and listens for what the node publishes, without end.
async fn watch(
    mut rpc: Rpc,
    endpoint: Endpoint,
    tell: mpsc::Sender<MempoolReport>,
    again: Arc<Notify>,
) {
    let changed = Arc::new(Notify::new());
    let publisher = Publisher::find(&mut rpc, &endpoint, &TOPICS).await;
    let pause = if publisher.is_some() { POLL_WITH_ZMQ } else { POLL };
    tracing::debug!(
        "the mempool is watched {}",
        publisher.as_ref().map_or("by polling", |_| "over ZeroMQ")
    );
    let listening = async {
        if let Some(publisher) = &publisher {
            listen(publisher, &changed).await;
        }
    };
    let another = rpc.sibling();
    let polling = async {
        let mut last: Option<(MempoolInfo, Instant)> = None;
        loop {
            let mut wait = pause;
            let info = {
                let mut call = pin!(mempool_info(&mut rpc));
                tokio::select! {
                    biased;
                    info = &mut call => info,
                    reason = slow_node::diagnose(|| another.sibling()) => {
                        let _ = tell.try_send(MempoolReport::Slow(reason));
                        call.await
                    }
                }
            };
            match info {
                Ok(mempool) => {
                    let change = match &last {
                        _ if mempool.size == 0 => None,
                        Some((seen, at)) if *seen == mempool => {
                            (at.elapsed() >= REPORT_AGAIN).then_some(MempoolChange::Unchanged)
                        }
                        _ => Some(MempoolChange::New),
                    };
                    if let Some(change) = change {
                        // If one is waiting to be received, that will do.
                        let _ = tell.try_send(MempoolReport::Transactions(change));
                        last = Some((mempool, Instant::now()));
                    } else if mempool.size == 0 {
                        last = None;
                    }
                }
                Err(error) => {
                    let _ = tell.try_send(MempoolReport::Failed(error));
                    wait = RETRY_PAUSE;
                }
            }
            tokio::select! {
                () = again.notified() => last = None,
                // Transactions that come together are for one block.
                () = changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    };
    tokio::join!(listening, polling);
}

/// Wakes the call at the mempool when the node publishes that it has changed.
async fn listen(publisher: &Publisher, changed: &Notify) {
    let on_event = |event: ZmqEvent<'_>| match event {
        // A hash of 32 bytes and a letter: only what was added to the mempool (A), or came back to it
        // with a block that was disconnected (D), can be mined.
        ZmqEvent::Message(body) if publisher.topic() == "sequence" => {
            if body.get(32).is_none_or(|label| matches!(label, b'A' | b'D')) {
                changed.notify_one();
            }
        }
        ZmqEvent::Message(_) => changed.notify_one(),
        // The mempool is info at all the same.
        ZmqEvent::Subscribed | ZmqEvent::Lost => {}
    };
    publisher.listen(on_event).await;
}

#[cfg(test)]
mod tests {
    use super::super::rpc::Credentials;
    use super::*;

    #[tokio::test]
    async fn a_watch_that_has_failed_is_reported() {
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
