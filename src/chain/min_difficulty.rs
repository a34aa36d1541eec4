//! The twenty-minute rule of testnet3 and testnet4 (Bitcoin Core's `GetNextWorkRequired` with
//! `fPowAllowMinDifficultyBlocks`), and BIP 94's rule on time.
//!
//! A block whose nTime is more than twenty minutes after its parent's must have the lowest
//! difficulty, and one that is not must have the period's own. The first block of a period of 2016
//! is excepted: its difficulty is computed, whenever it comes. So nBits hold for the nTime values of
//! one side only, and a header must never be carried across the line with the bits of the other.

use bitcoin::Network;

/// How much later than its parent a block must be, in seconds, and one more.
const TWENTY_MINUTES: u32 = 20 * 60;

/// A difficulty period, in blocks.
pub const PERIOD: u32 = 2016;

/// How much earlier than its parent a period's first block may be, in seconds (BIP 94).
const MAX_TIMEWARP: u32 = 600;

/// Which side of the line a block is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A period's first block: its difficulty is computed and holds at all times.
    PeriodStart,
    /// The period's own difficulty, which holds up to this nTime and no further.
    Period {
        /// Seconds since 1970.
        last: u32,
    },
    /// The lowest difficulty, which holds from this nTime on.
    Minimum {
        /// Seconds since 1970.
        from: u32,
    },
}

impl Stage {
    /// The side of a block at `height` with `ntime` on top of one with the nTime `tip_time`.
    #[must_use]
    pub const fn of(height: u32, tip_time: u32, ntime: u32) -> Self {
        let last = tip_time.saturating_add(TWENTY_MINUTES);
        if height.is_multiple_of(PERIOD) {
            Self::PeriodStart
        } else if ntime <= last {
            Self::Period { last }
        } else {
            Self::Minimum { from: last.saturating_add(1) }
        }
    }

    /// Whether bits that hold on this side hold for a block with this nTime too.
    #[must_use]
    pub const fn holds_at(self, ntime: u32) -> bool {
        match self {
            Self::PeriodStart => true,
            Self::Period { last } => ntime <= last,
            Self::Minimum { from } => ntime >= from,
        }
    }
}

/// The earliest nTime that BIP 94 allows to a block at `height` on top of one with the nTime
/// `tip_time`, where it says anything. (The median of the last eleven blocks' times is another
/// bound.)
#[must_use]
pub fn bip94_earliest(network: Network, height: u32, tip_time: u32) -> Option<u32> {
    let starts_a_period = network == Network::Testnet4 && height.is_multiple_of(PERIOD);
    starts_a_period.then(|| tip_time.saturating_sub(MAX_TIMEWARP))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_line_is_strictly_more_than_twenty_minutes() {
        assert_eq!(Stage::of(7, 1_000, 2_200), Stage::Period { last: 2_200 });
        assert_eq!(Stage::of(7, 1_000, 2_201), Stage::Minimum { from: 2_201 });
        assert_eq!(Stage::of(7, 1_000, 5), Stage::Period { last: 2_200 });
        assert_eq!(Stage::of(u32::MAX, u32::MAX, u32::MAX), Stage::Period { last: u32::MAX });
    }

    #[test]
    fn the_first_block_of_a_period_is_excepted() {
        for height in [0, 2_016, 4_032, 2_016 * 1_000] {
            assert_eq!(Stage::of(height, 1_000, u32::MAX), Stage::PeriodStart);
        }
        for height in [1, 2_015, 2_017] {
            assert_ne!(Stage::of(height, 1_000, u32::MAX), Stage::PeriodStart);
        }
    }

    #[test]
    fn bip_94_speaks_of_testnet4_and_of_a_periods_first_block() {
        assert_eq!(bip94_earliest(Network::Testnet4, 2_016, 1_000), Some(400));
        assert_eq!(bip94_earliest(Network::Testnet4, 2_016, 5), Some(0));
        assert_eq!(bip94_earliest(Network::Testnet4, 2_017, 1_000), None);
        assert_eq!(bip94_earliest(Network::Testnet, 2_016, 1_000), None);
    }

    proptest! {
        #[test]
        fn bits_hold_just_where_the_side_is_the_same(
            height in 0..10_000u32,
            tip in 0..u32::MAX,
            one in any::<u32>(),
            near in -5..5i64,
        ) {
            let line = i64::from(tip) + 1_200 + near;
            for other in [one, line.clamp(0, i64::from(u32::MAX)) as u32] {
                let side = Stage::of(height, tip, one);
                prop_assert!(side.holds_at(one));
                prop_assert_eq!(side.holds_at(other), side == Stage::of(height, tip, other));
            }
        }
    }
}
