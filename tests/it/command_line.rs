//! The command line as it is met: help, completions in the real shells, manual pages, and the hints for
//! what is likely to go wrong.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::adit::{Adit, Home};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const COMMANDS: [&str; 8] =
    ["mine", "bench", "grind", "check", "devices", "estimate", "completions", "man"];

/// Runs a program with `input`, and gives back what it says on both streams.
fn through(program: &str, arguments: &[&str], input: &str, package: &str) -> (bool, String) {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{program}: {error} (on Debian: apt-get install {package}; tests/run does it)")
    });
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn script(shell: &str) -> String {
    Adit::new(["completions", shell]).run(SOON).expect_code(0).stdout
}

/// What a shell offers for a line, the cursor at its end.
type Complete = fn(&str) -> Vec<String>;

/// As bash calls the function that the script registers, with the words that it takes a line for.
fn bash(line: &str) -> Vec<String> {
    let ask = format!(
        "{}\n\
         # It may be called only while bash completes.\n\
         compopt() {{ :; }}\n\
         function=$(complete -p adit | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
         COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}}\n\
         # At spaces, and around each colon and equals sign.\n\
         spaced=$(sed 's/\\([:=]\\)/ \\1 /g' <<< \"$COMP_LINE\")\n\
         read -ra COMP_WORDS <<< \"$spaced\"\n\
         [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')\n\
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         \"$function\" adit \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        script("bash")
    );
    offered(through("bash", &["--norc", "-s"], &ask, "bash"))
}

/// As zsh's line editor lists it, in a terminal of zsh's own: with all else that it draws there.
fn zsh(line: &str) -> Vec<String> {
    let home = Home::new();
    std::fs::write(home.path().join("_adit"), script("zsh")).unwrap();
    std::fs::write(home.path().join("some-file"), "").unwrap();
    let folder = home.path().display();
    // Quotes within the words that are waited for, so that their echo is not taken for them. Before
    // its editor runs, ^D would end the shell.
    let ask = format!(
        "zmodload zsh/zpty\n\
         zpty z zsh -f -i\n\
         zpty -w z \"PROMPT=; cd {folder}; fpath=({folder} \\$fpath); autoload -Uz compinit; \
         compinit -D -u; LISTMAX=1000; bindkey '^D' list-choices; \
         zle-line-init() {{ print -rn rea''dy }}; zle -N zle-line-init\"\n\
         zpty -r z said '*ready*'\n\
         zpty -w -n z '{line}'$'\\x04'\n\
         zpty -w -n z $'\\x15'\"echo over''ture\"$'\\n'\n\
         zpty -r z said '*overture*'\n\
         print -r -- \"$said\"\n"
    );
    let said = offered(through("zsh", &["-f", "-s"], &ask, "zsh")).join(" ");
    // What moves the cursor or sets a colour ends with a letter.
    let mut plain = String::new();
    let mut in_sequence = false;
    for c in said.chars() {
        match c {
            '\u{1b}' => in_sequence = true,
            _ if in_sequence => in_sequence = !c.is_ascii_alphabetic(),
            _ => plain.push(c),
        }
        if c == '\u{1b}' || c.is_control() {
            plain.push(' ');
        }
    }
    plain.split_whitespace().map(str::to_owned).collect()
}

/// As fish says that it completes it.
fn fish(line: &str) -> Vec<String> {
    let home = Home::new();
    let folder = home.path().display();
    let ask = format!(
        "{}\ncd {folder}\ntouch some-file\ncomplete -C '{line}' | string replace -r '\\t.*' ''\ntrue\n",
        script("fish")
    );
    offered(through("fish", &["--no-config"], &ask, "fish"))
}

fn offered((well, said): (bool, String)) -> Vec<String> {
    assert!(well, "{said}");
    said.split_whitespace().map(str::to_owned).collect()
}

const SHELLS: [(&str, Complete); 2] = [("bash", bash), ("fish", fish)];

#[test]
fn shells_complete_what_the_grammar_has() {
    for (shell, complete) in SHELLS {
        let is = |line: &str, wanted: &[&str]| {
            assert_eq!(complete(line), wanted, "{shell}: {line}");
        };
        let offers = |line: &str, wanted: &[&str]| {
            let offered = complete(line);
            for word in wanted {
                assert!(offered.iter().any(|o| o == word), "{shell}: {line}: {offered:?}");
            }
            assert!(!offered.iter().any(|o| o == "some-file"), "{shell}: {line}: {offered:?}");
        };
        is("adit est", &["estimate"]);
        is("adit bench --comp", &["--compare"]);
        is("adit completions fi", &["fish"]);
        offers("adit mine --", &["--version-rolling", "--blocks", "--for"]);
        offers("adit mine --version-rolling ", &["auto", "off"]);
        // Commands by name.
        offers("adit man ", &COMMANDS);
        offers("adit help ", &COMMANDS);
        is("adit man gr", &["grind"]);
        // Sources.
        let chains = ["regtest", "signet", "testnet4", "testnet3", "main"];
        offers("adit mine ", &chains);
        offers("adit estimate ", &chains);
        offers("adit mine ", &["builtin", "http://", "stratum+tcp://", "stratum+tls://"]);
        is("adit mine --blocks 10 sign", &["signet"]);
        is("adit mine regtest ht", &["http://"]);
        assert!(!complete("adit estimate ").contains(&"builtin".to_owned()), "{shell}");
        // Backends.
        for command in ["mine", "bench", "grind", "estimate"] {
            offers(&format!("adit {command} --backend "), &["auto", "cpu", "gpu"]);
        }
        offers("adit mine --disable-cpu-features ", &["avx512", "avx2"]);
        is("adit bench --backend g", &["gpu"]);
        // No files where there are none to be named.
        for number in ["mine --blocks ", "mine --for ", "bench --threads ", "estimate --watts "] {
            assert_eq!(complete(&format!("adit {number}")), [""; 0], "{shell}: {number}");
        }
    }
    // Bash replaces what stands behind the last colon or equals sign, fish the whole word.
    assert_eq!(bash("adit mine --backend cpu:sha"), ["sha2", "sha-ni"]);
    let mut kernels = bash("adit mine --backend cpu:");
    kernels.sort_unstable();
    assert_eq!(kernels, ["avx2", "avx512", "sha-ni", "sha2"]);
    assert_eq!(bash("adit mine --version-rolling=o"), ["off"]);
    assert_eq!(bash("adit mine --backend=cpu:av"), ["avx2", "avx512"]);
    assert_eq!(bash("adit mine http:"), ["//"]);
    assert_eq!(fish("adit mine --backend cpu:sha"), ["cpu:sha2", "cpu:sha-ni"]);
}

#[test]
fn zsh_completes_the_same() {
    for (line, wanted) in [
        ("adit mine ", &["regtest", "testnet4", "builtin", "http://", "stratum+tcp://"][..]),
        ("adit mine --backend cpu:", &["cpu:sha2", "cpu:avx2", "cpu:sha-ni", "cpu:avx512"]),
        ("adit man ", &COMMANDS),
        ("adit help ", &COMMANDS),
        ("adit mine --blocks ", &[]),
    ] {
        let offered = zsh(line);
        for word in wanted {
            assert!(offered.iter().any(|o| o == word), "{line}: {offered:?}");
        }
        assert!(!offered.iter().any(|o| o == "some-file"), "{line}: {offered:?}");
    }
    let script = script("zsh");
    let (well, faults) = through("zsh", &["-f", "-n"], &script, "zsh");
    assert!(well && faults.is_empty(), "{faults}");
    for part in [
        ":(regtest signet testnet4 testnet3 main http\\:// stratum+tcp\\:// stratum+tls\\:// builtin)'",
        "--blocks=[Stop after N accepted blocks]:N:'",
        ":DIR:_files -/'",
    ] {
        assert!(script.contains(part), "{part}");
    }
    assert!(!script.contains(":_default"), "files are offered only for files");
}

#[test]
fn every_shell_has_its_script() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = Adit::new(["completions", shell]).run(SOON).expect_code(0).stdout;
        assert!(script.contains("adit") && script.contains("estimate"), "{shell}");
        assert!(script.contains("fail-below"), "{shell}");
    }
    let json = Adit::new(["completions", "bash", "--json"]).run(SOON).expect_code(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["text"].as_str().unwrap().contains("_adit()"));
    let wrong = Adit::new(["completions", "tcsh"]).run(SOON).expect_code(2).stderr;
    assert!(wrong.starts_with("error: "), "{wrong}");
    let missing = Adit::new(["completions"]).run(SOON).expect_code(2).stderr;
    assert!(missing.contains("is missing"), "{missing}");
}

#[test]
fn the_manual_pages_can_be_read() {
    let help = Adit::new(["--help"]).run(SOON).expect_code(0).stdout;
    let commands = COMMANDS;
    for command in [None].into_iter().chain(commands.map(Some)) {
        let page = Adit::new(["man"]).args(command).run(SOON).expect_code(0).stdout;
        let (well, faults) = through("mandoc", &["-T", "lint", "-W", "error"], &page, "mandoc");
        assert!(well && faults.is_empty(), "{command:?}: {faults}");
        let (well, shown) = through("mandoc", &["-T", "ascii"], &page, "mandoc");
        // What is set bold in a terminal is typed twice.
        let mut plain = String::new();
        for c in shown.chars() {
            if c == '\u{8}' {
                plain.pop();
            } else {
                plain.push(c);
            }
        }
        assert!(well, "{plain}");
        // Each heading has something below it.
        let lines: Vec<&str> = plain.lines().filter(|line| !line.trim().is_empty()).collect();
        let is_heading = |line: &str| !line.starts_with(' ');
        let inner = &lines[1..lines.len() - 1];
        for pair in inner.windows(2) {
            assert!(!(is_heading(pair[0]) && is_heading(pair[1])), "{command:?}: {pair:?}");
        }
        assert!(!is_heading(inner.last().unwrap()), "{command:?}: {inner:?}");
        match command {
            None => {
                for command in commands {
                    assert!(
                        help.contains(command) && plain.contains(&format!("adit-{command}(1)"))
                    );
                }
            }
            Some(command) => assert!(plain.contains(&format!("adit-{command}")), "{plain}"),
        }
    }
    let bench = Adit::new(["man", "bench"]).run(SOON).expect_code(0).stdout;
    assert!(bench.contains("fail\\-below") && bench.contains("RATIO"), "{bench}");
    for (command, option, values) in [
        ("mine", "version\\-rolling", ["auto", "off"]),
        ("mine", "log\\-format", ["text", "json"]),
        ("completions", "SHELL", ["bash", "zsh"]),
    ] {
        let page = Adit::new(["man", command]).run(SOON).expect_code(0).stdout;
        // Behind the synopsis.
        let after = page.split(".TP").skip(1).find(|part| part.contains(option)).unwrap();
        assert!(after.contains("Possible values") || after.contains("possible values"), "{after}");
        assert!(values.iter().all(|value| after.contains(value)), "{after}");
    }
    let wrong = Adit::new(["man", "bnch"]).run(SOON).expect_code(2).stderr;
    assert!(wrong.contains("did you mean bench?"), "{wrong}");
}

#[test]
fn help_is_a_command_too() {
    let of = |arguments: &[&str]| Adit::new(arguments).run(SOON).expect_code(0).stdout;
    assert_eq!(of(&["help"]), of(&["--help"]));
    for command in COMMANDS {
        assert_eq!(of(&["help", command]), of(&[command, "--help"]), "{command}");
    }
    let exit = Adit::new(["help", "mien"]).run(SOON).expect_code(2);
    assert_eq!(
        exit.stderr,
        "error: command \"mien\": there is no such command\nhint: did you mean mine?\n"
    );
    // It has no settings: no table of the configuration file is called so.
    let home = Home::new();
    home.write_config("[help]\nblocks = 1\n");
    let exit = Adit::new(["mine", "--blocks", "1"]).home(&home).run(SOON).expect_code(2);
    assert!(exit.stderr.contains("`help` is for the command line only"), "{exit:#?}");
}

#[test]
fn likely_slips_get_the_right_hint() {
    for (arguments, told, hint) in [
        (&["mine", "bitcoin"][..], "there is no such source", "did you mean main, the local node"),
        (&["mine", "testnet"], "there is no such source", "testnet4 or testnet3"),
        (&["mine", "pool"], "there is no such source", "stratum+tcp://HOST:PORT"),
        (&["mine", ":18443"], "the scheme is missing", "write http://127.0.0.1:18443 for a node"),
        (&["mine", "18443"], "the scheme is missing", "write http://127.0.0.1:18443 for a node"),
        (&["mine", "h:3333"], "the scheme is missing", "stratum+tcp://h:3333 for a pool"),
        (&["mine", "--blocks", "-1"], "--blocks \"-1\": it must be a whole number, at least 1", ""),
        (&["mine", "--threads", "-2"], "--threads \"-2\": it must be a whole number from 1", ""),
        (&["mine", "--for", "-5s"], "--for \"-5s\": it is no duration", "write it like"),
        (&["mine", "--throttle", "-1"], "--throttle \"-1\": it must be a whole number from", ""),
        (&["estimate", "--difficulty", "-1"], "--difficulty \"-1\": it is no difficulty", "write"),
    ] {
        let exit = Adit::new(arguments).run(SOON).expect_code(2);
        assert!(exit.stderr.starts_with("error: "), "{exit:#?}");
        assert!(exit.stderr.contains(told), "{arguments:?}: {exit:#?}");
        assert!(exit.stderr.contains(hint), "{arguments:?}: {exit:#?}");
        assert!(exit.stderr.contains("\nhint: ") != hint.is_empty(), "{exit:#?}");
    }
}

#[test]
fn a_long_value_keeps_the_reason_why_it_is_refused() {
    for (arguments, reason) in [
        (vec!["mine".to_owned(), "--coinbase-text".into(), "long ".repeat(2_000)], "more than the"),
        (vec!["mine".to_owned(), "--address".into(), "b".repeat(5_000)], "no bitcoin address"),
        (vec!["mine".to_owned(), "x".repeat(5_000)], "no such source"),
        (vec!["x".repeat(5_000)], "no such command"),
        (vec!["mine".to_owned(), format!("--{}", "x".repeat(5_000))], "no such option"),
        (vec!["mine".to_owned(), "--config".into(), "x".repeat(5_000)], "File name too long"),
    ] {
        let exit = Adit::new(&arguments).run(SOON).expect_code(2);
        let error = exit.stderr.lines().next().unwrap();
        assert!(error.starts_with("error: ") && error.contains(reason), "{error}");
        assert!(error.chars().count() < 500, "{error}");
    }
}
