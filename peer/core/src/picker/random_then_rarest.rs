//! The policy of a swarm: random pieces first, then the rarest.

use domain::{Bitfield, PieceIndex};
use rand::RngExt;

use super::{Finds, Picker, Wanted};
use crate::Rng;

/// Picks the first few pieces at random, so that leechers that start together have different pieces to
/// exchange. Then picks the pieces that the fewest sources have, at random among equals.
#[derive(Clone, Copy, Debug)]
pub struct RandomThenRarest {
    /// The number of pieces that are picked at random; `u32::MAX` for all.
    pub random: u32,
}

impl Default for RandomThenRarest {
    fn default() -> Self {
        Self { random: 4 }
    }
}

/// The number of pieces to look at for each wanted piece before the search changes from rarity order to the
/// source's own pieces. At this value a source that has every eighth piece is still searched in rarity order.
const PATIENCE: usize = 8;
/// The same for a source whose own pieces were searched before.
const LITTLE_PATIENCE: usize = 1;

/// The most pieces drawn in addition to those wanted. At most as many as are wanted are added. The rarer of
/// two random pieces is rare enough (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
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
    /// Takes those of these pieces that the source has, starting at a random one. Returns false if it stopped
    /// early, because it found enough or looked at too many.
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

    /// Takes the rarest of a random sample of the source's own pieces. For a source that has few of the open
    /// pieces, or few of the rare ones.
    fn look_at_source(&mut self, wanted: &Wanted<'_>, finds: &mut Finds, picks: &mut Vec<PieceIndex>) {
        let room = self.count - picks.len();
        let mut drawn: Vec<_> = std::iter::from_fn(|| finds.draw(wanted, self.source, self.rng))
            .take(picks.len() + room + room.min(SAMPLE))
            .collect();
        // The sort is stable: equally rare pieces stay in the order in which they were drawn.
        drawn.sort_by_key(|piece| wanted.availability.holders(*piece));
        let fresh: Vec<_> = drawn.iter().filter(|piece| !picks.contains(piece)).take(room).copied().collect();
        picks.extend(fresh);
        finds.put_back(drawn.into_iter());
    }
}
