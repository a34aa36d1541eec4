//! Stratum V1 against a pool that the tests script: dialects, faults, and the accounts.

mod accounting;
mod blocks;
mod cli;
mod deaf;
mod dialects;
mod faults;
mod habits;
mod miner;
mod recovery;
mod replay;
