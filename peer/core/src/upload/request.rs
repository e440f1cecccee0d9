//! A request, and the piece that is being sent for it.

use std::time::Duration;

use domain::{FileId, PeerId, PieceIndex, Username};

use crate::Moment;

/// The id of a received request. An id is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadRequestId(pub u64);

/// The state of a request.
pub(super) struct ReceivedRequest {
    pub(super) peer: PeerId,
    pub(super) user: Username,
    pub(super) file: FileId,
    pub(super) wanted: Vec<PieceIndex>,
    pub(super) left: u32,
    pub(super) in_order: bool,
    pub(super) urgent: bool,
    pub(super) arrived: u64,
    pub(super) told: Option<(u32, Moment)>,
    pub(super) sending: Option<PieceInProgress>,
}

/// The piece that is being sent.
pub(super) struct PieceInProgress {
    pub(super) piece: PieceIndex,
    pub(super) handed: u32,
    /// When the receiver last took data.
    pub(super) moved: Moment,
    /// The receiver has room, and waits for this peer.
    pub(super) wants: bool,
}

impl PieceInProgress {
    /// How long the receiver has taken nothing.
    pub(super) fn quiet_for(&self, now: Moment) -> Duration {
        if self.wants { Duration::ZERO } else { now.saturating_sub(self.moved) }
    }
}
