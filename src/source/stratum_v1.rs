//! A Stratum V1 pool, proxy or solo server.
//!
//! One task, with one connection at a time. `client` connects again and again; `pool_state` is what
//! outlives a connection, and is lent to each; `connection` is one of them.
//! docs/STRATUM_DIALECTS.md says how pools differ, and what is done about it.

mod client;
mod config;
mod connection;
pub(crate) mod difficulty;
mod health;
mod job_table;
pub(crate) mod line;
pub(crate) mod message;
mod pool_state;
mod profile;
mod quirks;
mod reject;
mod session;
mod version_bits;
pub(crate) mod work;

pub use self::config::{Config, Timing};
pub use self::difficulty::{DifficultyError, target_of};
pub use self::line::LINE_MAX;

use self::client::Client;
use super::{Run, Source};
use crate::engine::Port;

/// A pool as a source.
#[derive(Debug)]
pub struct StratumV1 {
    config: Config,
}

impl StratumV1 {
    /// A source that mines on this pool.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Source for StratumV1 {
    fn name(&self) -> String {
        let scheme = if self.config.transport.uses_tls() { "stratum+tls" } else { "stratum+tcp" };
        format!("{scheme}://{}", self.config.endpoint)
    }

    fn kind(&self) -> &'static str {
        "stratum_v1"
    }

    fn run(self: Box<Self>, port: Port) -> Run {
        let name = self.name();
        Box::pin(async move { Client::new(self.config, name, port).run().await })
    }
}
