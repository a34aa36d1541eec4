//! Where jobs come from and solutions go: a module for each protocol, none of which knows of hashing.
//!
//! A source of one's own publishes jobs and judges what is found. This one wants a single regtest block on
//! top of the genesis block:
//!
//! ```
//! use std::sync::Arc;
//!
//! use adit::bitcoin::{Network, TxMerkleNode, block::Header, constants, hashes::Hash as _};
//! use adit::engine::{Engine, Goal};
//! use adit::event::Announcer;
//! use adit::job::{Job, JobKey, Verdict};
//! use adit::scan::cpu::{self, CpuFeatures, CpuScanner};
//! use adit::source::{Refused, Run, Source, SourceError};
//!
//! struct OneBlock;
//!
//! impl Source for OneBlock {
//!     fn name(&self) -> String {
//!         "one block".to_owned()
//!     }
//!
//!     fn kind(&self) -> &'static str {
//!         "example"
//!     }
//!
//!     fn run(self: Box<Self>, mut port: adit::engine::Port) -> Run {
//!         Box::pin(async move {
//!             port.started(Some(Network::Regtest));
//!             let genesis = constants::genesis_block(Network::Regtest).header;
//!             let header = Header {
//!                 prev_blockhash: genesis.block_hash(),
//!                 merkle_root: TxMerkleNode::from_byte_array([1; 32]),
//!                 time: genesis.time + 1,
//!                 ..genesis
//!             };
//!             let key = JobKey { connection: 0, number: 1 };
//!             let job = Job::of_header(key, &header).map_err(|error| {
//!                 SourceError::new(Refused::BySource, "the header", error.to_string())
//!             })?;
//!             port.publish(job);
//!             // It ends when the engine stops. Each solution gets one verdict.
//!             while let Some(solution) = port.solution().await {
//!                 assert_eq!(solution.header.prev_blockhash, genesis.block_hash());
//!                 port.verdict(&solution, Verdict::Accepted);
//!             }
//!             Ok(())
//!         })
//!     }
//! }
//!
//! let kernel = cpu::best_kernel(CpuFeatures::detected());
//! let scanner = Arc::new(CpuScanner::new(kernel, 1)?);
//! let source = Box::new(OneBlock);
//! // Events can be listened to as they happen; this example does not.
//! let (announcer, _events) = Announcer::new();
//! let (engine, port) =
//!     Engine::start(vec![scanner], source.info(), Goal::default(), announcer)?;
//! let (mut status, control) = (engine.status(), engine.control());
//!
//! // Sources run on one thread of tokio's; the engine has threads of its own.
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let (ended, stopped) = runtime.block_on(async {
//!     let stop_after_a_block = async {
//!         let status = status.wait_for(|status| status.blocks.accepted > 0).await?;
//!         assert!(status.sources[0].is_mined && status.hashes > 0);
//!         control.stop();
//!         Ok::<(), tokio::sync::watch::error::RecvError>(())
//!     };
//!     tokio::join!(source.run(port), stop_after_a_block)
//! });
//! ended?;
//! stopped?;
//! let summary = engine.finish();
//! assert_eq!((summary.blocks.accepted, summary.blocks.total()), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Goal`](crate::engine::Goal) stops a run after a number of blocks or shares by itself.

mod backoff;
pub mod block_schedule;
pub mod builtin;
mod connection_state;
pub mod failover;
pub mod getblocktemplate;
pub mod net;
pub mod node_reject;
mod pool;
pub mod stratum_v1;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::engine::{Port, SourceInfo};

/// Said where no pay-out address was given and none is needed.
const NO_ADDRESS: &str = "no --address: the coins go where anyone can spend them";
/// The reason of the state that is announced where a source connects again because
/// [`crate::engine::Control::reconnect`] asks for it.
const RECONNECT_REQUESTED: &str = "a reconnect was requested";

/// What a source's run comes to.
pub type Run = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send>>;

/// Something that speaks a protocol: it publishes jobs to its port and answers each solution that
/// comes out of it with a verdict.
pub trait Source: Send {
    /// How a person names it: without secrets.
    fn name(&self) -> String;

    /// The protocol that it speaks, as the status names it: one word.
    fn kind(&self) -> &'static str;

    /// What the engine is to know of it.
    fn info(&self) -> SourceInfo {
        SourceInfo::new(self.name(), self.kind())
    }

    /// Runs until the port has no more solutions (then it is time to go) or the source is of no
    /// use for good. What goes wrong in passing is announced and tried again.
    fn run(self: Box<Self>, port: Port) -> Run;
}

/// What kind of end a [`SourceError`] is; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What we were told does not do: exit code 2.
    Configuration,
    /// The source will not have us: exit code 4.
    BySource,
    /// It failed while running: exit code 1.
    Failure,
}

/// Why a source cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SourceError {
    /// What kind of end this is.
    pub refused: Refused,
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl SourceError {
    /// An error without a hint.
    pub fn new(refused: Refused, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { refused, what: what.into(), why: why.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
