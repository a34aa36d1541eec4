//! What a pool and a miner say to each other: one JSON object a line, in JSON-RPC's shape.
//!
//! Pools are read generously. What they send has the shape of JSON-RPC 1.0 as a rule, but errors come
//! as arrays, objects and strings, numbers as strings, and fields are missing where they are null.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::printable::printable;

/// The most characters kept of what a pool says.
pub const WORDS_MAX: usize = 200;

/// One line of the pool's.
#[derive(Debug)]
pub enum Message<'a> {
    /// It tells or asks something.
    Call {
        /// What about.
        method: String,
        /// The parameters, as they stand there.
        params: Params<'a>,
        /// What an answer has to repeat, where one is wanted.
        id: Option<&'a RawValue>,
    },
    /// It answers.
    Answer(Answer<'a>),
}

/// An answer to one of our requests.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The request's number; `None` where the pool names none of ours.
    pub id: Option<u64>,
    /// The result; null is `None`.
    pub result: Option<&'a RawValue>,
    /// The error, where there is one.
    pub error: Option<PoolError>,
}

/// An error in a pool's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolError {
    /// Its number, where it has one.
    pub code: Option<i64>,
    /// Its words on one line, fit to be shown; may be empty.
    pub words: String,
}

/// A list of parameters, each still as JSON text.
#[derive(Debug, Default)]
pub struct Params<'a>(Vec<&'a RawValue>);

impl<'a> Params<'a> {
    /// The parameter at `index`, where there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a RawValue> {
        self.0.get(index).copied()
    }

    /// The same as a text.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<String> {
        self.get(index).and_then(text)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<String>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "reject-reason")]
    reject_reason: Option<&'a RawValue>,
}

/// Why a line says nothing to us.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It is no JSON, or none with these fields.
    #[error("it is no JSON object: {0}")]
    Json(String),
    /// It is JSON of another kind.
    #[error("it is JSON, but no object")]
    NotAnObject,
}

/// Reads one line.
///
/// # Errors
/// When it is no JSON object, or a field of it is not what it must be.
pub fn read(line: &[u8]) -> Result<Message<'_>, MessageError> {
    let line: Line<'_> = match line.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[' | b'"' | b'0'..=b'9' | b'-') if json::<IgnoredAny>(line).is_ok() => {
            return Err(MessageError::NotAnObject);
        }
        _ => json(line)?,
    };
    if let Some(method) = line.method {
        let params = match line.params {
            None => Params::default(),
            Some(params) => match serde_json::from_str(params.get()) {
                Ok(list) => Params(list),
                // An object, or a lone value: the one parameter.
                Err(_) => Params(vec![params]),
            },
        };
        return Ok(Message::Call { method, params, id: line.id });
    }
    // The number 0 beside a yes is success, whatever is written with it.
    let is_yes = line.result.is_some_and(|result| result.get() == "true");
    let mut error = line.error.and_then(pool_error);
    error = error.filter(|error| !(is_yes && error.code == Some(0)));
    if let Some(words) = line.reject_reason.and_then(text) {
        let error = error.get_or_insert_default();
        if error.words.is_empty() {
            error.words = printable(&words, WORDS_MAX);
        }
    }
    Ok(Message::Answer(Answer { id: line.id.and_then(number), result: line.result, error }))
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, MessageError> {
    serde_json::from_slice(line)
        .map_err(|error| MessageError::Json(printable(&error.to_string(), WORDS_MAX)))
}

/// A value that is a text, or a number taken as one.
#[must_use]
pub fn text(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'0'..=b'9' | b'-' => Some(value.get().to_owned()),
        _ => None,
    }
}

/// A value that is a whole number, or a text that holds one.
#[must_use]
pub fn number(value: &RawValue) -> Option<u64> {
    text(value)?.trim().parse().ok()
}

/// What an error field says; `None` where it stands for no error: false, 0, an empty text, list or
/// object, or the number 0 without words.
fn pool_error(value: &RawValue) -> Option<PoolError> {
    read_error(value)
        .filter(|pool_error| pool_error.code != Some(0) || !pool_error.words.is_empty())
}

fn read_error(value: &RawValue) -> Option<PoolError> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow, default)]
        code: Option<&'a RawValue>,
        #[serde(borrow, default)]
        message: Option<&'a RawValue>,
    }
    let words = |value: &RawValue| {
        let text = text(value).unwrap_or_else(|| value.get().to_owned());
        printable(&text, WORDS_MAX)
    };
    let code = |value: &RawValue| text(value)?.trim().parse::<i64>().ok();
    let raw = value.get();
    match raw.as_bytes().first()? {
        b'[' => {
            let list: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            let first = list.first()?;
            let (number, message) = match code(first) {
                Some(number) => (Some(number), list.get(1)),
                None => (None, Some(first)),
            };
            let message = message.filter(|message| message.get() != "null");
            Some(PoolError {
                code: number,
                words: message.map(|message| words(message)).unwrap_or_default(),
            })
        }
        b'{' => {
            if raw[1..raw.len() - 1].trim().is_empty() {
                return None;
            }
            let object: Object<'_> = serde_json::from_str(raw).ok()?;
            let words = match object.message {
                Some(message) if message.get() == "null" => String::new(),
                Some(message) => words(message),
                None if object.code.is_some() => String::new(),
                None => words(value),
            };
            Some(PoolError { code: object.code.and_then(code), words })
        }
        b'"' => {
            let words = words(value);
            (!words.is_empty()).then_some(PoolError { code: None, words })
        }
        b't' => Some(PoolError::default()),
        b'-' | b'1'..=b'9' => Some(PoolError { code: code(value), words: String::new() }),
        _ => None,
    }
}

/// `text` as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A request as a line. `params` is the JSON text of the list.
#[must_use]
pub fn request(id: u64, method: &str, params: &str) -> String {
    format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n")
}

/// An answer as a line. `id` and `result` are JSON texts.
#[must_use]
pub fn answer(id: &str, result: &str) -> String {
    format!("{{\"id\":{id},\"result\":{result},\"error\":null}}\n")
}

/// The answer to a method that we do not know.
#[must_use]
pub fn unknown_method(id: &str) -> String {
    format!("{{\"id\":{id},\"result\":null,\"error\":[-3,\"Method not found\",null]}}\n")
}

/// What a share's `mining.submit` says.
#[derive(Debug)]
pub struct Submit<'a> {
    /// The worker's name as a JSON string.
    pub user: &'a str,
    /// The job's id as the JSON text it came in.
    pub job: &'a str,
    /// Our part of the extranonce.
    pub extranonce2: &'a [u8],
    /// The header's nTime.
    pub ntime: u32,
    /// The header's nonce.
    pub nonce: u32,
    /// The version bits (BIP 310), where rolling was agreed on.
    pub version_bits: Option<u32>,
}

impl Submit<'_> {
    /// The request as a line.
    #[must_use]
    pub fn request(&self, id: u64) -> String {
        let Self { user, job, extranonce2, ntime, nonce, version_bits } = self;
        let extranonce2 = hex::encode(extranonce2);
        let mut params = format!("[{user},{job},\"{extranonce2}\",\"{ntime:08x}\",\"{nonce:08x}\"");
        if let Some(bits) = version_bits {
            // Writing to a text cannot fail.
            let _ = write!(params, ",\"{bits:08x}\"");
        }
        params.push(']');
        request(id, "mining.submit", &params)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error_of(json: &str) -> Option<PoolError> {
        let line = format!(r#"{{"id":1,"result":null,"error":{json}}}"#);
        match read(line.as_bytes()).unwrap() {
            Message::Answer(answer) => answer.error,
            Message::Call { .. } => panic!("{json}"),
        }
    }

    #[test]
    fn errors_come_in_many_shapes() {
        let told = |code, words: &str| Some(PoolError { code, words: words.to_owned() });
        for (json, expected) in [
            ("null", None),
            ("false", None),
            ("0", None),
            ("[]", None),
            ("\"\"", None),
            ("{}", None),
            ("{ }", None),
            (r#"{"code":0}"#, None),
            (r#"{"code":0,"message":null}"#, None),
            ("[0,null]", None),
            (r#"{"code":0,"message":"no"}"#, told(Some(0), "no")),
            (r#"{"code":20}"#, told(Some(20), "")),
            (r#"[21,"Job not found",null]"#, told(Some(21), "Job not found")),
            (r#"["21","Job not found"]"#, told(Some(21), "Job not found")),
            (r#"["Stale"]"#, told(None, "Stale")),
            ("[23,null,null]", told(Some(23), "")),
            (r#"{"code":22,"message":"Duplicate share"}"#, told(Some(22), "Duplicate share")),
            (r#"{"reason":"no"}"#, told(None, r#"{"reason":"no"}"#)),
            (r#""Above target""#, told(None, "Above target")),
            ("25", told(Some(25), "")),
            ("true", told(None, "")),
            (r#"[20,{"a":1}]"#, told(Some(20), r#"{"a":1}"#)),
            ("\"\\u001b[2J\"", told(None, "\u{fffd}[2J")),
        ] {
            assert_eq!(error_of(json), expected, "{json}");
        }
        let line = br#"{"result":false,"error":null,"id":"7","reject-reason":"Above target"}"#;
        let Message::Answer(answer) = read(line).unwrap() else { panic!() };
        assert_eq!((answer.id, answer.error), (Some(7), told(None, "Above target")));
    }

    #[test]
    fn calls_and_answers_are_told_apart() {
        let line = br#"{"params":["a",2],"id":null,"method":"mining.notify"}"#;
        let Message::Call { method, params, id: None } = read(line).unwrap() else { panic!() };
        assert_eq!((method.as_str(), params.count()), ("mining.notify", 2));
        assert_eq!((params.text(0).unwrap(), params.text(1).unwrap()), ("a".into(), "2".into()));
        let Message::Call { params, .. } = read(br#"{"method":"ping","id":4}"#).unwrap() else {
            panic!()
        };
        assert_eq!(params.count(), 0);
        let Message::Answer(answer) = read(br#"{"id":3,"result":true}"#).unwrap() else { panic!() };
        assert_eq!((answer.id, answer.error), (Some(3), None));
        assert!(matches!(read(b"{}"), Ok(Message::Answer(Answer { id: None, .. }))));
    }

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        for line in
            ["", "{", "garbage", "HTTP/1.1 400 Bad Request", "{\"id\":NaN}", "{\"method\":3}"]
        {
            assert!(matches!(read(line.as_bytes()), Err(MessageError::Json(_))), "{line}");
        }
        for line in ["[]", "[{\"id\":1}]", "3", "\"a\""] {
            assert!(matches!(read(line.as_bytes()), Err(MessageError::NotAnObject)), "{line}");
        }
        assert!(read(b"{\"id\":1,\"result\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_share_has_five_or_six_parameters() {
        let mut submit = Submit {
            user: "\"al.ice\"",
            job: "\"4f\"",
            extranonce2: &[0, 1],
            ntime: 0x504e_86ed,
            nonce: 0xb295_7c02,
            version_bits: None,
        };
        assert_eq!(
            submit.request(4),
            "{\"id\":4,\"method\":\"mining.submit\",\"params\":[\"al.ice\",\"4f\",\"0001\",\
             \"504e86ed\",\"b2957c02\"]}\n"
        );
        submit.version_bits = Some(0x2000);
        assert!(submit.request(4).contains(",\"b2957c02\",\"00002000\"]}\n"));
    }

    proptest! {
        #[test]
        fn no_line_is_too_much(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
        }

        #[test]
        fn no_object_is_too_much(
            id in "null|-?[0-9]{1,30}|\"[a-z0-9]{0,9}\"|\\{\\}|\\[\\[\\]\\]|true|1e400",
            method in "null|\"[a-z.]{0,20}\"|7",
            params in "null|\\[(null|1|\"x\"|\\{\\})?\\]|\\{\"a\":\\[\\]\\}|\"x\"|-3.5e7",
            result in "null|true|false|\\[1,2\\]|\"\\\\ud800\"|0",
            error in "null|\\[[0-9]{0,3}\\]|\\{\"code\":(1|\"x\"|null)\\}|\"\\\\u0000\"|\\[null,null\\]",
        ) {
            let line = format!(
                r#"{{"id":{id},"method":{method},"params":{params},"result":{result},"error":{error}}}"#
            );
            if let Ok(Message::Call { params, .. }) = read(line.as_bytes()) {
                for index in 0..params.count() {
                    let _ = (params.text(index), params.get(index).and_then(number));
                }
            }
        }

        #[test]
        fn deep_nesting_is_no_danger(depth in 1usize..20_000, open in "\\[|\\{\"a\":") {
            let _ = read(format!("{{\"result\":{}", open.repeat(depth)).as_bytes());
            let _ = read(open.repeat(depth).as_bytes());
            let nested = "[".repeat(depth) + &"]".repeat(depth);
            let _ = read(format!("{{\"id\":1,\"error\":{nested}}}").as_bytes());
        }
    }
}
