//! `--every` and `--on-transaction`, on real nodes and on the built-in chain.

use std::time::{Duration, Instant};

use crate::common::adit::{Adit, Running};
use crate::common::node::{Chain, Node, free_port, spend};
use crate::common::{block, poll, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";

fn mine(node: &Node) -> Adit {
    Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url())
}

fn time(event: &Value) -> f64 {
    event["time"].as_f64().unwrap()
}

/// Blocks accepted so far.
fn accepted(run: &Running) -> usize {
    let blocks = promised::blocks(&run.events());
    blocks.iter().filter(|block| block["result"] == "accepted").count()
}

/// A node whose mempool takes `count` transactions, each of which can be sent on its own.
fn node_with_coins(arguments: &[&str], count: usize) -> (Node, Vec<block::Transaction>) {
    let mut node = Node::start(Chain::Regtest, arguments);
    let hashes = node.generate(count as u64);
    node.generate(100);
    let spends = hashes
        .iter()
        .map(|hash| {
            let coinbase = &node.block(hash)["tx"][0];
            let paid = (coinbase["vout"][0]["value"].as_f64().unwrap() * 1e8).round() as u64;
            let id = block::parse_display(coinbase["txid"].as_str().unwrap());
            spend((id, 0), vec![paid - 10_000], 0)
        })
        .collect();
    (node, spends)
}

/// Checks that each of these blocks came at its time, counted from the first, give or take what a
/// busy machine may.
fn check_beat(blocks: &[Value], period: f64, slack: f64) {
    let first = time(&blocks[0]);
    for (block, n) in blocks.iter().zip(0u32..) {
        let off = time(block) - first - f64::from(n) * period;
        assert!(off.abs() < slack, "block {n} is {off} s off its time: {blocks:#?}");
    }
}

#[test]
fn a_block_each_so_often_and_no_hash_in_between() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let exit = mine(&node).args(["--every", "400ms", "--blocks", "6"]).run(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    promised::check_chain(&blocks, 1);
    assert_eq!((blocks.len(), node.height()), (6, 6));
    check_beat(&blocks, 0.4, 0.35);
    // A regtest block takes two hashes; a thread may try some thousand more before it knows.
    assert!(exit.event("summary")["hashes"].as_u64().unwrap() < 1_000_000, "{exit:#?}");
    assert!(!exit.stderr.contains("skipped"), "{exit:#?}");
}

#[test]
fn the_built_in_chain_keeps_a_pace_too() {
    let run = Adit::new(["mine", "--json", "--every", "300ms", "--blocks", "5"]);
    let exit = run.run(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    assert_eq!(blocks.len(), 5);
    check_beat(&blocks, 0.3, 0.25);

    let mut run = Adit::new(["mine", "--json", "--every", "1h"]).start();
    run.wait_for_event(|event| event["event"] == "block", SOON);
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    assert!(exit.elapsed < Duration::from_secs(30), "{exit:#?}");
}

#[test]
fn a_pace_that_cannot_be_kept_is_refused_in_one_line() {
    let exit = Adit::new(["mine", "--on-transaction"]).run(SOON).expect_code(2);
    assert!(exit.stderr.contains("error: --on-transaction: the built-in chain"), "{exit:#?}");
    assert!(exit.stderr.contains("\nhint: name a node"), "{exit:#?}");

    let pool = Adit::new(["mine", "stratum+tcp://127.0.0.1:1", "--user", "u", "--every", "1s"]);
    let exit = pool.run(SOON).expect_code(2);
    assert!(exit.stderr.contains("error: --every: a pool's jobs"), "{exit:#?}");

    let node = Node::start(Chain::Testnet4, &[]);
    let run = mine(&node).args(["--every", "1m", "--address", TEST_ADDRESS]);
    let exit = run.run(SOON).expect_code(2);
    assert!(exit.stderr.contains("error: --every: blocks of testnet4"), "{exit:#?}");
}

#[test]
fn what_is_missed_while_stopped_is_not_made_up_for() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let mut run = mine(&node).args(["--every", "250ms"]).start();
    node.wait_for_height(2, SOON);
    run.signal("STOP");
    // As a laptop that sleeps.
    std::thread::sleep(Duration::from_secs(3));
    let asleep = node.height();
    run.signal("CONT");
    run.wait_for_line(|line| line.contains("were skipped"), SOON);
    let woke = Instant::now();
    node.wait_for_height(asleep + 3, SOON);
    // Ten were missed; three more take two periods.
    assert!(woke.elapsed() > Duration::from_millis(300), "{:?}", woke.elapsed());
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    promised::check_chain(&blocks, 1);
    for pair in blocks.windows(2) {
        assert!(time(&pair[1]) - time(&pair[0]) > 0.05, "a burst: {pair:#?}");
    }
}

/// Through ZeroMQ, by each of the topics that tell, and by asking.
#[test]
fn a_transaction_is_in_a_block_within_a_second() {
    for topic in [Some("sequence"), Some("hashtx"), Some("rawtx"), None] {
        let port = free_port();
        let argument = topic.map(|topic| format!("-zmqpub{topic}=tcp://127.0.0.1:{port}"));
        let arguments: Vec<&str> = argument.iter().map(String::as_str).collect();
        let (mut node, spends) = node_with_coins(&arguments, 5);
        let height = node.height();
        let mut run = mine(&node).args(["-vv", "--on-transaction"]).start();
        run.wait_for_event(|event| event["state"] == "connected", SOON);
        let how = if topic.is_some() { "over ZeroMQ" } else { "by polling" };
        run.wait_for_line(|line| line.contains(how), SOON);
        for (transaction, n) in spends.iter().zip(1..) {
            // The node has a block a moment before it is told here.
            let told = poll(SOON, || (accepted(&run) == n as usize - 1).then_some(()));
            assert!(told.is_some() && node.height() == height + n - 1, "{:#?}", run.lines());
            let sent = Instant::now();
            node.send(std::slice::from_ref(transaction));
            node.wait_for_height(height + n, SOON);
            // A second is the promise; the machine is shared with other tests.
            let took = sent.elapsed();
            assert!(took < Duration::from_secs(3), "{topic:?}: {took:?}");
            let tip = node.best_hash();
            let inside = node.block(&tip)["tx"].as_array().unwrap().len();
            assert_eq!(inside, 2, "{topic:?}");
        }
        // None else: neither for an empty mempool, nor for what the blocks themselves set off.
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!((node.height(), accepted(&run)), (height + 5, 5), "{topic:?}");
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        let tally = &promised::check(&exit.stdout).last().unwrap()["blocks"].clone();
        assert_eq!((&tally["rejected"], &tally["stale"]), (&0.into(), &0.into()), "{tally}");
    }
}

#[test]
fn what_the_mempool_holds_at_the_start_is_mined_and_all_of_it() {
    // Four of them fill a block of these limits.
    let small = ["-blockmaxweight=14000", "-blockmaxsize=4000"];
    let mut node = Node::start(Chain::Regtest, &small);
    node.fill_mempool(12, 400);
    let run = mine(&node).arg("--on-transaction").start();
    let left = poll(SOON, || (node.must("getmempoolinfo", json!([]))["size"] == 0).then_some(()));
    assert!(left.is_some(), "{:#?}", run.lines());
    std::thread::sleep(Duration::from_millis(700));
    let blocks = promised::blocks(&run.events());
    assert!(blocks.len() > 1, "{blocks:#?}");
    for block in &blocks {
        let inside = node.block(block["hash"].as_str().unwrap());
        assert!(inside["tx"].as_array().unwrap().len() > 1, "an empty block: {inside}");
    }
}

#[test]
fn a_transaction_that_no_template_takes_makes_no_block() {
    let (mut node, spends) = node_with_coins(&["-blockmintxfee=0.01"], 2);
    let height = node.height();
    let mut run = mine(&node).arg("--on-transaction").start();
    run.wait_for_event(|event| event["state"] == "connected", SOON);
    node.send(&spends[..1]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((node.height(), accepted(&run)), (height, 0));
    // It is worth its place now, and nothing has been added that would say so.
    let id = block::display(&spends[0].txid());
    node.must("prioritisetransaction", json!([id, 0, 100_000_000]));
    node.wait_for_height(height + 1, SOON);
    // The other is not, and the first is gone.
    node.send(&spends[1..]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((node.height(), accepted(&run)), (height + 1, 1));
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

#[test]
fn both_together_with_an_end() {
    let (mut node, spends) = node_with_coins(&[], 1);
    let height = node.height();
    let run = mine(&node).args(["--every", "3s", "--on-transaction", "--blocks", "4"]).start();
    node.wait_for_height(height + 1, SOON);
    node.send(&spends);
    let exit = run.wait(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    assert_eq!(blocks.len(), 4);
    assert_eq!(node.height(), height + 4);
    let with: Vec<usize> = blocks
        .iter()
        .map(|block| node.block(block["hash"].as_str().unwrap())["tx"].as_array().unwrap().len())
        .collect();
    assert_eq!(with.iter().sum::<usize>(), 5, "{with:?}");
    // The beat is that of the first block, whatever the transaction's block did.
    let beat: Vec<Value> =
        blocks.iter().zip(&with).filter(|(_, with)| **with == 1).map(|(b, _)| b.clone()).collect();
    if with[1] == 2 {
        check_beat(&beat, 3.0, 1.0);
    }
}

#[test]
fn a_node_that_restarts_is_kept_at_the_pace() {
    let port = free_port();
    let argument = format!("-zmqpubsequence=tcp://127.0.0.1:{port}");
    let (mut node, spends) = node_with_coins(&[argument.as_str()], 3);
    let height = node.height();
    let mut run = mine(&node).arg("--on-transaction").start();
    run.wait_for_event(|event| event["state"] == "connected", SOON);
    for (transaction, n) in spends.iter().zip(1..) {
        node.send(std::slice::from_ref(transaction));
        node.wait_for_height(height + n, SOON);
        let before = run.events().len();
        let state = |state: &str| {
            let events = run.events();
            events[before..].iter().any(|event| event["state"] == state).then_some(())
        };
        node.stop();
        // That it is away is noticed though nothing is to be mined.
        assert!(poll(SOON, || state("lost")).is_some(), "{:#?}", run.lines());
        node.restart();
        assert!(poll(SOON, || state("connected")).is_some(), "{:#?}", run.lines());
    }
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    let mut run = mine(&node).args(["--every", "500ms"]).start();
    node.wait_for_height(height + 5, SOON);
    node.restart();
    let tip = node.height();
    node.wait_for_height(tip + 3, SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

/// The CPU time of the process stays small: no busy waiting.
#[test]
fn waiting_costs_next_to_nothing() {
    let node = Node::start(Chain::Regtest, &[]);
    let mut run = mine(&node).args(["--every", "1h", "--on-transaction"]).start();
    run.wait_for_event(|event| event["event"] == "block", SOON);
    let before = run.cpu_time();
    std::thread::sleep(Duration::from_secs(4));
    let used = run.cpu_time().saturating_sub(before);
    // Ten looks at the mempool a second: measured at 20 ms; a thread that spins uses 4 s.
    assert!(used < Duration::from_millis(400), "{used:?}");
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}
