//! Stratum V1 against a pool that the tests script: dialects, faults, and the accounts.

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
