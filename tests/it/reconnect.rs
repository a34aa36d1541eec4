//! A reconnect that the user asks for, at a node. (`stratum/reconnect.rs` has that at a pool.)

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit::chain::coinbase::CoinbaseText;
use adit::event::{Event, SourceState};
use adit::job::SourceId;
use adit::journal::Journal;
use adit::secret::Secret;
use adit::source::failover::Make;
use adit::source::getblocktemplate::{Config, Credentials, Endpoint, GetBlockTemplate};
use tempfile::TempDir;

use crate::common::node::{Chain, Node, free_port};
use crate::common::poll;
use crate::common::scripted::{Reply, ScriptedNode, Template, well_behaved};
use crate::stratum::miner::{Miner, SOON};

const WHY: &str = "a reconnect was requested";

/// Mines on the node at `address`; blocks go to the journal in `dir`.
fn miner(host: &str, port: u16, credentials: Credentials, dir: &TempDir) -> Miner {
    let config = Config {
        endpoint: Endpoint { host: host.to_owned(), port },
        credentials,
        network: None,
        address: None,
        text: CoinbaseText::default(),
        version_rolling: true,
        pace: None,
    };
    let journal = Arc::new(Journal::open(dir.path()).expect("a journal"));
    let make: Make =
        Box::new(move || Box::new(GetBlockTemplate::new(config.clone(), journal.clone())));
    Miner::start_sources(vec![make])
}

fn user_and_password() -> Credentials {
    Credentials::UserPassword { user: "alice".into(), password: Secret::from("x".to_owned()) }
}

fn reconnect(miner: &Miner) {
    miner.control().reconnect(SourceId::default()).unwrap();
}

/// The ports of the miner's connections over which calls came, as bitcoind logs them, since the last
/// call for its chain's name.
fn ports(node: &Node) -> BTreeSet<SocketAddr> {
    let log = std::fs::read_to_string(node.chain_folder().join("debug.log")).unwrap();
    let is_first = |line: &&str| line.contains("method=getblockchaininfo");
    let since = log.lines().rev().take_while(|line| !is_first(line));
    since
        .filter(|line| line.contains("Received a POST request"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

#[test]
fn a_real_node_is_connected_to_again_when_that_is_requested() {
    let zmq = format!("-zmqpubhashblock=tcp://127.0.0.1:{}", free_port());
    let mut node = Node::start(Chain::Regtest, &[&zmq, "-debug=http", "-debug=rpc"]);
    let dir = TempDir::new().unwrap();
    let cookie = Credentials::Cookie(vec![node.cookie_file()]);
    let miner = miner("127.0.0.1", node.port(), cookie, &dir);
    let connected = |times: usize| {
        let events = miner.events();
        let states = events
            .iter()
            .filter(|event| matches!(event, Event::Source { state: SourceState::Connected, .. }));
        states.count() >= times
    };
    poll(SOON, || (connected(1)).then_some(())).unwrap();
    node.wait_for_height(20, SOON);
    let before = ports(&node);
    assert!(!before.is_empty());
    reconnect(&miner);
    miner.wait_for_source_error(WHY);
    poll(SOON, || (connected(2)).then_some(())).unwrap();
    let height = node.height();
    node.wait_for_height(height + 20, SOON);
    let after = ports(&node);
    // The test's own connection stays.
    let stayed = after.intersection(&before).count();
    assert!(stayed <= 1 && after.len() > 1, "{before:?} {after:?}");
    let ended = miner.stop();
    ended.outcome.unwrap();
    assert_eq!(ended.summary.blocks.accepted, node.height(), "each block has one verdict");
}

#[test]
fn a_block_that_is_being_submitted_is_judged_before_the_connection_is_left() {
    let server = ScriptedNode::start(|call| {
        let answer = well_behaved(call, &Template::regtest(1));
        if call.method == "submitblock" && call.nth == 0 {
            return Reply::after(Duration::from_millis(500), answer);
        }
        answer
    });
    let dir = TempDir::new().unwrap();
    let miner = miner("127.0.0.1", server.port(), user_and_password(), &dir);
    server.wait_for_calls("submitblock", 1, SOON);
    reconnect(&miner);
    server.wait_for_calls("getblockchaininfo", 2, SOON);
    let verdicts = miner.events().into_iter().filter_map(|event| match event {
        Event::Block { verdict, .. } => Some(verdict.result()),
        _ => None,
    });
    assert_eq!(verdicts.take(1).collect::<Vec<_>>(), ["accepted"]);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_requested_reconnect_ends_the_wait_for_the_next_attempt() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let server = ScriptedNode::start(move |call| {
        if up.load(Ordering::SeqCst) {
            well_behaved(call, &Template::regtest(1))
        } else {
            Reply::HangUp
        }
    });
    let dir = TempDir::new().unwrap();
    // An address that is not known to be this machine's: the waits go up to five seconds.
    let miner = miner("::ffff:127.0.0.1", server.port(), user_and_password(), &dir);
    // After 0.2, 0.4, 0.8, 1.6 and 3.2 s; the next would be 5 s later.
    server.wait_for_calls("getblockchaininfo", 6, SOON);
    miner.wait_for_source_error("connection");
    is_up.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    let requested = Instant::now();
    reconnect(&miner);
    server.wait_for_calls("getblockchaininfo", 7, SOON);
    let waited = server.calls_of("getblockchaininfo")[6].at.duration_since(requested);
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    server.wait_for_calls("submitblock", 1, SOON);
    miner.stop().outcome.unwrap();
}

#[test]
fn a_requested_reconnect_ends_an_attempt_under_way() {
    let server = ScriptedNode::start(|call| {
        if call.method == "getblockchaininfo" && call.nth == 0 {
            return Reply::Silence;
        }
        well_behaved(call, &Template::regtest(1))
    });
    let dir = TempDir::new().unwrap();
    let miner = miner("127.0.0.1", server.port(), user_and_password(), &dir);
    server.wait_for_calls("getblockchaininfo", 1, SOON);
    reconnect(&miner);
    server.wait_for_calls("submitblock", 1, Duration::from_secs(20));
    miner.stop().outcome.unwrap();
}
