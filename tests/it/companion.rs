//! adit left running beside a node, and what becomes of the node meanwhile: each on a real one.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::adit::{Adit, Exit, Running};
use crate::common::node::{Chain, Node, bitcoind, free_port};
use crate::common::{poll, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

fn mine(node: &Node) -> Adit {
    Adit::new(["mine", "--json", "--datadir"]).arg(node.datadir()).arg(node.url())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Ends the run cleanly, and checks that what it says is what it promises.
fn stop(mut run: Running) -> (Exit, Vec<Value>) {
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
    let events = promised::check(&exit.stdout);
    (exit, events)
}

fn count(exit: &Exit, words: &str) -> usize {
    exit.stderr.lines().filter(|line| line.contains(words)).count()
}

/// A bitcoind of its own that knows nothing but its data directory.
struct Plain(Child);

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_local_node_is_found_by_its_own_configuration_and_waited_for() {
    let home = crate::common::adit::Home::new();
    // The default place, with everything elsewhere but the configuration.
    let (base, elsewhere) = (home.path().join(".bitcoin"), home.path().join("elsewhere"));
    fs::create_dir_all(&base).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    let text = |login: &str| {
        let port = free_port();
        format!(
            "# a node's configuration\nserver=1\nlisten=0\ndnsseed=0\n{login}\n\
             rpcport=1 # of the main chain only\ndatadir={}\n[regtest]\nconnect=0\nrpcport={port}\n",
            elsewhere.display(),
        )
    };
    for login in ["", "rpccookiefile=my.cookie", "rpcuser=al\nrpcpassword=p@ss w%rd"] {
        fs::write(base.join("bitcoin.conf"), text(login)).unwrap();
        // With --datadir and without.
        for datadir in [false, true] {
            let mut run = Adit::new(["mine", "regtest", "--json", "--blocks", "3"]).home(&home);
            if datadir {
                run = run.arg("--datadir").arg(&base);
            }
            let run = run.start();
            run.wait_for_line(|line| line.contains("not up yet, waiting for it"), SOON);
            // Long enough for several tries.
            std::thread::sleep(Duration::from_millis(1_500));
            // Told its data directory, a node does not heed its configuration in that.
            let told = datadir.then(|| format!("-datadir={}", base.display()));
            let _node = Plain(
                Command::new(bitcoind())
                    .arg("-regtest")
                    .args(told)
                    .args(["-disablewallet=1", "-printtoconsole=0"])
                    .env("HOME", home.path())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("bitcoind starts"),
            );
            let exit = run.wait(SOON).expect_code(0);
            assert_eq!(exit.event("summary")["blocks"]["accepted"], 3, "{exit:#?}");
            assert_eq!(count(&exit, "not up yet, waiting for it"), 1, "{exit:#?}");
        }
    }
}

#[test]
fn a_configuration_that_makes_no_sense_is_told_in_one_line() {
    let home = crate::common::adit::Home::new();
    let base = home.path().join(".bitcoin");
    fs::create_dir_all(&base).unwrap();
    fs::write(base.join("bitcoin.conf"), "[regtest]\nrpcport=eighteen\n").unwrap();
    let exit = Adit::new(["mine", "regtest"]).home(&home).run(SOON).expect_code(2);
    assert!(exit.stderr.contains("rpcport at bitcoin.conf:2 is not a number"), "{exit:#?}");
}

#[test]
fn restarts_resets_and_wiped_chains_leave_nothing_stuck() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let run = mine(&node).start();
    node.wait_for_height(20, SOON);
    for round in 0..24u64 {
        let before = node.height();
        match round % 8 {
            3 => node.restart(),
            5 => {
                node.kill_hard();
                node.restart();
            }
            // As `rm -r ~/.bitcoin/regtest`.
            7 => {
                node.stop();
                fs::remove_dir_all(node.chain_folder()).unwrap();
                node.restart();
            }
            _ => {
                let undone = node.hash_at(before.saturating_sub(8).max(1));
                node.must("invalidateblock", json!([undone]));
            }
        }
        let height = node.height();
        let goes_on = poll(SOON, || (node.height() > height + 10).then_some(()));
        assert!(goes_on.is_some(), "round {round}: {:#?}", run.lines().iter().rev().take(40));
    }
    let (exit, _) = stop(run);
    assert!(!exit.stderr.lines().any(|line| line.starts_with("error: ")), "{}", exit.stderr);
}

#[test]
fn a_node_that_comes_back_as_another_chain_is_not_mined_by_its_name() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let conf = format!("[regtest]\nrpcport={}\n", node.port());
    fs::write(node.datadir().join("bitcoin.conf"), conf).unwrap();
    let run = Adit::new(["mine", "regtest", "--json", "--datadir"]).arg(node.datadir()).start();
    node.wait_for_height(10, SOON);
    node.stop();
    let home = tempfile::tempdir().unwrap();
    // The same port and cookie file, and a chain of its own.
    let _other = Plain(
        Command::new(bitcoind())
            .args(["-signet", "-signetchallenge=51", "-conf=/dev/null", "-server=1", "-listen=0"])
            .args(["-connect=0", "-dnsseed=0", "-disablewallet=1", "-printtoconsole=0"])
            .arg(format!("-datadir={}", home.path().display()))
            .arg(format!("-rpcport={}", node.port()))
            .arg(format!("-rpccookiefile={}", node.cookie_file().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind starts"),
    );
    let exit = run.wait(SOON).expect_code(4);
    assert!(exit.stderr.contains("it is a node of signet, not of regtest"), "{exit:#?}");
}

#[test]
fn a_longer_chain_from_elsewhere_is_built_on() {
    let (mut node, mut other) =
        (Node::start(Chain::Regtest, &[]), Node::start(Chain::Regtest, &[]));
    let run = mine(&node).args(["--every", "100ms"]).start();
    node.wait_for_height(5, SOON);
    for _ in 0..3 {
        // The other's chain is longer, and given over at once.
        let (ours, theirs) = (node.height(), other.height());
        other.generate(ours + 20 - theirs);
        let tip = other.best_hash();
        for height in 1..=other.height() {
            let hash = other.hash_at(height);
            let block = other.must("getblock", json!([hash, 0]));
            node.must("submitblock", json!([block]));
        }
        let height = other.height();
        node.wait_for_height(height + 3, SOON);
        assert_eq!(node.hash_at(height), tip);
    }
    let (_, events) = stop(run);
    let refused = promised::blocks(&events).iter().filter(|b| b["result"] != "accepted").count();
    // One may have been under way each time.
    assert!(refused <= 3, "{refused} blocks were refused");
}

#[test]
fn a_clock_that_is_moved_makes_no_storm() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let run = mine(&node).start();
    let mut time = now();
    for step in [86_400, -43_200, 3_600, -600] {
        time = time.saturating_add_signed(step);
        node.must("setmocktime", json!([time]));
        if step < -7_200 {
            run.wait_for_line(|line| line.contains("ahead of the node's clock"), SOON);
            std::thread::sleep(Duration::from_secs(2));
            time += 43_200;
            node.must("setmocktime", json!([time]));
        }
        let height = node.height();
        node.wait_for_height(height + 20, SOON);
    }
    let (exit, events) = stop(run);
    assert_eq!(count(&exit, "ahead of the node's clock"), 1, "{exit:#?}");
    let refused = promised::blocks(&events).iter().filter(|b| b["result"] != "accepted").count();
    assert!(refused <= 2, "{refused} blocks were refused");
}

/// Six blocks a second is all that a chain may grow in the long run: after a burst its time is two
/// hours ahead, and then each second has room for a few.
#[test]
fn two_hours_ahead_after_a_burst_is_said_once_and_waited_out() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let start = now();
    // What a burst of forty thousand blocks would have brought.
    node.must("setmocktime", json!([start + 7_150]));
    node.generate(12);
    node.must("setmocktime", json!([start]));
    let run = mine(&node).start();
    run.wait_for_line(|line| line.contains("ahead of the node's clock"), SOON);
    let mut height = node.height();
    // Fifty seconds' worth of six blocks each, and some.
    assert!((250..450).contains(&height), "{height}");
    for second in 1..=20 {
        node.must("setmocktime", json!([start + second * 5]));
        node.wait_for_height(height + 20, SOON);
        height = node.height();
    }
    let (exit, events) = stop(run);
    assert_eq!(count(&exit, "ahead of the node's clock"), 1, "{exit:#?}");
    assert!(count(&exit, "retrying") + count(&exit, "lost") == 0, "{exit:#?}");
    for block in promised::blocks(&events) {
        assert_eq!(block["result"], "accepted", "{block}");
    }
}

#[test]
fn a_pruned_node_is_mined_on() {
    let mut node = Node::start(Chain::Regtest, &["-prune=1", "-fastprune=1"]);
    let mut run = mine(&node).start();
    for _ in 0..2 {
        let height = node.height();
        node.wait_for_height(height + 600, SOON);
        let height = node.height();
        node.must("pruneblockchain", json!([height - 300]));
        node.restart();
        let height = node.height();
        node.wait_for_height(height + 20, SOON);
    }
    assert_eq!(node.must("getblockchaininfo", json!([]))["pruned"], true);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
}

/// As after a laptop's sleep: everything is late at once, and the tip is another.
#[test]
fn a_sleep_is_woken_from_onto_the_new_tip() {
    let mut node = Node::start(Chain::Signet, &["-signetchallenge=51"]);
    let address = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
    // Too slow to find anything by itself.
    let mut idle = mine(&node)
        .args(["--address", address, "--throttle", "1", "--threads", "1"])
        .args(["--backend", "cpu:sha2"])
        .start();
    idle.wait_for_event(|event| event["event"] == "job", SOON);
    for _ in 0..2 {
        idle.signal("STOP");
        let quick = mine(&node).args(["--address", address, "--blocks", "2"]);
        quick.run(SOON).expect_code(0);
        // Longer than the node keeps an idle connection's answer waiting for.
        std::thread::sleep(Duration::from_secs(3));
        idle.signal("CONT");
        let woke = Instant::now();
        let (tip, height) = (node.best_hash(), node.height());
        idle.wait_for_event(|event| event["previous_block_hash"] == tip.as_str(), SOON);
        assert!(woke.elapsed() < Duration::from_secs(15), "{:?}", woke.elapsed());
        assert_eq!(node.height(), height);
    }
    // Nor does it rest, as it is told to between its hashes, for the time that it slept.
    let asked = Instant::now();
    stop(idle);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
