//! When a node's block is owed: at all times, or at the pace that was asked for.

use std::time::{Duration, Instant};

use super::mempool::{MempoolWatch, Report, Sighting};
use crate::source::block_schedule::{Pace, Schedule};

/// How long a node may give out a template that it made before a transaction came: Bitcoin Core's
/// and Knots's five seconds, and some more.
const CACHED: Duration = Duration::from_millis(5500);
/// How often it is asked again meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    /// A block, with or without transactions.
    Block,
    /// A block if there is a transaction for it. Templates without one may be out of date until
    /// then.
    Transactions { until: Instant },
}

/// What becomes of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is mined.
    Yes,
    /// It is not, and another is fetched this much later.
    Another(Duration),
    /// It is not: no block is owed.
    No,
}

/// Keeps the pace.
#[derive(Debug)]
pub struct Pacer {
    pace: Option<Pace>,
    schedule: Option<Schedule>,
    watch: Option<MempoolWatch>,
    owed: Option<Owed>,
}

impl Pacer {
    /// Without a pace a block is owed at all times.
    pub const fn new(pace: Option<Pace>) -> Self {
        Self { pace, schedule: None, watch: None, owed: None }
    }

    /// The pace, if there is one.
    pub const fn pace(&self) -> Option<Pace> {
        self.pace
    }

    /// Begins, or goes on with a new connection: `watch` is asked for where the mempool counts.
    pub fn connected(&mut self, now: Instant, watch: impl FnOnce() -> MempoolWatch) {
        let Some(pace) = self.pace else { return };
        if let (None, Some(every)) = (&self.schedule, pace.every()) {
            self.schedule = Some(Schedule::new(now, every));
        }
        if pace.on_transaction() {
            self.watch = Some(watch());
        }
    }

    /// Whether no block is owed.
    pub const fn rests(&self) -> bool {
        self.pace.is_some() && self.owed.is_none()
    }

    /// When the next block is due by the clock, where that makes a difference.
    pub fn due(&self) -> Option<Instant> {
        if self.owed == Some(Owed::Block) {
            None
        } else {
            self.schedule.as_ref().map(Schedule::due)
        }
    }

    /// Begins the block that is due; how many were left out, where that is to be said.
    pub fn begin(&mut self, now: Instant) -> Option<u64> {
        self.owed = Some(Owed::Block);
        let schedule = self.schedule.as_mut()?;
        schedule.begin(now);
        schedule.take_skipped(now)
    }

    /// Waits for something in the mempool.
    pub async fn mempool(&mut self) -> Report {
        match &mut self.watch {
            Some(watch) => watch.report().await,
            None => std::future::pending().await,
        }
    }

    /// Something is in the mempool.
    pub fn seen(&mut self, sighting: Sighting, now: Instant) {
        if self.owed.is_none() {
            let until = match sighting {
                Sighting::New => now + CACHED,
                // A template that the node has kept holds this too.
                Sighting::Still => now,
            };
            self.owed = Some(Owed::Transactions { until });
        }
    }

    /// Says what becomes of a template, with or without transactions.
    pub fn wants(&mut self, transactions: bool, now: Instant) -> Wanted {
        match self.owed {
            _ if self.pace.is_none() => Wanted::Yes,
            // The one with which a connection begins may hold what was there before.
            None if transactions && self.pace.is_some_and(Pace::on_transaction) => {
                self.owed = Some(Owed::Transactions { until: now });
                Wanted::Yes
            }
            None => Wanted::No,
            Some(Owed::Transactions { until }) if !transactions => {
                if now < until {
                    return Wanted::Another(ASK_AGAIN);
                }
                self.owed = None;
                Wanted::No
            }
            Some(_) => Wanted::Yes,
        }
    }

    /// The block is made: the next is owed in its time, and what is still in the mempool is looked
    /// for.
    pub fn made(&mut self, now: Instant) {
        let Some(owed) = self.owed.take() else { return };
        if let (Owed::Block, Some(schedule)) = (owed, &mut self.schedule) {
            schedule.done(now);
        }
        if let Some(watch) = &mut self.watch {
            watch.look_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_a_pace_a_block_is_owed_at_all_times() {
        let mut pacer = Pacer::new(None);
        let now = Instant::now();
        assert!(!pacer.rests());
        pacer.made(now);
        assert_eq!((pacer.wants(false, now), pacer.due()), (Wanted::Yes, None));
    }

    #[test]
    fn a_block_is_owed_when_it_is_due_and_until_it_is_made() {
        let mut pacer = Pacer::new(Some(Pace::Every(SECOND)));
        let begun = Instant::now();
        pacer.connected(begun, || unreachable!("no mempool is watched"));
        assert!(pacer.rests());
        assert_eq!(pacer.due(), Some(begun));
        assert_eq!(pacer.wants(true, begun), Wanted::No);
        assert_eq!(pacer.begin(begun), None);
        assert!(!pacer.rests());
        // A connection that is made anew changes nothing.
        pacer.connected(begun + SECOND, || unreachable!("no mempool is watched"));
        assert_eq!((pacer.wants(false, begun), pacer.due()), (Wanted::Yes, None));
        pacer.made(begun + SECOND / 2);
        assert!(pacer.rests());
        assert_eq!(pacer.due(), Some(begun + SECOND));
    }

    #[test]
    fn a_transaction_makes_a_block_and_an_empty_template_none() {
        let mut pacer = Pacer::new(Some(Pace::OnTransaction));
        let now = Instant::now();
        assert!(pacer.rests());
        pacer.seen(Sighting::New, now);
        assert_eq!(pacer.wants(false, now), Wanted::Another(ASK_AGAIN));
        assert_eq!(pacer.wants(true, now), Wanted::Yes);
        // Another miner has taken them.
        assert_eq!(pacer.wants(false, now + CACHED), Wanted::No);
        assert!(pacer.rests());
        pacer.seen(Sighting::Still, now);
        assert_eq!(pacer.wants(false, now), Wanted::No);
        // What is there when a connection begins counts too.
        assert_eq!(pacer.wants(false, now), Wanted::No);
        assert_eq!(pacer.wants(true, now), Wanted::Yes);
        pacer.made(now);
        assert!(pacer.rests());
    }
}
