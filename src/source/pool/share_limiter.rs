//! Not more shares than anybody can use.
//!
//! A pool may set a difficulty so low that a machine finds millions of shares a second. Then only the
//! best of them are sought: a floor under the difficulty that moves until they come at a bearable
//! rate. A share above the floor is above the pool's difficulty too, so each of them counts.

use std::time::{Duration, Instant};

use crate::chain::target::Target;

/// How long shares are counted before the floor moves.
pub const WINDOW: Duration = Duration::from_millis(250);
/// The most in a window: 500 a second.
const MOST: u32 = 125;
/// The fewest in a window, where the pool would take more.
const LEAST: u32 = 40;
/// Where the floor begins: a million hashes a share, which no machine does 5,000 times a second
/// before the first window is over.
const FIRST: u32 = 20;
/// The highest floor.
const HIGHEST: u32 = 200;

/// The floor, and what it is moved by.
#[derive(Debug)]
pub struct ShareLimiter {
    /// The leading zero bits that a hash must have.
    bits: u32,
    begun: Instant,
    found: u32,
    /// Whether a person was told.
    told: bool,
}

impl ShareLimiter {
    /// A floor to begin with.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { bits: FIRST, begun: now, found: 0, told: false }
    }

    /// The easiest target that is mined.
    #[must_use]
    pub fn floor(&self) -> Target {
        let mut bytes = [0xff; 32];
        let whole = (self.bits / 8) as usize;
        bytes[..whole].fill(0);
        bytes[whole] = 0xff >> (self.bits % 8);
        Target::from_be_bytes(bytes)
    }

    /// Whether the floor is what keeps shares of this target away.
    #[must_use]
    pub fn limits(&self, target: &Target) -> bool {
        *target > self.floor()
    }

    /// Counts a share, and moves the floor if it is time. Whether it has moved.
    pub fn found(&mut self, now: Instant, is_limited: bool, behind: bool) -> bool {
        self.found += 1;
        if self.found < 4 * MOST {
            return self.tick(now, is_limited, behind);
        }
        self.bits = (self.bits + 3).min(HIGHEST);
        (self.begun, self.found) = (now, 0);
        true
    }

    /// Whether a person is to be told of the floor: once.
    pub fn announce_once(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// When the window is over.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.begun + WINDOW
    }

    /// Moves the floor when a window is over. `binds` says whether it keeps shares away, `behind`
    /// whether the pool is behind with its answers. Whether it has moved.
    pub fn tick(&mut self, now: Instant, is_limited: bool, behind: bool) -> bool {
        if now < self.due() {
            return false;
        }
        let (before, windows) = (self.bits, (now - self.begun).div_duration_f32(WINDOW));
        let found = self.found as f32 / windows;
        if found > MOST as f32 {
            let doublings = (found / MOST as f32).log2().ceil();
            self.bits = (self.bits + (doublings as u32).clamp(1, 8)).min(HIGHEST);
        } else if is_limited && !behind && found < LEAST as f32 {
            let step = if found * 4.0 < LEAST as f32 { 3 } else { 1 };
            self.bits = self.bits.saturating_sub(step);
        }
        (self.begun, self.found) = (now, 0);
        self.bits != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulated mining at `rate` hashes a second for a target that all hashes meet: shares of each
    /// window.
    fn mine(pace: &mut ShareLimiter, rate: f64, windows: u32, start: Instant) -> Vec<u32> {
        let window = |number: u32| {
            let (mut shares, mut hashes) = (0, rate * WINDOW.as_secs_f64());
            let begun = start + WINDOW * number;
            while hashes >= f64::from(pace.bits).exp2() {
                hashes -= f64::from(pace.bits).exp2();
                shares += 1;
                pace.found(begun, true, false);
            }
            pace.tick(begun + WINDOW, true, false);
            shares
        };
        (0..windows).map(window).collect()
    }

    #[test]
    fn shares_come_at_a_bearable_rate_on_every_machine() {
        for rate in [1e4, 1e6, 1.6e8, 1e10, 1e12] {
            let start = Instant::now();
            let mut pace = ShareLimiter::new(start);
            let shares = mine(&mut pace, rate, 40, start);
            let settled = &shares[20..];
            assert!(settled.iter().all(|s| (20..=250).contains(s)), "{rate} {shares:?}");
            assert!(shares.iter().sum::<u32>() < 20_000, "{rate} {shares:?}");
        }
    }

    #[test]
    fn a_pool_that_is_behind_gets_no_more() {
        let start = Instant::now();
        let mut pace = ShareLimiter::new(start);
        assert!(!pace.tick(start + WINDOW, true, true));
        assert!(pace.tick(start + WINDOW * 2, true, false));
        assert!(!pace.tick(start + WINDOW * 3, false, false));
    }

    #[test]
    fn floors_are_as_many_zero_bits() {
        let mut pace = ShareLimiter::new(Instant::now());
        for (bits, shown) in [(0, "ffffff"), (1, "7fffff"), (8, "00ffff"), (20, "00000f")] {
            pace.bits = bits;
            assert!(pace.floor().to_string().starts_with(shown), "{bits}");
        }
        assert!(pace.limits(&Target::max()) && !pace.limits(&Target::DIFFICULTY_1));
    }
}
