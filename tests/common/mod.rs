//! What the black-box tests share: a real node, a scripted one, the real binary, and a plain client.
//!
//! Nothing in here uses adit's own code: it is what adit is judged by.

#![allow(dead_code, reason = "each test file uses its own part of this module")]

pub mod adit;
pub mod baseline;
pub mod block;
pub mod datum;
pub mod kernels;
pub mod microsocks;
pub mod node;
pub mod pool;
pub mod promised;
pub mod relay;
pub mod rpc;
pub mod scripted;
pub mod stunnel;
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
