//! What an unfinished download has: its claims in memory, and the `.state` file that keeps them.

use std::{fs::File, io};

use parking_lot::{Mutex, MutexGuard};
use proto::domain::{Bitfield, PieceIndex};

use super::{
    StoreError,
    claims::Claims,
    dir,
    state::{State, Subject},
};

/// The claims of an unfinished download, and the name of its state file.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) subject: Subject,
    state: String,
    claims: Mutex<Claims>,
    /// Held during a checkpoint: there is one at a time.
    checkpoint: Mutex<()>,
}

impl Ledger {
    /// Starts with the pieces that an earlier run claims. `lost` means that a sync failed in an earlier run.
    pub(super) fn new(subject: Subject, state: String, claimed: Bitfield, lost: bool) -> Self {
        let claims = Mutex::new(Claims::new(subject.layout, claimed, lost));
        Self { subject, state, claims, checkpoint: Mutex::new(()) }
    }

    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock()
    }

    pub(super) fn have(&self) -> Bitfield {
        self.claims.lock().have().clone()
    }

    pub(super) fn unverified(&self) -> Bitfield {
        self.claims.lock().unverified().clone()
    }

    /// Notes that the piece was verified in memory and written.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`] when a sync failed before.
    pub(super) fn wrote(&self, piece: PieceIndex) -> Result<(), StoreError> {
        let mut claims = self.claims.lock();
        if claims.broken {
            return Err(StoreError::Unsynced(io::ErrorKind::Other.into()));
        }
        claims.wrote(piece);
        Ok(())
    }

    /// Brings the data to the disk with `sync`, and then writes the state that claims it. After
    /// [`StoreError::Unsynced`] of `sync`, only what was safe before still counts.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`]; else the disk's error.
    pub(super) fn make_safe(
        &self,
        parts: &File,
        clean: bool,
        sync: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.checkpoint.lock();
        // The pieces are collected before the sync: it may not cover a piece that is written while it runs.
        let (saving, lost) = {
            let mut claims = self.claims.lock();
            if claims.broken {
                return Err(StoreError::Unsynced(io::ErrorKind::Other.into()));
            }
            (claims.begin_saving(), claims.lost)
        };
        if let Err(error) = sync() {
            if matches!(error, StoreError::Unsynced(_)) {
                // The kernel may have dropped the data, and may still report success the next time.
                let claims = self.claims.lock().lose();
                if let Err(error) = self.save(parts, &State { clean: false, lost: true, claims }) {
                    tracing::warn!(%error, "a failed sync can't be noted");
                }
            }
            return Err(error);
        }
        self.save(parts, &State { clean, lost, claims: saving })?;
        self.claims.lock().saved();
        Ok(())
    }

    fn save(&self, parts: &File, state: &State) -> Result<(), StoreError> {
        dir::replace(parts, &self.state, &state.encode(&self.subject))
    }
}
