//! Which pieces of an unfinished file an earlier run claims, and whether they match the manifest.
//!
//! Nothing that an earlier run wrote is trusted: disks rot, and others can write to the file between two
//! runs. A claim only keeps the download from requesting the piece at once. The piece counts after it was
//! read from the disk and hashed. These pieces are claimed:
//! - after a clean stop, or when a sync failed: the pieces in the state;
//! - after a crash, or without a usable state: every piece that has data. This also keeps the pieces that
//!   were written since the last checkpoint.
//!
//! Cost: one read of the claimed pieces, and one SHA-1 and one BLAKE3 of them, on one thread of low priority,
//! while the other pieces arrive. Each piece counts as soon as it is checked, so the download is delayed only
//! when the check takes longer than the rest of the download. Measured with 3 GiB, one thread, an unoptimised
//! build (one SHA-1 at a time), on a virtual machine with 2 processors and a load of 8: 520 MiB/s from the
//! page cache, 305 MiB/s after the pages were dropped. At these rates, rechecking the pieces of a download of
//! 100 GiB takes at most 3 to 6 minutes. The effect on a download's speed has not been measured.

use std::{fs::File, io, num::NonZeroU64, ops::Range, sync::LazyLock};

use proto::domain::{Bitfield, Manifest, PIECE_LENGTH, PieceHash, PieceIndex, Sha1, manifest::SubtreeHasher};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use sha1::Digest as _;

use super::{PieceReader, Rechecked, ledger::Ledger, state::State};
use crate::hashing::lanes;

/// The pieces in `part` that an earlier run claims, given its state.
pub(super) fn claimed(part: &File, manifest: &Manifest, state: Option<State>) -> Bitfield {
    match state {
        Some(state) if state.clean || state.lost => state.claims,
        _ => with_data(part, manifest),
    }
}

/// All pieces except those that lie in a hole of the sparse file and so can't be right. Reading a mostly
/// empty part of a large file would take minutes.
fn with_data(part: &File, manifest: &Manifest) -> Bitfield {
    let layout = manifest.layout();
    let mut data_until = 0;
    let mut hole_until = 0;
    let mut holds_data = |piece: PieceIndex| {
        let range = layout.range(piece);
        if range.start >= data_until && range.start >= hole_until {
            hole_until = match seek(part, SeekFrom::Data(range.start)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => layout.length(),
                Err(_) => 0,
            };
            data_until = seek(part, SeekFrom::Hole(hole_until)).unwrap_or(layout.length());
        }
        range.end > hole_until
    };
    let mut pieces = Bitfield::empty(layout);
    for piece in layout.indices().filter(|piece| holds_data(*piece) || may_be_a_hole(manifest, *piece)) {
        pieces.insert(piece);
    }
    pieces
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}

/// Whether the piece may be right although nothing was written: it is as short or as empty as a hole.
pub(super) fn may_be_a_hole(manifest: &Manifest, piece: PieceIndex) -> bool {
    static ZEROS: LazyLock<Sha1> =
        LazyLock::new(|| Sha1::from(<[u8; 20]>::from(sha1::Sha1::digest(vec![0; PIECE_LENGTH as usize]))));
    manifest.layout().piece_length(piece) < PIECE_LENGTH
        || manifest.pieces().get(piece.as_usize()).is_some_and(|hash| hash.sha1 == *ZEROS)
}

/// An unfinished download that can be rechecked.
pub(super) trait Source: PieceReader {
    /// Tells the kernel how these bytes will be used, in all files that hold some of them.
    fn advise(&self, bytes: Range<u64>, advice: Advice);
}

/// Tells the kernel how a part of a file will be used. This is only advice: nothing depends on its success.
pub(super) fn advise(file: &File, bytes: Range<u64>, advice: Advice) {
    if let Some(length) = NonZeroU64::new(bytes.end.saturating_sub(bytes.start)) {
        let _ = fadvise(file, bytes.start, Some(length), advice);
    }
}

/// Reads these pieces again. Notes in the ledger which ones match the manifest, and tells it.
pub(super) fn recheck(
    source: &dyn Source,
    manifest: &Manifest,
    ledger: &Ledger,
    pieces: &[PieceIndex],
    tell: Rechecked<'_>,
) {
    if pieces.is_empty() {
        return;
    }
    let layout = manifest.layout();
    // The recheck reads the disk. After a failed write, the page cache may hold data that the disk does not.
    source.advise(0..layout.length(), Advice::DontNeed);
    let mut reader = Reader::new(source, manifest);
    let mut batches = pieces.chunks(lanes::width()).peekable();
    while let Some(batch) = batches.next() {
        // The disk works while others are hashed.
        for piece in batches.peek().into_iter().copied().flatten() {
            source.advise(layout.range(*piece), Advice::WillNeed);
        }
        let right = reader.are_right(batch);
        for (&piece, good) in batch.iter().zip(right) {
            ledger.claims().checked(piece, good);
            if tell(piece, good).is_break() {
                return;
            }
        }
    }
}

/// Reads pieces and compares them with the manifest, as many at a time as are hashed side by side.
struct Reader<'a> {
    source: &'a dyn Source,
    manifest: &'a Manifest,
    /// Reused from one batch to the next: allocating costs as much as half of the hashing.
    buffers: Vec<Vec<u8>>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a dyn Source, manifest: &'a Manifest) -> Self {
        Self { source, manifest, buffers: vec![Vec::new(); lanes::width()] }
    }

    /// Whether each of these pieces, at most [`lanes::width`], matches the manifest. A piece that can't be
    /// read does not.
    fn are_right(&mut self, pieces: &[PieceIndex]) -> Vec<bool> {
        let layout = self.manifest.layout();
        let mut readable = Vec::with_capacity(pieces.len());
        for (&piece, buffer) in pieces.iter().zip(&mut self.buffers) {
            buffer.resize(layout.piece_length(piece) as usize, 0);
            match self.source.read(layout.offset(piece), buffer) {
                Ok(()) => readable.push((piece, &*buffer)),
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?piece, "a piece of an unfinished file can't be read and is downloaded again");
                }
            }
        }
        let messages: Vec<&[Vec<u8>]> =
            readable.iter().map(|(_, data)| std::slice::from_ref(*data)).collect();
        let sha1s = lanes::sha1_of_each(&messages);
        let mut right = readable.iter().zip(sha1s).filter_map(|((piece, data), sha1)| {
            let mut blake3 = SubtreeHasher::new(layout, *piece);
            blake3.update(data);
            let hash = PieceHash { sha1, blake3: blake3.finish() };
            (self.manifest.pieces().get(piece.as_usize()) == Some(&hash)).then_some(*piece)
        });
        let mut next = right.next();
        let take = |piece: &PieceIndex| {
            let is_right = next == Some(*piece);
            if is_right {
                next = right.next();
            }
            is_right
        };
        pieces.iter().map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::FileExt as _;

    use testkit::content::{PIECE, manifest, noise};

    use super::*;

    #[test]
    fn without_a_state_the_pieces_with_data_are_claimed() {
        // The third piece is of zeros, and the last one is short: both may be right where nothing was written.
        let mut data = noise(1, 7 * PIECE + 9);
        data[2 * PIECE..3 * PIECE].fill(0);
        let manifest = manifest("file", &data);
        let part = tempfile::tempfile().unwrap();
        part.set_len(data.len() as u64).unwrap();
        let claims = |state| -> Vec<u32> {
            claimed(&part, &manifest, state).iter(manifest.layout()).map(PieceIndex::get).collect()
        };
        assert_eq!(claims(None), [2, 7]);
        part.write_all_at(&data[4 * PIECE..6 * PIECE], 4 * PIECE as u64).unwrap();
        assert_eq!(claims(None), [2, 4, 5, 7]);
        let state = |clean, lost| Some(State { clean, lost, claims: Bitfield::empty(manifest.layout()) });
        assert_eq!(claims(state(false, false)), [2, 4, 5, 7], "it crashed");
        assert_eq!((claims(state(true, false)).len(), claims(state(false, true)).len()), (0, 0));
    }
}
