//! What every pool protocol needs, whatever it writes to the wire: the shares in flight, a limit on how
//! many are sought, and a way to tell a pool that answers none or refuses all.

pub(super) mod in_flight;
pub(super) mod responsiveness;
pub(super) mod share_limiter;
