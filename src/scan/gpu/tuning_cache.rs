//! The tuning of each card, kept in the user's cache directory: one file for each card and driver.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::adapter::Gpu;
use super::shader::{Midstates, Shader, Shape, Variant};
use super::tuning::{COMPARISON_SHAPE, Choice, Tuning};
use crate::cache_file;
use crate::chain::merkle::sha256d;
use crate::units::HashRate;

/// The version of the file format.
const FORMAT: u32 = 1;
/// The largest file that is read, in bytes. Ours are smaller.
const MAX_FILE_SIZE: u64 = 16 << 10;
/// Plausible numbers. Anyone can write such a file, so what it says is checked.
const WORKGROUP_SIZES: RangeInclusive<u32> = 1..=1024;
const NONCES_PER_INVOCATION: RangeInclusive<u32> = 1..=1024;
/// In hashes per second; the upper bound is about a hundred times the rate of today's fastest card.
const RATES: RangeInclusive<f64> = 1.0..=1e12;

/// The file's contents: the card and the shaders that were measured, and the result.
#[derive(Serialize, Deserialize)]
struct CachedTuning {
    #[serde(rename = "form")]
    format: u32,
    /// The version of adit that wrote it.
    adit: String,
    adapter: String,
    api: String,
    driver: String,
    plain: CachedChoice,
    rolled: CachedChoice,
}

#[derive(Serialize, Deserialize)]
struct CachedChoice {
    variant: String,
    /// Fingerprint of the expanded shader: one that has changed since is measured again.
    shader: String,
    workgroup_size: u32,
    nonces_per_invocation: u32,
    hashes_per_second: f64,
}

/// The file that holds a card's tuning.
#[derive(Clone, Debug)]
pub(super) struct TuningCache(PathBuf);

impl TuningCache {
    /// The file for `gpu` in `folder`, whether or not it exists.
    pub(super) fn for_gpu(folder: &Path, gpu: &Gpu) -> Self {
        let card = format!("{}\n{}\n{}", gpu.name, gpu.api, gpu.driver);
        let digest = hex::encode(&sha256d(card.as_bytes())[..8]);
        Self(folder.join(format!("gpu-{digest}.json")))
    }

    /// Reads the tuning; `None` if the file is missing, damaged, implausible, or for another card,
    /// driver or version.
    pub(super) fn load(&self, gpu: &Gpu) -> Option<Tuning> {
        let text = cache_file::read(&self.0, MAX_FILE_SIZE)?;
        let tuning = serde_json::from_str(&text).ok().and_then(|file| validated(file, gpu));
        if tuning.is_none() {
            tracing::debug!("{} does not apply and will be replaced", self.0.display());
        }
        tuning
    }

    /// Writes the tuning. A failure is only logged: mining does not depend on it.
    pub(super) fn store(&self, gpu: &Gpu, tuning: &Tuning) {
        if let Err(error) = self.write(gpu, tuning) {
            tracing::debug!("{} cannot be written: {error}", self.0.display());
        }
    }

    fn write(&self, gpu: &Gpu, tuning: &Tuning) -> std::io::Result<()> {
        let choice = |choice: &Choice| {
            Some(CachedChoice {
                variant: choice.variant.name().to_owned(),
                shader: fingerprint(choice.variant)?,
                workgroup_size: choice.shape.workgroup_size,
                nonces_per_invocation: choice.shape.nonces_per_invocation,
                hashes_per_second: choice.rate.to_f64(),
            })
        };
        let (Some(plain), Some(rolled)) = (choice(&tuning.plain), choice(&tuning.rolled)) else {
            return Ok(());
        };
        let cached = CachedTuning {
            format: FORMAT,
            adit: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: gpu.name.clone(),
            api: gpu.api.to_owned(),
            driver: gpu.driver.clone(),
            plain,
            rolled,
        };
        let text = serde_json::to_string_pretty(&cached)? + "\n";
        cache_file::replace(&self.0, &text)
    }
}

/// The file's tuning, if it is plausible and was measured on this card with our shaders.
fn validated(file: CachedTuning, gpu: &Gpu) -> Option<Tuning> {
    let CachedTuning { format, adit, adapter, api, driver, plain, rolled } = file;
    let applies = format == FORMAT
        && adit == env!("CARGO_PKG_VERSION")
        && (adapter.as_str(), api.as_str(), driver.as_str())
            == (gpu.name.as_str(), gpu.api, gpu.driver.as_str());
    let choice = |choice: CachedChoice| {
        let variant = Variant::find(&choice.variant)?;
        let shape = Shape {
            workgroup_size: choice.workgroup_size,
            nonces_per_invocation: choice.nonces_per_invocation,
        };
        let plausible = WORKGROUP_SIZES.contains(&shape.workgroup_size)
            && NONCES_PER_INVOCATION.contains(&shape.nonces_per_invocation)
            && RATES.contains(&choice.hashes_per_second)
            && fingerprint(variant)? == choice.shader;
        let rate = HashRate::from_f64(choice.hashes_per_second);
        plausible.then_some(Choice { variant, shape, rate })
    };
    let (plain, rolled) = (choice(plain)?, choice(rolled)?);
    // Holds for every result of a calibration.
    let plausible = plain.variant.midstates == Midstates::One && rolled.rate >= plain.rate;
    (applies && plausible).then_some(Tuning { plain, rolled })
}

/// Identifies the text of a variant's shader.
fn fingerprint(variant: Variant) -> Option<String> {
    let text = Shader::new(variant).ok()?.wgsl(COMPARISON_SHAPE).ok()?;
    Some(hex::encode(&sha256d(text.as_bytes())[..8]))
}
