//! When blocks are wanted on a test chain: one per period, one as soon as there is a transaction, or both.

use std::time::{Duration, Instant};

/// When a block is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One per period.
    Every(Duration),
    /// One as soon as the mempool has a transaction for it, and no other.
    OnTransaction,
    /// Both.
    EveryAndOnTransaction(Duration),
}

impl Pace {
    /// The pace that these two options ask for, if any.
    #[must_use]
    pub const fn new(every: Option<Duration>, on_transaction: bool) -> Option<Self> {
        match (every, on_transaction) {
            (None, false) => None,
            (None, true) => Some(Self::OnTransaction),
            (Some(every), false) => Some(Self::Every(every)),
            (Some(every), true) => Some(Self::EveryAndOnTransaction(every)),
        }
    }

    /// The time from one block to the next, where there is one.
    #[must_use]
    pub const fn every(self) -> Option<Duration> {
        match self {
            Self::Every(every) | Self::EveryAndOnTransaction(every) => Some(every),
            Self::OnTransaction => None,
        }
    }

    /// Whether a transaction is a reason for a block.
    #[must_use]
    pub const fn on_transaction(self) -> bool {
        matches!(self, Self::OnTransaction | Self::EveryAndOnTransaction(_))
    }

    /// The options that ask for it, as the user writes them.
    #[must_use]
    pub const fn options(self) -> &'static str {
        match self {
            Self::Every(_) => "--every",
            Self::OnTransaction => "--on-transaction",
            Self::EveryAndOnTransaction(_) => "--every and --on-transaction",
        }
    }
}

/// How often at most skipped blocks are reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The times at which blocks are due: a beginning, and each whole period after it. A delay of one block
/// delays no other.
#[derive(Clone, Debug)]
pub struct Schedule {
    begun: Instant,
    period: Duration,
    /// How many of these times have passed.
    passed: u64,
    /// Times that have passed without a block since that was last reported.
    skipped: u64,
    reported: Option<Instant>,
}

impl Schedule {
    /// The first block is due at `begun`.
    #[must_use]
    pub const fn new(begun: Instant, period: Duration) -> Self {
        Self { begun, period, passed: 0, skipped: 0, reported: None }
    }

    /// When the next block is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        let nanoseconds = self.period.as_nanos().saturating_mul(u128::from(self.passed));
        self.begun + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Begins the block that is due at `now`. If several are, they become one: blocks that could not be
    /// made in time are not made in a burst.
    pub fn begin(&mut self, now: Instant) {
        self.skipped += self.pass(now).saturating_sub(1);
    }

    /// The block that was begun is made. Those that became due meanwhile are skipped.
    pub fn done(&mut self, now: Instant) {
        self.skipped += self.pass(now);
    }

    /// How many more of the times have passed by `now`.
    fn pass(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begun).as_nanos();
        let come = u64::try_from(elapsed / self.period.as_nanos().max(1)).unwrap_or(u64::MAX) + 1;
        let new = come.saturating_sub(self.passed);
        self.passed = self.passed.max(come);
        new
    }

    /// How many blocks were skipped since this was last reported, if it is time to report it.
    pub fn take_skipped(&mut self, now: Instant) -> Option<u64> {
        let quiet =
            self.reported.is_some_and(|reported| now.duration_since(reported) < REPORT_EVERY);
        if self.skipped == 0 || quiet {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.skipped))
    }
}

/// The notice that this many blocks were skipped.
pub(super) fn skipped_notice(number: u64) -> String {
    let (s, were) = if number == 1 { ("", "was") } else { ("s", "were") };
    format!(
        "{number} block{s} of --every {were} skipped: blocks that cannot be made in time are not made up for"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pace_is_what_the_options_ask_for() {
        assert_eq!(Pace::new(None, false), None);
        for (every, on_transaction) in [(Some(SECOND), false), (None, true), (Some(SECOND), true)] {
            let pace = Pace::new(every, on_transaction).unwrap();
            assert_eq!((pace.every(), pace.on_transaction()), (every, on_transaction));
        }
    }

    #[test]
    fn blocks_are_due_on_time_however_late_the_last_one_was() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, SECOND);
        assert_eq!(schedule.due(), begun);
        for n in 0..1_000u32 {
            let late = Duration::from_millis(u64::from(n % 7) * 20);
            schedule.begin(begun + SECOND * n + late);
            schedule.done(begun + SECOND * n + late * 2);
            assert_eq!(schedule.due(), begun + SECOND * (n + 1));
        }
        assert_eq!(schedule.take_skipped(begun), None);
    }

    #[test]
    fn missed_blocks_become_one_and_are_reported_now_and_then() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, SECOND);
        schedule.begin(begun);
        schedule.done(begun);
        // Seconds 1 to 5 come at once.
        let late = begun + SECOND * 5 + SECOND / 2;
        schedule.begin(late);
        assert_eq!(schedule.due(), begun + SECOND * 6);
        assert_eq!(schedule.take_skipped(late), Some(4));
        // One that takes longer than a period skips those that became due meanwhile.
        schedule.begin(begun + SECOND * 6);
        schedule.done(begun + SECOND * 8 + SECOND / 4);
        assert_eq!(schedule.due(), begun + SECOND * 9);
        assert_eq!(schedule.take_skipped(begun + SECOND * 9), None);
        assert_eq!(schedule.take_skipped(late + SECOND * 60), Some(2));
        assert_eq!(schedule.take_skipped(late + SECOND * 600), None);
    }

    proptest! {
        /// Whatever the delays: no two blocks for one time, none before its time, and every time that
        /// passed is that of a block or of a skipped one.
        #[test]
        fn no_block_comes_early_and_none_twice(
            period in 1..5_000u64,
            delays in proptest::collection::vec((0..20_000u64, 0..20_000u64), 1..50),
        ) {
            let begun = Instant::now();
            let mut schedule = Schedule::new(begun, Duration::from_millis(period));
            let (mut now, mut blocks, mut skipped) = (begun, 0, 0);
            for (before, during) in delays {
                now = now.max(schedule.due()) + Duration::from_millis(before);
                let due = schedule.due();
                prop_assert!(due <= now);
                schedule.begin(now);
                prop_assert!(schedule.due() > now);
                now += Duration::from_millis(during);
                schedule.done(now);
                prop_assert!(schedule.due() > now);
                blocks += 1;
                skipped += schedule.take_skipped(now + SECOND * 1_000_000 * blocks).unwrap_or(0);
                let grid = (schedule.due() - begun).as_millis() as u64;
                prop_assert_eq!(grid, period * (u64::from(blocks) + skipped));
            }
        }
    }
}
