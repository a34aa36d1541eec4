// SHA-256d of block headers: hashes a range of nonces with each of a few midstates.
//
// This file is valid and correct WGSL, but slow: graphics compilers are bad at loops over arrays. What
// runs is its expansion (src/scan/gpu/shader.rs), for which `try_nonce` is evaluated ahead of time with
// everything but the nonce taken as known. Loops are unrolled, arrays become scalars, what depends only
// on constants becomes a constant, what depends only on the parameters is computed by the host once for
// each batch, and what nothing depends on disappears. So no round needs a special case here: that the
// host does the first three, that most of the padding is zero, and that the second hash ends as soon as
// H7 is known, all follow from the evaluation. The tests run both forms.
//
// Names of functions and variables follow FIPS 180-4, sections 4.1.2, 4.2.2 and 6.2.2.

// The expansion sets these three.
const MIDSTATES: u32 = 1;
const WORKGROUP_SIZE: u32 = 64;
const NONCES_PER_INVOCATION: u32 = 1;

// Nonces of a workgroup.
const SPAN: u32 = WORKGROUP_SIZE * NONCES_PER_INVOCATION;

struct Params {
    // Always 1, but unknown to the compiler: `x * one + y` computes x + y on the multiply-add units. The
    // expansion can write additions in this way.
    one: u32,
    // A hash is a hit if these bits of its last word, H7, are all 0.
    hit_mask: u32,
    // The nonces are first_nonce ..= first_nonce + last, without wrapping.
    first_nonce: u32,
    last: u32,
    // How many midstates are in use. Hits of the others are not reported.
    midstates_used: u32,
    // <expanded: replaced by the words that the host computes from them>
    // W0, W1 and W2 of the header's second block: the merkle root's last 4 bytes, nTime, nBits.
    second_block: vec3<u32>,
    // The state after the header's first block, for each version: words 0..4 and 4..8.
    midstates: array<array<vec4<u32>, 2>, MIDSTATES>,
    // </expanded>
}

struct Hit {
    nonce: u32,
    midstate: u32,
}

struct Hits {
    // Keeps counting when the list is full.
    found: atomic<u32>,
    list: array<Hit, HIT_CAPACITY>,
}
const HIT_CAPACITY: u32 = 4096;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> hits: Hits;

// Invocations of a workgroup hash adjacent nonces. Workgroups are numbered row by row, since a
// dimension of a dispatch has at most 65535 of them.
@compute @workgroup_size(WORKGROUP_SIZE)
fn scan(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let number = workgroup.y * workgroups.x + workgroup.x;
    // The last row is seldom full. Past this check, `start` cannot wrap.
    if (number > params.last / SPAN) {
        return;
    }
    let start = params.first_nonce + number * SPAN + invocation;
    for (var i = 0u; i < NONCES_PER_INVOCATION; i++) {
        try_nonce(start + i * WORKGROUP_SIZE);
    }
}

fn report(nonce: u32, midstate: u32) {
    // The last workgroup may run past the end, even past 2^32; unused midstates are hashed as well.
    if (nonce - params.first_nonce > params.last || midstate >= params.midstates_used) {
        return;
    }
    let place = atomicAdd(&hits.found, 1u);
    if (place < HIT_CAPACITY) {
        hits.list[place] = Hit(nonce, midstate);
    }
}

// <expanded: replaced by the same computation as straight-line code>
const IV = array<u32, 8>(
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);

const K = array<u32, 64>(
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
);

fn rotr(x: u32, n: u32) -> u32 {
    return (x >> n) | (x << (32u - n));
}

fn big_sigma0(x: u32) -> u32 {
    return rotr(x, 2u) ^ rotr(x, 13u) ^ rotr(x, 22u);
}

fn big_sigma1(x: u32) -> u32 {
    return rotr(x, 6u) ^ rotr(x, 11u) ^ rotr(x, 25u);
}

fn small_sigma0(x: u32) -> u32 {
    return rotr(x, 7u) ^ rotr(x, 18u) ^ (x >> 3u);
}

fn small_sigma1(x: u32) -> u32 {
    return rotr(x, 17u) ^ rotr(x, 19u) ^ (x >> 10u);
}

fn ch(x: u32, y: u32, z: u32) -> u32 {
    return z ^ (x & (y ^ z));
}

fn maj(x: u32, y: u32, z: u32) -> u32 {
    return (x & y) | (z & (x | y));
}

// The schedule keeps the last 16 words: W(t) replaces W(t - 16).
fn scheduled(w: array<u32, 16>, t: u32) -> u32 {
    if (t < 16u) {
        return w[t];
    }
    return small_sigma1(w[(t - 2u) % 16u]) + w[(t - 7u) % 16u]
         + small_sigma0(w[(t - 15u) % 16u]) + w[t % 16u];
}

// One round on a to h. `kw` is the sum of the round's constant and schedule word.
fn round(state: array<u32, 8>, kw: u32) -> array<u32, 8> {
    let a = state[0]; let b = state[1]; let c = state[2]; let d = state[3];
    let e = state[4]; let f = state[5]; let g = state[6]; let h = state[7];
    let t1 = h + big_sigma1(e) + ch(e, f, g) + kw;
    let t2 = big_sigma0(a) + maj(a, b, c);
    return array<u32, 8>(t1 + t2, a, b, c, d + t1, e, f, g);
}

fn byte_swap(x: u32) -> u32 {
    return (x << 24u) | ((x & 0xff00u) << 8u) | ((x >> 8u) & 0xff00u) | (x >> 24u);
}

fn midstate_word(midstate: u32, i: u32) -> u32 {
    return params.midstates[midstate][i / 4u][i % 4u];
}

// Hashes the header with this nonce for every midstate, and reports the hits.
fn try_nonce(nonce: u32) {
    // The header's second block: its last 16 bytes, and the padding of an 80-byte message. The nonce
    // is little-endian in the header, and SHA-256 reads big-endian words.
    var w = array<u32, 16>();
    w[0] = params.second_block[0];
    w[1] = params.second_block[1];
    w[2] = params.second_block[2];
    w[3] = byte_swap(nonce);
    w[4] = 0x80000000u;
    w[15] = 640u;

    var states: array<array<u32, 8>, MIDSTATES>;
    for (var m = 0u; m < MIDSTATES; m++) {
        for (var i = 0u; i < 8u; i++) {
            states[m][i] = midstate_word(m, i);
        }
    }
    // The schedule does not depend on the midstate, so all midstates share it.
    for (var t = 0u; t < 64u; t++) {
        w[t % 16u] = scheduled(w, t);
        let kw = K[t] + w[t % 16u];
        for (var m = 0u; m < MIDSTATES; m++) {
            states[m] = round(states[m], kw);
        }
    }

    // The second hash's only block: the first hash, and the padding of a 32-byte message.
    for (var m = 0u; m < MIDSTATES; m++) {
        var v = array<u32, 16>();
        for (var i = 0u; i < 8u; i++) {
            v[i] = states[m][i] + midstate_word(m, i);
        }
        v[8] = 0x80000000u;
        v[15] = 256u;
        var state = IV;
        for (var t = 0u; t < 64u; t++) {
            v[t % 16u] = scheduled(v, t);
            state = round(state, K[t] + v[t % 16u]);
        }
        let h7 = IV[7] + state[7];
        if ((h7 & params.hit_mask) == 0u) {
            report(nonce, m);
        }
    }
}
// </expanded>
