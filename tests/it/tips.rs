//! How adit learns of new tips, that it leaves no calls behind on the node, and what it says of a
//! node that does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::adit::{Adit, Exit, Running};
use crate::common::node::{Chain, Node, free_port};
use crate::common::scripted::{Call, Reply, ScriptedNode, Template, well_behaved};
use crate::common::{poll, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// nBits that nothing will meet.
const HARD: u32 = 0x1900_ffff;
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
/// What hashes next to nothing.
const IDLE: [&str; 6] = ["--throttle", "1", "--threads", "1", "--backend", "cpu:sha2"];

fn mine(node: &Node) -> Adit {
    let run = Adit::new(["mine", "--json", "-vv", "--address", TEST_ADDRESS, "--datadir"]);
    run.arg(node.datadir()).arg(node.url())
}

fn mine_scripted(server: &ScriptedNode) -> Adit {
    Adit::new(["mine", "--json", "-vv"]).arg(server.url()).args(IDLE)
}

fn wait_for_tip_source(run: &Running, means: &str) {
    run.wait_for_line(|line| line.contains(&format!("new tips are {means}")), SOON);
}

fn wait_for_job_on(run: &Running, hash: &str) -> Value {
    run.wait_for_event(
        |event| event["event"] == "job" && event["previous_block_hash"] == hash,
        SOON,
    )
}

/// How many calls of this method the node is busy with.
fn active(node: &mut Node, method: &str) -> usize {
    let info = node.must("getrpcinfo", json!([]));
    let commands = info["active_commands"].as_array().unwrap();
    commands.iter().filter(|command| command["method"] == method).count()
}

fn stop(mut run: Running) -> Exit {
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    promised::check(&exit.stdout);
    exit
}

/// The `source` events of this state.
fn states<'a>(events: &'a [Value], state: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["state"] == state).collect()
}

/// The first blocks of a signet of our own, as hex with their hashes. They take five million hashes
/// each: next to none, but out of reach for a run that idles.
fn signet_blocks(count: u64) -> Vec<(String, String)> {
    let mut node = Node::start(Chain::Signet, &["-signetchallenge=51"]);
    mine(&node).args(["--blocks", &count.to_string()]).run(2 * SOON).expect_code(0);
    let block = |height| {
        let hash = node.hash_at(height);
        let hex = node.must("getblock", json!([hash, 0]));
        (hash, hex.as_str().unwrap().to_owned())
    };
    (1..=count).map(block).collect()
}

/// By whatever means the node announces it, another miner's tip is mined on long before the
/// template is fetched again for its transactions, ten seconds after the last.
#[test]
fn another_miners_tip_is_followed_by_every_means() {
    let blocks = signet_blocks(3);
    let zmq = |topic: &str| format!("-zmqpub{topic}=tcp://127.0.0.1:{}", free_port());
    for (argument, means) in [
        ("-rpcthreads=1".to_owned(), "polled with getbestblockhash"),
        ("-rpcthreads=4".to_owned(), "awaited with waitfornewblock"),
        (zmq("hashblock"), "announced over ZeroMQ"),
        (zmq("sequence"), "announced over ZeroMQ"),
        (zmq("rawblock"), "announced over ZeroMQ"),
    ] {
        let mut node = Node::start(Chain::Signet, &["-signetchallenge=51", &argument]);
        let idle = mine(&node).args(IDLE).start();
        wait_for_tip_source(&idle, means);
        for (hash, hex) in &blocks {
            assert!(active(&mut node, "waitfornewblock") <= 1, "{argument}: one at a time");
            assert_eq!(node.must("submitblock", json!([hex])), Value::Null);
            let submitted = Instant::now();
            wait_for_job_on(&idle, hash);
            let took = submitted.elapsed();
            // About half a second at most, on a machine that is not busy.
            assert!(took < Duration::from_secs(5), "{argument}: {took:?}");
        }
        assert_eq!(active(&mut node, "getblocktemplate"), 0, "{argument}: a longpoll");
        let exit = stop(idle);
        let waits = exit.stderr.contains("awaited with");
        assert_eq!(waits, argument.contains("rpcthreads"), "{argument}: {exit:#?}");
    }
}

/// With one RPC thread, on regtest, where a block is found at once and every call is in the way of
/// the next.
#[test]
fn one_rpc_thread_is_enough() {
    let mut node = Node::start(Chain::Regtest, &["-rpcthreads=1"]);
    let run = || Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url());
    let (plain, paced) = (run(), run());
    let exit = plain.args(["--blocks", "100"]).run(SOON).expect_code(0);
    assert_eq!(exit.event("summary")["blocks"]["accepted"], 100);
    let exit = paced.args(["--every", "700ms", "--blocks", "4"]).run(SOON).expect_code(0);
    assert_eq!(exit.event("summary")["blocks"]["accepted"], 4);
    assert_eq!(node.height(), 104);
}

/// A node with one RPC thread, which a wait holds for its time.
struct OneThread {
    template: Template,
    thread: Mutex<()>,
}

impl OneThread {
    fn answer(&self, call: &Call) -> Reply {
        let _thread: MutexGuard<'_, ()> = self.thread.lock().unwrap();
        if call.method != "waitfornewblock" {
            return well_behaved(call, &self.template);
        }
        thread::sleep(Duration::from_millis(call.params[0].as_u64().unwrap()));
        Reply::Result(json!({"hash": self.template.value()["previousblockhash"], "height": 6}))
    }
}

#[test]
fn waits_that_hold_up_other_calls_are_given_up() {
    let template = Template::regtest(7).bits(HARD);
    let node = OneThread { template, thread: Mutex::default() };
    let server = ScriptedNode::start(move |call| node.answer(call));
    let run = mine_scripted(&server).start();
    wait_for_tip_source(&run, "polled with getbestblockhash");
    let waits = server.count("waitfornewblock");
    server.wait_for_calls("getbestblockhash", 8, SOON);
    stop(run);
    // Two, unless a busy machine sent a small call before the wait that it was to look after.
    assert_eq!(server.count("waitfornewblock"), waits, "no more of them");
    assert!((2..8).contains(&waits), "{waits}");
}

/// A run that has just started waits for short times only: the calls that many of them leave
/// behind, each stopped during a wait, soon end by themselves.
#[test]
fn a_hundred_runs_on_one_tip_leave_nothing_behind() {
    // Four thousand million hashes a block, and sixteen RPC threads.
    let mut node = Node::start(Chain::Testnet4, &[]);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let run = mine(&node).args(IDLE).start();
                    wait_for_tip_source(&run, "awaited with waitfornewblock");
                    let exit = stop(run);
                    assert_eq!(exit.event("summary")["blocks"]["accepted"], 0);
                }
            });
        }
    });
    assert_eq!(node.height(), 0);
    thread::scope(|scope| {
        for _ in 0..16 {
            let mut rpc = node.connect().unwrap().with_timeout(Duration::from_secs(20));
            scope.spawn(move || {
                assert_eq!(rpc.call("getblockcount", json!([])), Ok(json!(0)));
            });
        }
    });
    assert_eq!(active(&mut node, "getblocktemplate"), 0, "longpolls");
    let gone = poll(SOON, || (active(&mut node, "waitfornewblock") == 0).then_some(()));
    assert!(gone.is_some(), "waits that do not end");
}

#[test]
fn a_chain_that_grows_quickly_needs_no_watch() {
    let height = Arc::new(AtomicUsize::new(7));
    let server = ScriptedNode::start(move |call| {
        if call.method == "submitblock" {
            height.fetch_add(1, Ordering::SeqCst);
        }
        well_behaved(call, &Template::regtest(height.load(Ordering::SeqCst) as u64))
    });
    let run = Adit::new(["mine", "--json", "--blocks", "200"]).arg(server.url());
    let exit = run.run(SOON).expect_code(0);
    assert_eq!(exit.event("summary")["blocks"]["accepted"], 200);
    let watching = ["getzmqnotifications", "waitfornewblock", "getbestblockhash"];
    let calls: usize = watching.iter().map(|method| server.count(method)).sum();
    // A busy machine may hold things up for half a second now and then.
    assert!(calls < 10, "{calls} calls for the tip");
    assert!(server.connections() <= 4, "{} connections", server.connections());
    assert!(poll(SOON, || (server.open_connections() == 0).then_some(())).is_some());
}

/// Neither ZeroMQ, nor waits, nor the tip by itself: templates, and no longpoll.
#[test]
fn a_server_without_a_call_for_the_tip_is_followed_by_its_templates() {
    let template = Arc::new(Mutex::new(Template::regtest(7).bits(HARD)));
    let current = Arc::clone(&template);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getbestblockhash" => Reply::error(-32601, "Method not found"),
        _ => well_behaved(call, &current.lock().unwrap()),
    });
    let run = mine_scripted(&server).start();
    wait_for_tip_source(&run, "polled with getblocktemplate");
    for height in 8..11u64 {
        run.wait_for_event(|event| event["height"] == height - 1, SOON);
        *template.lock().unwrap() = Template::regtest(height).bits(HARD);
        let moved = Instant::now();
        run.wait_for_event(|event| event["height"] == height, SOON);
        assert!(moved.elapsed() < Duration::from_secs(6), "{:?}", moved.elapsed());
    }
    assert!(server.open_connections() <= 4, "{} connections", server.open_connections());
    stop(run);
    assert!(server.calls().iter().all(|call| call.longpoll_id().is_none()));
    assert!(poll(SOON, || (server.open_connections() == 0).then_some(())).is_some());
}

#[test]
fn a_server_whose_waits_end_at_once_is_not_flooded() {
    let template = Template::regtest(7).bits(HARD);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        // Another block each time, and none of them is the tip.
        "waitfornewblock" => Reply::Result(json!({"hash": format!("{:064x}", call.nth)})),
        _ => well_behaved(call, &template),
    });
    let run = mine_scripted(&server).args(["--for", "3s"]);
    run.run(SOON).expect_code(0);
    let (waits, templates) = (server.count("waitfornewblock"), server.count("getblocktemplate"));
    assert!(waits < 40 && templates < 50, "{waits} waits, {templates} templates");
}

#[test]
fn a_stopped_node_on_which_nothing_is_found_is_returned_to() {
    let mut node = Node::start(Chain::Testnet4, &[]);
    let run = mine(&node).args(IDLE).start();
    wait_for_tip_source(&run, "awaited with waitfornewblock");
    node.stop();
    run.wait_for_event(|event| event["state"] == "lost", SOON);
    let seen = run.events().len();
    node.restart();
    let connected = || states(&run.events()[seen..], "connected").first().map(|_| ());
    poll(SOON, connected).expect("connected again");
    poll(SOON, || (active(&mut node, "waitfornewblock") == 1).then_some(())).expect("a wait again");
    let exit = stop(run);
    assert!(promised::blocks(&promised::check(&exit.stdout)).is_empty());
}

/// The node's one RPC thread is taken by another client's call, like the longpolls of other miners.
#[test]
fn that_all_rpc_threads_are_busy_is_announced_in_five_seconds_and_once() {
    let node = Node::start(Chain::Testnet4, &["-rpcthreads=1"]);
    let mut other = node.connect().unwrap();
    let waiting = thread::spawn(move || other.call("waitfornewblock", json!([60_000])));
    thread::sleep(Duration::from_millis(300));
    let exit = mine(&node).args(IDLE).args(["--for", "7s"]).run(SOON).expect_code(0);
    let events = exit.events();
    let said = states(&events, "retrying");
    assert_eq!(said.len(), 1, "{exit:#?}");
    let reason = said[0]["reason"].as_str().unwrap();
    assert!(reason.contains("no answer for 3 s") && reason.contains("-rpcthreads"), "{reason}");
    // Seven seconds, the half that is left for a last answer, and what a busy machine takes.
    assert!(exit.elapsed < Duration::from_secs(30), "{:?}", exit.elapsed);
    drop(node);
    assert!(waiting.join().unwrap().is_err(), "the thread was busy all the time");
}

#[test]
fn a_node_that_is_busy_with_its_chain_is_distinguished_from_one_that_hangs() {
    let server = ScriptedNode::start(|call| match call.method.as_str() {
        "getrpcinfo" => Reply::Result(json!({"active_commands": []})),
        "getblockchaininfo" => {
            Reply::after(Duration::from_secs(6), Reply::Result(json!({"chain": "regtest"})))
        }
        _ => well_behaved(call, &Template::regtest(7)),
    });
    let run = Adit::new(["mine", "--json", "--blocks", "1"]).arg(server.url());
    let exit = run.run(SOON).expect_code(0);
    let events = exit.events();
    let said = states(&events, "retrying");
    assert_eq!(said.len(), 1, "{exit:#?}");
    assert!(said[0]["reason"].as_str().unwrap().contains("busy with its chain"), "{exit:#?}");
    // And it changed nothing.
    assert_eq!(states(&events, "connected").len(), 1);
    assert_eq!(server.count("getblockchaininfo"), 1);
}

/// While a template is mined, or none is wanted, a slow call is only a notice.
#[test]
fn a_slow_call_later_changes_nothing() {
    for pace in [&[][..], &["--on-transaction"]] {
        let template = Template::regtest(7).bits(HARD);
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "getblocktemplate" if call.nth > 0 => Reply::Silence,
            "getmempoolinfo" => Reply::Silence,
            // The tip has moved: a template is wanted.
            "getbestblockhash" => Reply::Result(json!("11".repeat(32))),
            _ => well_behaved(call, &template),
        });
        let run = mine_scripted(&server).args(pace).args(["--for", "8s"]);
        let exit = run.run(SOON).expect_code(0);
        let told = exit.stderr.lines().filter(|line| line.contains("the node is slow: no answer"));
        assert_eq!(told.count(), 1, "{exit:#?}");
        let events = promised::check(&exit.stdout);
        let failures = states(&events, "retrying").len() + states(&events, "lost").len();
        assert_eq!(failures, 0, "{exit:#?}");
    }
}

/// Such a run ends with exit code 0, but it does not look like one without luck.
#[test]
fn a_run_that_never_had_a_template_says_so() {
    let server = ScriptedNode::start(|_| Reply::Silence);
    let exit = mine_scripted(&server).args(["--for", "1s"]).run(SOON).expect_code(0);
    let events = exit.events();
    let said = states(&events, "retrying");
    assert_eq!(said.len(), 1, "{exit:#?}");
    let reason = said[0]["reason"].as_str().unwrap();
    assert!(reason.contains("before the node gave a template"), "{reason}");
    assert!(exit.stderr.contains("before the node gave a template"), "{exit:#?}");
}
