//! Every variant on the software device, compared in the same way as the CPU's kernels.

use std::ops::ControlFlow;
use std::sync::{LazyLock, Mutex};

use super::super::*;
use super::bare::{Card, Pipeline};
use super::shape;
use crate::scan::self_test::{Random, Sample, known, long_self_test, self_test};
use crate::scan::{HitMask, Kernel};

static CARD: LazyLock<Card> = LazyLock::new(|| {
    let is_software = |card: &Card| card.info.device_type == wgpu::DeviceType::Cpu;
    Card::all().filter_map(Result::ok).find(is_software).unwrap_or_else(|| {
        panic!(
            "no software Vulkan device: tests/run installs one \
             (Debian: apt-get install libvulkan1 mesa-vulkan-drivers)"
        )
    })
});

/// All variants, compiled once for all tests.
static VARIANTS: LazyLock<Vec<OnDevice>> = LazyLock::new(|| {
    let open = |variant| OnDevice::new(Shader::new(variant).unwrap(), shape(32, 2));
    Variant::all().map(open).collect()
});

/// A shader on the software device, as a kernel.
struct OnDevice {
    shader: Shader,
    shape: Shape,
    pipeline: Mutex<Pipeline>,
}

impl OnDevice {
    fn new(shader: Shader, shape: Shape) -> Self {
        let (text, params) = (shader.wgsl(shape).unwrap(), size_of::<Params>() as u64);
        let pipeline = Mutex::new(CARD.pipeline(&text, ENTRY_POINT, params, Hits::SIZE));
        Self { shader, shape, pipeline }
    }

    /// One batch.
    fn batch(&self, scan: &Scan<'_>) -> Outcome {
        let params = self.shader.params(scan);
        let workgroups = self.shape.workgroups(scan.nonces);
        let mut pipeline = self.pipeline.lock().unwrap();
        pipeline.submit(0, bytemuck::bytes_of(&params), workgroups);
        pipeline.wait(0, Hits::read).unwrap()
    }

    /// Batches for all of `scan`, halved while their hits do not fit.
    fn batches(&self, first: usize, scan: Scan<'_>, hits: &mut Vec<Hit>) {
        let outcome = self.batch(&scan);
        if outcome.overflowed() {
            let (head, rest) = scan.nonces.split(scan.nonces.count() / 2);
            for nonces in std::iter::once(head).chain(rest) {
                self.batches(first, Scan { nonces, ..scan }, hits);
            }
        } else {
            let place = |hit: Hit| Hit { midstate: first + hit.midstate, ..hit };
            hits.extend(outcome.hits.into_iter().map(place));
        }
    }
}

impl fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.shader, self.shape)
    }
}

impl Kernel for OnDevice {
    fn name(&self) -> &'static str {
        self.shader.variant().name()
    }

    fn midstates(&self) -> usize {
        self.shader.variant().midstates.count()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        let k = self.midstates();
        for (number, midstates) in scan.midstates.chunks(k).enumerate() {
            let mut hits = Vec::new();
            self.batches(number * k, Scan { midstates, ..*scan }, &mut hits);
            for hit in hits {
                let _ = found(hit);
            }
        }
        scan.nonces.count() * scan.midstates.len() as u64
    }
}

/// Compares one scan with the reference implementation.
fn agrees(kernel: &OnDevice, sample: &Sample, first: u32, count: u64, mask: HitMask) {
    let nonces = NonceRange::new(first, count).unwrap();
    if let Err(error) = sample.check(kernel, nonces, mask) {
        panic!("{kernel:?}: nonces {nonces:?}, {mask:?}: {error}");
    }
}

/// The mask that asks for `zeros` leading zero bits of the hash.
fn zeros(zeros: u32) -> HitMask {
    HitMask::for_top_word(u32::MAX.checked_shr(zeros).unwrap_or(0))
}

#[test]
fn the_self_tests_pass() {
    for kernel in &*VARIANTS {
        assert_eq!(self_test(kernel), Ok(()), "{kernel:?}");
        assert_eq!(long_self_test(kernel, 11, 10), Ok(()), "{kernel:?}");
    }
}

#[test]
fn the_nonces_of_real_blocks_are_found_and_no_others() {
    for kernel in &*VARIANTS {
        for (name, header) in known() {
            let nonce = u32::from_le_bytes(header[76..].try_into().unwrap());
            let sample = Sample::new(name, &header, 1);
            agrees(kernel, &sample, nonce - 2000, 4000, zeros(32));
            // It is the last, the first, the only nonce of the range, and just outside either end.
            agrees(kernel, &sample, nonce - 100, 101, zeros(32));
            agrees(kernel, &sample, nonce, 100, zeros(32));
            agrees(kernel, &sample, nonce, 1, zeros(32));
            agrees(kernel, &sample, nonce - 100, 100, zeros(32));
            agrees(kernel, &sample, nonce + 1, 100, zeros(32));
        }
    }
}

#[test]
fn random_headers() {
    for kernel in &*VARIANTS {
        let mut random = Random(1);
        for _ in 0..400 {
            let k = random.below(kernel.midstates() as u64) as usize + 1;
            let sample = Sample::new("random", &random.header(), k);
            let count = random.below(300) + 1;
            let first = random.below((1 << 32) - count) as u32;
            agrees(kernel, &sample, first, count, zeros(random.below(10) as u32));
        }
    }
}

#[test]
fn every_bit_of_the_last_word() {
    for kernel in &*VARIANTS {
        let mut random = Random(2);
        for _ in 0..2 {
            let sample = Sample::new("random", &random.header(), kernel.midstates());
            for bit in 0..32 {
                agrees(kernel, &sample, 0x00ff_ffd0, 96, HitMask::from_bits(1 << bit));
            }
        }
    }
}

#[test]
fn ranges_end_where_they_should() {
    for kernel in &*VARIANTS {
        let sample = Sample::new("random", &Random(3).header(), kernel.midstates());
        for count in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000] {
            let last = ((1_u64 << 32) - count) as u32;
            for first in [0, 1, 0x7fff_ffff, 0xff00, last - 1, last] {
                agrees(kernel, &sample, first, count, zeros(0));
            }
        }
    }
}

#[test]
fn all_shapes_find_the_same() {
    for shape in super::SHAPES {
        let kernel = OnDevice::new(Shader::new(Variant::find("k1").unwrap()).unwrap(), shape);
        let mut random = Random(4);
        for count in [1, 63, 64, 65, 4095, 4096, 4097, 12_345] {
            let sample = Sample::new("random", &random.header(), 1);
            agrees(&kernel, &sample, random.next() as u32 >> 1, count, zeros(2));
            agrees(&kernel, &sample, ((1_u64 << 32) - count) as u32, count, zeros(0));
        }
        // For the last shape that is more workgroups than one dimension holds.
        let sample = Sample::new("random", &random.header(), 1);
        agrees(&kernel, &sample, 77, 140_000, zeros(8));
    }
}

#[test]
fn an_overflow_of_hits_is_counted_and_reported() {
    for kernel in &*VARIANTS {
        let k = kernel.midstates();
        let sample = Sample::new("random", &Random(5).header(), k);
        let fits = HIT_CAPACITY / k;
        for (count, overflows) in [(fits, false), (fits + 1, true), (100_001, true)] {
            let nonces = NonceRange::new(u32::MAX - count as u32 + 1, count as u64).unwrap();
            let outcome = kernel.batch(&sample.scan(nonces, zeros(0)));
            assert_eq!(outcome.found as usize, count * k, "{kernel:?}");
            assert_eq!(outcome.overflowed(), overflows, "{kernel:?}");
            let mut hits = outcome.hits;
            assert_eq!(hits.len(), (count * k).min(HIT_CAPACITY), "{kernel:?}");
            hits.sort_unstable();
            hits.dedup();
            assert_eq!(hits.len(), (count * k).min(HIT_CAPACITY), "{kernel:?}");
            assert!(hits.iter().all(|hit| hit.nonce >= nonces.first() && hit.midstate < k));
        }
    }
}

#[test]
fn a_slot_keeps_nothing_of_the_previous_batch() {
    let kernel = &VARIANTS[0];
    let (name, header) = known().next().unwrap();
    let nonce = u32::from_le_bytes(header[76..].try_into().unwrap());
    let sample = Sample::new(name, &header, 1);
    let mut pipeline = kernel.pipeline.lock().unwrap();
    let submit = |pipeline: &mut Pipeline, slot, first, count, mask| {
        let nonces = NonceRange::new(first, count).unwrap();
        let params = kernel.shader.params(&sample.scan(nonces, mask));
        pipeline.submit(slot, bytemuck::bytes_of(&params), kernel.shape.workgroups(nonces));
    };
    let read = |pipeline: &mut Pipeline, slot| pipeline.wait(slot, Hits::read).unwrap();
    // Two batches are always in flight; each slot gets batches with many, one and no hits.
    submit(&mut pipeline, 0, 0, 3000, zeros(0));
    for _ in 0..10 {
        submit(&mut pipeline, 1, nonce - 500, 1000, zeros(32));
        assert_eq!(read(&mut pipeline, 0).found, 3000);
        submit(&mut pipeline, 0, 0, 500, zeros(32));
        let genesis = Hit { nonce, midstate: 0 };
        assert_eq!(read(&mut pipeline, 1), Outcome { hits: vec![genesis], found: 1 });
        submit(&mut pipeline, 1, nonce, 1, zeros(32));
        assert_eq!(read(&mut pipeline, 0), Outcome { hits: Vec::new(), found: 0 });
        submit(&mut pipeline, 0, 0, 3000, zeros(0));
        assert_eq!(read(&mut pipeline, 1).hits, [genesis]);
    }
    assert_eq!(read(&mut pipeline, 0).found, 3000);
}

#[test]
fn the_textbook_form_finds_the_same() {
    for midstates in [Midstates::One, Midstates::Two, Midstates::Four] {
        let kernel = OnDevice::new(Shader::textbook(midstates).unwrap(), shape(32, 2));
        assert_eq!(self_test(&kernel), Ok(()));
        let mut random = Random(6);
        for _ in 0..20 {
            let sample = Sample::new("random", &random.header(), kernel.midstates());
            agrees(&kernel, &sample, random.next() as u32 >> 1, 200, zeros(2));
        }
    }
}
