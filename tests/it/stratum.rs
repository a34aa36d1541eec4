//! Stratum V1 against scripted pools: dialects, faults, and the accounting of shares.

mod accounting;
mod blocks;
mod cli;
mod dialects;
mod faults;
pub mod miner;
mod quirks;
mod reconnect;
mod recovery;
mod replay;
mod unresponsive;
