//! SHA-256d on vectors of nonces: one description of the algorithm for every vector width.
//!
//! A kernel supplies a vector type, [`Lanes`]. Everything here is inlined into the kernel's function that
//! has the CPU feature enabled, where it becomes straight-line code.
//!
//! Two ideas make it fast. First, midstates that differ only in the version share the second block. Its
//! message schedule is computed once for a vector of nonces, and kept with the round constants added in a
//! [`Table`] of 3 KB, which fits the first-level cache, for all midstates. Second, the loop body
//! interleaves, round by round, the first hash of one midstate and the second hash of the previous one.
//! They do not depend on each other, so the CPU's execution ports stay busy. The eight words of the digest
//! are carried from one iteration to the next.

#![allow(clippy::needless_range_loop, reason = "iterators and `map` may become calls in the loop")]

use std::mem::swap;
use std::ops::ControlFlow;

use super::pending::{Pending, lane_bits, report};
use crate::scan::cpu::implementation::assert_midstate_count;
use crate::scan::sha256::{
    IV, K, big_sigma0, big_sigma1, choose, majority, round, small_sigma0, small_sigma1,
};
use crate::scan::{Hit, Midstate, Scan, SecondBlock};

/// A vector of 32-bit words, one for each of the nonces that are hashed at once.
pub(super) trait Lanes: Copy {
    /// Evidence that this CPU has the instructions. No vector can be made without it, so the other methods
    /// are sound.
    type Proof: Copy;

    /// Words in a vector, at most 32.
    const COUNT: u32;

    /// The same word in every lane.
    fn splat(proof: Self::Proof, word: u32) -> Self;
    /// W3 of the second block for the nonces `first`, `first + 1` and so on (wrapping): the nonces
    /// with their bytes reversed.
    fn nonces(proof: Self::Proof, first: u32) -> Self;
    /// Sum modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// Σ0, FIPS 180-4 equation 4.4.
    fn big_sigma0(self) -> Self;
    /// Σ1, FIPS 180-4 equation 4.5.
    fn big_sigma1(self) -> Self;
    /// σ0, FIPS 180-4 equation 4.6.
    fn small_sigma0(self) -> Self;
    /// σ1, FIPS 180-4 equation 4.7.
    fn small_sigma1(self) -> Self;
    /// Ch, FIPS 180-4 equation 4.2, with `self` as x.
    fn choose(self, y: Self, z: Self) -> Self;
    /// Maj, FIPS 180-4 equation 4.3.
    fn majority(self, y: Self, z: Self) -> Self;
    /// A bit for each lane, that of lane 0 lowest; set where the lane and `mask` have no bit in common.
    fn clear_lanes(self, mask: Self) -> u32;
}

/// The working variables a to h of FIPS 180-4 section 6.2.2, with a computed one round late.
///
/// The next round needs e at once, but a only as the d of four rounds later. Computing a after the next
/// round's e gives the CPU more independent instructions.
#[derive(Clone, Copy)]
struct Working<V> {
    /// T1 of the last round; a is this plus T2, see [`Working::a`].
    t1: V,
    bcd: [V; 3],
    efgh: [V; 4],
}

impl<V: Lanes> Working<V> {
    /// One round on the variables a to g, with `hkw` the sum of h, K and W.
    #[inline(always)]
    fn begin([a, b, c, d, e, f, g]: [V; 7], hkw: V) -> Self {
        let t1 = hkw.add(e.choose(f, g)).add(e.big_sigma1());
        Self { t1, bcd: [a, b, c], efgh: [d.add(t1), e, f, g] }
    }

    /// The next round's T1 and e, with `hkw` the sum of h, K and W.
    #[inline(always)]
    fn next_t1_e(&self, hkw: V) -> (V, V) {
        let [e, f, g, _] = self.efgh;
        let t1 = hkw.add(e.choose(f, g)).add(e.big_sigma1());
        (t1, self.bcd[2].add(t1))
    }

    /// a after the last round.
    #[inline(always)]
    fn a(&self) -> V {
        let [b, c, d] = self.bcd;
        self.t1.add(b.majority(c, d)).add(b.big_sigma0())
    }

    #[inline(always)]
    fn advance(&mut self, a: V, (t1, next_e): (V, V)) {
        let [b, c, _] = self.bcd;
        let [e, f, g, _] = self.efgh;
        *self = Self { t1, bcd: [a, b, c], efgh: [next_e, e, f, g] };
    }

    #[inline(always)]
    fn h(&self) -> V {
        self.efgh[3]
    }
}

/// Padding of an 80-byte message in its second block: W4 is the terminating one bit, W15 the length in
/// bits (FIPS 180-4 section 5.1.1). W5 to W14 are zero.
const FIRST_W4: u32 = 0x8000_0000;
const FIRST_W15: u32 = 640;
/// The same for the 32-byte message of the second hash: W8 and W15, with zeros between them.
const SECOND_W8: u32 = 0x8000_0000;
const SECOND_W15: u32 = 256;

/// Words of the first hash's schedule, and sums within it, that depend on no nonce and no midstate.
struct Schedule {
    w16: u32,
    w17: u32,
    /// The parts of W18 to W32 that do not depend on the nonce; see [`first_word`].
    w18: u32,
    w19: u32,
    w31: u32,
    w32: u32,
}

impl Schedule {
    fn new(block: SecondBlock) -> Self {
        let [w0, w1, w2] = block.words;
        let w16 = small_sigma0(w1).wrapping_add(w0);
        let w17 = small_sigma1(FIRST_W15).wrapping_add(small_sigma0(w2)).wrapping_add(w1);
        Self {
            w16,
            w17,
            w18: small_sigma1(w16).wrapping_add(w2),
            w19: small_sigma1(w17).wrapping_add(small_sigma0(FIRST_W4)),
            w31: small_sigma0(w16).wrapping_add(FIRST_W15),
            w32: small_sigma0(w17).wrapping_add(w16),
        }
    }
}

/// Values that depend on the midstate but not on the nonce.
#[derive(Clone, Copy, Default)]
struct Start {
    /// a and e after round 3, less W3.
    a4: u32,
    e4: u32,
    /// a, b, c after round 2: b, c, d after round 3.
    abc3: [u32; 3],
    /// e, f after round 2: f, g after round 3.
    ef3: [u32; 2],
    /// h of the rounds 4, 5 and 6, plus K and W of these rounds.
    hkw: [u32; 3],
    /// The midstate, which is added after the last round.
    state: [u32; 8],
}

impl Start {
    fn new(midstate: &Midstate, block: SecondBlock) -> Self {
        let mut s = midstate.state;
        for (k, w) in K.iter().zip(block.words) {
            s = round(s, k.wrapping_add(w));
        }
        let [a, b, c, d, e, f, g, h] = s;
        let t1 = h.wrapping_add(big_sigma1(e)).wrapping_add(choose(e, f, g)).wrapping_add(K[3]);
        let t2 = big_sigma0(a).wrapping_add(majority(a, b, c));
        Self {
            a4: t1.wrapping_add(t2),
            e4: d.wrapping_add(t1),
            abc3: [a, b, c],
            ef3: [e, f],
            hkw: [
                g.wrapping_add(K[4]).wrapping_add(FIRST_W4),
                f.wrapping_add(K[5]),
                e.wrapping_add(K[6]),
            ],
            state: midstate.state,
        }
    }
}

/// W3, and K + W of the rounds 16 to 63, of the first hash for one vector of nonces.
struct Table<V> {
    w3: V,
    kw: [V; 48],
}

/// Expands to `$step!(t)` for t = 2 to 60, with t as a literal.
macro_rules! for_rounds_2_to_60 {
    ($step:ident) => {
        for_rounds_2_to_60!(@ $step
            2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33
            34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60)
    };
    (@ $step:ident $($t:literal)*) => { $( $step!($t); )* };
}

/// W_t of the first hash for t from 16 on (FIPS 180-4 section 6.2.2 step 1), which is also put into `w`, a
/// ring of the last sixteen. Words and sums that are the same for all nonces are precomputed.
#[inline(always)]
fn first_word<V: Lanes>(proof: V::Proof, t: usize, w: &mut [V; 16], same: &Schedule) -> V {
    let splat = |word| V::splat(proof, word);
    let back = |n: usize| w[(t + 16 - n) % 16];
    let word = match t {
        16 => splat(same.w16),
        17 => splat(same.w17),
        18 => back(15).small_sigma0().add(splat(same.w18)),
        19 => back(16).add(splat(same.w19)),
        20 => back(2).small_sigma1().add(splat(FIRST_W4)),
        21 => back(2).small_sigma1(),
        22 => back(2).small_sigma1().add(splat(FIRST_W15)),
        23..=29 => back(7).add(back(2).small_sigma1()),
        30 => back(7).add(splat(const { small_sigma0(FIRST_W15) })).add(back(2).small_sigma1()),
        31 => back(7).add(splat(same.w31)).add(back(2).small_sigma1()),
        32 => back(7).add(splat(same.w32)).add(back(2).small_sigma1()),
        _ => any_word(t, w),
    };
    w[t % 16] = word;
    word
}

/// W_t of the second hash for t from 16 on, which is also put into `w`, a ring of the last sixteen. Its
/// first eight words are the first hash; words of the padding are folded into constants.
#[inline(always)]
fn second_word<V: Lanes>(proof: V::Proof, t: usize, w: &mut [V; 16]) -> V {
    let splat = |word| V::splat(proof, word);
    let back = |n: usize| w[(t + 16 - n) % 16];
    let word = match t {
        16 => back(16).add(back(15).small_sigma0()),
        17 => back(16).add(splat(const { small_sigma1(SECOND_W15) })).add(back(15).small_sigma0()),
        18..=21 => back(16).add(back(15).small_sigma0()).add(back(2).small_sigma1()),
        22 => {
            back(16).add(back(15).small_sigma0()).add(splat(SECOND_W15)).add(back(2).small_sigma1())
        }
        23 => back(16)
            .add(splat(const { small_sigma0(SECOND_W8) }))
            .add(back(7))
            .add(back(2).small_sigma1()),
        24 => back(7).add(splat(SECOND_W8)).add(back(2).small_sigma1()),
        25..=29 => back(7).add(back(2).small_sigma1()),
        30 => back(7).add(splat(const { small_sigma0(SECOND_W15) })).add(back(2).small_sigma1()),
        31 => {
            back(15).small_sigma0().add(splat(SECOND_W15)).add(back(7)).add(back(2).small_sigma1())
        }
        _ => any_word(t, w),
    };
    w[t % 16] = word;
    word
}

/// W_t from the sixteen words before it, none of which is known in advance.
#[inline(always)]
fn any_word<V: Lanes>(t: usize, w: &[V; 16]) -> V {
    let back = |n: usize| w[(t + 16 - n) % 16];
    back(16).add(back(15).small_sigma0()).add(back(7)).add(back(2).small_sigma1())
}

/// Rounds 3 and 4 of the first hash, from precomputed values.
#[inline(always)]
fn begin_first<V: Lanes>(proof: V::Proof, start: &Start, w3: V) -> Working<V> {
    let splat = |word| V::splat(proof, word);
    let a = w3.add(splat(start.a4));
    // Written out: `map` on an array is a call of its own where it is not inlined.
    let [b, c, d] = [splat(start.abc3[0]), splat(start.abc3[1]), splat(start.abc3[2])];
    let e = w3.add(splat(start.e4));
    let [f, g] = [splat(start.ef3[0]), splat(start.ef3[1])];
    Working::begin([a, b, c, d, e, f, g], splat(start.hkw[0]))
}

/// h + K + W for round t of the first hash, 5 to 63.
#[inline(always)]
fn first_hkw<V: Lanes>(proof: V::Proof, t: usize, h: V, start: &Start, table: &Table<V>) -> V {
    let splat = |word| V::splat(proof, word);
    match t {
        5 | 6 => splat(start.hkw[t - 4]),
        7..=14 => h.add(splat(K[t])),
        15 => h.add(splat(const { K[15].wrapping_add(FIRST_W15) })),
        _ => h.add(table.kw[t - 16]),
    }
}

/// Working variables after round 0 of the second hash, less W0 in a and e.
const AFTER_ROUND_0: [u32; 8] = round(IV, K[0]);

/// Rounds 0 and 1 of the second hash.
#[inline(always)]
fn begin_second<V: Lanes>(proof: V::Proof, w: &[V; 16]) -> Working<V> {
    let splat = |n: usize| V::splat(proof, AFTER_ROUND_0[n]);
    let [a, b, c, d, e, f, g] =
        [splat(0), splat(1), splat(2), splat(3), splat(4), splat(5), splat(6)];
    let hkw = w[1].add(V::splat(proof, const { K[1].wrapping_add(AFTER_ROUND_0[7]) }));
    Working::begin([a.add(w[0]), b, c, d, e.add(w[0]), f, g], hkw)
}

/// h + K + W for round t of the second hash, 2 to 60. After round 60, e is only moved to h; so that round
/// adds the initial H7, which makes its e the H7 of the result.
#[inline(always)]
fn second_hkw<V: Lanes>(proof: V::Proof, t: usize, h: V, w: &mut [V; 16]) -> V {
    let splat = |word| V::splat(proof, word);
    match t {
        // h is still one of the initial words.
        2 | 3 => w[t].add(splat(K[t].wrapping_add(IV[7 - t]))),
        4..=7 => h.add(w[t].add(splat(K[t]))),
        8 => h.add(splat(const { K[8].wrapping_add(SECOND_W8) })),
        9..=14 => h.add(splat(K[t])),
        15 => h.add(splat(const { K[15].wrapping_add(SECOND_W15) })),
        60 => h.add(second_word(proof, t, w).add(splat(const { K[60].wrapping_add(IV[7]) }))),
        _ => h.add(second_word(proof, t, w).add(splat(K[t]))),
    }
}

/// Interleaves the first hash of one midstate and the second hash of `digest`. Replaces the digest by the
/// result of the first hash, and returns H7 of the second.
///
/// `next` is a table to fill at the same time, with the W3 and the schedule to fill it from.
#[inline(always)]
fn hash_pair<V: Lanes>(
    proof: V::Proof,
    start: &Start,
    table: &Table<V>,
    digest: &mut [V; 8],
    next: Option<(&mut Table<V>, V, &Schedule)>,
) -> V {
    let zero = V::splat(proof, 0);
    let [a, b, c, d, e, f, g, h] = *digest;
    let mut w = [a, b, c, d, e, f, g, h, zero, zero, zero, zero, zero, zero, zero, zero];
    let mut next = next.map(|(table, w3, same)| {
        table.w3 = w3;
        (table, [w3; 16], same)
    });
    let mut inner = begin_first(proof, start, table.w3);
    let mut outer = begin_second(proof, &w);
    macro_rules! step {
        ($t:literal) => {
            let inner_hkw = first_hkw(proof, $t + 3, inner.h(), start, table);
            let outer_hkw = second_hkw(proof, $t, outer.h(), &mut w);
            let inner_next = inner.next_t1_e(inner_hkw);
            let outer_next = outer.next_t1_e(outer_hkw);
            let inner_a = inner.a();
            let outer_a = outer.a();
            inner.advance(inner_a, inner_next);
            outer.advance(outer_a, outer_next);
            if let Some((table, w, same)) = &mut next
                && $t + 3 >= 16
            {
                fill_word(proof, $t + 3, table, w, same);
            }
        };
    }
    for_rounds_2_to_60!(step);
    let [b, c, d] = inner.bcd;
    let [e, f, g, h] = inner.efgh;
    *digest = [inner.a(), b, c, d, e, f, g, h];
    for n in 0..8 {
        digest[n] = digest[n].add(V::splat(proof, start.state[n]));
    }
    outer.efgh[0]
}

/// Puts K + W for round t into the table.
#[inline(always)]
fn fill_word<V: Lanes>(
    proof: V::Proof,
    t: usize,
    table: &mut Table<V>,
    w: &mut [V; 16],
    same: &Schedule,
) {
    table.kw[t - 16] = first_word(proof, t, w, same).add(V::splat(proof, K[t]));
}

/// Computes the first hash's schedule for one vector of nonces.
#[inline(always)]
fn fill_table<V: Lanes>(proof: V::Proof, table: &mut Table<V>, w3: V, same: &Schedule) {
    let mut w = [w3; 16];
    table.w3 = w3;
    macro_rules! step {
        ($t:literal) => {
            if $t + 3 >= 16 {
                fill_word(proof, $t + 3, table, &mut w, same);
            }
        };
    }
    for_rounds_2_to_60!(step);
}

/// Scans with any number of midstates, which share the schedule.
#[inline(always)]
pub(super) fn scan_shared<V: Lanes>(
    proof: V::Proof,
    scan: &Scan<'_>,
    found: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> u64 {
    assert_midstate_count(scan);
    let same = Schedule::new(scan.second_block);
    let mut starts = [Start::default(); crate::scan::MAX_MIDSTATES];
    for (start, midstate) in starts.iter_mut().zip(scan.midstates) {
        *start = Start::new(midstate, scan.second_block);
    }
    let starts = &starts[..scan.midstates.len()];

    let zero = V::splat(proof, 0);
    let mask = V::splat(proof, scan.hit_mask.bits());
    let mut table = Table { w3: zero, kw: [zero; 48] };
    let mut digest = [zero; 8];
    let mut hashes = 0;

    let mut nonce = scan.nonces.first();
    // Nonces for which no table has been filled yet.
    let mut left = scan.nonces.count();
    // Lanes of the table whose nonces are within the range.
    let mut lanes = 0;
    let mut index = starts.len();
    // What the digest belongs to; nothing at first.
    let mut before = Pending { midstate: 0, nonce, lanes: 0 };
    loop {
        if index == starts.len() {
            index = 0;
            if left == 0 {
                // Only the last digest is still to be hashed; the first hash computed with it is not
                // used.
                lanes = 0;
            } else {
                nonce = (u64::from(scan.nonces.first()) + (scan.nonces.count() - left)) as u32;
                lanes = lane_bits(left, V::COUNT);
                left = left.saturating_sub(V::COUNT.into());
                fill_table(proof, &mut table, V::nonces(proof, nonce), &same);
            }
        }
        let last_word = hash_pair(proof, &starts[index], &table, &mut digest, None);
        let hits = last_word.clear_lanes(mask) & before.lanes;
        hashes += u64::from(before.lanes.count_ones());
        if hits != 0 && report(before, hits, found).is_break() || lanes == 0 {
            return hashes;
        }
        before = Pending { midstate: index, nonce, lanes };
        index += 1;
    }
}

/// Scans with one midstate; the schedule of the next nonces is computed alongside the hashes.
#[inline(always)]
pub(super) fn scan_single<V: Lanes>(
    proof: V::Proof,
    scan: &Scan<'_>,
    found: &mut dyn FnMut(Hit) -> ControlFlow<()>,
) -> u64 {
    assert_midstate_count(scan);
    let same = Schedule::new(scan.second_block);
    let start = Start::new(&scan.midstates[0], scan.second_block);
    let zero = V::splat(proof, 0);
    let mask = V::splat(proof, scan.hit_mask.bits());
    let empty = || Table { w3: zero, kw: [zero; 48] };
    let (mut table, mut spare) = (&mut empty(), &mut empty());
    let mut digest = [zero; 8];
    let mut hashes = 0;
    let mut nonce = scan.nonces.first();
    // Nonces whose first hash has not begun.
    let mut left = scan.nonces.count();
    let mut before = Pending { midstate: 0, nonce, lanes: 0 };
    fill_table(proof, table, V::nonces(proof, nonce), &same);
    loop {
        let next = nonce.wrapping_add(V::COUNT);
        let refill = Some((&mut *spare, V::nonces(proof, next), &same));
        let last_word = hash_pair(proof, &start, table, &mut digest, refill);
        swap(&mut table, &mut spare);
        let hits = last_word.clear_lanes(mask) & before.lanes;
        hashes += u64::from(before.lanes.count_ones());
        if hits != 0 && report(before, hits, found).is_break() || left == 0 {
            return hashes;
        }
        before = Pending { midstate: 0, nonce, lanes: lane_bits(left, V::COUNT) };
        left = left.saturating_sub(V::COUNT.into());
        nonce = next;
    }
}
