//! The hot loop: each kernel on one thread, plain and with 4, 16 and 64 midstates, in hashes.
//!
//! `cargo bench --bench scan` first prints a table of medians from slices that take turns: whatever
//! else the machine does hits all of them alike, so its ratios hold where the figures of criterion,
//! which measures one after the other, move about. `-- KERNEL` measures only that one in criterion's
//! way.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit::scan::cpu::{CpuFeatures, open_all};
use adit::scan::{HitMask, Kernel, Midstate, NonceRange, Scan, SecondBlock};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Numbers of midstates.
const KS: [usize; 4] = [1, 4, 16, 64];
/// Hashes of one scan.
const HASHES: u64 = 65_536;

/// Under `cargo test` everything runs once and shortly.
fn in_earnest() -> bool {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    asked("--bench") && !asked("--test")
}

fn kernels() -> Vec<Arc<dyn Kernel>> {
    open_all(CpuFeatures::detected()).into_iter().filter_map(|(_, kernel)| kernel.ok()).collect()
}

/// Some work for a kernel.
struct Work {
    midstates: Vec<Midstate>,
    next: u32,
}

impl Work {
    fn new(k: usize) -> Self {
        let midstate = |version: u32| Midstate::of(version, &[version as u8; 64]);
        Self { midstates: (0..).take(k).map(midstate).collect(), next: 0 }
    }

    /// Does [`HASHES`].
    fn scan(&mut self, kernel: &dyn Kernel) -> u64 {
        let count = HASHES / self.midstates.len() as u64;
        let nonces = NonceRange::full().after(self.next).split(count).0;
        self.next = self.next.wrapping_add(count as u32);
        let scan = Scan {
            midstates: black_box(&self.midstates),
            second_block: black_box(SecondBlock { words: [1, 2, 3] }),
            nonces,
            hit_mask: HitMask::for_top_word(0),
        };
        kernel.scan(&scan, &mut |hit| {
            black_box(hit);
            ControlFlow::Continue(())
        })
    }
}

/// The core's clock in GHz, by a chain of steps that take two cycles each.
fn clock() -> f64 {
    let steps = if in_earnest() { 10_000_000 } else { 1_000 };
    let (mut x, y) = (black_box(1_u64), black_box(0x9e37_79b9_7f4a_7c15));
    let begun = Instant::now();
    for _ in 0..steps {
        x = (x ^ y).rotate_left(7);
    }
    black_box(x);
    2.0 * f64::from(steps) / begun.elapsed().as_secs_f64() / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Slices in turns: the rates, their ratio to the reference in the same turn, and cycles.
fn in_turns() {
    let (rounds, slice) = if in_earnest() { (25, 40) } else { (1, 1) };
    let slice = Duration::from_millis(slice);
    let mut entries = Vec::new();
    for kernel in kernels() {
        for k in KS {
            entries.push((kernel.clone(), Work::new(k), Vec::new()));
        }
    }
    let mut clocks = Vec::new();
    for _ in 0..rounds {
        clocks.push(clock());
        for (kernel, work, rates) in &mut entries {
            let (begun, mut hashes) = (Instant::now(), 0);
            while begun.elapsed() < slice {
                hashes += work.scan(&**kernel);
            }
            rates.push(hashes as f64 / begun.elapsed().as_secs_f64());
        }
    }
    // The table's first entry is the reference with one midstate.
    let reference = entries[0].2.clone();
    println!("{rounds} slices of {slice:?} in turns, clock {:.2} GHz", median(clocks.clone()));
    println!("{:<8} {:>3} {:>8} {:>8} {:>12}", "kernel", "k", "MH/s", "to sha2", "cycles/hash");
    for (kernel, work, rates) in entries {
        let ratios = rates.iter().zip(&reference).map(|(rate, to)| rate / to).collect();
        let cycles = rates.iter().zip(&clocks).map(|(rate, ghz)| ghz * 1e9 / rate).collect();
        println!(
            "{:<8} {:>3} {:>8.2} {:>8.2} {:>12.1}",
            kernel.name(),
            work.midstates.len(),
            median(rates) / 1e6,
            median(ratios),
            median(cycles),
        );
    }
}

fn scan(c: &mut Criterion) {
    in_turns();
    for kernel in kernels() {
        let mut group = c.benchmark_group(format!("scan/{}", kernel.name()));
        group.sample_size(20).measurement_time(Duration::from_secs(2));
        group.warm_up_time(Duration::from_millis(300)).throughput(Throughput::Elements(HASHES));
        for k in KS {
            let name = if k == 1 { "plain".to_owned() } else { format!("rolling, k = {k}") };
            let mut work = Work::new(k);
            group.bench_function(name, |b| b.iter(|| work.scan(&*kernel)));
        }
        group.finish();
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
