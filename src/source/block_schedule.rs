//! How fast blocks are wanted on a test chain: one each so often, one as soon as there is a
//! transaction, or both.

use std::time::{Duration, Instant};

/// When a block is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One each so often.
    Every(Duration),
    /// One as soon as the mempool has a transaction for it, and none else.
    OnTransaction,
    /// Both.
    EveryAndOnTransaction(Duration),
}

impl Pace {
    /// The pace that these two ask for, if they ask for any.
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

    /// The options that ask for it, as a person writes them.
    #[must_use]
    pub const fn options(self) -> &'static str {
        match self {
            Self::Every(_) => "--every",
            Self::OnTransaction => "--on-transaction",
            Self::EveryAndOnTransaction(_) => "--every and --on-transaction",
        }
    }
}

/// How often at most it is said that blocks were left out.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The times at which blocks are due: a beginning, and each whole period after it. What delays one
/// block moves no other.
#[derive(Clone, Debug)]
pub struct Schedule {
    begun: Instant,
    period: Duration,
    /// How many of these times have come.
    passed: u64,
    /// Times that have come without a block, since that was last said.
    left_out: u64,
    said: Option<Instant>,
}

impl Schedule {
    /// The first block is due at `begun`.
    #[must_use]
    pub const fn new(begun: Instant, period: Duration) -> Self {
        Self { begun, period, passed: 0, left_out: 0, said: None }
    }

    /// When the next block is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        let nanoseconds = self.period.as_nanos().saturating_mul(u128::from(self.passed));
        self.begun + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Begins the block that is due at `now`. Where more than one is, they are one: blocks that
    /// could not be made in time are not made in a burst.
    pub fn begin(&mut self, now: Instant) {
        self.left_out += self.pass(now).saturating_sub(1);
    }

    /// Says that the block which was begun is made. Those that came due meanwhile are left out.
    pub fn done(&mut self, now: Instant) {
        self.left_out += self.pass(now);
    }

    /// How many of the times have come by `now` that had not before.
    fn pass(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.begun).as_nanos();
        let come = u64::try_from(elapsed / self.period.as_nanos().max(1)).unwrap_or(u64::MAX) + 1;
        let new = come.saturating_sub(self.passed);
        self.passed = self.passed.max(come);
        new
    }

    /// How many blocks were left out and have not been spoken of, now and then.
    pub fn left_out(&mut self, now: Instant) -> Option<u64> {
        let quiet = self.said.is_some_and(|said| now.duration_since(said) < SAY_EVERY);
        if self.left_out == 0 || quiet {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// How it is said that blocks were left out.
pub(super) fn left_out(number: u64) -> String {
    let (s, were) = if number == 1 { ("", "was") } else { ("s", "were") };
    format!(
        "{number} block{s} of --every {were} left out: what cannot be made in time is not made up for"
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
    fn blocks_are_due_on_the_beat_however_late_they_come() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, SECOND);
        assert_eq!(schedule.due(), begun);
        for n in 0..1_000u32 {
            let late = Duration::from_millis(u64::from(n % 7) * 20);
            schedule.begin(begun + SECOND * n + late);
            schedule.done(begun + SECOND * n + late * 2);
            assert_eq!(schedule.due(), begun + SECOND * (n + 1));
        }
        assert_eq!(schedule.left_out(begun), None);
    }

    #[test]
    fn what_was_missed_is_one_block_and_is_said_now_and_then() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(begun, SECOND);
        schedule.begin(begun);
        schedule.done(begun);
        // Seconds 1 to 5 come at once.
        let late = begun + SECOND * 5 + SECOND / 2;
        schedule.begin(late);
        assert_eq!(schedule.due(), begun + SECOND * 6);
        assert_eq!(schedule.left_out(late), Some(4));
        // One that takes longer than a period leaves out what came due meanwhile.
        schedule.begin(begun + SECOND * 6);
        schedule.done(begun + SECOND * 8 + SECOND / 4);
        assert_eq!(schedule.due(), begun + SECOND * 9);
        assert_eq!(schedule.left_out(begun + SECOND * 9), None);
        assert_eq!(schedule.left_out(late + SECOND * 60), Some(2));
        assert_eq!(schedule.left_out(late + SECOND * 600), None);
    }

    proptest! {
        /// Whatever the delays: no two blocks for one time, none before its time, and the times
        /// that came are those of blocks and those left out.
        #[test]
        fn no_block_comes_early_and_none_twice(
            period in 1..5_000u64,
            delays in proptest::collection::vec((0..20_000u64, 0..20_000u64), 1..50),
        ) {
            let begun = Instant::now();
            let mut schedule = Schedule::new(begun, Duration::from_millis(period));
            let (mut now, mut blocks, mut left_out) = (begun, 0, 0);
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
                left_out += schedule.left_out(now + SECOND * 1_000_000 * blocks).unwrap_or(0);
                let grid = (schedule.due() - begun).as_millis() as u64;
                prop_assert_eq!(grid, period * (u64::from(blocks) + left_out));
            }
        }
    }
}
