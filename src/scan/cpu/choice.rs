//! Which kernel to use: by measurement, or by a rule of thumb where measuring would take longer than
//! the work.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CpuFeatures, KernelName, Unavailable};
use crate::scan::self_test::{Lie, self_test};
use crate::scan::{HitMask, Kernel, Midstate, NonceRange, Scan, SecondBlock};
use crate::units::HashRate;

/// How long one slice of the measurement takes, and how many each kernel gets.
const SLICE: Duration = Duration::from_millis(2);
const SLICES: usize = 4;

/// A kernel, or why this processor cannot run it.
pub type Opened = (KernelName, Result<Arc<dyn Kernel>, Unavailable>);

/// A kernel that failed its self-test, and what it got wrong.
pub type Failed = (KernelName, Lie);

/// What was measured of a kernel.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// With so many midstates at once: as many as it likes, or one.
    pub midstates: usize,
    /// How fast it was on one thread.
    pub rate: HashRate,
}

/// What [`calibrate`] came to.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The kernels that can be trusted, by their number of midstates, the fastest first.
    pub timed: Vec<Timed>,
    /// The others that this processor can run.
    pub failed: Vec<Failed>,
}

/// Every kernel there is, with the reason where this processor cannot run it with these features.
#[must_use]
pub fn open_all(features: CpuFeatures) -> Vec<Opened> {
    KernelName::all().map(|name| (name, name.kernel(features))).collect()
}

/// Every kernel of `opened` that is there, after its self-test, timed for a few milliseconds: with
/// one midstate, and where the version may be rolled also with as many as it likes.
///
/// That the second is faster is the rule, and not always so: where a program's pages come to lie
/// badly in memory, one of a kernel's two loops has been seen at a third of its speed until the
/// program was read anew.
#[must_use]
pub fn calibrate(opened: &[Opened], version_rolling: bool) -> Measured {
    let mut measured = Measured::default();
    for (name, kernel) in opened {
        let Ok(kernel) = kernel else { continue };
        match self_test(&**kernel) {
            Ok(()) => {
                let timed = |midstates| {
                    let (kernel, rate) = (kernel.clone(), HashRate::default());
                    Timed { kernel, midstates, rate }
                };
                measured.timed.push(timed(1));
                if version_rolling && kernel.midstates() > 1 {
                    measured.timed.push(timed(kernel.midstates()));
                }
            }
            Err(lie) => measured.failed.push((*name, lie)),
        }
    }
    // In turn, several times, and the best of each: whatever else the machine does for a moment
    // hits one slice and not one kernel.
    for _ in 0..SLICES {
        for Timed { kernel, midstates, rate } in &mut measured.timed {
            let slice = time_slice(&**kernel, *midstates, SLICE);
            if slice > *rate {
                *rate = slice;
            }
        }
    }
    measured.timed.sort_by(|a, b| b.rate.to_f64().total_cmp(&a.rate.to_f64()));
    measured
}

/// The kernel of `opened` that is there and is, as a rule, the fastest: unmeasured and untested, for
/// work that is done before a measurement would be, and whose result is checked anyway.
#[must_use]
pub fn usually_fastest(opened: &[Opened]) -> Option<Arc<dyn Kernel>> {
    opened.iter().rev().find_map(|(_, kernel)| kernel.clone().ok())
}

/// The rate of `kernel` with `midstates` midstates on this thread over about `time`.
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
    use super::super::fault::{Fault, Liar};
    use super::super::{CpuFeature, Sha2};
    use super::*;
    use crate::scan::Hit;

    /// A kernel of some name that takes its time.
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

    const NAMES: [&str; 4] = ["sha2", "avx2", "sha-ni", "avx512"];
    const MISSING: Unavailable = Unavailable::Missing(CpuFeature::Ssse3);

    /// A processor that lacks the features whose bit in `lacks` is set; the reference is always
    /// there. Of what there is, each kernel is faster than the one before.
    fn processor(lacks: u32) -> Vec<Opened> {
        let open = |(index, name): (usize, &'static str)| {
            let there = (lacks >> index) & 1 == 0;
            let slow = Slow(name, Duration::from_micros(600 - 150 * index as u64));
            let kernel: Result<Arc<dyn Kernel>, _> =
                if there { Ok(Arc::new(slow)) } else { Err(MISSING) };
            (KernelName(index), kernel)
        };
        NAMES.into_iter().enumerate().map(open).collect()
    }

    #[test]
    fn without_a_feature_the_next_best_is_taken() {
        for lacks in (0..16).filter(|lacks| lacks & 1 == 0) {
            let opened = processor(lacks);
            let there: Vec<_> = NAMES
                .iter()
                .enumerate()
                .filter(|(index, _)| (lacks >> index) & 1 == 0)
                .map(|(_, name)| *name)
                .collect();
            let best = there.last().copied();
            assert_eq!(usually_fastest(&opened).map(|kernel| kernel.name()), best, "{lacks:04b}");
            let Measured { timed, failed } = calibrate(&opened, true);
            assert!(failed.is_empty());
            assert_eq!(timed.len(), there.len(), "{lacks:04b}");
            assert_eq!(timed.first().map(|timed| timed.kernel.name()), best, "{lacks:04b}");
        }
    }

    /// With ever fewer features, the next best kernel is taken, and every rung is true.
    #[test]
    fn the_ladder_of_this_processor_can_be_walked_down() {
        let rungs: [&[CpuFeature]; 4] = [
            &[],
            CpuFeature::named("avx512").unwrap(),
            &[CpuFeature::Avx2],
            &[CpuFeature::Avx2, CpuFeature::Sha],
        ];
        let mut there = usize::MAX;
        for disabled in rungs {
            let opened = open_all(CpuFeatures::detected().without(disabled));
            #[cfg(target_arch = "x86_64")]
            assert_eq!(opened.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), NAMES);
            let open = opened.iter().filter(|(_, kernel)| kernel.is_ok()).count();
            assert!((1..=there).contains(&open), "{disabled:?}: {open}");
            there = open;
            let best = usually_fastest(&opened).unwrap();
            assert_eq!(self_test(&*best), Ok(()), "{}", best.name());
            let Measured { timed, failed } = calibrate(&opened, false);
            assert!(failed.is_empty());
            assert_eq!(timed.len(), open, "{disabled:?}");
            assert!(timed.iter().any(|timed| timed.kernel.name() == best.name()));
            assert!(timed.iter().all(|timed| timed.rate > HashRate::default()));
        }
        assert_eq!(there, 1, "nothing is left but the reference");
    }

    #[test]
    fn versions_are_rolled_side_by_side_where_that_is_allowed_and_faster() {
        /// A kernel that one of the two ways is slow with.
        #[derive(Debug)]
        struct Lame(bool);

        impl Kernel for Lame {
            fn name(&self) -> &'static str {
                "lame"
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
            let opened: [Opened; 1] = [(KernelName(0), Ok(Arc::new(Lame(plain_is_slow))))];
            let timed = calibrate(&opened, version_rolling).timed;
            assert_eq!(timed[0].midstates, midstates, "{plain_is_slow} {version_rolling}");
        }
    }

    #[test]
    fn a_liar_is_left_out_however_fast() {
        let mut opened = processor(0);
        let liar = Liar { kernel: Arc::new(Sha2), fault: Fault::Leaves };
        opened[3].1 = Ok(Arc::new(liar));
        let Measured { timed, failed } = calibrate(&opened, true);
        assert_eq!(timed.len(), 3);
        assert_eq!(timed[0].kernel.name(), "sha-ni");
        assert!(matches!(failed[..], [(KernelName(3), Lie::Hits { .. })]));
    }
}
