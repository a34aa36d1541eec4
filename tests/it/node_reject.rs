//! The built-in chain answers as a real node does: the same blocks, good and bad in every way that
//! we know, in the same order to both.

use crate::common::node::{Chain, Node};
use adit::job::Verdict;
use adit::source::builtin::{RegtestChain, Reject};
use adit::source::node_reject::verdict_for;
use serde_json::{Value, json};

/// Each line the expected answer (`null` for a block that is taken) and the block in hex.
const SCRIPT: &str = include_str!("../data/regtest_blocks.txt");

/// Blocks of the script are dated after regtest's genesis block, in 2011: any clock will do.
const NOW: u64 = 1_800_000_000;

fn script() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCRIPT.lines().map(|line| line.rsplit_once(' ').expect("an answer and a block"))
}

#[test]
fn the_built_in_chain_answers_as_a_real_node() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let mut chain = RegtestChain::new();
    let mut refused = 0;
    for (number, (expected, block)) in script().enumerate() {
        let real = match node.rpc("submitblock", json!([block])) {
            Ok(Value::Null) => "null".to_owned(),
            Ok(answer) => answer.as_str().expect("an answer in words").to_owned(),
            Err(error) => error.to_string(),
        };
        let ours = match chain.submit_hex(block, NOW) {
            Ok(()) => "null".to_owned(),
            Err(reject) => reject.to_string(),
        };
        assert_eq!(ours, expected, "built-in chain, block {number}");
        assert!(real.contains(expected), "real node, block {number}: {real}, not {expected}");
        refused += usize::from(expected != "null");
    }
    assert!(refused >= 39, "{refused} rejections");
    assert_eq!(node.height(), u64::from(chain.height()));
    assert_eq!(node.best_hash(), chain.tip().to_string());
}

#[test]
fn every_answer_of_the_node_is_explained() {
    for (answer, _) in script().filter(|(answer, _)| *answer != "null") {
        match verdict_for(answer) {
            Verdict::Accepted => panic!("{answer} is no acceptance"),
            Verdict::Rejected(why) | Verdict::Stale(why) => {
                assert_eq!(why.words, answer);
                assert!(!why.meaning.is_empty(), "{answer} is not explained");
            }
            Verdict::Unknown(why) => panic!("{answer}: {why}"),
        }
    }
    assert_eq!(Reject::Duplicate.to_string(), "duplicate");
}
