//! Addresses of nodes, pools and proxies as a command line names them.

use std::fmt;

use crate::secret::Secret;
use crate::source::net::{Endpoint, Proxy};
use crate::value_error::ValueError;

/// A source's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The scheme, as it is shown.
    pub scheme: &'static str,
    /// The host and the port.
    pub endpoint: Endpoint,
    /// The user name, where the URL has one.
    pub user: Option<String>,
    /// The password, where the URL has one.
    pub password: Option<Secret>,
}

/// Without user name and password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.endpoint)
    }
}

/// Takes what follows the scheme.
///
/// # Errors
/// When there is no host or port, or something that does not belong there.
pub(super) fn url(rest: &str, scheme: &'static str, hints: &Hints) -> Result<Url, ValueError> {
    let (host, port, user, password) = parts(rest, hints)?;
    Ok(Url { scheme, endpoint: Endpoint { host, port }, user, password })
}

/// Takes a proxy's URL.
///
/// # Errors
/// When its scheme is another, when there is no host or port, or something that does not belong
/// there.
pub(super) fn proxy(text: &str) -> Result<Proxy, ValueError> {
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

/// The hints for a wrong address.
pub(super) struct Hints {
    /// Where the address goes on after the port.
    pub(super) path: &'static str,
    /// Where the port is missing.
    pub(super) ports: &'static str,
    /// Where an IPv6 address has no brackets.
    pub(super) ipv6: &'static str,
}

const PROXY_FORM: &str = "write it like socks5://127.0.0.1:9050";

const PROXY: Hints = Hints {
    path: "a proxy's address ends with the port",
    ports: "Tor listens on 9050, and 1080 is the usual port of others",
    ipv6: "socks5://[::1]:9050",
};

/// Host, port, user name and password.
type Parts = (String, u16, Option<String>, Option<Secret>);

/// Takes what follows the scheme apart.
fn parts(rest: &str, hints: &Hints) -> Result<Parts, ValueError> {
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
        return Err(ValueError::new("the address goes on after the port").hint(hints.path));
    }
    let (host, port) = host_and_port(address, hints)?;
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        None => (None, None),
        Some(Err(user)) => (Some(percent_decoded(user)?), None),
        Some(Ok((user, password))) => {
            (Some(percent_decoded(user)?), Some(Secret::from(percent_decoded(password)?)))
        }
    };
    Ok((host, port, user, password))
}

fn host_and_port(address: &str, hints: &Hints) -> Result<(String, u16), ValueError> {
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
                    .hint(format!("an IPv6 address stands in brackets: {}", hints.ipv6)));
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
    let ports = hints.ports;
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
