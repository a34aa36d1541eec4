//! The parsers under mutated inputs: the same functions as `fuzz/` gives to libFuzzer, here with an
//! engine that needs no nightly. What is captured of real servers and files is in `fuzz/seeds`.
//!
//! `FUZZ_SECONDS` is how long each target runs (1 where it is not set) unless `FUZZ_INPUTS` says how
//! many inputs it is given, `FUZZ_SEED` the random numbers' seed (printed), and `FUZZ_INPUT` a file that
//! is the only input. An input that fails is kept in a file whose name is printed.
//!
//! The mutations are ours, since the engines for stable Rust do not start from given inputs: proptest
//! makes its own, and bolero's random engine too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use adit::fuzzing::{TARGETS, Target};
use fastrand::Rng;

/// The longest input that is made.
const LENGTH_MAX: usize = 16 << 10;
/// An input that takes longer hangs, in seconds; it is noticed after twice as long at the latest.
const HANG: u64 = 300;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {value:?}")))
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What parsers take for more than it is: structure, ends of ranges, and what is no text.
const WORDS: [&[u8]; 32] = [
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"4294967296",
    b"0.1",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x7f",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"=",
    b"#",
    b"0000000000000000",
    b"ffffffff",
    b"0x",
    b" ",
    b"\"\"",
];

/// Changes an input in one place, with a part of `other` at times.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    let at = random.usize(..=input.len());
    let short = |random: &mut Rng, all: usize| {
        let most = 1 << random.u32(..8);
        random.usize(..=all.min(most))
    };
    match random.u8(..10) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u32(..8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.u8(..);
            }
        }
        // A digit stays one, so that what it is part of is still a number.
        3 => {
            if let Some(digit) = input[at..].iter_mut().find(|b| b.is_ascii_digit()) {
                *digit = random.u8(b'0'..=b'9');
            }
        }
        4 => {
            let end = at + short(random, input.len() - at);
            input.drain(at..end);
        }
        5 => {
            let part = input[at..at + short(random, input.len() - at)].to_vec();
            let to = random.usize(..=input.len());
            input.splice(to..to, part);
        }
        6 => {
            let from = random.usize(..=other.len());
            let part = &other[from..from + short(random, other.len() - from)];
            let end = at + if random.bool() { part.len().min(input.len() - at) } else { 0 };
            input.splice(at..end, part.iter().copied());
        }
        7 => {
            let word = WORDS[random.usize(..WORDS.len())];
            let end = at + if random.bool() { word.len().min(input.len() - at) } else { 0 };
            input.splice(at..end, word.iter().copied());
        }
        8 => input.truncate(at),
        _ => {
            let part = input[at..at + short(random, input.len() - at)].to_vec();
            for _ in 0..random.usize(..16) {
                input.splice(at..at, part.iter().copied());
            }
        }
    }
    input.truncate(LENGTH_MAX);
}

/// Runs one input; keeps it where it fails.
fn try_input(name: &str, target: Target, input: &[u8], told: &dyn Fn() -> String) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        std::fs::write(&kept, input).unwrap();
        panic!(
            "{name} fails on {} ({}); run it alone: FUZZ_INPUT={} cargo test --test it fuzz::{name}",
            kept.display(),
            told(),
            kept.display(),
        );
    }
}

fn fuzz(name: &'static str) {
    let target = TARGETS.iter().find(|(of, _)| *of == name).expect("a target").1;
    if let Some(file) = std::env::var_os("FUZZ_INPUT") {
        return target(&std::fs::read(file).unwrap());
    }
    let seconds = variable("FUZZ_SECONDS").unwrap_or(1);
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: FUZZ_SEED={seed}");
    let most = variable("FUZZ_INPUTS");
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    // Dropped when the thread ends, however it does.
    let (alive, ended) = mpsc::channel::<()>();
    let begun = Instant::now();
    let run = thread::spawn(move || {
        let _alive = alive;
        let seeds = seeds(name);
        for seed in &seeds {
            try_input(name, target, seed, &|| "a seed".to_owned());
        }
        let mut random = Rng::with_seed(seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        for number in 0.. {
            if most.map_or_else(|| Instant::now() >= end, |most| number == most) {
                break;
            }
            let mut input = seeds[random.usize(..seeds.len())].clone();
            for _ in 0..=random.u32(..4) {
                mutate(&mut input, &seeds[random.usize(..seeds.len())], &mut random);
            }
            try_input(name, target, &input, &|| format!("FUZZ_SEED={seed}, input {number}"));
            counted.store(number + 1, Ordering::Relaxed);
        }
    });
    let mut before = None;
    while ended.recv_timeout(Duration::from_secs(HANG)) == Err(mpsc::RecvTimeoutError::Timeout) {
        let done = count.load(Ordering::Relaxed);
        assert!(
            before.replace(done) != Some(done),
            "{name}: input {done} of FUZZ_SEED={seed} has run for {HANG} s"
        );
    }
    match run.join() {
        Ok(()) => {
            let done = count.load(Ordering::Relaxed);
            println!("{name}: {done} inputs in {:.0} s", begun.elapsed().as_secs_f64());
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A test a target, and no target without one.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

tests!(
    stratum_line,
    stratum_message,
    template,
    submitblock_answer,
    zmtp,
    journal,
    bitcoin_conf,
    adit_toml,
    saved_bench,
);
