//! What was found of one source's open pieces, kept so that nothing is searched twice.
//!
//! A source that has one piece of a hundred, asked late in a long download, has one that is wanted in thousands of words.
//! Each search goes on where the last one ended, so that all of them together pass the file once.

use proto::domain::{Bitfield, PieceIndex};
use rand::RngExt;

use super::{Wanted, open_words, pieces};
use crate::domain::Rng;

/// Pieces that are gathered at a time, to draw from.
const WINDOW: usize = 256;
/// With more than these in stock the search is begun anew: each piece that is added is compared with all of them.
const MOST: usize = 4 * WINDOW;

/// See the module.
///
/// Invariant, as long as the owner calls [`add`](Self::add) for every piece of the source that becomes open or that it
/// gains: the source's open pieces are in `stock`, or in words that are not searched yet. What is in `stock` is there
/// once; it need not be open any more.
#[derive(Clone, Debug, Default)]
pub struct Finds {
    stock: Vec<PieceIndex>,
    /// The word of the bitfield where the search began.
    start: usize,
    /// Words searched from there on, the last one being followed by the first.
    searched: usize,
}

impl Finds {
    /// The piece is open and the source has it, and one of the two is new.
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

    /// There was a search, and it isn't forgotten.
    pub(super) fn is_begun(&self) -> bool {
        self.searched > 0
    }

    /// Takes a random one of about [`WINDOW`] open pieces out of the stock; `None` when the source has no more of them.
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

    /// Gives back what was drawn and stays open.
    pub(super) fn put_back(&mut self, drawn: impl Iterator<Item = PieceIndex>) {
        self.stock.extend(drawn);
    }

    /// For a search in the order of the file: the first word that may have an open piece.
    pub(super) fn first_word(&mut self) -> usize {
        let added = self.stock.drain(..).map(word_of).min();
        self.searched = added.map_or(self.searched, |added| added.min(self.searched));
        self.searched
    }

    /// For a search in the order of the file: this piece is the source's first open one, if there is one.
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
