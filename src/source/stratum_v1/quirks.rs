//! What was learned of a pool, kept with its address: while it is mined, and for the next run in a
//! small file in the user's cache folder. It holds nothing secret, and its loss costs some shares.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::version_bits::Form;
use crate::cache_file;
use crate::chain::merkle::sha256d;
use crate::source::net::Endpoint;

/// The form of the file. Another one is of no use.
const FILE_FORM: u32 = 1;
/// The most bytes of it that are read.
const FILE_MAX: u64 = 4 << 10;

/// From when on a difficulty holds that a pool sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifficultyHolds {
    /// For the jobs that follow it, as the first pool's documentation says.
    ForLaterJobs,
    /// At once, for the job at hand too: shares are judged by the newest difficulty.
    AtOnce,
}

/// A pool's habits, as far as its answers have shown them.
#[derive(Debug)]
pub struct Quirks {
    /// Where they are kept; nowhere if there is no such place.
    file: Option<PathBuf>,
    /// The pool's address: a file that was copied from elsewhere is of no use.
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
struct Kept {
    form: u32,
    pool: String,
    #[serde(flatten)]
    known: Known,
}

impl Quirks {
    /// What is known of the pool at this address. A file that is missing, damaged or another's is
    /// nothing.
    #[must_use]
    pub fn of(pool: &Endpoint, folder: Option<&Path>) -> Self {
        let pool = pool.to_string();
        let digest = hex::encode(&sha256d(pool.as_bytes())[..8]);
        let file = folder.map(|folder| folder.join(format!("pool-{digest}.json")));
        let known = file.as_deref().and_then(|file| {
            let kept: Kept = serde_json::from_str(&cache_file::read(file, FILE_MAX)?).ok()?;
            (kept.form == FILE_FORM && kept.pool == pool).then_some(kept.known)
        });
        Self { file, pool, known: known.unwrap_or_default() }
    }

    /// The form in which it took version bits.
    #[must_use]
    pub const fn version_bits(&self) -> Option<Form> {
        self.known.version_bits
    }

    /// From when on its difficulties hold.
    #[must_use]
    pub const fn difficulty(&self) -> Option<DifficultyHolds> {
        self.known.difficulty
    }

    /// Keeps the form in which it takes version bits.
    pub fn learn_version_bits(&mut self, form: Form) {
        self.learn(Known { version_bits: Some(form), ..self.known });
    }

    /// Keeps from when on its difficulties hold.
    pub fn learn_difficulty(&mut self, holds: DifficultyHolds) {
        self.learn(Known { difficulty: Some(holds), ..self.known });
    }

    fn learn(&mut self, known: Known) {
        if self.known == known {
            return;
        }
        self.known = known;
        let Some(file) = &self.file else { return };
        let kept = Kept { form: FILE_FORM, pool: self.pool.clone(), known };
        let text = serde_json::to_string_pretty(&kept).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| cache_file::replace(file, &(text + "\n"))) {
            // It is learned again the next time.
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
    fn a_file_of_no_use_is_nothing_and_is_replaced() {
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
