//! A Stratum V1 pool or proxy, as the command line names it.

use super::address::{Hints, url};
use super::{LoginOptions, Place, PoolLogin, Protocol, Scheme, SourceOptions, Terms};
use crate::exit::{Exit, Failure};
use crate::source::block_schedule::Pace;
use crate::source::failover::Make;
use crate::source::stratum_v1::{Config, StratumV1, Timing};

const TLS: &str = "stratum+tls";

pub(super) static PROTOCOL: Protocol = Protocol {
    called: "a pool",
    help: "`stratum+tcp://[USER[:PASS]@]HOST:PORT`, a Stratum V1 pool or proxy (`stratum+tls` where it \
           speaks TLS)",
    words: Vec::new,
    words_form: None,
    schemes: &[Scheme::of("stratum+tcp"), Scheme { name: TLS, aliases: &["stratum+ssl"] }],
    url_forms: &["stratum+tcp://HOST:PORT", "stratum+tls://HOST:PORT"],
    url: |rest, scheme| {
        // Other miners want this said; we ask every pool for changes of the extranonce.
        url(rest.strip_suffix("#xnsub").unwrap_or(rest), scheme, &HINTS)
    },
    refused_schemes: &[
        (
            "stratum",
            "it does not say how the pool is reached",
            Some("write stratum+tcp:// or, for encryption, stratum+tls://"),
        ),
        ("stratum2+tcp", "Stratum V2 pools are not in this version", None),
    ],
    other_words: &[(
        &["pool", "stratum", "stratum+tcp"],
        "write the pool's address: stratum+tcp://HOST:PORT",
    )],
    has_shares: true,
    login: Some(LoginOptions { peer: "pool", options: &["user", "password"] }),
    make,
};

const HINTS: Hints = Hints {
    path: "a pool's address ends with the port",
    ports: "each pool has its own; 3333 is a usual one",
    ipv6: "stratum+tcp://[::1]:3333",
};

fn make(place: &Place, options: &SourceOptions, terms: &Terms) -> Result<Make, Failure> {
    if let Some(pace) = Pace::new(terms.every, terms.on_transaction) {
        let why = "a pool's jobs are mined as they come";
        return Err(Failure::new(Exit::Usage, pace.options(), why)
            .hint("the pace is for regtest and for signets that need no signature"));
    }
    let Place::Url(url) = place else {
        return Err(Failure::new(Exit::Usage, "source", "a pool needs an address"));
    };
    let PoolLogin { user, password } = options.pool.login(url)?;
    let transport = options.pool.transport()?;
    let config = Config {
        endpoint: url.endpoint.clone(),
        transport: if url.scheme == TLS { transport.tls() } else { transport },
        user,
        password,
        version_rolling: terms.version_rolling,
        suggest_difficulty: options.pool.suggest_difficulty.clone(),
        quirks_dir: crate::dirs::cache_dir(),
        timing: Timing::default(),
    };
    Ok(Box::new(move || Box::new(StratumV1::new(config.clone()))))
}
