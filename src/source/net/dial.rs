//! TCP to a host that may have many addresses, some of which lead nowhere.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{ConnectError, Endpoint};

/// How long one address is tried before the next is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried.
const ADDRESSES: usize = 16;

/// A silent connection is probed after this time, and then at this interval.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Why there is no TCP connection. [`ConnectError`] is the form for users.
#[derive(Debug)]
pub enum DialError {
    /// The name has no address.
    Name {
        /// The name.
        host: String,
        /// The system's error message.
        why: String,
    },
    /// No address accepted the connection: the errors in the order in which they came.
    Tcp(Vec<(SocketAddr, io::Error)>),
}

impl From<DialError> for ConnectError {
    /// With each address beside its reason where there are several.
    fn from(error: DialError) -> Self {
        match error {
            DialError::Name { host, why } => Self::Name { host, why },
            DialError::Tcp(failures) => {
                let several = failures.len() > 1;
                let reasons = failures.into_iter().map(|(address, error)| {
                    if several { format!("{}: {error}", address.ip()) } else { error.to_string() }
                });
                Self::Tcp(reasons.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Connects by TCP to the first address of the endpoint's host that answers. Small writes are not
/// delayed, and keep-alive probes notice a dead peer.
///
/// # Errors
/// When the name has no address, or no address accepts the connection. There is no deadline.
pub async fn dial(to: &Endpoint) -> Result<TcpStream, DialError> {
    let addresses = match to.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, to.port)],
        Err(_) => resolve(&to.host, to.port).await?,
    };
    first_of(alternating(addresses)).await
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let error = |why: String| DialError::Name { host: host.to_owned(), why };
    if super::is_onion(host) {
        // RFC 7686: such a name is not to be given to the system's resolver.
        return Err(error("it is an onion service".to_owned()));
    }
    let found = lookup_host((host, port)).await.map_err(|cause| error(cause.to_string()))?;
    let found: Vec<_> = found.take(ADDRESSES).collect();
    if found.is_empty() {
        return Err(error("the list of its addresses is empty".to_owned()));
    }
    Ok(found)
}

/// The addresses with the two families taking turns, beginning with the system's first choice.
fn alternating(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_family = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_family);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut mixed = VecDeque::new();
    loop {
        match (one.next(), other.next()) {
            (None, None) => return mixed,
            (a, b) => mixed.extend(a.into_iter().chain(b)),
        }
    }
}

/// Tries one after the other: the next when one has failed, or has not answered for [`STAGGER`]. The
/// first to answer is used, and the other attempts are dropped.
async fn first_of(mut untried: VecDeque<SocketAddr>) -> Result<TcpStream, DialError> {
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = untried.pop_front() {
            attempts.spawn(async move { connect(address).await.map_err(|error| (address, error)) });
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(STAGGER), if !untried.is_empty() => continue,
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(failure))) => failures.push(failure),
            Some(Err(error)) => tracing::debug!(%error, "an attempt to connect ended early"),
            None => return Err(DialError::Tcp(failures)),
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpListener;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    #[test]
    fn families_take_turns_and_none_is_lost() {
        let list = ["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"].map(address);
        let mixed = alternating(list.to_vec());
        assert_eq!(mixed, ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"].map(address));
        let mixed = alternating(["1.1.1.1", "::1", "2.2.2.2"].map(address).to_vec());
        assert_eq!(mixed, ["1.1.1.1", "::1", "2.2.2.2"].map(address));
        assert!(alternating(Vec::new()).is_empty());
    }

    async fn closed(ip: IpAddr) -> SocketAddr {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_refusing_address_is_followed_by_the_next() {
        let refusing = closed(Ipv6Addr::LOCALHOST.into()).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answering = listener.local_addr().unwrap();
        let stream = first_of([refusing, answering].into()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_delays_no_other() {
        // TEST-NET-1 (RFC 5737): no one answers there, or the way there is refused at once.
        let silent = SocketAddr::new("192.0.2.1".parse().unwrap(), 9);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let answering = listener.local_addr().unwrap();
        let stream = first_of([silent, answering].into()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
    }

    #[tokio::test]
    async fn when_all_fail_each_has_its_reason() {
        let one = closed(Ipv4Addr::LOCALHOST.into()).await;
        let other = closed(Ipv6Addr::LOCALHOST.into()).await;
        let error = ConnectError::from(first_of([one, other].into()).await.unwrap_err());
        assert!(!error.is_final());
        let text = error.to_string();
        assert!(text.contains("127.0.0.1: ") && text.contains("::1: "), "{text}");
        let error = ConnectError::from(first_of([one].into()).await.unwrap_err()).to_string();
        assert!(error.to_lowercase().starts_with("connection refused"), "{error}");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error_that_may_pass() {
        let to = |host: &str| Endpoint { host: host.to_owned(), port: 1 };
        let error = ConnectError::from(dial(&to("nowhere.invalid")).await.unwrap_err());
        assert!(error.to_string().starts_with("the name nowhere.invalid has no address: "));
        assert!(!error.is_final(), "the network may be down");
        let error = ConnectError::from(dial(&to("expyuzz4wqqyqhjn.onion")).await.unwrap_err());
        assert!(error.hint().unwrap().contains("--proxy"));
    }
}
