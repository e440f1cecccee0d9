//! SHA-1 of many pieces at a time.
//!
//! In SHA-1, each step waits for the one before. Even with the processor's own SHA-1 instructions, most of
//! the processor idles. Pieces don't depend on each other, so several are hashed side by side. AVX-512 takes
//! sixteen, one in each 32-bit lane (multi-buffer hashing: Gueron and Krasnov, "Simultaneous hashing of
//! multiple messages", 2012). The SHA extensions take four, with their instructions interleaved. Measured
//! with pieces of 512 KiB: 5.5 GB/s against 1.6 GB/s one after the other on an Intel Xeon, and 3.9 GB/s
//! against 1.6 GB/s on an AMD EPYC (Zen 3).

mod single;
#[cfg(target_arch = "x86_64")]
mod x86;

use proto::domain::Sha1;

use self::single::sha1_of;

/// The most pieces that are hashed side by side on this machine; 1 where that gains nothing.
pub(crate) fn width() -> usize {
    #[cfg(target_arch = "x86_64")]
    return x86::width();
    #[cfg(not(target_arch = "x86_64"))]
    1
}

/// The SHA-1 of each message. A message is made of parts, one after the other.
pub(crate) fn sha1_of_each<T: AsRef<[u8]>>(messages: &[&[T]]) -> Vec<Sha1> {
    // The lanes are far slower than the sha1 crate in an unoptimised build. That crate is optimised in every
    // build.
    if cfg!(debug_assertions) {
        return messages.iter().copied().map(sha1_of).collect();
    }
    side_by_side(messages)
}

fn side_by_side<T: AsRef<[u8]>>(messages: &[&[T]]) -> Vec<Sha1> {
    #[cfg(target_arch = "x86_64")]
    if x86::width() > 1 {
        return x86::sha1_of_each(messages);
    }
    messages.iter().copied().map(sha1_of).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::domain::Rng;

    /// Random bytes, cut into parts at these lengths.
    fn message(length: usize, cuts: &[usize], rng: &mut Rng) -> Vec<Bytes> {
        let mut data = vec![0; length];
        rng.fill(&mut data[..]);
        let mut rest = Bytes::from(data);
        let mut parts: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
        parts.push(rest);
        parts
    }

    proptest! {
        /// Where the width is 1 this test proves little: both sides are the same code.
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
            prop_assert_eq!(side_by_side(&parts), alone);
        }
    }

    #[test]
    fn a_bit_of_difference_in_a_lane_is_its_own() {
        const COUNT: usize = 16;
        let mut rng = Rng::seed_from_u64(1);
        let messages: Vec<Vec<Bytes>> = (0..COUNT).map(|_| message(512, &[64, 70], &mut rng)).collect();
        let hashes = |messages: &[Vec<Bytes>]| {
            let parts: Vec<&[Bytes]> = messages.iter().map(|parts| &parts[..]).collect();
            side_by_side(&parts)
        };
        let before = hashes(&messages);
        for at in 0..COUNT {
            let mut other = messages.clone();
            let mut bytes = other[at][1].to_vec();
            bytes[13] ^= 0x10;
            other[at][1] = bytes.into();
            let after = hashes(&other);
            let changed: Vec<usize> = (0..COUNT).filter(|lane| after[*lane] != before[*lane]).collect();
            assert_eq!(changed, [at]);
        }
    }
}
