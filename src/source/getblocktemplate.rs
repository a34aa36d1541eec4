//! A Bitcoin node's `getblocktemplate` and `submitblock`.
//!
//! Several connections, so that nothing waits behind anything else: one submits blocks (and brings
//! the next template in the same batch, which is what makes a regtest chain grow quickly), one
//! refreshes the template, two watch the tip (see [`tip`]). There are no longpolls: a node goes on
//! serving one, with an RPC thread of its own, when its client has gone.

mod bounded;
mod clocks;
pub(crate) mod conf;
mod fetch;
mod local;
mod mempool;
mod mining_info;
mod pacer;
mod proposal;
mod rpc;
mod session;
mod stall;
mod standing;
pub(crate) mod submission;
mod template;
mod tip;
mod trouble;
mod waiting;
mod zmq;
pub(crate) mod zmtp;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::address::{Address, NetworkUnchecked};
use bitcoin::{BlockHash, CompactTarget, Network};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::sleep_until;

pub use self::local::{local_endpoint, local_login};
pub use self::mining_info::{MiningInfo, Side};
pub use self::rpc::{Credentials, Endpoint, Rpc, RpcError};
pub use self::template::{Payout, Ready, Template, TemplateError, read_answer};

use self::clocks::Clocks;
use self::mempool::MempoolWatch;
use self::pacer::{Pacer, Wanted};
use self::proposal::Proposals;
use self::rpc::Envelope;
use self::standing::Standing;
use self::waiting::WaitingBlocks;
use super::block_schedule::{Pace, skipped_notice};
use super::{NO_ADDRESS, Refused, Run, Source, SourceError, refusals};
use crate::chain::block;
use crate::chain::coinbase::CoinbaseText;
use crate::chain::min_difficulty::{Stage, bip94_earliest};
use crate::chain::params::Params;
use crate::chain::payout::{PayoutError, PayoutScript};
use crate::engine::{Port, ReportedBlock};
use crate::job::{JobKey, MerkleRoot, Solution, Verdict};
use crate::journal::{EntryId, Fate, Found, Journal};
use crate::printable::printable;

/// The largest template that is read: a block's 4 million weight units are at most 8 MB of hex, and
/// the names and hashes of the 16,666 smallest transactions 4 MB.
const TEMPLATE_BYTES: usize = 16 << 20;
/// The largest other answer that is read.
const ANSWER_BYTES: usize = 1 << 20;
/// How long a node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a node may take for a small question aside: a solution may be waiting meanwhile.
const ASIDE: Duration = Duration::from_secs(5);
/// How long a template must have been mined before the tip is watched: on a chain that grows by our
/// own blocks none is, and the watch costs nothing.
const LASTING: Duration = Duration::from_millis(500);
/// How often the template is fetched again for new transactions. Nodes cache theirs for 5 s.
const REFRESH: Duration = Duration::from_secs(10);
/// How old a job may grow before it is replaced for the sake of its nTime alone.
const NTIME_AGE: Duration = Duration::from_secs(60);
/// How long the last template is mined on while the node is away. What is found is kept and sent
/// when it is back.
const MINE_WITHOUT_NODE: Duration = Duration::from_secs(60);
/// How long a node that has just been started may be without its cookie, where it is not known to
/// have been started.
const COOKIE_IS_WRITTEN: Duration = Duration::from_secs(1);
/// The same of a node that was seen not to be up.
const COOKIE_IS_WRITTEN_SURELY: Duration = Duration::from_secs(10);
/// The waits between tries, doubled from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same for a node on this machine, which costs nothing to ask.
const LOCAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// How often there is a look around while no block is owed.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How often it is said that block time is too far ahead of the clock.
const SAY_AHEAD: Duration = Duration::from_secs(600);
/// The waits before a height is tried again on which the node refused our block.
const SETBACK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Templates larger than this are read on another thread, so that a solution need not wait.
const READ_ASIDE_BYTES: usize = 64 << 10;

/// What to mine on a node, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node listens.
    pub endpoint: Endpoint,
    /// How we prove who we are.
    pub credentials: Credentials,
    /// The chain that the node must be on, where that was said.
    pub network: Option<Network>,
    /// Who is paid; only on regtest may it be nobody in particular.
    pub address: Option<Address<NetworkUnchecked>>,
    /// What stands in the coinbase.
    pub text: CoinbaseText,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// At what pace, on a test chain; `None` is as fast as can be.
    pub pace: Option<Pace>,
}

impl Config {
    /// A client of the node.
    fn client(&self) -> Rpc {
        Rpc::new(self.endpoint.clone(), self.credentials.clone())
    }
}

/// The source.
#[derive(Debug)]
pub struct GetBlockTemplate {
    config: Config,
    journal: Arc<Journal>,
}

impl GetBlockTemplate {
    /// Mines on a node; found blocks go through `journal`.
    #[must_use]
    pub fn new(config: Config, journal: Arc<Journal>) -> Self {
        Self { config, journal }
    }
}

impl Source for GetBlockTemplate {
    fn name(&self) -> String {
        format!("http://{}", self.config.endpoint)
    }

    fn run(self: Box<Self>, port: Port) -> Run {
        let name = if self.config.endpoint.is_loopback() {
            format!("http://127.0.0.1:{}", self.config.endpoint.port)
        } else {
            self.name()
        };
        Box::pin(async move {
            let local = self.config.endpoint.is_loopback();
            let backoff = Backoff::new(if local { LOCAL_BACKOFF } else { BACKOFF });
            let pacer = Pacer::new(self.config.pace);
            let submit = self.config.client();
            let mut session = Session {
                keeper: Keeper { journal: self.journal, name, network: "" },
                config: self.config,
                port,
                submit,
                unanswered: Vec::new(),
                connection: 0,
                jobs: 0,
                current: None,
                setbacks: 0,
                batches: true,
                standing: Standing::new(),
                backoff,
                renewed: Instant::now(),
                begun: Instant::now(),
                unreachable: None,
                params: None,
                tip_time: None,
                stage: None,
                pacer,
                proposals: Proposals::default(),
                clocks: Clocks::now(),
                said_ahead: None,
                known_tips: Vec::new(),
                kept_templates: Kept::Taken,
                waiting: WaitingBlocks::default(),
                earlier: Vec::new(),
                asked_journal: false,
            };
            let outcome = session.run().await;
            if let Err(error) = session.keeper.journal.flush() {
                session.port.notice(error.to_string());
            }
            outcome
        })
    }
}

/// A block that was sent, or will be as soon as that can be done, and has no answer.
#[derive(Debug)]
struct Unanswered {
    solution: Solution,
    block_hex: String,
    entry: Option<EntryId>,
}

/// The template that is mined.
#[derive(Debug)]
struct Current {
    previous_block_hash: BlockHash,
    fingerprint: template::Fingerprint,
    published: Instant,
    /// When the twenty-minute rule makes another template of it.
    until: Option<Instant>,
}

impl Current {
    /// Whether it is older than one of a chain that is just growing.
    fn has_lasted(&self) -> bool {
        self.published.elapsed() >= LASTING
    }
}

/// What ends mining on one connection.
enum End {
    /// It is time to go.
    Stopped,
    /// The node is gone.
    Lost(String),
}

/// The answers to a batch of `submitblock` and `getblocktemplate`.
type Both<'a, T> = (Envelope<Cow<'a, str>>, T);

/// Makes blocks of solutions and keeps them on disk.
struct Keeper {
    journal: Arc<Journal>,
    /// The node, as the journal names it: one name for each spelling of this machine.
    name: String,
    /// The node's chain.
    network: &'static str,
}

struct Session {
    keeper: Keeper,
    config: Config,
    port: Port,
    submit: Rpc,
    unanswered: Vec<Unanswered>,
    connection: u64,
    jobs: u64,
    current: Option<Current>,
    /// Blocks refused in a row.
    setbacks: u32,
    /// Whether the node takes batches.
    batches: bool,
    /// What was said of the connection.
    standing: Standing,
    /// The wait before the next try, where tries fail.
    backoff: Backoff,
    /// When the node last gave a template.
    renewed: Instant,
    /// When all began.
    begun: Instant,
    /// When the node was last seen not to be up.
    unreachable: Option<Instant>,
    /// The facts of the node's chain.
    params: Option<&'static Params>,
    /// The nTime of a block that templates build on, on chains where it makes a difference.
    tip_time: Option<(BlockHash, u32)>,
    /// Which difficulty is said to be mined, and its bits.
    stage: Option<(Stage, CompactTarget)>,
    /// Whether a block is owed.
    pacer: Pacer,
    /// Whether the node would take our blocks.
    proposals: Proposals,
    /// The clocks at the last look.
    clocks: Clocks,
    /// When it was last said that block time is too far ahead of the clock.
    said_ahead: Option<Instant>,
    /// What the tip may be without another having made it: the last template's, and our own block.
    known_tips: Vec<BlockHash>,
    /// Whether templates may be ones that the node has kept.
    kept_templates: Kept,
    /// Blocks that the node could not judge yet.
    waiting: WaitingBlocks,
    /// Blocks of earlier runs that may have to be sent again.
    earlier: Vec<EntryId>,
    /// Whether the journal was asked for them.
    asked_journal: bool,
}

/// What went wrong: for good, or for now.
enum Trouble {
    Final(SourceError),
    Passing(String),
}

/// What is thought of a template that the node has kept from an earlier call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It is as good as a new one.
    Taken,
    /// Its time was too far ahead: the node's clock was set back since.
    Distrusted,
}

/// What follows a submitted block.
enum Next {
    /// The template that came with the answer.
    Template(Box<Ready>),
    /// A template is to be fetched, this much later.
    FetchIn(Duration),
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Over,
    Stopped,
}

/// Waits that double.
struct Backoff {
    range: (Duration, Duration),
    tries: u32,
}

impl Backoff {
    const fn new(range: (Duration, Duration)) -> Self {
        Self { range, tries: 0 }
    }

    fn next(&mut self) -> Duration {
        self.tries += 1;
        doubled(self.range, self.tries - 1)
    }

    /// Begins again with the first wait.
    fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The first wait doubled `times` times, and never more than the last.
fn doubled((first, last): (Duration, Duration), times: u32) -> Duration {
    last.min(first * 2u32.saturating_pow(times.min(16)))
}
