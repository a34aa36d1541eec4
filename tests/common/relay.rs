//! Stands between clients and a server and writes down what they say to each other, line by line.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

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
                    let said = Arc::clone(&said);
                    let note = move |line: &str| {
                        let line = line.trim_end().to_owned();
                        let said_now = Said { connection, by_server, line };
                        said.lock().expect("no relay panics").push(said_now);
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

/// Hands lines on until one side is gone; then the other goes too.
fn pass(from: TcpStream, mut to: TcpStream, note: impl Fn(&str)) {
    let _ = to.set_nodelay(true);
    let mut lines = BufReader::new(from);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        note(&line);
        if to.write_all(line.as_bytes()).is_err() {
            break;
        }
        line.clear();
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = lines.into_inner().shutdown(Shutdown::Both);
}
