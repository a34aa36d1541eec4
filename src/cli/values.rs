//! The values that options take, each a type with its parser.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::address::{Address, NetworkUnchecked};

use super::address::{PoolUrl, RpcUrl};
use crate::chain::coinbase::CoinbaseText;
use crate::chain::params::Params;
use crate::scan::Throttle;
use crate::scan::cpu::KernelName;
use crate::secret::Secret;
use crate::source::stratum_v1::target_of;

/// Why a value is not taken. It never repeats the value: that may hold a secret, and whoever shows
/// the error knows what may be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ValueError {
    /// Why.
    pub why: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ValueError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The one of `known` that looks most like `word`.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Letters that have changed places are one slip, not two; of equals, the one that begins alike.
    let slips = |known: &str| strsim::osa_distance(&word, known);
    let likeness = |known: &str| strsim::jaro_winkler(&word, known);
    known
        .into_iter()
        .min_by(|a, b| slips(a).cmp(&slips(b)).then(likeness(b).total_cmp(&likeness(a))))
}

/// The same, when it looks like a slip and not like another word altogether.
fn slip<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(word, known).filter(|near| strsim::jaro_winkler(&word.to_lowercase(), near) > 0.7)
}

/// `value` without what stands between its scheme and its last `@`: a user name and a password.
#[must_use]
pub fn redact(value: &str) -> String {
    match value.rfind('@') {
        None => value.to_owned(),
        Some(at) => {
            let from = value.find("://").map_or(0, |scheme| scheme + 3).min(at);
            format!("{}***{}", &value[..from], &value[at..])
        }
    }
}

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
    let address = text.rsplit_once('@').map_or(text, |(_, address)| address);
    if let Some((_, port)) = address.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(ValueError::new("the scheme is missing")
            .hint(format!("write http:// before it: http://{}", redact(text))));
    }
    let words = Params::all().iter().map(|params| params.name).chain(["builtin"]);
    Err(match slip(text, words) {
        Some(near) => {
            ValueError::new("there is no such source").hint(format!("did you mean {near}?"))
        }
        None => ValueError::new("there is no such source").hint(SOURCES_HINT),
    })
}

/// How to log in to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcLogin {
    /// With this name and password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// With what stands in this file.
    Cookie(PathBuf),
    /// With the cookie of the node's data directory: this one, or the usual one.
    Discover {
        /// The data directory, where given.
        datadir: Option<PathBuf>,
    },
}

/// How to log in to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLogin {
    /// The worker's name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// Takes a difficulty: a decimal number above 0 that a hash can meet.
///
/// # Errors
/// When it is none.
pub fn difficulty(text: &str) -> Result<String, ValueError> {
    target_of(text).map_err(|error| ValueError::new(error.to_string()))?;
    // As JSON writes numbers: nothing but what a float's own form has.
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok(serde_json::Value::from(number).to_string()),
        _ => Err(ValueError::new("it is no number")),
    }
}

/// A kernel by its name.
fn kernel(text: &str) -> Result<KernelName, ValueError> {
    KernelName::find(text).ok_or_else(|| {
        let why = format!("there is no kernel {text:?}");
        let names: Vec<_> = KernelName::all().map(KernelName::as_str).collect();
        match slip(text, names.iter().copied()) {
            Some(near) => ValueError::new(why).hint(format!("did you mean cpu:{near}?")),
            None => ValueError::new(why).hint(format!("kernels: {}", names.join(", "))),
        }
    })
}

/// One entry of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendSpec {
    /// All there is, with what measures fastest.
    Auto,
    /// All CPU cores: with this kernel, or with the fastest.
    Cpu(Option<KernelName>),
    /// Every real graphics card, or the device of this number.
    Gpu(Option<usize>),
}

impl FromStr for BackendSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("auto", "") if text == "auto" => Ok(Self::Auto),
            ("cpu", "") if text == "cpu" => Ok(Self::Cpu(None)),
            ("cpu", name) => kernel(name).map(|kernel| Self::Cpu(Some(kernel))),
            ("gpu", "") if text == "gpu" => Ok(Self::Gpu(None)),
            ("gpu", number) => number.parse().map(|index| Self::Gpu(Some(index))).map_err(|_| {
                ValueError::new(format!("{number:?} is no number of a device"))
                    .hint("write gpu:0; `adit devices` lists the numbers")
            }),
            _ => {
                let kernels: Vec<_> =
                    KernelName::all().map(|kernel| format!("cpu:{kernel}")).collect();
                let known =
                    ["auto", "cpu", "gpu"].into_iter().chain(kernels.iter().map(String::as_str));
                let why = format!("there is no backend {text:?}");
                Err(match nearest_backend(text, known.clone()) {
                    Some(near) => ValueError::new(why).hint(format!("did you mean {near}?")),
                    None => ValueError::new(why)
                        .hint(format!("backends: {}", known.collect::<Vec<_>>().join(", "))),
                })
            }
        }
    }
}

/// A bare kernel name is the likeliest slip: `avx2` is meant to be `cpu:avx2`.
fn nearest_backend<'a>(
    text: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    known.clone().find(|name| name.strip_prefix("cpu:") == Some(text)).or_else(|| slip(text, known))
}

/// A list of backends, in which no processor or card stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendList(Vec<BackendSpec>);

impl BackendList {
    /// The entries, at least one.
    #[must_use]
    pub fn specs(&self) -> &[BackendSpec] {
        &self.0
    }
}

impl FromStr for BackendList {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let specs: Vec<BackendSpec> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        let count = |wanted: &dyn Fn(&BackendSpec) -> bool| {
            specs.iter().filter(|spec| wanted(spec)).count()
        };
        if count(&|spec| matches!(spec, BackendSpec::Auto | BackendSpec::Cpu(_))) > 1 {
            return Err(ValueError::new("the CPU stands in it more than once")
                .hint("auto and cpu take all cores already; name one kernel at most"));
        }
        if count(&|spec| matches!(spec, BackendSpec::Auto | BackendSpec::Gpu(None))) > 1 {
            return Err(ValueError::new("the graphics cards stand in it more than once")
                .hint("auto and gpu take every card already"));
        }
        if specs.iter().any(|spec| count(&|other| other == spec) > 1) {
            return Err(ValueError::new("a device stands in it more than once"));
        }
        Ok(Self(specs))
    }
}

/// Whether the version field is rolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum VersionRolling {
    /// Where the job allows it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Takes a share of the time, 1 to 100 percent.
///
/// # Errors
/// When it is anything else.
pub fn throttle(text: &str) -> Result<Throttle, ValueError> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    percent
        .and_then(Throttle::percent)
        .ok_or_else(|| ValueError::new("it must be a whole number from 1 to 100"))
}

/// Takes what goes into the coinbase.
///
/// # Errors
/// When it is too long or unprintable.
pub fn coinbase_text(text: &str) -> Result<CoinbaseText, ValueError> {
    CoinbaseText::new(text).map_err(|error| ValueError::new(error.to_string()))
}

/// Takes `90s`, `10m`, `1h30m`, `500ms`: whole numbers, the larger units first.
///
/// # Errors
/// When it is none of these, is zero, or is longer than ten years (no clock is sure to add that).
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    const LONGEST: u64 = 3_650 * 86_400_000;
    let form =
        || ValueError::new("it is no duration").hint("write it like 500ms, 90s, 10m, 2h or 1h30m");
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut total = 0u64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(form());
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() && rest == text && after.is_empty() {
            return Err(ValueError::new("its unit is missing")
                .hint(format!("write {number}s for seconds; m, h, d and ms are known too")));
        }
        let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(form)?;
        total = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(units[position].1))
            .and_then(|milliseconds| milliseconds.checked_add(total))
            .filter(|total| *total <= LONGEST)
            .ok_or_else(|| ValueError::new("it is longer than ten years"))?;
        units = &units[position + 1..];
        rest = after;
    }
    if total == 0 {
        return Err(ValueError::new("it must be longer than zero"));
    }
    Ok(Duration::from_millis(total))
}

/// Takes the name of a command.
///
/// # Errors
/// When there is none of that name.
pub fn command(text: &str) -> Result<String, ValueError> {
    use clap::CommandFactory as _;
    let root = super::Cli::command();
    let mut names = root.get_subcommands().map(clap::Command::get_name);
    if names.any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let why = "there is no such command";
    Err(match slip(text, root.get_subcommands().map(clap::Command::get_name)) {
        Some(near) => ValueError::new(why).hint(format!("did you mean {near}?")),
        None => ValueError::new(why).hint("--help lists what there is"),
    })
}

/// Takes a number of things, at least one.
///
/// # Errors
/// When it is no such number.
pub fn count(text: &str) -> Result<NonZeroU64, ValueError> {
    text.parse().map_err(|_| ValueError::new("it must be a whole number, at least 1"))
}

/// Takes a number of threads.
///
/// # Errors
/// When it is no number, zero, or more than any machine has.
pub fn threads(text: &str) -> Result<NonZeroUsize, ValueError> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= 4_096 => Ok(threads),
        _ => Err(ValueError::new("it must be a whole number from 1 to 4096")),
    }
}

/// Takes an address of any chain; which chain it is of is to be checked against the source.
///
/// # Errors
/// When it is no address.
pub fn address(text: &str) -> Result<Address<NetworkUnchecked>, ValueError> {
    text.parse().map_err(|error: bitcoin::address::ParseError| {
        let lower = text.to_lowercase();
        let segwit = ["bc1", "tb1", "bcrt1"].iter().any(|prefix| lower.starts_with(prefix));
        let why = match (segwit, error) {
            (true, bitcoin::address::ParseError::Bech32(error)) => {
                format!("it is no bitcoin address: {error}")
            }
            _ => "it is no bitcoin address".to_owned(),
        };
        ValueError::new(why).hint("a letter may be wrong or missing: copy it once more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(text: &str) -> RpcUrl {
        match text.parse() {
            Ok(SourceSpec::Rpc(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal<T: FromStr<Err = ValueError> + fmt::Debug>(text: &str) -> String {
        let error = text.parse::<T>().unwrap_err();
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
    fn difficulties_are_numbers_above_0() {
        for (text, sent) in [("1000", "1000.0"), ("0.5", "0.5"), ("1e-9", "1e-9")] {
            assert_eq!(difficulty(text).as_deref(), Ok(sent));
        }
        for text in ["0", "-1", "many", "1e300", "inf", "\"1\"", ""] {
            assert!(difficulty(text).is_err(), "{text}");
        }
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
            ("localhost:18443", "the scheme is missing | write http:// before it"),
            ("regtst", "did you mean regtest?"),
            ("mainnet", "did you mean main?"),
            ("qqqqqq", "a source is http://"),
            ("", "it is empty"),
        ] {
            let refusal = refusal::<SourceSpec>(url);
            assert!(refusal.contains(why), "{url}: {refusal}");
        }
        assert!(!refusal::<SourceSpec>("bob:hunter2@h:1").contains("hunter2"));
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

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("1d1ms", 86_400_001),
            ("0h1s", 1_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1.5h", "1m1m", "1s1h", "1 s", "1h30", "١s", "1s "] {
            assert_eq!(duration(text).unwrap_err().why, "it is no duration", "{text}");
        }
        assert_eq!(duration("90").unwrap_err().why, "its unit is missing");
        assert_eq!(duration("0s").unwrap_err().why, "it must be longer than zero");
        for text in ["99999999999999999999s", "18446744073709551615h", "3651d", "3650d1ms"] {
            assert_eq!(duration(text).unwrap_err().why, "it is longer than ten years", "{text}");
        }
    }

    #[test]
    fn backends() {
        let list = |text: &str| text.parse::<BackendList>().map(|list| list.0);
        assert_eq!(list("auto"), Ok(vec![BackendSpec::Auto]));
        assert_eq!(list("cpu"), Ok(vec![BackendSpec::Cpu(None)]));
        assert_eq!(
            list(" cpu:sha-ni "),
            Ok(vec![BackendSpec::Cpu(Some(kernel("sha-ni").unwrap()))])
        );
        let (cpu, gpu) = (BackendSpec::Cpu(None), BackendSpec::Gpu);
        assert_eq!(list("gpu, cpu"), Ok(vec![gpu(None), cpu]));
        assert_eq!(list("cpu,gpu:0,gpu:1"), Ok(vec![cpu, gpu(Some(0)), gpu(Some(1))]));
        assert_eq!(list("auto,gpu:3"), Ok(vec![BackendSpec::Auto, gpu(Some(3))]));
        for (text, why) in [
            ("gpu:", "\"\" is no number of a device | write gpu:0"),
            ("gpu:-1", "is no number of a device"),
            ("gpu:one", "is no number of a device"),
            ("gpu,gpu", "the graphics cards stand in it more than once"),
            ("auto,gpu", "the graphics cards stand in it more than once"),
            ("gpu:1,cpu,gpu:1", "a device stands in it more than once"),
            ("cpu,cpu:avx2", "more than once"),
            ("auto,cpu", "the CPU stands in it more than once"),
            ("quux", "there is no backend \"quux\" | backends: auto, cpu, gpu, cpu:sha2"),
            ("avx2", "did you mean cpu:avx2?"),
            ("cpu:", "there is no kernel \"\""),
            ("auto:", "there is no backend \"auto:\""),
            ("cpu:avx51", "did you mean cpu:avx512?"),
            ("cpuu", "did you mean cpu?"),
            ("cpu,", "there is no backend \"\""),
            ("", "there is no backend \"\""),
        ] {
            let refusal = refusal::<BackendList>(text);
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(throttle("50%").ok(), Throttle::percent(50));
        assert!(throttle("0").is_err() && throttle("101").is_err());
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert!(threads("0").is_err() && threads("4097").is_err());
        assert!(coinbase_text(&"x".repeat(CoinbaseText::MAX_LEN)).is_ok());
        assert!(coinbase_text(&"x".repeat(CoinbaseText::MAX_LEN + 1)).is_err());
    }

    #[test]
    fn addresses_of_every_kind_are_taken_and_nonsense_is_not() {
        for text in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
            "TB1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KXPJZSX",
        ] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["", "x", "bc1", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "1A1zP1", "ü"] {
            assert!(address(text).unwrap_err().why.starts_with("it is no bitcoin address"));
        }
        assert!(address(&"1".repeat(1 << 16)).is_err());
    }
}
