//! Where work comes from, as it is written on the command line and in the configuration file.

use std::fmt;
use std::str::FromStr;

use super::address::Url;
use super::{PROTOCOLS, Protocol};
use crate::value_error::{ValueError, redact, slip};

/// What comes after the sources in the long help of SOURCE.
const HELP: &str = "In user name and password, write special characters as %XX.\n\nSeveral sources: \
                    the first that works is mined, and a better-placed one is returned to when it is \
                    well again. The options below hold for all; a URL's own user and password beat \
                    them.";

/// A source, by its protocol and by its place there.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    protocol: &'static Protocol,
    place: Place,
}

/// Which one of its protocol's sources one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that one of the protocol's words names.
    Word(&'static str),
    /// The one at an address.
    Url(Url),
}

impl Place {
    /// The address, where it has one.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        match self {
            Self::Word(_) => None,
            Self::Url(url) => Some(url),
        }
    }
}

impl SourceSpec {
    /// The protocol that is spoken to it.
    #[must_use]
    pub fn protocol(&self) -> &'static Protocol {
        self.protocol
    }

    /// Which one of the protocol's sources it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its address, where it has one.
    pub fn url_mut(&mut self) -> Option<&mut Url> {
        match &mut self.place {
            Place::Word(_) => None,
            Place::Url(url) => Some(url),
        }
    }
}

/// A place belongs to one protocol.
impl PartialEq for SourceSpec {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for SourceSpec {}

/// As it may be shown: without user name and password.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Word(word) => f.write_str(word),
            Place::Url(url) => url.fmt(f),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return named_source(text);
        };
        let scheme = scheme.to_ascii_lowercase();
        for protocol in PROTOCOLS {
            let known = protocol
                .schemes
                .iter()
                .find(|known| known.name == scheme || known.aliases.contains(&scheme.as_str()));
            if let Some(known) = known {
                let place = Place::Url((protocol.url)(rest, known.name)?);
                return Ok(Self { protocol, place });
            }
        }
        let mut refused = PROTOCOLS.iter().flat_map(|protocol| protocol.refused_schemes);
        Err(match refused.find(|(refused, ..)| *refused == scheme) {
            Some((_, why, hint)) => {
                ValueError::new(*why).hint(hint.map_or_else(sources_hint, str::to_owned))
            }
            None => ValueError::new("the scheme is not known").hint(sources_hint()),
        })
    }
}

/// A source given as a word.
fn named_source(text: &str) -> Result<SourceSpec, ValueError> {
    for protocol in PROTOCOLS {
        if let Some(word) = (protocol.words)().into_iter().find(|word| *word == text) {
            return Ok(SourceSpec { protocol, place: Place::Word(word) });
        }
    }
    if text.is_empty() {
        return Err(ValueError::new("it is empty").hint(sources_hint()));
    }
    let (login, address) = match text.rfind('@') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    };
    let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) {
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let whole = redact(&format!("{login}{host}:{port}"));
        let ways: Vec<_> = PROTOCOLS
            .iter()
            .filter_map(|protocol| Some((protocol.schemes.first()?.name, protocol.called)))
            .map(|(scheme, called)| format!("{scheme}://{whole} for {called}"))
            .collect();
        return Err(
            ValueError::new("the scheme is missing").hint(format!("write {}", ways.join(", ")))
        );
    }
    let lower = text.to_ascii_lowercase();
    let mut others = PROTOCOLS.iter().flat_map(|protocol| protocol.other_words);
    let meant = others.find(|(words, _)| words.contains(&lower.as_str()));
    let hint = match meant {
        Some((_, hint)) => (*hint).to_owned(),
        None => match slip(text, words()) {
            Some(near) => format!("did you mean {near}?"),
            None => sources_hint(),
        },
    };
    Err(ValueError::new("there is no such source").hint(hint))
}

/// Every word that names a source.
fn words() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().flat_map(|protocol| (protocol.words)())
}

/// How a source is written.
fn sources_hint() -> String {
    let urls: Vec<_> = PROTOCOLS.iter().flat_map(|protocol| protocol.url_forms).copied().collect();
    let words: Vec<_> = PROTOCOLS.iter().filter_map(|protocol| protocol.words_form).collect();
    format!("a source is {}, or {}", listed(&urls, ", ", " or "), words.join(", or "))
}

/// `parts` in a row, `between` them, and `last` before the last one.
fn listed(parts: &[&str], between: &str, last: &str) -> String {
    match parts.split_last() {
        Some((end, others)) if !others.is_empty() => {
            format!("{}{last}{end}", others.join(between))
        }
        _ => parts.concat(),
    }
}

/// The long help of SOURCE.
#[must_use]
pub fn help() -> String {
    let each: Vec<_> = PROTOCOLS.iter().map(|protocol| protocol.help).collect();
    format!("Where work comes from\n\nEither {}. {HELP}", each.join("; or "))
}

/// What may be written for `protocol`: its words, and how its URLs begin.
fn suggested(protocol: &Protocol) -> Vec<String> {
    let urls = protocol.schemes.iter().map(|scheme| format!("{}://", scheme.name));
    (protocol.words)().into_iter().map(str::to_owned).chain(urls).collect()
}

/// The local nodes of all chains, and how the address of a node begins.
#[must_use]
pub fn suggested_nodes() -> Vec<String> {
    suggested(&super::getblocktemplate::PROTOCOL)
}

/// The same, and the other kinds of sources.
#[must_use]
pub fn suggested_sources() -> Vec<String> {
    PROTOCOLS.iter().flat_map(|protocol| suggested(protocol)).collect()
}

/// What is mined when nothing is said.
impl Default for SourceSpec {
    fn default() -> Self {
        Self { protocol: &super::builtin::PROTOCOL, place: Place::Word("builtin") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn url(text: &str, called: &str) -> Url {
        let spec: SourceSpec = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(spec.protocol().called, called, "{text}");
        spec.place().url().expect(text).clone()
    }

    fn rpc(text: &str) -> Url {
        url(text, "a node")
    }

    fn refusal(text: &str) -> String {
        let error = text.parse::<SourceSpec>().unwrap_err();
        format!("{} | {}", error.why, error.hint.unwrap_or_default())
    }

    #[test]
    fn urls_are_taken_apart() {
        let plain = rpc("http://127.0.0.1:18443");
        assert_eq!((plain.endpoint.host.as_str(), plain.endpoint.port), ("127.0.0.1", 18443));
        assert_eq!((plain.user, plain.password), (None, None));
        let full = rpc("HTTP://bob:p%40ss:w/o@rd@[::1]:8332/");
        assert_eq!((full.endpoint.host.as_str(), full.endpoint.port), ("::1", 8332));
        assert_eq!(full.user.as_deref(), Some("bob"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("p@ss:w/o@rd"));
        assert_eq!(full.to_string(), "http://[::1]:8332");
        assert_eq!(rpc("http://al@node_1.lan:1").user.as_deref(), Some("al"));
        assert_eq!(rpc("http://:x@h:1").user.as_deref(), Some(""));
    }

    #[test]
    fn pools_are_taken_apart() {
        let pool = |text: &str| url(text, "a pool");
        let plain = pool("stratum+tcp://pool.lan:3333");
        assert_eq!(plain.to_string(), "stratum+tcp://pool.lan:3333");
        assert_eq!((plain.user.as_ref(), plain.password.as_ref()), (None, None));
        let full = pool("Stratum+SSL://bc1q.worker:hunter2@[fe80::1]:443#xnsub");
        assert_eq!(full.scheme, "stratum+tls");
        assert_eq!(full.user.as_deref(), Some("bc1q.worker"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert_eq!(full.to_string(), "stratum+tls://[fe80::1]:443");
        assert!(!format!("{full:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let spec: SourceSpec = "http://bob:hunter2@h:1".parse().unwrap();
        assert!(!format!("{spec:?} {spec} {:?}", spec.place().url()).contains("hunter2"));
        assert_eq!(redact("http://bob:hunter2@h:1"), "http://***@h:1");
        assert_eq!(redact("bob:hunter2@h"), "***@h");
        assert_eq!(redact("a@b://c@d"), "a@b://***@d");
        assert_eq!(redact("@://"), "***@://");
        assert_eq!(redact("regtest"), "regtest");
    }

    #[test]
    fn bad_urls_are_refused_in_one_clear_word() {
        for (url, why) in [
            ("http://", "the host is missing"),
            ("http://:1", "the host is missing"),
            ("http://h", "the port is missing"),
            ("http://[::1]", "the port is missing"),
            ("http://h:", "the port is no number"),
            ("http://h:0", "the port is no number"),
            ("http://h:65536", "the port is no number"),
            ("http://h:+1", "the port is no number"),
            ("http://[::1]x:1", "the port is no number"),
            ("http://::1:8332", "more than one colon"),
            ("http://[::1:8332", "is not closed"),
            ("http://[h]:8332", "no IPv6 address"),
            ("http://h:1/wallet/x", "goes on after the port"),
            ("http://h:1?x", "goes on after the port"),
            ("http://h:1\r\nX: y", "no spaces or control"),
            ("http://höst:1", "neither a name nor"),
            ("http://u:%zz@h:1", "two hex digits"),
            ("http://u:%f@h:1", "two hex digits"),
            ("http://u:%ff@h:1", "not UTF-8"),
            ("https://h:1", "TLS"),
            ("stratum+tcp://pool", "the port is missing | each pool has its own"),
            ("stratum+tcp://::1:3333", "brackets: stratum+tcp://[::1]:3333"),
            ("stratum+tls://pool:3333/x", "goes on after the port | a pool's address ends"),
            ("stratum+ssl://u:%zz@pool:3333", "two hex digits"),
            ("stratum://pool:3333", "it does not say how the pool is reached"),
            ("STRATUM2+tcp://pool:3333/key", "not in this version"),
            ("ftp://h", "the scheme is not known | a source is http://"),
            ("localhost:18443", "the scheme is missing | write http://localhost:18443 for a node"),
            (":18443", "the scheme is missing | write http://127.0.0.1:18443 for a node"),
            ("18443", "the scheme is missing | write http://127.0.0.1:18443 for a node"),
            ("al@h:1", "the scheme is missing | write http://***@h:1 for a node"),
            ("h:", "there is no such source"),
            ("bitcoin", "did you mean main, the local"),
            ("Testnet", "did you mean testnet4 or testnet3?"),
            ("bitcoind", "which chain the local node is on"),
            ("pool", "stratum+tcp://HOST:PORT"),
            ("regtst", "did you mean regtest?"),
            ("mainnet", "did you mean main, the"),
            ("qqqqqq", "a source is http://"),
            ("", "it is empty"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(why), "{url}: {refusal}");
        }
        assert!(!refusal("bob:hunter2@h:1").contains("hunter2"));
    }

    #[test]
    fn local_nodes_have_names() {
        for word in words() {
            let spec: SourceSpec = word.parse().unwrap();
            assert_eq!(spec.to_string(), word);
            assert_eq!(spec.place(), &Place::Word(word));
        }
        assert!(words().any(|word| word == "signet") && words().any(|word| word == "builtin"));
        assert_eq!("builtin".parse(), Ok(SourceSpec::default()));
    }

    #[test]
    fn no_two_protocols_share_a_word_or_a_scheme() {
        let schemes = PROTOCOLS.iter().flat_map(|protocol| protocol.schemes);
        let schemes = schemes.flat_map(|scheme| scheme.aliases.iter().chain([&scheme.name]));
        let mut all: Vec<_> = schemes.copied().chain(words()).collect();
        let number = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), number);
    }

    #[test]
    fn the_hint_lists_every_form() {
        assert_eq!(
            sources_hint(),
            "a source is http://[USER[:PASS]@]HOST:PORT, stratum+tcp://HOST:PORT or \
             stratum+tls://HOST:PORT, or one of regtest, signet, testnet4, testnet3, main for the local \
             node of that chain, or builtin"
        );
    }
}
