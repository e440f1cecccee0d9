//! Which sources a peer is told of first. A policy is one small type behind one method.

use super::swarm::PeerKey;

/// A peer that holds a wanted piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The peer.
    pub key: PeerKey,
    /// Pieces of the file that it holds, at least one.
    pub pieces: u32,
    /// Uploads that it has running and waiting.
    pub load: u32,
    /// Random, to break ties by.
    pub chance: u32,
}

/// Orders sources.
pub trait Policy: Send + Sync {
    /// Puts those to be told of first to the front. How many are told of, and how many of one user, is not its business.
    fn order(&self, candidates: &mut [Candidate]);
}

/// Fewest pieces of the file first, which spares the seeders; then the least loaded; then by chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct FewestPieces;

impl Policy for FewestPieces {
    fn order(&self, candidates: &mut [Candidate]) {
        candidates.sort_unstable_by_key(|candidate| (candidate.pieces, candidate.load, candidate.chance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_pieces_then_least_load_then_chance() {
        let candidate = |key, pieces, load, chance| Candidate { key: PeerKey(key), pieces, load, chance };
        let mut all = [
            candidate(0, 100, 0, 0),
            candidate(1, 1, 9, 0),
            candidate(2, 1, 2, 7),
            candidate(3, 1, 2, 5),
            candidate(4, 99, 0, 0),
        ];
        FewestPieces.order(&mut all);
        assert_eq!(all.map(|candidate| candidate.key.0), [3, 2, 1, 4, 0]);
    }
}
