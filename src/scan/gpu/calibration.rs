//! Which variant and shape a card runs fastest: measured once, and remembered in the user's cache.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::adapter::{Gpu, Kind};
use super::device::{Device, Program, Trouble};
use super::programs::{Programs, TEST_PATIENCE, self_tested};
use super::shader::{Adds, MAX_NONCES, Midstates, Shader, Shape, Variant};
use crate::chain::merkle::sha256d;
use crate::chain::target::HashRate;
use crate::scan::{HitMask, Midstate, NonceRange, Scan, SecondBlock};

/// How long one timed batch takes, about.
const SLICE: Duration = Duration::from_millis(15);
/// How many each candidate gets, in turns.
const SLICES: usize = 3;
/// How long a card is kept busy before anything is timed: it raises its clock only then.
const WARM_UP: Duration = Duration::from_millis(150);

/// The shape that variants are compared in.
const SHAPE: Shape = Shape { workgroup_size: 128, nonces_per_invocation: 16 };
/// What is tried in place of it for the variants that win.
const WORKGROUP_SIZES: [u32; 2] = [64, 256];
const NONCES_PER_INVOCATION: [u32; 3] = [1, 4, 64];
/// What such numbers are at the most, in a file that somebody may have written into.
const NONCES_PER_INVOCATION_MAX: u32 = 1024;

/// A software device runs any shape alike, as long as an invocation is not over in no time; and
/// there is no multiply-add pipe to steer additions to.
const SOFTWARE_SHAPE: Shape = Shape { workgroup_size: 64, nonces_per_invocation: 64 };

/// The version of the file's form.
const FORM: u32 = 1;
/// No file of ours is larger, in bytes.
const FILE_MAX: u64 = 16 << 10;

/// A variant in a shape, and how fast it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub variant: Variant,
    pub shape: Shape,
    pub rate: HashRate,
}

/// What a card is to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tuning {
    /// For one midstate.
    pub plain: Choice,
    /// Where the version may be rolled; the same as `plain` where nothing is gained.
    pub rolled: Choice,
}

impl Tuning {
    /// Compiles what is needed of it, and has it tested.
    pub(super) fn programs(
        &self,
        device: &mut Device,
        version_rolling: bool,
    ) -> Result<Programs, Trouble> {
        let plain = device.compile(self.plain.variant, self.plain.shape)?;
        let rolls = version_rolling && self.rolled.variant.midstates != Midstates::One;
        let rolled = if rolls {
            Some(device.compile(self.rolled.variant, self.rolled.shape)?)
        } else {
            None
        };
        let programs = Programs { plain, rolled };
        self_tested(device, &programs)?;
        Ok(programs)
    }
}

/// Every variant, in the shape in which they are compared on such a card.
pub(super) fn candidates(gpu: &Gpu) -> Vec<(Variant, Shape)> {
    let shape = if gpu.kind == Kind::Software { SOFTWARE_SHAPE } else { SHAPE };
    Variant::all().map(|variant| (variant, shape)).collect()
}

/// Measures which variants and shapes are fastest. Each that is timed has passed the self-test.
pub(super) fn measure(device: &mut Device, gpu: &Gpu) -> Result<Tuning, Trouble> {
    let software = gpu.kind == Kind::Software;
    let mut candidates = candidates(gpu);
    candidates.retain(|(variant, _)| !software || variant.adds == Adds::Plain);
    let warm_up = if software { Duration::ZERO } else { WARM_UP };
    let (timed, first_lie) = race(device, candidates, gpu, warm_up)?;
    let best = |timed: &[Choice], plain: bool| {
        let fits = |c: &&Choice| !plain || c.variant.midstates == Midstates::One;
        let best = timed.iter().filter(fits);
        best.max_by(|a, b| a.rate.to_f64().total_cmp(&b.rate.to_f64())).copied()
    };
    let Some(mut plain) = best(&timed, true) else {
        let why = first_lie.unwrap_or_default();
        return Err(Trouble::Lies(format!("no variant of the shader passed its self-test: {why}")));
    };
    let mut rolled = best(&timed, false).unwrap_or(plain);
    if software {
        return Ok(Tuning { plain, rolled });
    }
    // First the one number, then the other.
    let largest = device.largest_workgroup();
    for step in 0..2 {
        let mut candidates = Vec::new();
        for choice in [plain, rolled] {
            let shapes: Vec<Shape> = if step == 0 {
                let sizes = WORKGROUP_SIZES.into_iter().filter(|size| *size <= largest);
                sizes.map(|workgroup_size| Shape { workgroup_size, ..choice.shape }).collect()
            } else {
                let each = NONCES_PER_INVOCATION.into_iter();
                each.map(|n| Shape { nonces_per_invocation: n, ..choice.shape }).collect()
            };
            candidates.push((choice.variant, choice.shape));
            candidates.extend(shapes.into_iter().map(|shape| (choice.variant, shape)));
            if plain.variant == rolled.variant {
                break;
            }
        }
        let (timed, _) = race(device, candidates, gpu, Duration::ZERO)?;
        plain = best(&timed, true).unwrap_or(plain);
        rolled = best(&timed, false).unwrap_or(rolled);
    }
    Ok(Tuning { plain, rolled })
}

/// Times candidates in turns, and takes the best of each. Those that do not compile, or do not tell
/// the truth, are left out, and the first is named.
fn race(
    device: &mut Device,
    candidates: Vec<(Variant, Shape)>,
    gpu: &Gpu,
    warm_up: Duration,
) -> Result<(Vec<Choice>, Option<String>), Trouble> {
    let mut first_lie = None;
    let mut runners: Vec<(Program, u64, HashRate)> = Vec::new();
    for (variant, shape) in candidates {
        match fit(device, variant, shape) {
            Ok(program) => runners.push((program, 1 << 14, HashRate::default())),
            Err(trouble @ (Trouble::Lies(_) | Trouble::Refused(_))) => {
                tracing::debug!(
                    "gpu:{}: {variant}, workgroups of {}, {} nonces each, is left out: {trouble}",
                    gpu.index,
                    shape.workgroup_size,
                    shape.nonces_per_invocation,
                );
                first_lie.get_or_insert(format!("{variant}: {trouble}"));
            }
            Err(trouble) => return Err(trouble),
        }
    }
    if let Some((program, nonces, _)) = runners.first_mut() {
        let begun = Instant::now();
        while begun.elapsed() < warm_up {
            time(device, program, nonces)?;
        }
    }
    // Until the batches are long enough to be timed, and then in turns.
    for (program, nonces, _) in &mut runners {
        while time(device, program, nonces)?.1 < SLICE / 2 && *nonces < MAX_NONCES {}
    }
    for _ in 0..SLICES {
        for (program, nonces, best) in &mut runners {
            let (rate, _) = time(device, program, nonces)?;
            if rate > *best {
                *best = rate;
            }
        }
    }
    let choice = |(program, _, rate): &(Program, u64, HashRate)| Choice {
        variant: program.variant(),
        shape: program.shape,
        rate: *rate,
    };
    Ok((runners.iter().map(choice).collect(), first_lie))
}

/// A program that compiles and tells the truth.
fn fit(device: &mut Device, variant: Variant, shape: Shape) -> Result<Program, Trouble> {
    // Any number of midstates comes up in the test: what does not go into the variant's own number
    // is done one by one.
    let single = Variant { midstates: Midstates::One, adds: variant.adds };
    let plain = device.compile(single, shape)?;
    let programs = if variant == single {
        Programs { plain, rolled: None }
    } else {
        Programs { plain, rolled: Some(device.compile(variant, shape)?) }
    };
    self_tested(device, &programs)?;
    Ok(programs.rolled.unwrap_or(programs.plain))
}

/// One batch: how fast it was and how long it took. The next has so many nonces that it takes about
/// [`SLICE`].
fn time(
    device: &mut Device,
    program: &Program,
    nonces: &mut u64,
) -> Result<(HashRate, Duration), Trouble> {
    let midstates: Vec<_> = (0u32..)
        .take(program.midstates())
        .map(|version| Midstate { version, state: [version; 8] })
        .collect();
    let (range, _) = NonceRange::full().split(*nonces);
    let scan = Scan {
        midstates: &midstates,
        second_block: SecondBlock { words: [1, 2, 3] },
        nonces: range,
        hit_mask: HitMask::for_top_word(0),
    };
    let (_, took) = device.scan(program, &scan, TEST_PATIENCE)?;
    let ideal = *nonces as f64 * SLICE.as_secs_f64() / took.as_secs_f64().max(1e-6);
    *nonces = (ideal as u64).clamp(*nonces / 4, *nonces * 4).clamp(1 << 10, MAX_NONCES);
    let hashes = range.count() * midstates.len() as u64;
    Ok((HashRate::of(hashes, took.as_secs_f64()), took))
}

/// A file of the cache: for which card and which shaders it was measured, and what came out.
#[derive(Serialize, Deserialize)]
struct Remembered {
    form: u32,
    adit: String,
    adapter: String,
    api: String,
    driver: String,
    plain: RememberedChoice,
    rolled: RememberedChoice,
}

#[derive(Serialize, Deserialize)]
struct RememberedChoice {
    variant: String,
    /// Of the expanded shader, so that another one is measured anew.
    shader: String,
    workgroup_size: u32,
    nonces_per_invocation: u32,
    hashes_per_second: f64,
}

/// Where the user's caches are, less the file's name, which is the card's.
#[derive(Clone, Debug)]
pub(super) struct Memory(PathBuf);

impl Memory {
    /// What is remembered of `gpu` in `folder`.
    pub(super) fn of(folder: &Path, gpu: &Gpu) -> Self {
        let card = format!("{}\n{}\n{}", gpu.name, gpu.api, gpu.driver);
        let digest = hex::encode(&sha256d(card.as_bytes())[..8]);
        Self(folder.join(format!("gpu-{digest}.json")))
    }

    /// What was measured before. A file that is missing, broken, or another's is none.
    pub(super) fn recall(&self, gpu: &Gpu) -> Option<Tuning> {
        let file = fs::File::open(&self.0).ok()?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_MAX), &mut text).ok()?;
        let tuning = serde_json::from_str(&text).ok().and_then(|file| tuning(file, gpu));
        if tuning.is_none() {
            tracing::debug!("{} is of no use and is written anew", self.0.display());
        }
        tuning
    }

    /// Writes down what was measured. That it cannot be is no reason not to mine.
    pub(super) fn keep(&self, gpu: &Gpu, tuning: &Tuning) {
        if let Err(error) = self.write(gpu, tuning) {
            tracing::debug!("{} cannot be written: {error}", self.0.display());
        }
    }

    fn write(&self, gpu: &Gpu, tuning: &Tuning) -> std::io::Result<()> {
        let choice = |choice: &Choice| {
            Some(RememberedChoice {
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
        let remembered = Remembered {
            form: FORM,
            adit: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: gpu.name.clone(),
            api: gpu.api.to_owned(),
            driver: gpu.driver.clone(),
            plain,
            rolled,
        };
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Whole or not at all, also where two of us write.
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!(".{name}.{}", std::process::id()));
        let text = serde_json::to_string_pretty(&remembered)? + "\n";
        let written = fs::File::create(&draft)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&draft, &self.0));
        if written.is_err() {
            // There may be nothing to remove.
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

/// What a file says, if it speaks of this card and of the shaders that we have.
fn tuning(file: Remembered, gpu: &Gpu) -> Option<Tuning> {
    let Remembered { form, adit, adapter, api, driver, plain, rolled } = file;
    let ours = form == FORM
        && adit == env!("CARGO_PKG_VERSION")
        && (adapter.as_str(), api.as_str(), driver.as_str())
            == (gpu.name.as_str(), gpu.api, gpu.driver.as_str());
    let choice = |choice: RememberedChoice| {
        let variant = Variant::find(&choice.variant)?;
        let shape = Shape {
            workgroup_size: choice.workgroup_size,
            nonces_per_invocation: choice.nonces_per_invocation,
        };
        let sane = (1..=1024).contains(&shape.workgroup_size)
            && (1..=NONCES_PER_INVOCATION_MAX).contains(&shape.nonces_per_invocation)
            && choice.hashes_per_second.is_finite()
            && choice.hashes_per_second >= 0.0
            && fingerprint(variant)? == choice.shader;
        let rate = HashRate::from_f64(choice.hashes_per_second);
        sane.then_some(Choice { variant, shape, rate })
    };
    let (plain, rolled) = (choice(plain)?, choice(rolled)?);
    (ours && plain.variant.midstates == Midstates::One).then_some(Tuning { plain, rolled })
}

/// Tells one text of a shader from another.
fn fingerprint(variant: Variant) -> Option<String> {
    let text = Shader::new(variant).ok()?.wgsl(SHAPE).ok()?;
    Some(hex::encode(&sha256d(text.as_bytes())[..8]))
}
