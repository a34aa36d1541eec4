//! Examines a card: every variant of the shader, as far as its driver takes it.

use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::calibration::candidates;
use super::device::{Device, Told, Trouble};
use super::programs::{Examinee, Programs};
use super::shader::{Midstates, Variant};
use crate::scan::BackendError;
use crate::scan::cpu::long_self_test;

/// How many random headers each variant is tried with, besides the known blocks.
const HEADERS: u32 = 4;

/// Holds every variant against plain code on `gpu`: known blocks, and random headers that `seed`
/// leads to. Says how long that took.
pub fn check_up(gpu: &Gpu, seed: u64) -> (Result<(), BackendError>, Duration) {
    let begun = Instant::now();
    let result = examine(gpu, seed).map_err(BackendError::from);
    (result, begun.elapsed())
}

fn examine(gpu: &Gpu, seed: u64) -> Result<(), Trouble> {
    let mut device = Device::open(gpu, Told::default())?;
    #[cfg(debug_assertions)]
    {
        device.wish = super::fault::Wish::of_environment();
    }
    for (variant, shape) in candidates(gpu) {
        let single = Variant { midstates: Midstates::One, adds: variant.adds };
        let plain = device.compile(single, shape)?;
        let rolled = if variant == single { None } else { Some(device.compile(variant, shape)?) };
        let programs = Programs { plain, rolled };
        Examinee::new(&mut device, &programs)
            .examine(|kernel| long_self_test(kernel, seed, HEADERS))
            .map_err(|trouble| match trouble {
                Trouble::Lies(why) => Trouble::Lies(format!("{variant}: {why}")),
                trouble => trouble,
            })?;
    }
    Ok(())
}
