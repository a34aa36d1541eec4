//! The kernels for x86-64: one file each, and what the vector kernels share (`lanes`, `pending`).

pub(super) mod avx2;
pub(super) mod avx512;
mod lanes;
mod pending;
pub(super) mod sha_ni;
