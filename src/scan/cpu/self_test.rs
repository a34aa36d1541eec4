//! Holds a kernel against the `sha2` crate before it is trusted: known blocks, and versions of them
//! that nobody has seen before. The tests of all kernels use the same comparison.

use std::ops::ControlFlow;

use crate::chain::merkle::sha256d;
use crate::scan::{Hit, HitMask, Kernel, Midstate, NonceRange, Scan, SecondBlock};

/// What a kernel got wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// It reported other pairs than there are.
    #[error("{header}: {missing} of {expected} hits missing, {extra} reported that are none")]
    Hits {
        /// Which header.
        header: &'static str,
        /// Hits that there are.
        expected: usize,
        /// Hits that it left out.
        missing: usize,
        /// Hits that it made up, or reported twice.
        extra: usize,
    },
    /// It counted other than it did.
    #[error("{header}: {counted} hashes counted, and {done} asked for")]
    Count {
        /// Which header.
        header: &'static str,
        /// What it said.
        counted: u64,
        /// What it was to do.
        done: u64,
    },
}

/// Real headers: their hashes have at least 32 zero bits.
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
        // A test holds each of these constants to be 80 bytes that hash to a block.
        hex::decode_to_slice(hex, &mut header).ok().map(|()| (name, header))
    })
}

/// Runs `kernel` over known blocks with one midstate, and over rolled versions of them with an easy
/// mask, and compares every hit with plain code.
///
/// # Errors
/// What it got wrong first.
pub fn self_test(kernel: &dyn Kernel) -> Result<(), Lie> {
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

/// A header in a few versions, to scan and to hash in plain code.
pub(super) struct Sample {
    name: &'static str,
    headers: Vec<[u8; 80]>,
    midstates: Vec<Midstate>,
    second_block: SecondBlock,
}

impl Sample {
    /// `count` versions of `header`, its own first.
    pub(super) fn new(name: &'static str, header: &[u8; 80], count: usize) -> Self {
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
        Self { name, headers, midstates, second_block: SecondBlock::of(&tail) }
    }

    /// The scan of these nonces.
    pub(super) fn scan(&self, nonces: NonceRange, hit_mask: HitMask) -> Scan<'_> {
        Scan { midstates: &self.midstates, second_block: self.second_block, nonces, hit_mask }
    }

    /// The last word of one hash, by hashing the whole header.
    pub(super) fn h7(&self, hit: Hit) -> u32 {
        let mut header = self.headers[hit.midstate];
        header[76..].copy_from_slice(&hit.nonce.to_le_bytes());
        let [.., a, b, c, d] = sha256d(&header);
        u32::from_be_bytes([a, b, c, d])
    }

    /// Scans, and compares every hit, and the count, with plain code.
    pub(super) fn check(
        &self,
        kernel: &dyn Kernel,
        nonces: NonceRange,
        hit_mask: HitMask,
    ) -> Result<(), Lie> {
        let mut reported = Vec::new();
        let counted = kernel.scan(&self.scan(nonces, hit_mask), &mut |hit| {
            reported.push(hit);
            ControlFlow::Continue(())
        });
        reported.sort_unstable();
        let nonce = |offset: u64| u32::try_from(u64::from(nonces.first()) + offset);
        let expected: Vec<Hit> = (0..self.headers.len())
            .flat_map(|midstate| {
                let hits = (0..nonces.count()).filter_map(move |offset| nonce(offset).ok());
                hits.map(move |nonce| Hit { midstate, nonce })
            })
            .filter(|hit| hit_mask.admits(self.h7(*hit)))
            .collect();
        let missing = expected.iter().filter(|hit| reported.binary_search(hit).is_err()).count();
        let extra = (reported.len() + missing).saturating_sub(expected.len());
        if missing > 0 || extra > 0 {
            let (header, expected) = (self.name, expected.len());
            return Err(Lie::Hits { header, expected, missing, extra });
        }
        let done = nonces.count() * self.headers.len() as u64;
        if counted != done {
            return Err(Lie::Count { header: self.name, counted, done });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::cpu::Sha2;

    #[test]
    fn the_known_headers_are_solved() {
        assert_eq!(known().count(), KNOWN.len());
        for (name, header) in known() {
            assert_eq!(sha256d(&header)[28..], [0; 4], "{name}");
        }
    }

    /// A kernel that gets one thing wrong.
    #[derive(Debug, Default)]
    struct Liar {
        drop_last: bool,
        make_up: bool,
        miscount: bool,
    }

    impl Kernel for Liar {
        fn name(&self) -> &'static str {
            "liar"
        }

        fn midstates(&self) -> usize {
            4
        }

        fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
            let mut hits = Vec::new();
            let hashes = Sha2.scan(scan, &mut |hit| {
                hits.push(hit);
                ControlFlow::Continue(())
            });
            if self.drop_last {
                hits.pop();
            }
            if self.make_up {
                hits.push(Hit { midstate: 0, nonce: scan.nonces.first() });
            }
            for hit in hits {
                let _ = found(hit);
            }
            hashes + u64::from(self.miscount)
        }
    }

    #[test]
    fn lies_are_found_out() {
        assert_eq!(self_test(&Liar::default()), Ok(()));
        for liar in [
            Liar { drop_last: true, ..Liar::default() },
            Liar { make_up: true, ..Liar::default() },
            Liar { miscount: true, ..Liar::default() },
        ] {
            assert!(self_test(&liar).is_err(), "{liar:?}");
        }
    }
}
