//! Measures how fast backends hash, and checks what they found meanwhile.
//!
//! Each runs in the very loop that mines, on a feed of its own that records the ranges it
//! deals out and the candidates that come back. The results take turns in short slices, so that
//! whatever else the machine does hits all of them alike. After each slice, off the clock, every
//! candidate is hashed again by plain code, and a random sample of the ranges is searched again.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash as _;
use rayon::prelude::*;

use crate::chain::merkle::sha256d;
use crate::chain::target::{HashRate, Target};
use crate::engine::{SearchSpace, Taken};
use crate::job::{Candidate, Job, JobKey, MerkleRoot, Prepared, TimeRange, VersionMask, WorkUnit};
use crate::scan::cpu::{Differ, Random};
use crate::scan::{BackendError, BackendInfo, Feed, Hit, NonceRange, Scanner};

/// The longest slice. Shorter ones share bad moments more fairly, longer ones cost less to start.
const SLICE_MAX: Duration = Duration::from_millis(250);
/// The shortest slice: ranges of a millisecond must not matter at its end.
const SLICE_MIN: Duration = Duration::from_millis(20);
/// How many samples a result gets at least, where the time allows.
const SAMPLES_MIN: u32 = 5;

/// How many leading zero bits make a candidate. Few enough for a sample to hold some, and so many
/// that reporting them costs a fast kernel less than a thousandth.
const ZEROS_CPU: u32 = 16;
/// The same for a GPU, which hashes a hundred times as much and reports through a short list.
const ZEROS_GPU: u32 = 20;

/// About how many hashes of each slice are done again by plain code.
const SAMPLED_HASHES: u64 = 1 << 18;
/// At most so many of them in one place.
const SAMPLE: u64 = 1 << 14;

/// What is to be measured.
#[derive(Clone)]
pub struct Plan {
    /// The backends.
    pub scanners: Vec<Arc<dyn Scanner>>,
    /// How long each result is measured.
    pub run_for: Duration,
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is measured next.
    pub next: BackendInfo,
    /// Whether with rolled versions.
    pub version_rolling: bool,
    /// Slices done.
    pub done: usize,
    /// Slices in all.
    pub slices: usize,
    /// How much longer the rest takes, roughly.
    pub left: Duration,
}

/// What was measured of one backend.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The backend and its threads.
    pub info: BackendInfo,
    /// Whether with rolled versions.
    pub version_rolling: bool,
    /// Hashes per second, slice by slice.
    pub rates: Vec<HashRate>,
    /// Whether its candidates were exactly those that plain code finds.
    pub verified: Result<Tried, Disagreement>,
}

/// What it was tried with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Candidates hashed again.
    pub candidates: u64,
    /// Hashes of the sampled ranges.
    pub sampled: u64,
    /// Candidates that there are in the sampled ranges.
    pub in_sample: u64,
}

/// How a backend differed from plain code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// It reported what is no candidate, or lies outside of its range.
    #[error("reported nonce {nonce:08x} of version {version:08x}, which is no candidate")]
    Wrong {
        /// The version.
        version: u32,
        /// The nonce.
        nonce: u32,
    },
    /// It reported one more than once.
    #[error("reported nonce {nonce:08x} of version {version:08x} more than once")]
    Twice {
        /// The version.
        version: u32,
        /// The nonce.
        nonce: u32,
    },
    /// A sampled range held others.
    #[error(
        "of {expected} candidates of a range {missing} are missing and {extra} are too many; \
         the first of them: nonce {nonce:08x}"
    )]
    Sample {
        /// How many there are.
        expected: usize,
        /// How many it left out.
        missing: usize,
        /// How many it made up.
        extra: usize,
        /// The nonce of the first of either.
        nonce: u32,
    },
    /// It counted other than it did.
    #[error("{counted} hashes counted, and {dealt} dealt out")]
    Count {
        /// What it said.
        counted: u64,
        /// What it was to do.
        dealt: u64,
    },
}

/// A backend with which nothing can be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend {backend}")]
pub struct BenchError {
    /// As `--backend` names it.
    pub backend: String,
    /// What is wrong with it.
    #[source]
    pub error: BackendError,
}

/// Rates in figures, all in hashes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the slices were faster.
    pub median: HashRate,
    /// The slowest slice.
    pub min: HashRate,
    /// The fastest slice.
    pub max: HashRate,
    /// How many slices.
    pub samples: usize,
}

impl Measurement {
    /// The slices in figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut rates: Vec<f64> = self.rates.iter().map(|rate| rate.to_f64()).collect();
        rates.sort_by(f64::total_cmp);
        let at = |index: usize| rates.get(index).copied().unwrap_or_default();
        let last = rates.len().saturating_sub(1);
        Summary {
            median: HashRate::from_f64(f64::midpoint(at(last / 2), at(last.div_ceil(2)))),
            min: HashRate::from_f64(at(0)),
            max: HashRate::from_f64(at(last)),
            samples: rates.len(),
        }
    }
}

/// Measures what `plan` says, plain and with rolled versions each. Before each slice the caller is
/// shown how far it is, and may break it off: then there is `Ok(None)`.
///
/// # Errors
/// When a backend is not fit for use, or fails meanwhile.
pub fn measure(
    plan: &Plan,
    shown: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<Vec<Measurement>>, BenchError> {
    let mut entries = Vec::new();
    for scanner in &plan.scanners {
        let failed = |error| BenchError { backend: scanner.info().name(), error };
        scanner.prepare().map_err(failed)?;
        for version_rolling in [false, true] {
            let measurement = Measurement {
                info: scanner.info_when(version_rolling),
                version_rolling,
                rates: Vec::new(),
                verified: Ok(Tried::default()),
            };
            entries.push((scanner, measurement));
        }
    }
    let (slice, samples) = slices(plan.run_for);
    let slices = samples as usize * entries.len();
    let mut random = Random(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ()));
    let (mut done, begun) = (0, Instant::now());
    for _ in 0..samples {
        for (scanner, measurement) in &mut entries {
            let each = if done == 0 { slice } else { begun.elapsed() / done };
            let progress = Progress {
                next: measurement.info.clone(),
                version_rolling: measurement.version_rolling,
                done: done as usize,
                slices,
                left: each * (slices as u32).saturating_sub(done),
            };
            if shown(&progress).is_break() {
                return Ok(None);
            }
            let (rate, tried) =
                one_slice(&***scanner, measurement.version_rolling, slice, &mut random)
                    .map_err(|error| BenchError { backend: measurement.info.name(), error })?;
            measurement.rates.push(rate);
            measurement.verified = match (measurement.verified, tried) {
                (Ok(before), Ok(now)) => Ok(Tried {
                    candidates: before.candidates + now.candidates,
                    sampled: before.sampled + now.sampled,
                    in_sample: before.in_sample + now.in_sample,
                }),
                (Err(disagreement), _) | (_, Err(disagreement)) => Err(disagreement),
            };
            done += 1;
        }
    }
    Ok(Some(entries.into_iter().map(|(_, measurement)| measurement).collect()))
}

/// How long one slice is, and how many a result gets.
fn slices(run_for: Duration) -> (Duration, u32) {
    let slice = (run_for / SAMPLES_MIN).clamp(SLICE_MIN, SLICE_MAX).min(run_for);
    let samples = run_for.as_secs_f64() / slice.as_secs_f64().max(1e-9);
    (slice, (samples.round() as u32).max(1))
}

/// One slice, and what its candidates are worth.
fn one_slice(
    scanner: &dyn Scanner,
    version_rolling: bool,
    slice: Duration,
    random: &mut Random,
) -> Result<(HashRate, Result<Tried, Disagreement>), BackendError> {
    let zeros = if scanner.info().backend == "gpu" { ZEROS_GPU } else { ZEROS_CPU };
    let course = Course::new(version_rolling, zeros, random.clone(), slice);
    random.next();
    scanner.run(&course)?;
    let rate = HashRate::of(course.hashes.load(Ordering::Relaxed), course.elapsed());
    Ok((rate, course.verify(random)))
}

/// A header of random numbers, of which only nonce, time and perhaps version are to be changed.
fn job(version_rolling: bool, zeros: u32, random: &mut Random) -> Job {
    let header = random.header();
    let mut target = [0xff; 32];
    target[..4].copy_from_slice(&(u32::MAX >> zeros).to_be_bytes());
    let target = Target::from_be_bytes(target);
    let part = |at: usize| std::array::from_fn(|i| header[at + i]);
    Job {
        key: JobKey { connection: 0, number: 0 },
        version: 0x2000_0000,
        version_mask: if version_rolling { VersionMask::BIP320 } else { VersionMask::NONE },
        previous_block_hash: BlockHash::from_byte_array(part(4)),
        height: None,
        nbits: target.to_nbits(),
        ntime: TimeRange::fixed(u32::from_le_bytes(std::array::from_fn(|i| header[68 + i]))),
        merkle_root: MerkleRoot::Fixed(part(36)),
        share_target: target,
        network_target: target,
        clean: true,
        ends_when_solved: false,
        body: None,
        received: Instant::now(),
    }
}

/// A pair that a kernel reported.
struct Found {
    prepared: Arc<Prepared>,
    /// Index into all of the prepared midstates.
    midstate: usize,
    nonce: u32,
    /// Whether it lies in the unit that it was reported for.
    inside: bool,
}

/// Deals out ranges for as long as a slice lasts, and records what becomes of them.
struct Course {
    version_rolling: bool,
    zeros: u32,
    begun: Instant,
    slice: Duration,
    dealer: Mutex<Dealer>,
    found: Mutex<Vec<Found>>,
    hashes: AtomicU64,
    /// When the last range was counted, in nanoseconds after the start.
    ended: AtomicU64,
}

struct Dealer {
    space: SearchSpace,
    random: Random,
    dealt: Vec<WorkUnit>,
    returned: Vec<WorkUnit>,
}

impl Course {
    fn new(version_rolling: bool, zeros: u32, mut random: Random, slice: Duration) -> Self {
        let space = SearchSpace::new(Arc::new(job(version_rolling, zeros, &mut random)), 0);
        let (dealt, returned) = (Vec::new(), Vec::new());
        Self {
            version_rolling,
            zeros,
            dealer: Mutex::new(Dealer { space, random, dealt, returned }),
            found: Mutex::default(),
            hashes: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            slice,
            begun: Instant::now(),
        }
    }

    /// Seconds from the start to the end of the last range.
    fn elapsed(&self) -> f64 {
        Duration::from_nanos(self.ended.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Compares what was found with what there is.
    fn verify(self, random: &mut Random) -> Result<Tried, Disagreement> {
        let Dealer { dealt, returned, .. } = held(self.dealer.into_inner());
        let found = held(self.found.into_inner());

        let size = |unit: &WorkUnit| unit.nonces.count() * unit.midstates.len() as u64;
        let sum = |units: &[WorkUnit]| units.iter().map(size).sum::<u64>();
        let all = sum(&dealt) - sum(&returned);
        let counted = self.hashes.into_inner();
        if counted != all {
            return Err(Disagreement::Count { counted, dealt: all });
        }

        let mut seen = HashSet::new();
        for found in &found {
            let (version, nonce) = (found.version(), found.nonce);
            if !found.inside || !found.is_candidate(self.zeros) {
                return Err(Disagreement::Wrong { version, nonce });
            }
            if !seen.insert((Arc::as_ptr(&found.prepared), found.midstate, nonce)) {
                return Err(Disagreement::Twice { version, nonce });
            }
        }

        // What was given back was done later, perhaps, or not at all.
        let whole = |unit: &&WorkUnit| !returned.iter().any(|returned| overlap(unit, returned));
        let sample = sample(dealt.iter().filter(whole), random);
        let sampled = sum(&sample);
        let in_sample = sample
            .into_par_iter()
            .map(|unit| compare(&unit, &found, self.zeros))
            .sum::<Result<u64, _>>()?;
        Ok(Tried { candidates: found.len() as u64, sampled, in_sample })
    }
}

/// The value of a mutex that no thread holds any more, or that one left by a panic.
fn held<T>(value: Result<T, PoisonError<T>>) -> T {
    value.unwrap_or_else(PoisonError::into_inner)
}

/// Whether two units have a hash in common.
fn overlap(a: &WorkUnit, b: &WorkUnit) -> bool {
    Arc::ptr_eq(&a.prepared, &b.prepared)
        && a.midstates.start < b.midstates.end
        && b.midstates.start < a.midstates.end
        && u64::from(a.nonces.first()) < b.nonces.end()
        && u64::from(b.nonces.first()) < a.nonces.end()
}

/// Pieces of `units` at random, none twice: about [`SAMPLED_HASHES`], or all where there are fewer.
fn sample<'a>(units: impl Iterator<Item = &'a WorkUnit>, random: &mut Random) -> Vec<WorkUnit> {
    // Each unit with the number of its first piece.
    let (mut numbered, mut pieces) = (Vec::new(), 0);
    for unit in units {
        numbered.push((pieces, unit));
        pieces += unit.nonces.count().div_ceil(piece_nonces(unit));
    }
    let mut chosen = HashSet::new();
    while (chosen.len() as u64) < pieces.min(SAMPLED_HASHES / SAMPLE) {
        chosen.insert(random.below(pieces));
    }
    let piece = |number: u64| {
        let at = numbered.partition_point(|(first, _)| *first <= number).checked_sub(1)?;
        let (first, unit) = numbered[at];
        let skipped = (number - first) * piece_nonces(unit);
        let (nonces, _) = NonceRange::new(
            (u64::from(unit.nonces.first()) + skipped) as u32,
            unit.nonces.count() - skipped,
        )?
        .split(piece_nonces(unit));
        Some(WorkUnit { nonces, ..unit.clone() })
    };
    chosen.into_iter().filter_map(piece).collect()
}

/// How many nonces of a unit make a piece of a sample.
fn piece_nonces(unit: &WorkUnit) -> u64 {
    (SAMPLE / unit.midstates.len().max(1) as u64).max(1)
}

/// Searches a unit again and compares. Returns how many candidates it holds.
fn compare(unit: &WorkUnit, found: &[Found], zeros: u32) -> Result<u64, Disagreement> {
    let nonces = u64::from(unit.nonces.first())..unit.nonces.end();
    let reported: Vec<Hit> = found
        .iter()
        .filter(|found| Arc::ptr_eq(&found.prepared, &unit.prepared))
        .filter(|found| unit.midstates.contains(&found.midstate))
        .filter(|found| nonces.contains(&found.nonce.into()))
        .map(|found| Hit { midstate: found.midstate - unit.midstates.start, nonce: found.nonce })
        .collect();
    let mut expected = Vec::new();
    for midstate in 0..unit.midstates.len() {
        let mut header = serialize(&Candidate { unit, midstate, nonce: 0 }.header());
        for nonce in nonces.clone() {
            let nonce = nonce as u32;
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            if has_zeros(&header, zeros) {
                expected.push(Hit { midstate, nonce });
            }
        }
    }
    match Differ::between(&expected, &reported) {
        None => Ok(expected.len() as u64),
        Some(Differ { missing, extra, first }) => Err(Disagreement::Sample {
            expected: expected.len(),
            missing,
            extra,
            nonce: first.nonce,
        }),
    }
}

/// Whether a header's hash begins, as it is displayed, with so many zero bits.
fn has_zeros(header: &[u8], zeros: u32) -> bool {
    let [.., a, b, c, d] = sha256d(header);
    u32::from_le_bytes([a, b, c, d]).leading_zeros() >= zeros
}

impl Found {
    fn version(&self) -> u32 {
        self.prepared.midstates.get(self.midstate).map_or(0, |midstate| midstate.version)
    }

    fn is_candidate(&self, zeros: u32) -> bool {
        let Prepared { job, merkle_root, ntime, .. } = &*self.prepared;
        let header = job.header(self.version(), *merkle_root, *ntime, self.nonce);
        has_zeros(&serialize(&header), zeros)
    }
}

impl Feed for Course {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        let passed = self.begun.elapsed();
        let mut dealer: MutexGuard<'_, _> = held(self.dealer.lock());
        let Dealer { space, random, dealt, .. } = &mut *dealer;
        // On a machine with other things to do, a slice may be over before it has begun.
        if passed >= self.slice && !dealt.is_empty() {
            return None;
        }
        loop {
            match space.take(midstates, nonces, Instant::now()) {
                Taken::Unit(unit) => {
                    dealt.push(unit.clone());
                    return Some(unit);
                }
                // A machine that is through with one header gets another.
                Taken::Later(_) | Taken::Exhausted => {
                    let job = job(self.version_rolling, self.zeros, random);
                    *space = SearchSpace::new(Arc::new(job), 0);
                }
            }
        }
    }

    fn try_next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        self.next(midstates, nonces)
    }

    fn give_back(&self, unit: WorkUnit) {
        let mut dealer = held(self.dealer.lock());
        dealer.returned.push(unit.clone());
        dealer.space.put_back(unit);
    }

    fn has_ended(&self) -> bool {
        self.begun.elapsed() >= self.slice
    }

    #[cold]
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        let nonces = u64::from(unit.nonces.first())..unit.nonces.end();
        let found = Found {
            prepared: unit.prepared.clone(),
            midstate: unit.midstates.start + hit.midstate,
            nonce: hit.nonce,
            inside: hit.midstate < unit.midstates.len() && nonces.contains(&hit.nonce.into()),
        };
        held(self.found.lock()).push(found);
        ControlFlow::Continue(())
    }

    fn count(&self, _: usize, hashes: u64) {
        self.hashes.fetch_add(hashes, Ordering::Relaxed);
        self.ended.fetch_max(self.begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Kernel;
    use crate::scan::cpu::{CpuScanner, Fault, KernelName, Liar, Sha2};

    fn plan(kernels: Vec<Arc<dyn Kernel>>) -> Plan {
        let scanner = |kernel: &Arc<dyn Kernel>, threads| {
            Arc::new(CpuScanner::new(kernel.clone(), threads, 100).unwrap()) as Arc<dyn Scanner>
        };
        let scanners = kernels.iter().flat_map(|kernel| [1, 2].map(|n| scanner(kernel, n)));
        Plan { scanners: scanners.collect(), run_for: Duration::from_millis(60) }
    }

    fn measured(plan: &Plan) -> Vec<Measurement> {
        measure(plan, &mut |_| ControlFlow::Continue(())).unwrap().unwrap()
    }

    #[test]
    fn every_kernel_is_measured_and_found_true() {
        let kernels: Vec<_> = KernelName::all().filter_map(|name| name.kernel().ok()).collect();
        let measured = measured(&plan(kernels.clone()));
        assert_eq!(measured.len(), 4 * kernels.len());
        for result in measured {
            let summary = result.summary();
            assert_eq!(summary.samples, 3);
            assert!(summary.min.to_f64() > 0.0 && summary.min <= summary.median);
            assert!(summary.median <= summary.max);
            let tried = result.verified.unwrap();
            assert!(tried.sampled > 0, "{tried:?}");
            assert!(tried.candidates >= tried.in_sample);
        }
    }

    #[test]
    fn a_liar_is_not_verified() {
        for fault in [Fault::Leaves, Fault::MakesUp, Fault::Twice, Fault::Miscounts] {
            let liar = Arc::new(Liar { kernel: Arc::new(Sha2), fault });
            let mut plan = plan(vec![liar]);
            // Long enough for some candidates to be there to be lied about.
            plan.run_for = Duration::from_millis(400);
            for result in measured(&plan) {
                let disagreement = result.verified.unwrap_err();
                let told = match fault {
                    Fault::Leaves => matches!(disagreement, Disagreement::Sample { .. }),
                    Fault::MakesUp => matches!(disagreement, Disagreement::Wrong { .. }),
                    Fault::Twice => matches!(disagreement, Disagreement::Twice { .. }),
                    _ => matches!(disagreement, Disagreement::Count { .. }),
                };
                assert!(told, "{fault:?}: {disagreement}");
            }
        }
    }

    #[test]
    fn it_can_be_broken_off() {
        let mut seen = 0;
        let broken_off = measure(&plan(vec![Arc::new(Sha2)]), &mut |progress| {
            assert_eq!((progress.done, progress.slices), (seen, 12));
            seen += 1;
            if seen == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(broken_off.unwrap().is_none());
        assert_eq!(seen, 4);
    }

    #[test]
    fn slices_are_many_and_not_too_short() {
        let ms = Duration::from_millis;
        assert_eq!(slices(ms(5_000)), (ms(250), 20));
        assert_eq!(slices(ms(1_000)), (ms(200), 5));
        assert_eq!(slices(ms(60)), (ms(20), 3));
        assert_eq!(slices(ms(7)), (ms(7), 1));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let with = |rates: &[f64]| Measurement {
            info: CpuScanner::new(Arc::new(Sha2), 1, 100).unwrap().info(),
            version_rolling: false,
            rates: rates.iter().map(|rate| HashRate::from_f64(*rate)).collect(),
            verified: Ok(Tried::default()),
        };
        assert_eq!(with(&[3.0, 1.0, 2.0]).summary().median, HashRate::from_f64(2.0));
        assert_eq!(with(&[4.0, 1.0, 2.0, 3.0]).summary().median, HashRate::from_f64(2.5));
        assert_eq!(with(&[]).summary().samples, 0);
    }
}
