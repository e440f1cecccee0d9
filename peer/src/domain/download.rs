//! One download: which sources to connect, which pieces to ask of whom, when it is done.

use proto::domain::{Bitfield, PeerId, PieceIndex};

/// Names a request of this download; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a source or a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Could not be reached, or the connection broke.
    Connection,
    /// Refused us: the ticket, the certificate or the membership is not accepted. The driver gets a new ticket.
    Refused,
    /// It does not share the file, or holds none of the pieces asked for.
    NotShared,
    /// Its queue is full.
    Busy,
    /// It broke the protocol: a wrong index, a short or an endless piece.
    Protocol,
}

/// All that can happen to a download.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tracker names a source (again).
    SourceFound(PeerId),
    /// The tracker says that a source is gone. What runs with it goes on.
    SourceGone(PeerId),
    /// Connected, and the first message of its availability came.
    Connected(PeerId, Bitfield),
    /// The source has more pieces.
    Gained(PeerId, Vec<PieceIndex>),
    /// The source no longer offers pieces.
    Lost(PeerId, Vec<PieceIndex>),
    /// The connection or its availability stream ended. All its requests have ended too.
    Disconnected(PeerId, Failure),
    /// The request waits for an upload slot; 1 is next in turn.
    Queued(RequestId, u32),
    /// The first chunk of a piece came.
    Started(RequestId, PieceIndex),
    /// Bytes came, not verified yet.
    Received(RequestId, u32),
    /// The piece was verified and written.
    Verified(RequestId, PieceIndex),
    /// The piece came whole and is not what the manifest says.
    Bad(RequestId, PieceIndex),
    /// The request's stream ended: `Ok` when the source ended it, with or without having sent all of the set.
    Ended(RequestId, Result<(), Failure>),
    /// Time has passed.
    Tick,
}

/// All that a download can want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the source and watch its availability.
    Connect(PeerId),
    /// Ask the source for pieces of this set. With `replaces`, that waiting request is to be dropped once the new one
    /// is sent: it inherits its place in the queue.
    Request {
        /// Whom to ask.
        source: PeerId,
        /// The request's name in later events.
        request: RequestId,
        /// The pieces that would help, best first.
        pieces: Vec<PieceIndex>,
        /// At most so many of them; 0 for all.
        max_pieces: u32,
        /// Keep to the order of `pieces`.
        in_order: bool,
        /// The waiting request that this one takes the place of.
        replaces: Option<RequestId>,
    },
    /// Drop the request's stream; no event of it follows.
    Cancel(RequestId),
    /// Close the connection; no event of it follows.
    Disconnect(PeerId),
    /// Every piece is verified and written. The last action there is.
    Complete,
}
