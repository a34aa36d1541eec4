//! A subscriber to one topic: the part of ZMTP 3.0 (ZeroMQ RFC 23) without security that this takes.
//!
//! Whatever the publisher sends, and however long it says that a frame is, only a few bytes of it are
//! kept: see [`Part`].

use std::io;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

/// How many bytes of a message's part are kept: a block header's. The rest is read and dropped.
pub const PART_BYTES: usize = 80;
/// The most parts of a message. A node's messages have three.
const PARTS: usize = 8;
/// The longest command that is read, in bytes. A publisher's READY has about thirty.
const COMMAND_BYTES: u64 = 512;

/// Frame flags (RFC 23, section "Framing").
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The greeting: signature, version 3.0, mechanism NULL, no server, filler.
const GREETING: [u8; 64] = {
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    let mechanism = b"NULL";
    let mut at = 0;
    while at < mechanism.len() {
        greeting[12 + at] = mechanism[at];
        at += 1;
    }
    greeting
};
/// The command READY: a name with its length in one byte, and a property whose value has its length
/// in four.
const READY: &[u8] = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB";

/// Why the subscription ended.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other end speaks another protocol, or another dialect.
    #[error("the publisher does not speak ZMTP 3 as expected: {0}")]
    Protocol(&'static str),
}

/// The beginning of a message's part.
pub type Part = Vec<u8>;

/// A connection to a publisher.
#[derive(Debug)]
pub struct Subscriber<S> {
    stream: BufReader<S>,
}

/// A frame's head.
struct Head {
    more: bool,
    command: bool,
    /// Bytes that follow, as the publisher says.
    size: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Subscriber<S> {
    /// Makes the handshake with the publisher at the other end of `stream` and subscribes to what
    /// begins with `topic`.
    ///
    /// # Errors
    /// When the connection breaks, or the other end is not a publisher without authentication.
    pub async fn subscribe(stream: S, topic: &str) -> Result<Self, ZmtpError> {
        let mut subscriber = Self { stream: BufReader::new(stream) };
        subscriber.stream.write_all(&GREETING).await?;
        subscriber.stream.flush().await?;
        let mut greeting = [0; 64];
        subscriber.stream.read_exact(&mut greeting).await?;
        if greeting[0] != 0xff || greeting[9] != 0x7f || greeting[10] < 3 {
            return Err(ZmtpError::Protocol("its greeting is that of another protocol"));
        }
        if greeting[12..32] != GREETING[12..32] {
            return Err(ZmtpError::Protocol("it requires authentication"));
        }
        subscriber.send(COMMAND, READY).await?;
        let head = subscriber.head().await?;
        if !head.command || !subscriber.command(&head).await?.starts_with(b"\x05READY") {
            return Err(ZmtpError::Protocol("it is not ready"));
        }
        let subscription = [b"\x01", topic.as_bytes()].concat();
        subscriber.send(0, &subscription).await?;
        Ok(subscriber)
    }

    /// The next message: the beginning of each of its parts.
    ///
    /// # Errors
    /// When the connection breaks, or what arrives is not a message of at most eight parts.
    pub async fn message(&mut self) -> Result<Vec<Part>, ZmtpError> {
        let mut parts = Vec::with_capacity(PARTS);
        loop {
            let head = self.head().await?;
            if head.command {
                self.command(&head).await?;
                continue;
            }
            if parts.len() == PARTS {
                return Err(ZmtpError::Protocol("a message has too many parts"));
            }
            parts.push(self.part(head.size).await?);
            if !head.more {
                return Ok(parts);
            }
        }
    }

    /// Sends a short frame.
    async fn send(&mut self, flags: u8, body: &[u8]) -> Result<(), ZmtpError> {
        let size = u8::try_from(body.len()).map_err(|_| ZmtpError::Protocol("too long to send"))?;
        let frame = [&[flags, size], body].concat();
        self.stream.write_all(&frame).await?;
        Ok(self.stream.flush().await?)
    }

    async fn head(&mut self) -> Result<Head, ZmtpError> {
        let flags = self.stream.read_u8().await?;
        let (more, command) = (flags & MORE != 0, flags & COMMAND != 0);
        if flags & !(MORE | LONG | COMMAND) != 0 || (more && command) {
            return Err(ZmtpError::Protocol("a frame has unknown flags"));
        }
        let size = if flags & LONG == 0 {
            u64::from(self.stream.read_u8().await?)
        } else {
            self.stream.read_u64().await?
        };
        Ok(Head { more, command, size })
    }

    async fn command(&mut self, head: &Head) -> Result<Vec<u8>, ZmtpError> {
        if head.size > COMMAND_BYTES {
            return Err(ZmtpError::Protocol("a command is too long"));
        }
        let mut body = vec![0; head.size as usize];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn part(&mut self, size: u64) -> Result<Part, ZmtpError> {
        let mut kept = vec![0; size.min(PART_BYTES as u64) as usize];
        self.stream.read_exact(&mut kept).await?;
        let mut left = size - kept.len() as u64;
        while left > 0 {
            let here = self.stream.fill_buf().await?.len();
            if here == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let step = left.min(here as u64);
            self.stream.consume(step as usize);
            left -= step;
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A publisher that says hello and then these bytes.
    async fn publisher(mut stream: DuplexStream, hello: Vec<u8>, then: Vec<u8>) -> DuplexStream {
        stream.write_all(&hello).await.unwrap();
        let mut expected = GREETING.to_vec();
        expected.extend([COMMAND, READY.len() as u8]);
        expected.extend_from_slice(READY);
        expected.extend_from_slice(b"\x00\x07\x01hashtx");
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected);
        // It may be hung up on.
        let _ = stream.write_all(&then).await;
        stream
    }

    fn hello() -> Vec<u8> {
        let mut hello = GREETING.to_vec();
        // libzmq fills the signature, and speaks a later version.
        (hello[8], hello[11]) = (1, 1);
        let ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";
        hello.extend([COMMAND, ready.len() as u8]);
        hello.extend_from_slice(ready);
        hello
    }

    /// What is heard of a publisher that sends this after its hello, and then hangs up.
    async fn heard(then: Vec<u8>) -> (Vec<Vec<Part>>, String) {
        let (ours, theirs) = duplex(1024);
        let listen = async {
            let mut subscriber = Subscriber::subscribe(ours, "hashtx").await.unwrap();
            let mut messages = Vec::new();
            loop {
                match subscriber.message().await {
                    Ok(message) => messages.push(message),
                    Err(error) => return (messages, error.to_string()),
                }
            }
        };
        let publish = async { drop(publisher(theirs, hello(), then).await) };
        tokio::join!(listen, publish).0
    }

    fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![flags | LONG];
        frame.extend((body.len() as u64).to_be_bytes());
        frame.extend_from_slice(body);
        frame
    }

    #[tokio::test]
    async fn messages_come_in_parts_of_which_the_beginning_is_kept() {
        let mut sent = b"\x01\x06hashtx\x01\x02ab\x00\x04\x00\x00\x00\x00".to_vec();
        sent.extend(frame(COMMAND, b"\x04PING"));
        sent.extend(frame(MORE, b"hashtx"));
        sent.extend(frame(0, &[7; 100_000]));
        sent.extend(b"\x00\x00");
        let (messages, _) = heard(sent).await;
        let first = vec![b"hashtx".to_vec(), b"ab".to_vec(), vec![0; 4]];
        let second = vec![b"hashtx".to_vec(), vec![7; PART_BYTES]];
        assert_eq!(messages, [first, second, vec![Vec::new()]]);
    }

    #[tokio::test]
    async fn whatever_a_publisher_claims_costs_no_memory() {
        let endless = |flags: u8| [&[flags | LONG][..], &[0xff; 8], b"and so on"].concat();
        let (messages, why) = heard(endless(0)).await;
        assert!(messages.is_empty() && !why.contains("ZMTP"), "{why}");
        for (sent, said) in [
            (endless(COMMAND), "a command is too long"),
            (frame(COMMAND, &[0; 513]), "a command is too long"),
            (b"\x01\x00".repeat(9), "too many parts"),
            (b"\x08\x00".to_vec(), "flags"),
            (b"\x05\x00".to_vec(), "flags"),
        ] {
            let (messages, why) = heard(sent).await;
            assert!(messages.is_empty() && why.contains(said), "{why}");
        }
    }

    #[tokio::test]
    async fn what_is_no_publisher_is_left() {
        let mut curve = GREETING;
        curve[12..17].copy_from_slice(b"CURVE");
        let mut old = GREETING;
        old[10] = 1;
        let mut error = GREETING.to_vec();
        error.extend(b"\x04\x07\x05ERROR\x00");
        let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(4);
        for hello in [curve.to_vec(), old.to_vec(), error, http, Vec::new()] {
            let (ours, mut theirs) = duplex(1024);
            theirs.write_all(&hello).await.unwrap();
            theirs.shutdown().await.unwrap();
            assert!(Subscriber::subscribe(ours, "hashtx").await.is_err(), "{hello:?}");
        }
    }
}
