//! Stands between clients and a server and writes down what they say to each other, line by line.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::block;

/// A line of an exchange.
#[derive(Debug, Clone)]
pub struct Said {
    /// Counted from 0.
    pub connection: usize,
    pub by_server: bool,
    pub line: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.line).unwrap_or_else(|e| panic!("{:?}: {e}", self.line))
    }
}

pub struct Relay {
    address: SocketAddr,
    said: Arc<Mutex<Vec<Said>>>,
    stop: Arc<AtomicBool>,
}

impl Relay {
    /// In front of `server`.
    pub fn start(server: SocketAddr) -> Self {
        Self::altering(server, |_| None)
    }

    /// In front of a Stratum server whose shares take longer than a test: the client is told this
    /// difficulty in the place of the server's own, and its shares go to the server as they are.
    pub fn easing(server: SocketAddr, difficulty: f64) -> Self {
        Self::altering(server, move |said| {
            let mut line = said.json();
            let eased = said.by_server && line["method"] == "mining.set_difficulty";
            eased.then(|| {
                line["params"] = json!([difficulty]);
                line.to_string()
            })
        })
    }

    /// In front of `server`; what `alter` gives for a line is handed on in its place.
    fn altering(
        server: SocketAddr,
        alter: impl Fn(&Said) -> Option<String> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let relay = Self {
            address: listener.local_addr().expect("its address"),
            said: Arc::default(),
            stop: Arc::default(),
        };
        let (said, stop) = (Arc::clone(&relay.said), Arc::clone(&relay.stop));
        thread::spawn(move || {
            for (connection, client) in listener.incoming().enumerate() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(server) else { continue };
                for by_server in [false, true] {
                    let (client, server) = (client.try_clone(), server.try_clone());
                    let (Ok(client), Ok(server)) = (client, server) else { continue };
                    let (from, to) = if by_server { (server, client) } else { (client, server) };
                    let (said, alter) = (Arc::clone(&said), alter.clone());
                    let note = move |line: &str| {
                        let line = line.trim_end().to_owned();
                        let said_now = Said { connection, by_server, line };
                        let instead = alter(&said_now);
                        said.lock().expect("no relay panics").push(said_now);
                        instead
                    };
                    thread::spawn(move || pass(from, to, note));
                }
            }
        });
        relay
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn said(&self) -> Vec<Said> {
        self.said.lock().expect("no relay panics").clone()
    }

    /// One connection as a text: `> ` before what the client said, `< ` before what the server did.
    pub fn transcript(&self, connection: usize) -> String {
        let mut text = String::new();
        for said in self.said().iter().filter(|said| said.connection == connection) {
            let _ = writeln!(text, "{} {}", if said.by_server { '<' } else { '>' }, said.line);
        }
        text
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // So that it wakes and sees it.
        let _ = TcpStream::connect(self.address);
    }
}

/// The block, in hex, that a `mining.submit` stands for where the job has no transactions: put together
/// from what was said on its connection, without adit's code and the server's.
pub fn block_of(said: &[Said], submit: &Said) -> String {
    let from_server: Vec<Value> = said
        .iter()
        .filter(|said| said.by_server && said.connection == submit.connection)
        .map(Said::json)
        .collect();
    let submit = submit.json()["params"].clone();
    let text = |params: &Value, at: usize| params[at].as_str().expect("a text").to_owned();
    let bytes = |params: &Value, at: usize| hex::decode(text(params, at)).expect("hex");
    // Numbers are written with their first digit first, and stand in a header the other way round.
    let word = |params: &Value, at: usize| {
        u32::from_str_radix(&text(params, at), 16).expect("a number in hex")
    };
    let job = from_server
        .iter()
        .map(|line| &line["params"])
        .find(|params| params.as_array().is_some_and(|p| p.len() == 9 && p[0] == submit[1]))
        .expect("the job of the share");
    assert_eq!(job[4], json!([]), "a job without transactions");
    let subscribed = from_server
        .iter()
        .map(|line| &line["result"])
        .find(|result| result.as_array().is_some_and(|result| result.len() == 3))
        .expect("the answer to mining.subscribe");

    let coinbase = [bytes(job, 2), bytes(subscribed, 1), bytes(&submit, 2), bytes(job, 3)].concat();
    let mut previous = bytes(job, 1);
    previous.chunks_mut(4).for_each(<[u8]>::reverse);
    let mut block = (word(job, 5) | word(&submit, 5)).to_le_bytes().to_vec();
    block.extend(previous);
    block.extend(block::sha256d(&coinbase));
    for word in [word(&submit, 3), word(job, 6), word(&submit, 4)] {
        block.extend(word.to_le_bytes());
    }
    // One transaction: the coinbase with its witness, which is 32 zeros (BIP 141).
    block.push(1);
    let (version, rest) = coinbase.split_at(4);
    let (middle, lock_time) = rest.split_at(rest.len() - 4);
    block.extend([version, &[0, 1], middle, &[1, 32], &[0; 32], lock_time].concat());
    hex::encode(block)
}

/// Hands lines on until one side is gone; then the other goes too.
fn pass(from: TcpStream, mut to: TcpStream, note: impl Fn(&str) -> Option<String>) {
    let _ = to.set_nodelay(true);
    let mut lines = BufReader::new(from);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        let instead = note(&line).map(|line| line + "\n");
        if to.write_all(instead.as_ref().unwrap_or(&line).as_bytes()).is_err() {
            break;
        }
        line.clear();
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = lines.into_inner().shutdown(Shutdown::Both);
}
