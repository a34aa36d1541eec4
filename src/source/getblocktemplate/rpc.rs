//! A thin JSON-RPC client over one kept connection: bounded, with a deadline for everything.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::printable::printable;
use crate::secret::Secret;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest cookie file that is read, in bytes. A node writes 75.
const COOKIE_BYTES: u64 = 4096;

/// Where the node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Whether it is this machine: only there is a cookie sent that was found and not named.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// As the node's `rpcauth` or `rpcuser` has them.
    UserPassword {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// The first of these cookie files that exists and that the node takes. It is read again when
    /// the node refuses it: a node that restarts writes another.
    Cookie(Vec<PathBuf>),
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection was had, or it broke.
    #[error("{0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// More came than any honest answer holds.
    #[error("the answer is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// There is no cookie where we looked.
    #[error("no cookie file at {}", list(.0))]
    NoCookie(Vec<PathBuf>),
    /// A cookie file is there and can't be used.
    #[error("cookie file {}: {why}", .path.display())]
    BadCookie {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// HTTP 401.
    #[error("the node refuses {0} (HTTP 401)")]
    Unauthorized(&'static str),
    /// HTTP 403.
    #[error("the node does not take calls from this address (HTTP 403)")]
    Forbidden,
    /// Another HTTP status without a JSON-RPC answer.
    #[error("HTTP {status}: {body}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of the body, made printable.
        body: String,
    },
    /// The node's own error.
    #[error("{message} (error {code})")]
    Node {
        /// Its code.
        code: i64,
        /// Its words, made printable.
        message: String,
    },
    /// An answer that is not what was asked for.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The most characters that are kept of a node's words.
const WORDS: usize = 200;

/// The error member of a JSON-RPC answer.
#[derive(Debug, Deserialize)]
pub struct ErrorObject {
    code: i64,
    #[serde(default)]
    message: String,
}

impl From<ErrorObject> for RpcError {
    fn from(error: ErrorObject) -> Self {
        Self::Node { code: error.code, message: printable(&error.message, WORDS) }
    }
}

/// A JSON-RPC answer.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Envelope<T> {
    #[serde(default = "Member::missing", deserialize_with = "Member::read")]
    result: Member<T>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

/// The member `result`. A `submitblock` that was answered null has been taken; one whose answer has
/// no result at all has not been looked at.
#[derive(Debug)]
enum Member<T> {
    Missing,
    /// `None` is null.
    There(Option<T>),
}

impl<'de, T: Deserialize<'de>> Member<T> {
    fn missing() -> Self {
        Self::Missing
    }

    fn read<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::There)
    }
}

impl<T> Envelope<T> {
    /// The result (`None` for null), or the node's error.
    ///
    /// # Errors
    /// When the node answered with one, or with neither.
    pub fn into_result(self) -> Result<Option<T>, RpcError> {
        match (self.error, self.result) {
            (Some(error), _) => Err(error.into()),
            (None, Member::There(result)) => Ok(result),
            (None, Member::Missing) => {
                Err(RpcError::Nonsense("it has neither a result nor an error".to_owned()))
            }
        }
    }
}

/// A connection to a node that is opened when needed and kept.
#[derive(Debug)]
pub struct Rpc {
    endpoint: Endpoint,
    host: HeaderValue,
    credentials: Credentials,
    authorization: Option<HeaderValue>,
    /// Which of the cookie files is in use.
    cookie: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Rpc {
    /// A client of the node at `endpoint`. Nothing is sent yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Self {
        let host = HeaderValue::from_str(&endpoint.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self { endpoint, host, credentials, authorization: None, cookie: 0, connection: None }
    }

    /// Where the node listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Another client of the same node.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let mut sibling = Self::new(self.endpoint.clone(), self.credentials.clone());
        sibling.cookie = self.cookie;
        sibling
    }

    /// Closes the connection; the next call opens another.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Sends `body` and gives back the answer's body, of at most `limit` bytes.
    ///
    /// A kept connection that turns out to be closed is replaced and the call made once more; so is
    /// one that the node refuses with 401 when its cookie has changed. `deadline` bounds each try
    /// after the connection stands.
    ///
    /// # Errors
    /// Whatever went wrong, with the second try's reason.
    pub async fn call(
        &mut self,
        body: Bytes,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let kept = self.connection.as_ref().is_some_and(|connection| !connection.is_closed());
        let mut outcome = self.attempt(body.clone(), limit, deadline).await;
        if kept && matches!(outcome, Err(RpcError::Connection(_))) {
            // Nodes drop connections that were idle for 30 s; that is no fault.
            outcome = self.attempt(body.clone(), limit, deadline).await;
        }
        while matches!(outcome, Err(RpcError::Unauthorized(_))) && self.another_cookie()? {
            outcome = self.attempt(body.clone(), limit, deadline).await;
        }
        if outcome.is_err() {
            self.hang_up();
        }
        outcome
    }

    async fn attempt(
        &mut self,
        body: Bytes,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let mut connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        // After connecting: a node that is not up has no cookie either, and that it is not up is the
        // better thing to say.
        let authorization = match &self.authorization {
            Some(value) => value.clone(),
            None => self.authorize()?,
        };
        let request = Request::post("/")
            .header(HOST, self.host.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| RpcError::Nonsense(error.to_string()))?;
        let exchange = async {
            connection.ready().await.map_err(broken)?;
            let response = connection.send_request(request).await.map_err(broken)?;
            read(response, limit, self.who()).await
        };
        let answer = timeout(deadline, exchange).await.map_err(|_| RpcError::Deadline(deadline))?;
        // Only a connection whose last answer was read to its end can serve again.
        let reusable = !matches!(answer, Err(RpcError::Connection(_) | RpcError::TooLarge(_)));
        if reusable {
            self.connection = Some(connection);
        }
        answer
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RpcError> {
        let to = (self.endpoint.host.as_str(), self.endpoint.port);
        let stream = timeout(CONNECT, TcpStream::connect(to))
            .await
            .map_err(|_| RpcError::Deadline(CONNECT))?
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    RpcError::Connection(format!("the node is not up yet, waiting for it: {error}"))
                }
                _ => RpcError::Connection(error.to_string()),
            })?;
        stream.set_nodelay(true).map_err(|error| RpcError::Connection(error.to_string()))?;
        let (connection, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            // The caller of a broken connection is told by its request.
            if let Err(error) = driver.await {
                tracing::debug!(%error, "RPC connection ended");
            }
        });
        Ok(connection)
    }

    /// What the node refuses when it refuses us.
    fn who(&self) -> &'static str {
        match self.credentials {
            Credentials::UserPassword { .. } => "our user name and password",
            Credentials::Cookie(_) => "our cookie",
        }
    }

    fn authorize(&mut self) -> Result<HeaderValue, RpcError> {
        let pair = match &self.credentials {
            Credentials::UserPassword { user, password } => {
                format!("{user}:{}", password.reveal()).into_bytes()
            }
            Credentials::Cookie(paths) => {
                let (index, cookie) = read_first_cookie(paths, self.cookie)?;
                self.cookie = index;
                cookie
            }
        };
        let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair)))
            .map_err(|error| RpcError::Nonsense(error.to_string()))?;
        value.set_sensitive(true);
        self.authorization = Some(value.clone());
        Ok(value)
    }

    /// Reads the refused cookie again, and where it has not changed, the next file; whether there
    /// is one to try.
    fn another_cookie(&mut self) -> Result<bool, RpcError> {
        let Credentials::Cookie(paths) = &self.credentials else { return Ok(false) };
        let files = paths.len();
        let old = self.authorization.take();
        if old != Some(self.authorize()?) {
            return Ok(true);
        }
        self.authorization = None;
        self.cookie += 1;
        let another = self.cookie < files && self.authorize().is_ok();
        if !another {
            self.authorization = None;
            self.cookie = 0;
        }
        Ok(another)
    }
}

fn broken(error: hyper::Error) -> RpcError {
    let mut why = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        why = format!("{why}: {source}");
    }
    RpcError::Connection(why)
}

/// The first cookie that is there, from the file number `from` on, and its file's number.
fn read_first_cookie(paths: &[PathBuf], from: usize) -> Result<(usize, Vec<u8>), RpcError> {
    for (index, path) in paths.iter().enumerate().skip(from) {
        match read_cookie(path) {
            Ok(cookie) => return Ok((index, cookie)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(RpcError::BadCookie { path: path.clone(), why: error.to_string() });
            }
        }
    }
    Err(RpcError::NoCookie(paths.to_vec()))
}

fn read_cookie(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut cookie = Vec::new();
    std::fs::File::open(path)?.take(COOKIE_BYTES).read_to_end(&mut cookie)?;
    while cookie.last().is_some_and(u8::is_ascii_whitespace) {
        cookie.pop();
    }
    if cookie.contains(&b':') && !cookie.contains(&b'\n') {
        Ok(cookie)
    } else {
        let why = "it does not hold one line of user:password";
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why))
    }
}

/// Reads an answer of at most `limit` bytes to its end.
async fn read(
    response: Response<Incoming>,
    limit: usize,
    who: &'static str,
) -> Result<Bytes, RpcError> {
    let status = response.status();
    let mut body = response.into_body();
    let announced = usize::try_from(hyper::body::Body::size_hint(&body).lower()).ok();
    if announced.is_none_or(|bytes| bytes > limit) {
        return Err(RpcError::TooLarge(limit));
    }
    // Room for what was announced, within reason: an announcement costs its sender nothing.
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(16 << 20));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(RpcError::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
    match status {
        StatusCode::UNAUTHORIZED => Err(RpcError::Unauthorized(who)),
        StatusCode::FORBIDDEN => Err(RpcError::Forbidden),
        // A JSON-RPC error comes with 500 or 404 and a JSON body.
        _ if status.is_success() || bytes.starts_with(b"{") => Ok(bytes.freeze()),
        _ => Err(RpcError::Status {
            status: status.as_u16(),
            body: printable(
                &words_of(&String::from_utf8_lossy(&bytes[..bytes.len().min(800)])),
                WORDS,
            ),
        }),
    }
}

/// What a person reads of a page: its words, without tags, on one line.
fn words_of(page: &str) -> String {
    let mut words = String::with_capacity(page.len());
    let mut in_tag = false;
    for c in page.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                words.push(' ');
            }
            _ if !in_tag => words.push(c),
            _ => {}
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_shown_as_its_words() {
        let page =
            "<HTML><HEAD>\n<TITLE>503 Service Unavailable</TITLE>\n</HEAD><BODY>\n<H1>Busy</H1>";
        assert_eq!(words_of(page), "503 Service Unavailable Busy");
        assert_eq!(words_of("Work queue\n depth exceeded"), "Work queue depth exceeded");
        assert_eq!(words_of("a > b, <never closed"), "a > b,");
    }
}
