//! One slice: a feed that records the ranges it hands out and the candidates that come back, and
//! checks both with the reference implementation afterwards.

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
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::engine::{NextWork, SearchSpace};
use crate::job::{Job, JobKey, MerkleRoot, TimeRange};
use crate::scan::cpu::{Differ, Random};
use crate::scan::{Candidate, Feed, Hit, NonceRange, WorkTemplate, WorkUnit};

/// How many leading zero bits make a candidate. Few enough for a sample to hold some, and enough
/// that reporting them costs a fast kernel less than a thousandth.
pub(super) const ZEROS_CPU: u32 = 16;
/// The same for a GPU, which hashes a hundred times as much and reports through a short list.
pub(super) const ZEROS_GPU: u32 = 20;

/// About how many hashes of each slice are repeated by the reference implementation.
const SAMPLED_HASHES: u64 = 1 << 18;
/// The most of them in one place.
const SAMPLE: u64 = 1 << 14;

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

impl std::ops::Add for Tried {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            candidates: self.candidates + other.candidates,
            sampled: self.sampled + other.sampled,
            in_sample: self.in_sample + other.in_sample,
        }
    }
}

/// How a backend differed from the reference implementation.
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
        /// How many it missed.
        missing: usize,
        /// How many it made up.
        extra: usize,
        /// The nonce of the first of either.
        nonce: u32,
    },
    /// It counted other than it did.
    #[error("{counted} hashes counted, and {handed_out} handed out")]
    Count {
        /// What it said.
        counted: u64,
        /// What it was to do.
        handed_out: u64,
    },
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
    template: Arc<WorkTemplate>,
    /// Index into all of the prepared midstates.
    midstate: usize,
    nonce: u32,
    /// Whether it lies in the unit that it was reported for.
    inside: bool,
}

/// Hands out ranges for as long as a slice lasts, and records what becomes of them.
pub(super) struct Course {
    version_rolling: bool,
    zeros: u32,
    begun: Instant,
    slice: Duration,
    ranges: Mutex<Ranges>,
    found: Mutex<Vec<Found>>,
    hashes: AtomicU64,
    /// When the last range was counted, in nanoseconds after the start.
    ended: AtomicU64,
}

struct Ranges {
    space: SearchSpace,
    random: Random,
    handed_out: Vec<WorkUnit>,
    returned: Vec<WorkUnit>,
}

impl Course {
    pub(super) fn new(
        version_rolling: bool,
        zeros: u32,
        mut random: Random,
        slice: Duration,
    ) -> Self {
        let space = SearchSpace::new(Arc::new(job(version_rolling, zeros, &mut random)), 0);
        let (handed_out, returned) = (Vec::new(), Vec::new());
        Self {
            version_rolling,
            zeros,
            ranges: Mutex::new(Ranges { space, random, handed_out, returned }),
            found: Mutex::default(),
            hashes: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            slice,
            begun: Instant::now(),
        }
    }

    /// Hashes counted so far.
    pub(super) fn hashes(&self) -> u64 {
        self.hashes.load(Ordering::Relaxed)
    }

    /// Seconds from the start to the end of the last range.
    pub(super) fn elapsed(&self) -> f64 {
        Duration::from_nanos(self.ended.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Compares what was found with what there is.
    pub(super) fn verify(self, random: &mut Random) -> Result<Tried, Disagreement> {
        let Ranges { handed_out, returned, .. } = held(self.ranges.into_inner());
        let found = held(self.found.into_inner());

        let size = |unit: &WorkUnit| unit.nonces.count() * unit.midstates.len() as u64;
        let sum = |units: &[WorkUnit]| units.iter().map(size).sum::<u64>();
        let all = sum(&handed_out) - sum(&returned);
        let counted = self.hashes.into_inner();
        if counted != all {
            return Err(Disagreement::Count { counted, handed_out: all });
        }

        let mut seen = HashSet::new();
        for found in &found {
            let (version, nonce) = (found.version(), found.nonce);
            if !found.inside || !found.is_candidate(self.zeros) {
                return Err(Disagreement::Wrong { version, nonce });
            }
            if !seen.insert((Arc::as_ptr(&found.template), found.midstate, nonce)) {
                return Err(Disagreement::Twice { version, nonce });
            }
        }

        // What was given back was done later, perhaps, or not at all.
        let whole = |unit: &&WorkUnit| !returned.iter().any(|returned| overlap(unit, returned));
        let sample = sample(handed_out.iter().filter(whole), random);
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
    Arc::ptr_eq(&a.template, &b.template)
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
        .filter(|found| Arc::ptr_eq(&found.template, &unit.template))
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

/// Whether a header's hash begins, as it is displayed, with this many zero bits.
fn has_zeros(header: &[u8], zeros: u32) -> bool {
    let [.., a, b, c, d] = sha256d(header);
    u32::from_le_bytes([a, b, c, d]).leading_zeros() >= zeros
}

impl Found {
    fn version(&self) -> u32 {
        self.template.midstates.get(self.midstate).map_or(0, |midstate| midstate.version)
    }

    fn is_candidate(&self, zeros: u32) -> bool {
        let WorkTemplate { job, merkle_root, ntime, .. } = &*self.template;
        let header = job.header(self.version(), *merkle_root, *ntime, self.nonce);
        has_zeros(&serialize(&header), zeros)
    }
}

impl Feed for Course {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        let passed = self.begun.elapsed();
        let mut ranges: MutexGuard<'_, _> = held(self.ranges.lock());
        let Ranges { space, random, handed_out, .. } = &mut *ranges;
        // On a machine with other things to do, a slice may be over before it has begun.
        if passed >= self.slice && !handed_out.is_empty() {
            return None;
        }
        loop {
            match space.take(midstates, nonces, Instant::now()) {
                NextWork::Unit(unit) => {
                    handed_out.push(unit.clone());
                    return Some(unit);
                }
                // A machine that is through with one header gets another.
                NextWork::Later(_) | NextWork::Exhausted => {
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
        let mut ranges = held(self.ranges.lock());
        ranges.returned.push(unit.clone());
        ranges.space.put_back(unit);
    }

    fn has_ended(&self) -> bool {
        self.begun.elapsed() >= self.slice
    }

    #[cold]
    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        let nonces = u64::from(unit.nonces.first())..unit.nonces.end();
        let found = Found {
            template: unit.template.clone(),
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
