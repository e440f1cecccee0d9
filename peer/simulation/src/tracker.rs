//! The tracker.

use domain::{FileId, GroupId, PieceLayout};
use tracker_core::swarm::Swarms;

/// The tracker: its state machine, and the only file that it knows.
pub(super) struct Tracker {
    pub(super) swarms: Swarms,
    pub(super) group: GroupId,
    pub(super) layout: PieceLayout,
}

/// The file that all leechers want.
pub(super) fn file() -> FileId {
    FileId::try_from(&[1; 16][..]).expect("not nil")
}

impl Tracker {
    pub(super) fn new(layout: PieceLayout) -> Self {
        Self { swarms: Swarms::default(), group: "crowd".parse().expect("a group"), layout }
    }
}
