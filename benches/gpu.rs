//! Batches on a graphics card without the rest of the miner: one dispatch after another, two in flight.
//!
//! `cargo bench --bench gpu` measures each variant with criterion, in hashes per second.
//!
//! `cargo bench --bench gpu -- --variants` is for a real card. It measures all nine variants, in slices
//! that take turns, and then the best of them in other shapes, and names the card and its driver. Every
//! hit is hashed again on the CPU, and the number of hits is compared with its expectation, so that no
//! figure comes from a shader that skips work.
//!
//! It measures the first card that is not a software device, or else the software device. The variable
//! `ADIT_BENCH_GPU` selects another by its number in the list that is printed first.

#[path = "../src/scan/gpu/shader/tests/bare.rs"]
mod bare;

use std::time::{Duration, Instant};

use adit::scan::gpu::shader::{ENTRY_POINT, Hits, Params, Shader, Shape, Variant};
use adit::scan::{HitMask, Midstate, NonceRange, Scan, SecondBlock};
use criterion::{Criterion, Throughput, criterion_group};
use sha2::{Digest, Sha256};

use bare::{Card, Pipeline};

/// The shape in which variants are compared.
const USUAL: Shape = Shape { workgroup_size: 64, nonces_per_invocation: 64 };
/// The other shapes in which the best variants are measured.
const WORKGROUP_SIZES: [u32; 3] = [64, 128, 256];
const NONCES_PER_INVOCATION: [u32; 4] = [1, 4, 16, 64];
/// How long a batch should take.
const BATCH: f64 = 0.05;
/// Hits have this many leading zero bits: few enough that hits can be counted, and enough that reporting
/// them does not slow the shader down.
const ZEROS: u32 = 20;

/// Whether to measure. Under `cargo test` everything runs once, briefly.
fn is_measuring() -> bool {
    has_argument("--bench") && !has_argument("--test")
}

fn has_argument(word: &str) -> bool {
    std::env::args().any(|argument| argument == word)
}

/// The card to measure. Prints a line about each.
fn card() -> Card {
    let named = std::env::var("ADIT_BENCH_GPU").ok();
    let mut cards = Vec::new();
    for (index, card) in Card::all().enumerate() {
        match card {
            Err(error) => println!("{index}: {error}"),
            Ok(card) => {
                let wgpu::AdapterInfo { name, driver, driver_info, backend, .. } = &card.info;
                println!("{index}: {name}, {backend:?}, driver {driver} {driver_info}");
                cards.push((index, card));
            }
        }
    }
    let chosen = match named {
        Some(named) => cards.into_iter().find(|(index, _)| named == index.to_string()),
        None => {
            cards.into_iter().min_by_key(|(_, card)| card.info.device_type == wgpu::DeviceType::Cpu)
        }
    };
    let Some((index, card)) = chosen else {
        panic!("no such device (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)")
    };
    println!("measuring: {index}");
    card
}

/// A variant in a shape, and what was measured of it.
struct MeasuredVariant {
    shader: Shader,
    shape: Shape,
    pipeline: Pipeline,
    headers: Vec<[u8; 80]>,
    midstates: Vec<Midstate>,
    next: u32,
    hashes: u64,
    hits: u64,
    rates: Vec<f64>,
}

impl MeasuredVariant {
    fn new(card: &Card, variant: Variant, shape: Shape) -> Self {
        let shader = Shader::new(variant).expect("it expands");
        let text = shader.wgsl(shape).expect("it expands");
        let pipeline = card.pipeline(&text, ENTRY_POINT, size_of::<Params>() as u64, Hits::SIZE);
        let header = |version: u32| {
            let mut header = [7; 80];
            header[..4].copy_from_slice(&(version << 13).to_le_bytes());
            header
        };
        let headers: Vec<_> = (0..).map(header).take(variant.midstates.count()).collect();
        let midstate = |header: &[u8; 80]| Midstate::of(0, header[..64].try_into().unwrap());
        let midstates = headers.iter().map(midstate).collect();
        let (next, hashes, hits, rates) = (0, 0, 0, Vec::new());
        Self { shader, shape, pipeline, headers, midstates, next, hashes, hits, rates }
    }

    /// Starts a batch of this many nonces, or fewer at the end of the nonces. Returns its number of hashes.
    fn submit(&mut self, slot: usize, nonces: u64) -> u64 {
        let nonces = NonceRange::full().after(self.next).split(nonces).0;
        self.next = nonces.end() as u32;
        let scan = Scan {
            midstates: &self.midstates,
            second_block: SecondBlock::of(self.headers[0][64..76].try_into().unwrap()),
            nonces,
            hit_mask: HitMask::for_top_word(u32::MAX >> ZEROS),
        };
        let params = self.shader.params(&scan);
        let workgroups = self.shape.workgroups(nonces);
        self.pipeline.submit(slot, bytemuck::bytes_of(&params), workgroups);
        let hashes = nonces.count() * self.midstates.len() as u64;
        self.hashes += hashes;
        hashes
    }

    /// Waits for the batch, and checks every hit.
    fn wait(&mut self, slot: usize) {
        let outcome = self.pipeline.wait(slot, Hits::read).expect("a whole buffer");
        for hit in &outcome.hits {
            let mut header = self.headers[hit.midstate];
            header[76..].copy_from_slice(&hit.nonce.to_le_bytes());
            let hash = Sha256::digest(Sha256::digest(header));
            let top = u32::from_le_bytes(hash[28..].try_into().unwrap());
            assert!(top.leading_zeros() >= ZEROS, "{}: {hit:?} is not a hit", self.shader);
        }
        self.hits += u64::from(outcome.found);
    }

    /// Runs batches of this many nonces for this long, two in flight. Returns the rate in hashes per second.
    fn slice(&mut self, nonces: u64, long: Duration) -> f64 {
        let begun = Instant::now();
        let mut hashes = self.submit(0, nonces);
        let mut older = 0;
        while begun.elapsed() < long {
            hashes += self.submit(1 - older, nonces);
            self.wait(older);
            older = 1 - older;
        }
        self.wait(older);
        hashes as f64 / begun.elapsed().as_secs_f64()
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures these in turns, prints a table, and returns them with the fastest first.
fn in_turns(card: &Card, candidates: &[(Variant, Shape)]) -> Vec<MeasuredVariant> {
    let rounds = if is_measuring() { 11 } else { 1 };
    let slice = Duration::from_millis(if is_measuring() { 400 } else { 1 });
    let mut entries: Vec<MeasuredVariant> = Vec::new();
    for (variant, shape) in candidates {
        let begun = Instant::now();
        let mut entry = MeasuredVariant::new(card, *variant, *shape);
        entry.slice(1, Duration::ZERO);
        let Shape { workgroup_size, nonces_per_invocation } = shape;
        let took = begun.elapsed().as_secs_f64();
        println!(
            "{variant} {workgroup_size}x{nonces_per_invocation}: first batch after {took:.2} s"
        );
        entries.push(entry);
    }
    // Begins with small batches, so that the first does not take long on a slow device.
    let mut hashes = 1 << 12;
    while is_measuring() && hashes < 1 << 29 {
        let first = &mut entries[0];
        let nonces = hashes / first.headers.len() as u64;
        if first.slice(nonces, Duration::ZERO) * BATCH < 1.5 * hashes as f64 {
            break;
        }
        hashes *= 2;
    }
    for _ in 0..rounds {
        for entry in &mut entries {
            let rate = entry.slice(hashes / entry.headers.len() as u64, slice);
            entry.rates.push(rate);
        }
    }
    println!("\n{rounds} slices of {slice:?} in turns, {hashes} hashes a batch");
    println!(
        "{:<8} {:>9} {:>6} {:>9} {:>9} {:>9} {:>8} {:>15}",
        "variant", "workgroup", "nonces", "MH/s", "min", "max", "to first", "hits (expected)"
    );
    let first = entries[0].rates.clone();
    for entry in &entries {
        println!(
            "{:<8} {:>9} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>8.3} {:>6} ({:.0})",
            entry.shader.variant().name(),
            entry.shape.workgroup_size,
            entry.shape.nonces_per_invocation,
            median(entry.rates.iter().copied()) / 1e6,
            entry.rates.iter().copied().fold(f64::INFINITY, f64::min) / 1e6,
            entry.rates.iter().copied().fold(0.0, f64::max) / 1e6,
            median(entry.rates.iter().zip(&first).map(|(rate, first)| rate / first)),
            entry.hits,
            entry.hashes as f64 / f64::from(1 << ZEROS),
        );
        // Six standard deviations: a shader that skips work is far outside.
        let expected = entry.hashes as f64 / f64::from(1 << ZEROS);
        let off = (entry.hits as f64 - expected).abs();
        assert!(off <= 6.0 * expected.sqrt() + 6.0, "{}: hits are missing", entry.shader);
    }
    println!();
    let speed = |entry: &MeasuredVariant| median(entry.rates.iter().copied());
    entries.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
    entries
}

/// Measures all variants, then the fastest of all and the fastest with one midstate in all shapes.
fn all_variants() {
    let card = card();
    let candidates: Vec<_> = Variant::all().map(|variant| (variant, USUAL)).collect();
    let ranked = in_turns(&card, &candidates);
    let variants = ranked.iter().map(|entry| entry.shader.variant());
    let plain = variants.clone().find(|variant| variant.midstates.count() == 1);
    let mut best: Vec<Variant> = variants.take(1).chain(plain).collect();
    best.dedup();
    drop(ranked);
    for variant in best {
        let mut shapes = vec![(variant, USUAL)];
        for workgroup_size in WORKGROUP_SIZES {
            for nonces_per_invocation in NONCES_PER_INVOCATION {
                shapes.push((variant, Shape { workgroup_size, nonces_per_invocation }));
            }
        }
        in_turns(&card, &shapes);
    }
}

fn batch(c: &mut Criterion) {
    let card = card();
    if !is_measuring() {
        let plain = Variant::all().next().expect("at least one variant");
        in_turns(&card, &[(plain, USUAL)]);
        return;
    }
    let mut group = c.benchmark_group("gpu");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(3));
    for variant in Variant::all() {
        let mut entry = MeasuredVariant::new(&card, variant, USUAL);
        let rate = entry.slice(1 << 16, Duration::from_millis(100));
        // A power of two, and from nonce 0, so that every batch is complete.
        let nonces = ((rate * BATCH) as u64 / entry.headers.len() as u64).clamp(1, 1 << 29);
        let nonces = 1 << nonces.ilog2();
        entry.next = 0;
        group.throughput(Throughput::Elements(nonces * entry.headers.len() as u64));
        group.bench_function(variant.name(), |b| {
            b.iter(|| {
                entry.submit(0, nonces);
                entry.wait(0);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, batch);

fn main() {
    if has_argument("--variants") {
        all_variants();
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
