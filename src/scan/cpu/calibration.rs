//! Chooses a kernel: by measurement, or by a rule of thumb where measuring would take longer than the
//! work.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::features::CpuFeatures;
use super::kernels::{KernelName, Opened, open_all};
use super::portable::Sha2;
use crate::scan::self_test::{SelfTestError, self_test};
use crate::scan::{HitMask, Kernel, Midstate, NonceRange, Scan, SecondBlock};
use crate::units::HashRate;

/// How long one slice of the measurement takes, and how many each kernel gets.
const SLICE: Duration = Duration::from_millis(2);
const SLICES: usize = 4;

/// A kernel that failed its self-test, and how.
pub type FailedKernel = (KernelName, SelfTestError);

/// A kernel's rate with a certain number of midstates.
#[derive(Clone, Debug)]
pub struct TimedKernel {
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// How many midstates it got at once: its preferred number, or one.
    pub midstates: usize,
    /// Its rate on one thread.
    pub rate: HashRate,
}

/// The result of [`calibrate`].
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// The kernels that passed their self-test, each with one or two numbers of midstates, the fastest
    /// first.
    pub timed: Vec<TimedKernel>,
    /// The kernels that failed it.
    pub failed: Vec<FailedKernel>,
}

/// Tests every available kernel of `opened`, and times those that pass for a few milliseconds each: with
/// one midstate, and where the version may be rolled also with their preferred number.
///
/// The second is usually faster, but not always: depending on where the program's pages lay in memory,
/// one of a kernel's two loops has been seen at a third of its speed until the program was loaded again.
#[must_use]
pub fn calibrate(opened: &[Opened], version_rolling: bool) -> Calibration {
    let mut calibration = Calibration::default();
    for (name, kernel) in opened {
        let Ok(kernel) = kernel else { continue };
        match self_test(&**kernel) {
            Ok(()) => {
                let timed = |midstates| {
                    let (kernel, rate) = (kernel.clone(), HashRate::default());
                    TimedKernel { kernel, midstates, rate }
                };
                calibration.timed.push(timed(1));
                if version_rolling && kernel.midstates() > 1 {
                    calibration.timed.push(timed(kernel.midstates()));
                }
            }
            Err(error) => calibration.failed.push((*name, error)),
        }
    }
    // In turns, and the best slice of each counts: other load on the machine then slows down a slice
    // rather than a kernel.
    for _ in 0..SLICES {
        for TimedKernel { kernel, midstates, rate } in &mut calibration.timed {
            let slice = time_slice(&**kernel, *midstates, SLICE);
            if slice > *rate {
                *rate = slice;
            }
        }
    }
    calibration.timed.sort_by(|a, b| b.rate.to_f64().total_cmp(&a.rate.to_f64()));
    calibration
}

/// The available kernel of `opened` that is usually the fastest, neither measured nor tested: for work
/// that takes less time than a measurement, and whose result is checked anyway.
#[must_use]
pub fn usually_fastest(opened: &[Opened]) -> Option<Arc<dyn Kernel>> {
    opened.iter().rev().find_map(|(_, kernel)| kernel.clone().ok())
}

/// The kernel that is usually the fastest with these `features`, neither measured nor tested; where there
/// is no other, the portable one. [`calibrate`] tests and measures all of them, which takes some
/// milliseconds.
///
/// ```
/// use adit::scan::cpu::{self, CpuFeatures};
///
/// let kernel = cpu::best_kernel(CpuFeatures::detected());
/// cpu::self_test(&*kernel).expect("a kernel that agrees with the reference implementation");
/// println!("hashing with {}", kernel.name());
/// ```
#[must_use]
pub fn best_kernel(features: CpuFeatures) -> Arc<dyn Kernel> {
    usually_fastest(&open_all(features)).unwrap_or_else(|| Arc::new(Sha2))
}

/// Measures the rate of `kernel` on this thread, with `midstates` midstates, over about `time`.
fn time_slice(kernel: &dyn Kernel, midstates: usize, time: Duration) -> HashRate {
    let midstates: Vec<_> =
        (0u32..).take(midstates).map(|version| Midstate { version, state: [version; 8] }).collect();
    let second_block = SecondBlock { words: [1, 2, 3] };
    let hit_mask = HitMask::for_top_word(0);
    let begun = Instant::now();
    let (mut hashes, mut first) = (0, 0);
    while begun.elapsed() < time {
        let (nonces, _) = NonceRange::full().after(first).split(512);
        let scan = Scan { midstates: &midstates, second_block, nonces, hit_mask };
        hashes += kernel.scan(&scan, &mut |_| ControlFlow::Continue(()));
        first += 512;
    }
    HashRate::of(hashes, begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, FaultyKernel};
    use super::super::{CpuFeature, Unavailable};
    use super::*;
    use crate::scan::Hit;

    /// A correct kernel of a given name that takes a given time.
    #[derive(Debug)]
    struct Slow(&'static str, Duration);

    impl Kernel for Slow {
        fn name(&self) -> &'static str {
            self.0
        }

        fn midstates(&self) -> usize {
            1
        }

        fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
            std::thread::sleep(self.1);
            Sha2.scan(scan, found)
        }
    }

    const MISSING: Unavailable = Unavailable::Missing(CpuFeature::Ssse3);

    /// The kernels of a processor that cannot run those whose bit in `lacks` is set. Each available
    /// kernel is faster than the one before it in the table.
    fn processor(lacks: u32) -> Vec<Opened> {
        let open = |(index, name): (usize, KernelName)| {
            let is_available = (lacks >> index) & 1 == 0;
            let slow = Slow(name.as_str(), Duration::from_micros(600 - 150 * index as u64));
            let kernel: Result<Arc<dyn Kernel>, _> =
                if is_available { Ok(Arc::new(slow)) } else { Err(MISSING) };
            (name, kernel)
        };
        KernelName::all().enumerate().map(open).collect()
    }

    #[test]
    fn without_a_feature_the_next_best_is_taken() {
        // The reference, bit 0, is always available.
        for lacks in (0..1 << KernelName::all().count()).step_by(2) {
            let opened = processor(lacks);
            let available: Vec<_> = KernelName::all()
                .enumerate()
                .filter(|(index, _)| (lacks >> index) & 1 == 0)
                .map(|(_, name)| name.as_str())
                .collect();
            let best = available.last().copied();
            assert_eq!(usually_fastest(&opened).map(|kernel| kernel.name()), best, "{lacks:04b}");
            let Calibration { timed, failed } = calibrate(&opened, true);
            assert!(failed.is_empty());
            assert_eq!(timed.len(), available.len(), "{lacks:04b}");
            assert_eq!(timed.first().map(|timed| timed.kernel.name()), best, "{lacks:04b}");
        }
    }

    /// With ever fewer features the next best kernel is chosen, and each computes correctly.
    #[test]
    fn the_ladder_of_this_processor_can_be_walked_down() {
        let rungs: [&[CpuFeature]; 4] = [
            &[],
            CpuFeature::named("avx512").unwrap(),
            &[CpuFeature::Avx2],
            &[CpuFeature::Avx2, CpuFeature::Sha],
        ];
        let mut available = usize::MAX;
        for disabled in rungs {
            let opened = open_all(CpuFeatures::detected().without(disabled));
            assert!(opened.iter().map(|(name, _)| *name).eq(KernelName::all()));
            let open = opened.iter().filter(|(_, kernel)| kernel.is_ok()).count();
            assert!((1..=available).contains(&open), "{disabled:?}: {open}");
            available = open;
            let best = usually_fastest(&opened).unwrap();
            assert_eq!(self_test(&*best), Ok(()), "{}", best.name());
            let Calibration { timed, failed } = calibrate(&opened, false);
            assert!(failed.is_empty());
            assert_eq!(timed.len(), open, "{disabled:?}");
            assert!(timed.iter().any(|timed| timed.kernel.name() == best.name()));
            assert!(timed.iter().all(|timed| timed.rate > HashRate::default()));
        }
        assert_eq!(available, 1, "only the reference is left");
    }

    #[test]
    fn versions_are_rolled_side_by_side_where_that_is_allowed_and_faster() {
        /// A kernel that is slow with one midstate, or with several.
        #[derive(Debug)]
        struct Uneven(bool);

        impl Kernel for Uneven {
            fn name(&self) -> &'static str {
                "uneven"
            }

            fn midstates(&self) -> usize {
                4
            }

            fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
                if (scan.midstates.len() == 1) == self.0 {
                    std::thread::sleep(Duration::from_millis(3));
                }
                Sha2.scan(scan, found)
            }
        }

        for (plain_is_slow, version_rolling, midstates) in
            [(true, true, 4), (false, true, 1), (true, false, 1), (false, false, 1)]
        {
            let opened: [Opened; 1] =
                [(KernelName::find("sha2").unwrap(), Ok(Arc::new(Uneven(plain_is_slow))))];
            let timed = calibrate(&opened, version_rolling).timed;
            assert_eq!(timed[0].midstates, midstates, "{plain_is_slow} {version_rolling}");
        }
    }

    #[test]
    fn a_faulty_kernel_is_not_chosen_however_fast() {
        let mut opened = processor(0);
        let faulty = FaultyKernel { kernel: Arc::new(Sha2), fault: Fault::DropsHits };
        let fastest = opened.last_mut().unwrap();
        fastest.1 = Ok(Arc::new(faulty));
        let name = fastest.0;
        let Calibration { timed, failed } = calibrate(&opened, true);
        assert_eq!(timed.len(), opened.len() - 1);
        assert!(timed.iter().all(|timed| timed.kernel.name() != name.as_str()));
        assert!(matches!(failed[..], [(failed, SelfTestError::Hits { .. })] if failed == name));
    }
}
