//! The batch of a graphics card, bare: one dispatch after another, two in flight, nothing of the
//! miner around it.
//!
//! `cargo bench --bench gpu` measures each variant in criterion's way, in hashes.
//! `cargo bench --bench gpu -- --variants` is for a real card: all nine variants in a few shapes, in
//! slices that take turns, with the card's name and driver. Every hit is hashed again on the CPU, and
//! hits are counted against what chance would have.
//!
//! The card is the first that is no software device, or the one that `ADIT_BENCH_GPU` numbers in the
//! list that is printed first.

#[path = "../src/scan/gpu/shader/tests/bare.rs"]
mod bare;

use std::time::{Duration, Instant};

use adit::scan::gpu::shader::{ENTRY_POINT, Hits, Params, Shader, Shape, Variant};
use adit::scan::sha256::IV;
use adit::scan::{HitMask, Midstate, NonceRange, Scan, SecondBlock};
use criterion::{Criterion, Throughput, criterion_group};
use sha2::{Digest, Sha256};

use bare::{Card, Pipeline};

/// Workgroup sizes and nonces per invocation of the table.
const SHAPES: [(u32, u32); 6] = [(64, 1), (64, 16), (128, 1), (128, 16), (256, 1), (256, 16)];
/// The shape that criterion measures.
const USUAL: Shape = Shape { workgroup_size: 64, nonces_per_invocation: 16 };

/// Under `cargo test` everything runs once and shortly.
fn in_earnest() -> bool {
    asked("--bench") && !asked("--test")
}

fn asked(word: &str) -> bool {
    std::env::args().any(|argument| argument == word)
}

/// The card to measure, and a line on each there is.
fn card() -> Card {
    let named: Option<usize> = std::env::var("ADIT_BENCH_GPU").ok().map(|n| n.parse().unwrap());
    let mut chosen: Option<Card> = None;
    for (index, card) in Card::all().enumerate() {
        match card {
            Err(error) => println!("{index}: {error}"),
            Ok(card) => {
                let info = &card.info;
                println!(
                    "{index}: {}, {:?}, {:?}, driver {} {}",
                    info.name, info.device_type, info.backend, info.driver, info.driver_info
                );
                let real = |card: &Card| card.info.device_type != wgpu::DeviceType::Cpu;
                let better = match (&chosen, named) {
                    (_, Some(named)) => named == index,
                    (None, None) => true,
                    (Some(chosen), None) => real(&card) && !real(chosen),
                };
                if better {
                    chosen = Some(card);
                }
            }
        }
    }
    let Some(card) = chosen else {
        panic!("no such Vulkan, Metal or DX12 device (Debian: apt-get install mesa-vulkan-drivers)")
    };
    println!("measured: {}", card.info.name);
    card
}

/// A variant in a shape, with a header of its own to scan.
struct Entry {
    shader: Shader,
    shape: Shape,
    pipeline: Pipeline,
    headers: Vec<[u8; 80]>,
    next: u32,
    hits: u64,
    hashes: u64,
    rates: Vec<f64>,
}

impl Entry {
    fn new(card: &Card, variant: Variant, shape: Shape) -> Self {
        let shader = Shader::new(variant).expect("it expands");
        let text = shader.wgsl(shape).expect("it expands");
        let pipeline = card.pipeline(&text, ENTRY_POINT, size_of::<Params>() as u64, Hits::SIZE);
        let header = |version: u32| {
            let mut header = [7; 80];
            header[..4].copy_from_slice(&(version << 13).to_le_bytes());
            header
        };
        let headers = (0..).map(header).take(variant.midstates.count()).collect();
        Self { shader, shape, pipeline, headers, next: 0, hits: 0, hashes: 0, rates: Vec::new() }
    }

    /// Begins a batch of so many nonces, or fewer where they end.
    fn submit(&mut self, slot: usize, nonces: u64) -> u64 {
        let nonces = NonceRange::full().after(self.next).split(nonces).0;
        self.next = nonces.end() as u32;
        let midstates: Vec<Midstate> = self
            .headers
            .iter()
            .map(|header| Midstate::of(0, header[..64].try_into().unwrap()))
            .collect();
        let scan = Scan {
            midstates: &midstates,
            second_block: SecondBlock::of(self.headers[0][64..76].try_into().unwrap()),
            nonces,
            hit_mask: HitMask::for_top_word(0xffff),
        };
        let params = self.shader.params(&scan);
        let workgroups = self.shape.workgroups(nonces);
        self.pipeline.submit(slot, bytemuck::bytes_of(&params), workgroups);
        nonces.count() * midstates.len() as u64
    }

    /// Ends the batch, and looks at every hit.
    fn wait(&mut self, slot: usize) {
        let outcome = self.pipeline.wait(slot, Hits::read).expect("a whole buffer");
        for hit in &outcome.hits {
            let mut header = self.headers[hit.midstate];
            header[76..].copy_from_slice(&hit.nonce.to_le_bytes());
            let hash = Sha256::digest(Sha256::digest(header));
            assert_eq!(hash[30..], [0, 0], "{}: {hit:?} is none", self.shader);
        }
        self.hits += u64::from(outcome.found);
    }

    /// Batches of so many nonces for that long, two in flight; hashes a second.
    fn slice(&mut self, nonces: u64, long: Duration) -> f64 {
        let (begun, mut hashes, mut slot) = (Instant::now(), 0, 0);
        hashes += self.submit(slot, nonces);
        while begun.elapsed() < long {
            hashes += self.submit(1 - slot, nonces);
            self.wait(slot);
            slot = 1 - slot;
        }
        self.wait(slot);
        self.hashes += hashes;
        hashes as f64 / begun.elapsed().as_secs_f64()
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The table of all variants.
fn table() {
    let card = card();
    let quick = !in_earnest();
    let only = std::env::var("ADIT_BENCH_VARIANTS").ok();
    let shapes: Vec<(u32, u32)> = match std::env::var("ADIT_BENCH_SHAPES") {
        Ok(text) => text
            .split(',')
            .map(|s| {
                let (a, b) = s.split_once('x').unwrap();
                (a.parse().unwrap(), b.parse().unwrap())
            })
            .collect(),
        Err(_) => SHAPES.to_vec(),
    };
    let mut entries = Vec::new();
    for variant in
        Variant::all().filter(|v| only.as_ref().is_none_or(|o| o.split(',').any(|o| o == v.name())))
    {
        for (workgroup_size, nonces_per_invocation) in shapes.clone() {
            let shape = Shape { workgroup_size, nonces_per_invocation };
            let begun = Instant::now();
            let mut entry = Entry::new(&card, variant, shape);
            entry.slice(1 << 10, Duration::ZERO);
            println!(
                "{variant} {workgroup_size}x{nonces_per_invocation}: ready in {:?}",
                begun.elapsed()
            );
            entries.push(entry);
        }
    }
    // Batches of about 30 ms.
    let rate = entries[0].slice(1 << 16, Duration::from_millis(200));
    let nonces = ((rate * 0.03) as u64).clamp(1 << 12, 1 << 28);
    let rounds = if quick { 5 } else { 9 };
    for _ in 0..rounds {
        for entry in &mut entries {
            let nonces = nonces / entry.headers.len() as u64;
            let rate = entry.slice(nonces, Duration::from_millis(300));
            entry.rates.push(rate);
        }
    }
    let reference = entries[0].rates.clone();
    println!(
        "{:<8} {:>9} {:>5} {:>10} {:>10} {:>10} {:>8} {:>6}",
        "variant", "workgroup", "npi", "MH/s", "min", "max", "to first", "hits"
    );
    for entry in &entries {
        let ratios: Vec<f64> = entry.rates.iter().zip(&reference).map(|(a, b)| a / b).collect();
        let expected = entry.hashes as f64 / 65536.0;
        println!(
            "{:<8} {:>9} {:>5} {:>10.2} {:>10.2} {:>10.2} {:>8.3} {:>6.3}",
            entry.shader.variant().name(),
            entry.shape.workgroup_size,
            entry.shape.nonces_per_invocation,
            median(&entry.rates) / 1e6,
            entry.rates.iter().copied().fold(f64::INFINITY, f64::min) / 1e6,
            entry.rates.iter().copied().fold(0.0, f64::max) / 1e6,
            median(&ratios),
            entry.hits as f64 / expected,
        );
    }
}

fn batch(c: &mut Criterion) {
    let card = card();
    let mut group = c.benchmark_group("gpu");
    let nonces = if in_earnest() { 1 << 19 } else { 1 << 10 };
    group.sample_size(10);
    for variant in Variant::all().filter(|variant| in_earnest() || variant.name() == "k1") {
        let mut entry = Entry::new(&card, variant, USUAL);
        let hashes = nonces * entry.headers.len() as u64;
        group.throughput(Throughput::Elements(hashes));
        group.bench_function(variant.name(), |b| {
            b.iter(|| {
                entry.submit(0, nonces);
                entry.wait(0);
            });
        });
    }
    group.finish();
    let _ = IV;
}

criterion_group!(benches, batch);

fn main() {
    if asked("--variants") {
        table();
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
