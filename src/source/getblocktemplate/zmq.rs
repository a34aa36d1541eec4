//! What a node publishes over ZeroMQ: found with `getzmqnotifications`, and listened to for as long
//! as it is wanted.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::calls::{ZmqNotification, zmq_notifications};
use super::rpc::{Endpoint, Rpc};
use super::zmtp::{Subscriber, ZmtpError};

/// How long connecting to the node's publisher may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait before connecting again to a publisher that could not be reached, or was lost.
const RETRY: Duration = Duration::from_secs(1);

/// A topic that a node publishes, and where.
#[derive(Debug)]
pub struct Publisher {
    topic: &'static str,
    address: String,
}

/// What happens while listening.
#[derive(Debug)]
pub enum ZmqEvent<'a> {
    /// The subscription is active: what is published from now on arrives.
    Subscribed,
    /// The beginning of a message's body: at most [`zmtp::PART_BYTES`](super::zmtp::PART_BYTES).
    Message(&'a [u8]),
    /// The publisher cannot be reached, or the connection was lost: another attempt follows.
    Lost,
}

impl Publisher {
    /// Asks the node for a publisher of the first of `topics` (as in `-zmqpub<topic>`) that it
    /// publishes at an address which can be reached from here. `None` also if the node does not
    /// answer in time: all that is published over ZeroMQ can be polled, too.
    pub async fn find(rpc: &mut Rpc, endpoint: &Endpoint, topics: &[&'static str]) -> Option<Self> {
        let published = zmq_notifications(rpc).await?;
        topics.iter().find_map(|&topic| {
            let of_topic = |line: &&ZmqNotification| line.r#type.strip_prefix("pub") == Some(topic);
            let mut lines = published.iter().filter(of_topic);
            let address = lines.find_map(|line| reachable(&line.address, endpoint))?;
            Some(Self { topic, address })
        })
    }

    /// The topic.
    pub const fn topic(&self) -> &'static str {
        self.topic
    }

    /// Passes on what is published, without end; connects again when the connection is lost.
    pub async fn listen(&self, mut on_event: impl FnMut(ZmqEvent<'_>)) {
        loop {
            if let Err(error) = self.listen_once(&mut on_event).await {
                tracing::debug!(%error, "{}: no subscription to {}", self.address, self.topic);
            }
            on_event(ZmqEvent::Lost);
            sleep(RETRY).await;
        }
    }

    async fn listen_once(&self, on_event: &mut impl FnMut(ZmqEvent<'_>)) -> Result<(), ZmtpError> {
        let subscribing = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            Subscriber::subscribe(stream, self.topic).await
        };
        let subscribed = timeout(CONNECT, subscribing).await;
        let mut subscriber = subscribed.map_err(io::Error::from)??;
        on_event(ZmqEvent::Subscribed);
        loop {
            let message = subscriber.message().await?;
            // Topic, body, and a counter.
            if message.first().is_some_and(|first| first == self.topic.as_bytes()) {
                on_event(ZmqEvent::Message(message.get(1).map_or(&[], Vec::as_slice)));
            }
        }
    }
}

/// The host and port at which a publisher can be reached from here that says it listens at
/// `address`: TCP, on the node's machine.
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
        // Another machine's loopback: what listens there on this machine is something else.
        None
    } else {
        Some(address.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
