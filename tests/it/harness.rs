//! The tests' own tools, tested: what they say about adit is worth as much as they are.

use std::time::{Duration, Instant};

use crate::common::adit::Adit;
use crate::common::block::{self, Block};
use crate::common::node::{BIG_BLOCKS, Chain, Node, free_port};
use crate::common::rpc::{RpcClient, RpcError, base64};
use crate::common::scripted::{Gate, Reply, ScriptedNode, Template};
use crate::common::{baseline, poll};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_real_node_lives_through_stop_and_kill() {
    let mut node = Node::start(Chain::Regtest, &[]);
    assert_eq!(node.height(), 0);
    let hashes = node.generate(3);
    assert_eq!(node.best_hash(), hashes[2]);
    assert_eq!(node.block(&hashes[0])["height"], 1);
    assert_eq!(node.rpc("nonsense", json!([])).unwrap_err().code(), Some(-32601));
    assert!(node.cookie().starts_with("__cookie__:"));

    let cookie = node.cookie();
    node.restart();
    assert_eq!(node.height(), 3);
    assert_ne!(node.cookie(), cookie, "each start has a cookie of its own");

    let pid = node.pid();
    node.kill_hard();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(matches!(node.rpc("getblockcount", json!([])), Err(RpcError::Io(_))));
    node.restart();
    assert_eq!(node.hash_at(0), "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206");
}

#[test]
fn a_node_with_a_password_refuses_another() {
    let node = Node::builder(Chain::Signet).password("miner", "secret").start();
    assert!(!node.cookie_file().exists());
    assert_eq!(
        node.url_with_password("miner", "secret"),
        format!("http://miner:secret@{}", node.address())
    );
    let mut right = RpcClient::new(node.address(), Some("miner:secret"));
    assert_eq!(right.call("getblockcount", json!([])).unwrap(), 0);
    let mut wrong = RpcClient::new(node.address(), Some("miner:wrong"));
    let refusal = wrong.call("getblockcount", json!([])).unwrap_err();
    assert!(matches!(refusal, RpcError::Http { status: 401, .. }), "{refusal}");
}

#[test]
fn blocks_made_by_hand_are_accepted() {
    let mut node = Node::start(Chain::Regtest, &[]);
    // Past the heights that are pushed as one byte.
    for height in 1..=20 {
        let mut block = Block::from_template(&node.template(), height);
        block.solve();
        assert_eq!(node.must("submitblock", json!([block.hex()])), Value::Null);
        assert_eq!(node.best_hash(), block::display(&block.hash()));
    }
    let mut block = Block::from_template(&node.template(), 0);
    block.unsolve();
    assert_eq!(node.must("submitblock", json!([block.hex()])), "high-hash");
    assert_eq!(node.height(), 20);
}

#[test]
fn a_mempool_is_filled_and_mined() {
    let mut node = Node::start(Chain::Regtest, &BIG_BLOCKS);
    node.fill_mempool(200, 250);
    let template = node.template();
    let transactions = template["transactions"].as_array().unwrap();
    assert_eq!(transactions.len(), 200);
    assert!(
        transactions
            .iter()
            .all(|transaction| transaction["weight"].as_u64().unwrap().div_ceil(4) == 250)
    );
    let mut block = Block::from_template(&template, 0);
    let hashes = transactions
        .iter()
        .map(|transaction| block::parse_display(transaction["hash"].as_str().unwrap()));
    assert_eq!(block.coinbase.outputs[1].script, block::witness_commitment(hashes));
    block.solve();
    assert_eq!(node.must("submitblock", json!([block.hex()])), Value::Null);
    assert_eq!(node.must("getmempoolinfo", json!([]))["size"], 0);
}

#[test]
fn the_bare_script_loses_no_block() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let separate = baseline::bare_script_blocks_per_second(&node, Duration::from_millis(300));
    let batched = baseline::bare_script_with_batches(&node, Duration::from_millis(300));
    assert!(separate.accepted > 0 && batched.accepted > 0);
    assert!(separate.blocks_per_second() > 0.0);
    assert_eq!((separate.refused, batched.refused), (0, 0));
    assert_eq!(node.height(), separate.accepted + batched.accepted);
}

#[test]
fn a_scripted_node_answers_calls_and_batches() {
    let template = Template::regtest(7);
    let reply = template.reply();
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getblocktemplate" => reply.clone(),
        _ => Reply::error(-32601, "Method not found"),
    });
    let mut rpc = RpcClient::new(server.address(), Some("user:password"));
    assert_eq!(rpc.call("getblocktemplate", json!([{}])).unwrap(), template.value());
    assert_eq!(rpc.call("nonsense", json!([])).unwrap_err().code(), Some(-32601));
    let answers = rpc.batch(&[("nonsense", json!([])), ("getblocktemplate", json!([{}]))]).unwrap();
    assert_eq!(answers[0].as_ref().unwrap_err().code(), Some(-32601));
    assert_eq!(answers[1].as_ref().unwrap()["height"], 7);

    assert_eq!(server.connections(), 1, "the connection is kept");
    assert_eq!(server.count("getblocktemplate"), 2);
    let calls = server.calls_of("getblocktemplate");
    assert_eq!((calls[0].batched, calls[1].batched, calls[1].nth), (false, true, 1));
    assert_eq!(calls[0].header("authorization"), Some("Basic dXNlcjpwYXNzd29yZA=="));
    drop(rpc);
    assert!(poll(SOON, || (server.open_connections() == 0).then_some(())).is_some());
}

#[test]
fn a_scripted_template_can_be_mined() {
    let template = Template::regtest(300).bits(0x2000_ffff).set("coinbasevalue", 5);
    assert_eq!(template.value()["target"].as_str().unwrap()[..8], *"00ffff00");
    let mut block = Block::from_template(&template.value(), 0);
    block.solve();
    assert_eq!(block.hash()[31], 0);
    assert_eq!(template.without("height").value().get("height"), None);
    let commitment = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";
    assert_eq!(Template::regtest(1).value()["default_witness_commitment"], commitment);
}

/// Every fault comes out as the fault it should be, and the server ends in time after it.
#[test]
fn a_scripted_node_misbehaves_as_told() {
    let fault = |reply: Reply| {
        let server = ScriptedNode::start(move |_| reply.clone());
        let mut rpc =
            RpcClient::new(server.address(), None).with_timeout(Duration::from_millis(300));
        let answer = rpc.call("getblocktemplate", json!([]));
        drop(rpc);
        let ending = Instant::now();
        let sent = server.bytes_sent();
        drop(server);
        assert!(ending.elapsed() < Duration::from_secs(2));
        (answer, sent)
    };
    let io = |reply| matches!(fault(reply).0, Err(RpcError::Io(_)));
    assert!(io(Reply::HangUp));
    assert!(io(Reply::HalfThenHangUp(json!("a result of some length"))));
    assert!(io(Reply::Silence));
    assert!(io(Reply::Raw(b"nonsense\r\n\r\n".to_vec())));
    assert!(io(Reply::EndlessHead));
    let (answer, sent) = fault(Reply::EndlessBody);
    assert!(matches!(answer, Err(RpcError::Io(_))));
    assert!(sent > 200 << 20, "the client's bound comes first, after {sent} bytes");
    let (answer, _) = fault(Reply::HugeBody(5_000_000));
    assert_eq!(answer.unwrap().as_str().unwrap().len(), 5_000_000);
    let (answer, _) = fault(Reply::Status(401, String::new()));
    assert_eq!(answer, Err(RpcError::Http { status: 401, body: String::new() }));
    let slow = Reply::Slow { result: json!([1, 2]), piece: 5, pause: Duration::from_millis(5) };
    assert_eq!(fault(slow).0, Ok(json!([1, 2])));
    let late = Reply::after(Duration::from_millis(100), Reply::Result(json!(3)));
    assert_eq!(fault(late).0, Ok(json!(3)));
}

#[test]
fn a_scripted_longpoll_waits_for_its_gate() {
    let gate = Gate::new();
    let held = Reply::when(&gate, Reply::Result(json!("new")));
    let server = ScriptedNode::start(move |_| held.clone());
    let address = server.address();
    let ask = move || {
        let mut rpc = RpcClient::new(address, None);
        rpc.call("getblocktemplate", json!([{"longpollid": "x"}]))
    };
    let asking = std::thread::spawn(ask);
    server.wait_for_calls("getblocktemplate", 1, SOON);
    assert_eq!(server.calls()[0].longpoll_id(), Some("x"));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!asking.is_finished());
    gate.open();
    assert_eq!(asking.join().unwrap().unwrap(), "new");
}

#[test]
fn the_binary_is_run_watched_and_ended() {
    let nonsense = Adit::new(["--no-such-option"]).run(SOON).expect_code(2);
    assert!(nonsense.stdout.is_empty());
    assert!(nonsense.stderr.starts_with("error: "), "{nonsense:?}");

    let mut run = Adit::new(["mine", "--json", "--for", "60s"]).start();
    run.wait_for_event(|event| event["event"] == "started", SOON);
    assert!(run.memory("VmHWM") > 0);
    let pid = run.pid();
    run.signal("KILL");
    let exit = run.wait(SOON);
    assert_eq!(exit.code, None, "a signal has no exit code");
    // What came last may end in the middle of a line.
    let first: Value = serde_json::from_str(exit.stdout.lines().next().unwrap()).unwrap();
    assert!(first["event"] == "started" && first["time"].is_number(), "{first}");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// What the watching is for: it says what was said when the awaited does not come.
#[test]
#[should_panic(expected = "adit has ended, and the line has not come")]
fn a_line_that_never_comes_is_a_failure() {
    let run = Adit::new(["--no-such-option"]).start();
    run.wait_for_line(|line| line == "never said", SOON);
}

#[test]
fn words_are_encoded_as_the_standards_say() {
    for (plain, encoded) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
    {
        assert_eq!(base64(plain.as_bytes()), encoded);
    }
    assert_eq!(hex::encode(block::push_height(16)), "60");
    assert_eq!(hex::encode(block::push_height(17)), "0111");
    assert_eq!(hex::encode(block::push_height(128)), "028000");
    assert_eq!(hex::encode(block::push_height(840_000)), "0340d10c");
    assert_eq!(hex::encode(block::target_of(0x1d00_ffff))[..16], *"00000000ffff0000");
    assert_eq!(hex::encode(block::target_of(0x0100_3456)), "00".repeat(32));
    assert_eq!(hex::encode(block::target_of(0x0212_3456))[60..], *"1234");
    assert_ne!(free_port(), 0);
}
