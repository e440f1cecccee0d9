//! Which members of a large swarm are examined, and the numbers that break ties between them.

use domain::Username;

/// Maximum number of members that are examined to find sources for one leecher.
const LOOKED_AT: usize = 128;
/// This many examined members are adjacent, for the processor's cache. The next group is far away. Peers that
/// joined at the same time have the same pieces, and were told about the same sources. Leechers that know
/// only such peers have little to give each other.
const SIDE_BY_SIDE: usize = 8;

/// At most [`LOOKED_AT`] numbers below `count`, each once, spread evenly from a start derived from `tie_break`.
pub(super) fn spread(count: usize, tie_break: u64) -> impl Iterator<Item = usize> {
    let start = if count == 0 { 0 } else { (tie_break % count as u64) as usize };
    let looked_at = count.min(LOOKED_AT);
    (0..looked_at).map(move |number| {
        let gaps = number / SIDE_BY_SIDE * (count - looked_at) / (LOOKED_AT / SIDE_BY_SIDE);
        (start + number + gaps) % count
    })
}

/// A quick hash that distinguishes most users (FNV-1a).
pub(super) fn fingerprint(user: &Username) -> u32 {
    user.as_str().bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A pseudo-random number that depends only on the two arguments.
pub(super) fn scramble(tie_break: u64, key: u32) -> u32 {
    let mixed = (tie_break ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn members_are_looked_at_all_over_the_swarm() {
        for count in [0, 1, 7, 127, 128, 129, 200, 10_000, 1 << 20] {
            for tie_break in [0, 1, 12_345_678_901] {
                let places: Vec<_> = spread(count, tie_break).collect();
                assert!(places.iter().all(|place| *place < count));
                assert_eq!(places.iter().collect::<HashSet<_>>().len(), count.min(LOOKED_AT), "{count}");
                let tenths: HashSet<_> = places.iter().map(|place| place * 10 / count).collect();
                assert_eq!(tenths.len(), count.min(10), "{count}: not all over it");
            }
        }
    }
}
