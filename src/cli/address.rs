//! Addresses of nodes and pools as a command line names them.

use std::fmt;
use std::str::FromStr;

use super::values::ValueError;
use crate::secret::Secret;
use crate::source::net::Proxy;

/// A node's JSON-RPC address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcUrl {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The user name, where the URL has one.
    pub user: Option<String>,
    /// The password, where the URL has one.
    pub password: Option<Secret>,
}

impl RpcUrl {
    /// `HOST:PORT` as an HTTP request names it: IPv6 addresses in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// Without user name and password.
impl fmt::Display for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// A pool's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUrl {
    /// Whether it is spoken to in TLS.
    pub tls: bool,
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The worker's name, where the URL has one.
    pub user: Option<String>,
    /// Its password, where the URL has one.
    pub password: Option<Secret>,
}

/// Without user name and password.
impl fmt::Display for PoolUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "stratum+tls" } else { "stratum+tcp" };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

impl PoolUrl {
    /// Takes what follows the scheme.
    ///
    /// # Errors
    /// When there is no host or port, or something that does not belong there.
    pub fn parse(rest: &str, tls: bool) -> Result<Self, ValueError> {
        // Other miners want this said; we ask every pool for changes of the extranonce.
        let rest = rest.strip_suffix("#xnsub").unwrap_or(rest);
        let (host, port, user, password) = parts(rest, &POOL)?;
        Ok(Self { tls, host, port, user, password })
    }
}

/// Takes what follows `http://`.
impl FromStr for RpcUrl {
    type Err = ValueError;

    fn from_str(rest: &str) -> Result<Self, ValueError> {
        let (host, port, user, password) = parts(rest, &NODE)?;
        Ok(Self { host, port, user, password })
    }
}

/// Takes a proxy's URL.
///
/// # Errors
/// When its scheme is another, when there is no host or port, or something that does not belong
/// there.
pub fn proxy(text: &str) -> Result<Proxy, ValueError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(ValueError::new("the scheme is missing").hint(PROXY_FORM));
    };
    // Names go to the proxy with either scheme; curl has a word of its own for it.
    if !["socks5", "socks5h"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(
            ValueError::new("adit speaks SOCKS5 to a proxy and nothing else").hint(PROXY_FORM)
        );
    }
    let (host, port, user, password) = parts(rest, &PROXY)?;
    let wrong = |what| ValueError::new(format!("the {what} must have 1 to 255 bytes"));
    if user.as_ref().is_some_and(|user| !(1..=255).contains(&user.len())) {
        return Err(wrong("user name"));
    }
    if password.as_ref().is_some_and(|password| !(1..=255).contains(&password.reveal().len())) {
        return Err(wrong("password"));
    }
    Ok(Proxy { host, port, user, password })
}

/// `HOST:PORT`, IPv6 addresses in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The hint for a wrong address.
struct Peer {
    /// Where the address goes on after the port.
    path: &'static str,
    /// Where the port is missing.
    ports: &'static str,
    /// Where an IPv6 address has no brackets.
    ipv6: &'static str,
}

const NODE: Peer = Peer {
    path: "mining needs no wallet: leave the path away",
    ports: "nodes listen on 8332 (main), 18332 (testnet3), 48332 (testnet4), 38332 (signet) and 18443 \
            (regtest) unless told otherwise",
    ipv6: "http://[::1]:18443",
};

const POOL: Peer = Peer {
    path: "a pool's address ends with the port",
    ports: "each pool has its own; 3333 is a usual one",
    ipv6: "stratum+tcp://[::1]:3333",
};

const PROXY_FORM: &str = "write it like socks5://127.0.0.1:9050";

const PROXY: Peer = Peer {
    path: "a proxy's address ends with the port",
    ports: "Tor listens on 9050, and 1080 is the usual port of others",
    ipv6: "socks5://[::1]:9050",
};

/// Host, port, user name and password.
type Parts = (String, u16, Option<String>, Option<Secret>);

/// Takes what follows the scheme apart.
fn parts(rest: &str, peer: &Peer) -> Result<Parts, ValueError> {
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ValueError::new("an address has no spaces or control characters in it")
            .hint("in a user name or password write them as %20 and so on"));
    }
    // The last '@' ends the login, so that a password may hold one; only what follows can
    // have a path, so that it may hold a '/' as well.
    let (login, address) = match rest.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, rest),
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    if address.contains(['/', '?', '#']) {
        return Err(ValueError::new("the address goes on after the port").hint(peer.path));
    }
    let (host, port) = host_and_port(address, peer)?;
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => (None, None),
        Some(Err(user)) => (Some(percent_decoded(user)?), None),
        Some(Ok((user, password))) => {
            (Some(percent_decoded(user)?), Some(Secret::from(percent_decoded(password)?)))
        }
    };
    Ok((host, port, user, password))
}

fn host_and_port(address: &str, peer: &Peer) -> Result<(String, u16), ValueError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed
                .split_once(']')
                .ok_or_else(|| ValueError::new("the bracket of the IPv6 address is not closed"))?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| ValueError::new("what stands in brackets is no IPv6 address"))?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(ValueError::new("there is more than one colon after the login")
                    .hint(format!("an IPv6 address stands in brackets: {}", peer.ipv6)));
            }
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(ValueError::new("the host is missing"));
    }
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !host.chars().all(of_a_name) {
        return Err(ValueError::new("the host is neither a name nor an IP address"));
    }
    let ports = peer.ports;
    let port = port.ok_or_else(|| ValueError::new("the port is missing").hint(ports))?;
    match port.parse() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((host.to_owned(), number))
        }
        _ => Err(ValueError::new("the port is no number from 1 to 65535").hint(ports)),
    }
}

fn percent_decoded(text: &str) -> Result<String, ValueError> {
    let wrong = || {
        ValueError::new("a % in the user name or password is not followed by two hex digits")
            .hint("write a % itself as %25")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).map_err(|_| wrong())?;
        bytes.push(byte[0]);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| ValueError::new("the user name or password is not UTF-8"))
}
