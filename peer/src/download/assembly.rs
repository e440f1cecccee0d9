//! Assembles one piece at a time from its chunks.

use bytes::{Bytes, BytesMut};
use proto::domain::{Blake3, PieceIndex, PieceLayout, Sha1, manifest::SubtreeHasher};
use sha1::Digest as _;

/// Slices shorter than this are copied rather than kept. Each kept slice costs a header, and keeps the buffer
/// that it is a slice of.
const KEEP: usize = 4 << 10;

/// A piece that is being received.
#[derive(Debug)]
pub(super) struct Assembly {
    piece: PieceIndex,
    length: u32,
    received: u32,
    /// Computed as the data arrives, while it is in this core's cache.
    blake3: SubtreeHasher,
    /// Computed the same way, unless it is left for later.
    sha1: Option<sha1::Sha1>,
    parts: Vec<Bytes>,
    small: BytesMut,
}

/// A piece that was received in full and is not verified yet.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) piece: PieceIndex,
    pub(super) parts: Vec<Bytes>,
    pub(super) blake3: Blake3,
    /// `None` if it must still be computed.
    pub(super) sha1: Option<Sha1>,
}

impl Assembly {
    /// Starts without any byte of the piece. With `sha1_later`, its SHA-1 is computed later, together with
    /// that of other pieces.
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

    /// Adds data that starts `offset` bytes into the piece. Returns false if it doesn't start where the last
    /// data ended, or if it is longer than the rest of the piece.
    pub(super) fn push(&mut self, offset: u64, data: Bytes) -> bool {
        let room = (self.length - self.received) as usize;
        if offset != u64::from(self.received) || data.len() > room {
            return false;
        }
        self.blake3.update(&data);
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(&data);
        }
        // Fits: at most `room`.
        self.received += data.len() as u32;
        if data.len() >= KEEP {
            self.flush_small();
            self.parts.push(data);
        } else {
            self.small.extend_from_slice(&data);
        }
        true
    }

    /// Whether every byte has arrived.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.length
    }

    /// The piece, which must be complete.
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
        let manifest = testkit::content::manifest("file", &data);
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
