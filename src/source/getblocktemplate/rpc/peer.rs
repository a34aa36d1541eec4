//! Recognizes what listens on a port where no node answers, by the first bytes that it sends.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::chain::params::Params;

/// How many of the first bytes are kept: ZeroMQ's greeting takes ten to recognize.
const KEPT: usize = 12;

/// The first bytes that came over a connection; unset until some do.
pub type FirstBytes = Arc<OnceLock<Vec<u8>>>;

/// A protocol that is not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ZMTP, which a node's `-zmqpub...` options speak.
    ZeroMq,
    /// The peer-to-peer protocol of nodes.
    PeerToPeer,
    /// Stratum V1, or something else that sends JSON unasked.
    JsonLines,
    /// TLS.
    Tls,
    /// A secure shell.
    Ssh,
}

impl Protocol {
    /// The magic numbers that begin each message of the peer-to-peer protocol: main, testnet3,
    /// testnet4, signet, regtest (Bitcoin Core's `pchMessageStart`).
    const MAGIC: [[u8; 4]; 5] = [
        [0xf9, 0xbe, 0xb4, 0xd9],
        [0x0b, 0x11, 0x09, 0x07],
        [0x1c, 0x16, 0x3f, 0x28],
        [0x0a, 0x03, 0xcf, 0x40],
        [0xfa, 0xbf, 0xb5, 0xda],
    ];

    /// The protocol whose messages begin like this, if it is known.
    pub fn of(first: &[u8]) -> Option<Self> {
        match first {
            // ZMTP's signature: ff, eight bytes of padding, 7f.
            [0xff, _, _, _, _, _, _, _, _, 0x7f, ..] => Some(Self::ZeroMq),
            // A record of the types alert and handshake.
            [0x15 | 0x16, 0x03, ..] => Some(Self::Tls),
            [b'S', b'S', b'H', b'-', ..] => Some(Self::Ssh),
            [b'{' | b'[', ..] => Some(Self::JsonLines),
            _ if Self::MAGIC.iter().any(|magic| first.starts_with(magic)) => Some(Self::PeerToPeer),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroMq => "ZeroMQ (it is the port of one of the node's -zmqpub options)",
            Self::PeerToPeer => "the protocol that nodes speak with each other",
            Self::JsonLines => {
                "JSON without HTTP (a Stratum pool is named stratum+tcp://HOST:PORT)"
            }
            Self::Tls => "TLS (adit speaks plain HTTP with nodes)",
            Self::Ssh => "SSH",
        })
    }
}

/// Which port a node's JSON-RPC is on, for a user who has named `port`; `None` if `port` is such a
/// port.
pub fn rpc_ports(port: u16) -> Option<String> {
    let all = Params::all();
    if all.iter().any(|params| params.rpc_port == port) {
        return None;
    }
    if let Some(other) = peer_port(port) {
        return Some(other);
    }
    let ports: Vec<String> =
        all.iter().map(|params| format!("{} on {}", params.rpc_port, params.name)).collect();
    Some(format!(
        "the JSON-RPC port of a node is {}, unless its rpcport says otherwise",
        ports.join(", ")
    ))
}

/// The same if `port` is the peer-to-peer port of some chain's nodes.
pub fn peer_port(port: u16) -> Option<String> {
    // On every chain the peer-to-peer port follows the JSON-RPC port.
    let Params { name, rpc_port, .. } =
        Params::all().iter().find(|params| params.rpc_port + 1 == port)?;
    Some(format!(
        "port {port} is where nodes of {name} talk to each other; their JSON-RPC port is {rpc_port}"
    ))
}

/// A stream that keeps the first bytes that were read from it.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    first: FirstBytes,
}

impl<S> Watched<S> {
    pub fn new(stream: S) -> (Self, FirstBytes) {
        let first = FirstBytes::default();
        (Self { stream, first: first.clone() }, first)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            self.first.get_or_init(|| new[..new.len().min(KEPT)].to_vec());
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_protocol_is_recognized_by_its_first_bytes() {
        for (first, protocol) in [
            (&b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"[..], Some(Protocol::ZeroMq)),
            (b"\xfa\xbf\xb5\xdaversion\0", Some(Protocol::PeerToPeer)),
            (b"\x15\x03\x01\x00\x02", Some(Protocol::Tls)),
            (b"SSH-2.0-Open", Some(Protocol::Ssh)),
            (b"{\"id\":null", Some(Protocol::JsonLines)),
            (b"HTTP/1.1 200", None),
            (b"\xff\x00", None),
            (b"", None),
        ] {
            assert_eq!(Protocol::of(first), protocol, "{first:x?}");
        }
    }

    #[test]
    fn a_port_that_is_not_for_json_rpc_is_explained() {
        assert_eq!(rpc_ports(18443), None);
        let said = rpc_ports(18444).unwrap();
        assert!(said.contains("nodes of regtest") && said.contains("18443"), "{said}");
        let said = rpc_ports(28332).unwrap();
        for params in Params::all() {
            assert!(said.contains(&format!("{} on {}", params.rpc_port, params.name)), "{said}");
        }
    }
}
