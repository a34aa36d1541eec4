//! The AVX2 kernel: 8 nonces at once.
//!
//! AVX2 has neither rotates nor three-input logic. So each rotate is made of two shifts, and Maj is
//! written so that one of its terms can be reused in the next round.

#![allow(unsafe_code, reason = "CPU instructions; each block says why this CPU has them")]

use std::arch::x86_64::*;
use std::ops::ControlFlow;

use super::lanes::{self, Lanes};
use crate::scan::cpu::features::CpuFeature;
use crate::scan::cpu::implementation::{Granted, Implementation};
use crate::scan::{Hit, Kernel, Scan};

/// The AVX2 kernel. A value exists only where the CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Implementation for Avx2 {
    const NAME: &'static str = "avx2";

    const NEEDS: &'static [CpuFeature] = &[CpuFeature::Avx2];

    fn new(_: Granted<Self>) -> Self {
        Self(())
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn midstates(&self) -> usize {
        16
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe { scan_shared(*self, scan, found) }
    }
}

#[target_feature(enable = "avx2")]
fn scan_shared(proof: Avx2, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
    lanes::scan_shared::<V256>(proof, scan, found)
}

/// 8 words. Only made from an [`Avx2`], so a value exists only where the CPU has AVX2.
#[derive(Clone, Copy)]
struct V256(__m256i);

/// XOR of two.
#[inline(always)]
fn xor(x: __m256i, y: __m256i) -> __m256i {
    // SAFETY: vectors exist only where the CPU has AVX2.
    unsafe { _mm256_xor_si256(x, y) }
}

/// AND of two.
#[inline(always)]
fn and(x: __m256i, y: __m256i) -> __m256i {
    // SAFETY: vectors exist only where the CPU has AVX2.
    unsafe { _mm256_and_si256(x, y) }
}

/// Shift right.
macro_rules! right {
    ($x:expr, $n:literal) => {
        // SAFETY: vectors exist only where the CPU has AVX2.
        unsafe { _mm256_srli_epi32::<$n>($x) }
    };
}

/// Rotate right.
macro_rules! rotate {
    ($x:expr, $n:literal) => {
        // SAFETY: vectors exist only where the CPU has AVX2.
        xor(right!($x, $n), unsafe { _mm256_slli_epi32::<{ 32 - $n }>($x) })
    };
}

impl Lanes for V256 {
    type Proof = Avx2;

    const COUNT: u32 = 8;

    #[inline(always)]
    fn splat(_: Avx2, word: u32) -> Self {
        // SAFETY: the proof exists, so the CPU has AVX2.
        Self(unsafe { _mm256_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn nonces(_: Avx2, first: u32) -> Self {
        // SAFETY: the proof exists, so the CPU has AVX2.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let nonces = _mm256_add_epi32(_mm256_set1_epi32(first.cast_signed()), lane);
            // Reverses the bytes of each word.
            let order = _mm256_set1_epi64x(0x0405_0607_0001_0203);
            let order = _mm256_or_si256(
                order,
                _mm256_set_epi64x(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0),
            );
            Self(_mm256_shuffle_epi8(nonces, order))
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: vectors exist only where the CPU has AVX2.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        let x = self.0;
        Self(xor(xor(rotate!(x, 2), rotate!(x, 13)), rotate!(x, 22)))
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        let x = self.0;
        Self(xor(xor(rotate!(x, 6), rotate!(x, 11)), rotate!(x, 25)))
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        let x = self.0;
        Self(xor(xor(rotate!(x, 7), rotate!(x, 18)), right!(x, 3)))
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        let x = self.0;
        Self(xor(xor(rotate!(x, 17), rotate!(x, 19)), right!(x, 10)))
    }

    #[inline(always)]
    fn choose(self, y: Self, z: Self) -> Self {
        Self(xor(z.0, and(self.0, xor(y.0, z.0))))
    }

    #[inline(always)]
    fn majority(self, y: Self, z: Self) -> Self {
        // The next round's y and z are this round's x and y.
        Self(xor(y.0, and(xor(self.0, y.0), xor(y.0, z.0))))
    }

    #[inline(always)]
    fn clear_lanes(self, mask: Self) -> u32 {
        let masked = and(self.0, mask.0);
        // SAFETY: vectors exist only where the CPU has AVX2.
        let clear = unsafe {
            let zero = _mm256_cmpeq_epi32(masked, _mm256_setzero_si256());
            _mm256_movemask_ps(_mm256_castsi256_ps(zero))
        };
        clear.cast_unsigned()
    }
}
