//! Compares a kernel with the `sha2` crate before it is used: over known blocks, and over the same
//! blocks with other versions. The tests of all kernels use the same comparison.

use std::ops::ControlFlow;

use crate::chain::merkle::sha256d;
use crate::scan::{Hit, HitMask, Kernel, MAX_MIDSTATES, Midstate, NonceRange, Scan, SecondBlock};

/// How a kernel failed its self-test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestError {
    /// It missed hits, or reported pairs that are not hits.
    #[error(
        "{header}: {missing} of {expected} hits missing, {extra} false or repeated; \
         the first: nonce {:08x} of midstate {}", first.nonce, first.midstate
    )]
    Hits {
        /// Which header: its name, or its 80 bytes in hex.
        header: String,
        /// Hits that it should have reported.
        expected: usize,
        /// Hits that it missed.
        missing: usize,
        /// Pairs that it reported although they are not hits, or more than once.
        extra: usize,
        /// The first of these.
        first: Hit,
    },
    /// It returned a wrong number of hashes.
    #[error("{header}: {counted} hashes counted instead of {expected}")]
    Count {
        /// Which header: its name, or its 80 bytes in hex.
        header: String,
        /// What it returned.
        counted: u64,
        /// What it should have returned.
        expected: u64,
    },
}

/// Headers of blocks, whose hashes have at least 32 leading zero bits.
pub(super) const KNOWN: [(&str, &str); 4] = [
    (
        "block 0",
        "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac7\
         2c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c",
    ),
    (
        "block 1",
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe\
         680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299",
    ),
    (
        "block 2",
        "010000004860eb18bf1b1620e37e9490fc8a427514416fd75159ab86688e9a8300000000d5fdcc541e25de1c7a5a\
         ddedf24858b8bb665c9f36ef744ee42c316022c90f9bb0bc6649ffff001d08d2bd61",
    ),
    (
        "block 125552",
        "0100000081cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000e320b6c2fffc8d750423\
         db8b1eb942ae710e951ed797f7affc8892b0f1fc122bc7f5d74df2b9441a42a14695",
    ),
];

/// The known headers in bytes, with their names.
pub(super) fn known() -> impl Iterator<Item = (&'static str, [u8; 80])> {
    KNOWN.into_iter().filter_map(|(name, hex)| {
        let mut header = [0; 80];
        // A test checks that each of these constants is a block's header.
        hex::decode_to_slice(hex, &mut header).ok().map(|()| (name, header))
    })
}

/// Runs `kernel` over known blocks, with one midstate and with several rolled versions, and compares
/// every hit with the reference implementation.
///
/// # Errors
/// The first difference.
pub fn self_test(kernel: &dyn Kernel) -> Result<(), SelfTestError> {
    let hard = HitMask::for_top_word(0);
    let easy = HitMask::for_top_word(0x07ff_ffff);
    for (name, header) in known() {
        let nonce = u32::from_le_bytes([header[76], header[77], header[78], header[79]]);
        let ranges = [(nonce.saturating_sub(77), 160, hard), (u32::MAX - 40, 41, easy)];
        for k in [1, 3, kernel.midstates()] {
            let sample = Sample::new(name, &header, k);
            for (first, count, mask) in ranges {
                if let Some(nonces) = NonceRange::new(first, count) {
                    sample.check(kernel, nonces, mask)?;
                }
            }
        }
    }
    Ok(())
}

/// [`self_test`], and the same over `headers` random headers generated from `seed`, with any number of
/// midstates, odd ranges, the highest nonces, and easier and harder masks.
///
/// # Errors
/// The first difference.
pub fn long_self_test(kernel: &dyn Kernel, seed: u64, headers: u32) -> Result<(), SelfTestError> {
    self_test(kernel)?;
    let mut random = Random(seed);
    for _ in 0..headers {
        let header = random.header();
        let k = random.below(MAX_MIDSTATES as u64) as usize + 1;
        let sample = Sample::new(&hex::encode(header), &header, k);
        let count = random.below(200) + 1;
        let last = NonceRange::ALL - count;
        for first in [random.below(last), last] {
            if let Some(nonces) = NonceRange::new(first as u32, count) {
                let zeros = random.below(12) as u32;
                sample.check(kernel, nonces, HitMask::for_top_word(u32::MAX >> zeros))?;
            }
        }
    }
    Ok(())
}

/// A small generator of repeatable numbers (splitmix64, public domain).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// 80 bytes.
    pub(crate) fn header(&mut self) -> [u8; 80] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// A header in several versions, to be scanned by a kernel and hashed by the reference implementation.
pub(super) struct Sample {
    name: String,
    headers: Vec<[u8; 80]>,
    midstates: Vec<Midstate>,
    second_block: SecondBlock,
}

impl Sample {
    /// `count` versions of `header`, its own first.
    pub(super) fn new(name: &str, header: &[u8; 80], count: usize) -> Self {
        let (mut first_block, mut tail) = ([0; 64], [0; 12]);
        first_block.copy_from_slice(&header[..64]);
        tail.copy_from_slice(&header[64..76]);
        let own = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let (headers, midstates) = (0u32..)
            .take(count)
            .map(|index| {
                let version = own ^ (index << 13);
                first_block[..4].copy_from_slice(&version.to_le_bytes());
                let mut rolled = *header;
                rolled[..64].copy_from_slice(&first_block);
                (rolled, Midstate::of(version, &first_block))
            })
            .unzip();
        Self { name: name.to_owned(), headers, midstates, second_block: SecondBlock::of(&tail) }
    }

    /// The scan of these nonces.
    pub(super) fn scan(&self, nonces: NonceRange, hit_mask: HitMask) -> Scan<'_> {
        Scan { midstates: &self.midstates, second_block: self.second_block, nonces, hit_mask }
    }

    /// The last word of a hash (H7), computed from the whole header.
    pub(super) fn h7(&self, hit: Hit) -> u32 {
        let mut header = self.headers[hit.midstate];
        header[76..].copy_from_slice(&hit.nonce.to_le_bytes());
        let [.., a, b, c, d] = sha256d(&header);
        u32::from_be_bytes([a, b, c, d])
    }

    /// Scans with `kernel`, and compares every hit and the count with the reference implementation.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn check(
        &self,
        kernel: &dyn Kernel,
        nonces: NonceRange,
        hit_mask: HitMask,
    ) -> Result<(), SelfTestError> {
        let mut reported = Vec::new();
        let counted = kernel.scan(&self.scan(nonces, hit_mask), &mut |hit| {
            reported.push(hit);
            ControlFlow::Continue(())
        });
        let nonce = |offset: u64| u32::try_from(u64::from(nonces.first()) + offset);
        let expected: Vec<Hit> = (0..self.headers.len())
            .flat_map(|midstate| {
                let hits = (0..nonces.count()).filter_map(move |offset| nonce(offset).ok());
                hits.map(move |nonce| Hit { midstate, nonce })
            })
            .filter(|hit| hit_mask.admits(self.h7(*hit)))
            .collect();
        if let Some(differ) = Differ::between(&expected, &reported) {
            let Differ { missing, extra, first } = differ;
            let (header, expected) = (self.name.clone(), expected.len());
            return Err(SelfTestError::Hits { header, expected, missing, extra, first });
        }
        let expected = nonces.count() * self.headers.len() as u64;
        if counted != expected {
            return Err(SelfTestError::Count { header: self.name.clone(), counted, expected });
        }
        Ok(())
    }
}

/// The difference between the hits that a kernel should report and those that it reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Differ {
    /// Hits that it missed.
    pub missing: usize,
    /// Pairs that it reported although they are not hits, or more than once.
    pub extra: usize,
    /// The first of either.
    pub first: Hit,
}

impl Differ {
    /// Compares both lists in any order; `None` if they hold the same hits equally often.
    pub(crate) fn between(expected: &[Hit], reported: &[Hit]) -> Option<Self> {
        let (mut expected, mut reported) = (expected.to_vec(), reported.to_vec());
        expected.sort_unstable();
        reported.sort_unstable();
        let (mut missing, mut extra, mut first) = (0, 0, None);
        let (mut at, mut seen) = (0, 0);
        while at < expected.len() || seen < reported.len() {
            let hit = match (expected.get(at), reported.get(seen)) {
                (Some(there), Some(said)) if there == said => {
                    (at, seen) = (at + 1, seen + 1);
                    continue;
                }
                (Some(there), said) if said.is_none_or(|said| there < said) => {
                    (at, missing) = (at + 1, missing + 1);
                    *there
                }
                (_, Some(said)) => {
                    (seen, extra) = (seen + 1, extra + 1);
                    *said
                }
                (_, None) => break,
            };
            first.get_or_insert(hit);
        }
        first.map(|first| Self { missing, extra, first })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scan::cpu::{Fault, FaultyKernel, Sha2};

    #[test]
    fn the_known_headers_are_solved() {
        assert_eq!(known().count(), KNOWN.len());
        for (name, header) in known() {
            assert_eq!(sha256d(&header)[28..], [0; 4], "{name}");
        }
    }

    #[test]
    fn wrong_results_are_detected() {
        assert_eq!(long_self_test(&Sha2, 1, 10), Ok(()));
        for fault in [Fault::DropsHits, Fault::InventsHits, Fault::RepeatsHits, Fault::Miscounts] {
            let faulty = FaultyKernel { kernel: Arc::new(Sha2), fault };
            let error = self_test(&faulty).unwrap_err().to_string();
            assert!(error.starts_with("block 0: "), "{fault:?}: {error}");
        }
        // One that is right about the known blocks only.
        let faulty = FaultyKernel { kernel: Arc::new(Sha2), fault: Fault::MissesLastNonce };
        let error = long_self_test(&faulty, 1, 10).unwrap_err();
        let SelfTestError::Hits { first, .. } = error else { panic!("{error}") };
        assert_eq!(first.nonce, u32::MAX);
    }
}
