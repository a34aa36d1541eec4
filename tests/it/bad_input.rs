//! What others get wrong: each time one clear line, the promised exit code or a retry that says so.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::adit::{Adit, Exit, Home, Running};
use crate::common::node::{Chain, Node};
use crate::common::scripted::{
    Call, Gate, Reply, ScriptedNode, Template, hash_of, submitted, well_behaved,
};
use crate::common::{poll, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// nBits that nothing will meet.
const HARD: u32 = 0x1900_ffff;

const REGTEST_ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
const MAIN_ADDRESS: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

/// One `error:` line that says what and why, and nothing that a program says of itself.
#[track_caller]
fn expect_error(exit: Exit, code: i32, said: &[&str], hint: Option<&str>) -> Exit {
    let exit = exit.expect_code(code);
    let errors: Vec<&str> =
        exit.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{exit:#?}");
    for words in said {
        assert!(errors[0].contains(words), "{words:?} in {exit:#?}");
    }
    let hints: Vec<&str> = exit.stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert_eq!(hints.len(), usize::from(hint.is_some()), "{exit:#?}");
    assert!(hint.is_none_or(|hint| hints[0].contains(hint)), "{exit:#?}");
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
    exit
}

fn mine(server: &ScriptedNode) -> Adit {
    Adit::new(["mine", "--json", "--threads", "1", "--backend", "cpu:sha2"]).arg(server.url())
}

/// Waits for a `retrying` or `lost` that says these words.
#[track_caller]
fn wait_for_reason(run: &Running, words: &str) -> Value {
    run.wait_for_event(
        |event| {
            event["event"] == "source"
                && event["reason"].as_str().is_some_and(|reason| reason.contains(words))
        },
        SOON,
    )
}

/// Runs `check` on all cases, a few at a time.
fn each<T: Send + Sync>(cases: Vec<T>, check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    check(case);
                }
            });
        }
    });
}

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    for (arguments, said, hint) in [
        (&["mine", "http://127.0.0.1"][..], &["source ", "the port is missing"][..], Some("18443")),
        (&["mine", "ftp://127.0.0.1:1"], &["source ", "the scheme is not known"], Some("http://")),
        (&["mine", "https://127.0.0.1:1"], &["TLS"], Some("http://")),
        (&["mine", "127.0.0.1:18443"], &["the scheme is missing"], Some("http://127.0.0.1:18443")),
        (&["mine", "regtets"], &["there is no such source"], Some("regtest")),
        (&["mine", "http://u:hunter2@h"], &["source \"http://***@h\""], Some("18443")),
        (
            &["mine", "--backend", "cpu:sha3"],
            &["--backend", "there is no kernel"],
            Some("cpu:sha2"),
        ),
        (&["mine", "--backend", "tpu"], &["--backend", "there is no backend"], Some("cpu")),
        (&["mine", "--adress", "x"], &["option --adress"], Some("--address")),
        (&["mine", "--blocks=-1"], &["--blocks"], None),
        (&["mine", "--blocks", "0"], &["--blocks", "at least 1"], None),
        (&["mine", "--for", "soon"], &["--for"], Some("90s")),
        (&["mine", "--threads", "0"], &["--threads"], None),
        (&["mine", "--throttle", "101"], &["--throttle"], None),
        (&["mine", "--address", "nonsense"], &["--address", "no bitcoin address"], None),
        (&["mine", "--address", ""], &["--address"], None),
        (&["mien"], &["command \"mien\""], Some("mine")),
    ] {
        let exit = Adit::new(arguments.iter().copied()).run(SOON);
        let hinted = exit.stderr.contains("\nhint: ");
        let exit = expect_error(exit, 2, said, hint.or(hinted.then_some("")));
        assert!(exit.stdout.is_empty() && !exit.stderr.contains("hunter2"), "{exit:#?}");
    }
}

#[test]
fn an_address_of_another_network_is_refused() {
    let node = Node::start(Chain::Regtest, &[]);
    for address in [TEST_ADDRESS, MAIN_ADDRESS, "12cbQLTFMXRnSzktFkuoG3eHoMeFtpTu3S"] {
        let builtin = Adit::new(["mine", "--address", address]).run(SOON);
        expect_error(builtin, 4, &["pay-out address", address, "regtest is mined"], Some(""));
        let run = Adit::new(["mine", "--address", address, "--datadir"]).arg(node.datadir());
        let exit = run.arg(node.url()).run(SOON);
        let said = ["pay-out address", address, "regtest is mined"];
        let exit = expect_error(exit, 4, &said, Some("address of regtest"));
        assert!(!exit.stdout.contains("block 1"), "{exit:#?}");
    }
    Adit::new(["mine", "--address", REGTEST_ADDRESS, "--blocks", "1"]).run(SOON).expect_code(0);
}

#[test]
fn an_address_is_asked_for_where_coins_are_worth_something() {
    let node = Node::start(Chain::Signet, &[]);
    let run = Adit::new(["mine", "--datadir"]).arg(node.datadir()).arg(node.url());
    expect_error(run.run(SOON), 2, &["pay-out address", "signet"], Some("--address"));
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    let node = Node::builder(Chain::Regtest).password("miner", "right").start();
    let wrong = |adit: Adit| {
        let exit = adit.arg("-vv").run(SOON);
        let hint = Some("ADIT_RPC_PASSWORD");
        let exit = expect_error(exit, 4, &["node 127.0.0.1:", "password", "401"], hint);
        assert!(!exit.stderr.contains("hunter2") && !exit.stdout.contains("hunter2"), "{exit:#?}");
    };
    let url = node.url_with_password("miner", "hunter2");
    wrong(Adit::new(["mine", "--json", &url]));
    let url = format!("http://miner@{}", node.address());
    wrong(Adit::new(["mine", &url]).env("ADIT_RPC_PASSWORD", "hunter2"));
    let home = Home::new();
    home.write_config("rpc-password = \"hunter2\"\n");
    wrong(Adit::new(["mine", &url]).home(&home));
}

#[test]
fn a_missing_or_wrong_cookie_is_told() {
    let node = Node::start(Chain::Regtest, &[]);
    let home = Home::new();
    let run = Adit::new(["mine", &node.url(), "--datadir", "nowhere"]).home(&home).run(SOON);
    expect_error(run, 2, &["data directory nowhere: there is no such directory"], Some("-datadir"));
    fs::create_dir(home.path().join("nowhere")).unwrap();
    let run = Adit::new(["mine", &node.url(), "--datadir", "nowhere"]).home(&home).run(SOON);
    let said = ["no cookie file at", "nowhere/regtest/.cookie"];
    expect_error(run, 2, &said, Some("--datadir"));

    let file = home.path().join("cookie");
    for (text, code, said, hint) in [
        ("__cookie__:0123456789abcdef", 4, "cookie (HTTP 401)", "--rpc-cookie"),
        ("no cookie at all", 2, "user:password", "--rpc-cookie"),
        ("", 2, "user:password", "--rpc-cookie"),
    ] {
        fs::write(&file, text).unwrap();
        let run = Adit::new(["mine", &node.url(), "--rpc-cookie"]).arg(&file).home(&home).run(SOON);
        let exit = expect_error(run, code, &[said], Some(hint));
        assert!(!exit.stderr.contains("0123456789abcdef"), "{exit:#?}");
    }
    let run = Adit::new(["mine", &node.url(), "--rpc-cookie", "/dev/null/x"]).home(&home).run(SOON);
    expect_error(run, 2, &["cookie"], Some("--rpc-cookie"));
    let run = Adit::new(["mine", "http://192.0.2.1:18443"]).home(&home).run(SOON);
    expect_error(run, 2, &["another machine"], Some("--rpc-cookie"));
}

#[test]
fn a_user_without_a_password_is_told() {
    let run = Adit::new(["mine", "http://miner@127.0.0.1:18443"]).run(SOON);
    expect_error(run, 2, &["login", "no password"], Some("ADIT_RPC_PASSWORD"));
}

/// On a chain's own port, with the cookie where the chain's nodes put it.
#[test]
fn the_wrong_chain_is_refused_and_the_right_one_found_by_its_name() {
    let (chains, answer) = (Arc::new(Mutex::new("")), Gate::new());
    let asked = Arc::clone(&chains);
    let (template, gate) = (Template::regtest(7), answer.clone());
    let handler = move |call: &Call| match call.method.as_str() {
        "getblockchaininfo" => Reply::Result(json!({"chain": *asked.lock().unwrap()})),
        "submitblock" => {
            gate.open();
            Reply::Result(Value::Null)
        }
        _ => well_behaved(call, &template),
    };
    // A real node may be using one of the ports.
    let (name, chain, port) = [
        ("regtest", "regtest", 18443),
        ("signet", "signet", 38332),
        ("testnet4", "testnet4", 48332),
        ("testnet3", "test", 18332),
    ]
    .into_iter()
    .find(|(.., port)| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
    .expect("one of the chains' ports is free");
    let server = ScriptedNode::start_on(port, handler);
    let address = if name == "regtest" { REGTEST_ADDRESS } else { TEST_ADDRESS };

    let home = Home::new();
    let folder = if name == "testnet3" { "testnet3" } else { name };
    let datadir = home.path().join("data");
    fs::create_dir_all(datadir.join(folder)).unwrap();
    fs::write(datadir.join(folder).join(".cookie"), "__cookie__:secret").unwrap();
    let run = || {
        let run = Adit::new(["mine", name, "--blocks", "1", "--address", address, "--datadir"]);
        run.arg(&datadir).home(&home).run(SOON)
    };
    for (other, said) in [("main", "main"), ("signet2", "\"signet2\", which adit does not know")] {
        *chains.lock().unwrap() = other;
        let exit = run();
        let hinted = exit.stderr.contains("\nhint: ");
        expect_error(exit, 4, &["node 127.0.0.1:", said], hinted.then_some(""));
    }
    assert!(!answer.is_open(), "no block was sent");
    *chains.lock().unwrap() = chain;
    let exit = run().expect_code(0);
    assert!(exit.stdout.starts_with("block 7 accepted"), "{exit:#?}");
    let calls = server.calls_of("submitblock");
    // "__cookie__:secret" in base64.
    assert_eq!(calls[0].header("authorization"), Some("Basic X19jb29raWVfXzpzZWNyZXQ="));
}

#[test]
fn the_login_of_a_local_node_is_given_to_no_other_machine() {
    let home = Home::new();
    let datadir = home.path().join("data");
    fs::create_dir_all(datadir.join("regtest")).unwrap();
    fs::write(datadir.join("bitcoin.conf"), "rpcuser=al\nrpcpassword=hunter2\n").unwrap();
    fs::write(datadir.join("regtest/.cookie"), "__cookie__:hunter2").unwrap();
    // RFC 5737: no one's address.
    for command in
        [&["mine", "http://192.0.2.1:18443"][..], &["estimate", "http://192.0.2.1:18443"]]
    {
        let run = Adit::new(command.iter().copied()).arg("--datadir").arg(&datadir).home(&home);
        let said = ["login to the node 192.0.2.1:18443", "another machine"];
        expect_error(run.run(SOON), 2, &said, Some("--rpc-cookie"));
    }
}

/// What a node says while it cannot serve, and that it is mined as soon as it can.
#[test]
fn a_node_that_is_not_ready_is_waited_for() {
    let cases = vec![
        ("getblockchaininfo", Reply::error(-28, "Loading block index…"), "Loading block index"),
        ("getblocktemplate", Reply::error(-9, "Bitcoin is not connected!"), "is not connected!"),
        ("getblocktemplate", Reply::error(-10, "is in initial sync and waiting"), "initial sync"),
        ("getblocktemplate", Reply::error(-1, "anything else"), "anything else"),
        ("getblockchaininfo", Reply::HangUp, "connection"),
        ("getblocktemplate", Reply::HangUp, "connection"),
        (
            "getblockchaininfo",
            Reply::Status(503, "<html>\n<b>Busy</b></html>\n".into()),
            "HTTP 503: Busy",
        ),
        (
            "getblocktemplate",
            Reply::Status(503, "<html>\n<b>Busy</b></html>\n".into()),
            "HTTP 503: Busy",
        ),
        ("getblockchaininfo", Reply::Status(200, "<html>Hello</html>".into()), "expected value"),
        ("getblocktemplate", Reply::Status(200, "<html>Hello</html>".into()), "expected value"),
        ("getblockchaininfo", Reply::Status(200, String::new()), "EOF"),
        ("getblockchaininfo", Reply::Raw(b"220 mail.example ESMTP\r\n".to_vec()), "invalid HTTP"),
        ("getblocktemplate", Reply::Raw(b"\x16\x03\x01\x02\x00".to_vec()), "speaks TLS"),
        ("getblockchaininfo", Reply::Raw(b"HTTP/1.1 200 OK\r\n".to_vec()), "connection"),
        ("getblockchaininfo", Reply::EndlessHead, ""),
        ("getblocktemplate", Reply::EndlessHead, ""),
        ("getblockchaininfo", Reply::EndlessBody, "larger than 1 MiB"),
        ("getblocktemplate", Reply::EndlessBody, "larger than 16 MiB"),
        ("getblockchaininfo", Reply::HugeBody(100_000_000), "larger than 1 MiB"),
        ("getblocktemplate", Reply::HugeBody(100_000_000), "larger than 16 MiB"),
        ("getblocktemplate", Reply::HugeBody(16_000_000), "cannot be read"),
        ("getblockchaininfo", Reply::HalfThenHangUp(json!({"chain": "regtest"})), "connection"),
        ("getblocktemplate", Reply::HalfThenHangUp(Template::regtest(7).value()), "connection"),
        ("getblockchaininfo", Reply::Result(Value::Null), "nothing of itself"),
        ("getblockchaininfo", Reply::Result(json!({"chain": 5})), "invalid type"),
        ("getblockchaininfo", Reply::Result(json!({})), "missing field"),
    ];
    each(cases, |(method, reply, words)| {
        let ready = Gate::new();
        let (template, gate) = (Template::regtest(7), ready.clone());
        let (method, reply) = (*method, reply.clone());
        let spoilt = reply.clone();
        let server = ScriptedNode::start(move |call| {
            if call.method == method && !gate.is_open() {
                spoilt.clone()
            } else {
                well_behaved(call, &template)
            }
        });
        let run = mine(&server).args(["--blocks", "1"]).start();
        wait_for_reason(&run, words);
        assert_eq!(server.count("submitblock"), 0);
        let high = run.memory("VmHWM");
        assert!(high < 100_000_000 >> 10, "{high} KiB for {reply:?}");
        ready.open();
        let exit = run.wait(SOON).expect_code(0);
        let events = promised::check_any(&exit.stdout);
        assert_eq!(promised::blocks(&events).len(), 1, "{exit:#?}");
        assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
        let reasons = events.iter().filter(|event| event["reason"].is_string()).count();
        assert!(reasons <= 3, "the same error is told once: {exit:#?}");
    });
}

#[test]
fn a_node_that_will_never_do_is_refused() {
    for (method, reply, said) in [
        ("getblockchaininfo", Reply::Status(401, String::new()), "HTTP 401"),
        (
            "getblockchaininfo",
            Reply::Status(403, String::new()),
            "call getblockchaininfo (HTTP 403)",
        ),
        ("getblocktemplate", Reply::Status(401, String::new()), "HTTP 401"),
        (
            "getblockchaininfo",
            Reply::error(-32601, "Method not found"),
            "the call getblockchaininfo: Method not found",
        ),
        (
            "getblocktemplate",
            Reply::error(-32601, "Method not found"),
            "the call getblocktemplate: Method not found",
        ),
        (
            "getblocktemplate",
            Reply::error(-8, "getblocktemplate must be called with the mweb rule set"),
            "mweb rule set",
        ),
        ("getblockchaininfo", Reply::Result(json!({"chain": "litecoin"})), "\"litecoin\""),
    ] {
        let template = Template::regtest(7);
        let server = ScriptedNode::start(move |call| {
            if call.method == method { reply.clone() } else { well_behaved(call, &template) }
        });
        let exit = mine(&server).run(SOON);
        let hinted = exit.stderr.contains("\nhint: ");
        let exit = expect_error(exit, 4, &["node 127.0.0.1:", said], hinted.then_some(""));
        assert!(!exit.stderr.contains("password:"), "{exit:#?}");
        assert_eq!(server.count("submitblock"), 0);
    }
}

#[test]
fn a_mainnet_node_without_peers_is_waited_for_in_its_own_words() {
    let node = Node::start(Chain::Main, &[]);
    let mut run = Adit::new(["mine", "--json", "--address", MAIN_ADDRESS, "--datadir"])
        .arg(node.datadir())
        .arg(node.url())
        .start();
    wait_for_reason(&run, "not connected");
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    assert_eq!(exit.event("started")["network"], "main");
}

/// A template with one thing wrong: what is said of it, and that the next one, which is right, is
/// mined.
#[test]
fn a_template_that_cannot_be_right_is_told_and_the_next_one_mined() {
    let good = || Template::regtest(7);
    let entry = |key: &str, value: Value| {
        let coin = crate::common::node::spend(([7; 32], 0), vec![1000], 0);
        let mut template = good().transactions(&[coin]).value();
        match value {
            Value::Null => drop(template["transactions"][0].as_object_mut().unwrap().remove(key)),
            value => template["transactions"][0][key] = value,
        }
        template
    };
    let mut cases: Vec<(Value, String)> = Vec::new();
    let mut case = |template: Value, words: &str| cases.push((template, words.to_owned()));
    for key in [
        "version",
        "previousblockhash",
        "transactions",
        "target",
        "mintime",
        "curtime",
        "bits",
        "height",
    ] {
        case(good().without(key).value(), &format!("missing field `{key}`"));
        case(good().set(key, Value::Null).value(), "cannot be read");
        case(good().set(key, json!({"a": [1]})).value(), "cannot be read");
    }
    for key in ["version", "mintime", "curtime", "height", "coinbasevalue"] {
        case(good().set(key, "7").value(), "cannot be read");
        case(good().set(key, 1e300).value(), "cannot be read");
        case(good().set(key, u64::MAX).value(), "cannot be read");
        case(good().set(key, i64::MIN).value(), &format!("template's {key} is wrong"));
    }
    for (key, value) in [
        ("version", json!(1u64 << 32)),
        ("mintime", json!(-1)),
        ("curtime", json!(-1)),
        ("curtime", json!(1u64 << 32)),
        ("height", json!(-7)),
        ("height", json!(0)),
        ("height", json!(1u64 << 31)),
        ("coinbasevalue", json!(-1)),
        ("coinbasevalue", json!(2_100_000_000_000_001u64)),
        ("bits", json!("")),
        ("bits", json!("207ffff")),
        ("bits", json!("+07fffff")),
        ("bits", json!("00000000")),
        ("bits", json!("ff7fffff")),
        ("bits", json!("20ffffff")),
        ("target", json!("00")),
        ("target", json!("zz".repeat(32))),
        ("previousblockhash", json!("00")),
        ("previousblockhash", json!("\u{1b}[31m".repeat(16))),
        ("vbrequired", json!(-1)),
        ("vbavailable", json!({"lie": 32})),
        ("vbavailable", json!({"lie": -1})),
        ("coinbaseaux", json!({"flags": "hex?"})),
        ("default_witness_commitment", json!("6a24aa21a9ed")),
        ("default_witness_commitment", json!("what?")),
    ] {
        case(good().set(key, value).value(), &format!("template's {key} is wrong"));
    }
    case(good().without("coinbasevalue").value(), "coinbasevalue is wrong: it is missing");
    // Each right by itself, and together a lie.
    case(good().set("bits", "1d00ffff").value(), "target is wrong: it is not the target of bits");
    case(
        good().set("target", "ff".repeat(32)).value(),
        "target is wrong: it is not the target of bits",
    );
    let other = format!("6a24aa21a9ed{}", "00".repeat(32));
    case(
        good().set("default_witness_commitment", other.as_str()).value(),
        "does not commit to the template's transactions",
    );
    case(entry("hash", json!("11".repeat(32))), "does not commit to the template's transactions");
    case(entry("hash", json!("11")), "hash is wrong");
    case(entry("txid", json!("zz".repeat(32))), "txid is wrong");
    for key in ["data", "txid", "hash"] {
        case(entry(key, Value::Null), &format!("missing field `{key}`"));
        case(entry(key, json!(7)), "cannot be read");
    }
    case(entry("data", json!("")), "data of number 0 is not hex");
    case(entry("data", json!("abc")), "data of number 0 is not hex");
    case(entry("data", json!("no hex")), "data of number 0 is not hex");
    case(good().set("coinbaseaux", json!({"flags": "00".repeat(100)})).value(), "coinbase");
    for nonsense in [json!([]), json!(7), json!("template"), json!(true)] {
        case(nonsense, "cannot be read");
    }
    case(Value::Null, "the result is null");

    each(cases, |(template, words)| {
        let ready = Gate::new();
        let (spoilt, gate) = (template.clone(), ready.clone());
        let good = Template::regtest(7);
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "getblocktemplate" if !gate.is_open() => Reply::Result(spoilt.clone()),
            _ => well_behaved(call, &good),
        });
        let run = mine(&server).args(["--blocks", "1"]).start();
        wait_for_reason(&run, words);
        assert_eq!(server.count("submitblock"), 0, "{template}");
        ready.open();
        let exit = run.wait(SOON).expect_code(0);
        assert_eq!(promised::blocks(&promised::check(&exit.stdout)).len(), 1, "{exit:#?}");
        assert!(!exit.stderr.contains("panicked") && !exit.stderr.contains('\u{1b}'), "{exit:#?}");
        let lines = exit.stderr.lines().filter(|line| line.contains("retrying")).count();
        assert_eq!(lines, 1, "{exit:#?}");
    });
}

#[test]
fn a_template_that_asks_for_what_adit_cannot_do_is_refused() {
    let good = || Template::regtest(7);
    for (template, said, hint) in [
        (good().set("rules", json!(["csv", "!segwit", "!mweb"])), "the rule !mweb", true),
        (good().set("workid", "7"), "a workid", true),
        (good().set("noncerange", "00000000000000ff"), "nonces", true),
        (good().set("signet_challenge", "5121"), "signature", true),
        (
            good().without("coinbasevalue").set("coinbasetxn", json!({"data": "00"})),
            "coinbasetxn",
            true,
        ),
    ] {
        let server = ScriptedNode::start(move |call| well_behaved(call, &template));
        let exit = mine(&server).run(SOON);
        expect_error(exit, 4, &["node 127.0.0.1:", said], hint.then_some(""));
        assert_eq!(server.count("submitblock"), 0);
    }
}

/// serde's own limit must hold for nested JSON; a `Value` that deep cannot even be made here.
#[test]
fn deeply_nested_json_is_no_way_to_the_stack() {
    for (before, after) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 200_000;
        let nested = format!("{}0{}", before.repeat(depth), after.repeat(depth));
        let body = format!("{{\"result\":{{\"x\":{nested}}},\"error\":null,\"id\":\"adit\"}}");
        let ready = Gate::new();
        let (gate, template) = (ready.clone(), Template::regtest(7));
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "getblocktemplate" if !gate.is_open() => Reply::Status(200, body.clone()),
            _ => well_behaved(call, &template),
        });
        let run = mine(&server).args(["--blocks", "1"]).start();
        wait_for_reason(&run, "cannot be read");
        ready.open();
        run.wait(SOON).expect_code(0);
    }
}

#[test]
fn a_silent_node_holds_nothing_up() {
    for method in ["getblockchaininfo", "getblocktemplate"] {
        let template = Template::regtest(7);
        let server = ScriptedNode::start(move |call| {
            if call.method == method { Reply::Silence } else { well_behaved(call, &template) }
        });
        let mut run = mine(&server).start();
        server.wait_for_calls(method, 1, SOON);
        run.signal("INT");
        let asked = Instant::now();
        run.wait(SOON).expect_code(130);
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(3), "nothing is on its way: {took:?}");
        mine(&server).args(["--for", "100ms"]).run(SOON).expect_code(0);
    }
}

/// A height of its own for each block that the node has taken.
fn growing() -> (Arc<AtomicUsize>, impl Fn() -> Template + Send + Sync) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    (taken, move || Template::regtest(7 + count.load(Ordering::SeqCst) as u64))
}

#[test]
fn every_refusal_is_shown_in_the_nodes_words_with_ours_beside_them() {
    let said = |words: &str| Reply::Result(json!(words));
    let cases = vec![
        (said("high-hash"), "rejected", "high-hash", "the hash does not meet the target"),
        (said("bad-txnmrklroot"), "rejected", "bad-txnmrklroot", "the merkle root is not"),
        (said("bad-cb-height"), "rejected", "bad-cb-height", "BIP 34"),
        (said("bad-cb-length"), "rejected", "bad-cb-length", "2 to 100 bytes"),
        (said("prev-blk-not-found"), "unknown", "prev-blk-not-found", "does not know the previous"),
        (said("time-too-old"), "rejected", "time-too-old", "median"),
        (said("time-too-new"), "unknown", "time-too-new", "two hours"),
        (said("bad-diffbits"), "rejected", "bad-diffbits", "nBits"),
        (said("bad-witness-merkle-match"), "rejected", "bad-witness-merkle-match", "BIP 141"),
        (said("duplicate-invalid"), "rejected", "duplicate-invalid", "found this very block"),
        (said("inconclusive"), "stale", "inconclusive", "not in its best chain"),
        (said("stale-prevblk"), "stale", "stale-prevblk", "no longer builds"),
        (said("of-the-year-3000"), "rejected", "of-the-year-3000", ""),
        (said("\u{1b}[31mred\nline"), "rejected", "\u{fffd}[31mred\u{fffd}line", ""),
        (Reply::error(-22, "Block decode failed"), "rejected", "Block decode failed", "read"),
    ];
    each(cases, |(reply, result, words, ours)| {
        let (taken, template) = growing();
        let reply = reply.clone();
        let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
            ("submitblock", 0) => reply.clone(),
            ("submitblock", _) => {
                taken.fetch_add(1, Ordering::SeqCst);
                Reply::Result(Value::Null)
            }
            // Only asked about a block that the node says it has.
            ("getblockheader", _) => Reply::Result(json!({"height": 7, "confirmations": -1})),
            ("getblockchaininfo", 1..) => Reply::Result(json!({"blocks": 7})),
            _ => well_behaved(call, &template()),
        });
        let arguments = ["mine", "--blocks", "1", "--threads", "1", "--backend", "cpu:sha2"];
        let lines = Adit::new(arguments).arg(server.url()).run(SOON).expect_code(0);
        let hash = hash_of(&submitted(&server.calls_of("submitblock")[0]));
        let line = lines.stdout.lines().next().unwrap();
        assert!(line.starts_with(&format!("block 7 {result} {hash} {words}")), "{line}");
        assert!(line.contains(ours), "{line}");
        assert!(lines.stdout.contains(&format!(" 1 {result}")), "{lines:#?}");
    });
}

#[test]
fn json_gives_the_nodes_words_as_they_are() {
    let template = Template::regtest(7);
    let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
        ("submitblock", 0) => Reply::Result(json!("high-hash")),
        _ => well_behaved(call, &template),
    });
    let exit = mine(&server).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    assert_eq!(blocks.len(), 2);
    assert_eq!(
        (&blocks[0]["result"], &blocks[0]["reason"]),
        (&"rejected".into(), &"high-hash".into())
    );
    assert_eq!(blocks[1]["result"], "accepted");
    assert_ne!(blocks[0]["hash"], blocks[1]["hash"], "the same block is not sent again");
}

#[test]
fn a_node_that_refuses_everything_is_not_stormed() {
    let template = Template::regtest(7);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "submitblock" => Reply::Result(json!("rejected")),
        _ => well_behaved(call, &template),
    });
    let mut run = mine(&server).start();
    server.wait_for_calls("submitblock", 4, SOON);
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    assert!(exit.event("summary")["blocks"]["rejected"].as_u64().unwrap() >= 4);
    let calls = server.calls_of("submitblock");
    for (pair, least) in calls.windows(2).zip([400, 800, 1600]) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(least), "{pause:?} instead of {least} ms");
    }
    assert!(server.count("getblocktemplate") < 16);
}

#[test]
fn a_node_without_batches_is_mined_one_call_at_a_time() {
    for refusal in [
        Reply::Status(
            200,
            json!({"result": null, "error": {"code": -32600, "message": "Batch"}, "id": null})
                .to_string(),
        ),
        Reply::Status(
            500,
            json!({"result": null, "error": {"code": -32700, "message": "Parse"}, "id": null})
                .to_string(),
        ),
    ] {
        let (taken, template) = growing();
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            _ if call.batched => refusal.clone(),
            "submitblock" => {
                taken.fetch_add(1, Ordering::SeqCst);
                Reply::Result(Value::Null)
            }
            _ => well_behaved(call, &template()),
        });
        let exit = mine(&server).args(["--blocks", "5"]).run(SOON).expect_code(0);
        let blocks = promised::blocks(&promised::check(&exit.stdout));
        assert_eq!(blocks.len(), 5);
        let heights: Vec<_> = blocks.iter().map(|block| block["height"].clone()).collect();
        assert_eq!(heights, [7, 8, 9, 10, 11].map(Value::from));
    }
}

/// A node that is just starting has not looked at the block: its error is no verdict.
#[test]
fn what_says_nothing_of_the_block_is_no_verdict() {
    let unready = [
        Reply::error(-28, "Loading block index"),
        Reply::error(-9, "not connected"),
        Reply::Status(502, r#"{"message": "bad gateway"}"#.to_owned()),
        Reply::Status(200, "[{}, {}]".to_owned()),
        Reply::Status(503, "<html>busy</html>".to_owned()),
    ];
    each(unready.to_vec(), |reply| {
        let (taken, template) = growing();
        let reply = reply.clone();
        let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
            ("submitblock", 0) => reply.clone(),
            ("getblocktemplate", _) if call.batched && taken.load(Ordering::SeqCst) == 0 => {
                reply.clone()
            }
            ("submitblock", _) => {
                taken.fetch_add(1, Ordering::SeqCst);
                Reply::Result(Value::Null)
            }
            _ => well_behaved(call, &template()),
        });
        let exit = mine(&server).args(["--blocks", "2"]).run(SOON).expect_code(0);
        let events = promised::check(&exit.stdout);
        let results: Vec<_> =
            promised::blocks(&events).iter().map(|block| block["result"].clone()).collect();
        assert_eq!(results, ["accepted", "accepted"], "{exit:?}");
        let calls = server.calls_of("submitblock");
        assert_eq!(submitted(&calls[0]), submitted(&calls[1]), "the same block is sent again");
        assert!(calls[2].batched, "batches are not given up for it");
    });
}

/// One that answers the first call and no other is not called without end.
#[test]
fn a_node_that_hangs_up_on_templates_is_not_stormed() {
    let server = ScriptedNode::start(|call| match call.method.as_str() {
        "getblocktemplate" => Reply::HangUp,
        _ => well_behaved(call, &Template::regtest(7)),
    });
    let exit = mine(&server).args(["--for", "2s"]).run(SOON).expect_code(0);
    promised::check(&exit.stdout);
    let connections = server.connections();
    assert!((3..=24).contains(&connections), "{connections} connections in two seconds");
}

/// The answer to a block must not be lost because the template beside it is of no use.
#[test]
fn a_spoilt_template_does_not_hide_a_blocks_fate() {
    for spoilt in [json!({"height": "?"}), Value::Null, json!([1, 2])] {
        let ready = Gate::new();
        let (gate, good, hard) =
            (ready.clone(), Template::regtest(7), Template::regtest(8).bits(HARD));
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "getblocktemplate" if gate.is_open() => hard.reply(),
            "getblocktemplate" if call.batched || call.nth > 0 => Reply::Result(spoilt.clone()),
            _ => well_behaved(call, &good),
        });
        let mut run = mine(&server).start();
        run.wait_for_event(
            |event| event["event"] == "block" && event["result"] == "accepted",
            SOON,
        );
        wait_for_reason(&run, "");
        ready.open();
        run.wait_for_event(|event| event["event"] == "job" && event["height"] == 8, SOON);
        run.signal("INT");
        run.wait(SOON).expect_code(130);
        assert_eq!(server.count("submitblock"), 1);
    }
}

#[test]
fn a_node_that_is_not_there_is_waited_for() {
    let server = ScriptedNode::start(|_| Reply::HangUp);
    let (port, url) = (server.port(), server.url());
    drop(server);
    let run = Adit::new(["mine", "--json", "--blocks", "1", &url]).start();
    wait_for_reason(&run, "refused");
    let template = Template::regtest(7);
    let server = ScriptedNode::start_on(port, move |call| well_behaved(call, &template));
    let exit = run.wait(SOON).expect_code(0);
    assert_eq!(server.count("submitblock"), 1);
    assert!(poll(SOON, || (server.open_connections() == 0).then_some(())).is_some(), "{exit:#?}");
}
