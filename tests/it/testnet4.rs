//! The twenty-minute rule: on an isolated testnet4 node, and on a scripted one for the switch, which
//! no real node makes in less than twenty minutes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::adit::Adit;
use crate::common::node::{Chain, Node};
use crate::common::rpc::{RpcClient, RpcError};
use crate::common::scripted::{Call, Reply, ScriptedNode, Template, hash_of, submitted};
use crate::common::{block, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
/// nBits that nothing will meet, and those of a million hashes.
const HARD: u32 = 0x1900_ffff;
const EASY: u32 = 0x1e0f_ffff;

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

/// A node of testnet4 whose tip is `age` seconds old: what it gives out has `period` bits within
/// twenty minutes of the tip, and `lowest` ones after, as a node's does.
struct Testnet4 {
    height: u64,
    tip: u32,
    period: u32,
    lowest: u32,
    /// The latest time of a template that was given out.
    last: AtomicU32,
}

impl Testnet4 {
    fn with_tip(height: u64, age: u32) -> Self {
        let tip = now() - age;
        Self { height, tip, period: HARD, lowest: EASY, last: AtomicU32::new(0) }
    }

    fn template(&self) -> Template {
        let time = now();
        self.last.store(time, Ordering::SeqCst);
        let late = time > self.tip + 1200 && !self.height.is_multiple_of(2016);
        Template::regtest(self.height)
            .bits(if late { self.lowest } else { self.period })
            .set("curtime", time)
            .set("mintime", self.tip - 3600)
    }

    fn answer(&self, call: &Call) -> Reply {
        match call.method.as_str() {
            "getblockchaininfo" => Reply::Result(json!({"chain": "testnet4"})),
            "getblocktemplate" => self.template().reply(),
            "getbestblockhash" => {
                Reply::Result(Template::regtest(self.height).value()["previousblockhash"].clone())
            }
            "getblockheader" => Reply::Result(json!({"time": self.tip})),
            "submitblock" => Reply::Result(Value::Null),
            _ => Reply::error(-32601, "Method not found"),
        }
    }
}

fn mine(url: String) -> Adit {
    Adit::new(["mine", "--json", "--threads", "1", "--address", TEST_ADDRESS]).arg(url)
}

/// nTime and nBits of a header in hex.
fn time_and_bits(block: &str) -> (u32, u32) {
    let bytes = hex::decode(&block[..160]).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    (word(68), word(72))
}

#[test]
fn the_switch_comes_at_the_second_and_no_bits_cross_it() {
    // The line is four seconds away.
    let node = Arc::new(Testnet4::with_tip(4_000, 1_196));
    let (shared, line) = (Arc::clone(&node), node.tip + 1_200);
    let server = ScriptedNode::start(move |call| shared.answer(call));
    let exit = mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    let jobs: Vec<&Value> = events.iter().filter(|event| event["event"] == "job").collect();
    assert_eq!(jobs.len(), 2, "{jobs:#?}");
    // Fetched just when the line is crossed, not with the next refresh ten seconds later.
    let switched = jobs[1]["time"].as_f64().unwrap() - f64::from(line);
    assert!((0.9..4.0).contains(&switched), "{switched} s after the line");
    let (time, bits) = time_and_bits(&submitted(&server.calls_of("submitblock")[0]));
    assert_eq!(bits, EASY);
    assert!(time > line, "{time} and {line}");
    let said = &exit.stderr;
    assert!(said.contains(" UTC, then the lowest"), "{exit:#?}");
    assert!(said.contains("the lowest, until a block comes"), "{exit:#?}");
    // The tip's time was asked for once.
    assert_eq!(server.count("getblockheader"), 1);
}

#[test]
fn bits_of_the_period_are_mined_until_the_line_and_with_times_before_it() {
    let mut node = Testnet4::with_tip(4_000, 1_190);
    (node.period, node.lowest) = (EASY, HARD);
    let (node, line) = (Arc::new(node), now() + 10);
    let shared = Arc::clone(&node);
    let server = ScriptedNode::start(move |call| shared.answer(call));
    let exit = mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let (time, bits) = time_and_bits(&submitted(&server.calls_of("submitblock")[0]));
    assert_eq!(bits, EASY, "{exit:#?}");
    assert!(time <= line, "{time} and {line}");
}

#[test]
fn a_periods_first_block_has_no_switch() {
    // BIP 94: its time is at the earliest ten minutes before its parent's, here an hour ahead.
    let mut node = Testnet4::with_tip(4_032, 0);
    (node.tip, node.period) = (now() + 3_600, EASY);
    let (node, tip) = (Arc::new(node), now() + 3_600);
    let shared = Arc::clone(&node);
    let server = ScriptedNode::start(move |call| shared.answer(call));
    let exit = mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let (time, bits) = time_and_bits(&submitted(&server.calls_of("submitblock")[0]));
    assert_eq!(bits, EASY);
    assert!((tip - 600..tip).contains(&time), "{time} and {tip}");
    assert!(exit.stderr.contains("a period's first block"), "{exit:#?}");
    assert!(!exit.stderr.contains(" UTC, then the lowest"), "{exit:#?}");
}

#[test]
fn a_template_with_times_on_both_sides_of_the_switch_is_not_mined() {
    let node = Arc::new(Testnet4::with_tip(4_000, 600));
    let shared = Arc::clone(&node);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        // No node does this: bits for now, and a least time beyond the line.
        "getblocktemplate" if call.nth < 2 => {
            shared.template().bits(EASY).set("mintime", shared.tip + 2_000).reply()
        }
        "getblocktemplate" => shared.template().bits(EASY).reply(),
        _ => shared.answer(call),
    });
    let exit = mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    assert!(exit.stderr.contains("where others hold"), "{exit:#?}");
    let (time, _) = time_and_bits(&submitted(&server.calls_of("submitblock")[0]));
    assert!(time <= node.tip + 1_200);
}

#[test]
fn a_node_that_does_not_give_the_header_is_mined_on_all_the_same() {
    let node = Arc::new(Testnet4::with_tip(4_000, 2_000));
    let shared = Arc::clone(&node);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getblockheader" => Reply::error(-5, "Block not found"),
        _ => shared.answer(call),
    });
    mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
}

/// A real node, whose blocks take four thousand million hashes, made easier: what it gives out has
/// [`EASY`] bits, and a block that comes back is proposed to it with its own bits instead. It then
/// checks everything but the proof of work (BIP 23), which the test does.
struct Eased {
    node: SocketAddr,
    cookie: String,
    /// The blocks that were proposed with the node's own bits, and what it said of them.
    judged: Arc<Mutex<Vec<(String, Value)>>>,
}

/// nBits of the lowest difficulty.
const LOWEST: u32 = 0x1d00_ffff;

impl Eased {
    /// Answers as the node does; each call has a connection of its own, so that none waits for
    /// another.
    fn ask(&self, method: &str, params: Value) -> Reply {
        match RpcClient::new(self.node, Some(&self.cookie)).call(method, params) {
            Ok(result) => Reply::Result(result),
            Err(RpcError::Rpc { code, message }) => Reply::RpcError { code, message },
            Err(other) => panic!("{method}: {other}"),
        }
    }

    /// What the node says of this block with its own bits in the place of ours.
    fn judge(&self, block: &str) -> Reply {
        let own =
            format!("{}{}{}", &block[..144], hex::encode(LOWEST.to_le_bytes()), &block[152..]);
        let reply = self.ask("getblocktemplate", json!([{"mode": "proposal", "data": own}]));
        if let Reply::Result(said) = &reply {
            self.judged.lock().unwrap().push((own, said.clone()));
        }
        reply
    }

    fn answer(&self, call: &Call) -> Reply {
        match call.method.as_str() {
            "getblocktemplate" if call.longpoll_id().is_some() => Reply::Silence,
            "getblocktemplate" if call.params[0]["mode"] == "proposal" => {
                self.judge(call.params[0]["data"].as_str().expect("a proposal is of a block"))
            }
            "getblocktemplate" => match self.ask("getblocktemplate", call.params.clone()) {
                Reply::Result(mut template) => {
                    assert_eq!(template["bits"], format!("{LOWEST:08x}"));
                    template["bits"] = format!("{EASY:08x}").into();
                    template["target"] = hex::encode(block::target_of(EASY)).into();
                    Reply::Result(template)
                }
                other => other,
            },
            "submitblock" => self.judge(&submitted(call)),
            method => self.ask(method, call.params.clone()),
        }
    }
}

#[test]
fn a_real_testnet4_node_accepts_a_block_except_for_its_missing_work() {
    let mut node = Node::start(Chain::Testnet4, &[]);
    let judged = Arc::default();
    let eased = Eased { node: node.address(), cookie: node.cookie(), judged: Arc::clone(&judged) };
    let server = ScriptedNode::start(move |call| eased.answer(call));
    let exit = mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    let blocks = promised::blocks(&events);
    promised::check_chain(&blocks, 1);
    assert_eq!((blocks.len(), &events[0]["network"]), (1, &"testnet4".into()));

    // The node has seen that very block, and its verdict is the one that was announced.
    let hex = submitted(&server.calls_of("submitblock")[0]);
    assert_eq!(hash_of(&hex), blocks[0]["hash"]);
    let judged = judged.lock().unwrap().clone();
    let (last, said) = judged.last().expect("the node was asked");
    assert_eq!((&last[..144], &last[152..]), (&hex[..144], &hex[152..]));
    assert_eq!(*said, Value::Null, "the node takes it");
    let header = hex::decode(&hex[..160]).unwrap();
    let mut hash = block::sha256d(&header);
    hash.reverse();
    assert!(hash <= block::target_of(EASY), "the work that was asked for is done");
    let (time, bits) = time_and_bits(&hex);
    assert_eq!(bits, EASY);
    let genesis = node.hash_at(0);
    let before = node.must("getblockheader", json!([genesis]))["time"].as_u64().unwrap();
    assert!(u64::from(time) > before + 1_200);

    // It does look: another byte of the merkle root, and the bits that are not its own.
    let other_root = format!("{}{:02x}{}", &last[..72], header[36] ^ 1, &last[74..]);
    for (block, words) in [(other_root, "bad-txnmrklroot"), (hex, "bad-diffbits")] {
        let said = node.must("getblocktemplate", json!([{"mode": "proposal", "data": block}]));
        assert_eq!(said, words);
    }
    // And of the real thing nothing but work is missing.
    assert_eq!(node.must("submitblock", json!([last])), "high-hash");
}

#[test]
fn the_lowest_difficulty_of_a_real_node_is_announced() {
    let node = Node::start(Chain::Testnet4, &[]);
    let run = Adit::new(["mine", "--threads", "1", "--throttle", "1", "--datadir"]);
    let mut run = run.arg(node.datadir()).args([&node.url(), "--address", TEST_ADDRESS]).start();
    // The genesis block is of 2024.
    run.wait_for_line(|line| line.contains("difficulty 1, the lowest, until a block comes"), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}
