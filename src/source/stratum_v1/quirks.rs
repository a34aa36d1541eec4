//! What a pool's answers have shown about it, kept by its address: for the run, and for the next ones in
//! a small file in the user's cache directory. The file has no secrets, and losing it costs a few shares.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::version_bits::Form;
use crate::cache_file;
use crate::chain::merkle::sha256d;
use crate::source::net::Endpoint;

/// The version of the file's format. A file of another version is ignored.
const FILE_VERSION: u32 = 1;
/// The most bytes of it that are read.
const FILE_MAX: u64 = 4 << 10;

/// From when on a difficulty holds that the pool sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifficultyHolds {
    /// For the jobs that follow it, as the documentation of the first Stratum pool says.
    ForLaterJobs,
    /// At once, for the current job too: shares are judged by the newest difficulty.
    AtOnce,
}

/// How the pool interprets what the protocol leaves open, as far as its answers have shown.
#[derive(Debug)]
pub struct Quirks {
    /// The file for the next run, where there is one.
    file: Option<PathBuf>,
    /// The pool's address. A file with another one is ignored.
    pool: String,
    known: Known,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version_bits: Option<Form>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    difficulty: Option<DifficultyHolds>,
}

#[derive(Serialize, Deserialize)]
struct QuirksFile {
    form: u32,
    pool: String,
    #[serde(flatten)]
    known: Known,
}

impl Quirks {
    /// What is known of the pool at this address. A file that is missing, damaged or of another pool is
    /// ignored.
    #[must_use]
    pub fn of(pool: &Endpoint, dir: Option<&Path>) -> Self {
        let pool = pool.to_string();
        let digest = hex::encode(&sha256d(pool.as_bytes())[..8]);
        let file = dir.map(|dir| dir.join(format!("pool-{digest}.json")));
        let known = file.as_deref().and_then(|file| {
            let kept: QuirksFile = serde_json::from_str(&cache_file::read(file, FILE_MAX)?).ok()?;
            (kept.form == FILE_VERSION && kept.pool == pool).then_some(kept.known)
        });
        Self { file, pool, known: known.unwrap_or_default() }
    }

    /// The form in which the pool takes version bits, where that is known.
    #[must_use]
    pub const fn version_bits(&self) -> Option<Form> {
        self.known.version_bits
    }

    /// From when on the pool's difficulties hold, where that is known.
    #[must_use]
    pub const fn difficulty(&self) -> Option<DifficultyHolds> {
        self.known.difficulty
    }

    /// Keeps the form in which the pool takes version bits.
    pub fn learn_version_bits(&mut self, form: Form) {
        self.learn(Known { version_bits: Some(form), ..self.known });
    }

    /// Keeps from when on the pool's difficulties hold.
    pub fn learn_difficulty(&mut self, holds: DifficultyHolds) {
        self.learn(Known { difficulty: Some(holds), ..self.known });
    }

    fn learn(&mut self, known: Known) {
        if self.known == known {
            return;
        }
        self.known = known;
        let Some(file) = &self.file else { return };
        let kept = QuirksFile { form: FILE_VERSION, pool: self.pool.clone(), known };
        let text = serde_json::to_string_pretty(&kept).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| cache_file::replace(file, &(text + "\n"))) {
            // It will be learned again in the next run.
            tracing::debug!("{} cannot be written: {error}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { host: "pool.example".into(), port }
    }

    #[test]
    fn habits_are_kept_with_the_pools_address() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Some(folder.path());
        let mut quirks = Quirks::of(&endpoint(1), folder);
        assert_eq!((quirks.version_bits(), quirks.difficulty()), (None, None));
        quirks.learn_version_bits(Form::Difference);
        quirks.learn_difficulty(DifficultyHolds::AtOnce);
        let again = Quirks::of(&endpoint(1), folder);
        assert_eq!(again.version_bits(), Some(Form::Difference));
        assert_eq!(again.difficulty(), Some(DifficultyHolds::AtOnce));
        assert_eq!(Quirks::of(&endpoint(2), folder).difficulty(), None);
        assert_eq!(Quirks::of(&endpoint(1), None).difficulty(), None);
    }

    #[test]
    fn an_unusable_file_is_ignored_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut quirks = Quirks::of(&endpoint(1), Some(folder.path()));
        quirks.learn_difficulty(DifficultyHolds::ForLaterJobs);
        let file = quirks.file.clone().unwrap();
        let good = std::fs::read_to_string(&file).unwrap();
        for bad in [
            String::new(),
            "\0\0".into(),
            good.replace("\"form\": 1", "\"form\": 2"),
            good.replace("pool.example", "other.example"),
            good.replace("for-later-jobs", "whenever"),
            " ".repeat(1 << 20) + &good,
        ] {
            std::fs::write(&file, bad).unwrap();
            let mut quirks = Quirks::of(&endpoint(1), Some(folder.path()));
            assert_eq!(quirks.difficulty(), None);
            quirks.learn_difficulty(DifficultyHolds::AtOnce);
            let again = Quirks::of(&endpoint(1), Some(folder.path()));
            assert_eq!(again.difficulty(), Some(DifficultyHolds::AtOnce));
        }
    }
}
