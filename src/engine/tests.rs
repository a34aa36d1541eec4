use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};

use super::*;
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::event::{Announcement, Event, Listener, PauseReason, Tally};
use crate::job::{Job, JobKey, MerkleRoot, Solution, TimeRange};
use crate::scan::cpu::{CpuScanner, Sha2};
use crate::scan::{BackendError, Feed, Hit, Throttle, WorkUnit};
use crate::units::Joules;

/// What a test does with a backend's feed, on the backend's thread.
type Act = Box<dyn FnOnce(&dyn Feed) + Send>;

/// A backend that does what it is told.
struct Puppet(Mutex<Receiver<Act>>);

impl Scanner for Puppet {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            id: BackendId::Cpu("puppet"),
            kernel: "puppet".into(),
            device: "none".into(),
            threads: 1,
        }
    }

    fn run(&self, feed: &dyn Feed) -> Result<(), BackendError> {
        for act in self.0.lock().unwrap().iter() {
            act(feed);
        }
        Ok(())
    }
}

/// Runs `act` with the feed and gives what it returns.
fn with<T: Send + 'static>(
    to: &SyncSender<Act>,
    act: impl FnOnce(&dyn Feed) -> T + Send + 'static,
) -> T {
    let (answer, answered) = sync_channel(1);
    to.send(Box::new(move |feed| answer.send(act(feed)).unwrap())).unwrap();
    answered.recv().unwrap()
}

/// A job that every hash solves, and whose solution is a block.
fn job(number: u64) -> Job {
    let previous = BlockHash::from_byte_array([number as u8; 32]);
    Job {
        key: JobKey { connection: 0, number },
        version: 0x2000_0000,
        version_mask: VersionMask::NONE,
        previous_block_hash: previous,
        height: None,
        nbits: CompactTarget::from_consensus(0x207f_ffff),
        ntime: TimeRange::fixed(1),
        merkle_root: MerkleRoot::Fixed([number as u8; 32]),
        share_target: Target::max(),
        network_target: Target::max(),
        clean: true,
        ends_when_solved: true,
        body: None,
        received: Instant::now(),
    }
}

#[test]
fn what_another_source_is_given_takes_nothing_from_the_one_that_is_mined() {
    let (to, acts) = sync_channel(1);
    let scanner: Arc<dyn Scanner> = Arc::new(Puppet(Mutex::new(acts)));
    let (announcer, _events) = Announcer::new();
    let sources = ["a", "b"].map(|name| SourceInfo::new(name, "test")).to_vec();
    let (engine, sources) =
        Engine::with_sources(vec![scanner], sources, Goal::default(), announcer).unwrap();
    let (mut a, mut b) = (sources.open(SourceId(0)), sources.open(SourceId(1)));
    a.publish(job(1));
    b.publish(job(2));
    let of_a = with(&to, |feed| feed.next(1, 10).unwrap());
    sources.choose(SourceId(1), "a test".into());
    let of_b = with(&to, |feed| feed.next(1, 10).unwrap());
    assert_eq!((of_a.source, of_b.source), (SourceId(0), SourceId(1)));

    // A backend still had a's unit, and finds a block in it.
    let hit = |unit: &WorkUnit| {
        let (unit, hit) = (unit.clone(), Hit { midstate: 0, nonce: unit.nonces.first() });
        with(&to, move |feed| feed.hit(&unit, hit))
    };
    assert!(hit(&of_a).is_break());
    assert_eq!(a.solutions.try_recv().unwrap().job.key.number, 1);
    let still = of_b.clone();
    assert!(with(&to, move |feed| feed.wants(&still)), "b's unit is wanted still");
    // There is never a second solution for one height, neither of a's nor of b's.
    assert!(hit(&of_a).is_break() && a.solutions.try_recv().is_err());
    assert!(hit(&of_b).is_break());
    assert_eq!(b.solutions.try_recv().unwrap().job.key.number, 2);
    assert!(hit(&of_b).is_break() && b.solutions.try_recv().is_err());

    // And a is mined again with its next job.
    a.verdict(&a_solution(&engine), Verdict::Accepted);
    sources.choose(SourceId(0), "a test".into());
    a.publish(job(3));
    let of_a = with(&to, |feed| feed.next(1, 10).unwrap());
    assert_eq!((of_a.source, of_a.template.job.key.number), (SourceId(0), 3));
    assert!(hit(&of_a).is_break());
    assert_eq!(a.solutions.try_recv().unwrap().job.key.number, 3);
    drop(to);
    assert_eq!(engine.finish().blocks.unknown, 2);
}

/// The solution of the first source that waits for an answer.
fn a_solution(engine: &Engine) -> Solution {
    let state = engine.shared.state();
    let of_a = state.unanswered.values().find(|waiting| waiting.source == SourceId(0));
    of_a.unwrap().solution.clone()
}

/// A backend and a pool's port, and what is announced.
struct Pool {
    to: SyncSender<Act>,
    port: Port,
    engine: Engine,
    events: Listener,
}

impl Pool {
    fn new(goal: Goal) -> Self {
        let (to, acts) = sync_channel(1);
        let scanner: Arc<dyn Scanner> = Arc::new(Puppet(Mutex::new(acts)));
        let (announcer, events) = Announcer::new();
        let (engine, port) =
            Engine::start(vec![scanner], SourceInfo::new("pool", "test"), goal, announcer).unwrap();
        Self { to, port, engine, events }
    }

    /// A unit of the job at hand.
    fn unit(&self) -> WorkUnit {
        with(&self.to, |feed| feed.next(1, 10).unwrap())
    }

    /// Reports the unit's nonce at this place; gives the solution, if one is to be sent.
    fn find(&mut self, unit: &WorkUnit, nonce: u32) -> Option<Solution> {
        let (unit, hit) = (unit.clone(), Hit { midstate: 0, nonce: unit.nonces.first() + nonce });
        let _ = with(&self.to, move |feed| feed.hit(&unit, hit));
        self.port.solutions.try_recv().ok()
    }

    /// What was said of blocks since this was last asked.
    fn blocks(&self) -> Vec<(BlockHash, &'static str)> {
        let block = |told: Announcement| match told.event {
            Event::Block { hash, verdict, .. } => Some((hash, verdict.result())),
            _ => None,
        };
        self.events.try_iter().filter_map(block).collect()
    }

    fn finish(self) -> Summary {
        drop((self.to, self.port));
        self.engine.finish()
    }
}

/// A clean job of a pool's of which every hash is a block, and none or every one a share.
fn pool_job(number: u64, previous: BlockHash, share_target: Target) -> Job {
    Job { previous_block_hash: previous, share_target, ends_when_solved: false, ..job(number) }
}

fn no_share() -> Target {
    Target::from_be_bytes([0; 32])
}

#[test]
fn a_block_that_is_no_share_goes_out_once_on_each_tip() {
    let mut pool = Pool::new(Goal::default());
    let tip = |number: u8| BlockHash::from_byte_array([number; 32]);
    pool.port.publish(pool_job(1, tip(1), no_share()));
    let unit = pool.unit();
    let block = pool.find(&unit, 0).expect("it is sent");
    assert!(block.is_block() && !block.is_share());
    assert!(pool.find(&unit, 1).is_none(), "one is enough");
    assert_eq!(pool.unit().target, no_share(), "shares are sought from here on");
    pool.port.publish(pool_job(2, tip(1), no_share()));
    assert_eq!(pool.unit().target, no_share());
    pool.port.publish(pool_job(3, tip(2), no_share()));
    let unit = pool.unit();
    assert_eq!(unit.target, Target::max());
    assert!(pool.find(&unit, 0).is_some(), "the first on another tip");
    let refused = RejectReason::new("low difficulty", "");
    pool.port.verdict(&block, Verdict::Rejected(refused));
    assert_eq!(pool.blocks(), [(block.hash, "unknown"), (block.hash, "stale")]);
    let summary = pool.finish();
    assert_eq!(summary.shares, Tally::default(), "no share was refused");
    assert_eq!((summary.blocks.stale, summary.blocks.unknown), (1, 1));
}

#[test]
fn a_block_of_a_replaced_job_goes_out_while_its_tip_is_the_tip() {
    let mut pool = Pool::new(Goal::default());
    let tip = |number: u8| BlockHash::from_byte_array([number; 32]);
    pool.port.publish(pool_job(1, tip(1), Target::max()));
    let unit = pool.unit();
    pool.port.publish(pool_job(2, tip(1), Target::max()));
    assert!(pool.find(&unit, 0).is_some(), "its tip is the tip");
    pool.port.publish(pool_job(3, tip(2), Target::max()));
    assert!(pool.find(&unit, 1).is_none(), "its tip is past");
    pool.port.clear_job();
    assert_eq!(pool.blocks().last().unwrap().1, "stale");
    pool.finish();
}

#[test]
fn a_pools_block_is_unknown_until_a_job_builds_on_it() {
    let mut pool = Pool::new(Goal { blocks: Some(2), shares: None });
    pool.port.publish(pool_job(1, BlockHash::from_byte_array([1; 32]), Target::max()));
    let unit = pool.unit();
    let (block, other) = (pool.find(&unit, 0).unwrap(), pool.find(&unit, 1).unwrap());
    for block in [&block, &other] {
        pool.port.verdict(block, Verdict::Accepted);
    }
    pool.port.publish(pool_job(1, BlockHash::from_byte_array([1; 32]), Target::max()));
    assert_eq!(pool.blocks(), [(block.hash, "unknown"), (other.hash, "unknown")]);
    pool.port.publish(pool_job(2, block.hash, Target::max()));
    assert_eq!(pool.blocks(), [(block.hash, "accepted"), (other.hash, "stale")]);

    // The job that builds on it may come before the pool's answer to the share.
    let unit = pool.unit();
    let next = pool.find(&unit, 0).unwrap();
    pool.port.publish(pool_job(3, next.hash, Target::max()));
    assert!(!pool.engine.shared.state().stopped);
    pool.port.verdict(&next, Verdict::Accepted);
    assert_eq!(pool.blocks(), [(next.hash, "unknown"), (next.hash, "accepted")]);
    assert!(pool.engine.shared.state().stopped, "two blocks were asked for");
    let summary = pool.finish();
    assert_eq!(
        summary.blocks,
        Tally { accepted: 2, stale: 1, unknown: 0, rejected: 0 },
        "each block is counted once"
    );
    assert_eq!(summary.shares.accepted, 3);
}

#[test]
fn a_block_that_no_job_tells_of_stays_unknown_and_that_is_said() {
    let mut pool = Pool::new(Goal::default());
    pool.port.publish(pool_job(1, BlockHash::from_byte_array([1; 32]), Target::max()));
    let unit = pool.unit();
    let block = pool.find(&unit, 0).unwrap();
    pool.port.verdict(&block, Verdict::Accepted);
    let Pool { to, port, engine, events } = pool;
    drop((to, port));
    assert_eq!(engine.finish().blocks, Tally { unknown: 1, ..Tally::default() });
    let said = events.try_iter().any(|told| {
        matches!(told.event, Event::Notice(text) if text.starts_with("a block is not confirmed"))
    });
    assert!(said);
}

/// Waits for a status for which `wanted` holds.
fn wait_for_status(status: &mut watch::Receiver<Status>, wanted: impl FnMut(&Status) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let wait = status.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes").unwrap();
    });
}

#[test]
fn the_last_status_says_what_the_summary_says() {
    let mut pool = Pool::new(Goal::default());
    let mut status = pool.engine.status();
    let state = |status: &watch::Receiver<Status>| status.borrow().run;
    assert_eq!(state(&status), RunState::Starting);
    pool.port.started(Some(bitcoin::Network::Regtest));
    let previous = BlockHash::from_byte_array([1; 32]);
    let job = Job { height: Some(7), ..pool_job(1, previous, Target::max()) };
    pool.port.publish(job);
    let unit = pool.unit();
    let mut best = None;
    for number in 0..7 {
        let solution = pool.find(&unit, number).expect("it is sent");
        let difficulty = solution.difficulty().to_f64();
        best = Some(best.map_or(difficulty, |best: f64| best.max(difficulty)));
        let verdict = match number {
            0..=2 => Verdict::Accepted,
            3 | 4 => Verdict::Rejected(RejectReason::new("low difficulty", "")),
            5 => Verdict::Stale(RejectReason::new("", "too late")),
            // No answer.
            _ => continue,
        };
        pool.port.verdict(&solution, verdict);
    }
    wait_for_status(&mut status, |status| status.shares.total() == 6);
    {
        let status = status.borrow();
        assert_eq!(status.run, RunState::Mining);
        let job = status.job.expect("a job");
        assert_eq!((job.height, job.previous_block_hash), (Some(7), previous));
        let source = status.mined().expect("a source");
        assert_eq!((source.id, source.connection), (SourceId(0), Connection::Connected));
        assert_eq!(source.network, Some(bitcoin::Network::Regtest));
        assert!(source.last_share.is_some() && source.latency.is_some());
        let best_difficulty = status.best_difficulty.expect("something was found");
        assert!((best_difficulty.to_f64() - best.unwrap()).abs() < 1e-9);
        assert_eq!(status.last_block.as_ref().unwrap().result, "stale");
        assert_eq!(status.backends[0].info.id, BackendId::Cpu("puppet"));
    }
    let summary = pool.finish();
    let status = status.borrow();
    assert_eq!(status.run, RunState::Stopping);
    assert_eq!((status.shares, status.blocks), (summary.shares, summary.blocks));
    assert_eq!((status.hashes, status.hardware_errors), (summary.hashes, summary.hardware_errors));
    let [source] = &status.sources[..] else { panic!("one source") };
    assert_eq!((source.shares, source.blocks), (summary.shares, summary.blocks));
    assert_eq!(
        summary.shares,
        Tally { accepted: 3, rejected: 2, stale: 1, unknown: 1 },
        "as they were answered"
    );
    let reasons: Vec<_> = source.reject_reasons.iter().map(|(why, n)| (why.as_str(), *n)).collect();
    assert_eq!(reasons, [("low difficulty", 2), ("too late", 1)]);
}

#[test]
fn a_pool_that_puts_a_number_into_each_reason_fills_no_memory() {
    let mut pool = Pool::new(Goal::default());
    let mut status = pool.engine.status();
    pool.port.publish(pool_job(1, BlockHash::from_byte_array([1; 32]), Target::max()));
    let unit = with(&pool.to, |feed| feed.next(1, 1_000).unwrap());
    for number in 0..100 {
        let solution = pool.find(&unit, number).unwrap();
        let why = RejectReason::new(format!("{number}{}", "\u{7}".repeat(10_000)), "");
        pool.port.verdict(&solution, Verdict::Rejected(why));
    }
    pool.finish();
    let status = status.borrow_and_update();
    let source = &status.sources[0];
    let counted: u64 = source.reject_reasons.iter().map(|(_, count)| count).sum();
    assert_eq!(counted + source.other_rejects, 100);
    assert!(source.reject_reasons.len() < 20);
    assert!(source.reject_reasons.iter().all(|(why, _)| why.chars().count() <= 200));
}

#[test]
fn a_pause_lasts_until_no_reason_is_left_and_what_was_found_is_sent() {
    let mut pool = Pool::new(Goal::default());
    let control = pool.engine.control();
    let mut status = control.status();
    pool.port.publish(pool_job(1, BlockHash::from_byte_array([1; 32]), Target::max()));
    let unit = pool.unit();
    control.pause(PauseReason::User);
    control.pause(PauseReason::Power);
    control.pause(PauseReason::Power);
    assert!(with(&pool.to, |feed| feed.is_paused() && feed.try_next(1, 1).is_none()));
    let reasons = control.pause_reasons();
    wait_for_status(&mut status, |status| status.run == RunState::Paused(reasons));
    assert!(pool.find(&unit, 0).is_some(), "its job is the one of now");
    // The next job comes in the pause.
    let tip = BlockHash::from_byte_array([2; 32]);
    pool.port.publish(pool_job(2, tip, Target::max()));
    control.resume(PauseReason::User);
    assert!(with(&pool.to, |feed| feed.is_paused() && feed.try_next(1, 1).is_none()));
    let (answer, answered) = sync_channel(1);
    pool.to.send(Box::new(move |feed| answer.send(feed.next(1, 1)).unwrap())).unwrap();
    assert!(answered.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
    control.resume(PauseReason::Power);
    let unit = answered.recv_timeout(Duration::from_secs(60)).unwrap().expect("work");
    assert_eq!(unit.template.job.previous_block_hash, tip);
    assert!(!with(&pool.to, |feed| feed.is_paused()));
    let told: Vec<String> = pool
        .events
        .try_iter()
        .filter_map(|told| match told.event {
            Event::Paused(reasons) => Some(reasons.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["user", "user, power", "power", ""]);
    pool.finish();
}

#[test]
fn a_pause_stops_the_processor_and_the_end_of_it_starts_it_again() {
    let scanner = CpuScanner::new(Arc::new(Sha2), 2).unwrap();
    let (announcer, _events) = Announcer::new();
    let scanners: Vec<Arc<dyn Scanner>> = vec![Arc::new(scanner)];
    let (engine, port) =
        Engine::start(scanners, SourceInfo::new("a", "test"), Goal::default(), announcer).unwrap();
    let control = engine.control();
    let hashes = || engine.hashes()[0].1;
    let changes = |wanted: bool| {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let before = hashes();
            std::thread::sleep(Duration::from_millis(100));
            if (hashes() != before) == wanted {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
        }
    };
    let zero = no_share();
    let hard = Job { network_target: zero, ..pool_job(1, BlockHash::all_zeros(), zero) };
    control.pause(PauseReason::User);
    port.publish(hard);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(hashes(), 0, "it began paused");
    for _ in 0..3 {
        control.resume(PauseReason::User);
        assert!(changes(true), "it hashes");
        control.pause(PauseReason::User);
        assert!(changes(false), "it stands still");
    }
    assert!(port.hash_rate().is_some());
    // A backend that waits in a pause ends all the same.
    drop(port);
    assert!(engine.finish().hashes > 0);
}

#[test]
fn requests_reach_the_backend_and_the_source_that_they_are_for() {
    let pool = Pool::new(Goal::default());
    let control = pool.engine.control();
    let half = Throttle::percent(50).unwrap();
    assert_eq!(
        control.set_throttle(Some(BackendId::Gpu(3)), half),
        Err(ControlError::NoSuchBackend(BackendId::Gpu(3)))
    );
    assert_eq!(with(&pool.to, |feed| feed.throttle()), Throttle::NONE);
    control.set_throttle(Some(BackendId::Cpu("puppet")), half).unwrap();
    assert_eq!(with(&pool.to, |feed| feed.throttle()), half);
    control.set_throttle(None, Throttle::NONE).unwrap();
    assert_eq!(with(&pool.to, |feed| feed.throttle()), Throttle::NONE);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let is_requested = || {
        runtime.block_on(async {
            let request = pool.port.reconnect_requested();
            tokio::time::timeout(Duration::from_millis(1), request).await.is_ok()
        })
    };
    assert!(!is_requested());
    control.reconnect(SourceId(0)).unwrap();
    assert!(is_requested() && !is_requested());
    let other = SourceId(1);
    assert_eq!(control.reconnect(other), Err(ControlError::NoSuchSource(other)));
    assert_eq!(control.prefer(Some(other)), Err(ControlError::NoSuchSource(other)));
    control.stop();
    assert_eq!(control.reconnect(SourceId(0)), Err(ControlError::SourceNotRunning(SourceId(0))));
    pool.finish();
}

/// Waits until the first backend's status is such.
fn wait_for_backend(engine: &Engine, is_such: impl Fn(&BackendStatus) -> bool) -> BackendStatus {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let backend = engine.status().borrow().backends[0].clone();
        if is_such(&backend) {
            return backend;
        }
        assert!(Instant::now() < deadline, "{backend:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_backend_that_is_interrupted_has_failed_until_it_hashes_again() {
    let pool = Pool::new(Goal::default());
    let is = |state: BackendState| {
        wait_for_backend(&pool.engine, |backend| backend.state == state);
    };
    pool.port.publish(pool_job(1, BlockHash::all_zeros(), no_share()));
    with(&pool.to, |feed| feed.count(0, 1));
    is(BackendState::Hashing);
    with(&pool.to, |feed| feed.interrupted(Some("the device is lost".into())));
    is(BackendState::Failed("the device is lost".into()));
    // Also where nothing is to be hashed.
    pool.engine.control().pause(PauseReason::User);
    std::thread::sleep(Duration::from_millis(250));
    is(BackendState::Failed("the device is lost".into()));
    with(&pool.to, |feed| feed.interrupted(None));
    is(BackendState::Resting);
    pool.engine.control().resume(PauseReason::User);
    is(BackendState::Hashing);
    pool.finish();
}

#[test]
fn the_energy_is_what_the_meter_reads_once_a_second() {
    let pool = Pool::new(Goal::default());
    assert_eq!(wait_for_backend(&pool.engine, |_| true).energy, None);
    let readings = Arc::new(AtomicU64::new(0));
    let count = readings.clone();
    pool.engine.measure_energy(Box::new(move |backend| {
        assert_eq!(backend.id, BackendId::Cpu("puppet"));
        // At first it cannot be read.
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => None,
            number => Some(Joules::from_f64(number as f64)),
        }
    }));
    let begun = Instant::now();
    let read = wait_for_backend(&pool.engine, |backend| backend.energy.is_some());
    assert_eq!(read.energy, Some(Joules::from_f64(1.0)));
    assert!(readings.load(Ordering::Relaxed) <= begun.elapsed().as_secs() + 2);
    let status = pool.engine.status();
    pool.finish();
    // And once more at the end.
    let last = readings.load(Ordering::Relaxed) - 1;
    assert_eq!(status.borrow().backends[0].energy, Some(Joules::from_f64(last as f64)));
}
