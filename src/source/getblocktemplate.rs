//! A Bitcoin node's `getblocktemplate` and `submitblock`.
//!
//! There are several connections, so that nothing waits behind anything else: one submits blocks
//! (and fetches the next template in the same batch, which is what makes a regtest chain grow
//! quickly), one refreshes the template, two watch the tip (see `tip`). There are no longpolls: a
//! node goes on serving one, with an RPC thread of its own, when its client has gone.
//!
//! `client` is the loop that mines on a node, `submission` takes a solution to its verdict,
//! `template` makes a job of a template, and `calls` has the RPC calls.

mod bounded;
mod calls;
mod client;
mod clocks;
pub(crate) mod conf;
mod fetch;
mod limits;
mod local;
mod mempool;
mod min_difficulty;
mod mining_info;
mod node_error;
mod node_state;
mod pacer;
mod payout;
mod proposal;
mod publisher;
mod resubmit;
mod rpc;
mod slow_node;
mod submission;
mod template;
mod tip;
pub(crate) mod verdict;
mod zmq;
pub(crate) mod zmtp;

use std::sync::Arc;

use bitcoin::Network;
use bitcoin::address::{Address, NetworkUnchecked};

pub use self::local::{local_endpoint, local_login};
pub use self::mining_info::{MiningInfo, Side};
pub use self::rpc::{Credentials, Endpoint, Rpc, RpcError};
pub use self::template::{Payout, PreparedTemplate, Template, TemplateError, parse_template};

use self::client::Client;
use self::submission::Submitter;
use super::block_schedule::Pace;
use super::{Run, Source};
use crate::chain::coinbase::CoinbaseText;
use crate::engine::Port;
use crate::journal::Journal;

/// What to mine on a node, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node listens.
    pub endpoint: Endpoint,
    /// How adit logs in.
    pub credentials: Credentials,
    /// The chain that the node must be on, if one was named.
    pub network: Option<Network>,
    /// Who is paid. Without one, blocks of regtest pay to a script that anyone can spend, and other
    /// chains are refused.
    pub address: Option<Address<NetworkUnchecked>>,
    /// The text in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// The pace at which blocks are wanted, on a test chain; `None` means as fast as possible.
    pub pace: Option<Pace>,
}

/// A node as a source of jobs: its block templates are mined, and found blocks are submitted to it.
#[derive(Debug)]
pub struct GetBlockTemplate {
    config: Config,
    journal: Arc<Journal>,
}

impl GetBlockTemplate {
    /// Mines on a node; found blocks are recorded in `journal` before they are submitted.
    #[must_use]
    pub fn new(config: Config, journal: Arc<Journal>) -> Self {
        Self { config, journal }
    }
}

impl Source for GetBlockTemplate {
    fn name(&self) -> String {
        format!("http://{}", self.config.endpoint)
    }

    fn kind(&self) -> &'static str {
        "getblocktemplate"
    }

    fn run(self: Box<Self>, port: Port) -> Run {
        let endpoint = &self.config.endpoint;
        let name_in_journal = if endpoint.is_loopback() {
            format!("http://127.0.0.1:{}", endpoint.port)
        } else {
            self.name()
        };
        let rpc = Rpc::new(endpoint.clone(), self.config.credentials.clone());
        let submitter = Submitter::new(self.journal, name_in_journal, rpc);
        Box::pin(Client::new(self.config, submitter, port).run())
    }
}
