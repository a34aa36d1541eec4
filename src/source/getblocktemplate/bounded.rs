//! Parsing a node's JSON within bounds: a response of some megabytes must not take hundreds of them
//! once it is parsed. A list of a million empty entries costs its sender three bytes each, and its
//! reader seventy.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Responses up to this size are parsed whatever they hold.
const SMALL: usize = 1 << 20;

/// Whether a response may be given to the JSON parser. A large one has to be printable ASCII without
/// escapes, as a template is: the parser copies a string that holds an escape, however long it is,
/// and quotes a string that is where none belongs in its error message, in which each unprintable
/// character takes six.
pub fn is_plain(body: &[u8]) -> bool {
    let plain = |b: &u8| matches!(b, b' '..=b'[' | b']'..=b'~' | b'\n' | b'\r' | b'\t');
    // In blocks without branches, so that it is vectorized.
    body.len() <= SMALL
        || body.chunks(4096).all(|block| block.iter().fold(true, |all, b| all & plain(b)))
}

/// A list of at most `max` entries.
pub fn list<'de, T, D>(deserializer: D, what: &'static str, max: usize) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(List { what, max, entry: PhantomData })
}

/// Like [`list`], for a field that may be null: an empty list.
pub fn optional_list<'de, T, D>(
    deserializer: D,
    what: &'static str,
    max: usize,
) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_option(List { what, max, entry: PhantomData })
}

/// An object of at most `max` members, in their order; null gives an empty list.
pub fn optional_members<'de, T, D>(
    deserializer: D,
    what: &'static str,
    max: usize,
) -> Result<Vec<(Cow<'de, str>, T)>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_option(Members { what, max, value: PhantomData })
}

struct List<T> {
    what: &'static str,
    max: usize,
    entry: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }

    fn visit_none<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == self.max {
                return Err(too_many(self.what, self.max));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

struct Members<T> {
    what: &'static str,
    max: usize,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Vec<(Cow<'de, str>, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of {}", self.what)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((Text(name), value)) = members.next_entry()? {
            if all.len() == self.max {
                return Err(too_many(self.what, self.max));
            }
            all.push((name, value));
        }
        Ok(all)
    }
}

fn too_many<E: Error>(what: &str, max: usize) -> E {
    E::custom(format_args!("more than {max} {what}"))
}

/// A string that is borrowed if it holds no escapes.
#[derive(Debug, serde::Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct BatchResponse<'a> {
        #[serde(default, borrow, deserialize_with = "three")]
        list: Vec<Text<'a>>,
        #[serde(default, borrow, deserialize_with = "two")]
        object: Vec<(Cow<'a, str>, i64)>,
    }

    fn three<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Text<'de>>, D::Error> {
        optional_list(deserializer, "things", 3)
    }

    fn two<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(Cow<'de, str>, i64)>, D::Error> {
        optional_members(deserializer, "numbers", 2)
    }

    fn read(json: &str) -> Result<(usize, usize), String> {
        let both: BatchResponse<'_> =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok((both.list.len(), both.object.len()))
    }

    #[test]
    fn what_exceeds_the_bounds_is_refused_and_null_is_empty() {
        assert_eq!(read(r#"{"list":["a","b\n","c"],"object":{"a":1,"a":2}}"#), Ok((3, 2)));
        assert_eq!(read(r#"{"list":null,"object":null}"#), Ok((0, 0)));
        assert_eq!(read("{}"), Ok((0, 0)));
        let error = read(r#"{"list":["","","",""]}"#).unwrap_err();
        assert!(error.starts_with("more than 3 things at"), "{error}");
        let error = read(r#"{"object":{"a":1,"b":2,"c":3}}"#).unwrap_err();
        assert!(error.starts_with("more than 2 numbers at"), "{error}");
        assert!(read(r#"{"list":7}"#).unwrap_err().contains("a list of things"));
        assert!(read(r#"{"object":[]}"#).unwrap_err().contains("an object of numbers"));
    }

    #[test]
    fn a_large_answer_has_to_be_plain() {
        let mut body = vec![b'a'; SMALL + 1];
        assert!(is_plain(&body));
        for odd in [b'\\', 0x7f, 0x80, 0xff, 0] {
            body[SMALL / 2] = odd;
            assert!(!is_plain(&body), "{odd:x}");
            assert!(is_plain(&body[..SMALL]));
        }
        body[SMALL / 2] = b'\n';
        assert!(is_plain(&body));
    }
}
