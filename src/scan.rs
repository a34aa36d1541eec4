//! The hashing core: what every scanner is handed, and the SHA-256d facts that all kernels share.
//!
//! A block header is 80 bytes, so SHA-256 reads it in two 64-byte blocks (FIPS 180-4 §5.2.1). The
//! first holds the version, the previous block hash and 28 bytes of the merkle root; the second
//! the merkle root's last 4 bytes, nTime, nBits, the nonce, and padding. The state after the first
//! block is the *midstate*: it is computed once and serves 2^32 nonces. Rolling the version changes
//! the midstate and leaves the second block alone, so several midstates can share one message
//! schedule.

mod backend;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(not(feature = "gpu"))]
#[path = "scan/no_gpu.rs"]
pub mod gpu;
mod kernel;
mod rest;
mod self_test;
pub mod sha256;
mod throttle;
mod work;

pub use self::backend::{BackendError, BackendId, BackendInfo, Feed, Scanner};
pub use self::kernel::{
    Hit, HitMask, Kernel, MAX_MIDSTATES, Midstate, NonceRange, Scan, SecondBlock,
};
pub use self::throttle::{SharedThrottle, Throttle};
pub use self::work::{Candidate, WorkTemplate, WorkUnit};
