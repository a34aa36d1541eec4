//! `adit mine` on a real Stratum V1 server, datum-gateway, that stands before a real node.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::adit::Adit;
use common::datum::DatumGateway;
use common::node::{Chain, Node};
use common::relay::{Relay, Said};
use common::stunnel::Stunnel;
use common::{poll, promised};
use serde_json::json;

const SOON: Duration = Duration::from_secs(120);
/// Its shares are of difficulty 1: 4.3 billion hashes on the average. Five times that is exceeded
/// once in 150 runs, and this is meant for a machine that is busy with other tests besides.
const SHARE: Duration = Duration::from_secs(1200);

#[test]
fn a_share_is_accepted_through_tls_and_is_a_block_of_the_nodes_chain() {
    let mut node = Node::start(Chain::Regtest, &[]);
    // Below height 17 the server writes the height as no node takes it.
    node.generate(20);
    let datum = DatumGateway::start(&node);
    let relay = Relay::start(datum.address());
    let tls = Stunnel::start(relay.address());

    // Nobody is trusted whom nobody has named.
    let exit = Adit::new(["mine", "--json", "--user", "adit"]).arg(tls.url()).run(SOON);
    let exit = exit.expect_code(4);
    assert!(exit.stderr.contains("issuer that is not known here"), "{exit:?}");
    assert!(exit.stderr.contains("--tls-ca"), "{exit:?}");

    let exit = Adit::new(["mine", "--json", "--user", "adit.1", "--shares", "1", "--tls-ca"])
        .arg(tls.ca())
        .arg(tls.url())
        .run(SHARE)
        .expect_code(0);
    if let Some(file) = std::env::var_os("ADIT_RECORD_EXCHANGE") {
        let connections = relay.said().iter().map(|said| said.connection).max().unwrap();
        std::fs::write(file, relay.transcript(connections)).expect("the exchange is written");
    }
    let events = promised::check(&exit.stdout);
    let shares: Vec<_> = events.iter().filter(|event| event["event"] == "share").collect();
    assert_eq!(shares.last().unwrap()["result"], "accepted", "{shares:?}");
    assert!(shares.last().unwrap()["difficulty"].as_f64().unwrap() >= 1.0);
    assert!(shares.iter().all(|share| share["result"] != "rejected"), "{shares:?}");

    // On regtest whatever is a share is a block.
    let block = promised::blocks(&events).pop().expect("a block");
    assert_eq!(block["result"], "accepted");
    let there = poll(SOON, || (node.height() >= 21).then_some(()));
    assert!(there.is_some(), "the node has no block; the server said:\n{}", datum.output());
    assert_eq!(node.hash_at(21), block["hash"]);

    let said = relay.said();
    let submitted = said.iter().filter(|s| !s.by_server).map(Said::json);
    let submit = submitted.rev().find(|request| request["method"] == "mining.submit").unwrap();
    assert_eq!(submit["params"].as_array().unwrap().len(), 6, "with the version bits");
}

#[test]
fn eight_miners_on_one_server_get_eight_extranonces() {
    let mut node = Node::start(Chain::Regtest, &[]);
    node.generate(1);
    let datum = DatumGateway::start(&node);
    let relay = Relay::start(datum.address());
    let url = format!("stratum+tcp://{}", relay.address());
    let miner = |n: u32| {
        let user = format!("adit.{n}");
        let throttled = ["--threads", "1", "--throttle", "1", "--backend", "cpu:sha2"];
        Adit::new(["mine", "--json", "--user", &user, &url]).args(throttled).start()
    };
    let mut miners: Vec<_> = (1..=8).map(miner).collect();
    for miner in &miners {
        let job = miner.wait_for_event(|event| event["event"] == "job", SOON);
        assert_eq!(job["difficulty"], json!(1.0));
    }
    let mut extranonces = BTreeSet::new();
    for said in relay.said().iter().filter(|said| said.by_server) {
        // The answer to mining.subscribe: subscriptions, extranonce1, the length of extranonce2.
        let answer = said.json()["result"].clone();
        if let Some([_, extranonce, length]) = answer.as_array().map(Vec::as_slice) {
            assert_eq!(length, &json!(8));
            assert!(extranonces.insert(extranonce.as_str().unwrap().to_owned()), "given twice");
        }
    }
    assert_eq!(extranonces.len(), 8, "{extranonces:?}");
    for miner in &mut miners {
        miner.signal("INT");
    }
    for miner in miners {
        miner.wait(SOON).expect_code(130);
    }
}
