//! A SHA-256d miner for regtest, signet and testnet.
//!
//! Data goes one way round: a [`source`] emits [`job::Job`]s; the [`engine`] cuts each into
//! [`job::WorkUnit`]s and hands them to the scanners of [`scan`]; their candidates are hashed again
//! and go back to the source as [`job::Solution`]s; each gets a [`job::Verdict`]. All that happens
//! is announced as an [`event::Event`] and shown by [`report`]. ARCHITECTURE.md has the whole
//! picture.

pub mod bench;
pub mod cache_file;
pub mod chain;
pub mod cli;
pub mod config;
pub mod dirs;
pub mod energy;
pub mod engine;
pub mod estimate;
pub mod event;
pub mod exit;
#[doc(hidden)]
pub mod fuzzing;
pub mod grind;
pub mod job;
pub mod journal;
pub mod output;
pub mod plot;
pub mod printable;
pub mod protocols;
pub mod report;
pub mod scan;
pub mod secret;
pub mod signals;
pub mod source;
pub mod units;
pub mod value_error;
