//! What outlives a connection, and is lent to each for its time.

use std::time::Instant;

use super::config::Config;
use super::health::Health;
use super::profile::Profile;
use super::session::Session;
use crate::source::pool::share_limiter::ShareLimiter;

/// The state of a pool that outlives its connections.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) profile: Profile,
    pub(super) session: Session,
    pub(super) health: Health,
    pub(super) share_limiter: ShareLimiter,
}

impl PoolState {
    /// Before the first connection.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            profile: Profile::new(config),
            session: Session::default(),
            health: Health::new(&config.timing),
            share_limiter: ShareLimiter::new(Instant::now()),
        }
    }
}
