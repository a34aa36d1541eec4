//! JSON lines: names and order of the keys are promised to those who write scripts.

use std::time::{Duration, SystemTime};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::Encodable as _;
use bitcoin::hashes::Hash as _;
use serde::{Serialize, Serializer};

use super::View;
use crate::chain::params::Params;
use crate::event::{Announcement, Event, Tally};
use crate::job::Verdict;
use crate::printable::one_line;
use crate::scan::BackendInfo;

/// One JSON object for each event that scripts are promised.
pub(super) struct Json;

/// The promised lines. Fields stand in the promised order.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Started {
        source: String,
        network: Option<&'static str>,
        backends: Vec<Backend<'a>>,
    },
    Job {
        height: Option<u32>,
        previous_block_hash: Hex<32>,
        difficulty: f64,
        clean: bool,
    },
    Share {
        result: &'static str,
        reason: Option<String>,
        difficulty: f64,
        hash: Hex<32>,
        latency_seconds: f64,
    },
    Block {
        result: &'static str,
        reason: Option<String>,
        height: Option<u32>,
        hash: Hex<32>,
        header: Hex<{ Header::SIZE }>,
        /// There only where it is true.
        #[serde(skip_serializing_if = "Option::is_none")]
        resent: Option<bool>,
    },
    Rate {
        hashes_per_second: f64,
        backends: Vec<BackendRate<'a>>,
    },
    Source {
        state: &'static str,
        source: String,
        reason: Option<String>,
    },
    Summary {
        elapsed_seconds: f64,
        hashes: u64,
        hashes_per_second: f64,
        blocks: Counts,
        shares: Counts,
        hardware_errors: u64,
    },
}

/// Bytes that are shown as lower-case hex. There are thousands of lines a second, so that it is written
/// without a copy on the heap.
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut digits = [[0; 2]; N];
        // There is room for two digits of each byte.
        let _ = hex::encode_to_slice(self.0, digits.as_flattened_mut());
        to.serialize_str(str::from_utf8(digits.as_flattened()).unwrap_or_default())
    }
}

/// In the order in which hashes are written: the last byte first.
impl From<&BlockHash> for Hex<32> {
    fn from(hash: &BlockHash) -> Self {
        let mut bytes = hash.to_byte_array();
        bytes.reverse();
        Self(bytes)
    }
}

/// As it is serialized.
impl From<&Header> for Hex<{ Header::SIZE }> {
    fn from(header: &Header) -> Self {
        let mut bytes = [0; Header::SIZE];
        // A header has this size.
        let _ = header.consensus_encode(&mut &mut bytes[..]);
        Self(bytes)
    }
}

#[derive(Serialize)]
struct Dated<'a> {
    event: &'static str,
    time: f64,
    #[serde(flatten)]
    line: Line<'a>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "`backend` is the key that the interface promises")]
struct Backend<'a> {
    backend: &'a str,
    kernel: &'a str,
    device: String,
    threads: usize,
    /// A graphics card's number; the processor has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

#[derive(Serialize)]
struct BackendRate<'a> {
    #[serde(flatten)]
    backend: Backend<'a>,
    hashes_per_second: f64,
}

#[derive(Serialize)]
struct Counts {
    accepted: u64,
    rejected: u64,
    stale: u64,
    unknown: u64,
}

impl<'a> From<&'a BackendInfo> for Backend<'a> {
    fn from(info: &'a BackendInfo) -> Self {
        Self {
            backend: info.id.kind(),
            kernel: &info.kernel,
            device: one_line(&info.device),
            threads: info.threads,
            index: info.id.index(),
        }
    }
}

impl From<Tally> for Counts {
    fn from(tally: Tally) -> Self {
        let Tally { accepted, rejected, stale, unknown } = tally;
        Self { accepted, rejected, stale, unknown }
    }
}

/// The source's own words, which scripts compare; ours where it said nothing.
fn reason(verdict: &Verdict) -> Option<String> {
    verdict.reject_reason().map(|reason| match reason.words.as_str() {
        "" => reason.meaning.to_owned(),
        words => one_line(words),
    })
}

/// In seconds, to the microsecond: more digits would only be noise of the float.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// The line for an event, and the event's name; nothing for those that scripts are not promised.
fn line(event: &Event) -> Option<(&'static str, Line<'_>)> {
    Some(match event {
        Event::Started { id: _, source, network, backends } => (
            "started",
            Line::Started {
                source: one_line(source),
                network: network.map(|network| Params::of(network).name),
                backends: backends.iter().map(Into::into).collect(),
            },
        ),
        Event::Job { source: _, height, previous_block_hash, difficulty, clean } => (
            "job",
            Line::Job {
                height: *height,
                previous_block_hash: previous_block_hash.into(),
                difficulty: difficulty.to_f64(),
                clean: *clean,
            },
        ),
        Event::Share { source: _, verdict, difficulty, hash, latency } => (
            "share",
            Line::Share {
                result: verdict.result(),
                reason: reason(verdict),
                difficulty: difficulty.to_f64(),
                hash: hash.into(),
                latency_seconds: seconds(*latency),
            },
        ),
        Event::Block { source: _, verdict, height, header, hash, was_unknown: _, resent } => (
            "block",
            Line::Block {
                result: verdict.result(),
                reason: reason(verdict),
                height: *height,
                hash: hash.into(),
                header: header.into(),
                resent: resent.then_some(true),
            },
        ),
        Event::Rate { total, backends } => (
            "rate",
            Line::Rate {
                hashes_per_second: total.to_f64(),
                backends: backends
                    .iter()
                    .map(|(info, rate)| BackendRate {
                        backend: info.into(),
                        hashes_per_second: rate.to_f64(),
                    })
                    .collect(),
            },
        ),
        Event::Source { state, id: _, source, reason } => (
            "source",
            Line::Source {
                state: state.word(),
                source: one_line(source),
                reason: reason.as_deref().map(one_line),
            },
        ),
        Event::Summary(summary) => (
            "summary",
            Line::Summary {
                elapsed_seconds: seconds(summary.elapsed),
                hashes: summary.hashes,
                hashes_per_second: super::progress::overall(summary).to_f64(),
                blocks: summary.blocks.into(),
                shares: summary.shares.into(),
                hardware_errors: summary.hardware_errors,
            },
        ),
        Event::HardwareError { .. }
        | Event::BackendFailed { .. }
        | Event::Paused(_)
        | Event::Notice(_)
        | Event::Stage { .. } => return None,
    })
}

impl View for Json {
    fn event(&mut self, announcement: &Announcement, out: &mut Vec<u8>) {
        let Some((event, line)) = line(&announcement.event) else { return };
        let since_1970 =
            announcement.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let dated = Dated { event, time: seconds(since_1970), line };
        // Numbers, strings and maps with string keys always serialize, and a Vec takes them all.
        if serde_json::to_writer(&mut *out, &dated).is_ok() {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all_events, rendered};
    use super::*;
    use crate::job::SourceId;

    #[test]
    fn the_lines_are_as_promised() {
        let zeros = "0".repeat(64);
        let hash = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
        let header = format!(
            "01000000{zeros}3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a\
             dae5494dffff7f2002000000"
        );
        let expected = [
            r#"{"event":"started","time":1700000000.123,"source":"builtin","network":"regtest","backends":[{"backend":"cpu","kernel":"sha2","device":"A CPU","threads":2}]}"#.to_owned(),
            r#"{"event":"source","time":1700000000.123,"state":"retrying","source":"http://h:1","reason":"it said�[31m \"no\""}"#.to_owned(),
            format!(r#"{{"event":"job","time":1700000000.123,"height":7,"previous_block_hash":"{zeros}","difficulty":1.0,"clean":true}}"#),
            format!(r#"{{"event":"share","time":1700000000.123,"result":"stale","reason":"too late","difficulty":1.0,"hash":"{zeros}","latency_seconds":0.012}}"#),
            format!(r#"{{"event":"block","time":1700000000.123,"result":"accepted","reason":null,"height":7,"hash":"{hash}","header":"{header}"}}"#),
            format!(r#"{{"event":"block","time":1700000000.123,"result":"rejected","reason":"high-hash","height":null,"hash":"{hash}","header":"{header}"}}"#),
            r#"{"event":"rate","time":1700000000.123,"hashes_per_second":1500000.0,"backends":[{"backend":"cpu","kernel":"sha2","device":"A CPU","threads":2,"hashes_per_second":1500000.0}]}"#.to_owned(),
            r#"{"event":"summary","time":1700000000.123,"elapsed_seconds":12.345,"hashes":1234567890,"hashes_per_second":100005499.39246657,"blocks":{"accepted":1234,"rejected":1,"stale":2,"unknown":3},"shares":{"accepted":0,"rejected":0,"stale":0,"unknown":0},"hardware_errors":0}"#.to_owned(),
        ];
        assert_eq!(header.len(), 160);
        let text = rendered(&mut Json, all_events());
        for (line, expected) in text.lines().zip(&expected) {
            assert_eq!(line, expected);
        }
        assert_eq!(text.lines().count(), expected.len());
    }

    #[test]
    fn hostile_words_stay_one_valid_line() {
        let event = Event::Source {
            state: crate::event::SourceState::Lost,
            id: SourceId(0),
            source: "\u{0}\u{1b}]0;x\u{7}\n{\"event\":\"summary\"}".into(),
            reason: Some("\u{9b}\u{202e}\u{2028}".repeat(10_000)),
        };
        let text = rendered(&mut Json, vec![event]);
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["event"], "source");
        assert!(text.len() < 5_000 && !text.trim_end().contains(char::is_control));
    }
}
