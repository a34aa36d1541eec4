//! A Stratum V1 pool in the test's own words: it hands out jobs, checks every share for real, and does
//! on demand what no real pool would do.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::block::{self, Hash};
use super::poll;

/// What a pool says to a request.
#[derive(Debug, Clone)]
pub enum Say {
    /// What a good pool says.
    AsUsual,
    /// A line; its end is added.
    Line(String),
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// Nothing for this long. The connection's later requests wait too.
    Wait(Duration),
    /// The connection is closed.
    HangUp,
}

impl Say {
    pub fn json(value: Value) -> Self {
        Self::Line(value.to_string())
    }

    /// The answer to a request.
    pub fn result(request: &Request, result: Value) -> Self {
        Self::json(json!({"id": request.id, "result": result, "error": null}))
    }

    pub fn error(request: &Request, result: Value, error: Value) -> Self {
        Self::json(json!({"id": request.id, "result": result, "error": error}))
    }
}

/// A request as it came in. `connect` stands for the connection itself.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counted from 0.
    pub connection: usize,
    pub method: String,
    pub params: Value,
    pub id: Value,
    pub at: Instant,
}

type Script = dyn Fn(&Request) -> Vec<Say> + Send + Sync;

/// What a pool makes of a share's version bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionBits {
    /// They take the place of the job's under the mask (BIP 310).
    Replace,
    /// They are ORed into the job's version, as datum_gateway and ckpool do.
    Or,
    /// They are XORed into it, as public-pool and btcpool do.
    Xor,
    /// Something else: no share that has them is ever right.
    Neither,
}

/// How the pool works.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The version of its jobs.
    pub version: u32,
    pub version_bits: VersionBits,
    /// Whether shares are judged by the newest difficulty, not by their job's.
    pub newest_difficulty: bool,
    /// The bits that may be rolled; `None`: it knows no mining.configure.
    pub mask: Option<u32>,
    pub extranonce2: usize,
    /// As the pool writes it: a power of two, 2 to this.
    pub difficulty: i32,
    pub nbits: u32,
    /// Whether a session can be taken up again.
    pub resumes: bool,
    /// Whether every new job of a connection's is announced as clean.
    pub clean: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            version: 0x2000_0000,
            version_bits: VersionBits::Replace,
            newest_difficulty: false,
            mask: Some(0x1fff_e000),
            extranonce2: 4,
            difficulty: -20,
            nbits: 0x1d00_ffff,
            resumes: false,
            clean: true,
        }
    }
}

#[derive(Debug, Clone)]
struct PoolJob {
    id: String,
    previous: Hash,
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    branch: Vec<Hash>,
    version: u32,
    nbits: u32,
    ntime: u32,
    clean: bool,
    /// As the big-endian number that a share's hash must not exceed.
    target: Hash,
}

impl PoolJob {
    fn notify(&self) -> Value {
        let mut previous = self.previous;
        previous.chunks_mut(4).for_each(<[u8]>::reverse);
        let branch: Vec<String> = self.branch.iter().map(hex::encode).collect();
        json!({"id": null, "method": "mining.notify", "params": [
            self.id, hex::encode(previous), hex::encode(&self.prefix), hex::encode(&self.suffix),
            branch, format!("{:08x}", self.version), format!("{:08x}", self.nbits),
            format!("{:08x}", self.ntime), self.clean,
        ]})
    }
}

/// A share as the pool saw it.
#[derive(Debug, Clone)]
pub struct Share {
    pub connection: usize,
    /// In display order, where the header could be made.
    pub hash: Option<String>,
    /// Why it was refused, where it was.
    pub refused: Option<&'static str>,
    pub params: Value,
    pub at: Instant,
}

struct Connection {
    writer: TcpStream,
    extranonce1: Vec<u8>,
    subscribed: bool,
    authorized: bool,
    open: bool,
    mask: Option<u32>,
}

struct State {
    rules: Rules,
    /// The jobs that shares are taken for; those of earlier sessions too where sessions are resumed.
    jobs: Vec<PoolJob>,
    made: u32,
    connections: Vec<Connection>,
    sessions: HashMap<String, Vec<u8>>,
    requests: Vec<Request>,
    shares: Vec<Share>,
    seen: BTreeMap<Hash, usize>,
}

pub struct ScriptedPool {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

/// Difficulty 1's target divided by 2 to the power of `difficulty`, most significant byte first.
pub fn target_of_power(difficulty: i32) -> Hash {
    // 0xffff << 208, shifted.
    let shift = 208 - difficulty;
    let mut target = [0; 32];
    for bit in 0..16 {
        let at = shift + bit;
        if (0..256).contains(&at) {
            target[31 - at as usize / 8] |= 1 << (at % 8);
        }
    }
    if shift + 15 >= 256 { [0xff; 32] } else { target }
}

impl ScriptedPool {
    /// A good pool.
    pub fn start(rules: Rules) -> Self {
        Self::scripted(rules, |_| vec![Say::AsUsual])
    }

    /// A pool that says what `script` makes it say.
    pub fn scripted(
        rules: Rules,
        script: impl Fn(&Request) -> Vec<Say> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its number");
        let state = Arc::new(Mutex::new(State {
            rules,
            jobs: Vec::new(),
            made: 0,
            connections: Vec::new(),
            sessions: HashMap::new(),
            requests: Vec::new(),
            shares: Vec::new(),
            seen: BTreeMap::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let pool = Self { address, state, stop };
        pool.state().make_job(true);
        let (state, stop) = (pool.state.clone(), pool.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let (state, script) = (state.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &state, &*script));
            }
        });
        pool
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("stratum+tcp://{}", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no pool thread panics")
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state().connections.len()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The methods called on one connection, in their order.
    pub fn methods(&self, connection: usize) -> Vec<String> {
        let state = self.state();
        let mine = state.requests.iter().filter(|request| request.connection == connection);
        mine.map(|request| request.method.clone()).collect()
    }

    pub fn shares(&self) -> Vec<Share> {
        self.state().shares.clone()
    }

    pub fn accepted(&self) -> usize {
        self.state().shares.iter().filter(|share| share.refused.is_none()).count()
    }

    #[track_caller]
    pub fn wait_for_accepted(&self, count: usize, timeout: Duration) {
        let there = poll(timeout, || (self.accepted() >= count).then_some(()));
        assert!(there.is_some(), "{} of {count} shares: {:?}", self.accepted(), self.requests());
    }

    #[track_caller]
    pub fn wait_for_connections(&self, count: usize, timeout: Duration) {
        let there = poll(timeout, || (self.connections() >= count).then_some(()));
        assert!(there.is_some(), "{} of {count} connections", self.connections());
    }

    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().rules);
    }

    /// A new job for everyone; gives its id.
    pub fn new_job(&self, clean: bool) -> String {
        let mut state = self.state();
        state.make_job(clean);
        let job = state.jobs.last().cloned().expect("a job");
        state.tell_all(&job.notify());
        job.id
    }

    /// A new job on top of the block of this hash (in display order), for everyone.
    pub fn build_on(&self, hash: &str) {
        let mut state = self.state();
        state.make_job(true);
        let mut previous: Hash = hex::decode(hash).expect("hex").try_into().expect("32 bytes");
        previous.reverse();
        let job = state.jobs.last_mut().expect("a job");
        job.previous = previous;
        let line = job.notify();
        state.tell_all(&line);
    }

    /// A new job of other transactions, on top of the same block; gives its id.
    pub fn refresh_job(&self, clean: bool) {
        let mut state = self.state();
        let (previous, prefix) = {
            let job = state.jobs.last().expect("a job");
            (job.previous, job.prefix.clone())
        };
        state.make_job(clean);
        let job = state.jobs.last_mut().expect("a job");
        (job.previous, job.prefix) = (previous, prefix);
        let line = job.notify();
        state.tell_all(&line);
    }

    /// The newest job once more, under another id if there is one.
    pub fn same_job(&self, id: Option<&str>) {
        let mut state = self.state();
        let mut job = state.jobs.last().cloned().expect("a job");
        job.clean = false;
        job.target = target_of_power(state.rules.difficulty);
        if let Some(id) = id {
            id.clone_into(&mut job.id);
        }
        state.jobs.push(job.clone());
        state.tell_all(&job.notify());
    }

    /// The line of the newest job.
    pub fn notify(&self) -> Value {
        self.state().jobs.last().expect("a job").notify()
    }

    /// Says something to everyone who is mining.
    pub fn say(&self, line: &Value) {
        self.state().tell_all(line);
    }

    pub fn say_raw(&self, bytes: &[u8]) {
        for connection in self.state().connections.iter_mut().filter(|c| c.open) {
            let _ = connection.writer.write_all(bytes);
        }
    }

    /// Sets the difficulty to a power of two, and says so.
    pub fn set_difficulty(&self, power: i32) {
        let mut state = self.state();
        state.rules.difficulty = power;
        let line = difficulty_line(power);
        state.tell_all(&line);
    }

    pub fn hang_up(&self) {
        self.state().hang_up();
    }
}

impl Drop for ScriptedPool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.state().hang_up();
        let _ = TcpStream::connect(self.address);
    }
}

fn difficulty_line(power: i32) -> Value {
    json!({"id": null, "method": "mining.set_difficulty", "params": [2f64.powi(power)]})
}

impl State {
    fn make_job(&mut self, clean: bool) {
        self.made += 1;
        let height = 200 + self.made;
        let clean = clean || self.rules.clean;
        let mut prefix = vec![2, 0, 0, 0, 1];
        prefix.extend([0; 32]);
        prefix.extend([0xff; 4]);
        let push = block::push_height(height.into());
        let room = self.rules.extranonce2 + 4;
        prefix.push((push.len() + room) as u8);
        prefix.extend(push);
        let mut suffix = vec![0xff, 0xff, 0xff, 0xff, 1];
        suffix.extend(5_000_000_000u64.to_le_bytes());
        suffix.extend([1, block::OP_TRUE, 0, 0, 0, 0]);
        let leaf = |n: u32| block::sha256d(&[self.made.to_le_bytes(), n.to_le_bytes()].concat());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let job = PoolJob {
            id: format!("{:x}", self.made + 0xa0),
            previous: leaf(0),
            prefix,
            suffix,
            branch: (1..=self.made % 3).map(leaf).collect(),
            version: self.rules.version,
            nbits: self.rules.nbits,
            ntime: now as u32,
            clean,
            target: target_of_power(self.rules.difficulty),
        };
        if clean {
            self.jobs.clear();
        }
        self.jobs.push(job);
    }

    fn tell_all(&mut self, line: &Value) {
        let line = format!("{line}\n");
        for connection in self.connections.iter_mut().filter(|c| c.open && c.authorized) {
            let _ = connection.writer.write_all(line.as_bytes());
        }
    }

    fn hang_up(&mut self) {
        for connection in &mut self.connections {
            connection.open = false;
            let _ = connection.writer.shutdown(Shutdown::Both);
        }
    }

    /// What a good pool says.
    fn usual(&mut self, request: &Request) -> Vec<Value> {
        let index = request.connection;
        let answer = |result: Value| json!({"id": request.id, "result": result, "error": null});
        let refusal = |code: i32, words: &str| json!({"id": request.id, "result": null, "error": [code, words, null]});
        match request.method.as_str() {
            "mining.configure" => match self.rules.mask {
                None => vec![refusal(-3, "Method 'configure' not found")],
                Some(mask) => {
                    self.connections[index].mask = Some(mask);
                    vec![answer(json!({
                        "version-rolling": true,
                        "version-rolling.mask": format!("{mask:08x}"),
                    }))]
                }
            },
            "mining.subscribe" => {
                let asked = request.params.get(1).and_then(Value::as_str);
                let known =
                    asked.filter(|_| self.rules.resumes).and_then(|id| self.sessions.get(id));
                let (id, extranonce1) = if let (Some(id), Some(known)) = (asked, known) {
                    (id.to_owned(), known.clone())
                } else {
                    let number = 0x0800_0000 + index as u32;
                    (format!("session{index}"), number.to_be_bytes().to_vec())
                };
                self.sessions.insert(id.clone(), extranonce1.clone());
                let connection = &mut self.connections[index];
                connection.extranonce1.clone_from(&extranonce1);
                connection.subscribed = true;
                vec![answer(json!([
                    [["mining.set_difficulty", id], ["mining.notify", id]],
                    hex::encode(extranonce1),
                    self.rules.extranonce2,
                ]))]
            }
            "mining.authorize" => {
                self.connections[index].authorized = true;
                let job = self.jobs.last().expect("a job").notify();
                vec![answer(json!(true)), difficulty_line(self.rules.difficulty), job]
            }
            "mining.submit" => {
                let (hash, outcome) = self.check(index, &request.params);
                self.shares.push(Share {
                    connection: index,
                    hash: hash.as_ref().map(block::display),
                    refused: outcome.err().map(|(_, words)| words),
                    params: request.params.clone(),
                    at: request.at,
                });
                vec![match outcome {
                    Ok(()) => answer(json!(true)),
                    Err((code, words)) => refusal(code, words),
                }]
            }
            "mining.extranonce.subscribe" => vec![answer(json!(true))],
            "connect" => vec![],
            _ => vec![refusal(-3, "Method not found")],
        }
    }

    /// Makes the header that a share stands for, and judges it.
    fn check(
        &mut self,
        index: usize,
        params: &Value,
    ) -> (Option<Hash>, Result<(), (i32, &'static str)>) {
        let connection = &self.connections[index];
        if !connection.subscribed {
            return (None, Err((25, "Not subscribed")));
        }
        if !connection.authorized {
            return (None, Err((24, "Unauthorized worker")));
        }
        let text = |at: usize| params.get(at).and_then(Value::as_str).unwrap_or_default();
        let number = |at: usize| {
            (text(at).len() == 8).then(|| u32::from_str_radix(text(at), 16).ok()).flatten()
        };
        let expected = if connection.mask.is_some() { 6 } else { 5 };
        if params.as_array().map(Vec::len) != Some(expected) {
            return (None, Err((20, "Wrong number of parameters")));
        }
        let Some(job) = self.jobs.iter().rev().find(|job| job.id == text(1)) else {
            return (None, Err((21, "Job not found")));
        };
        let (Some(ntime), Some(nonce)) = (number(3), number(4)) else {
            return (None, Err((20, "nTime or nonce is not 8 hex digits")));
        };
        let Ok(extranonce2) = hex::decode(text(2)) else {
            return (None, Err((20, "extranonce2 is not hex")));
        };
        if extranonce2.len() != self.rules.extranonce2 {
            return (None, Err((20, "extranonce2 has the wrong size")));
        }
        if ntime < job.ntime || ntime > job.ntime + 7200 {
            return (None, Err((20, "nTime out of range")));
        }
        let version = match connection.mask {
            None => job.version,
            Some(mask) => match number(5) {
                Some(bits) if bits & !mask == 0 => match self.rules.version_bits {
                    VersionBits::Replace => (job.version & !mask) | bits,
                    VersionBits::Or => job.version | bits,
                    VersionBits::Xor => job.version ^ bits,
                    VersionBits::Neither => !job.version,
                },
                _ => return (None, Err((20, "Invalid version bits"))),
            },
        };
        let coinbase =
            [&*job.prefix, &*connection.extranonce1, &*extranonce2, &*job.suffix].concat();
        let root = job.branch.iter().fold(block::sha256d(&coinbase), |node, sibling| {
            block::sha256d(&[node, *sibling].concat())
        });
        let mut header = Vec::new();
        header.extend(version.to_le_bytes());
        header.extend(job.previous);
        header.extend(root);
        for word in [ntime, job.nbits, nonce] {
            header.extend(word.to_le_bytes());
        }
        let hash = block::sha256d(&header);
        let mut number = hash;
        number.reverse();
        let met = number
            <= if self.rules.newest_difficulty {
                target_of_power(self.rules.difficulty)
            } else {
                job.target
            };
        if self.seen.contains_key(&hash) {
            return (Some(hash), Err((22, "Duplicate share")));
        }
        if !met {
            return (Some(hash), Err((23, "Low difficulty share")));
        }
        self.seen.insert(hash, index);
        (Some(hash), Ok(()))
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, script: &Script) {
    let lock = || state.lock().expect("no pool thread panics");
    let Ok(writer) = stream.try_clone() else { return };
    let connection = {
        let mut state = lock();
        state.connections.push(Connection {
            writer,
            extranonce1: Vec::new(),
            subscribed: false,
            authorized: false,
            open: true,
            mask: None,
        });
        state.connections.len() - 1
    };
    let act = |request: Request| -> bool {
        if request.method != "connect" {
            lock().requests.push(request.clone());
        }
        for say in script(&request) {
            let bytes = match say {
                Say::AsUsual => {
                    // Said while the state is held, so that jobs and answers keep their order.
                    let mut state = lock();
                    let lines = state.usual(&request);
                    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
                    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
                    let writer = &mut state.connections[connection].writer;
                    if writer.write_all(text.as_bytes()).is_err() {
                        return false;
                    }
                    continue;
                }
                Say::Line(line) => (line + "\n").into_bytes(),
                Say::Raw(bytes) => bytes,
                Say::Wait(pause) => {
                    std::thread::sleep(pause);
                    continue;
                }
                Say::HangUp => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return false;
                }
            };
            // Not while the state is held: it may take as long as the client likes.
            if (&stream).write_all(&bytes).is_err() {
                return false;
            }
        }
        true
    };
    let request = |method: &str, params: Value, id: Value| Request {
        connection,
        method: method.to_owned(),
        params,
        id,
        at: Instant::now(),
    };
    let mut going = act(request("connect", Value::Null, Value::Null));
    let mut lines = BufReader::new(&stream).lines();
    while going {
        let Some(Ok(line)) = lines.next() else { break };
        let value: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the miner sent {line:?}: {error}"));
        let method = value["method"].as_str().unwrap_or("answer");
        let params = if method == "answer" { value.clone() } else { value["params"].clone() };
        going = act(request(method, params, value["id"].clone()));
    }
    lock().connections[connection].open = false;
    let _ = stream.shutdown(Shutdown::Both);
}
