//! How often each piece was sent.

use std::collections::BTreeMap;

use proto::domain::{FileId, PieceIndex};

/// Most bytes of counts that are kept; the files that were asked for longest ago are forgotten beyond.
const MAX_BYTES: usize = 16 << 20;

/// Counts by file and piece.
#[derive(Default)]
pub(super) struct SentCounts {
    files: BTreeMap<FileId, Counts>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct Counts {
    /// Up to the highest piece that was sent.
    pieces: Vec<u8>,
    used: u64,
}

impl SentCounts {
    /// How often the piece was sent.
    pub(super) fn count(&self, file: FileId, piece: PieceIndex) -> u8 {
        self.files.get(&file).and_then(|counts| counts.pieces.get(piece.as_usize())).copied().unwrap_or(0)
    }

    /// It is sent once more.
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
