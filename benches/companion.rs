//! adit as a companion of a regtest node, in figures:
//!
//! - `transaction`: from a transaction in the mempool to the block that holds it, through ZeroMQ and
//!   by asking: the median, the 99th percentile and the worst;
//! - `every`: how far from its time each block of `--every 1s` comes, and what CPU time that takes;
//! - `endurance`: restarts and resets of the node in a loop, none of which may leave adit stuck.
//!
//! `cargo bench --bench companion` takes a quarter of an hour (a part: `-- every`); `cargo test`
//! takes a few rounds of each. The times are those at which the node has the block, and for `every`
//! those that adit gives its blocks.

#[path = "../tests/it/common.rs"]
mod common;

use std::time::{Duration, Instant};

use common::adit::Adit;
use common::node::{Chain, Node, free_port, spend};
use common::{block, poll, promised};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

fn main() {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    // `cargo test` runs it without either option.
    let full = asked("--bench") && !asked("--test");
    let parts = ["transaction", "every", "endurance"];
    let all = !parts.iter().any(|part| asked(part));
    if all || asked("transaction") {
        for zmq in [true, false] {
            transaction(zmq, if full { 500 } else { 5 });
        }
    }
    if all || asked("every") {
        every(if full { 300 } else { 3 });
    }
    if all || asked("endurance") {
        endurance(if full { 1_000 } else { 12 }, Duration::from_secs(1_200));
    }
}

fn mine(node: &Node) -> Adit {
    Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url())
}

fn transaction(zmq: bool, count: usize) {
    let argument = format!("-zmqpubsequence=tcp://127.0.0.1:{}", free_port());
    let arguments: &[&str] = if zmq { &[argument.as_str()] } else { &[] };
    let mut node = Node::start(Chain::Regtest, arguments);
    let coins = node.generate(count.min(140) as u64);
    node.generate(100);
    let mut spends: Vec<_> = coins
        .iter()
        .map(|hash| {
            let coinbase = &node.block(hash)["tx"][0];
            let paid = (coinbase["vout"][0]["value"].as_f64().expect("an amount") * 1e8).round();
            let id = block::parse_display(coinbase["txid"].as_str().expect("a txid"));
            (id, paid as u64)
        })
        .collect();
    let mut run = mine(&node).arg("--on-transaction").start();
    run.wait_for_event(|event| event["state"] == "connected", SOON);
    std::thread::sleep(Duration::from_millis(500));
    let mut rpc = node.connect().expect("a connection");
    let mut took = Vec::with_capacity(count);
    for n in 0..count {
        // Each pays the next of its line.
        let place = n % spends.len();
        let (id, value) = spends[place];
        let transaction = spend((id, 0), vec![value - 10_000], 0);
        spends[place] = (transaction.txid(), value - 10_000);
        let tip = rpc.call("getbestblockhash", json!([])).expect("a tip");
        let bytes = hex::encode(transaction.bytes());
        rpc.call("sendrawtransaction", json!([bytes, 0])).expect("it is taken");
        let sent = Instant::now();
        let moved =
            || (rpc.call("getbestblockhash", json!([])).expect("a tip") != tip).then_some(());
        poll(SOON, moved).expect("a block");
        took.push(sent.elapsed());
        // Not in step with adit's own looks.
        std::thread::sleep(Duration::from_millis(20 + (n as u64 * 37) % 90));
    }
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let blocks = exit.event("summary")["blocks"]["accepted"].as_u64().expect("a number");
    assert_eq!(blocks, count as u64, "a block for each transaction and none else");
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!(
        "transaction to block, {:<12} {count} times: median {:?}, p99 {:?}, worst {:?}",
        if zmq { "ZeroMQ" } else { "by asking" },
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

fn every(seconds: u64) {
    let node = Node::start(Chain::Regtest, &[]);
    let blocks = (seconds + 1).to_string();
    let run = mine(&node).args(["--every", "1s", "--blocks", &blocks]).start();
    run.wait_for_event(|event| event["event"] == "block", SOON);
    let (before, began) = (run.cpu_time(), Instant::now());
    let last = || {
        let accepted = promised::blocks(&run.events()).len() as u64;
        (accepted >= seconds).then_some(())
    };
    // Looked at now and then only: this process must not be what disturbs the beat.
    while last().is_none() {
        assert!(began.elapsed() < Duration::from_secs(seconds) + SOON, "the blocks do not come");
        std::thread::sleep(Duration::from_millis(250));
    }
    let share = run.cpu_time().saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    let exit = run.wait(SOON).expect_code(0);
    let blocks = promised::blocks(&exit.events());
    let time = |n: usize| blocks[n]["time"].as_f64().expect("a time");
    // How far each is behind its time, by the beat of the one that came soonest after its own.
    let since = |n: usize| time(n) - time(0);
    let beat = (0..blocks.len()).map(|n| since(n) - since(n).round()).fold(f64::INFINITY, f64::min);
    let slot = |n: usize| (since(n) - beat).floor();
    let left_out = slot(blocks.len() - 1) as usize + 1 - blocks.len();
    let mut off: Vec<f64> = (0..blocks.len()).map(|n| (since(n) - beat - slot(n)) * 1e3).collect();
    off.sort_by(f64::total_cmp);
    println!(
        "--every 1s for {seconds} s: behind its time by {:.1} ms in the median, {:.1} ms in 99 of \
         100, {:.1} ms at worst; {left_out} left out; {:.2} % of a core",
        off[off.len() / 2],
        off[(off.len() - 1) * 99 / 100],
        off[off.len() - 1],
        share * 100.0,
    );
}

/// Of a hundred rounds two wipe the chain, eight restart the node, and ninety undo blocks.
fn endurance(rounds: u64, at_most: Duration) {
    let mut node = Node::start(Chain::Regtest, &[]);
    let mut run = mine(&node).args(["-q", "--every", "20ms"]).start();
    node.wait_for_height(20, SOON);
    let began = Instant::now();
    let (mut done, mut longest) = (0, Duration::ZERO);
    let mut kinds = [0u32; 4];
    while done < rounds && began.elapsed() < at_most {
        let height = node.height();
        let kind = match done % 50 {
            9 => 0,
            19 | 29 => 1,
            39 | 49 => 2,
            _ => 3,
        };
        match kind {
            0 => {
                node.stop();
                std::fs::remove_dir_all(node.chain_folder()).expect("the chain's folder");
                node.restart();
            }
            1 => node.restart(),
            2 => {
                node.kill_hard();
                node.restart();
            }
            _ => {
                let undone = node.hash_at(height.saturating_sub(3).max(1));
                node.must("invalidateblock", json!([undone]));
            }
        }
        kinds[kind] += 1;
        let (ready, height) = (Instant::now(), node.height());
        let goes_on = poll(SOON, || (node.height() > height + 4).then_some(()));
        assert!(goes_on.is_some(), "stuck in round {done}: {:#?}", run.lines());
        longest = longest.max(ready.elapsed());
        done += 1;
    }
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    let [wiped, restarted, killed, undone] = kinds;
    println!(
        "{done} rounds in {:.0} s ({wiped} chains wiped, {restarted} restarts, {killed} kills, \
         {undone} times blocks undone): never stuck, longest until five new blocks {longest:?}",
        began.elapsed().as_secs_f64(),
    );
}
