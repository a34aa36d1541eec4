//! The parsers of what other programs and people send, as functions of bytes that check what must
//! hold for every input. They are for `fuzz/` and `tests/it/fuzz.rs` only.
//!
//! Each panics where something does not hold; none does on any input that is handled well.

mod files;
mod node;
mod pool;

pub use self::files::{adit_toml, bitcoin_conf, journal, saved_bench};
pub use self::node::{submitblock_answer, template, zmtp};
pub use self::pool::{stratum_line, stratum_message};

/// A target: bytes in, a panic where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets by name. Each has its seeds in `fuzz/seeds/NAME`.
pub const TARGETS: [(&str, Target); 9] = [
    ("stratum_line", stratum_line),
    ("stratum_message", stratum_message),
    ("template", template),
    ("submitblock_answer", submitblock_answer),
    ("zmtp", zmtp),
    ("journal", journal),
    ("bitcoin_conf", bitcoin_conf),
    ("adit_toml", adit_toml),
    ("saved_bench", saved_bench),
];

/// An error is shown to a person and logged: it stays one line of bearable length, however long the
/// input.
fn assert_shown_well(error: &impl std::fmt::Display) {
    let shown = error.to_string();
    assert!(shown.chars().count() <= 1_000, "an error of {} bytes", shown.len());
    assert!(!shown.contains(['\n', '\r', '\u{1b}']), "an error is not one line: {shown:?}");
}
