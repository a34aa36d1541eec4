//! A plain JSON-RPC client over one kept connection: the oracle that adit's own client is compared with.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

const MAX_LINE: u64 = 64 << 10;
const MAX_BODY: u64 = 256 << 20;

#[derive(Debug, Clone, PartialEq)]
pub enum RpcError {
    /// The server's own error object.
    Rpc { code: i64, message: String },
    /// An HTTP status without a JSON-RPC body, such as 401.
    Http { status: u16, body: String },
    /// No answer that could be read.
    Io(String),
}

impl RpcError {
    /// The server's error code, when it gave one.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc { code, message } => write!(f, "error {code}: {message}"),
            Self::Http { status, body } => write!(f, "HTTP status {status}: {body:?}"),
            Self::Io(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<io::Error> for RpcError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }
}

pub fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

pub struct RpcClient {
    address: SocketAddr,
    authorization: Option<String>,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
    next_id: u64,
}

impl RpcClient {
    /// `credentials` are `user:password`, the form of a cookie file.
    pub fn new(address: SocketAddr, credentials: Option<&str>) -> Self {
        Self {
            address,
            authorization: credentials.map(|text| format!("Basic {}", base64(text.as_bytes()))),
            timeout: Duration::from_secs(60),
            connection: None,
            next_id: 0,
        }
    }

    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let request = self.request(method, params);
        let response = self.post(request.to_string().as_bytes())?;
        match serde_json::from_slice(&response.body) {
            Ok(Value::Object(answer)) => outcome(&Value::Object(answer)),
            _ => Err(RpcError::Http {
                status: response.status,
                body: String::from_utf8_lossy(&response.body).into_owned(),
            }),
        }
    }

    /// Several calls in one HTTP request; the answers come in the order of the calls.
    pub fn batch(
        &mut self,
        calls: &[(&str, Value)],
    ) -> Result<Vec<Result<Value, RpcError>>, RpcError> {
        let requests: Vec<Value> =
            calls.iter().map(|(method, params)| self.request(method, params.clone())).collect();
        let ids: Vec<Value> = requests.iter().map(|request| request["id"].clone()).collect();
        let response = self.post(Value::Array(requests).to_string().as_bytes())?;
        let Ok(Value::Array(answers)) = serde_json::from_slice(&response.body) else {
            return Err(RpcError::Http {
                status: response.status,
                body: String::from_utf8_lossy(&response.body).into_owned(),
            });
        };
        let answered: Vec<Value> = answers.iter().map(|answer| answer["id"].clone()).collect();
        if answered != ids {
            return Err(RpcError::Io(format!("a batch of {ids:?} was answered as {answered:?}")));
        }
        Ok(answers.iter().map(outcome).collect())
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        json!({"jsonrpc": "1.0", "id": self.next_id, "method": method, "params": params})
    }

    /// One POST. A kept connection that the server has dropped meanwhile is replaced once.
    pub fn post(&mut self, body: &[u8]) -> io::Result<HttpResponse> {
        let kept = self.connection.is_some();
        match self.post_once(body) {
            Ok(response) => Ok(response),
            Err(error) => {
                self.connection = None;
                let dropped = matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                );
                if kept && dropped {
                    self.post_once(body).inspect_err(|_| self.connection = None)
                } else {
                    Err(error)
                }
            }
        }
    }

    fn post_once(&mut self, body: &[u8]) -> io::Result<HttpResponse> {
        let reader = match &mut self.connection {
            Some(reader) => reader,
            none => {
                let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                none.insert(BufReader::with_capacity(1 << 16, stream))
            }
        };
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        if let Some(authorization) = &self.authorization {
            request.push_str("Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        reader.get_mut().write_all(&request)?;

        let response = read_response(reader)?;
        if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.connection = None;
        }
        Ok(response)
    }
}

fn outcome(answer: &Value) -> Result<Value, RpcError> {
    match answer.get("error") {
        None | Some(Value::Null) => Ok(answer.get("result").cloned().unwrap_or(Value::Null)),
        Some(error) => Err(RpcError::Rpc {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        }),
    }
}

fn read_response(reader: &mut impl BufRead) -> io::Result<HttpResponse> {
    let first = read_line(reader)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| invalid(format!("no HTTP status line: {first:?}")))?;
    let headers = read_headers(reader)?;
    let body = if let Some(length) = find_header(&headers, "content-length") {
        read_exactly(reader, parse_length(length, 10)?)?
    } else if find_header(&headers, "transfer-encoding").is_some_and(|how| how == "chunked") {
        read_chunks(reader)?
    } else {
        let mut body = Vec::new();
        reader.take(MAX_BODY).read_to_end(&mut body)?;
        body
    };
    Ok(HttpResponse { status, headers, body })
}

/// Header lines up to the empty one; names in lower case.
pub fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| invalid(format!("no header line: {line:?}")))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        if headers.len() > 100 {
            return Err(invalid("too many header lines".to_owned()));
        }
    }
}

/// One line without its end; end of file is an error.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| invalid("a header is not UTF-8".to_owned()))
}

pub fn read_exactly(reader: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader)?;
        let length = parse_length(line.split(';').next().unwrap_or_default().trim(), 16)?;
        if length + body.len() as u64 > MAX_BODY {
            return Err(invalid("the answer is too long".to_owned()));
        }
        body.append(&mut read_exactly(reader, length)?);
        read_line(reader)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

pub fn parse_length(text: &str, radix: u32) -> io::Result<u64> {
    match u64::from_str_radix(text, radix) {
        Ok(length) if length <= MAX_BODY => Ok(length),
        _ => Err(invalid(format!("a length of {text:?}"))),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            if place <= group.len() {
                let digit = (word >> (18 - 6 * place)) & 63;
                text.push(char::from(DIGITS[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}
