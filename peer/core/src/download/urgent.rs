//! The pieces that a reader of the file waits for. They are requested before all others. Among the pieces that
//! arrive they are at most about a half, so that this peer still has rare pieces for the swarm.

use domain::PieceIndex;

/// The most urgent pieces at a time. Further ones are ignored.
pub const MAX_URGENT: usize = 64;
/// The number of urgent pieces that may be requested before as many others must have begun to arrive.
const BURST: u32 = 4;

/// The urgent pieces of a download.
#[derive(Default)]
pub(super) struct Urgent {
    /// The most urgent one first.
    pub(super) pieces: Vec<PieceIndex>,
    /// How many more urgent pieces than others have begun to arrive since the reader last went elsewhere.
    ahead: u32,
    /// Since the reader went elsewhere, no urgent piece has begun to arrive.
    waits: bool,
}

impl Urgent {
    /// Replaces the pieces. Returns those from before.
    pub(super) fn replace(&mut self, mut pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
        pieces.truncate(MAX_URGENT);
        std::mem::replace(&mut self.pieces, pieces)
    }

    /// Notes that the reader went elsewhere.
    pub(super) fn note_jump(&mut self) {
        self.ahead = 0;
        self.waits = true;
    }

    /// Notes that a piece began to arrive.
    pub(super) fn note_started(&mut self, was_urgent: bool) {
        self.waits &= !was_urgent;
        self.ahead = if was_urgent { self.ahead + 1 } else { self.ahead.saturating_sub(1) };
    }

    /// Whether the reader went elsewhere and has nothing there yet. Then senders serve it before its turn. A reader
    /// that goes on takes its turns like everybody else.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits && !self.pieces.is_empty()
    }

    /// How many urgent pieces may be requested, apart from those that have begun to arrive.
    pub(super) fn room(&self) -> usize {
        if self.pieces.is_empty() { 0 } else { BURST.saturating_sub(self.ahead) as usize }
    }
}
