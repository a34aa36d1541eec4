//! The compiled programs that a device runs, and the tests that they compute correctly.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::deadlines;
use super::device::{Device, Program};
use super::error::DeviceError;
use super::shader::{MAX_NONCES, Midstates, Shape, Variant};
use super::tuning::Tuning;
use crate::scan::self_test::{Random, Sample, SelfTestError, known, self_test};
use crate::scan::{Hit, HitMask, Kernel, NonceRange, Scan};

/// Nonces of a known-answer test: enough that every compute unit of a large card gets some, and few
/// enough that a small card needs only some ten milliseconds.
const KNOWN_ANSWER_NONCES: u64 = 1 << 18;

/// What a device runs: one program for single midstates, one for several at once.
pub(super) struct Programs {
    /// For one midstate.
    pub plain: Program,
    /// For several midstates; `None` where one at a time is fastest.
    pub rolled: Option<Program>,
}

impl Programs {
    /// Compiles and tests what `tuning` names; the program for several midstates only where versions
    /// may be rolled.
    ///
    /// # Errors
    /// When the driver refuses a variant, a program computes wrong results, or the device fails.
    pub(super) fn of_tuning(
        device: &mut Device,
        tuning: &Tuning,
        version_rolling: bool,
    ) -> Result<Self, DeviceError> {
        let plain = device.compile(tuning.plain.variant, tuning.plain.shape)?;
        let rolls = version_rolling && tuning.rolled.variant.midstates != Midstates::One;
        let rolled = if rolls {
            Some(device.compile(tuning.rolled.variant, tuning.rolled.shape)?)
        } else {
            None
        };
        let programs = Self { plain, rolled };
        programs.self_test(device)?;
        Ok(programs)
    }

    /// Compiles a variant, and its form for one midstate. A self-test hands out any number of midstates;
    /// those that do not fill the variant are hashed one by one.
    ///
    /// # Errors
    /// When the driver refuses either, or the device fails.
    pub(super) fn of_variant(
        device: &mut Device,
        variant: Variant,
        shape: Shape,
    ) -> Result<Self, DeviceError> {
        let plain = device.compile(variant.single(), shape)?;
        let is_single = variant.midstates == Midstates::One;
        let rolled = if is_single { None } else { Some(device.compile(variant, shape)?) };
        Ok(Self { plain, rolled })
    }

    /// The number of midstates that it hashes at once.
    pub(super) fn midstates(&self) -> usize {
        self.rolled.as_ref().map_or(1, Program::midstates)
    }

    /// The program for this many midstates: [`Programs::midstates`], or one.
    pub(super) fn for_midstates(&self, count: usize) -> &Program {
        self.rolled.as_ref().filter(|rolled| rolled.midstates() == count).unwrap_or(&self.plain)
    }

    /// How many of `count` midstates go into the next batch.
    fn next_batch_midstates(&self, count: usize) -> usize {
        let most = self.midstates();
        if count >= most { most } else { 1 }
    }

    /// Runs the self-test that every kernel has to pass.
    ///
    /// # Errors
    /// What was wrong, or that the device failed.
    pub(super) fn self_test(&self, device: &mut Device) -> Result<(), DeviceError> {
        KernelUnderTest::new(device, self).run(self_test)
    }

    /// Checks that the device still finds what it should. On a hard target a device that has stopped
    /// finding anything looks like one without luck. Each program hashes a block's header over a range
    /// that holds the nonce that solves it; `number` seeds the choice of block and range.
    ///
    /// # Errors
    /// When a program does not report the nonce once, or reports others; or when the device fails.
    pub(super) fn known_answer_test(
        &self,
        device: &mut Device,
        number: u64,
    ) -> Result<(), DeviceError> {
        let mut random = Random(number);
        for program in [Some(&self.plain), self.rolled.as_ref()].into_iter().flatten() {
            let known: Vec<_> = known().collect();
            let (name, header) = known[random.below(known.len() as u64) as usize];
            let sample = Sample::new(name, &header, program.midstates());
            let nonce = u32::from_le_bytes([header[76], header[77], header[78], header[79]]);
            let first = nonce.saturating_sub(random.below(KNOWN_ANSWER_NONCES) as u32);
            let (nonces, _) = NonceRange::full().after(first).split(KNOWN_ANSWER_NONCES);
            let scan = sample.scan(nonces, HitMask::for_top_word(0));
            let (outcome, _) = device.scan(program, &scan, deadlines::BATCH)?;
            let wrong = |why: String| {
                let variant = program.variant();
                Err(DeviceError::WrongResult(format!(
                    "{variant} failed a known-answer test: {name}: {why}"
                )))
            };
            let solution = Hit { midstate: 0, nonce };
            let times = outcome.hits.iter().filter(|hit| **hit == solution).count();
            if times != 1 {
                return wrong(format!("the solution was reported {times} times, not once"));
            }
            let is_hit = |hit: &Hit| {
                let tried = hit.midstate < program.midstates()
                    && u64::from(hit.nonce) >= u64::from(nonces.first())
                    && u64::from(hit.nonce) < nonces.end();
                tried && scan.hit_mask.admits(sample.h7(*hit))
            };
            if let Some(hit) = outcome.hits.iter().find(|hit| !is_hit(hit)) {
                let Hit { midstate, nonce } = hit;
                return wrong(format!("nonce {nonce:08x} of midstate {midstate} is not a hit"));
            }
        }
        Ok(())
    }
}

/// Programs on a device as a [`Kernel`], so that the self-test of the CPU's kernels serves them, too.
pub(super) struct KernelUnderTest<'a> {
    programs: &'a Programs,
    /// The device, and its first error during the test.
    device: Mutex<(&'a mut Device, Option<DeviceError>)>,
}

impl<'a> KernelUnderTest<'a> {
    pub(super) fn new(device: &'a mut Device, programs: &'a Programs) -> Self {
        Self { programs, device: Mutex::new((device, None)) }
    }

    fn device(&self) -> MutexGuard<'_, (&'a mut Device, Option<DeviceError>)> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a test.
    ///
    /// # Errors
    /// The device's own error, if it failed during the test; else what was wrong.
    pub(super) fn run(
        self,
        test: impl FnOnce(&dyn Kernel) -> Result<(), SelfTestError>,
    ) -> Result<(), DeviceError> {
        let result = test(&self);
        match self.device().1.take() {
            Some(error) => Err(error),
            None => result.map_err(|error| DeviceError::WrongResult(error.to_string())),
        }
    }

    /// The hits of one batch, which is halved while it has more than its list holds.
    fn batch(&self, scan: &Scan<'_>) -> Result<Vec<Hit>, DeviceError> {
        let program = self.programs.for_midstates(scan.midstates.len());
        let (outcome, _) = self.device().0.scan(program, scan, deadlines::TEST_BATCH)?;
        if !outcome.overflowed() {
            return Ok(outcome.hits);
        }
        let (head, rest) = scan.nonces.split(scan.nonces.count() / 2);
        let mut hits = self.batch(&Scan { nonces: head, ..*scan })?;
        if let Some(nonces) = rest {
            hits.extend(self.batch(&Scan { nonces, ..*scan })?);
        }
        Ok(hits)
    }
}

impl std::fmt::Debug for KernelUnderTest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Kernel for KernelUnderTest<'_> {
    fn name(&self) -> &'static str {
        self.programs.for_midstates(self.programs.midstates()).variant().name()
    }

    fn midstates(&self) -> usize {
        self.programs.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        let mut hashes = 0;
        let mut first = 0;
        while first < scan.midstates.len() {
            let count = self.programs.next_batch_midstates(scan.midstates.len() - first);
            let midstates = &scan.midstates[first..first + count];
            let mut left: Option<NonceRange> = Some(scan.nonces);
            while let Some(nonces) = left {
                let (nonces, rest) = nonces.split(MAX_NONCES);
                left = rest;
                match self.batch(&Scan { midstates, nonces, ..*scan }) {
                    Ok(hits) => {
                        hashes += nonces.count() * count as u64;
                        for hit in hits {
                            if found(Hit { midstate: first + hit.midstate, ..hit }).is_break() {
                                return hashes;
                            }
                        }
                    }
                    Err(error) => {
                        self.device().1.get_or_insert(error);
                        return hashes;
                    }
                }
            }
            first += count;
        }
        hashes
    }
}
