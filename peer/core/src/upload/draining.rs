//! Files that this peer wants to stop serving. It sends each piece of them once, and the receiver passes it on.

use std::{collections::BTreeMap, time::Duration};

use domain::{FileId, PieceIndex};

use super::Moment;

/// How long a piece that was sent is left to its receiver to pass on. A receiver that is gone by then took the piece
/// with it.
pub(super) const PASS_ON: Duration = Duration::from_secs(30);
/// How often to look whether a piece may be sent again.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The files that are being drained.
#[derive(Default)]
pub(super) struct Draining {
    files: BTreeMap<FileId, Drained>,
}

struct Drained {
    since: Moment,
    until: Moment,
    /// When each piece was last sent, since then.
    sent: BTreeMap<PieceIndex, Moment>,
}

impl Draining {
    /// Begins to drain the file, or goes on, until this moment.
    pub(super) fn note(&mut self, now: Moment, file: FileId, until: Moment) {
        let new = || Drained { since: now, until, sent: BTreeMap::new() };
        let drained = self.files.entry(file).or_insert_with(new);
        drained.until = until;
        drained.sent.retain(|_, sent| now < *sent + PASS_ON);
    }

    /// Forgets the files whose time is over.
    pub(super) fn forget(&mut self, now: Moment) {
        self.files.retain(|_, drained| now < drained.until);
    }

    /// Whether no file is drained.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Notes that the piece is sent.
    pub(super) fn note_sent(&mut self, now: Moment, file: FileId, piece: PieceIndex) {
        if let Some(drained) = self.files.get_mut(&file) {
            drained.sent.insert(piece, now);
        }
    }

    /// Whether the piece, which was sent before, is left to its receiver to pass on.
    pub(super) fn is_left_to_others(&self, now: Moment, file: FileId, piece: PieceIndex) -> bool {
        self.files
            .get(&file)
            .is_some_and(|drained| now < drained.sent.get(&piece).copied().unwrap_or(drained.since) + PASS_ON)
    }
}
