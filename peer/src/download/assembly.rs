//! One piece at a time, put together from its chunks: hashed as they come, checked when whole.

use bytes::{Bytes, BytesMut};
use proto::domain::{Manifest, PieceIndex, manifest::PieceHasher};

/// A smaller slice is copied rather than kept: each one kept costs a header, and holds on to what it is a slice of.
const KEEP: usize = 4 << 10;

/// A piece on its way in.
#[derive(Debug)]
pub(super) struct Assembly {
    piece: PieceIndex,
    length: u32,
    received: u32,
    hasher: PieceHasher,
    parts: Vec<Bytes>,
    small: BytesMut,
}

/// A piece that came whole.
#[derive(Debug)]
pub(super) enum Whole {
    /// It is what the manifest says.
    Good(Vec<Bytes>),
    /// It is not.
    Bad,
}

impl Assembly {
    /// Nothing of the piece has come.
    pub(super) fn new(manifest: &Manifest, piece: PieceIndex) -> Self {
        let layout = manifest.layout();
        Self {
            piece,
            length: layout.piece_length(piece),
            received: 0,
            hasher: PieceHasher::new(layout, piece),
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

    /// Checks the whole piece.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Whole {
        self.flush_small();
        let expected = manifest.pieces().get(self.piece.as_usize());
        if self.received == self.length && expected == Some(&self.hasher.finish()) {
            Whole::Good(self.parts)
        } else {
            Whole::Bad
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }
}
