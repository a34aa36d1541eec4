//! A node's JSON-RPC, as the command line names it: by its address, or by its chain where it is the local
//! node of that chain.

use bitcoin::Network;

use super::address::{Hints, url};
use super::{
    LoginOptions, NodeArgs, Place, Protocol, RpcLogin, Scheme, SourceOptions, SourceSpec, Terms,
};
use crate::chain::params::Params;
use crate::exit::Failure;
use crate::source::block_schedule::Pace;
use crate::source::failover::Make;
use crate::source::getblocktemplate::{
    Config, Credentials, GetBlockTemplate, local_endpoint, local_login,
};
use crate::source::net::Endpoint;

pub(super) static PROTOCOL: Protocol = Protocol {
    called: "a node",
    help: "`http://[USER[:PASS]@]HOST:PORT`, a node's JSON-RPC; or `regtest`, `signet`, `testnet4`, \
           `testnet3` or `main`, the local node of that chain with its default port and cookie file",
    words: || Params::all().iter().map(|params| params.name).collect(),
    words_form: Some(
        "one of regtest, signet, testnet4, testnet3, main for the local node of that chain",
    ),
    schemes: &[Scheme::of("http")],
    url_forms: &["http://[USER[:PASS]@]HOST:PORT"],
    url: |rest, scheme| url(rest, scheme, &HINTS),
    refused_schemes: &[(
        "https",
        "adit does not speak TLS to a node",
        Some("use http:// to a node on this machine or through a tunnel"),
    )],
    other_words: &[
        (
            &["bitcoin", "mainnet", "btc", "livenet"],
            "did you mean main, the local node of the main chain?",
        ),
        (&["testnet", "test"], "did you mean testnet4 or testnet3?"),
        (
            &["bitcoind", "node", "localhost", "local", "core", "rpc"],
            "write which chain the local node is on: regtest, signet, testnet4, testnet3 or main; or \
             its address: http://127.0.0.1:18443",
        ),
    ],
    has_shares: false,
    login: Some(LoginOptions {
        peer: "node",
        options: &["rpc-cookie", "rpc-user", "rpc-password"],
    }),
    make,
};

const HINTS: Hints = Hints {
    path: "mining needs no wallet: omit the path",
    ports: "nodes listen on 8332 (main), 18332 (testnet3), 48332 (testnet4), 38332 (signet) and 18443 \
            (regtest) unless told otherwise",
    ipv6: "http://[::1]:18443",
};

/// Where a node listens, and how to log in to it.
#[derive(Clone, Debug)]
pub struct NodeAt {
    /// Its JSON-RPC.
    pub endpoint: Endpoint,
    /// How to log in.
    pub credentials: Credentials,
    /// The chain that it must be on, where one was named.
    pub network: Option<Network>,
}

impl NodeAt {
    /// The node that `spec` names; `None` where that names no node.
    ///
    /// # Errors
    /// When there is no login, or when the local node's files are of no use.
    pub fn of(spec: &SourceSpec, args: &NodeArgs) -> Result<Option<Self>, Failure> {
        if !std::ptr::eq(spec.protocol(), &raw const PROTOCOL) {
            return Ok(None);
        }
        Self::at(spec.place(), args).map(Some)
    }

    fn at(place: &Place, args: &NodeArgs) -> Result<Self, Failure> {
        let datadir = args.datadir.as_deref();
        let (endpoint, network) = match place {
            Place::Url(url) => (url.endpoint.clone(), None),
            Place::Word(chain) => {
                let params = Params::from_name(chain).expect("the words are the chains' names");
                (local_endpoint(params.network, datadir)?, Some(params.network))
            }
        };
        let credentials = match args.login(place.url())? {
            RpcLogin::Password { user, password } => Credentials::UserPassword { user, password },
            RpcLogin::Cookie(file) => Credentials::Cookie(vec![file]),
            RpcLogin::Discover { datadir } => local_login(&endpoint, network, datadir.as_deref())?,
        };
        Ok(Self { endpoint, credentials, network })
    }
}

fn make(place: &Place, options: &SourceOptions, terms: &Terms) -> Result<Make, Failure> {
    let journal = terms.journal.open()?;
    let NodeAt { endpoint, credentials, network } = NodeAt::at(place, &options.node)?;
    let config = Config {
        endpoint,
        credentials,
        network,
        address: terms.address.clone(),
        text: terms.text.clone(),
        version_rolling: terms.version_rolling,
        pace: Pace::new(terms.every, terms.on_transaction),
    };
    Ok(Box::new(move || Box::new(GetBlockTemplate::new(config.clone(), journal.clone()))))
}
