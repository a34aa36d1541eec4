//! A JSON-RPC server that does what no real node does: it lies, stalls, floods and hangs up.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rpc::{find_header, parse_length, read_exactly, read_headers, read_line};
use super::{block, poll};

/// How long a reply may stall or flood before the server hangs up by itself.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much an endless reply sends before the server hangs up by itself.
const FLOOD: u64 = 1 << 30;

/// One call as it came in.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub params: Value,
    pub id: Value,
    /// Of the HTTP request; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Whether it came in a list of calls.
    pub batched: bool,
    /// Which connection it came on, counted from 0.
    pub connection: u64,
    /// How many calls of the same method came before it.
    pub nth: usize,
    pub at: Instant,
    jsonrpc_2: bool,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Whether a template is asked for that should come only after a change.
    pub fn longpoll_id(&self) -> Option<&str> {
        self.params.get(0)?.get("longpollid")?.as_str()
    }

    fn answer(&self, result: Result<&Value, (i64, &str)>) -> Value {
        let error = result.err().map(|(code, message)| json!({"code": code, "message": message}));
        match (self.jsonrpc_2, error, result.unwrap_or(&Value::Null)) {
            (true, Some(error), _) => json!({"jsonrpc": "2.0", "error": error, "id": self.id}),
            (true, None, result) => json!({"jsonrpc": "2.0", "result": result, "id": self.id}),
            (false, error, result) => json!({"result": result, "error": error, "id": self.id}),
        }
    }
}

/// What a call is answered with. In a batch, one reply that is neither a result nor an error
/// answers the whole of it.
#[derive(Debug, Clone)]
pub enum Reply {
    Result(Value),
    RpcError {
        code: i64,
        message: String,
    },
    /// The whole HTTP response, head and body; the connection is closed after it.
    Raw(Vec<u8>),
    /// An HTTP status with a body of one's own.
    Status(u16, String),
    HangUp,
    /// The head and half of the body that the head announces.
    HalfThenHangUp(Value),
    /// Nothing, on a connection that stays open.
    Silence,
    /// A result that never ends, in chunks.
    EndlessBody,
    /// A head that never ends.
    EndlessHead,
    /// A well-formed result: a text of this many bytes.
    HugeBody(usize),
    /// A result in small pieces with pauses between them.
    Slow {
        result: Value,
        piece: usize,
        pause: Duration,
    },
    /// Another reply, later.
    After(Duration, Box<Reply>),
    /// Another reply, once the gate is open: a longpoll.
    When(Gate, Box<Reply>),
}

impl Reply {
    pub fn error(code: i64, message: &str) -> Self {
        Self::RpcError { code, message: message.to_owned() }
    }

    pub fn after(pause: Duration, reply: Self) -> Self {
        Self::After(pause, Box::new(reply))
    }

    pub fn when(gate: &Gate, reply: Self) -> Self {
        Self::When(gate.clone(), Box::new(reply))
    }
}

/// Closed at first; what waits for it goes on when a test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

type Handler = dyn Fn(&Call) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    calls: Mutex<Vec<Call>>,
    stop: AtomicBool,
    open: AtomicUsize,
    accepted: AtomicU64,
    sent: AtomicU64,
}

pub struct ScriptedNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl ScriptedNode {
    /// Answers every call with what `handler` says. The handler runs on the connection's thread.
    pub fn start(handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(0, handler)
    }

    /// The same on a given port: a node that comes back.
    pub fn start_on(port: u16, handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the listener's address");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            calls: Mutex::default(),
            stop: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self { address, shared, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// With credentials, so that no cookie is looked for.
    pub fn url(&self) -> String {
        self.url_with_password("user", "password")
    }

    pub fn url_with_password(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.address)
    }

    /// Every call so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no handler panics in the lock").clone()
    }

    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.method == method);
        calls
    }

    pub fn count(&self, method: &str) -> usize {
        let calls = self.shared.calls.lock().expect("no handler panics in the lock");
        calls.iter().filter(|call| call.method == method).count()
    }

    #[track_caller]
    pub fn wait_for_calls(&self, method: &str, count: usize, timeout: Duration) {
        let came = poll(timeout, || (self.count(method) >= count).then_some(()));
        assert!(came.is_some(), "{} calls of {method} instead of {count}", self.count(method));
    }

    /// Connections open at this moment.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes sent on all connections.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedNode {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(shared);
                threads.push(std::thread::spawn(move || {
                    let connection = Connection { stream, number, shared };
                    // However it ends, the peer is the one under test.
                    let _ = connection.serve();
                }));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

struct Connection {
    stream: TcpStream,
    number: u64,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the connection serves another request.
enum Next {
    Request,
    Close,
}

impl Connection {
    fn serve(&self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(TIMEOUT))?;
        let mut reader = BufReader::new(self.stream.try_clone()?);
        loop {
            if reader.buffer().is_empty() && !self.wait_for_bytes()? {
                return Ok(());
            }
            self.stream.set_read_timeout(Some(TIMEOUT))?;
            let first = read_line(&mut reader)?;
            let headers = read_headers(&mut reader)?;
            let length = find_header(&headers, "content-length").unwrap_or("0");
            let body = read_exactly(&mut reader, parse_length(length, 10)?)?;
            if !first.starts_with("POST ") {
                self.respond(405, b"JSONRPC server handles only POST requests")?;
                continue;
            }
            let next = match serde_json::from_slice(&body) {
                Ok(Value::Array(calls)) => self.batch(&calls, &headers)?,
                // As a node answers it, and nothing happens.
                Ok(call) if call["method"] == "submitblock" && call["params"] == json!([]) => {
                    let usage = br#"{"result":null,"error":{"code":-1,"message":"submitblock \"hexdata\""},"id":"adit"}"#;
                    self.respond(500, usage)?;
                    Next::Request
                }
                Ok(call) => {
                    let call = self.note(&call, &headers, false);
                    let reply = (self.shared.handler)(&call);
                    self.send(&call, reply)?
                }
                Err(_) => {
                    self.respond(500, br#"{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}"#)?;
                    Next::Request
                }
            };
            if matches!(next, Next::Close) {
                return Ok(());
            }
        }
    }

    fn batch(&self, calls: &[Value], headers: &[(String, String)]) -> io::Result<Next> {
        let mut answers = Vec::new();
        for call in calls {
            let call = self.note(call, headers, true);
            match (self.shared.handler)(&call) {
                Reply::Result(result) => answers.push(call.answer(Ok(&result))),
                Reply::RpcError { code, message } => {
                    answers.push(call.answer(Err((code, &message))));
                }
                reply => return self.send(&call, reply),
            }
        }
        self.respond(200, Value::Array(answers).to_string().as_bytes())?;
        Ok(Next::Request)
    }

    /// Keeps the call for the test to look at.
    fn note(&self, call: &Value, headers: &[(String, String)], batched: bool) -> Call {
        let method = call["method"].as_str().unwrap_or_default().to_owned();
        let mut calls = self.shared.calls.lock().expect("no handler panics in the lock");
        let call = Call {
            nth: calls.iter().filter(|before| before.method == method).count(),
            method,
            params: call["params"].clone(),
            id: call["id"].clone(),
            headers: headers.to_vec(),
            batched,
            connection: self.number,
            at: Instant::now(),
            jsonrpc_2: call["jsonrpc"] == "2.0",
        };
        calls.push(call.clone());
        call
    }

    fn send(&self, call: &Call, reply: Reply) -> io::Result<Next> {
        match reply {
            Reply::Result(result) => {
                self.respond(200, call.answer(Ok(&result)).to_string().as_bytes())?;
                return Ok(Next::Request);
            }
            Reply::RpcError { code, message } => {
                // As a node does: what the 1.0 protocol calls an error is one of HTTP too.
                let status = match code {
                    _ if call.jsonrpc_2 => 200,
                    -32600 => 400,
                    -32601 => 404,
                    _ => 500,
                };
                self.respond(status, call.answer(Err((code, &message))).to_string().as_bytes())?;
                return Ok(Next::Request);
            }
            Reply::Status(status, body) => {
                self.respond(status, body.as_bytes())?;
                return Ok(Next::Request);
            }
            Reply::Slow { result, piece, pause } => {
                let body = call.answer(Ok(&result)).to_string();
                self.write(head(200, body.len()).as_bytes())?;
                for part in body.as_bytes().chunks(piece.max(1)) {
                    if !self.pause_until(pause, || false) {
                        return Ok(Next::Close);
                    }
                    self.write(part)?;
                }
                return Ok(Next::Request);
            }
            Reply::After(pause, reply) => {
                if self.pause_until(pause, || false) {
                    return self.send(call, *reply);
                }
            }
            Reply::When(gate, reply) => {
                self.pause_until(TIMEOUT, || gate.is_open());
                if gate.is_open() {
                    return self.send(call, *reply);
                }
            }
            Reply::Raw(bytes) => self.write(&bytes)?,
            Reply::HangUp => {}
            Reply::HalfThenHangUp(result) => {
                let body = call.answer(Ok(&result)).to_string();
                self.write(head(200, body.len()).as_bytes())?;
                self.write(&body.as_bytes()[..body.len() / 2])?;
            }
            Reply::Silence => {
                self.pause_until(TIMEOUT, || false);
            }
            Reply::EndlessBody => {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                self.write(b"b\r\n{\"result\":\"\r\n")?;
                let chunk = [b"10000\r\n", "a".repeat(0x10000).as_bytes(), b"\r\n"].concat();
                self.flood(&chunk, FLOOD)?;
            }
            Reply::EndlessHead => {
                self.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")?;
                self.flood(&[b'a'; 0x10000], FLOOD)?;
            }
            Reply::HugeBody(length) => {
                let (start, end) =
                    ("{\"result\":\"", format!("\",\"error\":null,\"id\":{}}}", call.id));
                self.write(head(200, start.len() + length + end.len()).as_bytes())?;
                self.write(start.as_bytes())?;
                self.flood(&[b'a'; 0x10000], length as u64)?;
                self.write(end.as_bytes())?;
                return Ok(Next::Request);
            }
        }
        Ok(Next::Close)
    }

    fn respond(&self, status: u16, body: &[u8]) -> io::Result<()> {
        self.write(&[head(status, body.len()).as_bytes(), body].concat())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.stream).write_all(bytes)?;
        self.shared.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    /// Repeats `part` until `length` bytes are sent, the peer hangs up, or the timeout is over.
    fn flood(&self, part: &[u8], length: u64) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        let mut left = length;
        while left > 0 && !self.shared.stop.load(Ordering::SeqCst) {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let now = left.min(part.len() as u64);
            self.write(&part[..now as usize])?;
            left -= now;
        }
        Ok(())
    }

    /// Waits for the next request; false when there will be none.
    fn wait_for_bytes(&self) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        while !self.shared.stop.load(Ordering::SeqCst) {
            match self.stream.peek(&mut [0]) {
                Ok(count) => return Ok(count > 0),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Waits for `pause`, or until `done`; false when the peer is gone or the server stops.
    fn pause_until(&self, pause: Duration, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + pause;
        let step = Duration::from_millis(2);
        if self.stream.set_read_timeout(Some(step)).is_err() {
            return false;
        }
        while Instant::now() < deadline && !done() {
            if self.shared.stop.load(Ordering::SeqCst) {
                return false;
            }
            match self.stream.peek(&mut [0]) {
                Ok(0) => return false,
                // The next request is there already, and has to wait.
                Ok(_) => std::thread::sleep(step),
                Err(error) if is_timeout(&error) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn head(status: u16, length: usize) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// An answer to getblocktemplate, right in every field until a test spoils one.
#[derive(Debug, Clone)]
pub struct Template(Value);

impl Template {
    /// The block after a tip of height `height - 1`, on regtest, without transactions.
    pub fn regtest(height: u64) -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_secs();
        let previous = block::display(&block::sha256(&height.to_le_bytes()));
        let halvings = (height / 150) as u32;
        Self(json!({
            "capabilities": ["proposal"],
            "version": 0x2000_0000,
            "rules": ["csv", "!segwit", "taproot"],
            "vbavailable": {},
            "vbrequired": 0,
            "previousblockhash": previous,
            "transactions": [],
            "coinbaseaux": {},
            "coinbasevalue": 5_000_000_000u64.checked_shr(halvings).unwrap_or(0),
            "longpollid": format!("{previous}{height}"),
            "target": "7fffff0000000000000000000000000000000000000000000000000000000000",
            "mintime": now - 3600,
            "mutable": ["time", "transactions", "prevblock"],
            "noncerange": "00000000ffffffff",
            "sigoplimit": 80_000,
            "sizelimit": 4_000_000,
            "weightlimit": 4_000_000,
            "curtime": now,
            "bits": "207fffff",
            "height": height,
            "default_witness_commitment": hex::encode(block::witness_commitment([])),
        }))
    }

    /// The fields may be changed at will.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0[key] = value.into();
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.0.as_object_mut().expect("a template is an object").remove(key);
        self
    }

    /// Both the bits and the target they stand for.
    pub fn bits(self, bits: u32) -> Self {
        let target = hex::encode(block::target_of(bits));
        self.set("bits", format!("{bits:08x}")).set("target", target)
    }

    /// With these transactions, and the commitment to them.
    pub fn transactions(self, transactions: &[block::Transaction]) -> Self {
        let mut hashes = Vec::new();
        let entries: Vec<Value> = transactions
            .iter()
            .map(|transaction| {
                let bytes = transaction.bytes();
                let hash = block::sha256d(&bytes);
                hashes.push(hash);
                json!({
                    "data": hex::encode(&bytes),
                    "txid": block::display(&transaction.txid()),
                    "hash": block::display(&hash),
                    "depends": [],
                    "fee": 0,
                    "sigops": 0,
                    "weight": transaction.weight(),
                })
            })
            .collect();
        self.set("transactions", entries)
            .set("default_witness_commitment", hex::encode(block::witness_commitment(hashes)))
    }

    pub fn value(&self) -> Value {
        self.0.clone()
    }

    pub fn reply(&self) -> Reply {
        Reply::Result(self.value())
    }
}

/// What a well-behaved node on regtest answers while `template` is the newest: every block is
/// taken. It publishes nothing and knows no waiting calls, but tells its tip.
pub fn well_behaved(call: &Call, template: &Template) -> Reply {
    match call.method.as_str() {
        "getblockchaininfo" => Reply::Result(json!({"chain": "regtest"})),
        "getblocktemplate" => template.reply(),
        "getbestblockhash" => Reply::Result(template.value()["previousblockhash"].clone()),
        "submitblock" => Reply::Result(Value::Null),
        _ => Reply::error(-32601, "Method not found"),
    }
}

/// The block of a call of submitblock, in hex.
pub fn submitted(call: &Call) -> String {
    call.params[0].as_str().expect("submitblock is given a block").to_owned()
}

/// The hash of a block in hex, as people write it.
pub fn hash_of(block: &str) -> String {
    block::display(&block::sha256d(&hex::decode(&block[..160]).expect("a block is hex")))
}
