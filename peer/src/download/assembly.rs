//! One piece at a time, put together from its chunks.

use bytes::{Bytes, BytesMut};
use proto::domain::{Blake3, PieceIndex, PieceLayout, Sha1, manifest::SubtreeHasher};
use sha1::Digest as _;

/// A smaller slice is copied rather than kept: each one kept costs a header, and holds on to what it is a slice of.
const KEEP: usize = 4 << 10;

/// A piece on its way in.
#[derive(Debug)]
pub(super) struct Assembly {
    piece: PieceIndex,
    length: u32,
    received: u32,
    /// Hashed as it comes, while the data is in this core's cache.
    blake3: SubtreeHasher,
    /// The same, unless it is left for later.
    sha1: Option<sha1::Sha1>,
    parts: Vec<Bytes>,
    small: BytesMut,
}

/// A piece that came whole, not checked.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) piece: PieceIndex,
    pub(super) parts: Vec<Bytes>,
    pub(super) blake3: Blake3,
    /// `None` when it is still to be computed.
    pub(super) sha1: Option<Sha1>,
}

impl Assembly {
    /// Nothing of the piece has come. With `sha1_later`, its SHA-1 is left for when there are several to compute.
    pub(super) fn new(layout: PieceLayout, piece: PieceIndex, sha1_later: bool) -> Self {
        Self {
            piece,
            length: layout.piece_length(piece),
            received: 0,
            blake3: SubtreeHasher::new(layout, piece),
            sha1: (!sha1_later).then(sha1::Sha1::new),
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
        self.blake3.update(&data);
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(&data);
        }
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
        let sha1 = self.sha1.map(|sha1| <[u8; 20]>::from(sha1.finalize()).into());
        Whole { piece: self.piece, parts: self.parts, blake3: self.blake3.finish(), sha1 }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(self.small.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::hashing::lanes;

    #[test]
    fn now_or_later_it_is_the_same_piece() {
        let data: Vec<u8> = (0..700_000u32).map(|at| (at / 251) as u8).collect();
        let manifest = crate::test_support::manifest_of(&data);
        let piece = manifest.layout().index(1).unwrap();
        let data = Bytes::from(data).slice(524_288..);
        for later in [false, true] {
            let mut assembly = Assembly::new(manifest.layout(), piece, later);
            assert!(!assembly.push(1, data.slice(..1)), "not where it goes on");
            let mut at = 0;
            for length in [1, 63, 4_095, 4_096, 100_000, data.len() - 108_255] {
                assert!(!assembly.is_whole());
                assert!(assembly.push(at as u64, data.slice(at..at + length)));
                at += length;
            }
            assert!(!assembly.push(at as u64, data.slice(..1)), "more than it has");
            assert!(assembly.is_whole());
            let whole = assembly.finish();
            assert_eq!(whole.parts.concat(), data);
            assert_eq!(whole.sha1.is_none(), later);
            let sha1 = whole.sha1.unwrap_or_else(|| lanes::sha1_of_each(&[&whole.parts])[0]);
            let expected = manifest.pieces()[1];
            assert_eq!((sha1, whole.blake3), (expected.sha1, expected.blake3));
        }
    }
}
