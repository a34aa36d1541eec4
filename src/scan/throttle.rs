//! Hashing only a share of the time.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// No range or batch of a throttled backend is meant to take longer. One that did was not hashed
/// all the while: the process was stopped, or the machine slept.
const LONGEST: Duration = Duration::from_millis(100);

/// The share of the time that a backend hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// In percent, 1 to 100.
    percent: u8,
}

impl Throttle {
    /// All of the time.
    pub const NONE: Self = Self { percent: 100 };

    /// `percent` of the time, 1 to 100.
    #[must_use]
    pub fn percent(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self { percent })
    }

    /// In percent, 1 to 100.
    #[must_use]
    pub const fn as_percent(self) -> u8 {
        self.percent
    }

    /// Whether there is any rest at all.
    #[must_use]
    pub const fn rests(self) -> bool {
        self.percent < 100
    }

    /// How long to rest after hashing that took `took`.
    pub(super) fn after(self, took: Duration) -> Duration {
        let percent = u32::from(self.percent);
        took.min(LONGEST) * (100 - percent) / percent
    }
}

/// A throttle that any thread may change while others read it.
#[derive(Debug)]
pub struct SharedThrottle(AtomicU8);

impl SharedThrottle {
    /// One that begins with this value.
    #[must_use]
    pub const fn new(throttle: Throttle) -> Self {
        Self(AtomicU8::new(throttle.percent))
    }

    /// Its value now.
    #[must_use]
    pub fn get(&self) -> Throttle {
        Throttle { percent: self.0.load(Ordering::Relaxed) }
    }

    /// Changes its value; who reads it notices after the range or batch that is under way.
    pub fn set(&self, throttle: Throttle) {
        self.0.store(throttle.percent, Ordering::Relaxed);
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
