//! Whether the pool is reported as healthy: it has jobs, and neither leaves all shares unanswered nor
//! refuses all of them.

use std::time::Instant;

use super::config::Timing;
use crate::engine::Port;
use crate::source::connection_state::ConnectionState;
use crate::source::pool::responsiveness::{FaultCooldown, PoolFault, RefusedShares};

/// The pool's health, over all connections.
#[derive(Debug)]
pub(super) struct Health {
    state: ConnectionState,
    cooldown: FaultCooldown,
    pub(super) refused_shares: RefusedShares,
}

impl Health {
    /// Nothing is known yet.
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            state: ConnectionState::default(),
            cooldown: FaultCooldown::new(timing.fault_cooldown),
            refused_shares: RefusedShares::new(timing.refused),
        }
    }

    /// The pool has a job: it is reported as connected, but for a pool that was left for a fault. The
    /// jobs of such a one are mined where there is no better source.
    pub(super) fn has_job(&mut self, port: &Port) {
        port.started(None);
        if !self.cooldown.is_active(Instant::now()) {
            self.state.worked();
            self.state.connected(port);
        }
    }

    /// The pool is left for `fault`: it is not reported as healthy for a while.
    pub(super) fn fault_found(&mut self, fault: PoolFault) {
        self.cooldown.begin(fault, Instant::now());
    }

    /// The pool has shown that it does not have `fault`.
    pub(super) fn fault_cleared(&mut self, fault: PoolFault, port: &Port) {
        if self.cooldown.clear(fault) {
            self.has_job(port);
        }
    }

    /// The connection is lost, or could not be made.
    pub(super) fn lost(&mut self, port: &Port, reason: String) {
        self.state.lost(port, reason);
    }
}
