//! Hashing only a share of the time.

use std::time::{Duration, Instant};

use super::Feed;

/// No range or batch of a throttled backend is meant to take longer. One that did was not hashed
/// all the while: the process was stopped, or the machine slept.
const LONGEST: Duration = Duration::from_millis(100);

/// How often a rest looks whether it is time to stop.
const TICK: Duration = Duration::from_millis(20);

/// The share of the time that a backend hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// In percent, 1 to 100.
    percent: u32,
}

impl Throttle {
    /// All of the time.
    pub const NONE: Self = Self { percent: 100 };

    /// `percent` of the time, 1 to 100.
    #[must_use]
    pub fn percent(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self { percent: u32::from(percent) })
    }

    /// Whether there is any rest at all.
    #[must_use]
    pub const fn rests(self) -> bool {
        self.percent < 100
    }

    /// How long to rest after hashing that took `took`.
    fn after(self, took: Duration) -> Duration {
        took.min(LONGEST) * (100 - self.percent) / self.percent
    }

    /// Rests as long as is due after hashing that took `took`, or until it is time to stop.
    pub fn rest(self, took: Duration, feed: &dyn Feed) {
        pause(self.after(took), feed);
    }
}

/// Waits so long, or until it is time to stop.
pub(in crate::scan) fn pause(time: Duration, feed: &dyn Feed) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || feed.has_ended() {
            return;
        }
        std::thread::sleep(left.min(TICK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_makes_up_the_share() {
        let ms = Duration::from_millis;
        let after = |percent, took| Throttle::percent(percent).unwrap().after(ms(took));
        assert_eq!((after(25, 10), after(1, 1), after(100, 10)), (ms(30), ms(99), ms(0)));
        assert_eq!((Throttle::percent(0), Throttle::percent(101)), (None, None));
    }

    /// A process that was stopped for an hour is not to rest for four days.
    #[test]
    fn time_in_which_nothing_was_hashed_is_not_rested_for() {
        let hour = Duration::from_secs(3600);
        assert!(Throttle::percent(1).unwrap().after(hour) < Duration::from_secs(10));
    }
}
