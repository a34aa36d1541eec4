//! Detects pools that send jobs and cannot be mined on all the same: those that answer no share, and those
//! that refuse every one. Such a pool is left, and is not reported healthy for a while after that.

use std::time::{Duration, Instant};

/// What is wrong with a pool that has jobs for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolFault {
    /// It takes shares and answers none.
    Unresponsive,
    /// It refuses every share.
    RefusesAll,
}

/// Shares in a row whose answers did not come in time, on one connection.
#[derive(Clone, Copy, Debug)]
pub struct UnansweredShares {
    limit: (u32, Duration),
    run: Option<UnansweredRun>,
}

#[derive(Clone, Copy, Debug)]
struct UnansweredRun {
    /// The id of the first one's request.
    first_id: u64,
    /// When that was sent.
    since: Instant,
    count: u32,
}

impl UnansweredShares {
    /// A pool is unresponsive after this many shares, the first of them sent this long ago.
    #[must_use]
    pub const fn new(limit: (u32, Duration)) -> Self {
        Self { limit, run: None }
    }

    /// No answer came in time to the share that was sent at `sent` in the request `id`.
    pub fn timed_out(&mut self, id: u64, sent: Instant) {
        let first = UnansweredRun { first_id: id, since: sent, count: 0 };
        self.run.get_or_insert(first).count += 1;
    }

    /// The pool has answered a share, in time or late.
    pub const fn answered(&mut self) {
        self.run = None;
    }

    /// Whether an answer to `id`, which nothing waits for, may be a late one to a share of the run.
    /// `next_id` is the id of the next request.
    #[must_use]
    pub fn may_answer_late(&self, id: u64, next_id: u64) -> bool {
        self.run.is_some_and(|run| (run.first_id..next_id).contains(&id))
    }

    /// When the pool counts as unresponsive, if it answers none before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (enough, timeout) = self.limit;
        let run = self.run.filter(|run| run.count >= enough)?;
        Some(run.since + timeout)
    }
}

/// Shares that the pool has refused since it last accepted one, on one connection or several: some
/// pools close the connection after a few.
#[derive(Clone, Copy, Debug)]
pub struct RefusedShares {
    limit: (u32, Duration),
    /// When the first was refused, and how many were.
    run: Option<(Instant, u32)>,
}

impl RefusedShares {
    /// A pool refuses all after this many shares, the first of them refused this long ago.
    #[must_use]
    pub const fn new(limit: (u32, Duration)) -> Self {
        Self { limit, run: None }
    }

    /// Counts a share that was refused at `now`; says whether the limit is reached.
    pub fn refused(&mut self, now: Instant) -> bool {
        let (since, count) = self.run.get_or_insert((now, 0));
        *count += 1;
        *count >= self.limit.0 && now.duration_since(*since) >= self.limit.1
    }

    /// Begins to count again: a share was accepted, or the pool was left for it.
    pub const fn reset(&mut self) {
        self.run = None;
    }
}

/// How long a pool is not reported healthy after it was left for a fault: twice as long each time, up
/// to eight times, until it shows that the fault is over.
#[derive(Clone, Copy, Debug)]
pub struct FaultCooldown {
    first: Duration,
    last: Option<LastFault>,
}

#[derive(Clone, Copy, Debug)]
struct LastFault {
    fault: PoolFault,
    until: Instant,
    /// How often the pool was left for a fault since it last showed that one was over.
    times: u32,
}

impl FaultCooldown {
    /// No fault yet; the first lasts for `first`.
    #[must_use]
    pub const fn new(first: Duration) -> Self {
        Self { first, last: None }
    }

    /// The pool was left for `fault` at `now`.
    pub fn begin(&mut self, fault: PoolFault, now: Instant) {
        let times = self.last.map_or(0, |last| last.times);
        let until = now + self.first * 2u32.pow(times.min(3));
        self.last = Some(LastFault { fault, until, times: times + 1 });
    }

    /// The pool has shown that it does not have this fault. Whether it was left for it.
    pub fn clear(&mut self, fault: PoolFault) -> bool {
        self.last.take_if(|last| last.fault == fault).is_some()
    }

    /// Whether the pool is not to be reported healthy.
    #[must_use]
    pub fn is_active(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pool_is_unresponsive_after_enough_shares_and_time_without_any_answer() {
        let begun = Instant::now();
        let mut shares = UnansweredShares::new((3, SECOND * 10));
        for id in 5..7 {
            shares.timed_out(id, begun);
        }
        assert_eq!(shares.deadline(), None);
        shares.timed_out(7, begun + SECOND * 4);
        assert_eq!(shares.deadline(), Some(begun + SECOND * 10));
        let late = |id| shares.may_answer_late(id, 9);
        assert_eq!([4, 5, 8, 9].map(late), [false, true, true, false]);
        shares.answered();
        assert_eq!((shares.deadline(), shares.may_answer_late(5, 9)), (None, false));
    }

    #[test]
    fn a_pool_refuses_all_after_enough_shares_and_time_with_none_accepted() {
        let begun = Instant::now();
        let mut shares = RefusedShares::new((3, SECOND));
        let seconds = [0, 0, 0, 1].map(|seconds| shares.refused(begun + SECOND * seconds));
        assert_eq!(seconds, [false, false, false, true]);
        shares.reset();
        let after = [1, 9, 9].map(|seconds| shares.refused(begun + SECOND * seconds));
        assert_eq!(after, [false, false, true]);
    }

    #[test]
    fn a_fault_lasts_twice_as_long_each_time_until_it_is_cleared() {
        let mut now = Instant::now();
        let mut cooldown = FaultCooldown::new(SECOND);
        assert!(!cooldown.is_active(now));
        for seconds in [1, 2, 4, 8, 8] {
            cooldown.begin(PoolFault::Unresponsive, now);
            let before_the_end = now + SECOND * (2 * seconds - 1) / 2;
            now += SECOND * seconds;
            assert!(cooldown.is_active(before_the_end) && !cooldown.is_active(now));
        }
        cooldown.begin(PoolFault::RefusesAll, now);
        assert!(!cooldown.clear(PoolFault::Unresponsive) && cooldown.is_active(now));
        assert!(cooldown.clear(PoolFault::RefusesAll) && !cooldown.is_active(now));
        cooldown.begin(PoolFault::RefusesAll, now);
        assert!(!cooldown.is_active(now + SECOND));
    }
}
