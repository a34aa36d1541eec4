use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};

use super::*;
use crate::chain::target::Target;
use crate::job::{JobKey, MerkleRoot, TimeRange, VersionMask, WorkUnit};
use crate::scan::{BackendError, Feed, Hit};

/// What a test does with a backend's feed, on the backend's thread.
type Act = Box<dyn FnOnce(&dyn Feed) + Send>;

/// A backend that does what it is told.
struct Puppet(Mutex<Receiver<Act>>);

impl Scanner for Puppet {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            backend: "cpu",
            index: None,
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
    let (engine, seats) =
        Engine::with_sources(vec![scanner], names, Goal::default(), announcer).unwrap();
    let (mut a, mut b) = (seats.open(0), seats.open(1));
    a.publish(job(1));
    b.publish(job(2));
    let of_a = with(&to, |feed| feed.next(1, 10).unwrap());
    seats.choose(1, "a test".into());
    let of_b = with(&to, |feed| feed.next(1, 10).unwrap());
    assert_eq!((of_a.source, of_b.source), (0, 1));

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
    seats.choose(0, "a test".into());
    a.publish(job(3));
    let of_a = with(&to, |feed| feed.next(1, 10).unwrap());
    assert_eq!((of_a.source, of_a.prepared.job.key.number), (0, 3));
    assert!(hit(&of_a).is_break());
    assert_eq!(a.solutions.try_recv().unwrap().job.key.number, 3);
    drop(to);
    assert_eq!(engine.finish().blocks.unknown, 2);
}

/// The solution of the first source that waits for an answer.
fn a_solution(engine: &Engine) -> Solution {
    let state = engine.shared.state();
    let of_a = state.unanswered.values().find(|waiting| waiting.seat == 0);
    of_a.unwrap().solution.clone()
}
