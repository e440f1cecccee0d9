//! The events that a download receives, and the actions that it answers with.

use domain::{Bitfield, PeerId, PieceIndex};

use super::DownloadRequestId;

/// The reason why a source or a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached, or the connection broke.
    Connection,
    /// It refused this peer: the ticket, the certificate or the membership is not accepted. The owner gets a
    /// new ticket before it carries out the next [`Action::Connect`] or [`Action::Request`] to that source.
    Refused,
    /// It does not share the file, or has none of the requested pieces.
    NotShared,
    /// Its queue is full.
    Busy,
    /// It broke the protocol, with a wrong index, a wrong offset, or a piece that is too short or does not
    /// end. Counts as a bad piece.
    Protocol,
}

/// All events of a download.
///
/// A request has this life. First come any number of `Queued`. Then each piece has one `Started`, its bytes
/// as `Received` and, once they are all there, exactly one `Verified` or `Bad`. Last comes one `Ended`. The
/// pieces of a request arrive one after the other, but the `Verified` or `Bad` of a piece may come after the
/// next piece has started. After an [`Action::Cancel`] or [`Action::Disconnect`], the verdict on a piece that
/// was being verified may still come, and counts.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tracker names a source. Sources are found in the order of the tracker's policy. Naming a source
    /// again has no effect, except that it brings back a source that was gone.
    SourceFound(PeerId),
    /// The tracker names a source that is banned: it sent bad pieces to another download.
    SourceBanned(PeerId),
    /// The tracker reports that a source is gone. Its running requests continue, but it is not connected
    /// again.
    SourceGone(PeerId),
    /// Answers [`Action::Connect`]: the source is connected, and its first availability message has arrived.
    Connected(PeerId, Bitfield),
    /// The source has more pieces.
    Gained(PeerId, Vec<PieceIndex>),
    /// The source no longer offers pieces.
    Lost(PeerId, Vec<PieceIndex>),
    /// Answers [`Action::Connect`], or comes after `Connected`. The connection could not be made, or it or
    /// its availability stream ended. All its requests have ended too, and no `Ended` follows for them.
    Disconnected(PeerId, Failure),
    /// The request waits for an upload slot, at this place; 1 is next in turn.
    Queued(DownloadRequestId, u32),
    /// The first chunk of a piece has arrived. Its bytes follow as `Received`.
    Started(DownloadRequestId, PieceIndex),
    /// About this number of bytes of the last started piece arrived. They are not verified yet. Report them
    /// as they come off the wire, not a chunk at a time: they give a source's speed, and distinguish a slow
    /// source from a stalled one.
    Received(DownloadRequestId, u32),
    /// The piece was verified and written. It may be offered to others.
    Verified(DownloadRequestId, PieceIndex),
    /// The piece arrived in full and does not match the manifest.
    Bad(DownloadRequestId, PieceIndex),
    /// A piece of an earlier run ([`Download::with_unchecked`](super::Download::with_unchecked)) was
    /// rechecked; the value tells whether it matches the manifest. If it does, it may be offered to others.
    /// If not, it is requested from sources like any other piece.
    Checked(PieceIndex, bool),
    /// Bytes of the request arrived and wait on this peer's side, for the rate limit or for room to check
    /// them. Until `Freed` the wait does not count as the source's slowness.
    Held(DownloadRequestId),
    /// The wait that `Held` reported is over.
    Freed(DownloadRequestId),
    /// The pieces that readers of the file wait for from now on, the most urgent one first. Replaces those of the
    /// last such event. At most [`MAX_URGENT`](super::MAX_URGENT) count. Empty when nobody reads.
    Urgent(Vec<PieceIndex>),
    /// The rate limit of all downloads together, from now on, in bytes a second; 0 for no limit.
    Limit(u64),
    /// The request's stream ended. `Ok` means that the source ended it. It may have sent all of the set or
    /// not, for example because a newer request replaced this one.
    Ended(DownloadRequestId, Result<(), Failure>),
    /// Time has passed. This is also the first event, so that the machine can start.
    Tick,
}

/// All actions that a download can require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the source and watch its availability. Answered by `Connected` or `Disconnected`.
    Connect(PeerId),
    /// Request pieces of this set from the source. At the source the request replaces an earlier one of this
    /// peer that still waits there. The earlier one keeps its stream until the source ends it with `Ended(_,
    /// Ok(()))`. If its turn comes first, it is served.
    Request {
        /// The source.
        source: PeerId,
        /// The request's id in later events.
        request: DownloadRequestId,
        /// The useful pieces, best first.
        pieces: Vec<PieceIndex>,
        /// The most pieces to send; 0 for all.
        max_pieces: u32,
        /// Whether to send them in the order of `pieces`.
        in_order: bool,
        /// Whether a reader waits for the first of them.
        urgent: bool,
    },
    /// Drop the request's stream. No event of it follows, except the `Verified` or `Bad` of a piece that has
    /// already arrived in full.
    Cancel(DownloadRequestId),
    /// Close the connection and everything that runs over it. No event of it or of its requests follows,
    /// except the `Verified` or `Bad` of pieces that have already arrived in full.
    Disconnect(PeerId),
    /// Every wanted piece is verified and written. This is the last action. The connections may be closed.
    Complete,
}

/// The fixed settings of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to fetch the pieces in file order, as far as the sources allow.
    pub sequential: bool,
    /// The most sources that are connected at a time.
    pub max_sources: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { sequential: false, max_sources: 50 }
    }
}

/// The state of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePhase {
    /// Known but not connected: other sources are preferred, or it rests after a failure.
    Resting,
    /// Being connected.
    Connecting,
    /// Connected, and nothing is requested from it: it has nothing that is wanted.
    Idle,
    /// A request waits there and nothing is sent. The value is its place in the queue, if the source reported
    /// one.
    Waiting(Option<u32>),
    /// Sending.
    Sending,
    /// Banned: it sent bad pieces, and is not used any more.
    Banned,
}

/// A source, as users see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceSnapshot {
    /// The source.
    pub peer: PeerId,
    /// Its state.
    pub state: SourcePhase,
    /// The bytes of verified pieces that came from it.
    pub verified_bytes: u64,
    /// The rate at which bytes arrive from it now, in bytes a second.
    pub rate: f64,
    /// The number of bad pieces that came from it.
    pub bad_pieces: u32,
    /// The number of pieces that it offers.
    pub pieces: u32,
    /// The number of pieces that it offers and that are not verified here.
    pub wanted: u32,
}
