//! One file a command: they wire rooms together and hold no logic of their own.

mod backends;
pub mod bench;
pub mod check;
pub mod completions;
pub mod desktop;
pub mod devices;
pub mod estimate;
pub mod grind;
pub mod man;
pub mod mine;
mod node;

use adit::exit::Exit;
use adit::report::{OutputError, print};

/// Writes a result to stdout and ends with `exit`. Whoever closed stdout does not want the result,
/// and that is no failure of ours.
fn finish(text: &str, exit: Exit) -> anyhow::Result<Exit> {
    match print(text) {
        Ok(()) | Err(OutputError::Closed) => Ok(exit),
        Err(error) => Err(error.into()),
    }
}
