//! The events that the uploads receive, and the actions that they answer with.

use domain::{FileId, PeerId, PieceIndex, Username};

use super::UploadRequestId;
use crate::Moment;

/// All events of a peer's uploads. One machine decides for all files, because they share the uplink.
#[derive(Clone, Debug)]
pub enum Event {
    /// An admitted request. `wanted` holds only pieces that this peer has verified: at least one, each once.
    ///
    /// The same call answers it, by [`Action::Send`], [`Action::Queue`] or [`Action::End`]. The exception is
    /// a request that waits only for the same peer's earlier requests: it is answered later.
    Asked {
        /// The request's id in later events.
        request: UploadRequestId,
        /// The requesting peer.
        peer: PeerId,
        /// The peer's user. Users take turns for the slots.
        user: Username,
        /// The requested file.
        file: FileId,
        /// The pieces that the request accepts.
        wanted: Vec<PieceIndex>,
        /// The most pieces to send; 0 for all.
        max_pieces: u32,
        /// Whether to send them in the order of `wanted`.
        in_order: bool,
        /// Whether a reader waits for the first of them, so that the peer wants its next turn early.
        urgent: bool,
    },
    /// The transport has room for more of the request's piece. A wait from here to the next `Progress` is due
    /// to this peer's own limit or disk, and is not held against the receiver.
    Wants(UploadRequestId),
    /// The transport has the last byte of the piece that was being sent.
    Sent(UploadRequestId),
    /// The request's stream ended, and this machine did not end it: the client left, the file is no longer
    /// shared, or a membership ended. Harmless for a request that has ended.
    Left(UploadRequestId),
    /// Bytes of any request were handed to the transport. The uplink's rate is measured with this event. It
    /// is best reported for each chunk as it is taken, and before the piece's `Sent`.
    Progress(UploadRequestId, u32),
    /// This peer wants to stop serving the file, until this moment at the latest. It sends the pieces that it never
    /// sent. A piece that it sent is left to the receiver to pass on, and sent again only if it is still wanted
    /// after 30 seconds.
    Drain(FileId, Moment),
    /// Time has passed.
    Tick,
}

/// All actions that the uploads can require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the request its place; 1 is next in turn.
    Queue(UploadRequestId, u32),
    /// Send the piece now, then report [`Event::Sent`].
    Send(UploadRequestId, PieceIndex),
    /// End the request's stream. The machine has forgotten the request, and needs no more events of it.
    End(UploadRequestId, End),
}

/// The reason why a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All its pieces, or as many as it asked for, were sent, or others wait. The stream ends with OK.
    Done,
    /// A newer request of the peer for the file replaced it: ABORTED.
    Replaced,
    /// The queue is full: RESOURCE_EXHAUSTED.
    QueueFull,
    /// The receiver took nothing for 30 seconds: DEADLINE_EXCEEDED.
    Stalled,
}

/// The limits on what is served at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of upload slots at the start, which is the number of peers served at a time. One slot fills
    /// a thin uplink. A piece that has the uplink to itself arrives, and can be passed on, in half the time
    /// of two that share it.
    pub thin_slots: usize,
    /// The least number of slots while the uplink is measured to be fast: one stream might not fill it.
    pub slots: usize,
    /// The most slots, once the uplink is measured to have room for more.
    pub max_slots: usize,
    /// The most requests that wait.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { thin_slots: 1, slots: 2, max_slots: 32, queue: 64 }
    }
}
