//! What `mine --json` promises to those who write scripts: the keys of each event and their order.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::block::{self, Hash};

const TALLY: [&str; 4] = ["accepted", "rejected", "stale", "unknown"];

/// The keys behind `event` and `time`.
fn keys_of(event: &str) -> &'static [&'static str] {
    match event {
        "started" => &["source", "network", "backends"],
        "job" => &["height", "previous_block_hash", "difficulty", "clean"],
        "share" => &["result", "reason", "difficulty", "hash", "latency_seconds"],
        "block" => &["result", "reason", "height", "hash", "header"],
        "rate" => &["hashes_per_second", "backends"],
        "source" => &["state", "source", "reason"],
        "summary" => &[
            "elapsed_seconds",
            "hashes",
            "hashes_per_second",
            "blocks",
            "shares",
            "hardware_errors",
        ],
        _ => panic!("no event of the name {event:?} is promised"),
    }
}

/// The keys of an object in the order in which they stand.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Checks every line of a run whose source answered at once, and gives back the events.
#[track_caller]
pub fn check(stdout: &str) -> Vec<Value> {
    let events = check_any(stdout);
    assert_eq!(events[0]["event"], "started", "{stdout}");
    events
}

/// Checks every line of a run, and gives back the events. Until the source answers there is no
/// `started`; only tries come before it.
#[track_caller]
pub fn check_any(stdout: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut before = 0.0;
    for line in stdout.lines() {
        let Keys(keys) = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{line:?} is no object: {error}"));
        let event: Value = serde_json::from_str(line).expect("it was read before");
        let name = event["event"].as_str().expect("the event's name");
        let mut promised = ["event", "time"].to_vec();
        promised.extend(keys_of(name));
        // There only where it is true.
        if name == "block" && event["resent"] == true {
            promised.push("resent");
        }
        assert_eq!(keys, promised, "{line}");
        let time = event["time"].as_f64().expect("the event's time");
        // A thread may be interrupted between looking at the clock and announcing.
        assert!(time > before - 1.0, "time runs backwards at {line}");
        before = time;
        check_values(name, &event);
        events.push(event);
    }
    let names: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let first = names.iter().find(|name| **name != "source");
    assert!(matches!(first, Some(&"started" | &"summary")), "{stdout}");
    assert_eq!(names.last(), Some(&"summary"), "{stdout}");
    for once in ["started", "summary"] {
        let count = names.iter().filter(|name| **name == once).count();
        assert!(count < 2, "{once} comes once");
    }
    events
}

fn check_values(name: &str, event: &Value) {
    let is_hash = |key: &str| {
        let text = event[key].as_str().unwrap_or_default();
        assert!(text.len() == 64 && is_lower_hex(text), "{key} in {event}");
    };
    match name {
        "job" => {
            is_hash("previous_block_hash");
            assert!(event["difficulty"].is_f64() && event["clean"].is_boolean(), "{event}");
        }
        "block" => {
            is_hash("hash");
            let header = event["header"].as_str().unwrap_or_default();
            assert!(header.len() == 160 && is_lower_hex(header), "{event}");
            assert_eq!(event["hash"], block::display(&block::sha256d(&header_of(event))));
            let result = event["result"].as_str().unwrap_or_default();
            assert!(TALLY.contains(&result), "{event}");
            assert_eq!(event["reason"].is_null(), result == "accepted", "{event}");
        }
        "rate" => {
            assert!(event["hashes_per_second"].is_number(), "{event}");
            for backend in event["backends"].as_array().expect("a list of backends") {
                assert!(backend["hashes_per_second"].is_number(), "{event}");
            }
        }
        "source" => {
            let state = event["state"].as_str().unwrap_or_default();
            assert!(["connected", "lost", "retrying"].contains(&state), "{event}");
            // A source among several that is connected may be said to be the one that is mined.
            assert!(state == "connected" || !event["reason"].is_null(), "{event}");
        }
        "summary" => {
            for kind in ["blocks", "shares"] {
                for result in TALLY {
                    assert!(event[kind][result].is_u64(), "{kind} {result} in {event}");
                }
            }
        }
        _ => {}
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The blocks among the events, in their order.
pub fn blocks(events: &[Value]) -> Vec<Value> {
    events.iter().filter(|event| event["event"] == "block").cloned().collect()
}

/// A block event's header.
pub fn header_of(block: &Value) -> Vec<u8> {
    hex::decode(block["header"].as_str().unwrap_or_default()).expect("the header is hex")
}

/// A block event's version field.
pub fn version_of(block: &Value) -> u32 {
    u32::from_le_bytes(header_of(block)[..4].try_into().expect("four bytes"))
}

/// The hash, in a header's byte order, of the block that a block event's builds on.
pub fn previous_of(block: &Value) -> Hash {
    header_of(block)[4..36].try_into().expect("32 bytes")
}

/// Checks that these blocks, all accepted, are of the heights from `first` on without gap or
/// repetition.
#[track_caller]
pub fn check_heights(blocks: &[Value], first: u64) {
    for (block, height) in blocks.iter().zip(first..) {
        assert_eq!((&block["height"], &block["result"]), (&height.into(), &"accepted".into()));
    }
}

/// The same, and that each builds on the one before.
#[track_caller]
pub fn check_chain(blocks: &[Value], first: u64) {
    check_heights(blocks, first);
    for pair in blocks.windows(2) {
        assert_eq!(block::display(&previous_of(&pair[1])), pair[0]["hash"], "{pair:#?}");
    }
}
