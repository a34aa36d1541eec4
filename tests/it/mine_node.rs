//! `adit mine` on a real node; on a scripted one where no real node can be made to do it.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::adit::{Adit, Exit, Home, Running};
use crate::common::node::{Chain, Node, spend};
use crate::common::scripted::{Gate, Reply, ScriptedNode, Template, submitted, well_behaved};
use crate::common::{block, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// nBits that nothing will meet.
const HARD: u32 = 0x1900_ffff;
/// The version bits that BIP 320 leaves to miners.
const ROLLED: u32 = 0x1fff_e000;

/// adit on this node, found by its URL and its cookie in the data directory.
fn mine(node: &Node) -> Adit {
    Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url())
}

/// Checks the promised JSON, and that no block was lost or refused; the blocks.
#[track_caller]
fn all_accepted(exit: &Exit) -> Vec<Value> {
    let events = promised::check(&exit.stdout);
    let blocks = promised::blocks(&events);
    for block in &blocks {
        assert_eq!(block["result"], "accepted", "{block}");
    }
    let tally = &events.last().unwrap()["blocks"];
    assert_eq!(tally["accepted"], blocks.len());
    assert_eq!((&tally["rejected"], &tally["stale"]), (&0.into(), &0.into()));
    blocks
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The first event after `since` for which `wanted` holds.
fn wait_after(run: &Running, since: f64, wanted: impl Fn(&Value) -> bool) -> Value {
    run.wait_for_event(|event| event["time"].as_f64().unwrap() > since && wanted(event), SOON)
}

#[test]
fn exactly_this_many_blocks_from_a_fresh_chain_and_none_rejected() {
    let mut node = Node::start(Chain::Regtest, &[]);
    // The first sixteen heights are pushed as one byte.
    let exit = mine(&node).args(["--blocks", "25"]).run(SOON).expect_code(0);
    let blocks = all_accepted(&exit);
    assert_eq!(blocks.len(), 25);
    promised::check_chain(&blocks, 1);
    assert_eq!(node.height(), 25);
    for (block, height) in blocks.iter().zip(1..) {
        assert_eq!(block["hash"], node.hash_at(height));
    }
    assert_eq!(exit.event("started")["network"], "regtest");
    assert_eq!(exit.event("started")["source"], node.url());
    assert!(exit.stderr.contains("no --address"), "{exit:#?}");

    let plain = Adit::new(["mine", "--blocks", "3", "--datadir"]).arg(node.datadir());
    let exit = plain.arg(node.url()).run(SOON).expect_code(0);
    let lines: Vec<&str> = exit.stdout.lines().take(3).collect();
    for (line, height) in lines.iter().zip(26..) {
        assert_eq!(**line, format!("block {height} accepted {}", node.hash_at(height)));
    }
    assert_eq!(node.height(), 28);
}

#[test]
fn every_way_to_log_in() {
    let mut node = Node::builder(Chain::Regtest).password("alice", "p@ss/w%rd").start();
    let one = |run: Adit| run.args(["--blocks", "1"]).run(SOON).expect_code(0);
    let login = |url: String| Adit::new(["mine".to_owned(), url]);
    let user_at = format!("http://alice@{}", node.address());
    one(login(node.url_with_password("alice", "p%40ss%2Fw%25rd")));
    one(login(user_at.clone()).env("ADIT_RPC_PASSWORD", "p@ss/w%rd"));
    let options = ["--rpc-user", "alice", "--rpc-password", "p@ss/w%rd"];
    one(login(node.url()).args(options));
    let home = Home::new();
    home.write_config("rpc-user = \"alice\"\nrpc-password = \"p@ss/w%rd\"\n");
    one(login(node.url()).home(&home));
    assert_eq!(node.height(), 4);

    let mut node = Node::start(Chain::Regtest, &[]);
    one(login(node.url()).arg("--datadir").arg(node.datadir()));
    one(login(node.url()).arg("--datadir").arg(node.chain_folder()));
    one(login(node.url()).arg("--rpc-cookie").arg(node.cookie_file()));
    one(login(format!("http://localhost:{}", node.port())).arg("--datadir").arg(node.datadir()));
    let home = Home::new();
    // Where a node keeps its cookie unless told otherwise.
    let folder = home.path().join(".bitcoin/regtest");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(node.cookie_file(), folder.join(".cookie")).unwrap();
    one(login(node.url()).home(&home));
    assert_eq!(node.height(), 5);
}

#[test]
fn every_standard_address_is_paid_and_the_text_is_in_the_coinbase() {
    const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let mut node = Node::start(Chain::Regtest, &[]);
    for (descriptor, kind) in [
        (format!("pkh({KEY})"), "pubkeyhash"),
        (format!("sh(wpkh({KEY}))"), "scripthash"),
        (format!("wpkh({KEY})"), "witness_v0_keyhash"),
        (format!("wsh(pk({KEY}))"), "witness_v0_scripthash"),
        (format!("tr({})", &KEY[2..]), "witness_v1_taproot"),
    ] {
        let checked = node.must("getdescriptorinfo", json!([descriptor]))["descriptor"].clone();
        let address = node.must("deriveaddresses", json!([checked]))[0].clone();
        let address = address.as_str().unwrap();
        let run = mine(&node).args(["--blocks", "1", "--coinbase-text", "aus dem stollen ⛏"]);
        let exit = run.args(["--address", address]).run(SOON).expect_code(0);
        assert_eq!(all_accepted(&exit).len(), 1);
        assert!(!exit.stderr.contains("no --address"), "{exit:#?}");
        let tip = node.best_hash();
        let coinbase = node.block(&tip)["tx"][0].clone();
        let paid = &coinbase["vout"][0];
        assert_eq!(paid["scriptPubKey"]["address"], address, "{coinbase}");
        assert_eq!(paid["scriptPubKey"]["type"], kind);
        assert_eq!(paid["value"], 50.0);
        let script_sig = hex::decode(coinbase["vin"][0]["coinbase"].as_str().unwrap()).unwrap();
        let text = "aus dem stollen ⛏".as_bytes();
        assert!(script_sig.windows(text.len()).any(|part| part == text), "{coinbase}");
        assert!(script_sig.starts_with(&block::push_height(node.height())));
    }
}

#[test]
fn the_mempool_is_mined_and_its_fees_are_taken() {
    let mut node = Node::start(Chain::Regtest, &[]);
    node.fill_mempool(60, 250);
    let template = node.template();
    let due = template["coinbasevalue"].as_u64().unwrap();
    let exit = mine(&node).args(["--blocks", "1"]).run(SOON).expect_code(0);
    assert_eq!(all_accepted(&exit).len(), 1);
    assert_eq!(node.must("getmempoolinfo", json!([]))["size"], 0);
    let tip = node.best_hash();
    let block = node.block(&tip);
    assert_eq!(block["tx"].as_array().unwrap().len(), 61);
    let paid = (block["tx"][0]["vout"][0]["value"].as_f64().unwrap() * 1e8).round() as u64;
    assert_eq!(paid, due);
    // 20 satoshis a virtual byte.
    assert_eq!(paid, 5_000_000_000 + 60 * 250 * 20);
}

/// BIP 9's bit 28 is offered from height 144 on; it is the template's to set, and no longer ours.
#[test]
fn the_version_bits_of_the_node_are_not_rolled() {
    const OFFERED: u32 = 1 << 28;
    let mut node = Node::start(Chain::Regtest, &[]);
    let exit = mine(&node).args(["--blocks", "450"]).run(SOON).expect_code(0);
    let blocks = all_accepted(&exit);
    assert_eq!((blocks.len(), node.height()), (450, 450));
    let mut offered = 0;
    for block in &blocks {
        let (height, version) = (block["height"].as_u64().unwrap(), promised::version_of(block));
        assert_eq!(version & !ROLLED, 0x2000_0000, "{block}");
        if (144..432).contains(&height) {
            offered += u32::from(version & OFFERED != 0);
        }
    }
    assert_eq!(offered, 288, "blocks that signal while the bit is offered");
}

#[test]
fn the_version_is_rolled_where_it_takes_longer_to_find_a_block() {
    for (taken, when, rolls) in [(0, "auto", true), (0, "off", false), (ROLLED, "auto", false)] {
        let bits: serde_json::Map<String, Value> = (0..29)
            .filter(|bit| taken & (1 << bit) != 0)
            .map(|bit| (format!("use{bit}"), bit.into()))
            .collect();
        // A million hashes a block: more than one midstate's first batch of nonces.
        let template = |height| Template::regtest(height).bits(0x1e0f_ffff);
        let height = Arc::new(AtomicUsize::new(7));
        let server = ScriptedNode::start(move |call| {
            if call.method == "submitblock" {
                height.fetch_add(1, Ordering::SeqCst);
            }
            let template = template(height.load(Ordering::SeqCst) as u64);
            well_behaved(call, &template.set("vbavailable", bits.clone()))
        });
        let run = Adit::new(["mine", "--json", "--blocks", "20", "--version-rolling", when]);
        let exit = run.arg(server.url()).run(SOON).expect_code(0);
        let blocks = all_accepted(&exit);
        let versions: Vec<u32> = blocks.iter().map(promised::version_of).collect();
        assert!(versions.iter().all(|version| version & !ROLLED == 0x2000_0000), "{versions:x?}");
        assert_eq!(versions.iter().any(|version| version & ROLLED != 0), rolls, "{versions:x?}");
    }
}

#[test]
fn a_node_that_is_stopped_and_started_is_mined_on() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let mut run = mine(&node).start();
    node.wait_for_height(20, SOON);
    for kill in [false, true] {
        let cookie = node.cookie();
        let before = now();
        if kill {
            node.kill_hard();
        } else {
            node.stop();
        }
        let lost = wait_after(&run, before, |event| event["state"] == "lost");
        assert_eq!(lost["source"], node.url());
        // Long enough for more than one try.
        wait_after(&run, before, |event| event["state"] == "retrying");
        let again = now();
        node.restart();
        assert_ne!(node.cookie(), cookie);
        wait_after(&run, again, |event| event["state"] == "connected");
        wait_after(&run, now(), |event| event["event"] == "block" && event["result"] == "accepted");
    }
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let events = promised::check(&exit.stdout);
    let summary = events.last().unwrap();
    // A block that was on its way when the node was killed may build on one that was lost with it.
    let blocks = promised::blocks(&events);
    let result_of = |hash: &Value| {
        let last = blocks.iter().rev().find(|block| block["hash"] == *hash);
        last.map(|block| (block["result"].clone(), block["reason"].clone()))
    };
    let unknown: Vec<_> = blocks
        .iter()
        .filter(|block| block["result"] == "unknown")
        .filter_map(|block| result_of(&block["hash"]))
        .filter(|(result, _)| result == "unknown")
        .collect();
    assert!(unknown.len() <= 1, "{unknown:?}");
    assert!(unknown.iter().all(|(_, why)| why == "prev-blk-not-found"), "{unknown:?}");
    assert_eq!(summary["blocks"]["unknown"], unknown.len(), "{summary}");
    assert!(!exit.stderr.lines().any(|line| line.starts_with("error: ")), "{}", exit.stderr);
    // What was accepted and what the node has may differ by what the killed node had not written.
    let tip = node.best_hash();
    assert!(
        blocks.iter().any(|block| block["hash"] == tip),
        "{tip} at {}; {:#?}",
        node.height(),
        &exit.stdout.lines().rev().take(30).collect::<Vec<_>>()
    );
    for word in ["lost", "retrying", "connected"] {
        assert!(exit.stderr.contains(&format!("{}: {word}", node.url())), "{}", exit.stderr);
    }
}

#[test]
fn heights_of_disconnected_blocks_are_mined_again() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let mut run = mine(&node).start();
    node.wait_for_height(40, SOON);
    let disconnected = node.hash_at(30);
    let before = now();
    node.must("invalidateblock", json!([disconnected]));
    let again = wait_after(&run, before, |event| {
        event["event"] == "block" && event["result"] == "accepted" && event["height"] == 30
    });
    assert_ne!(again["hash"], disconnected);
    node.wait_for_height(60, SOON);
    assert_eq!(node.hash_at(30), again["hash"].as_str().unwrap());
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

#[test]
fn a_new_transaction_is_in_a_fresh_job() {
    let transaction = spend(([7; 32], 0), vec![1000], 0);
    let bytes = hex::encode(transaction.bytes());
    let plain = Template::regtest(7).bits(HARD);
    // Easy, so that the block itself shows what was mined.
    let filled = Template::regtest(7).transactions(&[transaction]);
    let filled = filled.set("coinbasevalue", 5_000_000_321u64);
    let entered = Gate::new();
    let gate = entered.clone();
    let server = ScriptedNode::start(move |call| {
        well_behaved(call, if gate.is_open() { &filled } else { &plain })
    });
    let run = Adit::new(["mine", "--json", "--blocks", "1", "--threads", "1", "--throttle", "5"])
        .arg(server.url())
        .start();
    run.wait_for_event(|event| event["event"] == "job", SOON);
    entered.open();
    let asked = Instant::now();
    let fresh = run.wait_for_event(
        |event| event["event"] == "job" && event["clean"] == false && event["height"] == 7,
        SOON,
    );
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let exit = run.wait(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    assert_eq!(events.iter().filter(|event| event["event"] == "job").count(), 2, "{fresh}");
    let block = submitted(&server.calls_of("submitblock")[0]);
    assert!(block.ends_with(&bytes), "{block}");
    let paid = hex::encode(5_000_000_321u64.to_le_bytes());
    assert!(block.contains(&paid), "{block}");
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_silently() {
    let height = Arc::new(AtomicUsize::new(7));
    let server = ScriptedNode::start(move |call| {
        if call.method == "submitblock" {
            // A node drops what was idle for long; here each second block finds it so.
            if call.nth % 2 == 1 {
                return Reply::HangUp;
            }
            height.fetch_add(1, Ordering::SeqCst);
        }
        well_behaved(call, &Template::regtest(height.load(Ordering::SeqCst) as u64))
    });
    let exit = Adit::new(["mine", "--json", "--blocks", "9"]).arg(server.url()).run(SOON);
    let exit = exit.expect_code(0);
    promised::check_heights(&all_accepted(&exit), 7);
    assert!(!exit.stdout.contains("\"lost\""), "{exit:#?}");
}

#[test]
fn the_wall_clock_does_not_limit_a_quick_chain() {
    // Six blocks a second of block time: a thousand are minutes ahead of the clock.
    let mut node = Node::start(Chain::Regtest, &[]);
    let exit = mine(&node).args(["--blocks", "1500"]).run(SOON).expect_code(0);
    let blocks = all_accepted(&exit);
    promised::check_chain(&blocks, 1);
    assert_eq!((blocks.len(), node.height()), (1500, 1500));
}

/// Between a node's end and its next start there is no cookie, and a wrong one is not fatal either.
#[test]
fn a_cookie_that_is_missing_for_a_while_is_waited_for() {
    let home = Home::new();
    let cookie = home.path().join("cookie");
    fs::write(&cookie, "__cookie__:one").unwrap();
    // "__cookie__:one" and "__cookie__:two" in base64.
    let (one, two) = ("Basic X19jb29raWVfXzpvbmU=", "Basic X19jb29raWVfXzp0d28=");
    let state = Arc::new(Mutex::new((Template::regtest(7).bits(HARD), one)));
    let shared = Arc::clone(&state);
    let server = ScriptedNode::start(move |call| {
        let (template, right) = &*shared.lock().unwrap();
        if call.header("authorization") == Some(right) {
            well_behaved(call, template)
        } else {
            Reply::Status(401, String::new())
        }
    });
    let run = Adit::new(["mine", "--json", "--blocks", "1", "--rpc-cookie", "cookie"])
        .arg(format!("http://{}", server.address()))
        .args(["--threads", "1", "--throttle", "5"])
        .home(&home)
        .start();
    // The tip is asked for from now on.
    server.wait_for_calls("getbestblockhash", 1, SOON);
    let retrying = |words: &'static str| {
        move |event: &Value| {
            event["state"] == "retrying" && event["reason"].as_str().unwrap().contains(words)
        }
    };
    fs::remove_file(&cookie).unwrap();
    {
        *state.lock().unwrap() = (Template::regtest(8), two);
    }
    run.wait_for_event(retrying("no cookie file"), SOON);
    fs::write(&cookie, "__cookie__:three").unwrap();
    run.wait_for_event(retrying("HTTP 401"), SOON);
    fs::write(&cookie, "__cookie__:two").unwrap();
    let exit = run.wait(SOON).expect_code(0);
    let blocks = all_accepted(&exit);
    assert_eq!((blocks.len(), &blocks[0]["height"]), (1, &8.into()));
}
