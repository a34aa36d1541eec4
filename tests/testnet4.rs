//! The twenty-minute rule: on an isolated testnet4 node, and on a scripted one for the switch, which
//! no real node makes in less than twenty minutes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::adit::Adit;
use common::node::{Chain, Node};
use common::scripted::{Call, Reply, ScriptedNode, Template, submitted};
use common::{poll, promised};
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
fn a_periods_first_block_knows_no_line() {
    // BIP 94: its time is at the earliest ten minutes before its predecessor's, here an hour ahead.
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
fn a_template_whose_times_lie_on_both_sides_is_not_mined() {
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
fn a_node_that_tells_no_header_is_mined_on_all_the_same() {
    let node = Arc::new(Testnet4::with_tip(4_000, 2_000));
    let shared = Arc::clone(&node);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getblockheader" => Reply::error(-5, "Block not found"),
        _ => shared.answer(call),
    });
    mine(server.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
}

/// Real blocks of difficulty 1: four thousand million hashes each, on the average.
#[test]
fn real_blocks_on_an_isolated_testnet4_node() {
    let mut node = Node::start(Chain::Testnet4, &[]);
    let mut run = Adit::new(["mine", "--datadir"])
        .arg(node.datadir())
        .args([&node.url(), "--address", TEST_ADDRESS, "--blocks", "1"])
        .start();
    // The genesis block is of 2024.
    run.wait_for_line(|line| line.contains("difficulty 1, the lowest, until a block comes"), SOON);
    // One in ten thousand runs takes longer than nine times the average, which a slow and busy
    // machine needs minutes for.
    let found = poll(Duration::from_secs(1_800), || (node.height() > 0).then_some(()));
    assert!(found.is_some(), "no block came: {:#?}", run.lines());
    let exit = run.wait(SOON).expect_code(0);
    let tip = node.best_hash();
    assert!(exit.stdout.contains(&format!("block 1 accepted {tip}")), "{exit:#?}");
    let header = node.must("getblockheader", json!([tip]));
    assert_eq!(header["bits"], "1d00ffff");
    let genesis = node.hash_at(0);
    let before = node.must("getblockheader", json!([genesis]))["time"].as_u64().unwrap();
    assert!(header["time"].as_u64().unwrap() > before + 1_200);

    // Its successor is due within twenty minutes: the period's own difficulty, and it is said until
    // when.
    run = Adit::new(["mine", "--datadir"])
        .arg(node.datadir())
        .args([&node.url(), "--address", TEST_ADDRESS, "--throttle", "1", "--threads", "1"])
        .start();
    run.wait_for_line(|line| line.contains(" UTC, then the lowest"), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}
