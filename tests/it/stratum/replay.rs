//! Exchanges with pools, played back: tests/data/stratum/README.md says how they are written.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use adit::event::{Event, SourceState};
use serde_json::{Value, json};

use crate::common::pool::{Rules, ScriptedPool};
use crate::stratum::miner::{Miner, SOON, config};

/// What the difficulty is set to in the place of the recorded one, so that shares are found in a
/// test's time.
const DIFFICULTY: f64 = 0.000_001;

/// The pool's side of one connection.
struct Player {
    stream: TcpStream,
    lines: std::io::Lines<BufReader<TcpStream>>,
    /// The miner's ids by the recorded ones.
    ids: HashMap<String, Value>,
}

impl Player {
    fn say(&mut self, line: &str) {
        let line = match serde_json::from_str::<Value>(line) {
            Ok(mut value) => {
                if value["method"] == "mining.set_difficulty" {
                    value["params"][0] = json!(DIFFICULTY);
                }
                if value.get("method").is_none()
                    && let Some(id) = self.ids.get(&value["id"].to_string())
                {
                    value["id"] = id.clone();
                }
                value.to_string()
            }
            // Garbage is played as it is.
            Err(_) => line.to_owned(),
        };
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for a line like the recorded one; shares that come before it are left alone.
    fn expect(&mut self, place: &str, line: &str) {
        let recorded: Value = serde_json::from_str(line).unwrap();
        loop {
            let said = self.lines.next().unwrap_or_else(|| panic!("{place}: closed")).unwrap();
            let said: Value = serde_json::from_str(&said).unwrap();
            let count = |value: &Value| value["params"].as_array().map(Vec::len);
            if said["method"] == recorded["method"] {
                assert_eq!(count(&said), count(&recorded), "{place}: {said}");
                self.ids.insert(recorded["id"].to_string(), said["id"].clone());
                return;
            }
            assert_eq!(said["method"], "mining.submit", "{place}: {said}");
        }
    }
}

/// Waits for an event that a line starting with `=` names.
fn await_event(miner: &Miner, place: &str, wanted: &str) {
    let (kind, rest) = wanted.split_once(' ').unwrap_or((wanted, ""));
    miner.wait(|event| {
        let fits = match (kind, event) {
            ("connected", Event::Source { state: SourceState::Connected, .. }) => true,
            ("lost", Event::Source { reason: Some(reason), .. }) => reason.contains(rest),
            ("notice", Event::Notice(text)) => text.contains(rest),
            ("height", Event::Job { height, .. }) => {
                height.map(|h| h.to_string()).as_deref() == Some(rest)
            }
            ("share", Event::Share { verdict, .. }) => {
                let words = verdict.reject_reason().map(ToString::to_string).unwrap_or_default();
                format!("{} {words}", verdict.result()).trim_end() == rest
            }
            ("connected" | "lost" | "notice" | "height" | "share", _) => false,
            _ => panic!("{place}: what is {wanted:?}?"),
        };
        fits.then_some(())
    });
}

fn play(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Only for a configuration whose address is then changed.
    let mut config = config(&ScriptedPool::start(Rules::default()));
    config.endpoint.port = listener.local_addr().unwrap().port();
    config.timing.configure = SOON;
    config.timing.authorize = SOON;
    config.timing.answer = std::time::Duration::from_secs(3);
    let miner = Miner::start(config);
    let connect = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        Player { stream, lines, ids: HashMap::new() }
    };
    let mut player = connect();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{}:{number}", file.display());
        match line.split_at_checked(2) {
            Some(("< ", said)) => player.say(said),
            Some(("> ", said)) => player.expect(&place, said),
            Some(("= ", wanted)) => await_event(&miner, &place, wanted),
            Some(("--", _)) => {
                player.stream.shutdown(std::net::Shutdown::Both).unwrap();
                player = connect();
            }
            Some(("# ", _)) | None => assert!(line.len() < 2 || line.starts_with("# "), "{place}"),
            Some(_) => panic!("{place}: {line:?} begins with none of < > = # --"),
        }
    }
    drop(player);
    drop(listener);
    miner.stop().outcome.unwrap();
}

#[test]
fn every_exchange_is_played_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stratum");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        play(&file);
    }
}
