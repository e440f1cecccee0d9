//! Sorts the pieces by the number of sources that have them, so that the rarest are always at hand.
//!
//! Goals: a pick or an update costs the same for ten pieces as for two million. Memory is ten bytes and a bit
//! for each piece. A seeder is added or removed in constant time.
//!
//! Non-goal: to know which source has which piece. That is in each source's bitfield.

use domain::{Bitfield, PieceIndex, PieceLayout};
use rand::seq::SliceRandom;

use super::{Rng, bit_tree::BitTree};

/// The number of holders of each piece, and the open pieces sorted by it. An open piece is one that may be
/// requested.
///
/// Invariant: `order` is a permutation of the pieces and `place` its inverse. `order` starts with the pieces
/// that are not open, `starts[0]` of them. Then come the buckets of open pieces. Bucket `c` begins at
/// `starts[c]` and ends where the next one begins. It has the pieces that `c` sources hold, not counting the
/// seeders. The order within a bucket is random.
pub struct Availability {
    order: Vec<PieceIndex>,
    place: Vec<u32>,
    counts: Vec<u16>,
    starts: Vec<u32>,
    seeders: u32,
    /// The open pieces once more, in file order.
    open: BitTree,
}

impl Availability {
    /// Starts with every piece open and without holders.
    pub fn new(layout: PieceLayout, rng: &mut Rng) -> Self {
        let mut order: Vec<PieceIndex> = layout.indices().collect();
        order.shuffle(rng);
        let mut place = vec![0; order.len()];
        for (at, piece) in order.iter().enumerate() {
            place[piece.as_usize()] = at as u32;
        }
        let counts = vec![0; order.len()];
        let open = BitTree::full(order.len());
        Self { order, place, counts, starts: vec![0], seeders: 0, open }
    }

    /// The number of sources that have the piece.
    pub fn holders(&self, piece: PieceIndex) -> u32 {
        self.seeders + u32::from(self.counts[piece.as_usize()])
    }

    /// The number of open pieces that nobody has.
    pub fn unheld(&self) -> u32 {
        let first = self.starts[0];
        let end = self.starts.get(1).copied().unwrap_or(self.order.len() as u32);
        if self.seeders > 0 { 0 } else { end - first }
    }

    /// Whether the piece may be requested.
    pub fn is_open(&self, piece: PieceIndex) -> bool {
        self.place[piece.as_usize()] >= self.starts[0]
    }

    /// The number of pieces that may be requested.
    pub fn open(&self) -> usize {
        self.order.len() - self.starts[0] as usize
    }

    /// The open pieces, in no particular order.
    pub fn open_pieces(&self) -> &[PieceIndex] {
        &self.order[self.starts[0] as usize..]
    }

    /// The non-empty words of a bitfield of the open pieces, from word `from` on: their places and their
    /// bits.
    pub fn open_words(&self, from: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.open.words(from)
    }

    /// The open pieces, rarest first, as one slice for each number of holders. The order within a slice is
    /// random.
    pub fn rarest_first(&self) -> impl Iterator<Item = &[PieceIndex]> {
        (0..self.starts.len())
            .map(|count| &self.order[self.bucket(count)])
            .filter(|bucket| !bucket.is_empty())
    }

    /// Closes the piece: it may not be requested any more. Has no effect if it was not open.
    pub fn close(&mut self, piece: PieceIndex) {
        if !self.is_open(piece) {
            return;
        }
        self.open.remove(piece.as_usize());
        for count in (0..=usize::from(self.counts[piece.as_usize()])).rev() {
            self.swap(piece, self.starts[count]);
            self.starts[count] += 1;
        }
    }

    /// Reopens the piece: it may be requested again. Has no effect if it was open.
    pub fn reopen(&mut self, piece: PieceIndex) {
        if self.is_open(piece) {
            return;
        }
        self.open.insert(piece.as_usize());
        for count in 0..=usize::from(self.counts[piece.as_usize()]) {
            self.starts[count] -= 1;
            self.swap(piece, self.starts[count]);
        }
    }

    /// Counts one more source that has the piece.
    pub fn gain(&mut self, piece: PieceIndex) {
        let count = usize::from(self.counts[piece.as_usize()]);
        if count + 1 == self.starts.len() {
            self.starts.push(self.order.len() as u32);
        }
        self.counts[piece.as_usize()] += 1;
        if self.is_open(piece) {
            self.starts[count + 1] -= 1;
            self.swap(piece, self.starts[count + 1]);
        }
    }

    /// Counts one source less that has the piece. [`gain`](Self::gain) or [`add`](Self::add) must have
    /// counted that source.
    pub fn lose(&mut self, piece: PieceIndex) {
        let count = usize::from(self.counts[piece.as_usize()]);
        debug_assert!(count > 0, "a piece was lost that nobody had");
        self.counts[piece.as_usize()] -= 1;
        if self.is_open(piece) {
            self.swap(piece, self.starts[count]);
            self.starts[count] += 1;
        }
    }

    /// Adds a source that has these pieces.
    pub fn add(&mut self, layout: PieceLayout, pieces: &Bitfield) {
        pieces.iter(layout).for_each(|piece| self.gain(piece));
    }

    /// Removes a source that had these pieces.
    pub fn remove(&mut self, layout: PieceLayout, pieces: &Bitfield) {
        pieces.iter(layout).for_each(|piece| self.lose(piece));
    }

    /// Adds a source that has every piece.
    pub fn add_seeder(&mut self) {
        self.seeders += 1;
    }

    /// Removes a source that [`add_seeder`](Self::add_seeder) added.
    pub fn remove_seeder(&mut self) {
        debug_assert!(self.seeders > 0, "a seeder went that never came");
        self.seeders -= 1;
    }

    fn bucket(&self, count: usize) -> std::ops::Range<usize> {
        let end = self.starts.get(count + 1).map_or(self.order.len(), |end| *end as usize);
        self.starts[count] as usize..end
    }

    fn swap(&mut self, piece: PieceIndex, to: u32) {
        let from = self.place[piece.as_usize()];
        if from != to {
            let other = self.order[to as usize];
            self.order.swap(from as usize, to as usize);
            self.place[piece.as_usize()] = to;
            self.place[other.as_usize()] = from;
        }
    }

    /// Panics if the invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        assert!(self.starts.is_sorted() && self.starts[self.starts.len() - 1] as usize <= self.order.len());
        for (at, piece) in self.order.iter().enumerate() {
            assert_eq!(self.place[piece.as_usize()] as usize, at);
        }
        for count in 0..self.starts.len() {
            for piece in &self.order[self.bucket(count)] {
                assert_eq!(usize::from(self.counts[piece.as_usize()]), count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::PIECE_LENGTH;
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::Rng;

    fn layout(pieces: u32) -> PieceLayout {
        PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
    }

    proptest! {
        #[test]
        fn keeps_open_pieces_by_rarity(
            pieces in 1u32..40,
            seed in any::<u64>(),
            steps in prop::collection::vec((0u8..4, 0u64..40), 0..300),
        ) {
            let layout = layout(pieces);
            let mut availability = Availability::new(layout, &mut Rng::seed_from_u64(seed));
            let mut model = vec![(0u32, true); pieces as usize];
            for (step, index) in steps {
                let Some(piece) = layout.index(index) else { continue };
                let (count, open) = &mut model[piece.as_usize()];
                match step {
                    0 => { availability.gain(piece); *count += 1; }
                    1 if *count > 0 => { availability.lose(piece); *count -= 1; }
                    2 => { availability.close(piece); *open = false; }
                    3 => { availability.reopen(piece); *open = true; }
                    _ => {}
                }
                availability.check_invariant();
                prop_assert_eq!(availability.is_open(piece), model[piece.as_usize()].1);
            }
            let listed: Vec<_> = availability.rarest_first().flatten().copied().collect();
            prop_assert!(listed.is_sorted_by_key(|piece| model[piece.as_usize()].0));
            prop_assert_eq!(listed.len(), model.iter().filter(|(_, open)| *open).count());
            prop_assert_eq!(listed.len(), availability.open());
            let bits: u32 = availability.open_words(0).map(|(_, bits)| bits.count_ones()).sum();
            prop_assert_eq!(bits as usize, listed.len());
        }
    }

    #[test]
    fn seeders_count_for_every_piece() {
        let layout = layout(3);
        let mut availability = Availability::new(layout, &mut Rng::seed_from_u64(1));
        availability.add_seeder();
        availability.gain(layout.index(1).expect("in the file"));
        let holders: Vec<_> = layout.indices().map(|piece| availability.holders(piece)).collect();
        assert_eq!(holders, [1, 2, 1]);
        availability.remove_seeder();
        assert_eq!(availability.holders(layout.index(1).expect("in the file")), 1);
    }
}
