//! What adit may take of the machine it runs on.

use std::time::Duration;

use crate::common::adit::{Adit, Running};
use crate::common::block::target_of;
use crate::common::node::{BIG_BLOCKS, Chain, Node};
use crate::common::promised;
use crate::common::scripted::{Reply, ScriptedNode, Template, well_behaved};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);
/// Resident memory while mining, in KiB: the promise.
const MEMORY: u64 = 50 << 10;
/// The same whatever a source sends: 100 MB, in KiB.
const MEMORY_AT_ALL: u64 = 100_000_000 >> 10;
/// The most bytes of a template that are read.
const TEMPLATE_BYTES: usize = 16 << 20;

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

/// `part` again and again, with commas between, as much of it as goes into `bytes`.
fn many(part: &str, bytes: usize) -> String {
    let mut all = [part, ","].concat().repeat(bytes / (part.len() + 1));
    all.pop();
    all
}

/// Templates as large as are read, each with something that could take a multiple of its size: the
/// member to be put into a sound one instead of its own, and what is said of it, or nothing where it is
/// mined.
fn worst_templates() -> Vec<(&'static str, String, Option<&'static str>)> {
    let room = TEMPLATE_BYTES - 2000;
    let string = |text: &str| format!("\"{}\"", text.repeat((room - 2) / text.len()));
    let empty = r#"{"data":"","txid":"","hash":""}"#;
    let (id, data) = ("11".repeat(32), "00".repeat(60));
    let small = format!(
        r#"{{"data":"{data}","txid":"{id}","hash":"{id}","depends":[],"fee":0,"sigops":0,"weight":240}}"#
    );
    let large = format!(r#"{{"data":"{}","txid":"{id}","hash":"{id}"}}"#, "00".repeat(1 << 20));
    let numbered = |value: &str| {
        let members: Vec<String> =
            (0..room / (9 + value.len())).map(|n| format!("\"{n:x}\":{value}")).collect();
        let mut text = members.join(",");
        text.truncate(room - 10);
        let end = text.rfind(',').unwrap();
        text.truncate(end);
        format!("{{{text}}}")
    };
    let depth = room / 2;
    vec![
        ("transactions", format!("[{}]", many(empty, room)), Some("more than 16666 transactions")),
        ("transactions", format!("[{}]", many(&small, room)), Some("more than 16666 transactions")),
        ("transactions", format!("[{}]", many("{}", room)), Some("missing field")),
        ("transactions", format!("[{}]", many(&large, room)), Some("more than a block can hold")),
        ("rules", format!("[{}]", many("\"\"", room)), Some("more than 64 rules")),
        ("capabilities", format!("[{}]", many("\"\"", room)), Some("more than 64 capabilities")),
        ("coinbaseaux", numbered("\"\""), Some("more than 64 entries of coinbaseaux")),
        ("coinbaseaux", format!("{{\"\":{}}}", string("00")), Some("more than fit")),
        ("vbavailable", numbered("1"), Some("more than 64 entries of vbavailable")),
        ("version", string("a"), Some("invalid type")),
        ("version", string("\u{7f}"), Some("escapes or other than ASCII")),
        ("version", string("\u{202e}"), Some("escapes or other than ASCII")),
        ("bits", string("\\n"), Some("escapes or other than ASCII")),
        ("bits", string("a"), Some("bits is wrong")),
        ("default_witness_commitment", string("00"), Some("does not commit")),
        ("longpollid", string("0"), None),
        ("unknown", format!("[{}]", many("{}", room)), None),
        ("unknown", numbered("[]"), None),
        ("unknown", "[".repeat(depth) + &"]".repeat(depth), None),
        ("unknown", string("a"), None),
    ]
}

#[test]
fn no_template_takes_a_multiple_of_its_size() {
    let cases = worst_templates();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((member, value, said)) =
                    cases.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
                {
                    bear(member, value, *said);
                }
            });
        }
    });
}

/// Has a node send one of [`worst_templates`] a few times.
fn bear(member: &str, value: &str, said: Option<&str>) {
    let mut sound = Template::regtest(7).bits(0x1900_ffff).value();
    sound.as_object_mut().unwrap().remove(member);
    if member == "transactions" {
        // It would be of others.
        sound.as_object_mut().unwrap().remove("default_witness_commitment");
    }
    let mut template = sound.to_string();
    template.pop();
    let answer = format!("{{\"error\":null,\"result\":{template},\"{member}\":{value}}}}}");
    assert!(answer.len() <= TEMPLATE_BYTES && answer.len() > TEMPLATE_BYTES * 4 / 5);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "getblocktemplate" if call.longpoll_id().is_none() => Reply::Status(200, answer.clone()),
        _ => well_behaved(call, &Template::regtest(7)),
    });
    let arguments = ["mine", "--json", "--threads", "1", "--backend", "cpu:sha2"];
    let mut run = Adit::new(arguments).arg(server.url()).start();
    let line = |line: &str| match said {
        Some(said) => line.contains(said),
        None => line.contains("\"event\":\"job\""),
    };
    run.wait_for_line(line, SOON);
    if said.is_some() {
        server.wait_for_calls("getblocktemplate", 3, SOON);
    }
    let most = run.memory("VmHWM");
    println!("{most} KiB for {} bytes of {member}, {said:?}", value.len());
    assert!(most < MEMORY_AT_ALL, "{most} KiB for {member}, {said:?}");
    run.signal("INT");
    run.wait(SOON);
}

/// The answer to a block and the next template come together.
#[test]
fn an_answer_to_a_block_takes_no_multiple_of_its_size() {
    let words = "a".repeat(TEMPLATE_BYTES - 4000);
    let template = Template::regtest(8).value();
    let long =
        format!(r#"[{{"error":null,"result":"{words}"}},{{"error":null,"result":{template}}}]"#);
    let list = format!("[{}]", many("{}", TEMPLATE_BYTES - 2));
    let error = format!(r#"[{{"result":null,"error":{{"code":"{words}"}}}},{{}}]"#);
    for (answer, rejected) in [(long, 1), (list, 0), (error, 0)] {
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "submitblock" if call.batched && call.nth == 0 => Reply::Status(200, answer.clone()),
            _ => well_behaved(call, &Template::regtest(7)),
        });
        let arguments = ["mine", "--json", "--threads", "1", "--backend", "cpu:sha2"];
        let mut run = Adit::new(arguments).arg(server.url()).start();
        run.wait_for_event(
            |event| event["event"] == "block" && event["result"] == "accepted",
            SOON,
        );
        let most = run.memory("VmHWM");
        assert!(most < MEMORY_AT_ALL, "{most} KiB");
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        let summary = exit.event("summary");
        assert_eq!(summary["blocks"]["rejected"], rejected, "{summary}");
    }
}
