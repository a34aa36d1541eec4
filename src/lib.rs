//! adit
pub mod chain;
pub mod engine;
pub mod event;
pub mod job;
pub mod scan;
pub mod source;
