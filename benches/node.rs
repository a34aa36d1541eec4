//! Blocks a second against a real regtest node: a bare script (one template, two hashes, one submit
//! on one kept connection), the same with both calls in one batch, and adit, in turns, each slice on
//! a node of its own. Quote the ratio of the medians: the machine is shared with the node.
//!
//! `cargo bench --bench node` takes three rounds of three seconds; `-- --test` one short slice.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::adit::Adit;
use common::baseline::{bare_script_blocks_per_second, bare_script_with_batches};
use common::node::{Chain, Node};

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let (rounds, slice) =
        if test { (1, Duration::from_millis(300)) } else { (5, Duration::from_secs(3)) };
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let [script, batches, adit] = &mut rates;
        let node = Node::start(Chain::Regtest, &[]);
        script.push(bare_script_blocks_per_second(&node, slice).blocks_per_second());
        let node = Node::start(Chain::Regtest, &[]);
        batches.push(bare_script_with_batches(&node, slice).blocks_per_second());
        adit.push(adit_blocks_per_second(slice));
    }
    let [script, batches, adit] = rates.map(median);
    println!("bare script, two calls a block  {script:7.0} blocks/s");
    println!("bare script, one batch a block  {batches:7.0} blocks/s");
    println!("adit                            {adit:7.0} blocks/s");
    println!("adit to the bare script         {:7.2}", adit / script);
    println!("adit to the script with batches {:7.2}", adit / batches);
}

fn adit_blocks_per_second(slice: Duration) -> f64 {
    let node = Node::start(Chain::Regtest, &[]);
    let time = format!("{}ms", slice.as_millis());
    let datadir = node.datadir().display().to_string();
    let exit =
        Adit::new(["mine", &node.url(), "--datadir", &datadir, "--for", &time, "--json", "-q"])
            .run(slice + Duration::from_secs(30))
            .expect_code(0);
    let summary = exit.event("summary");
    for verdict in ["rejected", "stale", "unknown"] {
        assert_eq!(summary["blocks"][verdict], 0, "{summary}");
    }
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    number(&summary["blocks"]["accepted"]) / number(&summary["elapsed_seconds"])
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
