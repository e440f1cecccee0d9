//! Where the bytes of a folder's virtual file lie: the files' contents one after the other, then the index.

use std::ops::Range;

use super::entry::{Entry, EntryKind};
use crate::{
    bitfield::Bitfield,
    limits::MAX_FILE_LENGTH,
    piece::{PIECE_LENGTH, PieceLayout},
};

/// The part of a folder that bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The content of the file with this entry number.
    File(usize),
    /// The index.
    Index,
}

/// Consecutive bytes of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The part.
    pub part: Part,
    /// Offset in the part, in bytes.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// Maps the bytes of a folder's virtual file to its files. Takes 16 bytes of memory for each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The files that are not empty: the offset of the first byte, and the entry number. In order.
    starts: Vec<(u64, u32)>,
    length: u64,
}

impl Contents {
    /// The contents of these entries; `None` if they are longer than [`MAX_FILE_LENGTH`].
    pub(super) fn of(entries: &[Entry]) -> Option<Self> {
        let (mut starts, mut length) = (Vec::new(), 0u64);
        for (number, entry) in entries.iter().enumerate() {
            if let EntryKind::File(file) = entry.kind
                && file.length > 0
            {
                starts.push((length, u32::try_from(number).ok()?));
                length = length.checked_add(file.length).filter(|length| *length <= MAX_FILE_LENGTH)?;
            }
        }
        Some(Self { starts, length })
    }

    /// Bytes of all contents. The index starts at this offset.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes of the virtual file that are the content of this entry. Empty for what has no content.
    pub fn range(&self, entry: usize) -> Range<u64> {
        match self.starts.binary_search_by_key(&entry, |(_, number)| *number as usize) {
            Ok(at) => self.starts[at].0..self.end(at),
            Err(_) => 0..0,
        }
    }

    /// The number of files, of those whose entry numbers are `counted`, that lie in these pieces as a whole. Files
    /// that are empty are not among them.
    pub fn files_in(&self, layout: PieceLayout, pieces: &Bitfield, counted: impl Fn(usize) -> bool) -> usize {
        // The next piece that is not among them. It only moves forward, because the files are in order.
        let mut missing = 0;
        let is_whole = |at: &usize| {
            let piece = u64::from(PIECE_LENGTH);
            missing = missing.max(self.starts[*at].0 / piece);
            while layout.index(missing).is_some_and(|index| pieces.contains(index)) {
                missing += 1;
            }
            counted(self.starts[*at].1 as usize) && self.end(*at) <= missing * piece
        };
        (0..self.starts.len()).filter(is_whole).count()
    }

    /// Adds the pieces that hold a part of this entry's content.
    pub fn add_pieces(&self, entry: usize, layout: PieceLayout, pieces: &mut Bitfield) {
        let (range, piece) = (self.range(entry), u64::from(PIECE_LENGTH));
        for index in range.start / piece..range.end.div_ceil(piece) {
            layout.index(index).into_iter().for_each(|index| {
                pieces.insert(index);
            });
        }
    }

    /// The segments that these bytes of the virtual file consist of, in order. All bytes after the contents count
    /// as the index.
    pub fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let mut next = range.start;
        let mut at = self.starts.partition_point(|(start, _)| *start <= next).saturating_sub(1);
        std::iter::from_fn(move || {
            if next >= range.end {
                return None;
            }
            let (part, start, end) = match self.starts.get(at) {
                Some((start, entry)) if next < self.length => {
                    (Part::File(*entry as usize), *start, self.end(at))
                }
                _ => (Part::Index, self.length, u64::MAX),
            };
            let until = end.min(range.end);
            let segment = Segment { part, offset: next - start, length: until - next };
            (next, at) = (until, at + 1);
            Some(segment)
        })
    }

    /// The end of the file at this place of `starts`.
    fn end(&self, at: usize) -> u64 {
        self.starts.get(at + 1).map_or(self.length, |(start, _)| *start)
    }
}
