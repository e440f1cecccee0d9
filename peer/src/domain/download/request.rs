//! A request on its way.

use std::time::Duration;

use proto::domain::{PeerId, PieceIndex};

use super::plan::SOFT_SET;
use crate::domain::Moment;

/// The piece that a request's source is sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) piece: PieceIndex,
    pub(super) bytes: u32,
    pub(super) since: Moment,
}

/// A request that was asked and is not forgotten yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: PeerId,
    /// What was asked for and has not been started, in order of index.
    pub(super) set: Vec<PieceIndex>,
    /// So many pieces may yet be started.
    pub(super) left: u32,
    /// The pieces of the set are promised by it, as far as nobody else has started them.
    pub(super) firm: bool,
    pub(super) asked: Moment,
    /// When something last came.
    pub(super) heard: Option<Moment>,
    /// Its place in the source's queue, once it was told one.
    pub(super) place: Option<u32>,
    /// Its set is out of date.
    pub(super) stale: bool,
    pub(super) current: Option<Current>,
    /// Pieces that came whole and are being verified.
    pub(super) checking: Vec<PieceIndex>,
    /// Whole pieces that came.
    pub(super) whole: u32,
    /// Nothing has come for so long that others are asked for its pieces.
    pub(super) stalled: bool,
    /// Its stream is no more; only `checking` is waited for.
    pub(super) closed: bool,
}

impl Request {
    pub(super) fn new(source: PeerId, now: Moment, mut set: Vec<PieceIndex>, max: u32, firm: bool) -> Self {
        set.sort_unstable();
        Self {
            source,
            set,
            left: max,
            firm,
            asked: now,
            heard: None,
            place: None,
            stale: false,
            current: None,
            checking: Vec::new(),
            whole: 0,
            stalled: false,
            closed: false,
        }
    }

    /// The piece is coming by it, or came and is being verified.
    pub(super) fn is_on(&self, piece: PieceIndex) -> bool {
        self.current.is_some_and(|current| current.piece == piece) || self.checking.contains(&piece)
    }

    /// The piece is in its set, not started.
    pub(super) fn awaits(&self, piece: PieceIndex) -> bool {
        self.set.binary_search(&piece).is_ok()
    }

    /// There is a piece that it could ask for and does not.
    pub(super) fn could_have_more(&mut self) {
        self.stale |= !self.firm && self.set.len() < SOFT_SET;
    }

    /// How long nothing has come.
    pub(super) fn silence(&self, now: Moment) -> Duration {
        now.saturating_sub(self.heard.unwrap_or(self.asked))
    }
}
