//! The whole backend on a software device: whatever happens to it, every nonce that it got is hashed, each
//! hit is reported once, and only completed hashes are counted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash as _;

use super::calibration::Calibration;
use super::device::Device;
use super::error::DeviceErrorSlot;
use super::faults::Faults;
use super::quarantine::Quarantine;
use super::shader::{HIT_CAPACITY, Shape, Variant};
use super::tuning::{Choice, Tuning};
use super::tuning_cache::TuningCache;
use super::{Gpu, GpuKind, GpuScanner, Options, enumerate};
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::job::{Job, JobKey, MerkleRoot, SourceId, TimeRange};
use crate::scan::cpu::{Random, Sha2};
#[cfg(debug_assertions)]
use crate::scan::{
    BackendError, Feed, Hit, Kernel as _, Midstate, NonceRange, Scanner as _, SecondBlock,
    Throttle, WorkTemplate, WorkUnit,
};
use crate::units::HashRate;

/// The software device; a test without one fails.
fn gpu() -> Gpu {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    let software = |gpu: &&Gpu| gpu.kind == GpuKind::Software;
    GPUS.get_or_init(enumerate).iter().find(software).cloned().expect(
        "a software Vulkan device (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)",
    )
}

/// What the backends of these tests run: two midstates at once, so that three and five do not divide
/// evenly.
fn tuning() -> Tuning {
    let choice = |name: &str| Choice {
        variant: Variant::find(name).unwrap(),
        shape: Shape { workgroup_size: 64, nonces_per_invocation: 4 },
        rate: HashRate::from_f64(1e7),
    };
    Tuning { plain: choice("k1"), rolled: choice("k2") }
}

/// A backend on it with a cached tuning.
fn scanner() -> GpuScanner {
    static CACHE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let cache = CACHE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        TuningCache::for_gpu(folder.path(), &gpu()).store(&gpu(), &tuning());
        folder
    });
    let cache = Some(cache.path().to_owned());
    GpuScanner::new(gpu(), Options { version_rolling: true, cache })
}

/// Units of a job whose hits have this many leading zero bits; for each its midstates, first nonce and
/// number of nonces.
fn units(zeros: u32, ends: bool, sizes: &[(usize, u32, u64)]) -> Vec<WorkUnit> {
    let mut random = Random(u64::from(zeros));
    let mut target = [0xff; 32];
    target[..4].copy_from_slice(&u32::MAX.checked_shr(zeros).unwrap_or(0).to_be_bytes());
    let target = Target::from_be_bytes(target);
    let job = Arc::new(Job {
        key: JobKey { connection: 0, number: 0 },
        version: 0x2000_0000,
        version_mask: VersionMask::BIP320,
        previous_block_hash: bitcoin::BlockHash::all_zeros(),
        height: None,
        nbits: target.to_nbits(),
        ntime: TimeRange::fixed(0),
        merkle_root: MerkleRoot::Fixed([0; 32]),
        share_target: target,
        network_target: target,
        clean: true,
        ends_when_solved: ends,
        body: None,
        received: Instant::now(),
    });
    let unit = |(number, (k, first, count)): (u64, &(usize, u32, u64))| {
        let header = random.header();
        let mut block: [u8; 64] = header[..64].try_into().unwrap();
        let midstates = (0..=*k as u32).map(|version| {
            block[..4].copy_from_slice(&version.to_le_bytes());
            Midstate::of(version, &block)
        });
        let template = WorkTemplate {
            job: job.clone(),
            // Identifies the unit.
            extranonce: number,
            merkle_root: [0; 32],
            ntime: 0,
            midstates: midstates.collect(),
            second_block: SecondBlock::of(&header[64..76].try_into().unwrap()),
        };
        WorkUnit {
            template: Arc::new(template),
            // Not from the first, so that a confusion of indices shows.
            midstates: 1..k + 1,
            nonces: NonceRange::new(*first, *count).unwrap(),
            target,
            generation: 0,
            source: SourceId(0),
        }
    };
    (0..).zip(sizes).map(unit).collect()
}

/// A feed that hands out a list of units and records the results.
#[derive(Default)]
struct List {
    left: Mutex<VecDeque<WorkUnit>>,
    /// How often each (unit, midstate, nonce) was reported.
    hits: Mutex<BTreeMap<(u64, usize, u32), usize>>,
    hashes: AtomicU64,
    given_back: AtomicU64,
    throttle: Option<Throttle>,
    /// What was said of interruptions.
    interruptions: Mutex<Vec<Option<String>>>,
}

impl List {
    fn new(units: &[WorkUnit]) -> Self {
        Self { left: Mutex::new(units.iter().cloned().collect()), ..Self::default() }
    }

    /// Checks that exactly the right hits were reported, each once, and that every hash was counted.
    fn check(&self, units: &[WorkUnit]) {
        let mut expected = BTreeMap::new();
        let mut hashes = 0;
        for unit in units {
            hashes += Sha2.scan(&unit.scan(), &mut |hit| {
                expected.insert(place(unit, hit), 1);
                ControlFlow::Continue(())
            });
        }
        assert!(!expected.is_empty(), "there is nothing to find");
        let hits = self.hits.lock().unwrap();
        assert!(*hits == expected, "{} hits of {}", hits.len(), expected.len());
        assert_eq!(self.hashes.load(Ordering::Relaxed), hashes);
    }
}

fn place(unit: &WorkUnit, hit: Hit) -> (u64, usize, u32) {
    (unit.template.extranonce, unit.midstates.start + hit.midstate, hit.nonce)
}

impl Feed for List {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        self.try_next(midstates, nonces)
    }

    fn try_next(&self, _: usize, nonces: u64) -> Option<WorkUnit> {
        let mut left = self.left.lock().unwrap();
        let unit = left.pop_front()?;
        let (handed_out, rest) = unit.nonces.split(nonces);
        if let Some(nonces) = rest {
            left.push_front(WorkUnit { nonces, ..unit.clone() });
        }
        Some(WorkUnit { nonces: handed_out, ..unit })
    }

    fn give_back(&self, unit: WorkUnit) {
        self.given_back.fetch_add(1, Ordering::Relaxed);
        self.left.lock().unwrap().push_back(unit);
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn throttle(&self) -> Throttle {
        self.throttle.unwrap_or(Throttle::NONE)
    }

    fn hit(&self, unit: &WorkUnit, hit: Hit) -> ControlFlow<()> {
        *self.hits.lock().unwrap().entry(place(unit, hit)).or_default() += 1;
        ControlFlow::Continue(())
    }

    fn interrupted(&self, why: Option<String>) {
        self.interruptions.lock().unwrap().push(why);
    }

    fn count(&self, _: usize, hashes: u64) {
        self.hashes.fetch_add(hashes, Ordering::Relaxed);
    }
}

/// Runs a backend over units twice, the second time with the device already open.
fn checked_runs(scanner: &GpuScanner, units: &[WorkUnit]) -> List {
    let list = List::new(units);
    scanner.run(&list).unwrap();
    list.check(units);
    let again = List::new(units);
    scanner.run(&again).unwrap();
    again.check(units);
    list
}

const END: u64 = NonceRange::ALL;

#[test]
fn every_candidate_of_many_units_is_found_once() {
    let mut random = Random(77);
    let mut sizes = Vec::new();
    for k in [1, 2, 3, 5] {
        for count in [1, 2, 63, 64, 65, 255, 257, 1000, 5000] {
            sizes.push((k, random.next() as u32 >> 1, count));
            sizes.push((k, (END - count) as u32, count));
        }
    }
    for zeros in [1, 5, 11] {
        checked_runs(&scanner(), &units(zeros, false, &sizes));
    }
}

#[test]
fn more_hits_than_the_list_holds_are_found_once() {
    let many = 12 * HIT_CAPACITY as u64;
    let sizes = [(1, 7, many), (2, 123, many), (2, (END - many) as u32, many)];
    // All nonces are hits, half of them, and so few that a batch just overflows.
    for zeros in [0, 1, 3] {
        let list = checked_runs(&scanner(), &units(zeros, false, &sizes));
        assert!(list.hits.lock().unwrap().len() > HIT_CAPACITY);
    }
}

#[test]
fn an_easy_job_is_cut_into_small_batches() {
    // What exceeds the size that suits the job is given back and handed out again.
    let list = checked_runs(&scanner(), &units(4, true, &[(1, 0, 20_000), (2, 99, 20_000)]));
    assert!(list.given_back.load(Ordering::Relaxed) > 0);
}

#[test]
fn known_answer_tests_do_not_disturb_the_order_of_batches() {
    let mut scanner = scanner();
    scanner.limits.retest_interval = Duration::ZERO;
    checked_runs(&scanner, &units(9, false, &[(1, 5, 300_000), (2, 5, 300_000), (3, 0, 5000)]));
}

#[test]
fn a_calibration_out_of_time_uses_the_best_so_far() {
    let gpu = gpu();
    let mut device = Device::open(&gpu, DeviceErrorSlot::default(), Faults::default()).unwrap();
    let quarantine = Quarantine::default();
    let mut calibration = Calibration::new(&mut device, &gpu, &quarantine, &|| {});
    calibration.budget = Duration::ZERO;
    let Tuning { plain, rolled } = calibration.measure().unwrap();
    assert_eq!((plain.variant.name(), rolled.variant.name()), ("k1", "k1"));
    assert!(plain.rate.to_f64() > 0.0);
}

#[test]
fn a_throttled_device_skips_nothing() {
    let units = units(12, false, &[(2, 0, 1 << 19), (1, 5, 1 << 12)]);
    let list = List::new(&units);
    let list = List { throttle: Throttle::percent(30), ..list };
    scanner().run(&list).unwrap();
    list.check(&units);
}

/// The faults are in debug builds only: a shipped miner has no switch that breaks it.
#[cfg(debug_assertions)]
mod faults {
    use super::*;
    use crate::scan::gpu::check::Check;
    use crate::scan::gpu::faults::Fault;

    fn faulty(fault: Fault, always: bool) -> GpuScanner {
        let mut scanner = scanner();
        scanner.faults = Faults::inject(fault, always);
        scanner
    }

    #[test]
    fn the_work_of_a_failed_device_is_done_after_its_recovery() {
        let sizes = [(1, 5, 70_000), (2, 5, 70_000), (3, (END - 50_000) as u32, 50_000)];
        let units = units(10, false, &sizes);
        for fault in [Fault::Lost, Fault::Panics, Fault::OutOfMemory, Fault::Hangs] {
            let list = List::new(&units);
            faulty(fault, false).run(&list).unwrap();
            assert!(list.given_back.load(Ordering::Relaxed) > 0, "{fault:?}");
            let interruptions = list.interruptions.lock().unwrap();
            let [Some(why), None] = &interruptions[..] else { panic!("{interruptions:?}") };
            assert!(why.ends_with("; it is being initialised again"), "{why}");
            list.check(&units);
        }
    }

    #[test]
    fn a_device_that_keeps_failing_is_disabled() {
        let list = List::new(&units(10, false, &[(1, 0, 1 << 24)]));
        let error = faulty(Fault::Panics, true).run(&list).unwrap_err();
        let BackendError::Device(why) = error else { panic!("{error}") };
        // The driver's reason, not the message of the panic that follows.
        assert_eq!(why, "the device is lost: injected by a test, 4 times in a row");
        // Other backends can do the rest.
        let left: u64 = list.left.lock().unwrap().iter().map(|unit| unit.nonces.count()).sum();
        assert_eq!(left + list.hashes.load(Ordering::Relaxed), 1 << 24);
    }

    #[test]
    fn a_device_that_hangs_during_initialisation_is_disabled() {
        let list = List::new(&units(10, false, &[(1, 0, 1000)]));
        let mut scanner = scanner();
        scanner.faults = Faults::inject(Fault::Hangs, true).at_batch(0);
        scanner.limits.step = Duration::from_millis(500);
        scanner.limits.healthy = Duration::from_millis(50);
        let error = scanner.run(&list).unwrap_err();
        assert!(error.to_string().ends_with("4 times in a row"), "{error}");
        assert_eq!(list.left.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_device_that_reports_more_hits_than_hashes_is_disabled() {
        // While it mines, and already in its self-test.
        for always in [false, true] {
            let list = List::new(&units(10, false, &[(1, 0, 1000)]));
            let error = faulty(Fault::BadCount, always).run(&list).unwrap_err();
            let BackendError::WrongResult(why) = &error else { panic!("{error}") };
            assert!(why.contains("reports 4294967295 hits of "), "{why}");
            assert_eq!(list.hashes.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_device_that_computes_wrongly_does_not_mine() {
        for fault in [Fault::DropsHits, Fault::InventsHits] {
            let list = List::new(&units(10, false, &[(1, 0, 1000)]));
            let error = faulty(fault, false).run(&list).unwrap_err();
            let BackendError::WrongResult(why) = &error else { panic!("{error}") };
            assert!(why.contains("self-test") && why.contains("block 0: "), "{why}");
            assert_eq!(list.hashes.load(Ordering::Relaxed), 0);
            assert_eq!(faulty(fault, false).prepare(), Err(error));
        }
    }

    #[test]
    fn a_device_that_stops_finding_anything_is_detected() {
        let list = List::new(&units(32, false, &[(2, 0, 1 << 20)]));
        let mut scanner = faulty(Fault::Silent, false);
        scanner.limits.retest_interval = Duration::from_nanos(1);
        let error = scanner.run(&list).unwrap_err();
        let BackendError::WrongResult(why) = &error else { panic!("{error}") };
        assert!(why.starts_with("k1 failed a known-answer test: block "), "{why}");
        assert!(why.ends_with("the solution was reported 0 times, not once"), "{why}");
        // Batches in flight are not counted but given back.
        let left = list.left.lock().unwrap();
        let left: u64 = left.iter().map(|u| u.nonces.count() * u.midstates.len() as u64).sum();
        assert!(left > 0);
        assert_eq!(left + list.hashes.load(Ordering::Relaxed), 2 << 20);
    }

    #[test]
    fn a_variant_that_made_the_device_fail_is_not_tried_again() {
        let cache = tempfile::tempdir().unwrap();
        let folder = Some(cache.path().to_owned());
        let options = Options { version_rolling: true, cache: folder };
        let mut scanner = GpuScanner::new(gpu(), options);
        scanner.faults = Faults::inject(Fault::LostOnTwoMidstates, true);
        let units = units(10, false, &[(4, 5, 70_000)]);
        let list = List::new(&units);
        scanner.run(&list).unwrap();
        list.check(&units);
        let Tuning { plain, rolled } =
            TuningCache::for_gpu(cache.path(), &gpu()).load(&gpu()).unwrap();
        assert_eq!(plain.variant.name(), "k1");
        assert_ne!(rolled.variant.name(), "k2");
    }

    #[test]
    fn a_cached_tuning_that_makes_the_device_fail_is_replaced() {
        let cache_dir = tempfile::tempdir().unwrap();
        let cache = TuningCache::for_gpu(cache_dir.path(), &gpu());
        cache.store(&gpu(), &tuning());
        let folder = Some(cache_dir.path().to_owned());
        let options = Options { version_rolling: true, cache: folder };
        let mut scanner = GpuScanner::new(gpu(), options);
        scanner.faults = Faults::inject(Fault::Lost, false).at_batch(1);
        let units = units(10, false, &[(2, 5, 70_000)]);
        let list = List::new(&units);
        scanner.run(&list).unwrap();
        list.check(&units);
        assert_ne!(cache.load(&gpu()).unwrap().plain.shape, tuning().plain.shape);
        // A later loss is not blamed on the tuning.
        cache.store(&gpu(), &tuning());
        let folder = Some(cache_dir.path().to_owned());
        let options = Options { version_rolling: true, cache: folder };
        let mut scanner = GpuScanner::new(gpu(), options);
        scanner.faults = Faults::inject(Fault::Lost, false);
        let list = List::new(&units);
        scanner.run(&list).unwrap();
        assert_eq!(cache.load(&gpu()), Some(tuning()));
    }

    #[test]
    fn a_check_of_a_failing_device_ends() {
        let check = |faults: Faults, limit| Check { gpu: gpu(), seed: 1, faults }.within(limit);
        let (moment, long) = (Duration::from_secs(1), Duration::from_secs(120));
        let failed = |faults: Faults, limit| match check(faults, limit).result {
            Err(BackendError::Device(why)) => why,
            other => panic!("{other:?}"),
        };
        let hangs = failed(Faults::inject(Fault::Hangs, true).at_batch(0), moment);
        assert_eq!(hangs, "the device has not answered for 1 s");
        let lost = failed(Faults::inject(Fault::Panics, true).at_batch(0), long);
        assert_eq!(lost, "the device is lost: injected by a test");
        let lost = failed(Faults::inject(Fault::Lost, true).at_batch(0), long);
        assert!(lost.starts_with("the device is lost: "), "{lost}");
        // A driver need not accept every variant, but must accept one.
        let refused = failed(Faults::inject(Fault::Refuses, true), long);
        assert_eq!(refused, "the driver refuses: every variant of the shader: injected by a test");
        let most = check(Faults::inject(Fault::Refuses, false), long);
        assert_eq!(most.result, Ok(()));
        let skipped: Vec<_> = most.skipped.iter().map(|variant| variant.name()).collect();
        assert_eq!(skipped, ["k2", "k2-some", "k2-all", "k4", "k4-some", "k4-all"]);
    }
}

#[test]
fn a_tuning_is_cached_and_invalid_files_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let gpu = gpu();
    let cache = TuningCache::for_gpu(&folder.path().join("not/there/yet"), &gpu);
    assert_eq!(cache.load(&gpu), None);
    let choice = |name: &str, size, rate| Choice {
        variant: Variant::find(name).unwrap(),
        shape: Shape { workgroup_size: size, nonces_per_invocation: 2 },
        rate: HashRate::from_f64(rate),
    };
    let tuning =
        Tuning { plain: choice("k1-some", 64, 123.5e6), rolled: choice("k4-all", 256, 150.5e6) };
    cache.store(&gpu, &tuning);
    assert_eq!(cache.load(&gpu), Some(tuning));

    let mut others = [gpu.clone(), gpu.clone(), gpu.clone()];
    others[0].name = "another".into();
    others[1].driver = "a newer one".into();
    others[2].api = "Metal";
    for other in others {
        assert_eq!(
            TuningCache::for_gpu(&folder.path().join("not/there/yet"), &other).load(&other),
            None
        );
        assert_eq!(cache.load(&other), None);
    }

    let files = std::fs::read_dir(folder.path().join("not/there/yet")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "no temporary files are left: {files:?}");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    for (from, to) in [
        ("\"form\": 1", "\"form\": 2"),
        ("k1-some", "k9"),
        ("k1-some", "k1-all"),
        ("k1-some", "k4-all"),
        ("\"workgroup_size\": 64", "\"workgroup_size\": 0"),
        ("\"workgroup_size\": 64", "\"workgroup_size\": -64"),
        ("\"nonces_per_invocation\": 2", "\"nonces_per_invocation\": 4000000000"),
        ("123500000.0", "-1"),
        ("123500000.0", "0.0"),
        ("123500000.0", "null"),
        ("150500000.0", "1e300"),
        ("150500000.0", "1e13"),
        ("150500000.0", "1e999"),
        // A slower variant would not have been chosen.
        ("150500000.0", "123499999.0"),
        ("}", ""),
        ("{", "["),
        (env!("CARGO_PKG_VERSION"), "0.0.0"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        std::fs::write(&files[0], changed).unwrap();
        assert_eq!(cache.load(&gpu), None, "{from} to {to}");
    }
    for rubbish in [&b""[..], b"\xff\xfe", &[b' '; 1 << 20]] {
        std::fs::write(&files[0], rubbish).unwrap();
        assert_eq!(cache.load(&gpu), None);
    }
    cache.store(&gpu, &tuning);
    assert_eq!(cache.load(&gpu), Some(tuning));
    // A path that is not a folder is only logged.
    let nowhere = TuningCache::for_gpu(&files[0], &gpu);
    nowhere.store(&gpu, &tuning);
    assert_eq!(nowhere.load(&gpu), None);
}

#[test]
fn a_job_change_reaches_the_device_quickly() {
    use crate::engine::{Engine, Goal, SourceInfo};
    use crate::event::Announcer;
    let (announcer, _events) = Announcer::new();
    let scanner = Arc::new(scanner());
    scanner.prepare().unwrap();
    let (engine, mut port) =
        Engine::start(vec![scanner], SourceInfo::new("a test", "test"), Goal::default(), announcer)
            .unwrap();
    let job = |number: u8, zeros| {
        let unit = units(zeros, true, &[(1, 0, 1)]).remove(0);
        let job = &unit.template.job;
        Job {
            key: JobKey { connection: 0, number: number.into() },
            previous_block_hash: bitcoin::BlockHash::from_byte_array([number; 32]),
            merkle_root: MerkleRoot::Fixed([number; 32]),
            received: Instant::now(),
            version: job.version,
            version_mask: job.version_mask,
            height: None,
            nbits: job.nbits,
            ntime: job.ntime,
            share_target: job.share_target,
            network_target: job.network_target,
            clean: true,
            ends_when_solved: true,
            body: None,
        }
    };
    // Jobs that are practically never solved, each followed by one that is solved at once, unless batches
    // of the old job are still waited for.
    for number in 0..20 {
        port.publish(job(2 * number, 32));
        std::thread::sleep(Duration::from_millis(30));
        port.publish(job(2 * number + 1, 12));
        let solution = loop {
            let solution = pollster::block_on(port.solution()).unwrap();
            port.verdict(&solution, crate::job::Verdict::Accepted);
            // The hard job may have been solved, in one of some thousand runs.
            if solution.job.key.number != u64::from(2 * number) {
                break solution;
            }
        };
        assert_eq!(solution.job.key.number, u64::from(2 * number + 1));
        assert!(solution.found - solution.job.received < Duration::from_secs(10));
    }
    drop(port);
    let summary = engine.finish();
    assert_eq!((summary.hardware_errors, summary.blocks.stale), (0, 0));
    assert_eq!(summary.blocks.accepted, 20);
}

/// Hands out the same unit for ever, and counts the batches that end in a pause.
struct Pausing {
    unit: WorkUnit,
    is_paused: AtomicBool,
    has_ended: AtomicBool,
    batches: AtomicU64,
    in_pause: AtomicU64,
}

impl Feed for Pausing {
    fn next(&self, midstates: usize, nonces: u64) -> Option<WorkUnit> {
        while self.is_paused() && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.try_next(midstates, nonces)
    }

    fn try_next(&self, _: usize, _: u64) -> Option<WorkUnit> {
        (!self.is_paused() && !self.has_ended()).then(|| self.unit.clone())
    }

    fn give_back(&self, _: WorkUnit) {}

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::SeqCst)
    }

    fn hit(&self, _: &WorkUnit, _: Hit) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn count(&self, _: usize, _: u64) {
        self.batches.fetch_add(1, Ordering::SeqCst);
        if self.is_paused() {
            self.in_pause.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_pause_stops_a_device_within_two_batches() {
    // Three midstates, of which a batch takes two: something is left to be sent at any moment.
    let feed = Pausing {
        unit: units(32, false, &[(3, 0, 1 << 12)]).remove(0),
        is_paused: AtomicBool::new(false),
        has_ended: AtomicBool::new(false),
        batches: AtomicU64::new(0),
        in_pause: AtomicU64::new(0),
    };
    let scanner = scanner();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| scanner.run(&feed));
        let mut seen = 0;
        for _ in 0..3 {
            // It has begun, or gone on after the pause.
            let begun = Instant::now();
            while feed.batches.load(Ordering::SeqCst) < seen + 5 {
                assert!(begun.elapsed() < Duration::from_secs(60) && !running.is_finished());
                std::thread::sleep(Duration::from_millis(1));
            }
            feed.in_pause.store(0, Ordering::SeqCst);
            feed.is_paused.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            assert!(feed.in_pause.load(Ordering::SeqCst) <= 2);
            seen = feed.batches.load(Ordering::SeqCst);
            feed.is_paused.store(false, Ordering::SeqCst);
        }
        feed.has_ended.store(true, Ordering::SeqCst);
        running.join().unwrap().unwrap();
    });
}
