//! Stratum V1 against scripted pools: dialects, faults, and the accounting of shares.

mod accounting;
mod blocks;
mod cli;
mod dialects;
mod faults;
mod miner;
mod quirks;
mod recovery;
mod replay;
mod unresponsive;
