//! The open pieces that were found at one source, kept so that nothing is searched twice.
//!
//! Late in a long download, a source that has one piece in a hundred may have only one wanted piece in
//! thousands of words. Each search continues where the last one ended. All searches together pass through the
//! file once.

use domain::{Bitfield, PieceIndex};
use rand::RngExt;

use super::{Wanted, open_words, pieces};
use crate::Rng;

/// The number of pieces that are collected at a time, to draw from.
const WINDOW: usize = 256;
/// The most pieces in stock. With more, the search starts again from scratch, because each added piece is
/// compared with all of them.
const MOST: usize = 4 * WINDOW;

/// The pieces found at one source: see the module.
///
/// Invariant: the source's open pieces are in `stock`, or in words that were not searched yet. A piece is in
/// `stock` only once, and may no longer be open. For this the owner must call [`add`](Self::add) for every
/// piece of the source that becomes open, and for every open piece that the source gains.
#[derive(Clone, Debug, Default)]
pub struct Finds {
    stock: Vec<PieceIndex>,
    /// The word of the bitfield where the search began.
    start: usize,
    /// The number of words searched from there on. The search wraps around from the last word to the first.
    searched: usize,
}

impl Finds {
    /// Adds a piece that is open and that the source has, when either has just become true.
    pub fn add(&mut self, piece: PieceIndex, words: usize) {
        let from_start = (word_of(piece) + words - self.start) % words.max(1);
        if from_start >= self.searched || self.stock.contains(&piece) {
            return;
        }
        if self.stock.len() == MOST {
            *self = Self::default();
        } else {
            self.stock.push(piece);
        }
    }

    /// Whether there was a search that is still remembered.
    pub(super) fn is_begun(&self) -> bool {
        self.searched > 0
    }

    /// Takes a random one of about [`WINDOW`] open pieces out of the stock. `None` when the source has no
    /// more open pieces.
    pub(super) fn draw(
        &mut self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        rng: &mut Rng,
    ) -> Option<PieceIndex> {
        if !self.is_begun() {
            self.start = rng.random_range(0..source.words().max(1));
        }
        loop {
            if self.stock.is_empty() {
                self.search(wanted, source);
            }
            let at = (!self.stock.is_empty()).then(|| rng.random_range(0..self.stock.len()))?;
            let piece = self.stock.swap_remove(at);
            if wanted.availability.is_open(piece) && source.contains(piece) {
                return Some(piece);
            }
        }
    }

    /// Returns drawn pieces that stay open to the stock.
    pub(super) fn put_back(&mut self, drawn: impl Iterator<Item = PieceIndex>) {
        self.stock.extend(drawn);
    }

    /// Returns the first word that may have an open piece. For a search in file order.
    pub(super) fn first_word(&mut self) -> usize {
        let added = self.stock.drain(..).map(word_of).min();
        self.searched = added.map_or(self.searched, |added| added.min(self.searched));
        self.searched
    }

    /// Notes that `first` is the source's first open piece, or that it has none. For a search in file order.
    pub(super) fn none_before(&mut self, first: Option<PieceIndex>, source: &Bitfield) {
        self.searched = first.map_or(source.words(), word_of);
    }

    fn search(&mut self, wanted: &Wanted<'_>, source: &Bitfield) {
        let words = source.words();
        while self.searched < words && self.stock.len() < WINDOW {
            let at = (self.start + self.searched) % words;
            let end = if at < self.start { self.start } else { words };
            let mut open = open_words(wanted, source, at).take_while(|(word, _)| *word < end);
            self.searched += loop {
                let Some((word, bits)) = open.next() else { break end - at };
                self.stock.extend(pieces(wanted.layout, word, bits));
                if self.stock.len() >= WINDOW {
                    break word + 1 - at;
                }
            };
        }
    }
}

fn word_of(piece: PieceIndex) -> usize {
    piece.as_usize() / 64
}
