//! Which pieces of an unfinished file are written, which are verified, and which are safe on disk.

use proto::domain::{Bitfield, PieceIndex, PieceLayout};

/// The sets of pieces of an unfinished file.
///
/// Invariant: no piece is in both `have` and `unverified`.
#[derive(Debug)]
pub(super) struct Claims {
    layout: PieceLayout,
    /// The pieces that match the manifest: written by this run, or written by an earlier run and read again
    /// by this one.
    have: Bitfield,
    /// The pieces that an earlier run claims to have written.
    unverified: Bitfield,
    /// The pieces that the last checkpoint made safe. At first, those that were claimed: opening a store ends with a
    /// checkpoint, which syncs them. If that fails, a claim may name a piece that is not safe. This does no harm: no
    /// claim counts before the piece was read from the disk.
    durable: Bitfield,
    /// The pieces that are safe once the running checkpoint succeeds.
    saving: Bitfield,
    /// A sync failed: the kernel's answers about this descriptor can't be trusted any more.
    pub(super) broken: bool,
    /// A sync failed at some time, perhaps in an earlier run. See [`State::lost`](super::state::State::lost).
    pub(super) lost: bool,
}

impl Claims {
    /// Starts with the pieces that an earlier run claims.
    pub(super) fn new(layout: PieceLayout, claimed: Bitfield, lost: bool) -> Self {
        Self {
            layout,
            have: Bitfield::empty(layout),
            durable: claimed.clone(),
            saving: claimed.clone(),
            unverified: claimed,
            broken: false,
            lost,
        }
    }

    pub(super) fn have(&self) -> &Bitfield {
        &self.have
    }

    pub(super) fn unverified(&self) -> &Bitfield {
        &self.unverified
    }

    /// Adds pieces that an earlier run may have written, although its state does not say so.
    pub(super) fn claim(&mut self, pieces: &Bitfield) {
        for piece in pieces.iter(self.layout).filter(|piece| !self.have.contains(*piece)) {
            self.unverified.insert(piece);
        }
    }

    /// Notes that the piece was verified in memory and written.
    pub(super) fn wrote(&mut self, piece: PieceIndex) {
        self.unverified.remove(piece);
        self.have.insert(piece);
    }

    /// Notes that the piece was read again. Has no effect when the piece was written meanwhile.
    pub(super) fn checked(&mut self, piece: PieceIndex, good: bool) {
        if !self.unverified.contains(piece) {
            return;
        }
        if good {
            self.unverified.remove(piece);
            self.have.insert(piece);
        } else {
            self.lose_piece(piece);
        }
    }

    /// Notes that the piece on disk does not match the manifest.
    pub(super) fn lose_piece(&mut self, piece: PieceIndex) {
        for set in [&mut self.have, &mut self.unverified, &mut self.durable, &mut self.saving] {
            set.remove(piece);
        }
    }

    /// Begins a checkpoint, and returns the pieces that it makes safe. It may not cover a piece that is
    /// written from now on.
    pub(super) fn begin_saving(&mut self) -> Bitfield {
        self.saving = self.have.clone();
        for piece in self.unverified.iter(self.layout) {
            self.saving.insert(piece);
        }
        self.saving.clone()
    }

    /// Notes that the checkpoint succeeded.
    pub(super) fn saved(&mut self) {
        self.durable = self.saving.clone();
    }

    /// Notes that the checkpoint failed. Only the pieces that were safe before still count, and no later ones
    /// will. Returns those that were safe.
    pub(super) fn lose(&mut self) -> Bitfield {
        self.broken = true;
        for set in [&mut self.have, &mut self.unverified] {
            let gone: Vec<PieceIndex> =
                set.iter(self.layout).filter(|piece| !self.durable.contains(*piece)).collect();
            for piece in gone {
                set.remove(piece);
            }
        }
        self.durable.clone()
    }
}
