//! Connections to servers: TCP to the first of a name's addresses that answers ([`dial`]); and for the
//! protocols that need no more than a stream of bytes, TLS on top of it and a SOCKS5 proxy in between
//! ([`Transport`]).

mod dial;
mod proxy;
#[cfg(test)]
mod tests;
mod tls;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub use self::dial::{DialError, dial};
pub use self::proxy::Proxy;
pub use self::tls::{CaFile, CaFileError};

use self::tls::Tls;

/// How long connecting may take, name resolution and handshakes included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The same through a proxy, which may be Tor: building a circuit takes time.
const DEADLINE_BY_PROXY: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Whether it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_authority(f, &self.host, self.port)
    }
}

/// `host:port`, an IPv6 address in brackets.
fn write_authority(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}

/// Why there is no connection. The text does not name the endpoint: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name {host} has no address: {why}")]
    Name {
        /// The name.
        host: String,
        /// The system's error message.
        why: String,
    },
    /// No address accepted the connection: each with its reason where there are several.
    #[error("{0}")]
    Tcp(String),
    /// It took too long.
    #[error("no connection within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The proxy was not reached, or did not connect to the server.
    #[error("proxy {proxy}: {why}")]
    Proxy {
        /// The proxy as the user names it, without secrets.
        proxy: String,
        /// What it answered, or why it was not asked.
        why: String,
        /// Whether it will refuse every other attempt too.
        lasting: bool,
    },
    /// The server did not prove that it is the one that is wanted.
    #[error("the server's certificate {why}")]
    Certificate {
        /// What is wrong with it.
        why: String,
        /// What can be done about it.
        hint: Option<&'static str>,
    },
    /// TLS failed for another reason.
    #[error("TLS: {why}")]
    Tls {
        /// What went wrong.
        why: String,
        /// Whether it is because the server speaks no TLS, or no version of it that is supported.
        lasting: bool,
    },
}

impl ConnectError {
    /// Whether the same attempt will fail again until the user or the server's operator changes
    /// something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Name { .. } | Self::Tcp(_) | Self::Deadline(_) => false,
            Self::Proxy { lasting, .. } | Self::Tls { lasting, .. } => *lasting,
            Self::Certificate { .. } => true,
        }
    }

    /// Whether the cause may be that what the server sent was damaged on its way.
    #[must_use]
    pub const fn may_be_garbled(&self) -> bool {
        matches!(self, Self::Tls { .. } | Self::Certificate { .. })
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Name { host, .. } if is_onion(host) => {
                Some("onion services are reached by Tor: --proxy socks5://127.0.0.1:9050")
            }
            Self::Certificate { hint, .. } => *hint,
            Self::Proxy { lasting: true, .. } => {
                Some("check the user and password in --proxy and ADIT_PROXY_PASSWORD")
            }
            Self::Tls { lasting: true, .. } => {
                Some("is it the server's TLS port? without TLS the scheme ends in +tcp")
            }
            _ => None,
        }
    }
}

/// Whether `host` is a name that only Tor resolves.
fn is_onion(host: &str) -> bool {
    let top = host.trim_end_matches('.').rsplit('.').next();
    top.is_some_and(|top| top.eq_ignore_ascii_case("onion"))
}

/// How connections are made. Cheap to clone; clones share what was read from the system once.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    proxy: Option<Arc<Proxy>>,
    encrypts: bool,
    tls: Arc<Tls>,
    deadline: Option<Duration>,
}

impl Transport {
    /// TCP straight to the server. Once TLS is asked for, it trusts the system's root certificates and
    /// the bundled ones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.encrypts = true;
        self
    }

    /// Whether it uses TLS.
    #[must_use]
    pub const fn uses_tls(&self) -> bool {
        self.encrypts
    }

    /// The same by way of a proxy, which also resolves the names.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(Arc::new(proxy));
        self
    }

    /// The same, trusting these root certificates too.
    #[must_use]
    pub fn trust(mut self, roots: CaFile) -> Self {
        self.tls = Arc::new(Tls::with(roots));
        self
    }

    /// The same with another deadline for a whole attempt.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Connects to `to`: TCP, through the proxy where there is one, and TLS where the transport uses
    /// it. Small writes are not delayed (no Nagle), and keep-alive probes notice a dead peer.
    ///
    /// # Errors
    /// When there is no connection within the deadline; [`ConnectError::is_final`] says whether
    /// trying again can help.
    pub async fn connect(&self, to: &Endpoint) -> Result<Stream, ConnectError> {
        let usual = if self.proxy.is_some() { DEADLINE_BY_PROXY } else { DEADLINE };
        let deadline = self.deadline.unwrap_or(usual);
        timeout(deadline, self.attempt(to)).await.unwrap_or(Err(ConnectError::Deadline(deadline)))
    }

    async fn attempt(&self, to: &Endpoint) -> Result<Stream, ConnectError> {
        let tcp = match &self.proxy {
            Some(proxy) => proxy.connect(to).await?,
            None => dial(to).await?,
        };
        let inner = if self.encrypts {
            Inner::Tls(Box::new(self.tls.handshake(&to.host, tcp).await?))
        } else {
            Inner::Tcp(tcp)
        };
        Ok(Stream { inner })
    }
}

/// An open connection, with or without TLS.
#[derive(Debug)]
pub struct Stream {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => match Pin::new(stream).poll_read(cx, buf) {
                // Many servers close without TLS's close_notify. The protocols on top mark the
                // ends of their messages themselves, so nothing can be cut off unnoticed.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
