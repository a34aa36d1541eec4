//! Knowing when a node's mempool has something to mine: told by the node over ZeroMQ where it
//! publishes what would tell, and by asking often where it does not.
//!
//! A longpoll is of no use for this: a node answers it sixty seconds after a mere transaction.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Number;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::rpc::{Endpoint, Envelope, Rpc, RpcError};
use super::session::request;
use super::zmtp::{Subscriber, ZmtpError};
use super::{ANSWER_BYTES, DEADLINE};

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
/// How long connecting to the node's publisher may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What tells of a transaction, the best first: each is a topic that `getzmqnotifications` calls
/// `pub` and the topic. `sequence` says in a few bytes what was added; the others speak of the
/// transactions of blocks too.
const TOPICS: [&str; 3] = ["sequence", "hashtx", "rawtx"];

/// What is told of a mempool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It holds something that it did not before.
    New,
    /// It holds what it held a while ago.
    Still,
}

/// Watches a node's mempool for as long as it is kept.
#[derive(Debug)]
pub struct MempoolWatch {
    sightings: mpsc::Receiver<Result<Sighting, RpcError>>,
    again: Arc<Notify>,
    task: AbortHandle,
}

impl MempoolWatch {
    /// Watches the mempool of the node that `rpc` calls.
    pub fn start(rpc: Rpc, endpoint: Endpoint) -> Self {
        // One is enough: whoever is told looks for himself.
        let (tell, sightings) = mpsc::channel(1);
        let again = Arc::new(Notify::new());
        let task = tokio::spawn(watch(rpc, endpoint, tell, again.clone())).abort_handle();
        Self { sightings, again, task }
    }

    /// Waits until the mempool holds something, and something else than when that was last said; or
    /// the same for a while; or until the node does not answer.
    ///
    /// # Errors
    /// When it does not, and when the watch has failed: then another is to be started.
    pub async fn sighting(&mut self) -> Result<Sighting, RpcError> {
        self.sightings.recv().await.unwrap_or_else(|| {
            let why = "a bug in adit ended the watch of the mempool";
            Err(RpcError::Connection(why.to_owned()))
        })
    }

    /// Has the mempool told of again, if it holds anything: what was there before has been mined, or
    /// a part of it.
    pub fn look_again(&mut self) {
        while self.sightings.try_recv().is_ok() {}
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
    tell: mpsc::Sender<Result<Sighting, RpcError>>,
    again: Arc<Notify>,
) {
    let news = Arc::new(Notify::new());
    let publisher = publisher(&mut rpc, &endpoint).await;
    let pause = if publisher.is_some() { LOOK_ALL_THE_SAME } else { LOOK };
    tracing::debug!(
        "the mempool is watched {}",
        publisher.as_ref().map_or("by asking", |_| "over ZeroMQ")
    );
    let listening = async {
        if let Some((topic, address)) = publisher {
            listen(topic, &address, &news).await;
        }
    };
    let looking = async {
        let mut last: Option<(Mempool, Instant)> = None;
        loop {
            let mut wait = pause;
            match look(&mut rpc).await {
                Ok(mempool) => {
                    let sighting = match &last {
                        _ if mempool.size == 0 => None,
                        Some((seen, at)) if *seen == mempool => {
                            (at.elapsed() >= TELL_AGAIN).then_some(Sighting::Still)
                        }
                        _ => Some(Sighting::New),
                    };
                    if let Some(sighting) = sighting {
                        // Where one is waiting to be heard, that will do.
                        let _ = tell.try_send(Ok(sighting));
                        last = Some((mempool, Instant::now()));
                    } else if mempool.size == 0 {
                        last = None;
                    }
                }
                Err(error) => {
                    let _ = tell.try_send(Err(error));
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

/// What a mempool holds, short.
#[derive(Debug, PartialEq, Deserialize)]
struct Mempool {
    size: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    usage: u64,
    #[serde(default)]
    total_fee: Option<Number>,
}

async fn look(rpc: &mut Rpc) -> Result<Mempool, RpcError> {
    let body = rpc.call(request("getmempoolinfo", "").into(), ANSWER_BYTES, DEADLINE).await?;
    let envelope: Envelope<Mempool> =
        serde_json::from_slice(&body).map_err(|error| RpcError::Nonsense(error.to_string()))?;
    envelope
        .into_result()?
        .ok_or_else(|| RpcError::Nonsense("the node says nothing of its mempool".to_owned()))
}

#[derive(Debug, Deserialize)]
struct Publisher {
    r#type: String,
    address: String,
}

/// What the node publishes that would tell of a transaction, and where.
async fn publisher(rpc: &mut Rpc, endpoint: &Endpoint) -> Option<(&'static str, String)> {
    let body = request("getzmqnotifications", "");
    // A node without ZeroMQ does not know the call.
    let body = rpc.call(body.into(), ANSWER_BYTES, DEADLINE).await.ok()?;
    let envelope: Envelope<Vec<Publisher>> = serde_json::from_slice(&body).ok()?;
    let publishers = envelope.into_result().ok()??;
    TOPICS.iter().find_map(|topic| {
        let of_topic = |publisher: &&Publisher| publisher.r#type.strip_prefix("pub") == Some(topic);
        let mut addresses = publishers.iter().filter(of_topic);
        addresses.find_map(|publisher| Some((*topic, reachable(&publisher.address, endpoint)?)))
    })
}

/// The host and port at which a publisher is to be reached that says it listens at `address`, if it
/// can be from here: TCP, on the node's machine.
fn reachable(address: &str, endpoint: &Endpoint) -> Option<String> {
    let address = address.strip_prefix("tcp://")?;
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let everywhere = host == "*" || ip.is_some_and(|ip| ip.is_unspecified());
    let here = ip.is_some_and(|ip| ip.is_loopback()) || host == "localhost";
    if everywhere {
        let node = Endpoint { host: endpoint.host.clone(), port };
        Some(node.to_string())
    } else if here && !endpoint.is_loopback() {
        // Another machine's loopback: what listens there on this one is something else.
        None
    } else {
        Some(address.to_owned())
    }
}

/// Passes on what the node publishes, for ever. What goes wrong is tried again; the mempool is looked
/// at all the same.
async fn listen(topic: &str, address: &str, news: &Notify) {
    loop {
        if let Err(error) = hear(topic, address, news).await {
            tracing::debug!(%error, "{address}: nothing is heard of the mempool");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(topic: &str, address: &str, news: &Notify) -> Result<(), ZmtpError> {
    let subscribing = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Subscriber::subscribe(stream, topic).await
    };
    let subscribed = tokio::time::timeout(CONNECT, subscribing).await;
    let mut subscriber = subscribed.map_err(io::Error::from)??;
    loop {
        let message = subscriber.message().await?;
        if message.first().is_none_or(|first| first != topic.as_bytes()) {
            continue;
        }
        // A hash of 32 bytes, and a letter that says what became of it: only what was added to
        // the mempool (A), or came back to it with a block that was undone (D), can be mined.
        let label = message.get(1).filter(|_| topic == "sequence").and_then(|body| body.get(32));
        if label.is_none_or(|label| matches!(label, b'A' | b'D')) {
            news.notify_one();
        }
    }
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
        while watch.sighting().await.is_ok() {}
        let error = watch.sighting().await.unwrap_err();
        assert!(matches!(error, RpcError::Connection(_)), "{error}");
    }

    #[test]
    fn a_publisher_is_sought_where_the_node_is() {
        let at = |address: &str, host: &str| {
            reachable(address, &Endpoint { host: host.to_owned(), port: 18443 })
        };
        let is = |address: &str| Some(address.to_owned());
        assert_eq!(at("tcp://127.0.0.1:28332", "127.0.0.1"), is("127.0.0.1:28332"));
        assert_eq!(at("tcp://0.0.0.0:28332", "10.0.0.5"), is("10.0.0.5:28332"));
        assert_eq!(at("tcp://*:28332", "localhost"), is("localhost:28332"));
        assert_eq!(at("tcp://[::]:28332", "::1"), is("[::1]:28332"));
        assert_eq!(at("tcp://192.168.0.7:28332", "127.0.0.1"), is("192.168.0.7:28332"));
        // Not for us: another machine's own loopback, a socket file, nonsense.
        assert_eq!(at("tcp://127.0.0.1:28332", "10.0.0.5"), None);
        assert_eq!(at("ipc:///run/zmq", "127.0.0.1"), None);
        for nonsense in ["", "tcp://", "tcp://h", "tcp://h:x", "tcp://:99999"] {
            assert_eq!(at(nonsense, "127.0.0.1"), None, "{nonsense}");
        }
    }
}
