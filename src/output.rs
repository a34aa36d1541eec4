//! What the commands other than `mine` print: tables, JSON, CSV and charts.

pub mod bench;
pub mod estimates;
pub mod results;
