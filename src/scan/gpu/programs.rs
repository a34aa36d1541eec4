//! The two compiled variants that mine, and the check that they tell the truth.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::device::{Device, Program, Trouble};
use super::shader::MAX_NONCES;
use super::worker::BATCH_DEADLINE;
use crate::scan::cpu::{Lie, Random, self_test};
use crate::scan::self_test::{Sample, known};
use crate::scan::{Hit, HitMask, Kernel, NonceRange, Scan};

/// How long a batch of a test may take. The first of a variant may have to be compiled once more by
/// the driver.
pub(super) const TEST_PATIENCE: Duration = Duration::from_secs(30);
/// Nonces of a control: so many that all of a large card has some of them, and so few that a small
/// one does them in some ten milliseconds.
const CONTROL_NONCES: u64 = 1 << 18;

/// What a device runs: one variant for single midstates, one for as many as it likes.
pub(super) struct Programs {
    /// For one midstate.
    pub plain: Program,
    /// For several; none where one at a time is fastest.
    pub rolled: Option<Program>,
}

impl Programs {
    /// How many midstates it likes to be handed.
    pub(super) fn midstates(&self) -> usize {
        self.rolled.as_ref().map_or(1, Program::midstates)
    }

    /// The program for so many midstates: [`Programs::midstates`], or one.
    pub(super) fn for_midstates(&self, count: usize) -> &Program {
        self.rolled.as_ref().filter(|rolled| rolled.midstates() == count).unwrap_or(&self.plain)
    }

    /// Whether the device still finds what there is to be found: on a hard target, one that has
    /// fallen silent looks like one without luck. Each program is given a block's header and a range
    /// with the nonce that solves it; `number` says which, and where in the range it is.
    pub(super) fn control(&self, device: &mut Device, number: u64) -> Result<(), Trouble> {
        let mut random = Random(number);
        for program in [Some(&self.plain), self.rolled.as_ref()].into_iter().flatten() {
            let known: Vec<_> = known().collect();
            let (name, header) = known[random.below(known.len() as u64) as usize];
            let sample = Sample::new(name, &header, program.midstates());
            let nonce = u32::from_le_bytes([header[76], header[77], header[78], header[79]]);
            let first = nonce.saturating_sub(random.below(CONTROL_NONCES) as u32);
            let (nonces, _) = NonceRange::full().after(first).split(CONTROL_NONCES);
            let scan = sample.scan(nonces, HitMask::for_top_word(0));
            let (outcome, _) = device.scan(program, &scan, BATCH_DEADLINE)?;
            let variant = program.variant();
            let solution = Hit { midstate: 0, nonce };
            let times = outcome.hits.iter().filter(|hit| **hit == solution).count();
            if times != 1 {
                let why =
                    format!("{variant} in a control: {name} was solved {times} times, not once");
                return Err(Trouble::Lies(why));
            }
            let is_hit = |hit: &Hit| {
                let tried = hit.midstate < program.midstates()
                    && u64::from(hit.nonce) >= u64::from(nonces.first())
                    && u64::from(hit.nonce) < nonces.end();
                tried && scan.hit_mask.admits(sample.h7(*hit))
            };
            if let Some(hit) = outcome.hits.iter().find(|hit| !is_hit(hit)) {
                let Hit { midstate, nonce } = hit;
                let why = format!("nonce {nonce:08x} of midstate {midstate} is no hit");
                return Err(Trouble::Lies(format!("{variant} in a control: {name}: {why}")));
            }
        }
        Ok(())
    }

    /// Into how many midstates at once `count` of them are cut next.
    pub(super) fn next_cut(&self, count: usize) -> usize {
        let most = self.midstates();
        if count >= most { most } else { 1 }
    }
}

/// A device that is examined: a kernel like any other, so that one self-test serves all.
pub(super) struct Examinee<'a> {
    programs: &'a Programs,
    /// The device, and what went wrong with it meanwhile.
    device: Mutex<(&'a mut Device, Option<Trouble>)>,
}

impl<'a> Examinee<'a> {
    pub(super) fn new(device: &'a mut Device, programs: &'a Programs) -> Self {
        Self { programs, device: Mutex::new((device, None)) }
    }

    fn device(&self) -> MutexGuard<'_, (&'a mut Device, Option<Trouble>)> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a test, and says what it came to: a device that fails meanwhile has not lied.
    pub(super) fn examine(
        self,
        test: impl FnOnce(&dyn Kernel) -> Result<(), Lie>,
    ) -> Result<(), Trouble> {
        let result = test(&self);
        match self.device().1.take() {
            Some(trouble) => Err(trouble),
            None => result.map_err(|lie| Trouble::Lies(lie.to_string())),
        }
    }

    /// Hits of one batch; in halves where there are too many for its list.
    fn batch(&self, scan: &Scan<'_>) -> Result<Vec<Hit>, Trouble> {
        let program = self.programs.for_midstates(scan.midstates.len());
        let (outcome, _) = self.device().0.scan(program, scan, TEST_PATIENCE)?;
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

impl std::fmt::Debug for Examinee<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Kernel for Examinee<'_> {
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
            let cut = self.programs.next_cut(scan.midstates.len() - first);
            let midstates = &scan.midstates[first..first + cut];
            let mut left: Option<NonceRange> = Some(scan.nonces);
            while let Some(nonces) = left {
                let (nonces, rest) = nonces.split(MAX_NONCES);
                left = rest;
                match self.batch(&Scan { midstates, nonces, ..*scan }) {
                    Ok(hits) => {
                        hashes += nonces.count() * cut as u64;
                        for hit in hits {
                            if found(Hit { midstate: first + hit.midstate, ..hit }).is_break() {
                                return hashes;
                            }
                        }
                    }
                    Err(trouble) => {
                        self.device().1.get_or_insert(trouble);
                        return hashes;
                    }
                }
            }
            first += cut;
        }
        hashes
    }
}

/// The self-test that every kernel has to pass.
pub(super) fn self_tested(device: &mut Device, programs: &Programs) -> Result<(), Trouble> {
    Examinee::new(device, programs).examine(self_test)
}
