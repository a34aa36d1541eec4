//! What README.md and the pages of docs/ show is true: their commands are run, their output is compared
//! in shape, their configuration file is read, their keys of JSON are the ones that adit writes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::adit::{Adit, Home};
use crate::common::datum::DatumGateway;
use crate::common::node::{Chain, Node};
use crate::common::promised;

const LONG: Duration = Duration::from_secs(120);

/// A document, by its path from the root of the repository.
struct Page {
    path: &'static str,
    text: &'static str,
}

macro_rules! pages {
    ($($path:literal),* $(,)?) => {
        [$(Page { path: $path, text: include_str!(concat!("../../", $path)) }),*]
    };
}

/// Documents whose commands are run.
const PAGES: &[Page] = &pages![
    "README.md",
    "docs/install.md",
    "docs/regtest.md",
    "docs/pools.md",
    "docs/backends.md",
    "docs/bench.md",
    "docs/scripting.md",
    "docs/json.md",
];

/// Documents whose commands have no place in a test: they build, release or measure for minutes.
const OTHERS: &[Page] = &pages![
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benches/README.md",
    "docs/NODES.md",
    "docs/RELEASING.md",
    "docs/STRATUM_DIALECTS.md",
    "docs/glossary.md",
    "fuzz/README.md",
];

fn page(path: &str) -> &'static Page {
    PAGES.iter().find(|page| page.path == path).unwrap_or_else(|| panic!("{path} is not listed"))
}

impl Page {
    /// The fenced blocks of one language, in order.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = self.text.lines();
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
        found
    }

    /// The commands of the console blocks.
    fn shown(&self) -> Vec<Shown> {
        let mut all: Vec<Shown> = Vec::new();
        for line in self.blocks("console").concat().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    all.push(Shown { command: command.to_owned(), output: Vec::new() });
                }
                None => all.last_mut().expect("output of a command").output.push(line.to_owned()),
            }
        }
        all
    }

    /// The commands of adit within the text and the tables: `adit …`.
    fn inline_commands(&self) -> Vec<&'static str> {
        // Between fences, every other part is a block of code.
        let text = self.text.split("\n```").step_by(2);
        text.flat_map(|text| text.split('`').skip(1).step_by(2))
            .filter(|code| code.starts_with("adit ") && !code.contains('\n'))
            .collect()
    }

    /// Where the page's links lead, but for those into the web.
    fn links(&self) -> Vec<&'static str> {
        let targets = self.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://")).collect()
    }
}

/// A command of a console block, and the output that stands below it.
struct Shown {
    command: String,
    output: Vec<String>,
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
fn every_command_does_what_its_page_says() {
    let mut ran = 0;
    let all = PAGES.iter().flat_map(|page| page.shown().into_iter().map(move |it| (page, it)));
    for (page, Shown { command, output }) in all {
        let Some(arguments) = arguments(&command) else {
            let known = ["./tests/run", "bitcoind ", "cargo install ", "datum_gateway "];
            let is_known = known.iter().any(|start| command.starts_with(start));
            assert!(is_known, "{}: not run: {command}", page.path);
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
            let settings = page.blocks("json").concat();
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
        // JSON has a test of its own.
        if output.is_empty() || real.contains(&"--json".to_owned()) {
            assert!(!exit.stdout.is_empty() || gateway.is_some(), "{}: {command}", page.path);
        } else {
            let told: Vec<_> = exit.stdout.lines().map(shape).collect();
            let shown: Vec<_> = output.iter().map(|line| shape(line)).collect();
            assert_eq!(told, shown, "{}: {command}", page.path);
        }
    }
    assert!(ran >= 10, "{ran} commands were run");
}

#[test]
fn the_two_commands_of_the_first_screen_are_there() {
    let commands: Vec<_> =
        page("README.md").shown().into_iter().map(|shown| shown.command).collect();
    for wanted in ["cargo run --release -- mine --blocks 10", "./tests/run"] {
        assert!(commands.iter().any(|command| command == wanted), "{wanted}");
    }
}

/// The picture is of a real run: docs/tools/picture.py made it.
#[test]
fn the_picture_shows_what_its_command_prints() {
    let picture = include_str!("../../docs/mine.svg");
    assert!(picture.len() < 40_000 && page("README.md").text.contains("(docs/mine.svg)"));
    let texts = picture.split("<text ").skip(1).filter_map(|text| text.split("</text>").next());
    let mut lines = texts.map(|text| {
        let text = text.split_once('>').expect("the element's end").1;
        let without_tags: String =
            text.split('<').map(|part| part.rsplit('>').next().unwrap_or_default()).collect();
        without_tags.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    });
    let command = lines.next().expect("a command").replace('\u{a0}', " ");
    let arguments = command.strip_prefix("$ ").and_then(arguments).expect("a command of adit");
    let shown: Vec<_> = lines.map(|line| shape(&line)).collect();
    let exit = Adit::new(&arguments).run(LONG).expect_code(0);
    let told: Vec<_> = exit.stdout.lines().map(shape).filter(|line| !line.is_empty()).collect();
    // A terminal shows the log as well.
    let shown: Vec<_> = shown.into_iter().filter(|line| !line.starts_with("INFO ")).collect();
    assert_eq!(told, shown);
}

/// Commands within the text name options that exist, and values that these take. They are not run:
/// help is asked for behind them.
#[test]
fn commands_within_the_text_are_understood() {
    let home = Home::new();
    let mut understood = BTreeSet::new();
    for page in PAGES.iter().chain(OTHERS) {
        for command in page.inline_commands() {
            let command = command
                .replace("HOST:PORT", "127.0.0.1:1")
                .replace("127.0.0.1:PORT", "127.0.0.1:1")
                .replace("USER@", "alice@")
                .replace("ADDR", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx");
            // `adit bench …` in a sentence stands for more than one command.
            let Some(mut arguments) = arguments(&command).filter(|_| !command.contains('…'))
            else {
                continue;
            };
            if arguments[0] != "help" && arguments.iter().all(|it| !it.starts_with("--version")) {
                arguments.push("--help".to_owned());
            }
            if understood.insert(arguments.clone()) {
                let exit = Adit::new(&arguments).home(&home).run(LONG);
                assert_eq!(exit.code, Some(0), "{}: `{command}`: {}", page.path, exit.stderr);
            }
        }
    }
    assert!(understood.len() >= 20, "{understood:?}");
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in PAGES.iter().chain(OTHERS) {
        let folder = root.join(page.path);
        let folder = folder.parent().expect("a file is in a folder");
        for link in page.links() {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { root.join(page.path) } else { folder.join(file) };
            assert!(target.exists(), "{}: {link}", page.path);
            if !section.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a page");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == section),
                    "{}: {link}",
                    page.path
                );
            }
        }
    }
}

/// The files below `folder`, as paths from `root` with slashes.
fn files(root: &Path, folder: &str, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(folder)).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() { files(root, &path, into) } else { into.push(path) }
    }
}

/// Files move; the documents that name them follow.
#[test]
fn source_files_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["src", "tests/it", "benches", "docs", "fuzz/targets", "shaders"] {
        files(root, folder, &mut all);
    }
    let is_source = |code: &&str| {
        let plain =
            code.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'/' | b'.'));
        plain && [".rs", ".wgsl", ".py"].iter().any(|end| code.ends_with(end))
    };
    let mut missing = BTreeSet::new();
    for page in PAGES.iter().chain(OTHERS) {
        let text = page.text.split("\n```").step_by(2);
        let named = text.flat_map(|text| text.split('`').skip(1).step_by(2)).filter(is_source);
        for name in named.filter(|name| !["mod.rs", "tests.rs"].contains(name)) {
            let ending = format!("/{name}");
            if !all.iter().any(|path| path == name || path.ends_with(&ending)) {
                missing.insert((page.path, name));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// What a link to a heading is called.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_configuration_file_is_taken() {
    let files = page("docs/scripting.md").blocks("toml");
    assert!(!files.is_empty());
    for file in files {
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

/// The keys of `value` and of all that is in it.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, into)),
        _ => {}
    }
}

#[test]
fn every_key_that_is_written_is_documented() {
    let home = Home::new();
    let saved = home.path().join("before.json").display().to_string();
    let bench = ["bench", "--for", "200ms", "--backend", "cpu:sha2", "--threads", "1", "--json"];
    let json = |arguments: &[&str]| -> String {
        Adit::new(arguments.iter().copied()).home(&home).run(LONG).expect_code(0).stdout
    };
    std::fs::write(&saved, json(&bench)).expect("a saved run");
    let header = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a\
                  7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2000000000";
    let written = [
        json(&[&bench[..], &["--compare", &saved]].concat()),
        json(&["mine", "--blocks", "1", "--json"]),
        json(&["devices", "--json"]),
        json(&["check", "--backend", "cpu:sha2", "--json"]),
        json(&["estimate", "--difficulty", "1", "--hash-rate", "1MH/s", "--json"]),
        json(&["grind", header, "--json"]),
        json(&["completions", "bash", "--json"]),
    ];
    let mut all = BTreeSet::new();
    for line in written.iter().flat_map(|text| text.lines()) {
        keys(&serde_json::from_str(line).expect("JSON"), &mut all);
    }
    assert!(all.len() > 80, "{all:?}");
    let documented = page("docs/json.md").text;
    for key in all {
        assert!(documented.contains(&format!("`{key}`")), "{key} is not in docs/json.md");
    }
}

#[test]
fn the_examples_of_json_are_as_promised() {
    let examples = page("docs/json.md").blocks("json").concat();
    let events: String = examples
        .lines()
        .filter(|line| line.starts_with("{\"event\":"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let names: BTreeSet<_> =
        promised::check(&events).iter().map(|event| event["event"].to_string()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    let documented = page("docs/json.md").text;
    let mut all = BTreeSet::new();
    for line in examples.lines() {
        keys(&serde_json::from_str(line).expect("an example is JSON"), &mut all);
    }
    for key in all {
        assert!(documented.contains(&format!("`{key}`")), "{key} is only in an example");
    }
}
