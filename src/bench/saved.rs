//! A run that `adit bench --json` has saved, read back. The file may be anything: it is read as what
//! an untrusted peer sends.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

use super::Slice;
use super::compare::Row;
use crate::printable::{one_line, printable};

/// The largest file that is read. A run of an hour on many cores has some MB.
const SIZE_MAX: u64 = 64 << 20;

/// The most characters kept of what the parser says, which repeats what stands in the file.
const WORDS_MAX: usize = 200;

/// A saved run.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The version that saved it.
    pub version: String,
    /// The processor as it named itself.
    pub cpu: String,
    /// How many of its threads were usable.
    pub cores: u64,
    /// How it was built, `debug` or `release`; `None` where it does not say.
    pub build: Option<String>,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Why a file holds no run to compare with.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It is a directory.
    #[error("it is a directory")]
    Directory,
    /// It is too large.
    #[error("it is larger than 64 MiB")]
    TooLarge,
    /// It is no JSON, or other JSON.
    #[error("it is not what `adit bench --json` writes: {0}")]
    Foreign(String),
    /// A backend computed wrongly in it, so its rates are of something else.
    #[error("result {row} is not verified: {backend} computed wrongly")]
    Unverified {
        /// The result's number, from 1.
        row: usize,
        /// The backend.
        backend: String,
    },
    /// A number in it cannot have been measured.
    #[error("result {row} holds what cannot have been measured: {what}")]
    Nonsense {
        /// The result's number, from 1.
        row: usize,
        /// What.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct SavedRun {
    version: String,
    machine: Machine,
    results: Vec<SavedResult>,
}

#[derive(Deserialize)]
struct Machine {
    cpu: String,
    cores: u64,
    #[serde(default)]
    build: Option<String>,
}

#[derive(Deserialize)]
struct SavedResult {
    backend: String,
    kernel: String,
    device: String,
    verified: bool,
    #[serde(default)]
    index: Option<usize>,
    threads: usize,
    version_rolling: bool,
    slices: Vec<SavedSlice>,
}

#[derive(Deserialize)]
struct SavedSlice {
    hashes: u64,
    seconds: f64,
    #[serde(default)]
    cores: Option<f64>,
}

impl Saved {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no run.
    pub fn read(path: &Path) -> Result<Self, SavedError> {
        let file = File::open(path).map_err(SavedError::Unreadable)?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(SavedError::Directory);
        }
        let mut bytes = Vec::new();
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(SavedError::Unreadable)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(SavedError::TooLarge);
        }
        Self::parse(&bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SavedError> {
        let file: SavedRun = serde_json::from_slice(bytes)
            .map_err(|error| SavedError::Foreign(printable(&error.to_string(), WORDS_MAX)))?;
        let rows = file.results.into_iter().enumerate();
        let rows = rows.map(|(index, result)| result.row(index + 1)).collect::<Result<_, _>>()?;
        let Machine { cpu, cores, build } = file.machine;
        Ok(Self { version: file.version, cpu, cores, build, rows })
    }
}

impl SavedResult {
    fn row(self, row: usize) -> Result<Row, SavedError> {
        let nonsense = |what| SavedError::Nonsense { row, what };
        let slice = |slice: SavedSlice| {
            let SavedSlice { hashes, seconds, cores } = slice;
            if !(seconds.is_finite() && seconds > 0.0) {
                return Err(nonsense("a slice of no time"));
            }
            if hashes == 0 {
                return Err(nonsense("a slice without a hash"));
            }
            if cores.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
                return Err(nonsense("an impossible share of the cores"));
            }
            Ok(Slice { hashes, seconds, cores })
        };
        if self.slices.is_empty() {
            return Err(nonsense("no slices"));
        }
        let name = match self.index {
            Some(index) => format!("{}:{index}", self.backend),
            None => format!("{}:{}", self.backend, self.kernel),
        };
        if !self.verified {
            return Err(SavedError::Unverified { row, backend: one_line(&name) });
        }
        Ok(Row {
            name,
            card: (self.backend != "cpu").then_some(self.device),
            threads: self.threads,
            version_rolling: self.version_rolling,
            slices: self.slices.into_iter().map(slice).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version":"0.1.0","machine":{"cpu":"x","cores":2,"os":"y"},"results":[
        {"backend":"cpu","kernel":"avx2","device":"x","threads":1,"version_rolling":true,"verified":true,
         "hashes_per_second":{"median":1,"min":1,"max":1,"samples":1},"slices":[SLICE]}]}"#;

    fn parse(slice: &str) -> Result<Saved, SavedError> {
        Saved::parse(GOOD.replace("SLICE", slice).as_bytes())
    }

    #[test]
    fn a_run_is_read_back() {
        let saved = parse(r#"{"hashes":10,"seconds":0.5,"cores":0.75}"#).unwrap();
        assert_eq!((saved.cpu.as_str(), saved.cores), ("x", 2));
        let row = &saved.rows[0];
        assert_eq!((row.name.as_str(), row.threads, row.version_rolling), ("cpu:avx2", 1, true));
        assert_eq!(row.slices, [Slice { hashes: 10, seconds: 0.5, cores: Some(0.75) }]);
    }

    #[test]
    fn a_run_that_was_not_verified_is_refused() {
        let lied = GOOD.replace("\"verified\":true", "\"verified\":false");
        let lied = lied.replace("SLICE", r#"{"hashes":10,"seconds":0.5}"#);
        let error = Saved::parse(lied.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "result 1 is not verified: cpu:avx2 computed wrongly");
    }

    #[test]
    fn a_card_is_its_number_and_its_name() {
        let run = |card: &str| {
            let text = GOOD.replace("SLICE", r#"{"hashes":10,"seconds":0.5}"#);
            let text = text.replace("\"cpu\",\"kernel\"", "\"gpu\",\"index\":0,\"kernel\"");
            let text = text.replace("\"device\":\"x\"", &format!("\"device\":\"{card}\""));
            Saved::parse(text.as_bytes()).unwrap().rows.remove(0)
        };
        assert!(run("one").matches(&run("one")) && !run("one").matches(&run("another")));
    }

    #[test]
    fn what_is_no_run_is_refused_in_one_line() {
        for (slice, told) in [
            ("", "no slices"),
            (r#"{"hashes":0,"seconds":0.5}"#, "without a hash"),
            (r#"{"hashes":5,"seconds":0}"#, "no time"),
            (r#"{"hashes":5,"seconds":-1}"#, "no time"),
            (r#"{"hashes":5,"seconds":1,"cores":2}"#, "share of the cores"),
            (r#"{"hashes":-5,"seconds":1}"#, "is not what"),
            (r#"{"hashes":5,"seconds":1e999}"#, "is not what"),
            ("{}", "is not what"),
        ] {
            let error = parse(slice).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{slice}: {error}");
        }
        let long = format!("{:?}", "long".repeat(10_000));
        let error = Saved::parse(long.as_bytes()).unwrap_err().to_string();
        assert!(error.chars().count() < 300, "{} bytes", error.len());
        for text in ["", "{}", "[]", "null", "\u{0}", &"[".repeat(100_000)] {
            assert!(matches!(Saved::parse(text.as_bytes()), Err(SavedError::Foreign(_))));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Saved::read(folder.path()), Err(SavedError::Directory)));
        let none = Saved::read(&folder.path().join("none"));
        assert!(matches!(none, Err(SavedError::Unreadable(_))));
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(SIZE_MAX + 1).unwrap();
        assert!(matches!(Saved::read(&large), Err(SavedError::TooLarge)));
    }
}
