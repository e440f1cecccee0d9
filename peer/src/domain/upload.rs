//! Whom to serve next, and which of the pieces it wants.

use proto::domain::{FileId, PeerId, PieceIndex};

/// Names a request that came in; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// All that can happen to the uploads of a peer. One machine decides for all files, since they share the uplink.
#[derive(Clone, Debug)]
pub enum Event {
    /// An admitted request. `wanted` holds only pieces that this peer has verified.
    Asked {
        /// The request's name in later events.
        request: RequestId,
        /// Who asks.
        peer: PeerId,
        /// Whose peer it is: slots go round by user.
        user: String,
        /// For which file.
        file: FileId,
        /// The pieces it would take.
        wanted: Vec<PieceIndex>,
        /// At most so many; 0 for all.
        max_pieces: u32,
        /// In the order of `wanted`.
        in_order: bool,
    },
    /// The last byte of the piece that was being sent is with the transport.
    Sent(RequestId),
    /// The request's stream is gone, whoever ended it.
    Left(RequestId),
    /// Bytes were handed to the transport, by any request: what the uplink carries is measured by it.
    Progress(RequestId, u32),
    /// Time has passed.
    Tick,
}

/// All that the uploads can want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the request its place; 1 is next in turn.
    Queue(RequestId, u32),
    /// Send the piece now, then report [`Event::Sent`].
    Send(RequestId, PieceIndex),
    /// End the request's stream.
    End(RequestId, End),
}

/// Why a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its set or its number is used up, or others wait.
    Done,
    /// A newer request of the peer for the file took its place.
    Replaced,
    /// The queue is full.
    QueueFull,
}
