//! A Stratum session's latencies and appetite, over loopback against a pool in this process: from a
//! job's last byte to its first nonce, from a candidate to its submission on its way and read by the
//! pool, and what a flood of jobs does to memory.
//!
//! `cargo bench --bench stratum` prints percentiles. All threads hash meanwhile, as they do in use.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit::engine::{Engine, Goal};
use adit::event::{Announcer, Event};
use adit::scan::cpu::{self, CpuFeatures, CpuScanner};
use adit::scan::{Hit, Kernel, Scan, Scanner};
use adit::secret::Secret;
use adit::source::Source as _;
use adit::source::net::{Endpoint, Transport};
use adit::source::stratum_v1::{Config, StratumV1, Timing};
use criterion::{Criterion, criterion_group, criterion_main};
use tracing::field::Field;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Under `cargo test` everything runs once and shortly.
fn in_earnest() -> bool {
    let asked = |word: &str| std::env::args().any(|argument| argument == word);
    asked("--bench") && !asked("--test")
}

fn told(what: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    let [p50, p99, max] = [50, 99, 100].map(at);
    let times = values.len();
    println!("{what}: p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms ({times} times)");
}

/// Keeps what adit logs of each share: the milliseconds from a verified candidate to its submission,
/// at the point where only the call that writes it is left to do.
struct Submissions(mpsc::Sender<f64>);

impl<S: tracing::Subscriber> Layer<S> for Submissions {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            if field.name() == "after_ms"
                && let Ok(after) = format!("{value:?}").parse()
            {
                // The bench may have ended.
                let _ = self.0.send(after);
            }
        });
    }
}

thread_local! {
    static BEGUN: Cell<u32> = const { Cell::new(0) };
}

/// A kernel that notes when it first sees a job, and when it finds something.
#[derive(Debug)]
struct Watched {
    kernel: Arc<dyn Kernel>,
    /// The nTime of the job that is looked for, and when it was first seen.
    seen: Mutex<(u32, Option<Instant>)>,
    more: Condvar,
    /// When each nonce was reported, if it is kept.
    found: Mutex<HashMap<(u32, u32), Instant>>,
}

impl Kernel for Watched {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn midstates(&self) -> usize {
        self.kernel.midstates()
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        let ntime = scan.second_block.words[1].swap_bytes();
        if BEGUN.replace(ntime) != ntime {
            let mut seen = self.seen.lock().unwrap();
            if seen.0 == ntime && seen.1.is_none() {
                seen.1 = Some(Instant::now());
                self.more.notify_all();
            }
        }
        self.kernel.scan(scan, &mut |hit| {
            self.found.lock().unwrap().insert((ntime, hit.nonce), Instant::now());
            found(hit)
        })
    }
}

/// A miner at work and the pool's end of its connection.
struct Bench {
    watched: Arc<Watched>,
    engine: Engine,
    source: JoinHandle<()>,
    pool: TcpStream,
    /// nTime and nonce of each share, and when its line was read.
    submitted: mpsc::Receiver<((u32, u32), Instant)>,
    on_their_way: mpsc::Receiver<f64>,
    jobs: Arc<AtomicUsize>,
}

/// A job whose nTime tells it from the others.
fn notify(ntime: u32, clean: bool) -> String {
    let previous = "11".repeat(32);
    let prefix = format!("0200000001{}ffffffff1003a0bb0d", "00".repeat(32));
    let suffix = format!("ffffffff0100f2052a0100000016{}00000000", "00".repeat(22));
    let branch = vec![format!("\"{}\"", "22".repeat(32)); 12].join(",");
    format!(
        "{{\"id\":null,\"method\":\"mining.notify\",\"params\":[\"{ntime:x}\",\"{previous}\",\
         \"{prefix}\",\"{suffix}\",[{branch}],\"20000000\",\"1703255b\",\"{ntime:08x}\",{clean}]}}\n"
    )
}

const FIRST: u32 = 0x6000_0000;

impl Bench {
    /// Everything is set up, and a first job is mined.
    fn start(difficulty: &str) -> Self {
        let measured = cpu::calibrate(&cpu::open_all(CpuFeatures::detected()), true);
        let kernel = measured.timed.into_iter().next().expect("the reference at least").kernel;
        let watched = Arc::new(Watched {
            kernel,
            seen: Mutex::new((FIRST, None)),
            more: Condvar::new(),
            found: Mutex::default(),
        });
        let scanner: Arc<dyn Scanner> =
            Arc::new(CpuScanner::new(watched.clone(), cpu::usable_threads()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let source = Box::new(StratumV1::new(Config {
            endpoint: Endpoint { host: "127.0.0.1".into(), port },
            transport: Transport::new(),
            user: "bench".into(),
            password: Secret::from("x".to_owned()),
            version_rolling: true,
            suggest_difficulty: None,
            quirks_dir: None,
            timing: Timing::default(),
        }));
        let (announcer, events) = Announcer::new();
        let jobs = Arc::new(AtomicUsize::new(0));
        let counted = jobs.clone();
        std::thread::spawn(move || {
            for announcement in events {
                if let Event::Job { .. } = announcement.event {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (engine, port) =
            Engine::start(vec![scanner], source.info(), Goal::default(), announcer).unwrap();
        let (tell, on_their_way) = mpsc::channel();
        let source = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let log = tracing_subscriber::registry().with(Submissions(tell));
            tracing::subscriber::with_default(log, || runtime.block_on(source.run(port)).unwrap());
        });

        let (pool, _) = listener.accept().unwrap();
        pool.set_nodelay(true).unwrap();
        let (submit, submitted) = mpsc::channel();
        let reader = pool.try_clone().unwrap();
        let mut writer = pool.try_clone().unwrap();
        let difficulty = difficulty.to_owned();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let at = Instant::now();
                let Ok(line) = line else { return };
                let request: serde_json::Value = serde_json::from_str(&line).unwrap();
                let id = &request["id"];
                let answer = match request["method"].as_str().unwrap() {
                    "mining.configure" => format!(
                        "{{\"id\":{id},\"error\":null,\"result\":{{\"version-rolling\":true,\
                         \"version-rolling.mask\":\"1fffe000\"}}}}\n"
                    ),
                    "mining.subscribe" => {
                        format!("{{\"id\":{id},\"error\":null,\"result\":[[],\"0000aaaa\",8]}}\n")
                    }
                    "mining.authorize" => format!(
                        "{{\"id\":{id},\"error\":null,\"result\":true}}\n{{\"id\":null,\
                         \"method\":\"mining.set_difficulty\",\"params\":[{difficulty}]}}\n{}",
                        notify(FIRST, true)
                    ),
                    "mining.submit" => {
                        let hex = |at: usize| {
                            let text = request["params"][at].as_str().unwrap();
                            u32::from_str_radix(text, 16).unwrap()
                        };
                        // The bench may have ended.
                        let _ = submit.send(((hex(3), hex(4)), at));
                        format!("{{\"id\":{id},\"error\":null,\"result\":true}}\n")
                    }
                    _ => format!("{{\"id\":{id},\"error\":null,\"result\":true}}\n"),
                };
                if writer.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let bench = Self { watched, engine, source, pool, submitted, on_their_way, jobs };
        bench.wait();
        // Until the ranges have grown to their length.
        std::thread::sleep(Duration::from_millis(30));
        bench
    }

    /// Waits for the job that is looked for.
    fn wait(&self) -> Instant {
        let mut seen = self.watched.seen.lock().unwrap();
        loop {
            if let Some(at) = seen.1 {
                return at;
            }
            seen = self.watched.more.wait(seen).unwrap();
        }
    }

    /// From a job's last byte to its first nonce.
    fn change(&mut self, ntime: u32) -> Duration {
        *self.watched.seen.lock().unwrap() = (ntime, None);
        let line = notify(ntime, true);
        self.pool.write_all(line.as_bytes()).unwrap();
        let sent = Instant::now();
        self.wait().saturating_duration_since(sent)
    }

    fn end(self) {
        self.engine.stop();
        self.source.join().unwrap();
        let _ = self.engine.finish();
    }
}

fn job_change(c: &mut Criterion) {
    let mut bench = Bench::start("1e15");
    let mut ntime = FIRST;
    let times = if in_earnest() { 3_000 } else { 3 };
    let mut taken: Vec<f64> = (0..times)
        .map(|i| {
            // At any point of a range.
            std::thread::sleep(Duration::from_micros(700 + i * 37 % 1_900));
            ntime += 1;
            bench.change(ntime).as_secs_f64() * 1e3
        })
        .collect();
    told("from notify's last byte to the first nonce", &mut taken);
    let mut group = c.benchmark_group("stratum");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(100));
    group.bench_function("from notify's last byte to the first nonce", |b| {
        b.iter_custom(|times| {
            let change = |_| {
                ntime += 1;
                bench.change(ntime)
            };
            (0..times).map(change).sum()
        });
    });
    group.finish();
    bench.end();
}

fn submission(_: &mut Criterion) {
    // A million hashes a share.
    let bench = Bench::start("0.000244140625");
    let times = if in_earnest() { 3_000 } else { 3 };
    let mut taken: Vec<f64> = bench
        .submitted
        .iter()
        .take(times)
        .map(|(share, at)| {
            let found = bench.watched.found.lock().unwrap()[&share];
            at.saturating_duration_since(found).as_secs_f64() * 1e3
        })
        .collect();
    let mut on_their_way: Vec<f64> = bench.on_their_way.iter().take(times).collect();
    told("from a verified candidate to the submit on its way", &mut on_their_way);
    told("from a candidate to the pool's having read the submit", &mut taken);
    bench.end();
}

/// What this process takes, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn flood(_: &mut Criterion) {
    const A_SECOND: u32 = 10_000;
    let mut bench = Bench::start("1e15");
    let (seconds, slices) = if in_earnest() { (10, 100) } else { (1, 5) };
    let (mut ntime, before) = (FIRST, resident());
    let (begun, mut middle) = (Instant::now(), before);
    for slice in 0..seconds * slices {
        let lines: String = (0..A_SECOND / slices).map(|n| notify(ntime + 1 + n, false)).collect();
        ntime += A_SECOND / slices;
        bench.pool.write_all(lines.as_bytes()).unwrap();
        if slice == seconds * slices / 2 {
            middle = resident();
        }
        let due = begun + Duration::from_secs(1) * (slice + 1) / slices;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let sent = begun.elapsed();
    let lag = bench.change(ntime + 1);
    println!(
        "{} jobs in {:.1} s, {} of them begun; the next one's first nonce after {:.3} ms; memory \
         {before} KiB before, {middle} KiB half-way, {} KiB after",
        ntime - FIRST,
        sent.as_secs_f64(),
        bench.jobs.load(Ordering::Relaxed),
        lag.as_secs_f64() * 1e3,
        resident(),
    );
    bench.end();
}

criterion_group!(benches, job_change, submission, flood);
criterion_main!(benches);
