//! What a node's responses mean, and the messages where no node answers.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::adit::{Adit, Exit, Home};
use crate::common::node::{Chain, Node, free_port, spend};
use crate::common::scripted::{Call, Reply, ScriptedNode, Template, submitted, well_behaved};
use crate::common::{block, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
/// nBits that nothing will meet.
const HARD: u32 = 0x1900_ffff;
/// nBits of 2^24 hashes, the easiest for which a block is proposed first.
const PROPOSED: u32 = 0x1e00_ffff;
/// The calls that adit makes, in a table.
const NODES: &str = include_str!("../../docs/NODES.md");

fn mine(server: &ScriptedNode) -> Adit {
    Adit::new(["mine", "--json", "--threads", "1", "--backend", "cpu:sha2"]).arg(server.url())
}

/// One `error:` line and one hint, with these words.
#[track_caller]
fn expect_error(exit: Exit, code: i32, said: &[&str], hints: &[&str]) {
    let exit = exit.expect_code(code);
    let line = |start: &str| {
        let mut lines = exit.stderr.lines().filter(|line| line.starts_with(start));
        let line = lines.next().unwrap_or_else(|| panic!("no {start:?} in {exit:#?}"));
        assert_eq!(lines.next(), None, "{exit:#?}");
        line
    };
    for (start, words) in [("error: ", said), ("hint: ", hints)] {
        for word in words {
            assert!(line(start).contains(word), "{word:?} in {exit:#?}");
        }
    }
}

fn documented_calls() -> Vec<&'static str> {
    let rows = NODES.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split_once('`').expect("a call").0).collect()
}

/// Every call in the program's source is in the document, and all of these are enough for it.
#[test]
fn the_documented_calls_are_those_that_are_made() {
    let documented = documented_calls();
    let whitelist = documented.join(",");
    assert!(NODES.contains(&format!("rpcwhitelist=alice:{whitelist}\n")));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/getblocktemplate");
    let mut folders = vec![folder];
    let mut made = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            for start in ["request(\"", "\"method\":\""] {
                let names = source.split(start).skip(1).filter_map(|rest| rest.split('"').next());
                made.extend(names.filter(|name| !name.contains('{')).map(str::to_owned));
            }
        }
    }
    assert!(made.len() >= 6, "{made:?}");
    for call in made {
        assert!(documented.contains(&call.as_str()), "{call} is not in docs/NODES.md");
    }

    let mut node = Node::builder(Chain::Regtest)
        .password("alice", "secret")
        // The harness itself asks for the height.
        .arg(format!("-rpcwhitelist=alice:getblockcount,{whitelist}"))
        .start();
    let url = node.url_with_password("alice", "secret");
    Adit::new(["mine", "--blocks", "2", &url]).run(SOON).expect_code(0);
    Adit::new(["mine", "--every", "100ms", "--blocks", "2", &url]).run(SOON).expect_code(0);
    Adit::new(["mine", "--on-transaction", "--for", "500ms", &url]).run(SOON).expect_code(0);
    Adit::new(["estimate", "--hash-rate", "1MH/s", &url]).run(SOON).expect_code(0);
    assert_eq!(node.height(), 4);
}

#[test]
fn a_call_that_a_whitelist_refuses_is_named() {
    for (refused, allowed) in [
        ("getblockchaininfo", "getblockcount"),
        ("getblocktemplate", "getblockcount,getblockchaininfo"),
        ("submitblock", "getblockcount,getblockchaininfo,getblocktemplate"),
    ] {
        let node = Node::builder(Chain::Regtest)
            .password("alice", "secret")
            .arg(format!("-rpcwhitelist=alice:{allowed}"))
            .start();
        let url = node.url_with_password("alice", "secret");
        let exit = Adit::new(["mine", "--blocks", "1", &url]).run(SOON);
        let said = format!("does not allow the call {refused} (HTTP 403)");
        expect_error(exit, 4, &[&said], &["-rpcallowip", "-rpcwhitelist", "NODES.md"]);
    }
}

#[test]
fn what_is_not_a_node_is_named() {
    // A real publisher of a real node.
    let port = free_port();
    let node = Node::builder(Chain::Regtest)
        .arg(format!("-zmqpubhashblock=tcp://127.0.0.1:{port}"))
        .start();
    let home = Home::new();
    let cookie = |url: String| {
        let run = Adit::new(["mine", &url, "--rpc-cookie"]).arg(node.cookie_file());
        run.home(&home).run(SOON)
    };
    let exit = cookie(format!("http://127.0.0.1:{port}"));
    let said = ["speaks ZeroMQ", "-zmqpub", "18443 on regtest", "8332 on main"];
    expect_error(exit, 2, &said, &["JSON-RPC port"]);

    for (first, said, hint) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "speaks SSH", "JSON-RPC port"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "speaks TLS", "no TLS with nodes"),
        (b"{\"id\":null,\"method\":\"client.reconnect\"}\n", "JSON without HTTP", "stratum+tcp://"),
        (b"\xfa\xbf\xb5\xdaversion\0\0\0\0\0", "nodes speak with each other", "JSON-RPC port"),
    ] {
        let server = ScriptedNode::start(move |_| Reply::Raw(first.to_vec()));
        expect_error(mine(&server).run(SOON), 2, &[said], &[hint]);
    }

    // On its other port a node is silent for a minute, and closes the connection. It may just as
    // well be a node that is being restarted.
    for reply in [Reply::HangUp, Reply::Silence] {
        let (chain, port) = free_peer_port();
        let server = ScriptedNode::start_on(port, move |_| reply.clone());
        let said =
            format!("nodes of {chain} talk to each other; their JSON-RPC port is {}", port - 1);
        let mut run = mine(&server).start();
        run.wait_for_line(|line| line.contains(&said), SOON);
        run.signal("INT");
        run.wait(SOON).expect_code(130);
    }
}

/// A chain on whose peer-to-peer port no real node of this machine listens, and that port.
fn free_peer_port() -> (&'static str, u16) {
    let ports = [("regtest", 18444), ("signet", 38333), ("testnet4", 48333), ("testnet3", 18333)];
    let is_free = |(_, port): &(&str, u16)| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.into_iter().find(is_free).expect("one of the chains' ports is free")
}

#[test]
fn a_redirect_is_quoted() {
    for (status, to, hint) in [
        (301, "https://node.example/rpc", "no TLS with nodes"),
        (302, "http://node.example:8332/", "name that address"),
        (307, "http://node.example:8332/", "name that address"),
        (308, "https://node.example/", "no TLS with nodes"),
    ] {
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let server = ScriptedNode::start(move |_| Reply::Raw(answer.clone().into_bytes()));
        let status = format!("HTTP {status}");
        expect_error(mine(&server).run(SOON), 2, &[&status, to], &[hint]);
    }
    // From a node that has been mined, it is a temporary error.
    let template = Template::regtest(7).bits(HARD);
    let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
        ("getblocktemplate", 1) => {
            Reply::Raw(b"HTTP/1.1 302 X\r\nLocation: /down\r\nContent-Length: 0\r\n\r\n".to_vec())
        }
        _ => well_behaved(call, &template.clone().without("longpollid").without("capabilities")),
    });
    let mut run = mine(&server).start();
    run.wait_for_line(|line| line.contains("HTTP 302") && line.contains("/down"), SOON);
    server.wait_for_calls("getblocktemplate", 3, SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

#[test]
fn an_unreadable_cookie_is_an_error_with_three_hints() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let file = home.path().join("cookie");
    fs::write(&file, "__cookie__:secret").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let server = ScriptedNode::start(|call| well_behaved(call, &Template::regtest(7)));
    let url = format!("http://{}", server.address());
    let run = Adit::new(["mine", &url, "--rpc-cookie"]).arg(&file).home(&home);
    let ways = ["-rpccookieperms", "the node's user", "rpcauth"];
    expect_error(run.without_privileges().run(SOON), 2, &["ermission denied"], &ways);
}

#[test]
fn a_missing_data_directory_is_named() {
    let home = Home::new();
    let missing = home.path().join("nowhere");
    let exit = Adit::new(["mine", "regtest", "--datadir"]).arg(&missing).home(&home).run(SOON);
    let said = format!("data directory {}: there is no such directory", missing.display());
    expect_error(exit, 2, &[&said], &["-datadir"]);

    // The usual one: a node that is started now makes it.
    let mut run = Adit::new(["mine".to_owned(), format!("http://127.0.0.1:{}", free_port())])
        .home(&home)
        .start();
    let folder = home.path().join(".bitcoin");
    let said = format!("there is no directory {}", folder.display());
    run.wait_for_line(|line| line.contains("not up yet") && line.contains(&said), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

/// Changes a node's template.
type Spoil = fn(&mut Value);

/// Templates as btcd gives them, and ones with null for everything that may be missing, mined on a
/// real node, which checks the witness commitment.
#[test]
fn templates_without_rules_or_with_nulls_make_valid_blocks() {
    let node = Arc::new(Mutex::new(Node::start(Chain::Regtest, &[])));
    node.lock().unwrap().fill_mempool(3, 250);
    let before = node.lock().unwrap().height();
    let spoils: [(&str, Spoil); 4] = [
        ("no rules, the script", |template| {
            template.as_object_mut().unwrap().remove("rules");
        }),
        ("no rules, the bare hash", |template| {
            template["rules"] = Value::Null;
            let script = template["default_witness_commitment"].as_str().unwrap();
            template["default_witness_commitment"] = script[12..].into();
        }),
        ("no rules and no commitment, but transactions with witnesses", |template| {
            let template = template.as_object_mut().unwrap();
            template.remove("rules");
            template.remove("default_witness_commitment");
        }),
        ("nulls", |template| {
            for field in [
                "capabilities",
                "coinbaseaux",
                "vbavailable",
                "vbrequired",
                "noncerange",
                "signet_challenge",
                "default_witness_commitment",
                "coinbasetxn",
                "workid",
                "longpollid",
            ] {
                template[field] = Value::Null;
            }
        }),
    ];
    for (number, (case, spoil)) in spoils.into_iter().enumerate() {
        // Something with a witness in each block.
        let mut real = node.lock().unwrap();
        if number > 0 {
            real.fill_mempool(3, 250);
        }
        let height = real.height();
        assert_eq!(real.template()["transactions"].as_array().unwrap().len(), 3);
        drop(real);
        let behind = Arc::clone(&node);
        let server = ScriptedNode::start(move |call| {
            match behind.lock().unwrap().rpc(&call.method, call.params.clone()) {
                Ok(mut template) if call.method == "getblocktemplate" => {
                    spoil(&mut template);
                    Reply::Result(template)
                }
                Ok(result) => Reply::Result(result),
                Err(error) => Reply::error(error.code().unwrap_or(-1), &error.to_string()),
            }
        });
        let exit = mine(&server).args(["--blocks", "1"]).run(SOON).expect_code(0);
        let blocks = promised::blocks(&promised::check(&exit.stdout));
        assert_eq!(blocks[0]["result"], "accepted", "{case}: {exit:#?}");
        assert_eq!(node.lock().unwrap().height(), height + 1, "{case}");
    }
    assert!(node.lock().unwrap().height() >= before + 4);
}

/// A block of a chain without witnesses has no commitment; one would make it invalid there.
#[test]
fn a_template_without_any_sign_of_witnesses_gets_no_commitment() {
    let template =
        Template::regtest(7).set("rules", json!(["csv"])).without("default_witness_commitment");
    let server = ScriptedNode::start(move |call| well_behaved(call, &template));
    mine(&server).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let block = submitted(&server.calls_of("submitblock")[0]);
    assert!(!block.contains("6a24aa21a9ed"), "{block}");

    let coin = spend(([7; 32], 0), vec![1000], 0);
    let commitment = hex::encode(block::witness_commitment([block::sha256d(&coin.bytes())]));
    let template = Template::regtest(7).transactions(&[coin]).without("rules");
    let server = ScriptedNode::start(move |call| well_behaved(call, &template));
    mine(&server).args(["--blocks", "1"]).run(SOON).expect_code(0);
    let block = submitted(&server.calls_of("submitblock")[0]);
    assert!(block.contains(&commitment), "{block}");
}

fn is_proposal(call: &Call) -> bool {
    call.method == "getblocktemplate" && call.params[0]["mode"] == "proposal"
}

#[test]
fn a_real_node_checks_a_block_before_it_is_mined() {
    let mut node = Node::start(Chain::Testnet4, &[]);
    let mut run = Adit::new(["mine", "-vv", "--address", TEST_ADDRESS, "--datadir"])
        .arg(node.datadir())
        .args([&node.url(), "--throttle", "1", "--threads", "1"])
        .start();
    run.wait_for_line(|line| line.contains("the node would accept the proposed block"), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    assert_eq!(node.height(), 0);
}

#[test]
fn that_submitblock_is_not_allowed_is_announced_before_a_block_is_found() {
    let node = Node::builder(Chain::Testnet4)
        .password("alice", "secret")
        .arg("-rpcwhitelist=alice:getblockcount,getblockchaininfo,getblocktemplate,getblockheader")
        .start();
    let url = node.url_with_password("alice", "secret");
    let arguments = ["mine", "--address", TEST_ADDRESS, "--throttle", "1", "--threads", "1"];
    let mut run = Adit::new(arguments).arg(url).start();
    run.wait_for_line(
        |line| {
            line.contains("would reject our blocks")
                && line.contains("does not allow the call submitblock (HTTP 403)")
        },
        SOON,
    );
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

#[test]
fn a_rejected_proposal_is_announced_and_withdrawn_when_the_node_accepts_another() {
    let height = Arc::new(AtomicUsize::new(7));
    let now = Arc::clone(&height);
    let template = move || {
        // Without a longpoll it is fetched each second.
        let height = now.load(Ordering::SeqCst) as u64;
        Template::regtest(height).bits(HARD).without("longpollid")
    };
    let server = ScriptedNode::start(move |call| match call.params[0]["data"].as_str() {
        Some(_) if template().value()["height"] == 7 => Reply::Result(json!("bad-cb-length")),
        Some(_) => Reply::Result(Value::Null),
        None => well_behaved(call, &template()),
    });
    let proposals = |server: &ScriptedNode| {
        let mut calls = server.calls();
        calls.retain(is_proposal);
        calls
    };
    let mut run = mine(&server).start();
    let told = run
        .wait_for_event(|event| event["event"] == "source" && event["state"] == "retrying", SOON);
    let reason = told["reason"].as_str().unwrap();
    for words in ["would reject our blocks", "bad-cb-length", "2 to 100 bytes"] {
        assert!(reason.contains(words), "{reason}");
    }
    // It is mined on, and the same is not proposed again.
    run.wait_for_event(|event| event["event"] == "rate", SOON);
    let asked = server.count("getblocktemplate");
    server.wait_for_calls("getblocktemplate", asked + 2, SOON);
    assert_eq!(proposals(&server).len(), 1);
    // With the next tip there is another.
    let connected = |event: &Value| event["state"] == "connected";
    let before = run.events().iter().filter(|event| connected(event)).count();
    height.store(8, Ordering::SeqCst);
    run.wait_for_event(|event| event["event"] == "job" && event["height"] == 8, SOON);
    crate::common::poll(SOON, || {
        (run.events().iter().filter(|event| connected(event)).count() > before).then_some(())
    })
    .expect("the node works again");
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    promised::check(&exit.stdout);
    assert!(exit.stderr.contains("WARN") && exit.stderr.contains("bad-cb-length"), "{exit:#?}");
    let calls = proposals(&server);
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].params[0]["rules"], json!(["segwit", "signet"]));
    // An unsolved block, whole.
    let block = hex::decode(calls[0].params[0]["data"].as_str().unwrap()).unwrap();
    assert_eq!(block[76..80], [0; 4], "the nonce");
    assert!(block.len() > 200);
}

#[test]
fn the_next_source_is_mined_where_the_first_would_refuse_our_blocks() {
    let hard = Template::regtest(7).bits(HARD);
    let first = ScriptedNode::start(move |call| match call.params[0]["data"].as_str() {
        Some(_) => Reply::Result(json!("bad-txnmrklroot")),
        None => well_behaved(call, &hard),
    });
    let second = ScriptedNode::start(|call| well_behaved(call, &Template::regtest(9)));
    let exit = mine(&first).arg(second.url()).args(["--blocks", "1"]).run(SOON).expect_code(0);
    assert!(exit.stderr.contains("bad-txnmrklroot"), "{exit:#?}");
    assert_eq!(exit.event("block")["height"], 9);
}

/// Nothing waits for a proposal, and an inconclusive result is not a rejection.
#[test]
fn a_proposal_without_a_result_holds_up_nothing_and_is_not_a_rejection() {
    for reply in [
        Reply::Silence,
        Reply::error(-8, "Invalid mode"),
        Reply::error(-28, "Loading block index"),
        Reply::Result(json!("inconclusive-not-best-prevblk")),
        Template::regtest(7).reply(),
        Reply::HangUp,
    ] {
        let answer = reply.clone();
        let server = ScriptedNode::start(move |call| match call.params[0]["data"].as_str() {
            Some(_) => answer.clone(),
            None => well_behaved(call, &Template::regtest(7).bits(PROPOSED)),
        });
        let run = Adit::new(["mine", "--json", "--blocks", "1", "--backend", "cpu"]);
        let exit = run.arg(server.url()).run(SOON).expect_code(0);
        let events = promised::check(&exit.stdout);
        assert_eq!(promised::blocks(&events)[0]["result"], "accepted", "{reply:?}");
        let failures = events.iter().filter(|event| event["state"] == "retrying").count();
        assert_eq!(failures, 0, "{reply:?}: {exit:#?}");
        assert!(server.calls().iter().any(is_proposal), "{reply:?}");
    }
}

#[test]
fn nothing_is_proposed_on_an_easy_target_or_to_a_node_without_proposals() {
    for template in [
        Template::regtest(7).bits(HARD).without("capabilities"),
        Template::regtest(7).bits(0x1e0f_ffff),
    ] {
        let server = ScriptedNode::start(move |call| well_behaved(call, &template));
        let mut run = mine(&server).start();
        run.wait_for_event(|event| event["event"] == "job", SOON);
        run.wait_for_event(|event| event["event"] == "rate", SOON);
        run.signal("INT");
        run.wait(SOON).expect_code(130);
        assert!(!server.calls().iter().any(is_proposal));
    }
}
