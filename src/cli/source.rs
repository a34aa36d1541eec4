//! Where work comes from, as `adit mine` takes it.

use std::fmt;
use std::str::FromStr;

use bitcoin::Network;

use super::address::{PoolUrl, RpcUrl};
use super::values::{ValueError, redact, slip};
use crate::chain::params::Params;

/// Where the work is to come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceSpec {
    /// The built-in regtest chain.
    #[default]
    Builtin,
    /// A node's JSON-RPC.
    Rpc(RpcUrl),
    /// The local node of a chain, at its default port.
    LocalNode(Network),
    /// A Stratum V1 pool.
    Pool(PoolUrl),
}

/// As it may be shown: without user name and password.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.write_str("builtin"),
            Self::Rpc(url) => url.fmt(f),
            Self::LocalNode(network) => f.write_str(Params::of(*network).name),
            Self::Pool(url) => url.fmt(f),
        }
    }
}

const SOURCES_HINT: &str = "a source is http://[USER[:PASS]@]HOST:PORT, stratum+tcp://HOST:PORT or \
                            stratum+tls://HOST:PORT, or one of regtest, signet, testnet4, testnet3, \
                            main for the local node of that chain, or builtin";

impl FromStr for SourceSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return named_source(text);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => rest.parse().map(Self::Rpc),
            "https" => Err(ValueError::new("adit does not speak TLS to a node")
                .hint("use http:// to a node on this machine or through a tunnel")),
            "stratum+tcp" => PoolUrl::parse(rest, false).map(Self::Pool),
            "stratum+tls" | "stratum+ssl" => PoolUrl::parse(rest, true).map(Self::Pool),
            "stratum" => Err(ValueError::new("it does not say how the pool is reached")
                .hint("write stratum+tcp:// or, for encryption, stratum+tls://")),
            "stratum2+tcp" => {
                Err(ValueError::new("Stratum V2 pools are not in this version").hint(SOURCES_HINT))
            }
            _ => Err(ValueError::new("the scheme is not known").hint(SOURCES_HINT)),
        }
    }
}

/// The local nodes of all chains, and how the address of a node begins.
pub(super) fn suggested_nodes() -> Vec<String> {
    Params::all().iter().map(|params| params.name).chain(["http://"]).map(str::to_owned).collect()
}

/// The same, and the other kinds of sources.
pub(super) fn suggested_sources() -> Vec<String> {
    let others = ["stratum+tcp://", "stratum+tls://", "builtin"].map(str::to_owned);
    suggested_nodes().into_iter().chain(others).collect()
}

/// Other words for a source than ours, and what is meant by them.
const OTHER_WORDS: [(&[&str], &str); 4] = [
    (
        &["bitcoin", "mainnet", "btc", "livenet"],
        "did you mean main, the local node of the main chain?",
    ),
    (&["testnet", "test"], "did you mean testnet4 or testnet3?"),
    (
        &["bitcoind", "node", "localhost", "local", "core", "rpc"],
        "write which chain the local node is on: regtest, signet, testnet4, testnet3 or main; or its \
         address: http://127.0.0.1:18443",
    ),
    (&["pool", "stratum", "stratum+tcp"], "write the pool's address: stratum+tcp://HOST:PORT"),
];

/// A source given as a word.
fn named_source(text: &str) -> Result<SourceSpec, ValueError> {
    if text == "builtin" {
        return Ok(SourceSpec::Builtin);
    }
    if let Some(params) = Params::from_name(text) {
        return Ok(SourceSpec::LocalNode(params.network));
    }
    if text.is_empty() {
        return Err(ValueError::new("it is empty").hint(SOURCES_HINT));
    }
    let (login, address) = match text.rfind('@') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    };
    let (host, port) = address.rsplit_once(':').unwrap_or(("", address));
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) {
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let whole = redact(&format!("{login}{host}:{port}"));
        return Err(ValueError::new("the scheme is missing")
            .hint(format!("write http://{whole} for a node, stratum+tcp://{whole} for a pool")));
    }
    let lower = text.to_ascii_lowercase();
    let meant = OTHER_WORDS.iter().find(|(words, _)| words.contains(&lower.as_str()));
    if let Some((_, hint)) = meant {
        return Err(ValueError::new("there is no such source").hint(*hint));
    }
    let words = Params::all().iter().map(|params| params.name).chain(["builtin"]);
    Err(match slip(text, words) {
        Some(near) => {
            ValueError::new("there is no such source").hint(format!("did you mean {near}?"))
        }
        None => ValueError::new("there is no such source").hint(SOURCES_HINT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn rpc(text: &str) -> RpcUrl {
        match text.parse() {
            Ok(SourceSpec::Rpc(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        let error = text.parse::<SourceSpec>().unwrap_err();
        format!("{} | {}", error.why, error.hint.unwrap_or_default())
    }

    #[test]
    fn urls_are_taken_apart() {
        let plain = rpc("http://127.0.0.1:18443");
        assert_eq!(
            (plain.host.as_str(), plain.port, plain.user, plain.password),
            ("127.0.0.1", 18443, None, None)
        );
        let full = rpc("HTTP://bob:p%40ss:w/o@rd@[::1]:8332/");
        assert_eq!((full.host.as_str(), full.port), ("::1", 8332));
        assert_eq!(full.user.as_deref(), Some("bob"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("p@ss:w/o@rd"));
        assert_eq!(full.to_string(), "http://[::1]:8332");
        assert_eq!(rpc("http://al@node_1.lan:1").user.as_deref(), Some("al"));
        assert_eq!(rpc("http://:x@h:1").user.as_deref(), Some(""));
    }

    #[test]
    fn pools_are_taken_apart() {
        let pool = |text: &str| match text.parse() {
            Ok(SourceSpec::Pool(url)) => url,
            other => panic!("{text}: {other:?}"),
        };
        let plain = pool("stratum+tcp://pool.lan:3333");
        assert_eq!((plain.tls, plain.host.as_str(), plain.port), (false, "pool.lan", 3333));
        assert_eq!((plain.user.as_ref(), plain.password.as_ref()), (None, None));
        let full = pool("Stratum+SSL://bc1q.worker:hunter2@[fe80::1]:443#xnsub");
        assert_eq!((full.tls, full.host.as_str(), full.port), (true, "fe80::1", 443));
        assert_eq!(full.user.as_deref(), Some("bc1q.worker"));
        assert_eq!(full.password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert_eq!(SourceSpec::Pool(full.clone()).to_string(), "stratum+tls://[fe80::1]:443");
        assert!(!format!("{full:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = rpc("http://bob:hunter2@h:1");
        assert!(!format!("{url:?} {url} {}", SourceSpec::Rpc(url.clone())).contains("hunter2"));
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
        assert_eq!("signet".parse(), Ok(SourceSpec::LocalNode(Network::Signet)));
        assert_eq!("testnet3".parse(), Ok(SourceSpec::LocalNode(Network::Testnet)));
        assert_eq!("builtin".parse(), Ok(SourceSpec::Builtin));
        for word in Params::all().iter().map(|params| params.name) {
            assert_eq!(word.parse::<SourceSpec>().unwrap().to_string(), word);
        }
    }
}
