//! Limits the number of shares.
//!
//! A pool may set a difficulty so low that a machine finds millions of shares a second. Then only the best
//! of them are searched for: a lower bound on the difficulty moves until a few hundred a second are found.
//! A share above this bound is above the pool's difficulty too, so each of them counts.

use std::time::{Duration, Instant};

use crate::chain::target::Target;

/// How long shares are counted before the bound moves.
pub const WINDOW: Duration = Duration::from_millis(250);
/// The most in a window: 500 a second.
const MOST: u32 = 125;
/// The fewest in a window, where the pool accepts more.
const LEAST: u32 = 40;
/// The first bound: a million hashes a share, which no machine does 5,000 times a second before the first
/// window is over.
const FIRST: u32 = 20;
/// The highest bound.
const HIGHEST: u32 = 200;

/// A lower bound on the share difficulty, in zero bits, moved by how many shares are found.
#[derive(Debug)]
pub struct ShareLimiter {
    /// The leading zero bits that a hash must have.
    bits: u32,
    begun: Instant,
    found: u32,
    /// Whether the user was told.
    announced: bool,
}

impl ShareLimiter {
    /// Begins to count at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { bits: FIRST, begun: now, found: 0, announced: false }
    }

    /// The bound as a target: the easiest that is mined.
    #[must_use]
    pub fn easiest_target(&self) -> Target {
        let mut bytes = [0xff; 32];
        let whole = (self.bits / 8) as usize;
        bytes[..whole].fill(0);
        bytes[whole] = 0xff >> (self.bits % 8);
        Target::from_be_bytes(bytes)
    }

    /// Whether the bound excludes shares that meet `target`.
    #[must_use]
    pub fn limits(&self, target: &Target) -> bool {
        *target > self.easiest_target()
    }

    /// Counts a share, and moves the bound if it is time; see [`Self::tick`]. Whether it has moved.
    pub fn found(&mut self, now: Instant, is_limited: bool, behind: bool) -> bool {
        self.found += 1;
        if self.found < 4 * MOST {
            return self.tick(now, is_limited, behind);
        }
        self.bits = (self.bits + 3).min(HIGHEST);
        (self.begun, self.found) = (now, 0);
        true
    }

    /// Whether the user is to be told of the limit: true once.
    pub fn announce_once(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    /// When the window is over.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.begun + WINDOW
    }

    /// Moves the bound when a window is over. `is_limited` says whether it excludes shares, `behind`
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
    fn mine(limiter: &mut ShareLimiter, rate: f64, windows: u32, start: Instant) -> Vec<u32> {
        let window = |number: u32| {
            let (mut shares, mut hashes) = (0, rate * WINDOW.as_secs_f64());
            let begun = start + WINDOW * number;
            while hashes >= f64::from(limiter.bits).exp2() {
                hashes -= f64::from(limiter.bits).exp2();
                shares += 1;
                limiter.found(begun, true, false);
            }
            limiter.tick(begun + WINDOW, true, false);
            shares
        };
        (0..windows).map(window).collect()
    }

    #[test]
    fn a_few_hundred_shares_a_second_are_found_on_every_machine() {
        for rate in [1e4, 1e6, 1.6e8, 1e10, 1e12] {
            let start = Instant::now();
            let mut limiter = ShareLimiter::new(start);
            let shares = mine(&mut limiter, rate, 40, start);
            let settled = &shares[20..];
            assert!(settled.iter().all(|s| (20..=250).contains(s)), "{rate} {shares:?}");
            assert!(shares.iter().sum::<u32>() < 20_000, "{rate} {shares:?}");
        }
    }

    #[test]
    fn a_pool_that_is_behind_gets_no_more() {
        let start = Instant::now();
        let mut limiter = ShareLimiter::new(start);
        assert!(!limiter.tick(start + WINDOW, true, true));
        assert!(limiter.tick(start + WINDOW * 2, true, false));
        assert!(!limiter.tick(start + WINDOW * 3, false, false));
    }

    #[test]
    fn the_bound_is_a_number_of_zero_bits() {
        let mut limiter = ShareLimiter::new(Instant::now());
        for (bits, shown) in [(0, "ffffff"), (1, "7fffff"), (8, "00ffff"), (20, "00000f")] {
            limiter.bits = bits;
            assert!(limiter.easiest_target().to_string().starts_with(shown), "{bits}");
        }
        assert!(limiter.limits(&Target::max()) && !limiter.limits(&Target::DIFFICULTY_1));
    }
}
