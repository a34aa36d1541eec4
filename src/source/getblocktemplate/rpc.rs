//! A thin JSON-RPC client over one kept connection, with a bound and a deadline for everything.

mod answer;
mod cookie;
mod cookie_paths;
mod peer;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

pub use self::answer::{Envelope, METHOD_NOT_FOUND, RpcError};
pub use self::peer::{Protocol, peer_port};
pub use crate::source::net::Endpoint;

use self::answer::{WORDS, calls_of, name_unknown_method};
use self::cookie::read_first;
use self::cookie_paths::missing_folder;
use self::peer::{FirstBytes, Watched, rpc_ports};
use crate::printable::printable;
use crate::secret::Secret;
use crate::source::net::{DialError, dial};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How to log in.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A user of the node's `rpcauth` or `rpcuser`.
    UserPassword {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// The first of these cookie files that exists and that the node accepts. It is read again when
    /// the node refuses it: a node that restarts writes another one.
    Cookie(Vec<PathBuf>),
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
    /// Whether an HTTP response ever came.
    answered: bool,
}

impl Rpc {
    /// A client of the node at `endpoint`. Nothing is sent yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, credentials: Credentials) -> Self {
        let host = HeaderValue::from_str(&endpoint.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self {
            endpoint,
            host,
            credentials,
            authorization: None,
            cookie: 0,
            connection: None,
            answered: false,
        }
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
        sibling.answered = self.answered;
        sibling
    }

    /// Closes the connection; the next call opens another.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Sends `body` and returns the response's body, of at most `limit` bytes.
    ///
    /// If a kept connection turns out to be closed, the call is made again over a new one; if the
    /// node answers 401, it is made again with the next cookie. `deadline` bounds each attempt,
    /// from when it is connected.
    ///
    /// # Errors
    /// What went wrong in the last attempt.
    pub async fn call(
        &mut self,
        body: Bytes,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let kept = self.connection.as_ref().is_some_and(|connection| !connection.is_closed());
        let mut outcome = self.attempt(body.clone(), limit, deadline).await;
        if kept && matches!(outcome, Err(RpcError::Connection(_))) {
            // Nodes drop connections that were idle for 30 s; that is not an error.
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
        let (mut connection, first) = match open {
            // It has served before.
            Some(connection) => (connection, FirstBytes::default()),
            None => self.connect().await?,
        };
        // After connecting: a node that is not up has no cookie either, and that it is not up is the
        // better message.
        let authorization = match &self.authorization {
            Some(value) => value.clone(),
            None => self.authorize()?,
        };
        let request = Request::post("/")
            .header(HOST, self.host.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(|error| RpcError::Nonsense(error.to_string()))?;
        let exchange = async {
            connection.ready().await.map_err(broken)?;
            let response = connection.send_request(request).await.map_err(broken)?;
            read(response, limit, self.login_name(), &body).await
        };
        let answer = match timeout(deadline, exchange).await {
            Ok(Err(RpcError::Connection(why))) => Err(self.not_http(why, &first)),
            Ok(answer) => {
                self.answered = true;
                answer
            }
            Err(_) if self.answered || first.get().is_some() => {
                return Err(RpcError::Deadline(deadline));
            }
            Err(_) => {
                let why = format!("no answer within {} s", deadline.as_secs());
                return Err(self.not_http(why, &first));
            }
        };
        // Only a connection whose last answer was read to its end can serve again.
        let reusable = !matches!(answer, Err(RpcError::Connection(_) | RpcError::TooLarge(_)));
        if reusable {
            self.connection = Some(connection);
        }
        answer
    }

    async fn connect(&self) -> Result<(SendRequest<Full<Bytes>>, FirstBytes), RpcError> {
        let stream = timeout(CONNECT, dial(&self.endpoint))
            .await
            .map_err(|_| RpcError::Deadline(CONNECT))?
            .map_err(|error| self.not_connected(error))?;
        let (stream, first) = Watched::new(stream);
        let (connection, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            // The caller of a broken connection is told by its request.
            if let Err(error) = driver.await {
                tracing::debug!(%error, "RPC connection ended");
            }
        });
        Ok((connection, first))
    }

    /// The error where there is no connection: of several addresses, the last one's.
    fn not_connected(&self, error: DialError) -> RpcError {
        let failures = match error {
            DialError::Name { why, .. } => return RpcError::Connection(why),
            DialError::Tcp(failures) => failures,
        };
        RpcError::Connection(match failures.last() {
            Some((_, error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                let never_ran = match &self.credentials {
                    Credentials::Cookie(paths) => missing_folder(paths),
                    Credentials::UserPassword { .. } => String::new(),
                };
                format!("the node is not up yet, waiting for it: {error}{never_ran}")
            }
            Some((_, error)) => error.to_string(),
            None => "no attempt to connect was made".to_owned(),
        })
    }

    /// The error of a connection over which no HTTP response came, by the first bytes that came and
    /// the port.
    fn not_http(&self, why: String, first: &FirstBytes) -> RpcError {
        let ports = || {
            let ports = rpc_ports(self.endpoint.port).filter(|_| !self.answered);
            ports.map(|ports| format!("; {ports}")).unwrap_or_default()
        };
        match first.get().map(Vec::as_slice) {
            Some(bytes) if bytes.starts_with(b"HTTP/") => RpcError::Connection(why),
            Some(bytes) => match Protocol::of(bytes) {
                Some(protocol) => RpcError::NotHttp { protocol, ports: ports() },
                None => RpcError::Connection(why + &ports()),
            },
            None if self.answered => RpcError::Connection(why),
            None => RpcError::Connection(format!("{why} (not a byte came){}", ports())),
        }
    }

    /// What the node refuses with 401.
    fn login_name(&self) -> &'static str {
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
                let (index, cookie) = read_first(paths, self.cookie)?;
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

    /// Reads the refused cookie again, and if it has not changed, the next file. Returns whether
    /// there is one to try.
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

/// Reads a response of at most `limit` bytes to its end.
async fn read(
    response: Response<Incoming>,
    limit: usize,
    who: &'static str,
    request: &[u8],
) -> Result<Bytes, RpcError> {
    let status = response.status();
    let to = response.headers().get(LOCATION).filter(|_| status.is_redirection());
    let to = to.map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
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
    if let Some(to) = to {
        return Err(RpcError::Moved { status: status.as_u16(), to });
    }
    match status {
        StatusCode::UNAUTHORIZED => Err(RpcError::Unauthorized(who)),
        StatusCode::FORBIDDEN => Err(RpcError::Forbidden(calls_of(request))),
        // A JSON-RPC error comes with 500 or 404 and a JSON body.
        _ if status.is_success() || bytes.starts_with(b"{") => {
            name_unknown_method(request, &bytes)?;
            Ok(bytes.freeze())
        }
        _ => Err(RpcError::Status {
            status: status.as_u16(),
            body: printable(
                &words_of(&String::from_utf8_lossy(&bytes[..bytes.len().min(800)])),
                WORDS,
            ),
        }),
    }
}

/// The text of a page, without tags, on one line.
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
