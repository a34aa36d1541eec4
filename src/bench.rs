//! Measures how fast backends hash, and checks what they found meanwhile.
//!
//! Each runs in the very loop that mines, on a feed of its own that records the ranges it
//! deals out and the candidates that come back. The results take turns in short slices, so that
//! whatever else the machine does hits all of them alike; every other turn goes backwards, so that
//! a drift within a turn favours none of them. The first turn warms up and is not counted. After each
//! slice, off the clock, every candidate is hashed again by the reference implementation, and a random sample of the
//! ranges is searched again.

pub mod compare;
mod cores;
mod course;
mod cycles;
pub mod limits;
pub mod machine;
mod saved;
pub mod stats;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::course::{Disagreement, Tried};
pub use self::cycles::{CycleCounter, NoCycles};
pub use self::saved::{Saved, SavedError};

use self::cores::Times;
use self::course::{Course, ZEROS_CPU, ZEROS_GPU};
use crate::energy::{Consumer, Meters, NoReading};
use crate::scan::cpu::Random;
use crate::scan::{BackendError, BackendId, BackendInfo, Scanner};
use crate::units::{HashRate, Joules, Watts};

/// The longest slice. Shorter ones share bad moments more fairly, longer ones cost less to start.
const SLICE_MAX: Duration = Duration::from_millis(250);
/// The shortest slice: ranges of a millisecond must not matter at its end.
const SLICE_MIN: Duration = Duration::from_millis(20);
/// How many samples a result gets at least, where the time allows.
const SAMPLES_MIN: u32 = 5;
/// The longest slice of the turn that warms up.
const WARM_UP_MAX: Duration = Duration::from_millis(100);

/// Backends that are measured as one: they run at the same time, and their hashes are added up.
#[derive(Clone)]
pub struct Team(Vec<Arc<dyn Scanner>>);

impl From<Arc<dyn Scanner>> for Team {
    fn from(scanner: Arc<dyn Scanner>) -> Self {
        Self(vec![scanner])
    }
}

impl Team {
    /// All of these, of which there must be one at least.
    #[must_use]
    pub fn of(scanners: Vec<Arc<dyn Scanner>>) -> Option<Self> {
        (!scanners.is_empty()).then_some(Self(scanners))
    }

    /// What it is; of several, what each is, joined.
    fn info(&self, version_rolling: bool) -> BackendInfo {
        let infos: Vec<_> = self.0.iter().map(|s| s.info_when(version_rolling)).collect();
        if let [info] = &infos[..] {
            return info.clone();
        }
        let joined = |part: fn(&BackendInfo) -> String| {
            infos.iter().map(part).collect::<Vec<_>>().join(" + ")
        };
        BackendInfo {
            id: BackendId::All,
            kernel: joined(|info| info.kernel.clone()),
            device: joined(|info| info.device.clone()),
            threads: infos.iter().map(|info| info.threads).sum(),
        }
    }

    /// Whose energy it uses.
    fn consumers(&self) -> Vec<Consumer> {
        let mut consumers: Vec<_> =
            self.0.iter().map(|scanner| scanner.info()).map(consumer).collect();
        consumers.sort();
        consumers.dedup();
        consumers
    }

    fn has_gpu(&self) -> bool {
        self.0.iter().any(|scanner| scanner.info().id.is_gpu())
    }

    /// Runs all of them until the feed says stop.
    fn run(&self, course: &Course) -> Result<(), BackendError> {
        let [first, others @ ..] = &self.0[..] else { return Ok(()) };
        std::thread::scope(|scope| {
            let failed = |why: String| Err(BackendError::Device(why));
            let start = |scanner: &Arc<dyn Scanner>| {
                let scanner = scanner.clone();
                std::thread::Builder::new().spawn_scoped(scope, move || scanner.run(course))
            };
            let others: Vec<_> = others.iter().map(start).collect();
            let mut outcome = first.run(course);
            for other in others {
                outcome = outcome.and(match other.map(std::thread::ScopedJoinHandle::join) {
                    Ok(Ok(other)) => other,
                    Ok(Err(_)) => failed("its thread has panicked".to_owned()),
                    Err(error) => failed(format!("no thread: {error}")),
                });
            }
            outcome
        })
    }
}

/// Whose energy a backend uses: a card's host thread is not counted.
#[must_use]
pub fn consumer(info: BackendInfo) -> Consumer {
    if info.id.is_gpu() { Consumer::Gpu(info.device) } else { Consumer::Cpu }
}

/// What is to be measured.
pub struct Plan {
    /// The backends, one by one or together.
    pub teams: Vec<Team>,
    /// How long each result is measured.
    pub run_for: Duration,
    /// A counter of cycles that was started before the backends' threads were.
    pub cycles: Result<CycleCounter, NoCycles>,
    /// The power that the machine draws, where the user says it: then no counter is asked.
    pub watts: Option<Watts>,
}

impl Plan {
    /// These backends, each for this time, and nothing but their rates.
    #[must_use]
    pub fn of(scanners: Vec<Arc<dyn Scanner>>, run_for: Duration) -> Self {
        let teams = scanners.into_iter().map(Team::from).collect();
        let cycles = Err(NoCycles::Unavailable("none was asked for".to_owned()));
        Self { teams, run_for, cycles, watts: None }
    }

    /// What will be measured, row by row.
    #[must_use]
    pub fn rows(&self) -> Vec<(BackendInfo, bool)> {
        let both = |team: &Team| [false, true].map(|rolling| (team.info(rolling), rolling));
        self.teams.iter().flat_map(both).collect()
    }
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is measured next.
    pub next: BackendInfo,
    /// Whether with rolled versions.
    pub version_rolling: bool,
    /// Whether this turn is but to warm up.
    pub warming_up: bool,
    /// Slices done.
    pub done: usize,
    /// Slices in all.
    pub slices: usize,
    /// How much longer the rest takes, roughly.
    pub left: Duration,
}

/// A short time of hashing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Hashes done.
    pub hashes: u64,
    /// In this many seconds, from the first range handed out to the last one counted.
    pub seconds: f64,
    /// The share of the cores' time that was ours, of that in which our threads wanted to run, 0 to
    /// 1. Less than 1 where other programs ran on them.
    pub cores: Option<f64>,
}

impl Slice {
    /// Hashes per second.
    #[must_use]
    pub fn rate(&self) -> HashRate {
        HashRate::of(self.hashes, self.seconds)
    }
}

/// What hashing took in energy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Power while hashing.
    pub watts: f64,
    /// Energy of 10^9 hashes.
    pub joules_per_gigahash: f64,
    /// Whether the user said so.
    pub given: bool,
}

/// What was measured of one backend.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The backend and its threads.
    pub info: BackendInfo,
    /// Whether with rolled versions.
    pub version_rolling: bool,
    /// Slice by slice, one a turn.
    pub slices: Vec<Slice>,
    /// Core cycles a hash.
    pub cycles_per_hash: Result<f64, NoCycles>,
    /// What it took.
    pub energy: Result<Energy, NoReading>,
    /// Whether its candidates were exactly those that the reference implementation finds.
    pub verified: Result<Tried, Disagreement>,
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
    /// Half of the slices lie between this one,
    pub lower_quartile: HashRate,
    /// and this one.
    pub upper_quartile: HashRate,
    /// All hashes by all the time.
    pub mean: HashRate,
    /// The median of what the slices would have been with the cores to themselves, where Linux
    /// counts who had them.
    pub undisturbed: Option<HashRate>,
    /// How many slices.
    pub samples: usize,
}

impl Measurement {
    /// Hashes per second, slice by slice.
    #[must_use]
    pub fn rates(&self) -> Vec<f64> {
        self.slices.iter().map(|slice| slice.rate().to_f64()).collect()
    }

    /// The slices in figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let rates = self.rates();
        let at = |share| HashRate::from_f64(stats::quantile(&rates, share).unwrap_or_default());
        let seconds: f64 = self.slices.iter().map(|slice| slice.seconds).sum();
        let own: Option<Vec<f64>> =
            self.slices.iter().map(|slice| Some(slice.rate().to_f64() / slice.cores?)).collect();
        Summary {
            undisturbed: own.and_then(|own| stats::median(&own)).map(HashRate::from_f64),
            median: at(0.5),
            min: at(0.0),
            max: at(1.0),
            lower_quartile: at(0.25),
            upper_quartile: at(0.75),
            mean: HashRate::of(self.slices.iter().map(|slice| slice.hashes).sum(), seconds),
            samples: rates.len(),
        }
    }
}

/// One row under measurement.
struct Entry<'a> {
    team: &'a Team,
    consumers: Vec<Consumer>,
    measurement: Measurement,
    /// Cycles, joules and seconds so far, where they could be read each time.
    cycles: Result<u64, NoCycles>,
    used: Result<(Joules, f64), NoReading>,
}

/// Measures what `plan` says, plain and with rolled versions each. Before each slice the caller is
/// shown how far it is, and may break it off: then there is `Ok(None)`.
///
/// # Errors
/// When a backend is not fit for use, or fails meanwhile.
pub fn measure(
    mut plan: Plan,
    shown: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Option<Vec<Measurement>>, BenchError> {
    let mut entries = Vec::new();
    for team in &plan.teams {
        for scanner in &team.0 {
            let failed = |error| BenchError { backend: scanner.info().name(), error };
            scanner.prepare().map_err(failed)?;
        }
        for version_rolling in [false, true] {
            entries.push(Entry::new(team, version_rolling, plan.cycles.as_ref().err()));
        }
    }
    let everybody: Vec<_> = entries.iter().flat_map(|entry| entry.consumers.clone()).collect();
    let meters = plan.watts.is_none().then(|| Meters::open(&everybody));

    let (slice, samples) = slices(plan.run_for);
    let warm_up = slice.min(WARM_UP_MAX);
    let mut random = Random(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ()));
    let slices = (samples as usize + 1) * entries.len();
    // The first turn's slices are shorter: their share of a whole one.
    let short = warm_up.as_secs_f64() / slice.as_secs_f64().max(1e-9);
    let (mut done, begun) = (0, Instant::now());
    for turn in 0..=samples {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        if turn % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let rows = entries.len();
            let entry = &mut entries[index];
            let whole =
                |done: usize| done.min(rows) as f64 * short + done.saturating_sub(rows) as f64;
            let each = if done == 0 { slice } else { begun.elapsed().div_f64(whole(done)) };
            let progress = Progress {
                next: entry.measurement.info.clone(),
                version_rolling: entry.measurement.version_rolling,
                warming_up: turn == 0,
                done,
                slices,
                left: each.mul_f64((whole(slices) - whole(done)).max(0.0)),
            };
            if shown(&progress).is_break() {
                return Ok(None);
            }
            let length = if turn == 0 { warm_up } else { slice };
            entry
                .slice(length, turn > 0, &mut random, meters.as_ref(), plan.cycles.as_mut().ok())
                .map_err(|error| BenchError { backend: entry.measurement.info.name(), error })?;
            done += 1;
        }
    }
    Ok(Some(entries.into_iter().map(|entry| entry.finish(plan.watts)).collect()))
}

/// How long one slice is, and how many a result gets.
fn slices(run_for: Duration) -> (Duration, u32) {
    let slice = (run_for / SAMPLES_MIN).clamp(SLICE_MIN, SLICE_MAX).min(run_for);
    let samples = run_for.as_secs_f64() / slice.as_secs_f64().max(1e-9);
    (slice, (samples.round() as u32).max(1))
}

impl<'a> Entry<'a> {
    fn new(team: &'a Team, version_rolling: bool, no_cycles: Option<&NoCycles>) -> Self {
        let measurement = Measurement {
            info: team.info(version_rolling),
            version_rolling,
            slices: Vec::new(),
            cycles_per_hash: Err(NoCycles::Shared),
            energy: Err(NoReading::Nothing),
            verified: Ok(Tried::default()),
        };
        let cycles = match no_cycles {
            _ if team.has_gpu() => Err(NoCycles::NoCpu),
            Some(reason) => Err(reason.clone()),
            None => Ok(0),
        };
        let used = Ok((Joules::default(), 0.0));
        Self { team, consumers: team.consumers(), measurement, cycles, used }
    }

    /// One slice, and what its candidates are worth; in the first turn it is not counted.
    fn slice(
        &mut self,
        length: Duration,
        counts: bool,
        random: &mut Random,
        meters: Option<&Meters>,
        counter: Option<&mut CycleCounter>,
    ) -> Result<(), BackendError> {
        let zeros = if self.team.has_gpu() { ZEROS_GPU } else { ZEROS_CPU };
        let (times, energy) = (Times::now(), meters.map(|meters| meters.read(&self.consumers)));
        let mut counter = counter;
        let cycles = counter.as_mut().map(|counter| counter.read());
        let course = Course::new(self.measurement.version_rolling, zeros, random.clone(), length);
        random.next();
        let begun = Instant::now();
        let outcome = self.team.run(&course);
        let took = begun.elapsed().as_secs_f64();
        let cycles = cycles.zip(counter.map(CycleCounter::read));
        let energy = energy.zip(meters.map(|meters| meters.read(&self.consumers)));
        let threads = self.measurement.info.threads;
        let cores = times.and_then(|before| Times::now()?.share_since(&before, threads));
        outcome?;

        let cores = cores.filter(|_| !self.team.has_gpu());
        let slice = Slice { hashes: course.hashes(), seconds: course.elapsed(), cores };
        let tried = course.verify(random);
        self.measurement.verified = match (self.measurement.verified, tried) {
            (Ok(before), Ok(now)) => Ok(before + now),
            (Err(disagreement), _) | (_, Err(disagreement)) => Err(disagreement),
        };
        if !counts {
            return Ok(());
        }
        self.measurement.slices.push(slice);
        if let (Ok(total), Some((before, after))) = (&mut self.cycles, cycles) {
            match before.and_then(|before| Ok(after?.saturating_sub(before))) {
                Ok(cycles) => *total += cycles,
                Err(reason) => self.cycles = Err(reason),
            }
        }
        if let (Ok(total), Some((before, after)), Some(meters)) = (&mut self.used, energy, meters) {
            match before.and_then(|before| Ok(meters.between(&before, &after?))) {
                Ok(joules) => *total = (total.0 + joules, total.1 + took),
                Err(reason) => self.used = Err(reason),
            }
        }
        Ok(())
    }

    fn finish(mut self, given: Option<Watts>) -> Measurement {
        let hashes: u64 = self.measurement.slices.iter().map(|slice| slice.hashes).sum();
        let hashes = hashes.max(1) as f64;
        let rate = self.measurement.summary().mean.to_f64();
        self.measurement.cycles_per_hash = self.cycles.map(|cycles| cycles as f64 / hashes);
        self.measurement.energy = match (given, self.used) {
            (Some(watts), _) if rate > 0.0 => Ok(Energy {
                watts: watts.to_f64(),
                joules_per_gigahash: watts.to_f64() / rate * 1e9,
                given: true,
            }),
            // Virtual machines show counters that stand still.
            (None, Ok((joules, seconds))) if seconds > 0.0 && joules == Joules::default() => {
                Err(NoReading::Still)
            }
            (None, Ok((joules, seconds))) if seconds > 0.0 => Ok(Energy {
                watts: joules.to_f64() / seconds,
                joules_per_gigahash: joules.to_f64() / hashes * 1e9,
                given: false,
            }),
            (_, Err(reason)) => Err(reason),
            _ => Err(NoReading::Nothing),
        };
        self.measurement
    }
}

#[cfg(test)]
mod tests;
