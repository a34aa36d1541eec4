//! The bare script: what a few lines without any miner around them reach on regtest.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::block::Block;
use super::node::Node;
use super::rpc::RpcClient;

#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub accepted: u64,
    pub refused: u64,
    pub elapsed: Duration,
}

impl Rate {
    pub fn blocks_per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64()
    }
}

/// One template, two hashes (on average), one submit; one kept connection; over and over.
///
/// Block times move by a sixth of a second a block at the least: after some forty thousand blocks
/// a chain is two hours ahead of the clock, and the node gives no template any more. So give each
/// measurement a fresh node.
pub fn bare_script_blocks_per_second(node: &Node, duration: Duration) -> Rate {
    let mut rpc = node.connect().expect("the node's credentials");
    measure(duration, |extra| {
        let template = rpc.call("getblocktemplate", rules()).expect("a template");
        let answer = rpc.call("submitblock", json!([solved(&template, extra)]));
        answer.expect("an answer to submitblock")
    })
}

/// The same with one HTTP request a block: the submit and the next template in one batch.
pub fn bare_script_with_batches(node: &Node, duration: Duration) -> Rate {
    let mut rpc = node.connect().expect("the node's credentials");
    let mut template = rpc.call("getblocktemplate", rules()).expect("a template");
    measure(duration, |extra| {
        let (answer, next) = submit_and_ask(&mut rpc, &solved(&template, extra));
        template = next;
        answer
    })
}

/// A block and the question for the next template in one request: both answers.
pub fn submit_and_ask(rpc: &mut RpcClient, block: &str) -> (Value, Value) {
    let calls = [("submitblock", json!([block])), ("getblocktemplate", rules())];
    let mut answers = rpc.batch(&calls).expect("an answer to the batch").into_iter();
    let mut next = || answers.next().expect("two answers").expect("no error");
    (next(), next())
}

fn rules() -> Value {
    json!([{"rules": ["segwit", "signet"]}])
}

fn solved(template: &Value, extra: u64) -> String {
    let mut block = Block::from_template(template, extra);
    block.solve();
    block.hex()
}

fn measure(duration: Duration, mut block: impl FnMut(u64) -> Value) -> Rate {
    let start = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    while start.elapsed() < duration {
        if block(accepted + refused).is_null() {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    Rate { accepted, refused, elapsed: start.elapsed() }
}
