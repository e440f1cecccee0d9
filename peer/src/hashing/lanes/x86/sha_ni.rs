//! A few messages at a time with the SHA extensions. Such an instruction can start before the last one has
//! ended, but only if it works on another message.

use std::{
    arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
        _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_shuffle_epi8,
        _mm_xor_si128,
    },
    array,
};

use proto::domain::Sha1;

use super::block::{Block, Lane, START, feed, sha1_of_words};

/// More lanes would not fit in the registers. Measured on an AMD EPYC (Zen 3): 1.6 GB/s with one, 2.9 with
/// two, 3.9 with four, 3.7 with six, 3.2 with eight.
pub(super) const LANES: usize = 4;

/// Whether the processor has the instructions that this file uses.
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("sha") && std::arch::is_x86_feature_detected!("sse4.1")
}

/// The hashes of messages of `blocks` blocks each.
#[target_feature(enable = "sha,sse4.1")]
pub(super) fn hash<T: AsRef<[u8]>, const N: usize>(lanes: [Lane<'_, T>; N], blocks: usize) -> [Sha1; N] {
    let [a, b, c, d, e] = START.map(|word| word as i32);
    let mut state = [State { abcd: _mm_set_epi32(a, b, c, d), e: _mm_set_epi32(e, 0, 0, 0) }; N];
    feed(lanes, blocks, |lanes| compress(&mut state, lanes));
    state.map(|State { abcd, e }| {
        let [a, b] = [_mm_extract_epi32::<3>(abcd), _mm_extract_epi32::<2>(abcd)];
        let [c, d] = [_mm_extract_epi32::<1>(abcd), _mm_extract_epi32::<0>(abcd)];
        sha1_of_words([a, b, c, d, _mm_extract_epi32::<3>(e)])
    })
}

/// The state of one message.
#[derive(Clone, Copy)]
struct State {
    abcd: __m128i,
    /// In the highest of the four words.
    e: __m128i,
}

/// Adds the blocks of each lane to its state. Takes the same number of blocks of each lane. 80 rounds (FIPS
/// 180-4, 6.1.2), four in an instruction.
#[target_feature(enable = "sha,sse4.1")]
fn compress<const N: usize>(states: &mut [State; N], lanes: [&[Block]; N]) {
    let count = lanes.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
    let lanes = lanes.map(|blocks| &blocks[..count]);
    for at in 0..count {
        let before = *states;
        let mut words = [[_mm_setzero_si128(); 4]; N];
        for ((words, state), blocks) in words.iter_mut().zip(&mut *states).zip(lanes) {
            *words = load(&blocks[at]);
            state.e = _mm_add_epi32(state.e, words[0]);
        }
        // Literals rather than a loop, because the quarter of the rounds is part of the instruction.
        macro_rules! four_rounds {
            ($($number:literal)*) => { $( for lane in 0..N {
                const NEXT: usize = ($number + 1) % 4;
                let State { abcd, e } = states[lane];
                states[lane].abcd = _mm_sha1rnds4_epu32::<{ $number / 5 }>(abcd, e);
                let words = &mut words[lane];
                if $number >= 3 && $number < 19 {
                    let [second, third, last] = [1, 2, 3].map(|on| words[(NEXT + on) % 4]);
                    let mixed = _mm_xor_si128(_mm_sha1msg1_epu32(words[NEXT], second), third);
                    words[NEXT] = _mm_sha1msg2_epu32(mixed, last);
                }
                let added = if $number < 19 { words[NEXT] } else { before[lane].e };
                states[lane].e = _mm_sha1nexte_epu32(abcd, added);
            } )* };
        }
        four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        for (state, before) in states.iter_mut().zip(before) {
            state.abcd = _mm_add_epi32(state.abcd, before.abcd);
        }
    }
}

/// The sixteen big-endian words of a block, four in each register. The first word of four is in the highest
/// place.
#[target_feature(enable = "sha,sse4.1")]
#[inline]
fn load(block: &Block) -> [__m128i; 4] {
    let half = |at: usize| i64::from_le_bytes(array::from_fn(|byte| block[8 * at + byte]));
    let reversed = _mm_set_epi32(0x0001_0203, 0x0405_0607, 0x0809_0a0b, 0x0c0d_0e0f);
    let four = |at: usize| _mm_shuffle_epi8(_mm_set_epi64x(half(at + 1), half(at)), reversed);
    // Not with `from_fn`: the compiler would call `four` rather than inline it.
    [four(0), four(2), four(4), four(6)]
}
