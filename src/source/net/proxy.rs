//! SOCKS5 (RFC 1928, RFC 1929).

use std::fmt;

use tokio::net::TcpStream;
use tokio_socks::Error;
use tokio_socks::tcp::Socks5Stream;

use super::{ConnectError, Endpoint, dial};
use crate::secret::Secret;

/// A SOCKS5 proxy. It is given names, not addresses: so the proxy resolves them, as Tor must, and no
/// resolver is asked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user name, 1 to 255 bytes, where the proxy wants one.
    pub user: Option<String>,
    /// The password, 1 to 255 bytes, where the proxy wants one.
    pub password: Option<Secret>,
}

/// Without user name and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("socks5://")?;
        super::write_authority(f, &self.host, self.port)
    }
}

impl Proxy {
    /// A stream to `to` by way of the proxy.
    pub(super) async fn connect(&self, to: &Endpoint) -> Result<TcpStream, ConnectError> {
        let proxy = Endpoint { host: self.host.clone(), port: self.port };
        let stream = dial(&proxy).await.map_err(|error| ConnectError::Proxy {
            proxy: self.to_string(),
            why: ConnectError::from(error).to_string(),
            lasting: false,
        })?;
        let target = (to.host.as_str(), to.port);
        let asked = match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                let password = password.reveal();
                Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
            }
            _ => Socks5Stream::connect_with_socket(stream, target).await,
        };
        asked.map(Socks5Stream::into_inner).map_err(|error| {
            let (why, lasting) = words(&error);
            ConnectError::Proxy { proxy: self.to_string(), why, lasting }
        })
    }
}

/// What an error means, and whether the proxy will refuse every other attempt too.
fn words(error: &Error) -> (String, bool) {
    let why = match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it closed the connection"
        }
        Error::InvalidResponseVersion => "it does not speak SOCKS5",
        Error::PasswordAuthFailure(_) => return ("it refuses the user or password".into(), true),
        Error::NoAcceptableAuthMethods | Error::AuthorizationRequired => {
            return ("it wants another login than it was given".into(), true);
        }
        Error::GeneralSocksServerFailure => "it could not connect (general failure)",
        Error::ConnectionNotAllowedByRuleset => "its rules do not allow the connection",
        Error::NetworkUnreachable => "it cannot reach the server's network",
        Error::HostUnreachable => "it cannot reach the server",
        Error::ConnectionRefused => "the server refused its connection",
        Error::TtlExpired => "the route to the server is too long (TTL expired)",
        other => return (other.to_string(), false),
    };
    (why.to_owned(), false)
}
