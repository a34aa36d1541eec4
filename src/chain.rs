//! Consensus facts: what a header, a target, a coinbase and a block are.

pub mod block;
pub mod coinbase;
pub mod commitment;
pub mod merkle;
pub mod min_difficulty;
pub mod params;
pub mod payout;
pub mod subsidy;
pub mod target;
pub mod version;
