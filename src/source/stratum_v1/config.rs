//! What a pool is mined with: address, worker, timeouts and limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;
use crate::source::net::{Endpoint, Transport};

/// Which pool to mine on, as which worker, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the pool listens.
    pub endpoint: Endpoint,
    /// How it is reached: whether by TLS, and by which proxy.
    pub transport: Transport,
    /// The worker's name.
    pub user: String,
    /// The worker's password; most pools ignore it.
    pub password: Secret,
    /// Whether the version may be rolled.
    pub version_rolling: bool,
    /// A difficulty to ask the pool for, as a decimal number.
    pub suggest_difficulty: Option<String>,
    /// The directory in which what was learned about pools is kept for the next run; without one it is
    /// kept for this run alone.
    pub quirks_dir: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

/// Timeouts and limits. The defaults are for use; tests set shorter ones.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Until the answer to `mining.configure`; after that the handshake goes on without it.
    pub configure: Duration,
    /// Until the answer to `mining.subscribe`; doubled each time that none came, up to eight times.
    pub subscribe: Duration,
    /// Until the answer to `mining.authorize`; after that the login is assumed to be accepted.
    pub authorize: Duration,
    /// From the login to the first job.
    pub first_job: Duration,
    /// Without any message from the pool.
    pub silence: Duration,
    /// Until the answer to a share; after that its verdict is unknown.
    pub answer: Duration,
    /// How many shares in a row, the first of them sent how long ago, a pool may leave unanswered before
    /// it is left: it may be dropping all of them.
    pub unanswered_shares: (u32, Duration),
    /// How many shares in a row, over how long, a pool may refuse before it is left.
    pub refused: (u32, Duration),
    /// How long a pool that was left for one of these two is not reported healthy, unless it answers, or
    /// accepts, a share before; doubled each time.
    pub fault_cooldown: Duration,
    /// While the pool reads nothing of what is sent.
    pub write: Duration,
    /// How long the last job is mined without a connection, where the pool resumes sessions.
    pub gap: Duration,
    /// Until the last answers, where the pool asks for a new connection.
    pub leave: Duration,
    /// How long an optional request is skipped that the pool did not cope with.
    pub skip_for: Duration,
    /// The shortest and the longest wait between two attempts to connect.
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
