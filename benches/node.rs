//! Blocks a second against a real regtest node, in turns, each slice on a node of its own:
//!
//! - the bare script: `bare_script.py`, one template, two hashes, one submit on one kept connection;
//! - the same loop compiled, and compiled with both calls in one batch: what the node can do;
//! - adit, journal and all. It syncs each block to disk before it sends it; the others don't.
//!
//! `cargo bench --bench node` takes five rounds of three seconds; `cargo test` one short slice. Quote
//! the ratio of the medians: the machine is shared with the node.

#[path = "../tests/it/common.rs"]
mod common;

use std::process::Command;
use std::time::Duration;

use common::adit::Adit;
use common::baseline::{bare_script_blocks_per_second, bare_script_with_batches};
use common::node::{Chain, Node};

fn main() {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    // `cargo test` runs it without either option.
    let full = asked("--bench") && !asked("--test");
    let (rounds, slice) =
        if full { (5, Duration::from_secs(3)) } else { (1, Duration::from_millis(300)) };
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let [script, compiled, batches, adit] = &mut rates;
        script.push(script_blocks_per_second(slice));
        adit.push(adit_blocks_per_second(slice));
        let node = Node::start(Chain::Regtest, &[]);
        compiled.push(bare_script_blocks_per_second(&node, slice).blocks_per_second());
        let node = Node::start(Chain::Regtest, &[]);
        batches.push(bare_script_with_batches(&node, slice).blocks_per_second());
    }
    let [script, compiled, batches, adit] = rates.map(median);
    println!("bare script                 {script:6.0} blocks/s   adit to it {:.2}", adit / script);
    println!(
        "its loop compiled           {compiled:6.0} blocks/s   adit to it {:.2}",
        adit / compiled
    );
    println!(
        "compiled, one batch a block {batches:6.0} blocks/s   adit to it {:.2}",
        adit / batches
    );
    println!("adit                        {adit:6.0} blocks/s");
}

fn script_blocks_per_second(slice: Duration) -> f64 {
    let node = Node::start(Chain::Regtest, &[]);
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bare_script.py"))
        .args([node.port().to_string(), node.cookie(), slice.as_secs_f64().to_string()])
        .output()
        .expect("this bench needs python3: apt-get install python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
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
