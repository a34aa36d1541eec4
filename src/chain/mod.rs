pub mod merkle;
pub mod target;
