//! What the black-box tests share: a real node, a scripted one, the real binary, and a plain client.
//!
//! Nothing in here uses adit's own code: it is what adit is judged by.

#![allow(dead_code, reason = "each test file uses its own part of this module")]

#[path = "common/adit.rs"]
pub mod adit;
#[path = "common/baseline.rs"]
pub mod baseline;
#[path = "common/block.rs"]
pub mod block;
#[path = "common/datum.rs"]
pub mod datum;
#[path = "common/kernels.rs"]
pub mod kernels;
#[path = "common/microsocks.rs"]
pub mod microsocks;
#[path = "common/node.rs"]
pub mod node;
#[path = "common/pool.rs"]
pub mod pool;
#[path = "common/promised.rs"]
pub mod promised;
#[path = "common/relay.rs"]
pub mod relay;
#[path = "common/rpc.rs"]
pub mod rpc;
#[path = "common/scripted.rs"]
pub mod scripted;
#[path = "common/stunnel.rs"]
pub mod stunnel;
#[path = "common/tool.rs"]
pub mod tool;

use std::time::{Duration, Instant};

/// Asks again every few milliseconds until `ready` gives something; `None` when `timeout` is over.
pub fn poll<T>(timeout: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
