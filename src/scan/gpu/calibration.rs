//! Measures which variant a card runs fastest, and in which shape.

use std::time::{Duration, Instant};

use super::adapter::{Gpu, GpuKind};
use super::deadlines;
use super::device::{Device, Program};
use super::error::DeviceError;
use super::programs::Programs;
use super::quarantine::{Probation, Quarantine};
use super::shader::{Adds, MAX_NONCES, Midstates, Shape, Variant};
use super::tuning::{Choice, Tuning, candidates};
use crate::scan::{HitMask, Midstate, NonceRange, Scan, SecondBlock};
use crate::units::HashRate;

/// About how long one timed batch takes.
const BATCH: Duration = Duration::from_millis(15);
/// How many timed batches each candidate gets, in turns. The best of them counts: other load on the
/// machine makes a batch longer, never shorter.
const TURNS: usize = 5;
/// How long the whole calibration may take. After that the best candidate so far is used: mining should
/// not wait for a driver that compiles for many seconds.
const BUDGET: Duration = Duration::from_secs(30);
/// How long a card is kept busy before anything is timed: it raises its clock only under load.
const WARM_UP: Duration = Duration::from_millis(150);

/// The other shapes that are tried for the fastest variants.
const WORKGROUP_SIZES: [u32; 2] = [64, 256];
const NONCES_PER_INVOCATION: [u32; 3] = [1, 4, 64];

/// One calibration of a device.
pub(super) struct Calibration<'a> {
    device: &'a mut Device,
    gpu: &'a Gpu,
    /// Candidates that may have made the device fail before.
    quarantine: &'a Quarantine,
    /// Called after each step that has a deadline.
    step_done: &'a dyn Fn(),
    begun: Instant,
    /// How long it may take.
    pub(super) budget: Duration,
    /// Why the first candidate that failed did so.
    first_failure: Option<String>,
}

/// A candidate that has passed its self-test.
struct TimedProgram {
    program: Program,
    /// Nonces of its next batch.
    nonces: u64,
    /// The rate of its best batch.
    best: HashRate,
}

impl<'a> Calibration<'a> {
    /// Prepares a calibration; its time budget starts now.
    pub(super) fn new(
        device: &'a mut Device,
        gpu: &'a Gpu,
        quarantine: &'a Quarantine,
        step_done: &'a dyn Fn(),
    ) -> Self {
        let begun = Instant::now();
        Self { device, gpu, quarantine, step_done, begun, budget: BUDGET, first_failure: None }
    }

    /// Measures which variants and shapes are fastest. Each that is timed has passed the self-test.
    ///
    /// # Errors
    /// When the device fails, or no variant for one midstate passes.
    pub(super) fn measure(mut self) -> Result<Tuning, DeviceError> {
        let software = self.gpu.kind == GpuKind::Software;
        let mut candidates = candidates(self.gpu);
        // A software device has no multiply-add units to steer additions to.
        candidates.retain(|(variant, _)| !software || variant.adds == Adds::Plain);
        let (quarantined, candidates): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|(variant, shape)| self.is_quarantined(*variant, *shape));
        let warm_up = if software { Duration::ZERO } else { WARM_UP };
        let mut timed = self.time_in_turns(candidates, warm_up)?;
        if fastest(&timed, is_plain).is_none() {
            // The device may have failed for another reason, so these are the last resort.
            timed.extend(self.time_in_turns(quarantined, Duration::ZERO)?);
        }
        let Some(mut plain) = fastest(&timed, is_plain) else {
            let why = self.first_failure.unwrap_or_default();
            let why = format!("no variant of the shader passed its self-test: {why}");
            return Err(DeviceError::WrongResult(why));
        };
        let mut rolled = fastest(&timed, |_| true).unwrap_or(plain);
        if software {
            return Ok(Tuning { plain, rolled });
        }
        // First the workgroup size, then the nonces of each invocation.
        let largest = self.device.largest_workgroup();
        for step in 0..2 {
            if self.budget_is_spent() {
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
            candidates.retain(|(variant, shape)| !self.is_quarantined(*variant, *shape));
            let timed = self.time_in_turns(candidates, Duration::ZERO)?;
            // When the budget is spent, one of them may not have been timed again.
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

    /// Whether such a candidate, or its form for one midstate, may have made the device fail before.
    fn is_quarantined(&self, variant: Variant, shape: Shape) -> bool {
        self.quarantine.contains(variant, shape)
            || self.quarantine.contains(variant.single(), shape)
    }

    fn budget_is_spent(&self) -> bool {
        self.begun.elapsed() > self.budget
    }

    /// Times candidates in turns, and takes the best batch of each. Skips those that the driver does not
    /// compile or that compute wrong results, and those for which there is no time left.
    ///
    /// # Errors
    /// When the device fails.
    fn time_in_turns(
        &mut self,
        candidates: Vec<(Variant, Shape)>,
        warm_up: Duration,
    ) -> Result<Vec<Choice>, DeviceError> {
        let mut programs: Vec<TimedProgram> = Vec::new();
        for (variant, shape) in candidates {
            let skipped = |why: &dyn std::fmt::Display| {
                tracing::debug!("gpu:{}: {variant} ({shape}) is skipped: {why}", self.gpu.index);
            };
            if self.budget_is_spent() && programs.iter().any(|timed| timed.program.midstates() == 1)
            {
                let spent = self.budget.as_secs();
                skipped(&format!("calibration has already taken {spent} s"));
                continue;
            }
            self.quarantine.begin(Probation::Variant(variant, shape));
            let warm_up = if programs.is_empty() { warm_up } else { Duration::ZERO };
            match TimedProgram::prepare(self.device, variant, shape, warm_up) {
                Ok(program) => programs.push(program),
                Err(error @ (DeviceError::WrongResult(_) | DeviceError::Refused(_))) => {
                    skipped(&error);
                    self.first_failure.get_or_insert_with(|| format!("{variant}: {error}"));
                }
                Err(error) => return Err(error),
            }
            self.quarantine.clear();
            (self.step_done)();
        }
        for turn in 0..TURNS {
            if turn > 0 && self.budget_is_spent() {
                break;
            }
            for timed in &mut programs {
                let Program { shape, .. } = timed.program;
                self.quarantine.begin(Probation::Variant(timed.program.variant(), shape));
                let (rate, _) = timed.run_batch(self.device)?;
                if rate > timed.best {
                    timed.best = rate;
                }
                self.quarantine.clear();
                (self.step_done)();
            }
        }
        Ok(programs.iter().map(TimedProgram::choice).collect())
    }
}

fn is_plain(choice: &Choice) -> bool {
    choice.variant.midstates == Midstates::One
}

/// The fastest choice that the filter accepts.
fn fastest(timed: &[Choice], filter: impl Fn(&Choice) -> bool) -> Option<Choice> {
    let accepted = timed.iter().filter(|choice| filter(choice));
    accepted.max_by(|a, b| a.rate.to_f64().total_cmp(&b.rate.to_f64())).copied()
}

impl TimedProgram {
    /// Compiles and tests a variant, then runs it for `warm_up` and until its batches are long enough to
    /// be timed: a card raises its clock only under load, and a driver may compile again for the first
    /// batch.
    ///
    /// # Errors
    /// When the driver refuses the variant, it computes wrong results, or the device fails.
    fn prepare(
        device: &mut Device,
        variant: Variant,
        shape: Shape,
        warm_up: Duration,
    ) -> Result<Self, DeviceError> {
        let programs = Programs::of_variant(device, variant, shape)?;
        programs.self_test(device)?;
        let program = programs.rolled.unwrap_or(programs.plain);
        let mut timed = Self { program, nonces: 1 << 14, best: HashRate::default() };
        let begun = Instant::now();
        while timed.run_batch(device)?.1 < BATCH / 2 && timed.nonces < MAX_NONCES {}
        while begun.elapsed() < warm_up {
            timed.run_batch(device)?;
        }
        Ok(timed)
    }

    /// Runs one batch. Returns its rate and how long it took, and sizes the next to take about [`BATCH`].
    fn run_batch(&mut self, device: &mut Device) -> Result<(HashRate, Duration), DeviceError> {
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
        let (_, took) = device.scan(&self.program, &scan, deadlines::TEST_BATCH)?;
        let ideal = self.nonces as f64 * BATCH.as_secs_f64() / took.as_secs_f64().max(1e-6);
        self.nonces =
            (ideal as u64).clamp(self.nonces / 4, self.nonces * 4).clamp(1 << 10, MAX_NONCES);
        let hashes = range.count() * midstates.len() as u64;
        Ok((HashRate::of(hashes, took.as_secs_f64()), took))
    }

    fn choice(&self) -> Choice {
        Choice { variant: self.program.variant(), shape: self.program.shape, rate: self.best }
    }
}
