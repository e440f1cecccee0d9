//! The state of one request.

use std::time::Duration;

use domain::{PIECE_LENGTH, PeerId, PieceIndex};

use crate::Moment;

/// The most pieces in the set of a speculative request.
pub(super) const SPECULATIVE_SET: usize = 128;
/// How long a request may be silent before it is cancelled.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A request at a place up to this one may be served at any moment.
pub(super) const NEAR: u32 = 3;
/// A request that was silent for this long is not expected to bring anything soon.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The least bytes of a piece that must arrive in [`PATIENCE`]. This is less than the thinnest line brings,
/// and less than this peer's own limit allows for one of many sources.
const LEAST: u32 = 3 << 10;

/// The piece that a request's source is sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) piece: PieceIndex,
    pub(super) bytes: u32,
    pub(super) since: Moment,
}

/// A request that was made and has not ended.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) source: PeerId,
    /// The pieces that were requested and have not started, in order of index.
    pub(super) set: Vec<PieceIndex>,
    /// Those of the set that were requested because they are urgent.
    pub(super) urgent: Vec<PieceIndex>,
    /// How many more pieces may start.
    pub(super) left: u32,
    /// The pieces of the set are reserved for it, except those that another request has started.
    pub(super) reserved: bool,
    pub(super) asked: Moment,
    /// Since when its source could serve it: since it was made, or since the source has no earlier request of
    /// this peer to serve.
    pub(super) due: Moment,
    /// When its source last sent anything.
    pub(super) heard: Option<Moment>,
    /// Its place in the source's queue, once the source reported one.
    pub(super) place: Option<u32>,
    /// Its set is out of date: a piece of it was claimed elsewhere, or another piece could be added.
    pub(super) stale: bool,
    pub(super) current: Option<Current>,
    /// The pieces that arrived and are being verified.
    pub(super) verifying: Vec<PieceIndex>,
    /// The number of pieces that arrived and were verified or found bad.
    pub(super) arrived: u32,
    /// Its source was silent for so long that its pieces are requested from others.
    pub(super) stalled: bool,
    /// Since when arrived bytes wait on this peer's side. The source's time stands still meanwhile.
    pub(super) held: Option<Moment>,
    /// The bytes of the current piece that arrived since that moment.
    span: (Moment, u32),
}

impl OpenRequest {
    pub(super) fn new(
        source: PeerId,
        now: Moment,
        mut set: Vec<PieceIndex>,
        max: u32,
        reserved: bool,
    ) -> Self {
        set.sort_unstable();
        Self {
            source,
            set,
            urgent: Vec::new(),
            left: max,
            reserved,
            asked: now,
            due: now,
            heard: None,
            place: None,
            stale: false,
            current: None,
            verifying: Vec::new(),
            arrived: 0,
            stalled: false,
            held: None,
            span: (now, 0),
        }
    }

    /// Notes that the first chunk of a piece arrived.
    pub(super) fn begin(&mut self, piece: PieceIndex, now: Moment) {
        self.heard = Some(now);
        self.current = Some(Current { piece, bytes: 0, since: now });
        self.span = (now, 0);
    }

    /// Counts bytes of the current piece. `length` gives a piece's length. Returns the piece.
    pub(super) fn count(&mut self, bytes: u32, length: impl Fn(PieceIndex) -> u32) -> Option<PieceIndex> {
        self.span.1 = self.span.1.saturating_add(bytes);
        let current = self.current.as_mut()?;
        let piece = current.piece;
        current.bytes = current.bytes.saturating_add(bytes);
        if current.bytes >= length(piece) {
            self.current = None;
            self.verifying.push(piece);
        }
        Some(piece)
    }

    /// When [`OpenRequest::drips`] can next decide.
    pub(super) fn drip_check_at(&self) -> Moment {
        self.span.0 + PATIENCE
    }

    /// Whether the current piece drips, which means that less than [`LEAST`] arrived in [`PATIENCE`]. A byte
    /// now and then is not silence, but it is of no more use.
    pub(super) fn drips(&mut self, now: Moment) -> bool {
        if self.current.is_none() || self.held.is_some() || now < self.drip_check_at() {
            return false;
        }
        let (_, bytes) = std::mem::replace(&mut self.span, (now, 0));
        bytes < LEAST
    }

    /// Whether the piece is arriving by this request, or has arrived and is being verified.
    pub(super) fn is_on(&self, piece: PieceIndex) -> bool {
        self.is_receiving(piece) || self.verifying.contains(&piece)
    }

    /// Whether the piece is arriving by this request.
    pub(super) fn is_receiving(&self, piece: PieceIndex) -> bool {
        self.current.is_some_and(|current| current.piece == piece)
    }

    /// Drops the piece, which was arriving by this request or being verified.
    pub(super) fn leave(&mut self, piece: PieceIndex) {
        self.current = self.current.filter(|current| current.piece != piece);
        self.verifying.retain(|verifying| *verifying != piece);
    }

    /// Whether the piece is in the set and has not started.
    pub(super) fn awaits(&self, piece: PieceIndex) -> bool {
        self.set.binary_search(&piece).is_ok()
    }

    /// Whether nothing has started and it asks for no other piece.
    pub(super) fn asks_only_for(&self, piece: PieceIndex) -> bool {
        self.set == [piece] && self.current.is_none() && self.verifying.is_empty() && self.arrived == 0
    }

    /// Notes that there is a further piece that the request could ask for.
    pub(super) fn could_have_more(&mut self) {
        self.stale |= !self.reserved && self.urgent.is_empty() && self.set.len() < SPECULATIVE_SET;
    }

    /// How long the source has been silent.
    pub(super) fn silence(&self, now: Moment) -> Duration {
        self.elapsed(now, self.heard.unwrap_or(self.due))
    }

    /// How much of the source's time has passed since `since`, which must be after the request was last held.
    pub(super) fn elapsed(&self, now: Moment, since: Moment) -> Duration {
        self.held.unwrap_or(now).saturating_sub(since)
    }

    /// Resumes a held request: the bytes that waited were taken. Moves all its times on, so that the wait
    /// does not count for the source.
    pub(super) fn resume(&mut self, now: Moment) {
        let Some(held) = self.held.take() else { return };
        let waited = now.saturating_sub(held);
        self.asked += waited;
        self.due += waited;
        self.heard = self.heard.map(|heard| heard + waited);
        self.span.0 += waited;
        if let Some(current) = &mut self.current {
            current.since += waited;
        }
    }

    /// Whether everything that its source owes has arrived. The end is reported once the last piece is
    /// verified.
    pub(super) fn is_ours_to_end(&self) -> bool {
        !self.verifying.is_empty() && self.owes(|_| u32::MAX) == 0
    }

    /// The bytes that its source still has to send.
    pub(super) fn owes(&self, length: impl Fn(PieceIndex) -> u32) -> u64 {
        let current = self.current.map_or(0, |current| length(current.piece).saturating_sub(current.bytes));
        let pieces = u64::from(self.left).min(self.set.len() as u64);
        u64::from(current) + pieces * u64::from(PIECE_LENGTH)
    }
}
