//! A Stratum V1 pool, proxy or solo server.
//!
//! One task, one connection at a time. What is remembered from one connection to the next is in
//! [`session::Session`], what belongs to one of them in [`talk::Talk`]. docs/STRATUM_DIALECTS.md says
//! what pools do differently, and what is done about it.

mod client;
mod connection;
pub(crate) mod difficulty;
mod job_table;
pub(crate) mod line;
pub(crate) mod message;
mod quirks;
mod reject;
mod version_bits;
pub(crate) mod work;

use std::path::PathBuf;
use std::time::Duration;

pub use self::difficulty::{DifficultyError, target_of};
pub use self::line::LINE_MAX;

use self::client::Client;
use super::net::{Endpoint, Transport};
use super::{Run, Source};
use crate::engine::Port;
use crate::secret::Secret;

/// What to mine on a pool, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the pool listens.
    pub endpoint: Endpoint,
    /// How it is reached.
    pub transport: Transport,
    /// The worker's name.
    pub user: String,
    /// The worker's password; most pools ignore it.
    pub password: Secret,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// A difficulty to ask the pool for, as a decimal number.
    pub suggest_difficulty: Option<String>,
    /// The folder in which what was learned of pools is kept for the next run; nowhere if there is
    /// none.
    pub quirks_dir: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

/// How long things may take. The defaults are for use; tests have less patience.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The answer to `mining.configure`; after that it goes on without.
    pub configure: Duration,
    /// The answer to `mining.subscribe`; twice as long each time that none came, up to eight times.
    pub subscribe: Duration,
    /// The answer to `mining.authorize`; after that it is taken for granted.
    pub authorize: Duration,
    /// The first job.
    pub first_job: Duration,
    /// A pool that says nothing at all for so long is left.
    pub silence: Duration,
    /// A share's answer; after that its verdict is unknown.
    pub answer: Duration,
    /// A pool that has left so many shares without an answer, over so long and with no answer to any
    /// in between, is left: it may be throwing all of them away.
    pub unanswered_shares: (u32, Duration),
    /// A pool that has refused so many shares in a row, over so long, is left.
    pub refused: (u32, Duration),
    /// How long such a pool is not taken for well after that, unless it answers a share, or accepts
    /// one.
    pub fault_cooldown: Duration,
    /// Bytes that the pool does not take.
    pub write: Duration,
    /// A lost connection over which the last job is mined on, where the pool resumes sessions.
    pub gap: Duration,
    /// How long last shares are waited for where the pool asks to be connected to anew.
    pub leave: Duration,
    /// How long something optional is left out after a pool took it badly.
    pub skip_for: Duration,
    /// The shortest and the longest wait between two tries.
    pub backoff: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            configure: Duration::from_secs(5),
            subscribe: Duration::from_secs(20),
            authorize: Duration::from_secs(10),
            first_job: Duration::from_secs(60),
            silence: Duration::from_secs(300),
            answer: Duration::from_secs(60),
            unanswered_shares: (8, Duration::from_secs(180)),
            refused: (16, Duration::from_secs(10)),
            fault_cooldown: Duration::from_secs(600),
            write: Duration::from_secs(30),
            gap: Duration::from_secs(15),
            leave: Duration::from_secs(2),
            skip_for: Duration::from_secs(3600),
            backoff: (Duration::from_millis(500), Duration::from_secs(60)),
        }
    }
}

/// The source.
#[derive(Debug)]
pub struct StratumV1 {
    config: Config,
}

impl StratumV1 {
    /// Mines on a pool.
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

    fn run(self: Box<Self>, port: Port) -> Run {
        let name = self.name();
        Box::pin(async move { Client::new(self.config, name, port).run().await })
    }
}
