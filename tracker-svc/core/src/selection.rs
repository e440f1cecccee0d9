//! Selection policies: the order in which a peer is told about sources. A policy is one small type with one
//! method.

use crate::swarm::types::PeerKey;

/// A peer that has a wanted piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The peer.
    pub key: PeerKey,
    /// The number of pieces of the file that it has, at least one.
    pub pieces: u32,
    /// The number of its uploads, running and waiting.
    pub load: u32,
    /// Random, to break ties.
    pub tie_break: u32,
}

/// Orders sources.
pub trait Policy: Send + Sync {
    /// Sorts the candidates; the best come first. The caller limits the number of sources in total and per
    /// user.
    fn order(&self, candidates: &mut [Candidate]);
}

/// Fewest pieces of the file first, which spares the seeders. Then the lowest load. Then random.
#[derive(Clone, Copy, Debug, Default)]
pub struct FewestPieces;

impl Policy for FewestPieces {
    fn order(&self, candidates: &mut [Candidate]) {
        candidates.sort_unstable_by_key(|candidate| (candidate.pieces, candidate.load, candidate.tie_break));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_pieces_then_least_load_then_tie_break() {
        let candidate =
            |key, pieces, load, tie_break| Candidate { key: PeerKey(key), pieces, load, tie_break };
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
