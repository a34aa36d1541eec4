//! `adit mine` on the chain that is built in: the real binary, and nothing else.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::adit::{Adit, Home};
use crate::common::block::{parse_display, target_of};
use crate::common::{kernels, poll, promised};
use serde_json::Value;

/// For what takes a fraction of a second where nothing else runs.
const SOON: Duration = Duration::from_secs(60);
/// Regtest's genesis block.
const GENESIS: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
/// The version bits that BIP 320 leaves to miners.
const ROLLED: u32 = 0x1fff_e000;

#[test]
fn ten_blocks_are_ten_lines_and_a_summary() {
    let exit = Adit::new(["mine", "--blocks", "10"]).run(SOON).expect_code(0);
    let lines: Vec<&str> = exit.stdout.lines().collect();
    for (height, line) in (1..=10).zip(&lines) {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[..3], ["block", &height.to_string(), "accepted"], "{line}");
        assert_eq!(words[3].len(), 64, "{line}");
        assert_eq!(words.len(), 4, "{line}");
    }
    let summary = &lines[10..];
    assert!(
        summary.iter().any(|line| {
            line.starts_with("blocks ")
                && line.ends_with(" 10 accepted, 0 rejected, 0 stale, 0 unknown")
        }),
        "{exit:#?}"
    );
    assert!(!exit.stdout.contains('\u{1b}') && !exit.stderr.contains('\u{1b}'), "{exit:#?}");
    assert!(!exit.stdout.contains('\r') && !exit.stderr.contains('\r'), "{exit:#?}");
    assert!(exit.stderr.contains("mining on regtest from builtin"), "{exit:#?}");
}

#[test]
fn json_keeps_its_promise_and_the_blocks_are_a_chain() {
    // Few enough that none is dropped, however slowly they are read.
    let run = Adit::new(["mine", "--json", "--blocks", "2000", "--threads", "2"]);
    let exit = run.run(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);

    let started = &events[0];
    assert_eq!((&started["source"], &started["network"]), (&"builtin".into(), &"regtest".into()));
    let backends = started["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 1, "{started}");
    assert_eq!((&backends[0]["backend"], &backends[0]["threads"]), (&"cpu".into(), &2.into()));
    for key in ["kernel", "device"] {
        assert!(backends[0][key].as_str().is_some_and(|text| !text.is_empty()), "{started}");
    }
    let connected = events.iter().filter(|event| event["event"] == "source");
    assert_eq!(connected.map(|event| &event["state"]).collect::<Vec<_>>(), ["connected"]);

    let blocks = promised::blocks(&events);
    assert_eq!(blocks.len(), 2000);
    promised::check_chain(&blocks, 1);
    assert_eq!(promised::previous_of(&blocks[0]), parse_display(GENESIS));
    let mut target = target_of(0x207f_ffff);
    target.reverse();
    for block in &blocks {
        let hash = parse_display(block["hash"].as_str().unwrap());
        assert!(hash.iter().rev().le(target.iter().rev()), "{block}");
        let bits = &promised::header_of(block)[72..76];
        assert_eq!(bits, 0x207f_ffff_u32.to_le_bytes(), "{block}");
        // The version is rolled within its mask, and left alone outside.
        assert_eq!(promised::version_of(block) & !ROLLED, 0x2000_0000, "{block}");
    }

    let jobs: Vec<&Value> = events.iter().filter(|event| event["event"] == "job").collect();
    for (job, height) in jobs.iter().zip(1u64..) {
        assert_eq!((&job["height"], &job["clean"]), (&height.into(), &true.into()));
    }
    let summary = events.last().unwrap();
    assert_eq!(summary["blocks"]["accepted"], 2000);
    assert_eq!(summary["hardware_errors"], 0);
    // Each block takes two hashes on average.
    assert!(summary["hashes"].as_u64().unwrap() > 2000, "{summary}");
    assert!(summary["elapsed_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_version_stays_as_it_is_when_rolling_is_off() {
    let run = Adit::new(["mine", "--json", "--blocks", "200", "--version-rolling", "off"]);
    let exit = run.run(SOON).expect_code(0);
    let blocks = promised::blocks(&promised::check(&exit.stdout));
    assert_eq!(blocks.len(), 200);
    promised::check_chain(&blocks, 1);
    assert!(blocks.iter().all(|block| promised::version_of(block) == 0x2000_0000));
}

/// Each kernel from end to end.
#[test]
fn every_kernel_of_this_processor_mines_when_named() {
    for kernel in kernels::available() {
        for rolling in ["auto", "off"] {
            let backend = format!("cpu:{kernel}");
            let run = Adit::new(["mine", "--json", "--blocks", "50", "--version-rolling", rolling])
                .args(["--threads", "1", "--backend", &backend])
                .run(SOON);
            let events = promised::check(&run.expect_code(0).stdout);
            assert_eq!(events[0]["backends"][0]["kernel"], kernel);
            assert_eq!(events[0]["backends"][0]["threads"], 1);
            promised::check_chain(&promised::blocks(&events), 1);
            assert_eq!(events.last().unwrap()["hardware_errors"], 0);
        }
    }
}

#[test]
fn a_run_for_a_time_ends_by_itself() {
    let exit = Adit::new(["mine", "--json", "--for", "1200ms"]).run(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    let summary = events.last().unwrap();
    let elapsed = summary["elapsed_seconds"].as_f64().unwrap();
    assert!((1.2..20.0).contains(&elapsed), "{summary}");
    assert!(summary["blocks"]["accepted"].as_u64().unwrap() > 0);
    let rate = events.iter().find(|event| event["event"] == "rate").expect("a rate");
    assert_eq!(rate["backends"][0]["backend"], "cpu");
    assert!(rate["hashes_per_second"].as_f64().unwrap() > 0.0);

    // Whichever of two reasons to stop is there first.
    let run = Adit::new(["mine", "--for", "1h", "--blocks", "1"]).run(SOON).expect_code(0);
    assert!(run.stdout.starts_with("block 1 accepted "), "{run:#?}");
}

#[test]
fn signals_end_it_cleanly_with_their_exit_code() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut json = Adit::new(["mine", "--json"]).start();
        json.wait_for_event(|event| event["event"] == "block", SOON);
        json.signal(signal);
        let exit = json.wait(SOON).expect_code(code);
        let events = promised::check(&exit.stdout);
        let summary = events.last().unwrap();
        assert!(summary["blocks"]["accepted"].as_u64().unwrap() > 0);
        assert_eq!(summary["blocks"]["unknown"], 0, "what was on its way got its answer");

        let mut plain = Adit::new(["mine"]).start();
        plain.wait_for_line(|line| line.starts_with("block 1 accepted "), SOON);
        plain.signal(signal);
        let exit = plain.wait(SOON).expect_code(code);
        let last = exit.stdout.lines().last().unwrap();
        assert!(last.starts_with("hardware errors "), "{last}");
        assert!(!exit.stderr.contains("error:"), "{}", exit.stderr);
    }
}

#[test]
fn a_reader_who_has_enough_ends_it() {
    let home = Home::new();
    let script = "{ \"$0\" mine $1; echo $? >code; } | head -n 1";
    for format in ["", "--json"] {
        let _ = fs::remove_file(home.path().join("code"));
        let mut shell = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_adit"), format])
            .current_dir(home.path())
            .env("HOME", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if poll(SOON, || shell.try_wait().unwrap()).is_none() {
            let _ = shell.kill();
            panic!("it goes on without a reader");
        }
        let output = shell.wait_with_output().unwrap();
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked") && !stderr.contains("error:"), "{stderr}");
        assert_eq!(fs::read_to_string(home.path().join("code")).unwrap(), "0\n");
    }
}

#[test]
fn a_closed_stderr_is_no_reason_to_stop() {
    let home = Home::new();
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" mine --blocks 3 -vv 2>&-", env!("CARGO_BIN_EXE_adit")])
        .current_dir(home.path())
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"block 1 accepted "));
}

#[test]
fn a_disk_that_is_full_is_told() {
    let home = Home::new();
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" mine --blocks 3 >/dev/full", env!("CARGO_BIN_EXE_adit")])
        .current_dir(home.path())
        .env("HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("error: stdout: "), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
}

#[test]
fn a_terminal_gets_colours_and_a_progress_line_unless_it_wants_none() {
    let on_terminal = |arguments: &[&str]| {
        Adit::new(["mine", "--for", "1s"]).args(arguments.iter().copied()).on_terminal()
    };
    let exit = on_terminal(&[]).run(SOON).expect_code(0);
    assert!(exit.stdout.contains("\u{1b}[32maccepted"), "{exit:#?}");
    assert!(exit.stdout.contains(" · height "), "{exit:#?}");
    // Seventeen thousand lines a second would show no one anything.
    let shown = exit.stdout.lines().filter(|line| line.contains("accepted\u{1b}[0m")).count();
    assert!((1..500).contains(&shown), "{shown} lines");
    assert!(exit.stdout.contains("… and "), "{exit:#?}");

    let exit = on_terminal(&[]).env("NO_COLOR", "1").run(SOON).expect_code(0);
    assert!(exit.stdout.contains("accepted"), "{exit:#?}");
    for colour in ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[33m"] {
        assert!(!exit.stdout.contains(colour), "{exit:#?}");
    }
    let exit = on_terminal(&["-q"]).run(SOON).expect_code(0);
    assert!(!exit.stdout.contains(" · height "), "{exit:#?}");
}

#[test]
fn quiet_and_verbose_change_the_log_and_never_the_results() {
    let results = |arguments: &[&str]| {
        let exit = Adit::new(["mine", "--blocks", "2"])
            .args(arguments.iter().copied())
            .run(SOON)
            .expect_code(0);
        let heights: Vec<String> = exit
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix("block ")?.split(' ').next().map(str::to_owned))
            .collect();
        assert_eq!(heights, ["1", "2"]);
        exit.stderr
    };
    assert!(results(&[]).contains(" INFO "));
    assert_eq!(results(&["-q"]), "");
    assert!(results(&["-v"]).contains("new job"));
    for line in results(&["--log-format", "json"]).lines() {
        let value: Value = serde_json::from_str(line).expect("a log line is JSON");
        assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
    }
}

#[test]
fn the_configuration_file_is_read_and_the_command_line_beats_it() {
    let home = Home::new();
    let run = |arguments: &[&str]| {
        Adit::new(["mine", "--json"])
            .args(arguments.iter().copied())
            .home(&home)
            .run(SOON)
            .expect_code(0)
    };
    let blocks = |arguments: &[&str]| promised::blocks(&run(arguments).events()).len();

    home.write_config("threads = 1\n[mine]\nblocks = 3\nbackend = \"cpu:sha2\"\n");
    assert_eq!(blocks(&[]), 3);
    assert_eq!(blocks(&["--blocks", "2"]), 2);
    let started = run(&[]).event("started");
    assert_eq!(started["backends"][0]["kernel"], "sha2");
    assert_eq!(started["backends"][0]["threads"], 1);

    let named = home.path().join("other.toml");
    fs::write(&named, "blocks = 4\n").unwrap();
    assert_eq!(blocks(&["--config", "other.toml"]), 4);
}

#[test]
fn a_wrong_configuration_file_is_told_with_its_line() {
    for (text, said, hint) in [
        ("[mine]\nblokcs = 3\n", "adit.toml:2: there is no key `blokcs`", "`blocks`?"),
        ("theads = 1\n", "adit.toml:1: there is no key `theads`", "`threads`?"),
        ("blocks = 0\n", "adit.toml:1: `blocks`: it must be a whole number, at least 1", ""),
        ("blocks = [1]\n", "adit.toml:1: `blocks` takes ", ""),
        ("blocks = \n", "adit.toml:1: it is not TOML", "quotes"),
        ("backend = \"cpu:sha3\"\n", "adit.toml:1: `backend`: there is no kernel", "cpu:sha2"),
        ("config = \"x\"\n", "adit.toml:1: `config` is for the command line only", ""),
    ] {
        let home = Home::new();
        home.write_config(text);
        let exit = Adit::new(["mine", "--blocks", "1"]).home(&home).run(SOON).expect_code(2);
        assert!(exit.stdout.is_empty(), "{exit:#?}");
        assert!(exit.stderr.starts_with("error: configuration file "), "{exit:#?}");
        assert!(exit.stderr.contains(said), "{text:?}: {exit:#?}");
        assert!(exit.stderr.contains(hint), "{text:?}: {exit:#?}");
        assert_eq!(exit.stderr.lines().count(), 1 + usize::from(!hint.is_empty()), "{exit:#?}");
    }
    let exit = Adit::new(["mine", "--config", "missing.toml"]).run(SOON).expect_code(2);
    assert!(exit.stderr.contains("missing.toml"), "{exit:#?}");
}

#[test]
fn a_coinbase_text_is_taken_and_one_too_long_is_told() {
    let run = Adit::new(["mine", "--blocks", "20", "--coinbase-text", "grüße vom stollen ⛏"]);
    run.run(SOON).expect_code(0);
    let long = "x".repeat(100);
    let exit = Adit::new(["mine", "--blocks", "1", "--coinbase-text", &long]).run(SOON);
    let exit = exit.expect_code(2);
    assert!(exit.stderr.starts_with("error: --coinbase-text "), "{exit:#?}");
}
