//! `adit estimate`: what it says, and that those who read it understand it.

use std::time::Duration;

use crate::common::adit::{Adit, Exit, Home};
use crate::common::node::{Chain, Node, free_port};
use crate::common::scripted::{Reply, ScriptedNode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

fn object(exit: &Exit) -> Value {
    assert_eq!(exit.stdout.lines().count(), 1, "{exit:?}");
    serde_json::from_str(&exit.stdout).unwrap()
}

fn estimate(arguments: &[&str]) -> Value {
    let run = Adit::new(["estimate", "--json"]).args(arguments.iter().copied()).run(SOON);
    object(&run.expect_code(0))
}

fn near(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() / expected - 1.0).abs() < 1e-6
}

#[test]
fn the_main_chain_is_told_honestly() {
    let arguments = [
        "--difficulty",
        "152.3T",
        "--hash-rate",
        "150MH/s",
        "--watts",
        "65",
        "--price-per-kwh",
        "0.25",
        "--reward",
        "3.125",
        "--coin-price",
        "90000",
        "--share-difficulty",
        "1",
    ];
    let told = estimate(&arguments);
    let hashes = 152.3e12 * 65_536.0 / 65_535.0 * 4_294_967_296.0;
    let seconds = hashes / 150e6;
    let block = &told["block"];
    assert!(near(&block["expected_hashes"], hashes), "{told}");
    assert!(near(&block["seconds"]["mean"], seconds));
    assert!(near(&block["seconds"]["median"], seconds * std::f64::consts::LN_2));
    assert!(near(&block["seconds"]["within_95_percent"], seconds * 20f64.ln()));
    assert!(near(&block["joules"], seconds * 65.0));
    let cost = seconds * 65.0 / 3.6e6 * 0.25;
    assert!(near(&block["cost"], cost));
    assert!(near(&block["break_even_coin_price"], cost / 3.125));
    assert!(near(&block["break_even_price_per_kwh"], 3.125 * 90_000.0 / (seconds * 65.0 / 3.6e6)));
    assert!(near(&block["chance_within_day"], 86_400.0 / seconds));
    assert_eq!((&told["hash_rate_from"], &told["watts_from"]), (&json!("given"), &json!("given")));
    assert!(near(&told["share"]["seconds"]["mean"], 4_295_032_833.0 / 150e6));

    let table = Adit::new(["estimate"]).args(arguments).run(SOON).expect_code(0).stdout;
    for words in ["138 million years on average", "the median", "in 95 % of them", "Do not expect"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn what_is_not_known_is_not_made_up() {
    let told = estimate(&["--share-difficulty", "0.001", "--hash-rate", "1M"]);
    assert!(told["block"].is_null() && told["watts"].is_null(), "{told}");
    assert!(told["watts_reason"].is_string());
    assert!(told["share"]["joules"].is_null() && told["share"]["cost"].is_null());
    let measured = estimate(&["--difficulty", "1", "--backend", "cpu:sha2", "--for", "100ms"]);
    assert_eq!(measured["hash_rate_from"], "measured");
    assert!(measured["hashes_per_second"].as_f64().unwrap() > 1_000.0);
    assert!(measured["watts"].is_null() != measured["watts_reason"].is_null());
    assert!(measured["block"]["reward"].is_null());
}

#[test]
fn a_real_node_is_asked_for_its_difficulty() {
    let mut node = Node::start(Chain::Regtest, &[]);
    node.generate(160);
    let datadir = node.datadir().display().to_string();
    let told = estimate(&[&node.url(), "--datadir", &datadir, "--hash-rate", "1k"]);
    assert_eq!((&told["network"], &told["height"]), (&json!("regtest"), &json!(161)));
    assert!(near(&told["block"]["expected_hashes"], 2.0), "{told}");
    assert!(near(&told["block"]["seconds"]["mean"], 0.002));
    // Halved once.
    assert!(near(&told["block"]["reward"], 25.0));
    let table = Adit::new(["estimate", &node.url(), "--datadir", &datadir, "--hash-rate", "1k"]);
    let table = table.run(SOON).expect_code(0).stdout;
    assert!(table.contains("regtest, block 161 is next"), "{table}");
    assert!(table.contains("2.00 ms on average") && table.contains("25 coins"), "{table}");

    let wrong = Adit::new(["estimate", &node.url_with_password("a", "b"), "--hash-rate", "1k"]);
    let stderr = wrong.run(SOON).expect_code(4).stderr;
    assert!(stderr.contains("HTTP 401") && !stderr.contains("a:b"), "{stderr}");
}

/// A test chain has two difficulties, twenty minutes apart.
#[test]
fn under_the_twenty_minute_rule_it_says_which_difficulty_it_speaks_of() {
    let node = Node::start(Chain::Testnet4, &[]);
    let datadir = node.datadir().display().to_string();
    // The genesis block is years old.
    let told = estimate(&[&node.url(), "--datadir", &datadir, "--hash-rate", "1M"]);
    assert_eq!((&told["network"], &told["height"]), (&json!("testnet4"), &json!(1)));
    assert!(told["twenty_minute_rule"] == "lowest" && near(&told["block"]["difficulty"], 1.0));

    let home = Home::new();
    let cookie = home.path().join("cookie");
    std::fs::write(&cookie, "u:p").unwrap();
    let run = |answer: Value, json: &[&str]| {
        let server = ScriptedNode::start(move |_| Reply::Result(answer.clone()));
        let url = format!("http://{}", server.address());
        let run = Adit::new(["estimate", &url, "--hash-rate", "1M", "--rpc-cookie"]).arg(&cookie);
        run.args(json.iter().copied()).run(SOON)
    };
    let answer =
        json!({"chain": "test", "blocks": 7, "difficulty": 1.0, "next": {"difficulty": 1e6}});
    assert_eq!(object(&run(answer.clone(), &["--json"]))["twenty_minute_rule"], "period");
    let table = run(answer, &[]).expect_code(0).stdout;
    assert!(table.contains("the period's own, until the tip is twenty minutes old"), "{table}");

    let old = json!({"chain": "testnet4", "blocks": 7, "difficulty": 1.0});
    let stderr = run(old, &[]).expect_code(1).stderr;
    assert!(
        stderr.contains("does not tell the next block's difficulty, and on testnet4"),
        "{stderr}"
    );
    assert!(stderr.contains("\nhint: --difficulty"), "{stderr}");
}

#[test]
fn a_node_of_another_chain_or_none_at_all_is_said() {
    let home = Home::new();
    let cookie = home.path().join("cookie");
    std::fs::write(&cookie, "u:p").unwrap();
    let cookie = cookie.display().to_string();
    let run = |url: &str| {
        Adit::new(["estimate", url, "--rpc-cookie", &cookie, "--hash-rate", "1k"]).run(SOON)
    };
    let unused = run(&format!("http://127.0.0.1:{}", free_port())).expect_code(1).stderr;
    assert!(unused.contains("hint: is the node running"), "{unused}");
    for answer in [
        json!({"chain": "moon", "blocks": 1, "difficulty": 1.0}),
        json!({"chain": "main", "blocks": 1, "difficulty": 0.0}),
        json!([1, 2, 3]),
        Value::Null,
    ] {
        let reply = answer.clone();
        let server = ScriptedNode::start(move |_| Reply::Result(reply.clone()));
        let stderr = run(&format!("http://{}", server.address())).expect_code(1).stderr;
        assert!(stderr.starts_with("error: node 127.0.0.1:"), "{answer}: {stderr}");
        assert!(stderr.lines().count() <= 2 && stderr.contains("makes no sense"), "{stderr}");
    }
    for reply in [Reply::HangUp, Reply::EndlessBody] {
        let server = ScriptedNode::start(move |_| reply.clone());
        let stderr = run(&format!("http://{}", server.address())).expect_code(1).stderr;
        assert!(stderr.starts_with("error: node 127.0.0.1:"), "{stderr}");
    }
}

#[test]
fn wrong_usage_is_one_clear_line() {
    for (arguments, told) in [
        (vec![], "a difficulty is missing"),
        (vec!["builtin", "--hash-rate", "1k"], "it is no node"),
        (vec!["regtest", "--difficulty", "1"], "cannot be used with"),
        (vec!["--difficulty=-1"], "it is no difficulty above zero"),
        (vec!["--difficulty", "1", "--hash-rate", "nan"], "it is no hash rate"),
        (vec!["--difficulty", "1", "--hash-rate", "1M", "--threads", "2"], "cannot be used with"),
        (vec!["--difficulty", "1", "--reward", "22000000"], "no amount of coins"),
    ] {
        let exit = Adit::new(["estimate"]).args(arguments.clone()).run(SOON).expect_code(2);
        assert!(exit.stderr.contains(told), "{arguments:?}: {}", exit.stderr);
        assert!(exit.stdout.is_empty());
    }
}
