//! One piece at a time, put together from its chunks.

use bytes::{Bytes, BytesMut};
use proto::domain::{Blake3, PieceIndex, PieceLayout, manifest::SubtreeHasher};

/// A smaller slice is copied rather than kept: each one kept costs a header, and holds on to what it is a slice of.
const KEEP: usize = 4 << 10;

/// A piece on its way in.
#[derive(Debug)]
pub(super) struct Assembly {
    piece: PieceIndex,
    length: u32,
    received: u32,
    /// Hashed as it comes, while the data is in this core's cache; SHA-1 is left for when the piece is whole, for it is
    /// cheaper of several at a time.
    hasher: SubtreeHasher,
    parts: Vec<Bytes>,
    small: BytesMut,
}

/// A piece that came whole, not checked.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) piece: PieceIndex,
    pub(super) parts: Vec<Bytes>,
    pub(super) blake3: Blake3,
}

impl Assembly {
    /// Nothing of the piece has come.
    pub(super) fn new(layout: PieceLayout, piece: PieceIndex) -> Self {
        Self {
            piece,
            length: layout.piece_length(piece),
            received: 0,
            hasher: SubtreeHasher::new(layout, piece),
            parts: Vec::new(),
            small: BytesMut::new(),
        }
    }

    pub(super) fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// Takes data that starts `offset` bytes into the piece. False when it doesn't go on where the last ended, or is more
    /// than the piece has.
    pub(super) fn push(&mut self, offset: u64, data: Bytes) -> bool {
        let room = (self.length - self.received) as usize;
        if offset != u64::from(self.received) || data.len() > room {
            return false;
        }
        self.hasher.update(&data);
        // Fits: no more than the room.
        self.received += data.len() as u32;
        if data.len() >= KEEP {
            self.flush_small();
            self.parts.push(data);
        } else {
            self.small.extend_from_slice(&data);
        }
        true
    }

    /// Every byte has come.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.length
    }

    /// The piece, which is whole.
    pub(super) fn finish(mut self) -> Whole {
        debug_assert!(self.is_whole());
        self.flush_small();
        Whole { piece: self.piece, parts: self.parts, blake3: self.hasher.finish() }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }
}
