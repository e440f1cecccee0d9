//! Sixteen messages, each in a 32-bit lane of 512-bit registers.

use std::{
    arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_mask_reduce_add_epi32, _mm512_rol_epi32, _mm512_set_epi64,
        _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8,
        _mm512_shuffle_i32x4, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
    },
    array,
};

use proto::domain::Sha1;

use super::block::{Block, Lane, START, feed, sha1_of_words};

pub(super) const LANES: usize = 16;
/// The constant that is added in each quarter of the rounds (FIPS 180-4, 4.2.1).
const ADDED: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

/// Whether the processor has the instructions that this file uses.
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw")
}

/// The hashes of messages of `blocks` blocks each.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn hash<T: AsRef<[u8]>>(lanes: [Lane<'_, T>; LANES], blocks: usize) -> [Sha1; LANES] {
    let mut state = START.map(|word| _mm512_set1_epi32(word as i32));
    feed(lanes, blocks, |lanes| compress(&mut state, lanes));
    array::from_fn(|lane| {
        // The masked sum adds up one lane only, so it is the value of that lane.
        sha1_of_words(state.map(|words| _mm512_mask_reduce_add_epi32(1 << lane, words)))
    })
}

/// Adds the blocks of each lane to the state. Takes the same number of blocks of each lane.
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut [__m512i; 5], lanes: [&[Block]; LANES]) {
    let count = lanes.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    let lanes = lanes.map(|blocks| &blocks[..count]);
    for at in 0..count {
        let mut words = [_mm512_setzero_si512(); 16];
        for (words, blocks) in words.iter_mut().zip(lanes) {
            *words = load(&blocks[at]);
        }
        round_by_round(state, transposed(words));
    }
}

/// The sixteen big-endian words of a block.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(block: &Block) -> __m512i {
    let quad = |at: usize| {
        let bytes = array::from_fn(|byte| block[8 * at + byte]);
        i64::from_le_bytes(bytes)
    };
    let words = _mm512_set_epi64(quad(7), quad(6), quad(5), quad(4), quad(3), quad(2), quad(1), quad(0));
    let swapped = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    _mm512_shuffle_epi8(words, swapped)
}

/// Transposes the words of each lane into the lanes of each word.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn transposed(lanes: [__m512i; 16]) -> [__m512i; 16] {
    // Interleaves pairs of lanes, then fours. Then brings the quarters of the registers together, first by
    // pairs and then by fours.
    let mut rows = lanes;
    for at in (0..16).step_by(2) {
        rows[at] = _mm512_unpacklo_epi32(lanes[at], lanes[at + 1]);
        rows[at + 1] = _mm512_unpackhi_epi32(lanes[at], lanes[at + 1]);
    }
    let mut fours = rows;
    for at in (0..16).step_by(4) {
        fours[at] = _mm512_unpacklo_epi64(rows[at], rows[at + 2]);
        fours[at + 1] = _mm512_unpackhi_epi64(rows[at], rows[at + 2]);
        fours[at + 2] = _mm512_unpacklo_epi64(rows[at + 1], rows[at + 3]);
        fours[at + 3] = _mm512_unpackhi_epi64(rows[at + 1], rows[at + 3]);
    }
    let mut eights = fours;
    for at in [0, 1, 2, 3, 8, 9, 10, 11] {
        eights[at] = _mm512_shuffle_i32x4::<0x88>(fours[at], fours[at + 4]);
        eights[at + 4] = _mm512_shuffle_i32x4::<0xdd>(fours[at], fours[at + 4]);
    }
    let mut words = eights;
    for at in 0..8 {
        words[at] = _mm512_shuffle_i32x4::<0x88>(eights[at], eights[at + 8]);
        words[at + 8] = _mm512_shuffle_i32x4::<0xdd>(eights[at], eights[at + 8]);
    }
    words
}

/// The 80 rounds (FIPS 180-4, 6.1.2), written out four at a time. A loop over all of them would keep the
/// words in memory.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn round_by_round(state: &mut [__m512i; 5], mut words: [__m512i; 16]) {
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    // `$mix` is the truth table of this quarter's function of b, c and d.
    macro_rules! round {
        ($t:expr, $quarter:literal, $mix:literal) => {{
            const AT: usize = ($t) % 16;
            if $t >= 16 {
                let [p, q, r] = [(AT + 13) % 16, (AT + 8) % 16, (AT + 2) % 16].map(|at| words[at]);
                let mixed = _mm512_xor_si512(_mm512_ternarylogic_epi32::<0x96>(p, q, r), words[AT]);
                words[AT] = _mm512_rol_epi32::<1>(mixed);
            }
            let known =
                _mm512_add_epi32(e, _mm512_add_epi32(words[AT], _mm512_set1_epi32(ADDED[$quarter] as i32)));
            let mixed = _mm512_ternarylogic_epi32::<$mix>(b, c, d);
            let next = _mm512_add_epi32(known, _mm512_add_epi32(mixed, _mm512_rol_epi32::<5>(a)));
            [a, b, c, d, e] = [next, a, _mm512_rol_epi32::<30>(b), c, d];
        }};
    }
    macro_rules! four {
        ($t:expr, $quarter:literal, $mix:literal) => {
            round!($t, $quarter, $mix);
            round!($t + 1, $quarter, $mix);
            round!($t + 2, $quarter, $mix);
            round!($t + 3, $quarter, $mix);
        };
    }
    macro_rules! quarter {
        ($quarter:literal, $mix:literal) => {
            four!(20 * $quarter, $quarter, $mix);
            four!(20 * $quarter + 4, $quarter, $mix);
            four!(20 * $quarter + 8, $quarter, $mix);
            four!(20 * $quarter + 12, $quarter, $mix);
            four!(20 * $quarter + 16, $quarter, $mix);
        };
    }
    quarter!(0, 0xca); // b chooses c or d
    quarter!(1, 0x96); // parity
    quarter!(2, 0xe8); // majority
    quarter!(3, 0x96);
    for (before, after) in state.iter_mut().zip([a, b, c, d, e]) {
        *before = _mm512_add_epi32(*before, after);
    }
}
