//! Found blocks survive the death of adit, of the node or of the connection before the answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::adit::{Adit, Home, Running};
use crate::common::node::{Chain, Node};
use crate::common::scripted::{
    Gate, Reply, ScriptedNode, Template, hash_of, submitted, well_behaved,
};
use crate::common::{poll, promised};
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

/// adit is killed before the answer, and the node's answer comes at the next start.
#[test]
fn a_block_of_unknown_fate_is_sent_again_at_the_next_start() {
    let placed = |confirmations: i64| Some(json!({"confirmations": confirmations}));
    let duplicate = || Reply::Result(json!("duplicate"));
    for (answer, place, result, words) in [
        (Reply::Result(Value::Null), None, "accepted", ""),
        (duplicate(), placed(3), "accepted", ""),
        (
            duplicate(),
            placed(-1),
            "stale",
            "duplicate (the node has this block, and it is not in its",
        ),
        (
            Reply::Result(json!("inconclusive")),
            placed(-1),
            "stale",
            "inconclusive (the node has this block, and it is not in its",
        ),
        (Reply::Result(json!("high-hash")), None, "rejected", "high-hash (the hash does not meet"),
        (
            Reply::error(-22, "Block decode failed"),
            None,
            "rejected",
            "Block decode failed (the node",
        ),
    ] {
        let home = Home::new();
        let journal = home.path().join("state/adit/journal");
        let killed = Gate::new();
        let after = killed.clone();
        let (easy, hard) = (Template::regtest(7), Template::regtest(7).bits(HARD));
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "submitblock" if after.is_open() => answer.clone(),
            "submitblock" => Reply::Silence,
            "getblockheader" => place.clone().map_or(Reply::HangUp, Reply::Result),
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
        let line = second.wait_for_line(|line| line.contains("sent again"), SOON);
        let begin = format!("block 7 {result} {} sent again", hash_of(&block));
        assert!(line.text.starts_with(begin.as_str()), "{line:?}");
        assert!(line.text.contains(words), "{line:?}");
        second.signal("INT");
        let exit = second.wait(SOON).expect_code(130);
        assert!(exit.stdout.contains(&format!(" 1 {result}")), "it is counted: {exit:#?}");
        let again: Vec<String> = server.calls_of("submitblock").iter().map(submitted).collect();
        assert_eq!(again, [block.clone(), block], "it is sent once more and no oftener");
        assert_eq!(files_in(&journal), [] as [PathBuf; 0]);
    }
}

/// Has a block found on the current template of `node`, and adit killed before the node got it. The
/// node is stopped for that; the journal names it by its port.
fn find_and_die(node: &mut Node, home: &Arc<Home>) -> String {
    let mut template = Template::regtest(1);
    let real = node.template();
    node.stop();
    for key in
        ["height", "previousblockhash", "curtime", "mintime", "coinbasevalue", "bits", "target"]
    {
        template = template.set(key, real[key].clone());
    }
    let server = ScriptedNode::start_on(node.port(), move |call| match call.method.as_str() {
        "submitblock" => Reply::Silence,
        _ => well_behaved(call, &template),
    });
    let mut run = Adit::new(["mine"]).arg(server.url()).home(home).start();
    server.wait_for_calls("submitblock", 1, SOON);
    run.signal("KILL");
    run.wait(SOON);
    submitted(&server.calls_of("submitblock")[0])
}

/// adit on `node`, which finds nothing of its own: no transaction comes.
fn resume(node: &Node, home: &Arc<Home>) -> Running {
    Adit::new(["mine", "--json", "--on-transaction", "--datadir"])
        .arg(node.datadir())
        .arg(node.url())
        .home(home)
        .start()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// After a crash a node starts behind its tip: here with an older copy of its data.
#[test]
fn a_block_waits_until_a_node_that_crashed_knows_its_parent_again() {
    waits_for_its_parent(false);
}

/// Headers come back before blocks: then the node has the block, and has not processed it yet.
#[test]
fn a_block_waits_until_a_node_that_crashed_has_more_than_its_parents_header_again() {
    waits_for_its_parent(true);
}

#[track_caller]
fn waits_for_its_parent(has_header: bool) {
    let mut node = Node::start(Chain::Regtest, &[]);
    let home = Home::new();
    node.generate(3);
    node.stop();
    let older = home.path().join("older");
    copy_folder(&node.chain_folder(), &older);
    node.restart();
    assert_eq!(node.height(), 3);
    let parent = node.generate(1)[0].clone();
    let parent = node.must("getblock", json!([parent, 0]));
    let block = find_and_die(&mut node, &home);
    fs::remove_dir_all(node.chain_folder()).unwrap();
    copy_folder(&older, &node.chain_folder());
    node.restart();
    assert_eq!(node.height(), 3);
    if has_header {
        node.must("submitheader", json!([parent.as_str().unwrap()[..160]]));
    }

    // One run is killed meanwhile, and another ends by itself: the block is pending after both.
    for (signal, code) in [("KILL", None), ("INT", Some(130))] {
        let mut run = resume(&node, &home);
        run.wait_for_line(|line| line.contains("the node cannot judge it yet"), SOON);
        run.signal(signal);
        let exit = run.wait(SOON);
        if let Some(code) = code {
            let exit = exit.expect_code(code);
            assert_eq!(promised::blocks(&promised::check(&exit.stdout)), [] as [Value; 0]);
        }
        assert!(holds(&home.path().join("state/adit/journal"), &block));
    }
    let mut run = resume(&node, &home);
    run.wait_for_line(|line| line.contains("the node cannot judge it yet"), SOON);
    assert_eq!(node.must("submitblock", json!([parent])), Value::Null);
    let event = run.wait_for_event(|event| event["event"] == "block", SOON);
    assert_eq!(event["hash"], hash_of(&block));
    assert_eq!((&event["result"], &event["resent"]), (&"accepted".into(), &true.into()));
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    let events = promised::check(&exit.stdout);
    assert_eq!(events.last().unwrap()["blocks"]["accepted"], 1);
    assert_eq!(node.best_hash(), hash_of(&block));
    assert_eq!(files_in(&home.path().join("state/adit/journal")), [] as [PathBuf; 0]);
}

#[test]
fn a_duplicate_is_accepted_where_it_is_in_the_nodes_best_chain_and_nowhere_else() {
    let mut node = Node::start(Chain::Regtest, &[]);
    for (beside, result) in [(true, "stale"), (false, "accepted")] {
        let home = Home::new();
        let block = find_and_die(&mut node, &home);
        node.restart();
        if beside {
            node.generate(1);
        }
        let _ = node.rpc("submitblock", json!([block]));
        let mut run = resume(&node, &home);
        let event = run.wait_for_event(|event| event["event"] == "block", SOON);
        assert_eq!((&event["hash"], &event["result"]), (&hash_of(&block).into(), &result.into()));
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        assert_eq!(exit.event("summary")["blocks"][result], 1);
    }
}

/// The same for a block of the current run, with the counts at each time.
#[test]
fn a_block_that_the_node_cannot_judge_is_unknown_until_it_can() {
    // The node's last word, and the template's height by then.
    for (word, height, result) in
        [(Value::Null, 8, "accepted"), (json!("prev-blk-not-found"), 107, "stale")]
    {
        let home = Home::new();
        let journal = home.path().join("state/adit/journal");
        let known = Gate::new();
        let after = known.clone();
        let (easy, hard) = (Template::regtest(7), Template::regtest(7).bits(HARD));
        let later = Template::regtest(height + 1).bits(HARD);
        let server = ScriptedNode::start(move |call| match (call.method.as_str(), call.nth) {
            ("submitblock", _) if after.is_open() => Reply::Result(word.clone()),
            ("submitblock", _) => Reply::Result(json!("prev-blk-not-found")),
            ("getblocktemplate", 0) => well_behaved(call, &easy),
            _ if after.is_open() => well_behaved(call, &later),
            _ => well_behaved(call, &hard),
        });
        let mut run = Adit::new(["mine", "--json"]).arg(server.url()).home(&home).start();
        let unknown = run.wait_for_event(|event| event["event"] == "block", SOON);
        assert_eq!(unknown["result"], "unknown");
        let block = submitted(&server.calls_of("submitblock")[0]);
        assert!(holds(&journal, &block));
        known.open();
        let judged = run.wait_for_event(|event| event["result"] == result, SOON);
        assert_eq!(judged["hash"], hash_of(&block));
        run.signal("INT");
        let exit = run.wait(SOON).expect_code(130);
        let events = promised::check(&exit.stdout);
        assert_eq!(promised::blocks(&events).len(), 2);
        let blocks = &events.last().unwrap()["blocks"];
        assert_eq!((&blocks[result], &blocks["unknown"]), (&1.into(), &0.into()));
        let again = server.calls_of("submitblock");
        assert!(again.iter().all(|call| submitted(call) == block), "it is the same block");
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
    assert_eq!(other.count("submitblock"), 0, "it is not a block of this node");
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
    run.wait_for_line(|line| line.contains(&hash_of(&block)), SOON);
    run.signal("INT");
    run.wait(SOON).expect_code(130);
    assert_eq!(server.calls_of("submitblock").iter().map(submitted).collect::<Vec<_>>(), [block]);
    assert_eq!(files_in(&journal), [] as [PathBuf; 0]);
}

/// Killed at different moments, again and again, on a real node.
#[test]
fn nothing_is_lost_or_left_over_when_adit_is_killed_again_and_again() {
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
fn a_journal_that_cannot_be_written_is_an_error_before_mining() {
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
fn a_file_that_is_not_a_journal_is_ignored_with_a_warning() {
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
    assert!(exit.stderr.contains("0123456789abcdef.journal is ignored"), "{exit:#?}");
    assert_eq!(fs::read_to_string(strange).unwrap(), "not what it seems\n");
    assert_eq!(files_in(&journal).len(), 2);
    assert!(poll(Duration::ZERO, || journal.join("notes.txt").exists().then_some(())).is_some());
}

/// What can be read of a damaged file is sent, and the file is kept. And a block of a regtest chain
/// that was thrown away is given up once it is old.
#[test]
fn a_damaged_file_is_kept_and_its_blocks_are_sent_or_too_old() {
    let time = |line: &str| {
        let at = line.find("\"time\":").unwrap() + 7;
        format!("{}1000000000{}", &line[..at], &line[at + 10..])
    };
    let name = |line: &str| line.replacen("\"hash\"", "\"hush\"", 1);
    let refusal = json!("prev-blk-not-found");
    let damages: [fn(&str) -> String; 2] = [name, time];
    let answers = [
        (Value::Null, "\"resent\":true"),
        (refusal, "1 block of earlier runs on regtest given up"),
    ];
    for (damage, (answer, said)) in damages.into_iter().zip(answers) {
        let home = Home::new();
        let journal = home.path().join("state/adit/journal");
        let killed = Gate::new();
        let after = killed.clone();
        let (easy, hard) = (Template::regtest(7), Template::regtest(7).bits(HARD));
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "submitblock" if after.is_open() => Reply::Result(answer.clone()),
            "submitblock" => Reply::Silence,
            _ if after.is_open() => well_behaved(call, &hard),
            _ => well_behaved(call, &easy),
        });
        let mut first = Adit::new(["mine"]).arg(server.url()).home(&home).start();
        server.wait_for_calls("submitblock", 1, SOON);
        first.signal("KILL");
        first.wait(SOON);
        let [file] = &files_in(&journal)[..] else { panic!("one file") };
        let damaged = damage(&fs::read_to_string(file).unwrap());
        fs::write(file, &damaged).unwrap();
        killed.open();

        let mut second = Adit::new(["mine", "--json"]).arg(server.url()).home(&home).start();
        second.wait_for_line(|line| line.contains(said), SOON);
        second.signal("INT");
        let exit = second.wait(SOON).expect_code(130);
        promised::check(&exit.stdout);
        let kept = PathBuf::from(format!("{}.damaged", file.display()));
        let warning =
            exit.stderr.lines().find(|line| line.contains("is damaged: 1 block")).unwrap();
        assert!(warning.contains(kept.to_str().unwrap()), "{warning}");
        assert_eq!(files_in(&journal), [kept.as_path()]);
        assert_eq!(fs::read_to_string(kept).unwrap(), damaged);
        assert_eq!(server.count("submitblock"), 2);
    }
}

/// Blocks for nodes that never return are one line, not one each.
#[test]
fn blocks_for_other_nodes_are_one_line() {
    let home = Home::new();
    for _ in 0..3 {
        let template = Template::regtest(7);
        let server = ScriptedNode::start(move |call| match call.method.as_str() {
            "submitblock" => Reply::Silence,
            _ => well_behaved(call, &template),
        });
        let mut run = Adit::new(["mine"]).arg(server.url()).home(&home).start();
        server.wait_for_calls("submitblock", 1, SOON);
        run.signal("KILL");
        run.wait(SOON);
    }
    let template = Template::regtest(7);
    let server = ScriptedNode::start(move |call| well_behaved(call, &template));
    let exit = Adit::new(["mine", "--blocks", "1"]).arg(server.url()).home(&home).run(SOON);
    let exit = exit.expect_code(0);
    let lines: Vec<_> =
        exit.stderr.lines().filter(|line| line.contains("the journal has")).collect();
    assert_eq!(lines.len(), 1, "{exit:#?}");
    assert!(lines[0].contains("3 blocks of unknown fate for http://127.0.0.1:"), "{exit:#?}");
}
