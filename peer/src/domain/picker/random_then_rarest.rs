//! Random first, then the rarest of those remaining: the policy of a swarm.

use proto::domain::{Bitfield, PieceIndex};
use rand::RngExt;

use super::{Picker, Wanted, open_from};
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
/// A source of which every eighth piece in the order is open is searched in order.
const PATIENCE: usize = 8;

/// Pieces looked at beyond those that are wanted, at most, and no more than those. The rarer of two is rare enough
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
const SAMPLE: usize = 32;

impl Picker for RandomThenRarest {
    fn pick(
        &self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        count: usize,
        rng: &mut Rng,
        picks: &mut Vec<PieceIndex>,
    ) {
        let mut search = Search { source, count: picks.len() + count, looks: PATIENCE * (count + 8), rng };
        let done = if wanted.verified.count() < self.random {
            search.look_through(wanted.availability.open_pieces(), picks)
        } else {
            wanted.availability.rarest_first().all(|bucket| search.look_through(bucket, picks))
        };
        if !done && picks.len() < search.count {
            search.look_at_source(wanted, picks);
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
    fn look_at_source(&mut self, wanted: &Wanted<'_>, picks: &mut Vec<PieceIndex>) {
        let from = self.rng.random_range(0..self.source.words().max(1));
        let room = self.count - picks.len();
        let mut sample: Vec<_> = open_from(wanted, self.source, from)
            .filter(|piece| !picks.contains(piece))
            .map(|piece| (wanted.availability.holders(piece), self.rng.random::<u32>(), piece))
            .take(room + room.min(SAMPLE))
            .collect();
        sample.sort_unstable();
        picks.extend(sample.into_iter().take(room).map(|(_, _, piece)| piece));
    }
}
