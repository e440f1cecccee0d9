//! A request on its way.

use std::time::Duration;

use proto::domain::{PeerId, PieceIndex};

use crate::domain::Moment;

/// Most pieces in the set of a soft request.
pub(super) const SOFT_SET: usize = 128;
/// How long a request may be silent before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a piece that have to come in [`PATIENCE`]: less than the thinnest line brings, or our own limit lets through
/// to one of many sources.
const LEAST: u32 = 3 << 10;

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
    pub(super) judged: Vec<PieceIndex>,
    /// Pieces that came whole and were judged.
    pub(super) whole: u32,
    /// Nothing has come for so long that others are asked for its pieces.
    pub(super) stalled: bool,
    /// Bytes of the current piece that came since that moment.
    span: (Moment, u32),
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
            judged: Vec::new(),
            whole: 0,
            stalled: false,
            span: (now, 0),
        }
    }

    /// A piece starts to come.
    pub(super) fn begin(&mut self, piece: PieceIndex, now: Moment) {
        self.heard = Some(now);
        self.current = Some(Current { piece, bytes: 0, since: now });
        self.span = (now, 0);
    }

    /// So much of the current piece came, of which there are `length` bytes. Returns the piece.
    pub(super) fn count(&mut self, bytes: u32, length: impl Fn(PieceIndex) -> u32) -> Option<PieceIndex> {
        self.span.1 = self.span.1.saturating_add(bytes);
        let current = self.current.as_mut()?;
        let piece = current.piece;
        current.bytes = current.bytes.saturating_add(bytes);
        if current.bytes >= length(piece) {
            self.current = None;
            self.judged.push(piece);
        }
        Some(piece)
    }

    /// When it is next known whether the current piece comes in drips.
    pub(super) fn judged_at(&self) -> Moment {
        self.span.0 + PATIENCE
    }

    /// Whether the current piece comes in drips: a byte now and then is no silence, and of no more use.
    pub(super) fn drips(&mut self, now: Moment) -> bool {
        if self.current.is_none() || now < self.judged_at() {
            return false;
        }
        let (_, bytes) = std::mem::replace(&mut self.span, (now, 0));
        bytes < LEAST
    }

    /// The piece is coming by it, or came and is being verified.
    pub(super) fn is_on(&self, piece: PieceIndex) -> bool {
        self.current.is_some_and(|current| current.piece == piece) || self.judged.contains(&piece)
    }

    /// It has no more to do with the piece, which was coming by it.
    pub(super) fn leave(&mut self, piece: PieceIndex) {
        self.current = self.current.filter(|current| current.piece != piece);
        self.judged.retain(|judged| *judged != piece);
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
