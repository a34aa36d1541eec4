//! The black-box tests, and those that need a real node, a real pool or a real driver, as one crate: each
//! crate of its own would link the whole program once more.

mod answers;
mod backends;
mod bad_input;
mod bench;
mod command_line;
mod common;
mod companion;
mod estimate;
mod failover;
#[cfg(not(all(feature = "energy", feature = "gpu", feature = "plot")))]
mod features;
// What it tests is in no release build.
#[cfg(debug_assertions)]
mod fuzz;
#[cfg(feature = "gpu")]
mod gpu;
mod grind;
mod harness;
mod journal;
mod layers;
mod limits;
mod mine_builtin;
mod mine_node;
mod node_reject;
mod pace;
mod process;
mod readme;
mod real_server;
mod reconnect;
mod signet;
mod stratum;
mod testnet4;
mod tips;
