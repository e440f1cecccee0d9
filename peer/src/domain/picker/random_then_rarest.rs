//! Random first, then the rarest of those remaining: the policy of a swarm.

use proto::domain::{Bitfield, PieceIndex};
use rand::RngExt;

use super::{Finds, Picker, Wanted};
use crate::domain::Rng;

/// The first few pieces are random, so that leechers that start together have something to trade; then come those that
/// the fewest sources hold, a random one of equals.
#[derive(Clone, Copy, Debug)]
pub struct RandomThenRarest {
    /// Pieces that are picked at random; `u32::MAX` for all.
    pub random: u32,
}

impl Default for RandomThenRarest {
    fn default() -> Self {
        Self { random: 4 }
    }
}

/// Pieces looked at for each one wanted before the search turns from the order of rarity to the source's own pieces.
/// A source that has every eighth piece of that order is searched in order.
const PATIENCE: usize = 8;
/// The same where the search has turned to the source's own pieces before.
const LITTLE_PATIENCE: usize = 1;

/// Pieces looked at beyond those that are wanted, at most, and no more than those. The rarer of two is rare enough
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
const SAMPLE: usize = 32;

impl Picker for RandomThenRarest {
    fn pick(
        &self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        finds: &mut Finds,
        count: usize,
        rng: &mut Rng,
        picks: &mut Vec<PieceIndex>,
    ) {
        let patience = if finds.is_begun() { LITTLE_PATIENCE } else { PATIENCE };
        let mut search = Search { source, count: picks.len() + count, looks: patience * (count + 8), rng };
        let done = if wanted.verified.count() < self.random {
            search.look_through(wanted.availability.open_pieces(), picks)
        } else {
            wanted.availability.rarest_first().all(|bucket| search.look_through(bucket, picks))
        };
        if !done && picks.len() < search.count {
            search.look_at_source(wanted, finds, picks);
        }
    }
}

struct Search<'a> {
    source: &'a Bitfield,
    count: usize,
    looks: usize,
    rng: &'a mut Rng,
}

impl Search<'_> {
    /// Takes what the source has of these, from a random one on. False when it was given up: enough was found, or too
    /// much looked at.
    fn look_through(&mut self, pieces: &[PieceIndex], picks: &mut Vec<PieceIndex>) -> bool {
        if pieces.is_empty() {
            return true;
        }
        let (head, tail) = pieces.split_at(self.rng.random_range(0..pieces.len()));
        for piece in tail.iter().chain(head) {
            if self.looks == 0 || picks.len() == self.count {
                return false;
            }
            self.looks -= 1;
            if self.source.contains(*piece) {
                picks.push(*piece);
            }
        }
        true
    }

    /// The source has few of the pieces that are open, or few of the rare ones: takes the rarest of a random sample of
    /// its own pieces.
    fn look_at_source(&mut self, wanted: &Wanted<'_>, finds: &mut Finds, picks: &mut Vec<PieceIndex>) {
        let room = self.count - picks.len();
        let mut drawn: Vec<_> = std::iter::from_fn(|| finds.draw(wanted, self.source, self.rng))
            .take(picks.len() + room + room.min(SAMPLE))
            .collect();
        // Those that are as rare as each other stay in the order in which they were drawn.
        drawn.sort_by_key(|piece| wanted.availability.holders(*piece));
        let fresh: Vec<_> = drawn.iter().filter(|piece| !picks.contains(piece)).take(room).copied().collect();
        picks.extend(fresh);
        finds.put_back(drawn.into_iter());
    }
}
