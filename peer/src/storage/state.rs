//! The `.state` file: which pieces of an unfinished file are safely on disk.
//!
//! ```text
//! "MTSTATE\n" · version u32 · flags u32 (1: clean, 2: lost) · file id 16 · BLAKE3 root 32 · size u64
//! · bitmap · settled bitmap · BLAKE3 of all before 32             integers little-endian
//! ```
//! The settled bitmap is the bitmap of two checkpoints before: what is in the one and not in the other was written last,
//! and is looked at first after a crash. Version 1 is the only one there was.

use proto::domain::{Bitfield, Blake3, FileId, PieceLayout};

const MAGIC: &[u8; 8] = b"MTSTATE\n";
const VERSION: u32 = 1;
const CLEAN: u32 = 1;
const LOST: u32 = 2;
const HEADER: usize = 8 + 4 + 4 + 16 + 32 + 8;
const CHECKSUM: usize = 32;

/// What identifies the file that a state is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) file: FileId,
    pub(super) root: Blake3,
    pub(super) layout: PieceLayout,
}

/// The content of a `.state` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Nothing was written after it.
    pub(super) clean: bool,
    /// A sync failed once: what is in the page cache need not be on the disk, so only claims count.
    pub(super) lost: bool,
    /// The pieces that were synced before.
    pub(super) have: Bitfield,
    /// Those that were synced two checkpoints before.
    pub(super) settled: Bitfield,
}

impl State {
    /// The file's bytes.
    pub(super) fn encode(&self, subject: &Subject) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::size(subject.layout));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.clean { CLEAN } else { 0 } | if self.lost { LOST } else { 0 };
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(subject.file.as_bytes());
        bytes.extend_from_slice(subject.root.as_bytes());
        bytes.extend_from_slice(&subject.layout.length().to_le_bytes());
        bytes.extend_from_slice(self.have.as_bytes());
        bytes.extend_from_slice(self.settled.as_bytes());
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// The state in a file's bytes; `None` unless they are whole, of this very file and consistent.
    pub(super) fn decode(bytes: &[u8], subject: &Subject) -> Option<Self> {
        if bytes.len() != Self::size(subject.layout) {
            return None;
        }
        let (body, checksum) = bytes.split_at_checked(bytes.len() - CHECKSUM)?;
        if blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        let (header, bitmaps) = body.split_at_checked(HEADER)?;
        let (have, settled) = bitmaps.split_at_checked(bitmaps.len() / 2)?;
        let flags = u32::from_le_bytes(header[12..16].try_into().ok()?);
        let state = Self {
            clean: flags & CLEAN != 0,
            lost: flags & LOST != 0,
            have: Bitfield::from_bytes(subject.layout, have).ok()?,
            settled: Bitfield::from_bytes(subject.layout, settled).ok()?,
        };
        // What is not the very bytes that we would write is not ours: magic, version, ids and size are compared here.
        (state.encode(subject) == bytes).then_some(state)
    }

    /// Bytes in the state file of a file of this layout.
    pub(super) fn size(layout: PieceLayout) -> usize {
        HEADER + 2 * layout.count().div_ceil(8) as usize + CHECKSUM
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn subject(length: u64) -> Subject {
        Subject {
            file: FileId::try_from(&[7u8; 16][..]).unwrap(),
            root: Blake3::from([9; 32]),
            layout: PieceLayout::new(length).unwrap(),
        }
    }

    fn state(subject: &Subject) -> State {
        let mut have = Bitfield::empty(subject.layout);
        have.insert(subject.layout.index(3).unwrap());
        State { clean: true, lost: false, settled: Bitfield::empty(subject.layout), have }
    }

    #[test]
    fn survives_its_bytes_and_nothing_less() {
        let subject = subject(20 << 20);
        let state = state(&subject);
        let bytes = state.encode(&subject);
        assert_eq!(State::decode(&bytes, &subject), Some(state));
        for length in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..length], &subject), None);
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(State::decode(&flipped, &subject), None, "byte {at}");
        }
        assert_eq!(State::decode(&vec![0; bytes.len()], &subject), None);
        let longer = [bytes, vec![0]].concat();
        assert_eq!(State::decode(&longer, &subject), None);
    }

    #[test]
    fn is_of_one_file_alone() {
        let mine = subject(20 << 20);
        let bytes = state(&mine).encode(&mine);
        let other_file = Subject { file: FileId::try_from(&[8u8; 16][..]).unwrap(), ..mine };
        let other_root = Subject { root: Blake3::from([8; 32]), ..mine };
        let other_size = Subject { layout: PieceLayout::new((20 << 20) - 1).unwrap(), ..mine };
        for other in [other_file, other_root, other_size] {
            assert_eq!(State::decode(&bytes, &other), None);
        }
    }
}
