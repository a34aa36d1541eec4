//! TCP to a host that may have many addresses, some of which lead nowhere.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ConnectError;

/// How long one address is tried before the next is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried.
const ADDRESSES: usize = 16;

/// A silent connection is probed after this time, and then at this interval.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to the first address of `host` that answers.
pub(super) async fn tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => resolve(host, port).await?,
    };
    first_of(alternating(addresses)).await
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let fault = |why: String| ConnectError::Name { host: host.to_owned(), why };
    if super::is_onion(host) {
        // RFC 7686: such a name is not to be given to the system's resolver.
        return Err(fault("it is an onion service".to_owned()));
    }
    let found = lookup_host((host, port)).await.map_err(|error| fault(error.to_string()))?;
    let found: Vec<_> = found.take(ADDRESSES).collect();
    if found.is_empty() {
        return Err(fault("the list of its addresses is empty".to_owned()));
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

/// Tries one after the other: the next when one has failed, or has not answered for a while. The
/// first to answer wins, and the others are let go.
async fn first_of(mut untried: VecDeque<SocketAddr>) -> Result<TcpStream, ConnectError> {
    let several = untried.len() > 1;
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = untried.pop_front() {
            attempts.spawn(async move { (address, connect(address).await) });
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(STAGGER), if !untried.is_empty() => continue,
        };
        match ended {
            Some(Ok((_, Ok(stream)))) => return Ok(stream),
            Some(Ok((address, Err(error)))) if several => {
                failures.push(format!("{}: {error}", address.ip()));
            }
            Some(Ok((_, Err(error)))) => failures.push(error.to_string()),
            Some(Err(error)) => failures.push(error.to_string()),
            None => return Err(ConnectError::Tcp(failures.join("; "))),
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
    async fn an_address_that_keeps_silent_holds_nobody_up() {
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
        let error = first_of([one, other].into()).await.unwrap_err();
        assert!(!error.is_final());
        let text = error.to_string();
        assert!(text.contains("127.0.0.1: ") && text.contains("::1: "), "{text}");
        let error = first_of([one].into()).await.unwrap_err().to_string();
        assert!(error.to_lowercase().starts_with("connection refused"), "{error}");
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_said_to_be_none() {
        let error = tcp("nowhere.invalid", 1).await.unwrap_err();
        assert!(error.to_string().starts_with("the name nowhere.invalid has no address: "));
        assert!(!error.is_final(), "the network may be down");
        let error = tcp("expyuzz4wqqyqhjn.onion", 1).await.unwrap_err();
        assert!(error.hint().unwrap().contains("--proxy"));
    }
}
