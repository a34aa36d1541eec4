//! Signets: those that need no signature are mined; for others there is one clear error, and `adit
//! grind` as the signet miner's script calls it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::adit::Adit;
use crate::common::block::Block;
use crate::common::node::{Chain, Node};
use crate::common::promised;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const TEST_ADDRESS: &str = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";

fn mine(node: &Node) -> Adit {
    let run = Adit::new(["mine", "--json", "--address", TEST_ADDRESS, "--datadir"]);
    run.arg(node.datadir()).arg(node.url())
}

#[test]
fn signets_that_need_no_signature_are_mined() {
    // OP_TRUE, OP_16, and a push of what is true: the solution is empty (BIP 325).
    for challenge in ["51", "60", "0201ff"] {
        let mut node = Node::start(Chain::Signet, &[&format!("-signetchallenge={challenge}")]);
        let exit = mine(&node).args(["--blocks", "2"]).run(SOON).expect_code(0);
        assert_eq!(exit.event("started")["network"], "signet");
        let blocks = promised::blocks(&promised::check(&exit.stdout));
        promised::check_chain(&blocks, 1);
        assert_eq!((blocks.len(), node.height()), (2, 2));
    }
}

#[test]
fn a_private_signet_keeps_a_pace() {
    let mut node = Node::start(Chain::Signet, &["-signetchallenge=51"]);
    let exit = mine(&node).args(["--every", "1s", "--blocks", "3"]).run(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    assert_eq!((blocks.len(), node.height()), (3, 3));
}

#[test]
fn a_signet_that_needs_a_signature_is_refused_in_one_line_that_says_what_to_do() {
    // The public signet, one of a single key, and a push of what is false.
    let one_key = format!("2102{}ac", "11".repeat(32));
    let challenges = [None, Some(one_key.as_str()), Some("00")];
    for challenge in challenges {
        let arguments: Vec<String> =
            challenge.iter().map(|script| format!("-signetchallenge={script}")).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let node = Node::start(Chain::Signet, &arguments);
        for pace in [&[][..], &["--every", "1s"], &["--on-transaction"]] {
            let exit = mine(&node).args(pace.iter().copied()).run(SOON).expect_code(4);
            let errors = exit.stderr.lines().filter(|line| line.starts_with("error: ")).count();
            assert_eq!(errors, 1, "{exit:#?}");
            assert!(exit.stderr.contains("blocks of this signet need a signature"), "{exit:#?}");
            let hint = exit.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap();
            for part in ["contrib/signet", "--grind-cmd=\"adit grind\"", "-signetchallenge=51"] {
                assert!(hint.contains(part), "{hint}");
            }
        }
    }
}

/// As `finish_block` of the signet miner's script calls its `--grind-cmd`: the command's words and
/// the header in hex, nothing on stdin, a check of the exit code, and of what comes back the nonce
/// alone is taken.
#[test]
fn grind_serves_the_signet_miners_script() {
    let mut node = Node::start(Chain::Signet, &["-signetchallenge=51"]);
    let mut block = Block::from_template(&node.template(), 0);
    let header = hex::encode(block.header());
    let ground = grind(&header);
    assert!(ground.status.success());
    let solved = String::from_utf8(ground.stdout).unwrap();
    let solved = solved.trim();
    assert_eq!(solved.len(), 160);
    assert_eq!(solved[..152], header[..152], "only the nonce moves");
    let nonce = hex::decode(&solved[152..]).unwrap();
    block.nonce = u32::from_le_bytes(nonce.try_into().unwrap());
    assert_eq!(node.must("submitblock", json!([block.hex()])), Value::Null);
    assert_eq!(node.height(), 1);

    // What check=True would stop at.
    let hopeless = format!("{}00000000{}", &header[..144], &header[152..]);
    for (header, said) in [
        (hopeless.as_str(), "Could not satisfy difficulty target"),
        ("00", "Could not decode block header"),
    ] {
        let failed = grind(header);
        assert_eq!(failed.status.code(), Some(1));
        assert!(failed.stdout.is_empty());
        assert!(String::from_utf8_lossy(&failed.stderr).contains(said), "{failed:?}");
    }
}

fn grind(header: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["grind", header])
        .stdin(Stdio::null())
        .output()
        .expect("adit starts")
}
