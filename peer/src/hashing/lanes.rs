//! SHA-1 of many pieces at a time.
//!
//! One SHA-1 is a chain in which each step waits for the one before, so that even with the processor's own instructions
//! for it, most of the processor idles. Pieces don't depend on each other: with AVX-512, sixteen go side by side, one in
//! each 32-bit lane (multi-buffer hashing: Gueron and Krasnov, "Simultaneous hashing of multiple messages", 2012).
//! Measured on an Intel Xeon: 5.5 GB/s, against 1.6 GB/s one after the other with the SHA extensions.

use bytes::Bytes;
use proto::domain::Sha1;
use sha1::Digest as _;

/// Pieces that go side by side.
pub(crate) const LANES: usize = 16;

/// From so many pieces on, going side by side is the faster way, although lanes stay empty.
#[cfg(target_arch = "x86_64")]
const WORTH_IT: usize = 5;

/// Whether pieces can go side by side here, so that gathering some is worth it.
pub(crate) fn are_there() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The SHA-1 of each message. A message is made of parts, one after the other.
pub(crate) fn sha1_of_each(messages: &[&[Bytes]]) -> Vec<Sha1> {
    #[cfg(target_arch = "x86_64")]
    if messages.len() >= WORTH_IT && are_there() {
        return avx512::sha1_of_each(messages);
    }
    messages.iter().copied().map(sha1_of).collect()
}

fn sha1_of(parts: &[Bytes]) -> Sha1 {
    let mut hasher = sha1::Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    <[u8; 20]>::from(hasher.finalize()).into()
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::{
        arch::x86_64::{
            __m512i, _mm512_add_epi32, _mm512_mask_reduce_add_epi32, _mm512_rol_epi32, _mm512_set_epi64,
            _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8,
            _mm512_shuffle_i32x4, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
            _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
        },
        array, slice,
    };

    use bytes::Bytes;
    use proto::domain::Sha1;

    use super::{LANES, sha1_of};

    const BLOCK: usize = 64;
    type Block = [u8; BLOCK];
    /// The state before the first block, and what is added in each quarter of the rounds (FIPS 180-4, 5.3.1 and 4.2.1).
    const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    const ADDED: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

    /// As [`super::sha1_of_each`], where AVX-512 is there.
    pub(super) fn sha1_of_each(messages: &[&[Bytes]]) -> Vec<Sha1> {
        messages.chunks(LANES).flat_map(sha1_of_some).collect()
    }

    /// At most [`LANES`] of them.
    fn sha1_of_some(messages: &[&[Bytes]]) -> Vec<Sha1> {
        let length = |parts: &[Bytes]| parts.iter().map(Bytes::len).sum::<usize>();
        let whole_blocks =
            messages.iter().map(|parts| length(parts)).filter(|length| length.is_multiple_of(BLOCK));
        let common = whole_blocks.max();
        let fits = |parts: &[Bytes]| Some(length(parts)) == common;
        let (Some(common), Some(filler)) = (common, messages.iter().find(|parts| fits(parts))) else {
            return messages.iter().copied().map(sha1_of).collect();
        };
        // Lanes that nothing is left for go along with one that has work.
        let lane = |at: usize| messages.get(at).filter(|parts| fits(parts)).unwrap_or(filler);
        let lanes = array::from_fn(|at| Lane::new(lane(at)));
        #[allow(unsafe_code, reason = "the compiler doesn't know that the processor was asked")]
        // SAFETY: the caller saw to it that AVX-512F and AVX-512BW are there, and that is all that is asked for.
        let hashes = unsafe { hash(lanes, common / BLOCK) };
        let one =
            |(parts, hash): (&&[Bytes], Sha1)| if length(parts) == common { hash } else { sha1_of(parts) };
        messages.iter().zip(hashes).map(one).collect()
    }

    /// What is left of a message.
    struct Lane<'a> {
        part: &'a [u8],
        parts: slice::Iter<'a, Bytes>,
    }

    impl<'a> Lane<'a> {
        fn new(parts: &'a [Bytes]) -> Self {
            Self { part: &[], parts: parts.iter() }
        }

        /// Takes a block that lies across parts.
        fn seam(&mut self) -> Block {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                if self.part.is_empty() {
                    let Some(next) = self.parts.next() else { break };
                    self.part = next;
                }
                let (taken, rest) = self.part.split_at(self.part.len().min(BLOCK - filled));
                block[filled..filled + taken.len()].copy_from_slice(taken);
                filled += taken.len();
                self.part = rest;
            }
            block
        }

        /// Takes so many blocks, which the part has.
        fn run(&mut self, blocks: usize) -> &'a [Block] {
            let (run, rest) = self.part.split_at(blocks * BLOCK);
            self.part = rest;
            run.as_chunks().0
        }
    }

    /// The hashes of messages of `blocks` blocks each.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn hash(mut lanes: [Lane<'_>; LANES], blocks: usize) -> [Sha1; LANES] {
        let mut state = START.map(|word| _mm512_set1_epi32(word as i32));
        let mut left = blocks;
        while left > 0 {
            let run = lanes.iter().map(|lane| lane.part.len() / BLOCK).min().unwrap_or(0);
            if run == 0 {
                let seams = lanes.each_mut().map(Lane::seam);
                compress(&mut state, seams.each_ref().map(slice::from_ref));
                left -= 1;
            } else {
                compress(&mut state, lanes.each_mut().map(|lane| lane.run(run)));
                left -= run;
            }
        }
        // Messages of whole blocks are all padded alike (FIPS 180-4, 5.1.1).
        let mut padding = [0; BLOCK];
        padding[0] = 0x80;
        padding[BLOCK - 8..].copy_from_slice(&(blocks as u64 * BLOCK as u64 * 8).to_be_bytes());
        compress(&mut state, [slice::from_ref(&padding); LANES]);
        array::from_fn(|lane| {
            let mut hash = [0; 20];
            for (bytes, words) in hash.as_chunks_mut().0.iter_mut().zip(state) {
                // The sum of one lane: that lane.
                *bytes = _mm512_mask_reduce_add_epi32(1 << lane, words).to_be_bytes();
            }
            hash.into()
        })
    }

    /// Takes the blocks of each lane, equally many, into the state.
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

    /// The sixteen words of a block, which are big-endian.
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

    /// From the words of each lane to the lanes of each word.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn transposed(lanes: [__m512i; 16]) -> [__m512i; 16] {
        // Pairs of lanes, then fours; then the quarters of the registers are brought together, by pairs and by fours.
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

    /// The 80 rounds (FIPS 180-4, 6.1.2), written out four by four: a loop over all would keep the words in memory.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn round_by_round(state: &mut [__m512i; 5], mut words: [__m512i; 16]) {
        let [mut a, mut b, mut c, mut d, mut e] = *state;
        // `$mix` is the truth table of the quarter's function of b, c and d.
        macro_rules! round {
            ($t:expr, $quarter:literal, $mix:literal) => {{
                const AT: usize = ($t) % 16;
                if $t >= 16 {
                    let [p, q, r] = [(AT + 13) % 16, (AT + 8) % 16, (AT + 2) % 16].map(|at| words[at]);
                    let mixed = _mm512_xor_si512(_mm512_ternarylogic_epi32::<0x96>(p, q, r), words[AT]);
                    words[AT] = _mm512_rol_epi32::<1>(mixed);
                }
                let known = _mm512_add_epi32(
                    e,
                    _mm512_add_epi32(words[AT], _mm512_set1_epi32(ADDED[$quarter] as i32)),
                );
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::domain::Rng;

    /// Random bytes, cut where the numbers say.
    fn message(length: usize, cuts: &[usize], rng: &mut Rng) -> Vec<Bytes> {
        let mut data = vec![0; length];
        rng.fill(&mut data[..]);
        let mut rest = Bytes::from(data);
        let mut parts: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
        parts.push(rest);
        parts
    }

    proptest! {
        /// Where there is no AVX-512 this says little: both sides are the same.
        #[test]
        fn each_is_what_hashing_it_alone_gives(
            blocks in 0usize..40,
            odd in prop::collection::vec(0usize..3_000, 0..3),
            cuts in prop::collection::vec(prop::collection::vec(0usize..700, 0..8), 1..40),
            seed in any::<u64>(),
        ) {
            let mut rng = Rng::seed_from_u64(seed);
            let mut messages: Vec<Vec<Bytes>> =
                cuts.iter().map(|cuts| message(blocks * 64, cuts, &mut rng)).collect();
            for length in odd {
                let at = rng.random_range(0..=messages.len());
                messages.insert(at, message(length, &[100], &mut rng));
            }
            let parts: Vec<&[Bytes]> = messages.iter().map(|parts| &parts[..]).collect();
            let alone: Vec<Sha1> = parts.iter().copied().map(sha1_of).collect();
            prop_assert_eq!(sha1_of_each(&parts), alone);
        }
    }

    #[test]
    fn a_bit_of_difference_in_a_lane_is_its_own() {
        let mut rng = Rng::seed_from_u64(1);
        let messages: Vec<Vec<Bytes>> = (0..LANES).map(|_| message(512, &[64, 70], &mut rng)).collect();
        let hashes = |messages: &[Vec<Bytes>]| {
            let parts: Vec<&[Bytes]> = messages.iter().map(|parts| &parts[..]).collect();
            sha1_of_each(&parts)
        };
        let before = hashes(&messages);
        for at in 0..LANES {
            let mut other = messages.clone();
            let mut bytes = other[at][1].to_vec();
            bytes[13] ^= 0x10;
            other[at][1] = bytes.into();
            let after = hashes(&other);
            let changed: Vec<usize> = (0..LANES).filter(|lane| after[*lane] != before[*lane]).collect();
            assert_eq!(changed, [at]);
        }
    }
}
