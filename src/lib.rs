//! A SHA-256d miner for regtest, signet and testnet: the library that the program `adit` is made of.
//!
//! It serves two kinds of programs: those that scan headers themselves and want only the kernels, and
//! those that have work of their own to be mined and want the engine with its threads, its verification
//! and its counting.
//!
//! # Scan a header
//!
//! A [kernel](scan::Kernel) computes SHA-256d on one thread. [`scan::cpu::best_kernel`] is the one that
//! suits this processor; its [`scan_header`](scan::Kernel::scan_header) and
//! [`solve`](scan::Kernel::solve) take a header, a range of nonces and a target. This finds the nonce of
//! the genesis block again:
//!
//! ```
//! use adit::bitcoin::{CompactTarget, constants, consensus, Network};
//! use adit::chain::{block, target::Target};
//! use adit::scan::{NonceRange, cpu};
//!
//! // Its 80 bytes, but for the nonce, which are the last four.
//! let genesis = constants::genesis_block(Network::Bitcoin).header;
//! let mut header: [u8; 80] = consensus::serialize(&genesis).try_into().unwrap();
//! header[76..].fill(0);
//!
//! let kernel = cpu::best_kernel(cpu::CpuFeatures::detected());
//! let target = Target::from_nbits(CompactTarget::from_consensus(0x1d00_ffff))?;
//! let nonces = NonceRange::new(2_083_200_000, 50_000).expect("a range that ends below 2^32");
//! let nonce = kernel.solve(&header, nonces, target);
//! assert_eq!(nonce, Some(2_083_236_893));
//!
//! // The result is easily checked.
//! header[76..].copy_from_slice(&2_083_236_893_u32.to_le_bytes());
//! let hash = block::hash(&header);
//! assert!(target.is_met_by(&hash));
//! assert_eq!(
//!     hash.to_string(),
//!     "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Mine
//!
//! Data goes one way round: a [source](source::Source) publishes [`job::Job`]s; the [`engine`] cuts each
//! into [`scan::WorkUnit`]s and hands them to [scanners](scan::Scanner), which are the processor or a
//! graphics card; what they report is hashed again and goes back to the source as [`job::Solution`]s; each
//! gets a [`job::Verdict`]. All that happens is announced as an [`event::Event`]; the state of a run is an
//! [`engine::Status`] at any time; an [`engine::Control`] pauses, throttles and stops it.
//!
//! [`source`] has an example with a source of its own from the first job to the last figure. The sources
//! that adit comes with are in [`source::builtin`] (a regtest chain in this process),
//! [`source::getblocktemplate`] (a node) and [`source::stratum_v1`] (a pool).
//!
//! # What may be relied upon
//!
//! The modules listed below. While the version is 0.x, a change that breaks a program which uses them
//! comes with a new minor version (0.1 to 0.2) and is in CHANGELOG.md. The other modules are what the
//! program `adit` is made of beside its `main`; they are public only because a program is a crate of its
//! own, are not documented here, and change in any version. Values that this crate makes, such as
//! [`engine::Status`], may get further fields in any version.
//!
//! The types of the crate [`bitcoin`] in signatures are those of the version that is re-exported here.
//!
//! # Features
//!
//! All are enabled by default, and the program's command line is the same without them: what is not built
//! in says so when it is asked for.
//!
//! | feature | what it is for | without it |
//! | --- | --- | --- |
//! | `gpu` | [`scan::gpu`]: hashing on graphics cards, with wgpu | no card is ever found |
//! | `plot` | the charts of `adit bench`, with plotters | `--plot` is an error |
//! | `energy` | counters of energy and of cycles for `adit bench` | the figures have a reason in their place |
//!
//! A program that wants only kernels or the engine needs none of them:
//!
//! ```toml
//! adit = { version = "0.1", default-features = false }
//! ```
//!
//! # Minimum Rust version
//!
//! 1.89. A newer one is required only with a new minor version of this crate.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chain;
pub mod engine;
pub mod event;
pub mod job;
pub mod journal;
pub mod scan;
pub mod secret;
pub mod source;
pub mod units;

/// The types of blocks, headers and addresses in this crate's signatures.
pub use bitcoin;

// What the program is made of. It is public for `main.rs`, the tests and the benches, and has no promise
// of stability: any version may change it.
#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod cache_file;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod dirs;
#[doc(hidden)]
pub mod energy;
#[doc(hidden)]
pub mod estimate;
#[doc(hidden)]
pub mod exit;
// For tests and fuzzing alone: it would be a twentieth of a release build.
#[cfg(any(debug_assertions, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod grind;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod plot;
#[doc(hidden)]
pub mod printable;
#[doc(hidden)]
pub mod protocols;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod signals;
#[doc(hidden)]
pub mod value_error;
