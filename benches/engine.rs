//! What the engine costs: how long a new job, a pause and the end of a pause take to reach every
//! thread, the engine's rate beside that of the bare kernel, and how well a second thread is used.
//!
//! `cargo bench --bench engine` prints percentiles and ratios from slices that take turns, and lets
//! criterion measure the job change once more.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use adit::chain::target::Target;
use adit::chain::version::VersionMask;
use adit::engine::{Engine, Goal, Port, SourceInfo};
use adit::event::{Announcer, PauseReason};
use adit::job::{Job, JobKey, MerkleRoot, TimeRange};
use adit::scan::cpu::{self, CpuFeatures, CpuScanner};
use adit::scan::{Hit, HitMask, Kernel, Midstate, NonceRange, Scan, Scanner, SecondBlock};
use bitcoin::hashes::Hash as _;
use criterion::{Criterion, criterion_group, criterion_main};

/// Under `cargo test` everything runs once and shortly.
fn in_earnest() -> bool {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    asked("--bench") && !asked("--test")
}

/// A job of its own for each number, at a difficulty that is never met, version rolling allowed.
fn job(number: u32) -> Job {
    Job {
        key: JobKey { connection: 0, number: number.into() },
        version: 0x2000_0000,
        version_mask: VersionMask::BIP320,
        previous_block_hash: bitcoin::BlockHash::all_zeros(),
        height: None,
        nbits: bitcoin::CompactTarget::from_consensus(0x0300_0001),
        ntime: TimeRange::fixed(number),
        merkle_root: MerkleRoot::Fixed([7; 32]),
        share_target: Target::from_be_bytes([0; 32]),
        network_target: Target::from_be_bytes([0; 32]),
        clean: true,
        ends_when_solved: false,
        body: None,
        received: Instant::now(),
    }
}

fn start(kernel: Arc<dyn Kernel>, threads: usize) -> (Engine, Port) {
    let scanner: Arc<dyn Scanner> = Arc::new(CpuScanner::new(kernel, threads).unwrap());
    // Nothing listens; the engine does not mind.
    let (announcer, _) = Announcer::new();
    Engine::start(vec![scanner], SourceInfo::new("bench", "bench"), Goal::default(), announcer)
        .unwrap()
}

fn hashes(engine: &Engine) -> u64 {
    engine.hashes().iter().map(|(_, hashes)| hashes).sum()
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// A kernel that sees which job each thread works on.
#[derive(Debug)]
struct Watched {
    kernel: Arc<dyn Kernel>,
    /// The time in the header of the job that is looked for, and how many threads have begun it.
    seen: Mutex<(u32, usize, Instant)>,
    more: Condvar,
}

thread_local! {
    static BEGUN: Cell<u32> = const { Cell::new(0) };
}

impl Kernel for Watched {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn midstates(&self) -> usize {
        self.kernel.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        let time = scan.second_block.words[1].swap_bytes();
        if BEGUN.replace(time) != time {
            let mut seen = self.seen.lock().unwrap();
            if seen.0 == time {
                seen.1 += 1;
                seen.2 = Instant::now();
                self.more.notify_all();
            }
        }
        self.kernel.scan(scan, found)
    }
}

/// The engine at work, and jobs to change to.
struct Changes {
    port: Port,
    watched: Arc<Watched>,
    threads: usize,
    number: u32,
    engine: Engine,
}

impl Changes {
    fn new(kernel: Arc<dyn Kernel>, threads: usize) -> Self {
        let seen = Mutex::new((0, 0, Instant::now()));
        let watched = Arc::new(Watched { kernel, seen, more: Condvar::new() });
        let (engine, port) = start(watched.clone(), threads);
        let mut changes = Self { port, watched, threads, number: 0, engine };
        changes.change();
        // Until the ranges have grown to their length.
        std::thread::sleep(Duration::from_millis(30));
        changes
    }

    /// From the publication of a job to the moment at which the last thread begins to work on it.
    fn change(&mut self) -> Duration {
        self.number += 1;
        *self.watched.seen.lock().unwrap() = (self.number, 0, Instant::now());
        let begun = Instant::now();
        self.port.publish(job(self.number));
        let mut seen = self.watched.seen.lock().unwrap();
        while seen.1 < self.threads {
            seen = self.watched.more.wait(seen).unwrap();
        }
        seen.2.saturating_duration_since(begun)
    }
}

fn job_change(c: &mut Criterion) {
    let kernel = fastest();
    let threads = cpu::usable_threads();
    let mut changes = Changes::new(kernel, threads);
    let times = if in_earnest() { 2_000 } else { 3 };
    let mut taken: Vec<f64> = (0..times)
        .map(|i| {
            // At any point of a range.
            std::thread::sleep(Duration::from_micros(700 + i * 37 % 1_900));
            changes.change().as_secs_f64() * 1e3
        })
        .collect();
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&mut taken, percent));
    println!("job change, {threads} threads: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");

    let mut group = c.benchmark_group("engine");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(100));
    group.bench_function("job change, from publish to the last thread", |b| {
        b.iter_custom(|times| (0..times).map(|_| changes.change()).sum());
    });
    group.finish();
    let Changes { port, engine, .. } = changes;
    drop(port);
    let _ = engine.finish();
}

/// A kernel that notes when a thread begins again after a pause, and when the last scan ended.
#[derive(Debug)]
struct Timed {
    kernel: Arc<dyn Kernel>,
    since: Instant,
    /// When the last scan ended, in nanoseconds from `since`.
    ended: AtomicU64,
    /// Counts the ends of pauses.
    round: AtomicU32,
    /// How many threads have begun in this round, and when the last of them did.
    begun: Mutex<(usize, Instant)>,
    more: Condvar,
}

impl Kernel for Timed {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn midstates(&self) -> usize {
        self.kernel.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        let round = self.round.load(Ordering::Acquire);
        if BEGUN.replace(round) != round {
            let mut begun = self.begun.lock().unwrap();
            *begun = (begun.0 + 1, Instant::now());
            self.more.notify_all();
        }
        let hashes = self.kernel.scan(scan, found);
        self.ended.fetch_max(self.since.elapsed().as_nanos() as u64, Ordering::AcqRel);
        hashes
    }
}

/// From the request for a pause to the end of the last range, and from the end of the pause to the
/// moment at which the last thread begins.
fn pause_and_resume(_: &mut Criterion) {
    let threads = cpu::usable_threads();
    let timed = Arc::new(Timed {
        kernel: fastest(),
        since: Instant::now(),
        ended: AtomicU64::new(0),
        round: AtomicU32::new(1),
        begun: Mutex::new((0, Instant::now())),
        more: Condvar::new(),
    });
    let (engine, port) = start(timed.clone(), threads);
    let control = engine.control();
    port.publish(job(1));
    std::thread::sleep(Duration::from_millis(30));
    let times = if in_earnest() { 1_000 } else { 3 };
    let [mut pauses, mut resumes] = [const { Vec::new() }; 2];
    for round in 2..2 + times {
        // At any point of a range.
        std::thread::sleep(Duration::from_micros(3_000 + u64::from(round) * 37 % 1_900));
        let asked = timed.since.elapsed();
        control.pause(PauseReason::User);
        let last = loop {
            let ended = timed.ended.load(Ordering::Acquire);
            std::thread::sleep(Duration::from_millis(10));
            if timed.ended.load(Ordering::Acquire) == ended {
                break Duration::from_nanos(ended);
            }
        };
        pauses.push(last.saturating_sub(asked).as_secs_f64() * 1e3);

        timed.begun.lock().unwrap().0 = 0;
        timed.round.store(round, Ordering::Release);
        let asked = Instant::now();
        control.resume(PauseReason::User);
        let mut begun = timed.begun.lock().unwrap();
        while begun.0 < threads {
            begun = timed.more.wait(begun).unwrap();
        }
        resumes.push(begun.1.saturating_duration_since(asked).as_secs_f64() * 1e3);
    }
    for (what, mut taken) in [("pause", pauses), ("resume", resumes)] {
        let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&mut taken, percent));
        println!("{what}, {threads} threads: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
    }
    drop(port);
    let _ = engine.finish();
}

fn fastest() -> Arc<dyn Kernel> {
    let measured = cpu::calibrate(&cpu::open_all(CpuFeatures::detected()), true);
    measured.timed.into_iter().next().expect("the reference at least").kernel
}

/// How much a counter grows in a second, looked at over `slice` after everything has got going.
fn rate_of(counter: impl Fn() -> u64, slice: Duration) -> f64 {
    std::thread::sleep(Duration::from_millis(15));
    let (before, begun) = (counter(), Instant::now());
    std::thread::sleep(slice);
    (counter() - before) as f64 / begun.elapsed().as_secs_f64()
}

/// The rate of the kernel alone on as many threads.
fn bare(kernel: &dyn Kernel, threads: usize, slice: Duration) -> f64 {
    let midstates: Vec<_> =
        (0..).take(kernel.midstates()).map(|version| Midstate::of(version, &[3; 64])).collect();
    let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads as u32 {
            let (midstates, stop, hashes) = (&midstates, &stop, &hashes);
            scope.spawn(move || {
                let mut next = thread << 24;
                while !stop.load(Ordering::Relaxed) {
                    let nonces = NonceRange::full().after(next).split(4_096).0;
                    next = next.wrapping_add(4_096);
                    let second_block = SecondBlock { words: [1, 2, 3] };
                    let hit_mask = HitMask::for_top_word(0);
                    let scan = Scan { midstates, second_block, nonces, hit_mask };
                    let done = kernel.scan(&scan, &mut |_| ControlFlow::Continue(()));
                    hashes.fetch_add(done, Ordering::Relaxed);
                }
            });
        }
        let rate = rate_of(|| hashes.load(Ordering::Relaxed), slice);
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// The rate of an engine that has been waiting for work, and waits again afterwards.
fn engine(engine: &Engine, port: &Port, number: u32, slice: Duration) -> f64 {
    port.publish(job(number));
    let rate = rate_of(|| hashes(engine), slice);
    port.clear_job();
    // What is under way takes a range's time.
    std::thread::sleep(Duration::from_millis(4));
    rate
}

fn overhead(_: &mut Criterion) {
    let (rounds, slice) = if in_earnest() { (40, 150) } else { (1, 2) };
    let slice = Duration::from_millis(slice);
    let kernel = fastest();
    let all = cpu::usable_threads();
    let one = start(kernel.clone(), 1);
    let more = start(kernel.clone(), all);
    let [mut cost_one, mut cost_all, mut scaling, mut bare_scaling] = [const { Vec::new() }; 4];
    for round in 1..=rounds {
        let bare_one = bare(&*kernel, 1, slice);
        let engine_one = engine(&one.0, &one.1, round, slice);
        let bare_all = bare(&*kernel, all, slice);
        let engine_all = engine(&more.0, &more.1, round, slice);
        cost_one.push(engine_one / bare_one);
        cost_all.push(engine_all / bare_all);
        scaling.push(engine_all / engine_one);
        bare_scaling.push(bare_all / bare_one);
    }
    let name = kernel.name();
    let told = |what: &str, values: &mut Vec<f64>| {
        let [low, median, high] = [25, 50, 75].map(|percent| percentile(values, percent));
        println!("{what}: {median:.3} (quartiles {low:.3} to {high:.3}, {rounds} turns)");
    };
    told(&format!("engine to bare {name}, 1 thread"), &mut cost_one);
    told(&format!("engine to bare {name}, {all} threads"), &mut cost_all);
    told(&format!("engine, {all} threads to 1"), &mut scaling);
    told(&format!("bare {name}, {all} threads to 1"), &mut bare_scaling);
    for (engine, port) in [one, more] {
        drop(port);
        let _ = engine.finish();
    }
}

criterion_group!(benches, job_change, pause_and_resume, overhead);
criterion_main!(benches);
