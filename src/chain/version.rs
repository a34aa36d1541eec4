//! The bits of a header's version field that a miner may change.

/// Which bits of the version may be rolled (BIP 320, negotiated by BIP 310 on Stratum V1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VersionMask(u32);

impl VersionMask {
    /// No rolling.
    pub const NONE: Self = Self(0);
    /// The sixteen bits that BIP 320 sets aside for general use.
    pub const BIP320: Self = Self(0x1fff_e000);

    /// A mask of just these bits.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits as a number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How many versions there are under the mask: 2 to the number of its bits.
    #[must_use]
    pub const fn versions(self) -> u64 {
        1 << self.0.count_ones()
    }

    /// `version` with the bits under the mask replaced by the low bits of `index`, the lowest bit
    /// of the index in the lowest bit of the mask.
    #[must_use]
    pub fn roll(self, version: u32, index: u64) -> u32 {
        let mut rolled = version & !self.0;
        let mut mask = self.0;
        let mut index = index;
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            if index & 1 == 1 {
                rolled |= lowest;
            }
            index >>= 1;
            mask ^= lowest;
        }
        rolled
    }
}
