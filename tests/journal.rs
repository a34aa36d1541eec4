//! Found blocks outlive whatever dies between finding and answering: adit, the node, the connection.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::adit::{Adit, Home};
use common::node::{Chain, Node};
use common::scripted::{Gate, Reply, ScriptedNode, Template, hash_of, submitted, well_behaved};
use common::{poll, promised};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// nBits that nothing will meet.
const HARD: u32 = 0x1900_ffff;

/// What the files in a journal's directory hold.
fn text_of(journal: &Path) -> String {
    let files = fs::read_dir(journal).map(|entries| {
        entries.flatten().filter_map(|entry| fs::read(entry.path()).ok()).collect::<Vec<_>>()
    });
    let bytes = files.unwrap_or_default().concat();
    String::from_utf8_lossy(&bytes).replace('\0', "")
}

fn files_in(journal: &Path) -> Vec<PathBuf> {
    fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn holds(journal: &Path, block: &str) -> bool {
    text_of(journal).contains(&format!("\"block\":\"{block}\""))
}

#[test]
fn a_block_is_on_disk_before_it_is_sent_and_is_sent_again_when_the_node_dies() {
    let home = Home::new();
    let journal = home.path().join("found");
    let template = Template::regtest(7);
    let on_disk = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&on_disk);
    let dir = journal.clone();
    let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
        // The first could be a kept connection that had ended anyway; the second is not.
        ("submitblock", 0 | 1) => {
            seen.lock().unwrap().push(holds(&dir, &submitted(call)));
            Reply::HangUp
        }
        _ => well_behaved(call, &template),
    });
    let run = Adit::new(["mine", "--json", "--blocks", "1", "--journal", "found"])
        .arg(server.url())
        .home(&home);
    let exit = run.run(SOON).expect_code(0);

    assert_eq!(*on_disk.lock().unwrap(), [true, true]);
    let sent: Vec<String> = server.calls_of("submitblock").iter().map(submitted).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|block| *block == sent[0]));
    let events = promised::check(&exit.stdout);
    assert!(events.iter().any(|event| event["state"] == "lost"), "{exit:#?}");
    let blocks = promised::blocks(&events);
    assert_eq!(blocks.len(), 1, "it is counted once");
    assert_eq!((&blocks[0]["result"], &blocks[0]["height"]), (&"accepted".into(), &7.into()));
    assert_eq!(blocks[0]["hash"], hash_of(&sent[0]));
    assert_eq!(files_in(&journal), [] as [PathBuf; 0], "what is answered is pruned");
}

/// adit killed while the answer is outstanding, and the node's word at the next start.
#[test]
fn a_block_of_unknown_fate_is_sent_again_at_the_next_start() {
    for (answer, said) in [
        (Reply::Result(Value::Null), "accepted"),
        (Reply::Result(json!("duplicate")), "accepted"),
        (Reply::Result(json!("inconclusive")), "stale: inconclusive (the block is valid so far"),
        (Reply::Result(json!("high-hash")), "rejected: high-hash (the hash does not meet"),
        (Reply::error(-22, "Block decode failed"), "rejected: Block decode failed (the node"),
    ] {
        let home = Home::new();
        let journal = home.path().join("state/adit/journal");
        let killed = Gate::new();
        let after = killed.clone();
        let (easy, hard) = (Template::regtest(7), Template::regtest(7).bits(HARD));
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "submitblock" if after.is_open() => answer.clone(),
            "submitblock" => Reply::Silence,
            _ if after.is_open() => well_behaved(call, &hard),
            _ => well_behaved(call, &easy),
        });
        let mut first = Adit::new(["mine"]).arg(server.url()).home(&home).start();
        server.wait_for_calls("submitblock", 1, SOON);
        first.signal("KILL");
        first.wait(SOON);
        let block = submitted(&server.calls_of("submitblock")[0]);
        assert!(holds(&journal, &block));
        killed.open();

        let mut second = Adit::new(["mine"]).arg(server.url()).home(&home).start();
        let line = second.wait_for_line(|line| line.contains("of an earlier run"), SOON);
        assert!(line.text.contains(&hash_of(&block)), "{line:?}");
        assert!(line.text.contains(&format!("unknown: {said}")), "{line:?}");
        second.signal("INT");
        let exit = second.wait(SOON).expect_code(130);
        assert!(exit.stdout.contains(" 0 accepted, 0 rejected, 0 stale, 0 unknown"), "{exit:#?}");
        let again: Vec<String> = server.calls_of("submitblock").iter().map(submitted).collect();
        assert_eq!(again, [block.clone(), block], "it is sent once more and no oftener");
        assert_eq!(files_in(&journal), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_block_waits_for_the_node_it_was_found_on() {
    let home = Home::new();
    let journal = home.path().join("state/adit/journal");
    let easy = Template::regtest(7);
    let hard = easy.clone().bits(HARD);
    let silent = ScriptedNode::start(move |call| match call.method.as_str() {
        "submitblock" => Reply::Silence,
        _ => well_behaved(call, &easy),
    });
    let mut first = Adit::new(["mine"]).arg(silent.url()).home(&home).start();
    silent.wait_for_calls("submitblock", 1, SOON);
    first.signal("KILL");
    first.wait(SOON);
    let block = submitted(&silent.calls_of("submitblock")[0]);
    let port = silent.port();
    drop(silent);

    let mined = move |server: &ScriptedNode| {
        let run = Adit::new(["mine", "--json"]).arg(server.url()).home(&home);
        let mut run = run.start();
        run.wait_for_event(|event| event["event"] == "job", SOON);
        run.signal("INT");
        run.wait(SOON).expect_code(130);
    };
    let template = hard.clone();
    let other = ScriptedNode::start(move |call| well_behaved(call, &template));
    mined(&other);
    assert_eq!(other.count("submitblock"), 0, "it is none of this node's blocks");
    assert!(holds(&journal, &block));

    let same = ScriptedNode::start_on(port, move |call| well_behaved(call, &hard));
    mined(&same);
    assert_eq!(same.calls_of("submitblock").iter().map(submitted).collect::<Vec<_>>(), [block]);
    assert_eq!(files_in(&journal), [] as [PathBuf; 0]);
}

#[test]
fn a_block_without_an_answer_is_reported_and_kept_for_the_next_run() {
    let home = Home::new();
    let journal = home.path().join("state/adit/journal");
    let template = Template::regtest(7);
    let hard = template.clone().bits(HARD);
    let server = ScriptedNode::start(move |call| match call.method.as_str() {
        "submitblock" => Reply::HangUp,
        _ => well_behaved(call, &template),
    });
    let port = server.port();
    let url = server.url();
    let mut run = Adit::new(["mine", "--json"]).arg(&url).home(&home).start();
    // The node is gone for good as soon as the block was sent.
    server.wait_for_calls("submitblock", 1, SOON);
    let block = submitted(&server.calls_of("submitblock")[0]);
    drop(server);
    run.wait_for_event(|event| event["state"] == "lost", SOON);
    run.signal("TERM");
    let exit = run.wait(SOON).expect_code(143);
    let events = promised::check(&exit.stdout);
    let blocks = promised::blocks(&events);
    assert_eq!(blocks.len(), 1, "{exit:#?}");
    assert_eq!(blocks[0]["result"], "unknown");
    assert_eq!(blocks[0]["hash"], hash_of(&block));
    assert_eq!(events.last().unwrap()["blocks"]["unknown"], 1);
    assert!(holds(&journal, &block));

    let server = ScriptedNode::start_on(port, move |call| well_behaved(call, &hard));
    let mut run = Adit::new(["mine"]).arg(url).home(&home).start();
    run.wait_for_line(|line| line.contains(&format!("block {}", hash_of(&block))), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    assert_eq!(server.calls_of("submitblock").iter().map(submitted).collect::<Vec<_>>(), [block]);
    assert_eq!(files_in(&journal), [] as [PathBuf; 0]);
}

/// Killed at whatever moment, over and over, on a real node.
#[test]
fn nothing_is_lost_or_left_over_when_adit_is_killed_time_and_again() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let home = Home::new();
    let datadir = node.datadir().to_owned();
    let mine = move |url: String| {
        Adit::new(["mine", "--json", "--datadir"]).arg(&datadir).arg(url).home(&home)
    };
    for round in 1..=4u64 {
        let mut run = mine(node.url()).start();
        let above = node.height();
        // Not always after the same block.
        node.wait_for_height(above + 10 * round, SOON);
        run.signal("KILL");
        run.wait(SOON);
    }
    let exit = mine(node.url()).args(["--blocks", "5"]).run(SOON).expect_code(0);
    assert_eq!(exit.event("summary")["blocks"]["accepted"], 5);
    let tips = node.must("getchaintips", json!([]));
    assert_eq!(tips.as_array().unwrap().len(), 1, "a block sent again is the same block: {tips}");
}

#[test]
fn a_journal_that_cannot_be_written_is_told_before_mining() {
    let home = Home::new();
    fs::write(home.path().join("file"), "no directory").unwrap();
    for dir in ["file", "file/below", "/dev/null/below", "/proc/adit"] {
        let run = Adit::new(["mine", "http://u:p@127.0.0.1:1", "--journal", dir]).home(&home);
        let exit = run.run(SOON).expect_code(2);
        assert!(exit.stdout.is_empty());
        let errors: Vec<&str> =
            exit.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{exit:#?}");
        assert!(errors[0].contains("journal") && errors[0].contains(dir), "{exit:#?}");
        let last = exit.stderr.lines().last().unwrap();
        assert!(last.starts_with("hint: ") && last.contains("--journal"), "{exit:#?}");
    }
}

#[test]
fn two_may_share_a_directory_and_a_node_and_never_do_the_same_work() {
    let mut node = Node::start(Chain::Regtest, &[]);
    let home = Home::new();
    let mine = || {
        Adit::new(["mine", "--json", "--blocks", "40", "--threads", "1", "--datadir"])
            .arg(node.datadir())
            .arg(node.url())
            .home(&home)
            .start()
    };
    let runs = [mine(), mine()];
    let exits = runs.map(|run| run.wait(SOON).expect_code(0));
    let mut accepted = Vec::new();
    for exit in &exits {
        let events = promised::check(&exit.stdout);
        for block in promised::blocks(&events) {
            match block["result"].as_str().unwrap() {
                "accepted" => accepted.push(block["hash"].clone()),
                // The other was quicker.
                other => assert_eq!(other, "stale", "{block}"),
            }
        }
    }
    let count = accepted.len();
    assert!(count >= 80);
    accepted.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    accepted.dedup();
    assert_eq!(accepted.len(), count, "no block was found by both");
    assert_eq!(node.height(), count as u64);
    assert_eq!(files_in(&home.path().join("state/adit/journal")), [] as [PathBuf; 0]);
}

#[test]
fn a_file_that_is_no_journal_is_left_alone_and_told() {
    let home = Home::new();
    let journal = home.path().join("state/adit/journal");
    fs::create_dir_all(&journal).unwrap();
    let strange = journal.join("adit-4711-0123456789abcdef.journal");
    fs::write(&strange, "not what it seems\n").unwrap();
    fs::write(journal.join("notes.txt"), "mine\n").unwrap();
    let template = Template::regtest(7);
    let server = ScriptedNode::start(move |call| well_behaved(call, &template));
    let exit = Adit::new(["mine", "--blocks", "1"]).arg(server.url()).home(&home).run(SOON);
    let exit = exit.expect_code(0);
    assert!(exit.stderr.contains("0123456789abcdef.journal is left alone"), "{exit:#?}");
    assert_eq!(fs::read_to_string(strange).unwrap(), "not what it seems\n");
    assert_eq!(files_in(&journal).len(), 2);
    assert!(poll(Duration::ZERO, || journal.join("notes.txt").exists().then_some(())).is_some());
}
