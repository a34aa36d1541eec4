//! The portable kernel, `sha2` on the command line: the `sha2` crate's compression function, continued
//! from a midstate. It is the reference that every other kernel is compared with.

use std::ops::ControlFlow;

use sha2::block_api::compress256;

use super::features::CpuFeature;
use super::implementation::{Granted, Implementation, assert_midstate_count};
use crate::scan::sha256::IV;
use crate::scan::{Hit, Kernel, Scan};

/// The portable kernel, which runs on every processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha2;

impl Implementation for Sha2 {
    const NAME: &'static str = "sha2";

    const NEEDS: &'static [CpuFeature] = &[];

    fn new(_: Granted<Self>) -> Self {
        Self
    }
}

impl Kernel for Sha2 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn midstates(&self) -> usize {
        // It has nothing to share between midstates.
        1
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        assert_midstate_count(scan);
        // The second block of the header: merkle tail, nTime, nBits, nonce, then the padding of an
        // 80-byte message (FIPS 180-4 §5.1.1).
        let mut header = [0; 64];
        for (bytes, word) in header.chunks_exact_mut(4).zip(scan.second_block.words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        header[16] = 0x80;
        header[62..].copy_from_slice(&640u16.to_be_bytes());
        // The second hash's only block: the first one's 32 bytes and their padding.
        let mut digest = [0; 64];
        digest[32] = 0x80;
        digest[62..].copy_from_slice(&256u16.to_be_bytes());

        let mut hashes = 0;
        for (index, midstate) in scan.midstates.iter().enumerate() {
            for nonce in u64::from(scan.nonces.first())..scan.nonces.end() {
                #[expect(clippy::cast_possible_truncation, reason = "a range ends at 2^32")]
                let nonce = nonce as u32;
                [header[12], header[13], header[14], header[15]] = nonce.to_le_bytes();
                let mut state = midstate.state;
                compress256(&mut state, std::slice::from_ref(&header));
                // Without an iterator, which may become calls in this loop.
                for n in 0..8 {
                    [digest[4 * n], digest[4 * n + 1], digest[4 * n + 2], digest[4 * n + 3]] =
                        state[n].to_be_bytes();
                }
                let mut state = IV;
                compress256(&mut state, std::slice::from_ref(&digest));
                hashes += 1;
                if scan.hit_mask.admits(state[7])
                    && found(Hit { midstate: index, nonce }).is_break()
                {
                    return hashes;
                }
            }
        }
        hashes
    }
}
