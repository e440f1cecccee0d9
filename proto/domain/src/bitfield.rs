//! Sets of pieces, one bit per piece.

use super::piece::{PieceIndex, PieceLayout};

/// A set of a file's pieces, one bit each: bit 7 of byte 0 is piece 0, as on the wire.
///
/// Invariant: `bits` has exactly `ceil(pieces / 8)` bytes, the spare bits of the last byte are 0, and `ones`
/// is the number of set bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    bits: Vec<u8>,
    pieces: u32,
    ones: u32,
}

/// Why bytes are not a bitfield of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not `ceil(pieces / 8)` bytes.
    #[error("a bitfield of {pieces} pieces must have {expected} bytes, but has {got}")]
    Length {
        /// Pieces of the file.
        pieces: u32,
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        got: usize,
    },
    /// A bit past the last piece is set.
    #[error("a bitfield has bits set past its last piece")]
    SpareBits,
}

impl Bitfield {
    /// The set with no piece.
    pub fn empty(layout: PieceLayout) -> Self {
        let pieces = layout.count();
        Self { bits: vec![0; pieces.div_ceil(8) as usize], pieces, ones: 0 }
    }

    /// The set with every piece of the file.
    pub fn full(layout: PieceLayout) -> Self {
        let mut full = Self::empty(layout);
        full.bits.fill(0xff);
        if let Some(last) = full.bits.last_mut() {
            *last <<= (8 - full.pieces % 8) % 8;
        }
        full.ones = full.pieces;
        full
    }

    /// Reads a bitfield from bytes of the wire or the disk.
    ///
    /// # Errors
    /// Fails if the number of bytes is wrong or a spare bit is set.
    pub fn from_bytes(layout: PieceLayout, bits: &[u8]) -> Result<Self, BitfieldError> {
        let pieces = layout.count();
        let expected = pieces.div_ceil(8) as usize;
        if bits.len() != expected {
            return Err(BitfieldError::Length { pieces, expected, got: bits.len() });
        }
        let spare = (8 - pieces % 8) % 8;
        if bits.last().is_some_and(|last| last & ((1u8 << spare) - 1) != 0) {
            return Err(BitfieldError::SpareBits);
        }
        let ones = bits.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self { bits: bits.to_vec(), pieces, ones })
    }

    /// The bytes, in the format of the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// The number of pieces in the file.
    pub fn pieces(&self) -> u32 {
        self.pieces
    }

    /// The number of pieces in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every piece is in the set. True for an empty file.
    pub fn is_full(&self) -> bool {
        self.ones == self.pieces
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether the piece is in the set. False for an index past the file's last piece.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        let (byte, mask) = Self::place(piece);
        self.bits.get(byte).is_some_and(|bits| bits & mask != 0)
    }

    /// Adds the piece. Returns true if it was not in the set before. An index past the file's last piece
    /// changes nothing.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let (byte, mask) = Self::place(piece);
        match self.bits.get_mut(byte) {
            Some(bits) if piece.get() < self.pieces && *bits & mask == 0 => {
                *bits |= mask;
                self.ones += 1;
                true
            }
            _ => false,
        }
    }

    /// Removes the piece. Returns true if it was in the set.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let (byte, mask) = Self::place(piece);
        match self.bits.get_mut(byte) {
            Some(bits) if *bits & mask != 0 => {
                *bits &= !mask;
                self.ones -= 1;
                true
            }
            _ => false,
        }
    }

    /// The number of 64-piece words. The last word may cover fewer pieces.
    pub fn words(&self) -> usize {
        self.bits.len().div_ceil(8)
    }

    /// Word `at`, which covers 64 pieces: its bit 63 is piece `64 * at`. Returns 0 past the end.
    pub fn word(&self, at: usize) -> u64 {
        let bytes = self.bits.get(8 * at..).unwrap_or_default();
        match bytes.first_chunk() {
            Some(whole) => u64::from_be_bytes(*whole),
            None => (0..8).fold(0, |word, at| word << 8 | bytes.get(at).map_or(0, |byte| u64::from(*byte))),
        }
    }

    /// The pieces in the set, in order.
    pub fn iter(&self, layout: PieceLayout) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bits
            .iter()
            .zip(0u64..)
            .filter(|(byte, _)| **byte != 0)
            .flat_map(|(byte, at)| {
                (0..8u64).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| at * 8 + bit)
            })
            .filter_map(move |index| layout.index(index))
    }

    fn place(piece: PieceIndex) -> (usize, u8) {
        (piece.as_usize() / 8, 0x80 >> (piece.get() % 8))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PIECE_LENGTH;

    fn layout(pieces: u32) -> PieceLayout {
        PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
    }

    #[test]
    fn refuses_short_long_and_spare() {
        let layout = layout(10);
        assert!(Bitfield::from_bytes(layout, &[0xff, 0xc0]).is_ok_and(|b| b.is_full()));
        assert_eq!(Bitfield::from_bytes(layout, &[0xff, 0xe0]), Err(BitfieldError::SpareBits));
        for bytes in [&[][..], &[0xff], &[0, 0, 0]] {
            assert!(matches!(Bitfield::from_bytes(layout, bytes), Err(BitfieldError::Length { .. })));
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(pieces in 1u32..200, ops in prop::collection::vec((any::<bool>(), 0u64..200), 0..300)) {
            let layout = layout(pieces);
            let mut bits = Bitfield::empty(layout);
            let mut set = std::collections::BTreeSet::new();
            for (put, index) in ops {
                let Some(piece) = layout.index(index) else { continue };
                if put {
                    prop_assert_eq!(bits.insert(piece), set.insert(piece));
                } else {
                    prop_assert_eq!(bits.remove(piece), set.remove(&piece));
                }
                prop_assert_eq!(bits.contains(piece), set.contains(&piece));
            }
            prop_assert_eq!(bits.count() as usize, set.len());
            prop_assert!(bits.iter(layout).eq(set.iter().copied()));
            let in_words = |piece: &PieceIndex| bits.word(piece.as_usize() / 64) << (piece.get() % 64) >> 63 == 1;
            prop_assert!(layout.indices().filter(in_words).eq(set.iter().copied()));
            prop_assert_eq!(bits.word(bits.words()), 0);
            prop_assert_eq!(&Bitfield::from_bytes(layout, bits.as_bytes()), &Ok(bits.clone()));
            prop_assert_eq!(bits.is_full(), set.len() == pieces as usize);
        }
    }

    #[test]
    fn full_has_every_piece() {
        for pieces in [0, 1, 7, 8, 9, 64, 65] {
            let full = Bitfield::full(layout(pieces));
            assert!(full.is_full() && full.iter(layout(pieces)).count() == pieces as usize);
            assert!(Bitfield::from_bytes(layout(pieces), full.as_bytes()).is_ok());
        }
    }
}
