//! Scanning on graphics cards, through wgpu.

pub mod shader;
