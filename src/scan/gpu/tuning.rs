//! Which variants a card runs, in which shapes.

use super::adapter::{Gpu, GpuKind};
use super::shader::{Shape, Variant};
use crate::units::HashRate;

/// The shape in which variants are compared.
pub(super) const COMPARISON_SHAPE: Shape = Shape { workgroup_size: 128, nonces_per_invocation: 16 };

/// The same for a software device, which runs all shapes equally fast as long as each invocation has
/// enough to do.
const SOFTWARE_SHAPE: Shape = Shape { workgroup_size: 64, nonces_per_invocation: 64 };

/// A variant in a shape, and its measured rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub variant: Variant,
    pub shape: Shape,
    pub rate: HashRate,
}

/// What a card runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tuning {
    /// For one midstate.
    pub plain: Choice,
    /// Where the version may be rolled; equal to `plain` if several midstates are not faster.
    pub rolled: Choice,
}

/// Every variant, in the shape in which variants are compared on this kind of card.
pub(super) fn candidates(gpu: &Gpu) -> Vec<(Variant, Shape)> {
    let shape = if gpu.kind == GpuKind::Software { SOFTWARE_SHAPE } else { COMPARISON_SHAPE };
    Variant::all().map(|variant| (variant, shape)).collect()
}
