//! Where jobs come from and solutions go: one room a protocol, none of which knows of hashing.

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

use crate::engine::Port;

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
