//! What outlives a connection, and is lent to each for its time.
//!
//! A connection borrows it and does not report at its end what it has learned, since most of it has to hold
//! at once, and however the connection ends: an optional request that the pool refused is not sent again in
//! the same handshake, a share limit moves with each share, a session's queue is emptied by the login, a
//! verdict is looked up in the table of jobs. A copy that is merged afterwards would be a second truth until
//! then. Each of the four parts has its own file and methods, which know nothing of connections; the client
//! touches them only while there is none. What a connection tells the client, and holds for one time only, is
//! its [`super::connection::Outcome`].

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
