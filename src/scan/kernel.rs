//! One CPU thread's way of hashing: what a kernel is handed, and what it reports.

use std::fmt;
use std::ops::ControlFlow;

use super::sha256::IV;
use crate::chain::block;
use crate::chain::target::Target;

/// The SHA-256 state after a header's first 64 bytes, with the version it was computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Midstate {
    /// The header's version field, as a number.
    pub version: u32,
    /// H0..H7 after the first compression (FIPS 180-4 §6.2.2).
    pub state: [u32; 8],
}

impl Midstate {
    /// Compresses the first 64 bytes of a serialized header.
    #[must_use]
    pub fn of(version: u32, first_block: &[u8; 64]) -> Self {
        let mut state = IV;
        sha2::block_api::compress256(&mut state, std::slice::from_ref(first_block));
        Self { version, state }
    }
}

/// The first three words of a header's second block as SHA-256 reads them: the big-endian words of
/// header bytes 64..76 (merkle tail, nTime, nBits). The fourth is the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondBlock {
    /// W0, W1 and W2 of the second block's message schedule.
    pub words: [u32; 3],
}

impl SecondBlock {
    /// Reads the words from a serialized header's bytes 64..76.
    #[must_use]
    pub fn of(tail: &[u8; 12]) -> Self {
        let word = |i: usize| u32::from_be_bytes([tail[i], tail[i + 1], tail[i + 2], tail[i + 3]]);
        Self { words: [word(0), word(4), word(8)] }
    }
}

/// A half-open range of nonces that never wraps: `first .. first + count`, at most to 2^32.
///
/// A nonce is the number in the header's field; the word that SHA-256 reads is its byte swap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NonceRange {
    first: u32,
    count: u64,
}

impl NonceRange {
    /// How many nonces there are: 2^32.
    pub const ALL: u64 = 1 << 32;

    /// Every nonce.
    #[must_use]
    pub const fn full() -> Self {
        Self { first: 0, count: Self::ALL }
    }

    /// `count` nonces from `first`; `None` if `count` is 0 or the range runs past 2^32.
    #[must_use]
    pub fn new(first: u32, count: u64) -> Option<Self> {
        (count > 0 && count <= Self::ALL - u64::from(first)).then_some(Self { first, count })
    }

    /// The lowest nonce.
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// How many nonces, 1 to 2^32.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// One past the highest nonce, up to 2^32.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first as u64 + self.count
    }

    /// What is left of the range from nonce `first` on; the range itself where `first` is not in it.
    #[must_use]
    pub fn after(self, first: u32) -> Self {
        let skipped = u64::from(first).checked_sub(u64::from(self.first));
        match skipped.filter(|skipped| *skipped < self.count) {
            Some(skipped) => Self { first, count: self.count - skipped },
            None => self,
        }
    }

    /// Parts the range after its first `count` nonces; the second part is `None` when nothing is
    /// left. A `count` of 0 is taken as 1.
    #[must_use]
    pub fn split(self, count: u64) -> (Self, Option<Self>) {
        let head = count.clamp(1, self.count);
        let rest = u32::try_from(u64::from(self.first) + head)
            .ok()
            .and_then(|first| Self::new(first, self.count - head));
        (Self { first: self.first, count: head }, rest)
    }
}

impl fmt::Debug for NonceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.first, self.end())
    }
}

/// Which bits of a hash must be zero for a kernel to report it, as a mask on H7 *as SHA-256 yields
/// it*. The hash's most significant 32 bits are H7 byte-swapped, so the mask is swapped too.
///
/// It keeps the target's leading zero bits among the top 32 and no more: a kernel may report a
/// little too much (the engine hashes each candidate again) and never too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitMask(u32);

impl HitMask {
    /// The mask that admits at least every hash which meets `target`.
    #[must_use]
    pub fn for_target(target: Target) -> Self {
        let [a, b, c, d, ..] = target.to_be_bytes();
        Self::for_top_word(u32::from_be_bytes([a, b, c, d]))
    }

    /// The mask for a target whose most significant 32 bits are `top`.
    #[must_use]
    pub const fn for_top_word(top: u32) -> Self {
        let zeros = top.leading_zeros();
        let mask = if zeros == 0 { 0 } else { u32::MAX << (32 - zeros) };
        Self(mask.swap_bytes())
    }

    /// A mask of just these bits, which need not be leading ones.
    #[cfg(all(test, feature = "gpu"))]
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits, to be applied to H7.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether a hash whose last word is `h7` is to be reported.
    #[must_use]
    #[inline]
    pub const fn admits(self, h7: u32) -> bool {
        h7 & self.0 == 0
    }
}

/// What a kernel is handed: midstates that share one second block, and the nonces to try with each.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// One midstate per rolled version, at least one, at most [`MAX_MIDSTATES`].
    pub midstates: &'a [Midstate],
    /// The words the midstates share.
    pub second_block: SecondBlock,
    /// The nonces to try against every midstate.
    pub nonces: NonceRange,
    /// What to report.
    pub hit_mask: HitMask,
}

/// The most midstates a [`Scan`] carries.
pub const MAX_MIDSTATES: usize = 64;

/// A (midstate, nonce) pair that a kernel reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Index into the scan's midstates.
    pub midstate: usize,
    /// The nonce as the header's field has it.
    pub nonce: u32,
}

/// A way of computing SHA-256d on one CPU thread.
///
/// Who has a whole header uses [`scan_header`](Kernel::scan_header) or [`solve`](Kernel::solve); who rolls
/// versions computes the midstates once and uses [`scan`](Kernel::scan).
///
/// ```
/// use adit::bitcoin::CompactTarget;
/// use adit::chain::target::Target;
/// use adit::scan::cpu::{CpuFeatures, open_all};
/// use adit::scan::NonceRange;
///
/// let header = [7; 80];
/// let target = Target::from_nbits(CompactTarget::from_consensus(0x1f03_ffff))?;
/// let nonces = NonceRange::new(0, 100_000).expect("it ends below 2^32");
///
/// // Every kernel that this processor can run finds the same nonces.
/// let mut results = Vec::new();
/// for (name, kernel) in open_all(CpuFeatures::detected()) {
///     let Ok(kernel) = kernel else {
///         continue;
///     };
///     let mut found = Vec::new();
///     let tried = kernel.scan_header(&header, nonces, target, &mut |nonce| {
///         found.push(nonce);
///         std::ops::ControlFlow::Continue(())
///     });
///     assert_eq!(tried, 100_000);
///     found.sort_unstable();
///     results.push((name, found));
/// }
/// let (_, reference) = &results[0];
/// assert!(!reference.is_empty());
/// assert!(results.iter().all(|(_, found)| found == reference));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Kernel: Send + Sync + fmt::Debug {
    /// The name that `--backend cpu:NAME` takes.
    fn name(&self) -> &'static str;

    /// How many midstates it likes to be handed where the version can be rolled.
    fn midstates(&self) -> usize;

    /// Tries every nonce against every midstate and reports each pair whose hash [`HitMask`]
    /// admits: all of them, each once, none outside the range, in any order. When `found` breaks,
    /// the scan ends as soon as it can.
    ///
    /// Returns the number of hashes done: pairs that were tried against the mask.
    ///
    /// # Panics
    /// When there is no midstate, or more than [`MAX_MIDSTATES`].
    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64;

    /// Tries these nonces in one serialized header, whose own nonce (the last four bytes) does not matter,
    /// and calls `found` with each nonce that makes its hash meet `target`, in any order. Each was hashed
    /// again by the reference implementation. When `found` breaks, the scan ends as soon as it can.
    ///
    /// Returns the number of nonces tried. It takes as long as they take, so a miner whose work may change
    /// hands over ranges of some milliseconds each.
    fn scan_header(
        &self,
        header: &[u8; 80],
        nonces: NonceRange,
        target: Target,
        found: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> u64 {
        let scanned = HeaderParts::of(header);
        let scan = Scan {
            midstates: &[scanned.midstate],
            second_block: scanned.second_block,
            nonces,
            hit_mask: HitMask::for_target(target),
        };
        let mut header = *header;
        self.scan(&scan, &mut |Hit { nonce, .. }| {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            if target.is_met_by(&block::hash(&header)) {
                found(nonce)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// The first nonce of the range that is found to make the header's hash meet `target`, which need not
    /// be the lowest; `None` if none does. See [`Kernel::scan_header`].
    fn solve(&self, header: &[u8; 80], nonces: NonceRange, target: Target) -> Option<u32> {
        let mut solution = None;
        self.scan_header(header, nonces, target, &mut |nonce| {
            solution = Some(nonce);
            ControlFlow::Break(())
        });
        solution
    }
}

/// A serialized header as a kernel takes it.
struct HeaderParts {
    midstate: Midstate,
    second_block: SecondBlock,
}

impl HeaderParts {
    fn of(header: &[u8; 80]) -> Self {
        let (mut first, mut tail) = ([0; 64], [0; 12]);
        first.copy_from_slice(&header[..64]);
        tail.copy_from_slice(&header[64..76]);
        let version = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        Self { midstate: Midstate::of(version, &first), second_block: SecondBlock::of(&tail) }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::CompactTarget;

    use super::*;

    fn mask(nbits: u32) -> HitMask {
        let nbits = CompactTarget::from_consensus(nbits);
        HitMask::for_target(Target::from_nbits(nbits).unwrap())
    }

    #[test]
    fn only_what_meets_the_target_is_a_solution() {
        use crate::scan::cpu::Sha2;

        // Twelve leading zero bits, which the mask asks for, and something more.
        let mut target = [0; 32];
        target[1] = 0x08;
        let target = Target::from_be_bytes(target);
        let mut header = [3; 80];
        let nonces = NonceRange::new(5, 60_000).unwrap();
        let mut found = Vec::new();
        let tried = Sha2.scan_header(&header, nonces, target, &mut |nonce| {
            found.push(nonce);
            ControlFlow::Continue(())
        });
        assert_eq!(tried, 60_000);
        let expected: Vec<u32> = (5..60_005)
            .filter(|nonce: &u32| {
                header[76..].copy_from_slice(&nonce.to_le_bytes());
                target.is_met_by(&block::hash(&header))
            })
            .collect();
        found.sort_unstable();
        assert!(expected.len() > 2, "{expected:?}");
        assert_eq!(found, expected);
        let first = Sha2.solve(&header, nonces, target);
        assert!(first.is_some_and(|nonce| expected.contains(&nonce)), "{first:?}");
        assert_eq!(Sha2.solve(&header, nonces, Target::from_be_bytes([0; 32])), None);
    }

    #[test]
    fn the_mask_keeps_the_leading_zeros_and_no_more() {
        assert_eq!(mask(0x1d00_ffff).bits(), u32::MAX);
        assert_eq!(mask(0x207f_ffff).bits(), 0x0000_0080);
        assert_eq!(HitMask::for_target(Target::max()).bits(), 0);
        assert!(mask(0x2000_ffff).admits(0xffff_ff00));
        assert!(!mask(0x2000_ffff).admits(0x0000_0001));
    }
}
