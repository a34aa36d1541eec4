//! What a Stratum server sends.

use bytes::BytesMut;
use serde_json::value::RawValue;

use super::assert_shown_well;
use crate::printable::is_printable;
use crate::source::stratum_v1::difficulty::target_of;
use crate::source::stratum_v1::line::{LINE_MAX, LineBuffer};
use crate::source::stratum_v1::message::{self, Message, Params, Submit, WORDS_MAX};
use crate::source::stratum_v1::work::{self, Extranonce, Notify};

/// The line splitter. The first byte says into how large pieces the rest is cut.
///
/// The lines are those of the whole, however it was cut; nothing is lost and nothing is added.
pub fn stratum_line(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else { return };
    let mut buffer = LineBuffer::default();
    let mut lines: Vec<BytesMut> = Vec::new();
    for piece in stream.chunks(usize::from(size).max(1)) {
        buffer.room().extend_from_slice(piece);
        loop {
            match buffer.next_line() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => {
                    assert_shown_well(&error);
                    assert!(stream.split(|b| *b == b'\n').any(|line| line.len() > LINE_MAX));
                    return;
                }
            }
        }
    }
    let mut whole: Vec<&[u8]> = stream.split(|b| *b == b'\n').collect();
    let rest = whole.pop().unwrap_or_default();
    let expected = whole
        .into_iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace));
    assert!(lines.iter().map(|line| &line[..]).eq(expected), "other lines");
    assert_eq!(buffer.rest(), rest, "another rest");
}

/// One line of a server's, and all that is read out of it.
///
/// What is read is printed, and read as the same again; no answer of ours to it is anything but one
/// line of JSON; words are fit to be shown.
pub fn stratum_message(input: &[u8]) {
    // The splitter leaves none in a line.
    if input.contains(&b'\n') {
        return;
    }
    match message::read(input) {
        Ok(Message::Call { method: _, params, id }) => {
            on_job(&params);
            on_extranonce(params.get(0), params.get(1));
            if let Some(Ok(mask)) = params.get(0).map(work::mask) {
                let again = raw(&format!("\"{mask:08x}\""));
                assert_eq!(work::mask(&again), Ok(mask));
            }
            if let Some(value) = params.get(0) {
                match target_of(value.get()) {
                    Ok(target) => assert_ne!(target.to_be_bytes(), [0; 32], "{value}"),
                    Err(error) => assert_shown_well(&error),
                }
            }
            for index in 0..params.count() {
                let _ = (params.text(index), params.get(index).map(message::number));
            }
            let id = id.map_or("null", RawValue::get);
            assert_one_line(&message::answer(id, "\"pong\""));
            assert_one_line(&message::unknown_method(id));
        }
        Ok(Message::Answer(answer)) => {
            if let Some(error) = answer.error {
                assert!(error.words.chars().count() <= WORDS_MAX);
                assert!(error.words.chars().all(is_printable), "{:?}", error.words);
            }
            let fields: Vec<&RawValue> = answer
                .result
                .and_then(|result| serde_json::from_str(result.get()).ok())
                .unwrap_or_default();
            on_extranonce(fields.get(1).copied(), fields.get(2).copied());
        }
        Err(error) => assert_shown_well(&error),
    }
}

fn on_job(params: &Params<'_>) {
    let job = match Notify::read(params) {
        Ok(job) => job,
        Err(error) => return assert_shown_well(&error),
    };
    let _ = job.work.height();

    let mut previous = job.work.previous_block_hash.to_string();
    // From the order it is shown in to that of the words in the message.
    let words: Vec<&str> = (0..8).rev().map(|word| &previous[8 * word..8 * word + 8]).collect();
    previous = words.concat();
    let branch: Vec<String> = job.work.merkle_branch.iter().map(hex::encode).collect();
    let printed = format!(
        r#"{{"id":null,"method":"mining.notify","params":[{},"{previous}","{}","{}",{},"{:08x}","{:08x}","{:08x}",{}]}}"#,
        job.id,
        hex::encode(&job.work.prefix),
        hex::encode(&job.work.suffix),
        serde_json::Value::from(branch),
        job.work.version,
        job.work.nbits.to_consensus(),
        job.work.ntime,
        job.clean,
    );
    let Ok(Message::Call { params, .. }) = message::read(printed.as_bytes()) else {
        panic!("a printed job is not read: {printed}")
    };
    assert_eq!(Notify::read(&params).as_ref(), Ok(&job), "{printed}");

    let submit = Submit {
        user: "\"worker\"",
        job: &job.id,
        extranonce2: &[0, 1],
        ntime: job.work.ntime,
        nonce: 7,
        version_bits: Some(0x2000),
    };
    let line = submit.request(3);
    assert_one_line(&line);
    let Ok(Message::Call { params, .. }) = message::read(line.as_bytes()) else {
        panic!("a share is not read: {line}")
    };
    assert_eq!(params.count(), 6, "{line}");
    assert_eq!(params.get(1).map(RawValue::get), Some(job.id.as_str()), "{line}");
}

fn on_extranonce(fixed: Option<&RawValue>, len: Option<&RawValue>) {
    match Extranonce::read(fixed, len) {
        Ok(extranonce) => {
            assert!((1..=16).contains(&extranonce.len) && extranonce.fixed.len() <= 64);
            let fixed = raw(&format!("\"{}\"", hex::encode(&extranonce.fixed)));
            let len = raw(&extranonce.len.to_string());
            assert_eq!(Extranonce::read(Some(&fixed), Some(&len)), Ok(extranonce));
        }
        Err(error) => assert_shown_well(&error),
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("it is JSON")
}

/// What we send is one line, and JSON.
fn assert_one_line(line: &str) {
    let body = line.strip_suffix('\n').expect("it ends");
    // Between two tokens of what it repeats, a server may have written a lone carriage return: that
    // ends no line.
    assert!(!body.contains('\n'), "{line:?}");
    assert!(serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok(), "{line:?}");
}
