//! The SHA-NI kernel: the CPU's SHA-256 instructions, interleaved over several nonces.
//!
//! `sha256rnds2` computes two rounds. The CPU can start another one long before the result is available,
//! so several independent hashes are interleaved. The instructions take the working variables in two
//! vectors, a, b, e, f and c, d, g, h, of which the last is in the lowest lane.

#![allow(unsafe_code, reason = "CPU instructions; each block says why this CPU has them")]
#![allow(clippy::needless_range_loop, reason = "iterators and `map` may become calls in the loop")]

use std::arch::x86_64::*;
use std::ops::ControlFlow;

use super::pending::{Pending, lane_bits, report};
use crate::scan::cpu::features::CpuFeature;
use crate::scan::cpu::implementation::{Granted, Implementation, assert_midstate_count};
use crate::scan::sha256::{IV, K, round};
use crate::scan::{Hit, Kernel, MAX_MIDSTATES, Midstate, Scan, SecondBlock};

/// Nonces that are interleaved. On Zen 5 two keep the SHA unit busy for 79 % of the time, three for 87 %,
/// four for 92 % (some of their words then live on the stack) and six for 95 %.
const STREAMS: usize = 4;

/// The SHA-NI kernel. A value exists only where the CPU has SHA, SSE4.1 and SSSE3.
#[derive(Clone, Copy, Debug)]
pub struct ShaNi(());

impl Implementation for ShaNi {
    const NAME: &'static str = "sha-ni";

    const NEEDS: &'static [CpuFeature] = &[CpuFeature::Sha, CpuFeature::Sse41, CpuFeature::Ssse3];

    fn new(_: Granted<Self>) -> Self {
        Self(())
    }
}

impl Kernel for ShaNi {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn midstates(&self) -> usize {
        16
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        // SAFETY: `self` exists, so the CPU has SHA, SSE4.1 and SSSE3.
        unsafe { scan_shared(scan, found) }
    }
}

/// The working variables: lanes f, e, b, a and h, g, d, c, lowest first.
#[derive(Clone, Copy)]
struct Working {
    abef: __m128i,
    cdgh: __m128i,
}

/// Values that depend on the midstate but not on the nonce.
#[derive(Clone, Copy)]
struct Start {
    /// The working variables after rounds 0 and 1.
    after_two: Working,
    /// The midstate, which is added after the last round.
    state: Working,
}

/// K + W of the first hash for one nonce; four words a vector, the first in the lowest lane.
#[derive(Clone, Copy)]
struct Table {
    /// Rounds 2 and 3, in the lower half.
    kw2: __m128i,
    /// Rounds 16 to 63.
    kw: [__m128i; 12],
}

#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn words(w: [u32; 4]) -> __m128i {
    let [a, b, c, d] = w;
    _mm_setr_epi32(a.cast_signed(), b.cast_signed(), c.cast_signed(), d.cast_signed())
}

/// K for the rounds from 4`quad` on.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn constants(quad: usize) -> __m128i {
    words([K[4 * quad], K[4 * quad + 1], K[4 * quad + 2], K[4 * quad + 3]])
}

impl Working {
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn new([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        Self { abef: words([f, e, b, a]), cdgh: words([h, g, d, c]) }
    }

    /// Two rounds, with K + W in the lower half of `kw`.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn two_rounds(&mut self, kw: __m128i) {
        // After two rounds c, d, g and h have the former values of a, b, e and f.
        let abef = _mm_sha256rnds2_epu32(self.cdgh, self.abef, kw);
        *self = Self { abef, cdgh: self.abef };
    }

    /// Four rounds, with K + W in `kw`.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn four_rounds(&mut self, kw: __m128i) {
        self.two_rounds(kw);
        self.two_rounds(_mm_shuffle_epi32::<0b_11_10_11_10>(kw));
    }

    /// The eight words as the start of a message: words 0 to 3 and 4 to 7.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn message(self) -> [__m128i; 2] {
        [
            _mm_shuffle_epi32::<0b_10_11_00_01>(_mm_unpackhi_epi64(self.abef, self.cdgh)),
            _mm_shuffle_epi32::<0b_10_11_00_01>(_mm_unpacklo_epi64(self.abef, self.cdgh)),
        ]
    }
}

/// The next four words of the schedule, from a ring of the last sixteen (FIPS 180-4 section 6.2.2
/// step 1).
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn next_words(w: &[__m128i; 4], quad: usize) -> __m128i {
    let back = |n: usize| w[(quad + 4 - n) % 4];
    let old = _mm_sha256msg1_epu32(back(4), back(3));
    finish_words(old, back(2), back(1))
}

/// Completes a step of the schedule; `old` is the contribution of the words 16 and 15 back.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn finish_words(old: __m128i, two_back: __m128i, one_back: __m128i) -> __m128i {
    let seven_back = _mm_alignr_epi8::<4>(one_back, two_back);
    _mm_sha256msg2_epu32(_mm_add_epi32(old, seven_back), one_back)
}

impl Start {
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn new(midstate: &Midstate, block: SecondBlock) -> Self {
        let [w0, w1, _] = block.words;
        let after_one = round(midstate.state, K[0].wrapping_add(w0));
        let after_two = round(after_one, K[1].wrapping_add(w1));
        Self { after_two: Working::new(after_two), state: Working::new(midstate.state) }
    }
}

/// K + W of the first hash's rounds 4 to 15: padding only.
const FIRST_PADDING: [[u32; 4]; 3] = [
    [K[4].wrapping_add(0x8000_0000), K[5], K[6], K[7]],
    [K[8], K[9], K[10], K[11]],
    [K[12], K[13], K[14], K[15].wrapping_add(640)],
];

/// The same for the second hash's rounds 8 to 15.
const SECOND_PADDING: [[u32; 4]; 2] = [
    [K[8].wrapping_add(0x8000_0000), K[9], K[10], K[11]],
    [K[12], K[13], K[14], K[15].wrapping_add(256)],
];

macro_rules! for_quads {
    ($step:ident: $($quad:literal)*) => { $( $step!($quad); )* };
}

/// Computes the first hash's schedule for each of the nonces from `nonce` on.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn fill_tables(tables: &mut [Table; STREAMS], block: SecondBlock, nonce: u32) {
    let [w0, w1, w2] = block.words;
    let mut w = [[words([0; 4]); 4]; STREAMS];
    for n in 0..STREAMS {
        let (table, w) = (&mut tables[n], &mut w[n]);
        let w3 = nonce.wrapping_add(n as u32).swap_bytes();
        table.kw2 = words([K[2].wrapping_add(w2), K[3].wrapping_add(w3), 0, 0]);
        w[0] = words([w0, w1, w2, w3]);
        w[1] = words([0x8000_0000, 0, 0, 0]);
        w[3] = words([0, 0, 0, 640]);
    }
    macro_rules! step {
        ($quad:literal) => {
            for n in 0..STREAMS {
                let words = next_words(&w[n], $quad);
                w[n][$quad % 4] = words;
                tables[n].kw[$quad - 4] = _mm_add_epi32(words, constants($quad));
            }
        };
    }
    for_quads!(step: 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// Hashes one midstate with each of the nonces, and returns H7 of each second hash.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn hash(start: &Start, tables: &[Table; STREAMS]) -> [u32; STREAMS] {
    let mut s = [start.after_two; STREAMS];
    for n in 0..STREAMS {
        s[n].two_rounds(tables[n].kw2);
    }
    for kw in FIRST_PADDING {
        for s in &mut s {
            s.four_rounds(words(kw));
        }
    }
    macro_rules! first {
        ($quad:literal) => {
            for n in 0..STREAMS {
                s[n].four_rounds(tables[n].kw[$quad - 4]);
            }
        };
    }
    for_quads!(first: 4 5 6 7 8 9 10 11 12 13 14 15);

    let padding = [words([0x8000_0000, 0, 0, 0]), words([0, 0, 0, 256])];
    let mut w = [[padding[0], padding[0], padding[0], padding[1]]; STREAMS];
    for n in 0..STREAMS {
        let digest = Working {
            abef: _mm_add_epi32(s[n].abef, start.state.abef),
            cdgh: _mm_add_epi32(s[n].cdgh, start.state.cdgh),
        };
        [w[n][0], w[n][1]] = digest.message();
    }
    s = [Working::new(IV); STREAMS];
    macro_rules! second {
        ($quad:literal) => {
            for n in 0..STREAMS {
                let kw = second_kw(&mut w[n], $quad);
                // H7 of the result comes from e after round 60, which the next round moves to f.
                if $quad == 15 { s[n].two_rounds(kw) } else { s[n].four_rounds(kw) }
            }
        };
    }
    for_quads!(second: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let mut last_words = [0; STREAMS];
    for n in 0..STREAMS {
        last_words[n] = _mm_cvtsi128_si32(s[n].abef).cast_unsigned().wrapping_add(IV[7]);
    }
    last_words
}

/// K + W of the second hash for the rounds from 4`quad` on.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn second_kw(w: &mut [__m128i; 4], quad: usize) -> __m128i {
    let words = match quad {
        0 | 1 => w[quad],
        2 | 3 => return words(SECOND_PADDING[quad - 2]),
        // W9 to W12 are zero.
        4 => _mm_sha256msg2_epu32(_mm_sha256msg1_epu32(w[0], w[1]), w[3]),
        // For the same reason σ0 adds nothing to W8 to W11.
        6 => finish_words(w[2], w[0], w[1]),
        _ => next_words(w, quad),
    };
    w[quad % 4] = words;
    _mm_add_epi32(words, constants(quad))
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn scan_shared(scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
    assert_midstate_count(scan);
    let zero = Working::new([0; 8]);
    let mut starts = [Start { after_two: zero, state: zero }; MAX_MIDSTATES];
    for (start, midstate) in starts.iter_mut().zip(scan.midstates) {
        *start = Start::new(midstate, scan.second_block);
    }
    let starts = &starts[..scan.midstates.len()];
    let empty = Table { kw2: zero.abef, kw: [zero.abef; 12] };
    let mut tables = [empty; STREAMS];
    let mut hashes = 0;
    let mut done = 0;
    while done < scan.nonces.count() {
        let nonce = (u64::from(scan.nonces.first()) + done) as u32;
        let lanes = lane_bits(scan.nonces.count() - done, STREAMS as u32);
        fill_tables(&mut tables, scan.second_block, nonce);
        for (midstate, start) in starts.iter().enumerate() {
            let last_words = hash(start, &tables);
            let mut hits = 0;
            for n in 0..STREAMS {
                hits |= u32::from(scan.hit_mask.admits(last_words[n])) << n;
            }
            hashes += u64::from(lanes.count_ones());
            if hits & lanes != 0
                && report(Pending { midstate, nonce, lanes }, hits & lanes, found).is_break()
            {
                return hashes;
            }
        }
        done += STREAMS as u64;
    }
    hashes
}
