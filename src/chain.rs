//! Consensus facts: what a header, a target, a coinbase and a block are.
//!
//! A target is a 256-bit number, nBits its form in a header, a difficulty how many times harder it is than
//! that of the genesis block:
//!
//! ```
//! use adit::bitcoin::CompactTarget;
//! use adit::chain::target::{NBitsError, Target};
//! use adit::source::stratum_v1::target_of;
//!
//! let target = Target::from_nbits(CompactTarget::from_consensus(0x1703_4219))?;
//! assert_eq!(target.difficulty().to_string(), "86.39T");
//! assert_eq!(target.to_nbits().to_consensus(), 0x1703_4219);
//! assert_eq!(Target::DIFFICULTY_1.difficulty().to_f64(), 1.0);
//! assert!(target < Target::DIFFICULTY_1, "harder is lower");
//!
//! // nBits are read as a node reads them.
//! let negative = CompactTarget::from_consensus(0x1d80_ffff);
//! assert_eq!(Target::from_nbits(negative), Err(NBitsError::Negative(0x1d80_ffff)));
//!
//! // A pool's difficulty is a decimal number; its target is computed exactly.
//! assert_eq!(target_of("1")?, Target::DIFFICULTY_1);
//! assert_eq!(target_of("0.5")?.difficulty().to_f64(), 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The merkle root of a block changes with its coinbase, and a branch is all that it takes to compute it
//! again. These are the two transactions of block 170, in internal byte order, the reverse of what is
//! displayed:
//!
//! ```
//! use adit::bitcoin::{Txid, hashes::Hash as _};
//! use adit::chain::merkle;
//!
//! let internal = |displayed: &str| displayed.parse().map(|id: Txid| id.to_byte_array());
//! let coinbase = internal("b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082")?;
//! let payment = internal("f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16")?;
//! let root = internal("7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff")?;
//!
//! assert_eq!(merkle::root(vec![coinbase, payment]), Some(root));
//! let branch = merkle::branch(vec![payment]);
//! assert_eq!(merkle::fold(coinbase, &branch), root);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`block::hash`] hashes a header.

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
