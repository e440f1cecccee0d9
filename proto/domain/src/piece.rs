//! The division of a file into pieces.

use std::ops::Range;

use super::limits::MAX_FILE_LENGTH;

/// Bytes in a piece. The last piece of a file may be shorter.
pub const PIECE_LENGTH: u32 = 524_288;

/// The index of a piece that exists. Only a [`PieceLayout`] creates one.
///
/// An index is valid only for the layout (or file) that it came from, so keep the two together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The index as a number, below [`PieceLayout::count`].
    pub fn get(self) -> u32 {
        self.0
    }

    /// The index for use with slices.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// Length and piece count of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLayout {
    length: u64,
}

impl PieceLayout {
    /// The layout of a file of `length` bytes; `None` above [`MAX_FILE_LENGTH`].
    pub fn new(length: u64) -> Option<Self> {
        (length <= MAX_FILE_LENGTH).then_some(Self { length })
    }

    /// Bytes in the file.
    pub fn length(self) -> u64 {
        self.length
    }

    /// Pieces in the file: 0 for an empty one, at most 2,097,152.
    pub fn count(self) -> u32 {
        // The cast cannot overflow: MAX_FILE_LENGTH / PIECE_LENGTH is 2^21.
        self.length.div_ceil(u64::from(PIECE_LENGTH)) as u32
    }

    /// The piece with this index, if the file has it.
    pub fn index(self, index: u64) -> Option<PieceIndex> {
        (index < u64::from(self.count())).then_some(PieceIndex(index as u32))
    }

    /// All pieces, in order.
    pub fn indices(self) -> impl DoubleEndedIterator<Item = PieceIndex> + ExactSizeIterator {
        (0..self.count()).map(PieceIndex)
    }

    /// The offset of the piece in the file, in bytes.
    pub fn offset(self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(PIECE_LENGTH)
    }

    /// Bytes in the piece: [`PIECE_LENGTH`], or less for the last piece.
    pub fn piece_length(self, piece: PieceIndex) -> u32 {
        let left = self.length.saturating_sub(self.offset(piece));
        left.min(u64::from(PIECE_LENGTH)) as u32
    }

    /// The range of the file, in bytes, that the piece covers.
    pub fn range(self, piece: PieceIndex) -> Range<u64> {
        let start = self.offset(piece);
        start..start + u64::from(self.piece_length(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_file_exactly() {
        for length in [0, 1, 524_287, 524_288, 524_289, 5_000_000, MAX_FILE_LENGTH] {
            let layout = PieceLayout::new(length).expect("a valid length");
            let mut end = 0;
            if layout.count() < 100 {
                for piece in layout.indices() {
                    assert_eq!(layout.range(piece).start, end);
                    end = layout.range(piece).end;
                }
                assert_eq!(end, length);
            }
            assert_eq!(u64::from(layout.count()), length.div_ceil(524_288));
            assert!(layout.index(u64::from(layout.count())).is_none());
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        assert!(PieceLayout::new(MAX_FILE_LENGTH + 1).is_none());
        assert!(PieceLayout::new(u64::MAX).is_none());
        let layout = PieceLayout::new(600_000).expect("a valid length");
        assert_eq!(layout.index(1).map(|p| layout.piece_length(p)), Some(75_712));
        for index in [2, 1 << 31, 1 << 32, 1 << 45, u64::MAX] {
            assert!(layout.index(index).is_none());
        }
    }
}
