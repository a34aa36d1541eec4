//! Targets and difficulty, each a type of its own.

use std::fmt;

use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget};

use crate::units::write_scaled;

/// A 256-bit number that a block hash, read as a little-endian number, must not exceed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(bitcoin::Target);

/// Why an nBits field holds no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NBitsError {
    /// The sign bit is set on a nonzero mantissa.
    #[error("nBits {0:08x} is negative")]
    Negative(u32),
    /// The value is zero: no hash could meet it.
    #[error("nBits {0:08x} is zero")]
    Zero(u32),
    /// The value does not fit into 256 bits.
    #[error("nBits {0:08x} overflows 256 bits")]
    Overflow(u32),
}

impl Target {
    /// Difficulty 1, which `1d00ffff` stands for.
    pub const DIFFICULTY_1: Self = Self(bitcoin::Target::MAX_ATTAINABLE_MAINNET);

    /// The target of all ones: every hash meets it.
    #[must_use]
    pub fn max() -> Self {
        Self::from_be_bytes([0xff; 32])
    }

    /// From 32 bytes, most significant first (as `getblocktemplate` prints it).
    #[must_use]
    pub fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(bitcoin::Target::from_be_bytes(bytes))
    }

    /// 32 bytes, most significant first.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// The target an nBits field stands for, by the rules a node applies (Bitcoin Core's
    /// `arith_uint256::SetCompact`): negative, zero and overflowing ones are refused.
    ///
    /// # Errors
    /// When the field is negative, zero or overflows.
    pub fn from_nbits(nbits: CompactTarget) -> Result<Self, NBitsError> {
        let bits = nbits.to_consensus();
        let (size, mantissa) = (bits >> 24, bits & 0x007f_ffff);
        let word = if size <= 3 { mantissa >> (8 * (3 - size)) } else { mantissa };
        if word == 0 {
            return Err(NBitsError::Zero(bits));
        }
        if bits & 0x0080_0000 != 0 {
            return Err(NBitsError::Negative(bits));
        }
        if size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32) {
            return Err(NBitsError::Overflow(bits));
        }
        Ok(Self(bitcoin::Target::from_compact(nbits)))
    }

    /// The nBits field that stands for this target, rounded down.
    #[must_use]
    pub fn to_nbits(self) -> CompactTarget {
        self.0.to_compact_lossy()
    }

    /// Whether `hash` is at or below the target.
    #[must_use]
    pub fn is_met_by(&self, hash: &BlockHash) -> bool {
        self.0.is_met_by(*hash)
    }

    /// How many times harder than difficulty 1.
    #[must_use]
    pub fn difficulty(&self) -> Difficulty {
        Difficulty(self.0.difficulty_float())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 64 hex digits, most significant first.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_be_bytes()))
    }
}

/// How hard a target is, as a multiple of difficulty 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Difficulty(f64);

impl Difficulty {
    /// The difficulty that one hash meets: 1 for a hash just at difficulty 1, more the lower it is.
    #[must_use]
    pub fn of_hash(hash: &BlockHash) -> Self {
        Target(bitcoin::Target::from_le_bytes(hash.to_byte_array())).difficulty()
    }

    /// From a plain number; `None` where it is no finite number, or not above zero.
    #[must_use]
    pub fn from_f64(difficulty: f64) -> Option<Self> {
        (difficulty.is_finite() && difficulty > 0.0).then_some(Self(difficulty))
    }

    /// As a plain number.
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        self.0
    }

    /// How many hashes it takes on average: difficulty × 2^48 / 65535, that is close to 2^32 each.
    #[must_use]
    pub fn expected_hashes(self) -> f64 {
        self.0 * (65_536.0 / 65_535.0) * 4_294_967_296.0
    }
}

/// Four significant digits: `4.657e-10`, `1`, `123.5T`.
impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value != 0.0 && value < 0.001 {
            return write!(f, "{value:.3e}");
        }
        write_scaled(f, value, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nbits(bits: u32) -> Result<Target, NBitsError> {
        Target::from_nbits(CompactTarget::from_consensus(bits))
    }

    #[test]
    fn nbits_are_read_as_a_node_reads_them() {
        assert_eq!(nbits(0x207f_ffff).unwrap().to_string(), format!("7fffff{}", "0".repeat(58)));
        assert_eq!(nbits(0x1d00_ffff).unwrap(), Target::DIFFICULTY_1);
        assert_eq!(nbits(0x0300_0001).unwrap().to_string(), format!("{:0>64}", 1));
        assert_eq!(nbits(0x0200_0100).unwrap().to_string(), format!("{:0>64}", 1));
    }

    #[test]
    fn bad_nbits_are_told_apart() {
        assert_eq!(nbits(0), Err(NBitsError::Zero(0)));
        assert_eq!(nbits(0x0200_0001), Err(NBitsError::Zero(0x0200_0001)));
        assert_eq!(nbits(0x1d80_0000), Err(NBitsError::Zero(0x1d80_0000)));
        assert_eq!(nbits(0x1d80_ffff), Err(NBitsError::Negative(0x1d80_ffff)));
        assert_eq!(nbits(0x2300_0001), Err(NBitsError::Overflow(0x2300_0001)));
        assert_eq!(nbits(0x2200_0100), Err(NBitsError::Overflow(0x2200_0100)));
        assert_eq!(nbits(0x2101_0000), Err(NBitsError::Overflow(0x2101_0000)));
        assert!(nbits(0x2200_00ff).is_ok());
    }

    #[test]
    fn nbits_round_trip() {
        for bits in [0x207f_ffff, 0x1d00_ffff, 0x1703_4219, 0x1e03_77ae] {
            assert_eq!(nbits(bits).unwrap().to_nbits().to_consensus(), bits);
        }
    }

    #[test]
    fn difficulties_read_well() {
        assert_eq!(Target::DIFFICULTY_1.difficulty().to_string(), "1");
        assert_eq!(nbits(0x207f_ffff).unwrap().difficulty().to_string(), "4.657e-10");
        assert_eq!(nbits(0x1703_4219).unwrap().difficulty().to_string(), "86.39T");
    }
}
