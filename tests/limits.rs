//! What adit may take of the machine it runs on.

mod common;

use std::time::Duration;

use common::adit::{Adit, Running};
use common::block::target_of;
use common::node::{BIG_BLOCKS, Chain, Node};
use common::promised;
use common::scripted::{Reply, ScriptedNode};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);
/// Resident memory while mining, in KiB: the promise.
const MEMORY: u64 = 50 << 10;

/// Ends the run once it has mined for some seconds, and says how much memory it took at the most.
fn most_memory(mut run: Running) -> u64 {
    // The second rate comes after two and a half seconds; each is a moment's memory.
    let mut last = 0.0;
    for _ in 0..2 {
        let rate = run.wait_for_event(
            |event| event["event"] == "rate" && event["time"].as_f64().unwrap() > last,
            SOON,
        );
        last = rate["time"].as_f64().unwrap();
    }
    let most = run.memory("VmHWM");
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    assert!(!promised::blocks(&promised::check(&exit.stdout)).is_empty());
    most
}

#[test]
fn mining_on_the_built_in_chain_takes_little_memory() {
    let most = most_memory(Adit::new(["mine", "--json"]).start());
    assert!(most < MEMORY, "{most} KiB");
}

#[test]
fn mining_on_a_node_takes_little_memory() {
    let node = Node::start(Chain::Regtest, &[]);
    let run = Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url());
    let most = most_memory(run.start());
    assert!(most < MEMORY, "{most} KiB");
}

#[test]
fn a_template_full_of_transactions_takes_little_memory_and_is_mined() {
    let mut node = Node::start(Chain::Regtest, &BIG_BLOCKS);
    node.fill_mempool(4000, 249);
    let mut template = node.template();
    // Nothing will meet this, so that it stays.
    template["bits"] = "1900ffff".into();
    template["target"] = hex::encode(target_of(0x1900_ffff)).into();
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getblockchaininfo" => Reply::Result(json!({"chain": "regtest"})),
        "getblocktemplate" => Reply::Result(template.clone()),
        "getbestblockhash" => Reply::Result(template["previousblockhash"].clone()),
        _ => Reply::error(-32601, "Method not found"),
    });
    let mut run = Adit::new(["mine", "--json"]).arg(server.url()).start();
    run.wait_for_event(|event| event["event"] == "job", SOON);
    let most = run.memory("VmHWM");
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    assert!(most < MEMORY, "{most} KiB");

    let run = Adit::new(["mine", "--json", "--blocks", "1", "--datadir"]).arg(node.datadir());
    let exit = run.arg(node.url()).run(SOON).expect_code(0);
    let hash = exit.event("block")["hash"].clone();
    let block = node.must("getblock", json!([hash, 1]));
    assert_eq!(block["nTx"], 4001);
    assert!(block["weight"].as_u64().unwrap() > 2_000_000, "{}", block["weight"]);
}
