//! The AVX-512 kernel: 16 nonces at once.
//!
//! AVX-512 has rotates, and one instruction for each of Ch, Maj and the XOR of three words.

#![allow(unsafe_code, reason = "CPU instructions; each block says why this CPU has them")]

use std::arch::x86_64::*;
use std::ops::ControlFlow;

use super::lanes::{self, Lanes};
use crate::scan::cpu::features::CpuFeature;
use crate::scan::cpu::implementation::{Granted, Implementation};
use crate::scan::{Hit, Kernel, Scan};

/// The AVX-512 kernel. A value exists only where the CPU has AVX-512 F and BW.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Implementation for Avx512 {
    const NAME: &'static str = "avx512";

    const NEEDS: &'static [CpuFeature] = &[CpuFeature::Avx512f, CpuFeature::Avx512bw];

    fn new(_: Granted<Self>) -> Self {
        Self(())
    }
}

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn midstates(&self) -> usize {
        16
    }

    fn scan(&self, scan: &Scan<'_>, found: &mut dyn FnMut(Hit) -> ControlFlow<()>) -> u64 {
        // SAFETY: `self` exists, so the CPU has AVX-512 F and BW.
        unsafe {
            match scan.midstates {
                [_] => scan_single(*self, scan, found),
                _ => scan_shared(*self, scan, found),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn scan_shared(
    proof: Avx512,
    scan: &Scan<'_>,
    found: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> u64 {
    lanes::scan_shared::<V512>(proof, scan, found)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn scan_single(
    proof: Avx512,
    scan: &Scan<'_>,
    found: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> u64 {
    lanes::scan_single::<V512>(proof, scan, found)
}

/// 16 words. Only made from an [`Avx512`], so a value exists only where the CPU has AVX-512 F and BW.
#[derive(Clone, Copy)]
struct V512(__m512i);

/// `vpternlogd` for a function of the bits x, y and z, whose truth table is computed at compile time (x is
/// bit 2 of its index).
macro_rules! ternary {
    ($x:expr, $y:expr, $z:expr, |$a:ident, $b:ident, $c:ident| $f:expr) => {{
        const TABLE: i32 = {
            let ($a, $b, $c) = (0xf0, 0xcc, 0xaa);
            $f & 0xff
        };
        // SAFETY: vectors exist only where the CPU has AVX-512 F.
        V512(unsafe { _mm512_ternarylogic_epi32::<TABLE>($x, $y, $z) })
    }};
}

macro_rules! rotate {
    ($x:expr, $n:literal) => {
        // SAFETY: vectors exist only where the CPU has AVX-512 F.
        unsafe { _mm512_ror_epi32::<$n>($x.0) }
    };
}

macro_rules! shift {
    ($x:expr, $n:literal) => {
        // SAFETY: vectors exist only where the CPU has AVX-512 F.
        unsafe { _mm512_srli_epi32::<$n>($x.0) }
    };
}

#[inline(always)]
fn xor3(x: __m512i, y: __m512i, z: __m512i) -> V512 {
    ternary!(x, y, z, |x, y, z| x ^ y ^ z)
}

impl Lanes for V512 {
    type Proof = Avx512;

    const COUNT: u32 = 16;

    #[inline(always)]
    fn splat(_: Avx512, word: u32) -> Self {
        // SAFETY: the proof exists, so the CPU has AVX-512 F.
        Self(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }

    #[inline(always)]
    fn nonces(_: Avx512, first: u32) -> Self {
        // SAFETY: the proof exists, so the CPU has AVX-512 F and BW.
        unsafe {
            let lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let nonces = _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), lane);
            // Reverses the bytes of each word.
            let order = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
            Self(_mm512_shuffle_epi8(nonces, order))
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: vectors exist only where the CPU has AVX-512 F.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        xor3(rotate!(self, 2), rotate!(self, 13), rotate!(self, 22))
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        xor3(rotate!(self, 6), rotate!(self, 11), rotate!(self, 25))
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        xor3(rotate!(self, 7), rotate!(self, 18), shift!(self, 3))
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        xor3(rotate!(self, 17), rotate!(self, 19), shift!(self, 10))
    }

    #[inline(always)]
    fn choose(self, y: Self, z: Self) -> Self {
        ternary!(self.0, y.0, z.0, |x, y, z| (x & y) | (!x & z))
    }

    #[inline(always)]
    fn majority(self, y: Self, z: Self) -> Self {
        ternary!(self.0, y.0, z.0, |x, y, z| (x & y) | (x & z) | (y & z))
    }

    #[inline(always)]
    fn clear_lanes(self, mask: Self) -> u32 {
        // SAFETY: vectors exist only where the CPU has AVX-512 F.
        unsafe { _mm512_testn_epi32_mask(self.0, mask.0) }.into()
    }
}
