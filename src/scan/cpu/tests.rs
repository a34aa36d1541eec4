//! Every kernel compared with the reference implementation, in the same way as in the self-test.
//!
//! A kernel that this processor cannot run is not tested. One test names those kernels, and fails if
//! `ADIT_REQUIRE_KERNELS` lists one of them.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::{CpuFeatures, KernelName, Opened, open_all};
use crate::scan::self_test::{Random, Sample, known};
use crate::scan::{HitMask, Kernel, MAX_MIDSTATES, NonceRange};

/// Compares one scan with the reference implementation: exactly the right hits, each once, and the exact
/// number of hashes.
fn agrees(kernel: &dyn Kernel, sample: &Sample, first: u32, count: u64, mask: HitMask) {
    let nonces = NonceRange::new(first, count).unwrap();
    if let Err(error) = sample.check(kernel, nonces, mask) {
        panic!("{}: nonces {nonces:?}, {mask:?}: {error}", kernel.name());
    }
}

/// Every kernel that this processor can run.
pub(crate) fn runnable_kernels() -> Vec<Arc<dyn Kernel>> {
    open_all(CpuFeatures::detected()).into_iter().filter_map(|(_, kernel)| kernel.ok()).collect()
}

fn each_kernel(test: impl Fn(&dyn Kernel)) {
    for kernel in runnable_kernels() {
        test(&*kernel);
    }
}

/// A line for each kernel that cannot be tested here; an error for the first of them that is `required`.
fn not_tested(opened: &[Opened], required: &str) -> Result<Vec<String>, String> {
    let mut required: Vec<&str> = required.split(',').filter(|name| !name.is_empty()).collect();
    let mut lines = Vec::new();
    for (name, kernel) in opened {
        let is_required = required.contains(&name.as_str());
        required.retain(|required| *required != name.as_str());
        if let Err(reason) = kernel {
            let line = format!("not tested: kernel {name}: {reason}");
            if is_required {
                return Err(format!("{line}; ADIT_REQUIRE_KERNELS names it"));
            }
            lines.push(line);
        }
    }
    match required.first() {
        Some(unknown) => Err(format!("ADIT_REQUIRE_KERNELS: there is no kernel {unknown:?}")),
        None => Ok(lines),
    }
}

#[test]
fn kernels_that_cannot_run_here_are_named() {
    let required = std::env::var("ADIT_REQUIRE_KERNELS").unwrap_or_default();
    match not_tested(&open_all(CpuFeatures::detected()), &required) {
        // Directly to stderr, since libtest captures what passing tests print.
        Ok(lines) => lines.iter().for_each(|line| {
            writeln!(std::io::stderr(), "{line}").unwrap();
        }),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_required_kernel_that_cannot_run_is_an_error() {
    let features: Vec<_> = KernelName::all().flat_map(KernelName::needs).copied().collect();
    let reference_alone = open_all(CpuFeatures::detected().without(&features));
    let others = KernelName::all().count() - 1;
    assert_eq!(not_tested(&reference_alone, "").unwrap().len(), others);
    assert_eq!(not_tested(&reference_alone, "sha2").unwrap().len(), others);
    let unknown = not_tested(&reference_alone, "sha2,avx1024").unwrap_err();
    assert_eq!(unknown, "ADIT_REQUIRE_KERNELS: there is no kernel \"avx1024\"");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        not_tested(&reference_alone, "sha2,avx512").unwrap_err(),
        "not tested: kernel avx512: avx512f is disabled by --disable-cpu-features; \
         ADIT_REQUIRE_KERNELS names it",
    );
}

/// The mask that asks for `zeros` leading zero bits of the hash.
fn zeros(zeros: u32) -> HitMask {
    HitMask::for_top_word(u32::MAX.checked_shr(zeros).unwrap_or(0))
}

#[test]
fn real_headers_are_found() {
    each_kernel(|kernel| {
        for (name, header) in known() {
            let nonce = u32::from_le_bytes(header[76..].try_into().unwrap());
            for k in [1, 2, 5] {
                let sample = Sample::new(name, &header, k);
                // The nonce in each lane of a vector, last in a range and first.
                for before in 0..33 {
                    agrees(kernel, &sample, nonce - before, 40, zeros(32));
                    agrees(kernel, &sample, nonce - before, u64::from(before) + 1, zeros(32));
                }
            }
        }
    });
}

#[test]
fn random_headers() {
    each_kernel(|kernel| {
        let mut random = Random(1);
        for _ in 0..200 {
            let sample = Sample::new("random", &random.header(), random.below(6) as usize + 1);
            let count = random.below(200) + 1;
            let first = random.below((1 << 32) - count) as u32;
            for mask in [zeros(random.below(12) as u32), zeros(3), zeros(7)] {
                agrees(kernel, &sample, first, count, mask);
            }
        }
    });
}

#[test]
fn every_count_of_midstates() {
    each_kernel(|kernel| {
        let base = Random(2).header();
        for k in 1..=MAX_MIDSTATES {
            let sample = Sample::new("random", &base, k);
            agrees(kernel, &sample, 77, 37, zeros(1));
            agrees(kernel, &sample, 1 << 20, 16, zeros(4));
        }
    });
}

#[test]
fn every_short_count_at_odd_places() {
    each_kernel(|kernel| {
        let mut random = Random(3);
        for k in [1, 3, 4] {
            let sample = Sample::new("random", &random.header(), k);
            for count in 1..=40 {
                for first in [0, 1, 15, 16, 0x7fff_fff3, 0xffff_0001] {
                    agrees(kernel, &sample, first, count, zeros(1));
                }
                // Up to the highest nonce.
                let last = ((1_u64 << 32) - count) as u32;
                agrees(kernel, &sample, last, count, zeros(0));
                agrees(kernel, &sample, last, count, zeros(1));
            }
        }
    });
}

#[test]
fn every_lane_can_hit() {
    each_kernel(|kernel| {
        for k in [1, 2, 16, 33] {
            let sample = Sample::new("random", &Random(4).header(), k);
            for bits in 0..10 {
                agrees(kernel, &sample, 9999, 65, zeros(bits));
            }
        }
    });
}

#[test]
fn a_break_ends_the_scan() {
    each_kernel(|kernel| {
        for k in [1, 2, 7, 64] {
            let sample = Sample::new("random", &Random(5).header(), k);
            for (bits, stop_at) in [(0, 1), (0, 20), (1, 1), (1, 5), (1, 17)] {
                let nonces = NonceRange::new(123, 1 << 30).unwrap();
                let mut hits = Vec::new();
                let hashes = kernel.scan(&sample.scan(nonces, zeros(bits)), &mut |hit| {
                    hits.push(hit);
                    if hits.len() == stop_at {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                assert_eq!(hits.len(), stop_at, "{}", kernel.name());
                assert!(hashes >= stop_at as u64, "{}", kernel.name());
                // Only the vectors in progress are completed.
                assert!(hashes <= 64 * k as u64 + 64, "{}: {hashes}", kernel.name());
                assert!(hits.into_iter().all(|hit| zeros(bits).admits(sample.h7(hit))));
            }
        }
    });
}

#[test]
fn a_range_never_wraps() {
    assert_eq!(NonceRange::new(0, 0), None);
    assert_eq!(NonceRange::new(1, 1 << 32), None);
    assert_eq!(NonceRange::new(u32::MAX, 2), None);
    assert_eq!(NonceRange::new(0, 1 << 32), Some(NonceRange::full()));
}

#[test]
fn a_scan_without_midstates_or_with_too_many_panics() {
    each_kernel(|kernel| {
        for k in [0, MAX_MIDSTATES + 1] {
            let sample = Sample::new("random", &Random(6).header(), k);
            let nonces = NonceRange::new(0, 1).unwrap();
            let scan = sample.scan(nonces, zeros(0));
            let scanned = std::panic::catch_unwind(AssertUnwindSafe(|| {
                kernel.scan(&scan, &mut |_| ControlFlow::Continue(()))
            }));
            assert!(scanned.is_err(), "{}: {k}", kernel.name());
        }
    });
}
