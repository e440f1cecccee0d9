//! The `.state` file: which pieces of an unfinished file were safely on disk when it was written.
//!
//! ```text
//! "MTSTATE\n" · version u32 · flags u32 (1: clean, 2: lost) · file id 16 · BLAKE3 root 32 · size u64
//! · bitmap · BLAKE3 of all before 32                              integers little-endian
//! ```
//! Version 1 had a second bitmap. A state of version 1 is treated as one that can't be read.

use proto::domain::{Bitfield, Blake3, FileId, PieceLayout};

const MAGIC: &[u8; 8] = b"MTSTATE\n";
const VERSION: u32 = 2;
const CLEAN: u32 = 1;
const LOST: u32 = 2;
const HEADER: usize = 8 + 4 + 4 + 16 + 32 + 8;
const CHECKSUM: usize = 32;

/// The identity of the file that a state belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) file: FileId,
    pub(super) root: Blake3,
    pub(super) layout: PieceLayout,
}

/// The content of a `.state` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Nothing was written to the part after this state.
    pub(super) clean: bool,
    /// A sync failed once. Data in the page cache may not be on the disk, so only `claims` count.
    pub(super) lost: bool,
    /// The pieces that were written and synced before this state was.
    pub(super) claims: Bitfield,
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
        bytes.extend_from_slice(self.claims.as_bytes());
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    /// Decodes the bytes of a state file. Returns `None` unless they are complete, consistent, and of this
    /// very file.
    pub(super) fn decode(bytes: &[u8], subject: &Subject) -> Option<Self> {
        if bytes.len() != Self::size(subject.layout) {
            return None;
        }
        let (body, checksum) = bytes.split_at_checked(bytes.len() - CHECKSUM)?;
        if blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        let (header, claims) = body.split_at_checked(HEADER)?;
        let flags = u32::from_le_bytes(header[12..16].try_into().ok()?);
        let state = Self {
            clean: flags & CLEAN != 0,
            lost: flags & LOST != 0,
            claims: Bitfield::from_bytes(subject.layout, claims).ok()?,
        };
        // A state counts only if encoding it gives the same bytes. This compares magic, version, ids and
        // size.
        (state.encode(subject) == bytes).then_some(state)
    }

    /// The length in bytes of the state of a file with this layout.
    pub(super) fn size(layout: PieceLayout) -> usize {
        HEADER + layout.count().div_ceil(8) as usize + CHECKSUM
    }
}

/// Decodes a state, and encodes it again: for a fuzz target.
#[cfg(fuzzing)]
pub fn read_again(file: FileId, root: Blake3, layout: PieceLayout, bytes: &[u8]) -> Option<Vec<u8>> {
    let subject = Subject { file, root, layout };
    State::decode(bytes, &subject).map(|state| state.encode(&subject))
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
        let mut claims = Bitfield::empty(subject.layout);
        claims.insert(subject.layout.index(3).unwrap());
        State { clean: true, lost: false, claims }
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
