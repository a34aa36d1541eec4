//! What the README shows is true: its commands are run, its output is compared in shape, its
//! configuration file is read.

use std::time::Duration;

use crate::common::adit::{Adit, Home};
use crate::common::datum::DatumGateway;
use crate::common::node::{Chain, Node};

const README: &str = include_str!("../../README.md");
const LONG: Duration = Duration::from_secs(120);

/// The fenced blocks of one language, in order.
fn blocks(language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            found.push(
                lines
                    .by_ref()
                    .take_while(|line| *line != "```")
                    .fold(String::new(), |block, line| block + line + "\n"),
            );
        } else if line.starts_with("```") && line.len() > 3 {
            lines.by_ref().take_while(|line| *line != "```").for_each(drop);
        }
    }
    assert!(!found.is_empty(), "the README has no {language} block");
    found
}

/// A command of a console block, and the output that stands below it.
struct Shown {
    command: String,
    output: Vec<String>,
}

fn shown() -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in blocks("console").concat().lines() {
        match line.strip_prefix("$ ") {
            Some(command) => all.push(Shown { command: command.to_owned(), output: Vec::new() }),
            None => all.last_mut().expect("output of a command").output.push(line.to_owned()),
        }
    }
    all
}

/// The line with every hash, number and unit prefix made the same.
fn shape(line: &str) -> String {
    line.split_whitespace()
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            if bare.len() >= 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
                "<hash>"
            } else if bare.starts_with(|c: char| c.is_ascii_digit()) {
                "<number>"
            } else if bare.ends_with("H/s") {
                "<rate>"
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The arguments that adit is given by a command, if it is one of adit.
fn arguments(command: &str) -> Option<Vec<String>> {
    let rest = command
        .strip_prefix("cargo run --release -- ")
        .or_else(|| command.strip_prefix("adit "))?;
    // Where its output goes is the shell's business.
    let rest = rest.split(['|', '>']).next()?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn every_command_does_what_the_page_says() {
    let mut ran = 0;
    for Shown { command, output } in shown() {
        let Some(arguments) = arguments(&command) else {
            let known =
                ["./tests/run", "bitcoind ", "cargo install ", "cargo bench", "datum_gateway "];
            assert!(known.iter().any(|start| command.starts_with(start)), "not run: {command}");
            continue;
        };
        // The page speaks of the node at the default port; this one has a port of its own, and so
        // has the gateway.
        let is_pool = |argument: &String| argument.starts_with("stratum+tcp://");
        let node = arguments
            .iter()
            .any(|argument| argument == "regtest" || is_pool(argument))
            .then(|| Node::start(Chain::Regtest, &[]));
        let gateway = node.as_ref().filter(|_| arguments.iter().any(is_pool)).map(|node| {
            let settings = blocks("json").concat();
            DatumGateway::configured(node, serde_json::from_str(&settings).expect("it is JSON"))
        });
        let mut real = Vec::new();
        for argument in arguments {
            match &node {
                Some(_) if is_pool(&argument) => {
                    real.extend(gateway.as_ref().map(DatumGateway::url));
                }
                Some(node) if argument == "regtest" => real.extend([
                    node.url(),
                    "--datadir".to_owned(),
                    node.datadir().display().to_string(),
                ]),
                _ => real.push(argument),
            }
        }
        let exit = Adit::new(&real).run(LONG).expect_code(0);
        ran += 1;
        // What hashes, and how fast, is another on each machine; and a share is a matter of luck.
        let shown = ["mine", "estimate"].contains(&real[0].as_str());
        if shown && !real.contains(&"--json".to_owned()) && gateway.is_none() {
            let told: Vec<_> = exit.stdout.lines().map(shape).collect();
            let page: Vec<_> = output.iter().map(|line| shape(line)).collect();
            assert_eq!(told, page, "{command}");
        } else {
            assert!(!exit.stdout.is_empty(), "{command}");
        }
    }
    assert!(ran >= 3, "{ran} commands of the README were run");
}

#[test]
fn the_two_commands_of_the_first_screen_are_there() {
    let commands: Vec<_> = shown().into_iter().map(|shown| shown.command).collect();
    for wanted in ["cargo run --release -- mine --blocks 10", "./tests/run"] {
        assert!(commands.iter().any(|command| command == wanted), "{wanted}");
    }
}

#[test]
fn the_configuration_file_is_taken() {
    for file in blocks("toml") {
        let home = Home::new();
        let path = home.write_config(&file);
        let config = path.display().to_string();
        // Everything in it but the source, which would want that very node.
        let exit = Adit::new(["mine", "builtin", "--blocks", "1", "--config", &config])
            .home(&home)
            .run(LONG);
        let _ = exit.expect_code(0);
    }
}
