//! Several sources in order.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use crate::common::adit::{Adit, Home, Running};
use crate::common::node::{Chain, Node};
use crate::common::pool::{Rules, ScriptedPool};
use crate::common::{poll, promised};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// A node whose login stands in the URL, so that two of them need not share one.
fn node() -> Node {
    Node::builder(Chain::Regtest).password("adit", "secret").start()
}

fn url(node: &Node) -> String {
    node.url_with_password("adit", "secret")
}

/// An address of this machine where nothing listens.
fn unused_address() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The event that says that this source is the one that is mined.
fn wait_until_mined(run: &Running, source: &str, why: &str) -> Value {
    let reason = |event: &Value| event["reason"].as_str().unwrap_or_default().to_owned();
    run.wait_for_event(
        |event| {
            event["event"] == "source" && event["source"] == source && reason(event).contains(why)
        },
        SOON,
    )
}

/// Whether the node's chain goes on growing.
fn grows(node: &mut Node) -> bool {
    let height = node.height();
    poll(SOON, || (node.height() > height + 2).then_some(())).is_some()
}

#[test]
fn the_second_node_is_mined_while_the_first_is_away_and_the_first_again_when_it_is_back() {
    let (mut first, mut second) = (node(), node());
    let mut run =
        Adit::new(["mine", "--json", "--throttle", "2"]).args([url(&first), url(&second)]).start();
    first.wait_for_height(3, SOON);
    assert_eq!(second.height(), 0, "it is not even asked for a template");

    first.stop();
    wait_until_mined(&run, &second.url(), "those before it are not healthy");
    second.wait_for_height(3, SOON);

    first.restart();
    wait_until_mined(&run, &first.url(), "healthy again");
    assert!(grows(&mut first));
    let left = second.height();
    assert!(grows(&mut first));
    assert_eq!(second.height(), left, "and the second is left alone");

    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let events = promised::check(&exit.stdout);
    // Each node has been given what was found on its own templates, and nothing else: a block of the
    // other's chain would be refused.
    let summary = events.last().unwrap();
    assert_eq!(summary["blocks"]["rejected"], 0, "{events:#?}");
    let accepted = summary["blocks"]["accepted"].as_u64().unwrap();
    let unknown = summary["blocks"]["unknown"].as_u64().unwrap();
    let there = first.height() + second.height();
    assert!((accepted..=accepted + unknown).contains(&there), "{there} blocks, {summary}");
    assert!(!exit.stderr.contains("secret") && !exit.stdout.contains("secret"));
}

#[test]
fn a_node_that_has_nothing_to_mine_is_not_left() {
    let (first, second) = (node(), node());
    let mut run =
        Adit::new(["mine", "--json", "--on-transaction"]).args([url(&first), url(&second)]).start();
    let of = |event: &Value, node: &Node| event["source"] == node.url();
    run.wait_for_event(|event| event["state"] == "connected" && of(event, &first), SOON);
    // Longer than a source is waited for that gives no job.
    std::thread::sleep(Duration::from_secs(7));
    let events = run.events();
    assert!(!events.iter().any(|event| of(event, &second)), "{events:#?}");
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

#[test]
fn a_pool_is_fallen_back_on_and_left_again() {
    let pool = ScriptedPool::start(Rules::default());
    let mut node = node();
    node.stop();
    let mut run = Adit::new(["mine", "--json", "--throttle", "2", "--user", "alice"])
        .args([url(&node), pool.url()])
        .start();
    pool.wait_for_accepted(3, SOON);
    node.restart();
    wait_until_mined(&run, &node.url(), "healthy again");
    assert!(grows(&mut node));
    let connections = pool.connections();
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let summary = exit.event("summary");
    assert_eq!(summary["shares"]["rejected"], 0, "{summary}");
    assert_eq!(summary["shares"]["accepted"].as_u64(), Some(pool.accepted() as u64));
    assert_eq!(connections, 1);
}

#[test]
fn the_order_may_stand_in_the_configuration() {
    let pool = ScriptedPool::start(Rules::default());
    let home = Home::new();
    let unused_address = unused_address();
    home.write_config(&format!(
        "source = [\"stratum+tcp://{unused_address}\", \"{}\"]\nuser = \"alice\"\n[mine]\nshares = 2\n",
        pool.url()
    ));
    let exit = Adit::new(["mine", "--json"]).home(&home).run(SOON).expect_code(0);
    let started = exit.event("started");
    assert_eq!(started["source"], pool.url());
}

#[test]
fn a_source_that_refuses_us_for_good_is_left_out_and_with_the_last_it_ends() {
    let mut node = node();
    let wrong = node.url_with_password("adit", "wrong");
    let exit = Adit::new(["mine", "--json", &wrong, "builtin", "--blocks", "3"]).run(SOON);
    let exit = exit.expect_code(0);
    let out = exit.events().into_iter().find(|event| event["state"] == "lost").expect("it is said");
    assert_eq!(out["source"], node.url());
    assert!(out["reason"].as_str().unwrap().starts_with("disabled: "), "{out}");
    assert_eq!(node.height(), 0);

    let exit = Adit::new(["mine", &wrong, &wrong]).run(SOON).expect_code(4);
    assert!(exit.stderr.lines().last().unwrap().starts_with("hint: "), "{}", exit.stderr);
}

#[test]
fn eight_miners_on_one_pool_try_no_nonce_twice() {
    const MINERS: usize = 8;
    let rules = Rules { difficulty: -16, extranonce2: 2, ..Rules::default() };
    let pool = ScriptedPool::start(rules);
    let miner = |n: usize| {
        let user = format!("alice.{n}");
        Adit::new(["mine", "--json", "--threads", "1", "--user", &user, &pool.url()]).start()
    };
    let mut miners: Vec<_> = (1..=MINERS).map(miner).collect();
    pool.wait_for_connections(MINERS, SOON);
    // Each has found something; the pool refuses a header that it has seen.
    let all_found = |least: usize| {
        let shares = pool.shares();
        (0..MINERS).all(|n| shares.iter().filter(|share| share.connection == n).count() >= least)
    };
    assert!(poll(SOON, || all_found(20).then_some(())).is_some());
    for miner in &mut miners {
        miner.signal("INT");
    }
    for miner in miners {
        let exit = miner.wait(SOON).expect_code(130);
        assert_eq!(exit.event("summary")["shares"]["rejected"], 0, "{exit:?}");
    }
    let shares = pool.shares();
    let refused: Vec<_> = shares.iter().filter(|share| share.refused.is_some()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let mut hashes: Vec<_> = shares.iter().map(|share| share.hash.clone().unwrap()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), shares.len(), "no header twice");
}
