//! Turns lanes of a vector into hits.

use std::ops::ControlFlow;

use crate::scan::Hit;

/// The nonces and the midstate that a digest belongs to.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub midstate: usize,
    /// Nonce of lane 0.
    pub nonce: u32,
    /// A bit for each lane whose nonce is within the range.
    pub lanes: u32,
}

/// A bit for each lane in use, of `count` lanes, when `left` nonces (at least one) remain.
#[inline]
pub(super) fn lane_bits(left: u64, count: u32) -> u32 {
    let used = left.min(count.into()) as u32;
    u32::MAX >> (32 - used)
}

/// Reports the hits of one vector. Not inlined, since at real difficulties it is hardly ever called.
#[cold]
#[inline(never)]
pub(super) fn report(
    at: Pending,
    mut hits: u32,
    found: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> ControlFlow<()> {
    while hits != 0 {
        found(Hit { midstate: at.midstate, nonce: at.nonce + hits.trailing_zeros() })?;
        hits &= hits - 1;
    }
    ControlFlow::Continue(())
}
