//! Counts how often each piece was sent.

use std::collections::BTreeMap;

use domain::{FileId, PieceIndex};

/// The most bytes of counts that are kept. Beyond that, the files that were used longest ago are forgotten.
const MAX_BYTES: usize = 16 << 20;

/// The counts by file and piece.
#[derive(Default)]
pub(super) struct SentCounts {
    files: BTreeMap<FileId, Counts>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct Counts {
    /// One count for each piece, up to the highest that was sent.
    pieces: Vec<u8>,
    used: u64,
}

impl SentCounts {
    /// How often the piece was sent.
    pub(super) fn count(&self, file: FileId, piece: PieceIndex) -> u8 {
        self.files.get(&file).and_then(|counts| counts.pieces.get(piece.as_usize())).copied().unwrap_or(0)
    }

    /// Reverts [`SentCounts::add`], for a piece that did not arrive because its receiver left.
    pub(super) fn take_back(&mut self, file: FileId, piece: PieceIndex) {
        let counts = self.files.get_mut(&file).and_then(|counts| counts.pieces.get_mut(piece.as_usize()));
        if let Some(count) = counts {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts that the piece is sent once more.
    pub(super) fn add(&mut self, file: FileId, piece: PieceIndex) {
        self.clock += 1;
        let counts = self.files.entry(file).or_default();
        counts.used = self.clock;
        let at = piece.as_usize();
        if at >= counts.pieces.len() {
            self.bytes += at + 1 - counts.pieces.len();
            counts.pieces.resize(at + 1, 0);
        }
        counts.pieces[at] = counts.pieces[at].saturating_add(1);
        while self.bytes > MAX_BYTES && self.files.len() > 1 {
            let oldest = self.files.iter().min_by_key(|(_, counts)| counts.used).map(|(file, _)| *file);
            let forgotten = oldest.and_then(|oldest| self.files.remove(&oldest));
            self.bytes -= forgotten.map_or(0, |counts| counts.pieces.len());
        }
    }
}
