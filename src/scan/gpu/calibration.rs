//! Which variant and shape a card runs fastest: measured once, and remembered in the user's cache.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::adapter::{Gpu, Kind};
use super::device::{Device, Program, Trouble};
use super::programs::{Programs, TEST_PATIENCE, self_tested};
use super::shader::{Adds, MAX_NONCES, Midstates, Shader, Shape, Variant};
use super::suspects::{Suspects, Trial};
use crate::cache_file;
use crate::chain::merkle::sha256d;
use crate::scan::{HitMask, Midstate, NonceRange, Scan, SecondBlock};
use crate::units::HashRate;

/// How long one timed batch takes, about.
const SLICE: Duration = Duration::from_millis(15);
/// How many each candidate gets, in turns. The best of them counts: whatever else runs on the machine
/// makes a batch longer, and never shorter.
const TURNS: usize = 5;
/// How long all of it may take. Then the best so far has to do: a driver that compiles for many
/// seconds is not worth waiting for.
const BUDGET: Duration = Duration::from_secs(30);
/// How long a card is kept busy before anything is timed: it raises its clock only then.
const WARM_UP: Duration = Duration::from_millis(150);

/// The shape that variants are compared in.
const SHAPE: Shape = Shape { workgroup_size: 128, nonces_per_invocation: 16 };
/// What is tried in place of it for the variants that win.
const WORKGROUP_SIZES: [u32; 2] = [64, 256];
const NONCES_PER_INVOCATION: [u32; 3] = [1, 4, 64];
/// What such numbers are at the most, in a file that somebody may have written into.
const NONCES_PER_INVOCATION_MAX: u32 = 1024;

/// What a rate can be, in hashes per second, in such a file: some hundred times what the fastest card
/// of today does, and no less than one.
const RATES: RangeInclusive<f64> = 1.0..=1e12;

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

/// One measurement of a device.
pub(super) struct Calibration<'a> {
    device: &'a mut Device,
    gpu: &'a Gpu,
    /// What it died of before, perhaps.
    suspects: &'a Suspects,
    /// Is told whenever something is done for which a deadline holds.
    step: &'a dyn Fn(),
    begun: Instant,
    /// How long it may take.
    pub(super) budget: Duration,
    /// Why the first candidate that was left out was.
    first_lie: Option<String>,
}

/// A candidate that may be timed.
struct Runner {
    program: Program,
    /// Nonces of its next batch.
    nonces: u64,
    /// Its best turn.
    best: HashRate,
}

impl<'a> Calibration<'a> {
    /// It begins now.
    pub(super) fn new(
        device: &'a mut Device,
        gpu: &'a Gpu,
        suspects: &'a Suspects,
        step: &'a dyn Fn(),
    ) -> Self {
        let begun = Instant::now();
        Self { device, gpu, suspects, step, begun, budget: BUDGET, first_lie: None }
    }

    /// Measures which variants and shapes are fastest. Each that is timed has passed the self-test.
    pub(super) fn measure(mut self) -> Result<Tuning, Trouble> {
        let software = self.gpu.kind == Kind::Software;
        let mut candidates = candidates(self.gpu);
        candidates.retain(|(variant, _)| !software || variant.adds == Adds::Plain);
        // A device that was lost for another reason should not be left without any variant.
        let (suspects, candidates): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|(variant, shape)| self.suspects(*variant, *shape));
        let mut timed = self.race(candidates, if software { Duration::ZERO } else { WARM_UP })?;
        if fastest(&timed, is_plain).is_none() {
            timed.extend(self.race(suspects, Duration::ZERO)?);
        }
        let Some(mut plain) = fastest(&timed, is_plain) else {
            let why = self.first_lie.unwrap_or_default();
            let why = format!("no variant of the shader passed its self-test: {why}");
            return Err(Trouble::Lies(why));
        };
        let mut rolled = fastest(&timed, |_| true).unwrap_or(plain);
        if software {
            return Ok(Tuning { plain, rolled });
        }
        // First the one number, then the other.
        let largest = self.device.largest_workgroup();
        for step in 0..2 {
            if self.is_late() {
                break;
            }
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
            candidates.retain(|(variant, shape)| !self.suspects(*variant, *shape));
            let timed = self.race(candidates, Duration::ZERO)?;
            // Where the time was up, there may be none of one of them.
            for choice in [&mut plain, &mut rolled] {
                let variant = choice.variant;
                *choice = fastest(&timed, |other| other.variant == variant).unwrap_or(*choice);
            }
        }
        if rolled.rate < plain.rate {
            rolled = plain;
        }
        Ok(Tuning { plain, rolled })
    }

    /// Whether the device died of such a candidate before, or of the form of it for one midstate.
    fn suspects(&self, variant: Variant, shape: Shape) -> bool {
        self.suspects.has(variant, shape) || self.suspects.has(single(variant), shape)
    }

    /// Whether the best so far has to do.
    fn is_late(&self) -> bool {
        self.begun.elapsed() > self.budget
    }

    /// Times candidates in turns, and takes the best of each. Those that do not compile, or do not
    /// tell the truth, are left out, and the first is named; so are those that come too late.
    fn race(
        &mut self,
        candidates: Vec<(Variant, Shape)>,
        warm_up: Duration,
    ) -> Result<Vec<Choice>, Trouble> {
        let mut runners: Vec<Runner> = Vec::new();
        for (variant, shape) in candidates {
            let left_out = |why: &dyn std::fmt::Display| {
                tracing::debug!(
                    "gpu:{}: {variant}, workgroups of {}, {} nonces each, is left out: {why}",
                    self.gpu.index,
                    shape.workgroup_size,
                    shape.nonces_per_invocation,
                );
            };
            if self.is_late() && runners.iter().any(|runner| runner.program.midstates() == 1) {
                left_out(&format!("measuring has taken {} s already", self.budget.as_secs()));
                continue;
            }
            self.suspects.put_on_trial(Trial::Variant(variant, shape));
            let warm_up = if runners.is_empty() { warm_up } else { Duration::ZERO };
            match fit(self.device, variant, shape, warm_up) {
                Ok(runner) => runners.push(runner),
                Err(trouble @ (Trouble::Lies(_) | Trouble::Refused(_))) => {
                    left_out(&trouble);
                    self.first_lie.get_or_insert_with(|| format!("{variant}: {trouble}"));
                }
                Err(trouble) => return Err(trouble),
            }
            self.suspects.acquit();
            (self.step)();
        }
        for turn in 0..TURNS {
            if turn > 0 && self.is_late() {
                break;
            }
            for runner in &mut runners {
                let Program { shape, .. } = runner.program;
                self.suspects.put_on_trial(Trial::Variant(runner.program.variant(), shape));
                let (rate, _) = runner.time(self.device)?;
                if rate > runner.best {
                    runner.best = rate;
                }
                self.suspects.acquit();
                (self.step)();
            }
        }
        Ok(runners.iter().map(Runner::choice).collect())
    }
}

fn is_plain(choice: &Choice) -> bool {
    choice.variant.midstates == Midstates::One
}

/// The fastest of those that fit.
fn fastest(timed: &[Choice], fits: impl Fn(&Choice) -> bool) -> Option<Choice> {
    let fitting = timed.iter().filter(|choice| fits(choice));
    fitting.max_by(|a, b| a.rate.to_f64().total_cmp(&b.rate.to_f64())).copied()
}

/// The variant's form for one midstate.
fn single(variant: Variant) -> Variant {
    Variant { midstates: Midstates::One, adds: variant.adds }
}

/// The programs that run a variant, and whatever it does not take.
///
/// Any number of midstates comes up in a test: what does not go into the variant's own number is done
/// one by one.
pub(super) fn programs_of(
    device: &mut Device,
    variant: Variant,
    shape: Shape,
) -> Result<Programs, Trouble> {
    let plain = device.compile(single(variant), shape)?;
    let is_single = variant.midstates == Midstates::One;
    let rolled = if is_single { None } else { Some(device.compile(variant, shape)?) };
    Ok(Programs { plain, rolled })
}

/// A program that compiles and tells the truth, run for so long and until its batches are long enough
/// to be timed: a card raises its clock only when it is busy, and a driver may compile a second time
/// for the first of them.
fn fit(
    device: &mut Device,
    variant: Variant,
    shape: Shape,
    warm_up: Duration,
) -> Result<Runner, Trouble> {
    let programs = programs_of(device, variant, shape)?;
    self_tested(device, &programs)?;
    let program = programs.rolled.unwrap_or(programs.plain);
    let mut runner = Runner { program, nonces: 1 << 14, best: HashRate::default() };
    let begun = Instant::now();
    while runner.time(device)?.1 < SLICE / 2 && runner.nonces < MAX_NONCES {}
    while begun.elapsed() < warm_up {
        runner.time(device)?;
    }
    Ok(runner)
}

impl Runner {
    /// One batch: how fast it was and how long it took. The next has so many nonces that it takes
    /// about [`SLICE`].
    fn time(&mut self, device: &mut Device) -> Result<(HashRate, Duration), Trouble> {
        let midstates: Vec<_> = (0u32..)
            .take(self.program.midstates())
            .map(|version| Midstate { version, state: [version; 8] })
            .collect();
        let (range, _) = NonceRange::full().split(self.nonces);
        let scan = Scan {
            midstates: &midstates,
            second_block: SecondBlock { words: [1, 2, 3] },
            nonces: range,
            hit_mask: HitMask::for_top_word(0),
        };
        let (_, took) = device.scan(&self.program, &scan, TEST_PATIENCE)?;
        let ideal = self.nonces as f64 * SLICE.as_secs_f64() / took.as_secs_f64().max(1e-6);
        self.nonces =
            (ideal as u64).clamp(self.nonces / 4, self.nonces * 4).clamp(1 << 10, MAX_NONCES);
        let hashes = range.count() * midstates.len() as u64;
        Ok((HashRate::of(hashes, took.as_secs_f64()), took))
    }

    fn choice(&self) -> Choice {
        Choice { variant: self.program.variant(), shape: self.program.shape, rate: self.best }
    }
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

/// The file in which a card's tuning is kept.
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
        let text = cache_file::read(&self.0, FILE_MAX)?;
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
        let text = serde_json::to_string_pretty(&remembered)? + "\n";
        cache_file::replace(&self.0, &text)
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
            && RATES.contains(&choice.hashes_per_second)
            && fingerprint(variant)? == choice.shader;
        let rate = HashRate::from_f64(choice.hashes_per_second);
        sane.then_some(Choice { variant, shape, rate })
    };
    let (plain, rolled) = (choice(plain)?, choice(rolled)?);
    // As `measure` leaves it.
    let sane = plain.variant.midstates == Midstates::One && rolled.rate >= plain.rate;
    (ours && sane).then_some(Tuning { plain, rolled })
}

/// Tells one text of a shader from another.
fn fingerprint(variant: Variant) -> Option<String> {
    let text = Shader::new(variant).ok()?.wgsl(SHAPE).ok()?;
    Some(hex::encode(&sha256d(text.as_bytes())[..8]))
}
