use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};

use super::*;
use crate::chain::target::Target;
use crate::chain::version::VersionMask;
use crate::event::{Announcement, Event, Listener, Tally};
use crate::job::{Job, JobKey, MerkleRoot, Solution, TimeRange};
use crate::scan::{BackendError, Feed, Hit, WorkUnit};

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
    let names = vec!["a".to_owned(), "b".to_owned()];
    let (engine, sources) =
        Engine::with_sources(vec![scanner], names, Goal::default(), announcer).unwrap();
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
            Engine::start(vec![scanner], "pool".to_owned(), goal, announcer).unwrap();
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
    let refused = Refusal::new("low difficulty", "");
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
