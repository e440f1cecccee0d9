//! One download: which sources to connect, which pieces to ask of whom, when it is done.
//!
//! [`Download`] is fed what happened and answers what to do about it. Its owner carries the actions out in order,
//! never feeds it while doing so, and wakes it with [`Event::Tick`] at [`Download::next_wakeup`].

use std::{collections::BTreeMap, time::Duration};

use proto::domain::{Bitfield, PeerId, PieceIndex, PieceLayout};

use super::Moment;

/// Names a request of this download; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a source or a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Could not be reached, or the connection broke.
    Connection,
    /// Refused us: the ticket, the certificate or the membership is not accepted. The owner gets a new ticket before it
    /// carries out the next [`Action::Connect`] or [`Action::Request`] to that source.
    Refused,
    /// It does not share the file, or holds none of the pieces asked for.
    NotShared,
    /// Its queue is full.
    Busy,
    /// It broke the protocol: a wrong index, a short or an endless piece. Counts as a bad piece.
    Protocol,
}

/// All that can happen to a download.
///
/// The life of a request: any number of `Queued`, then for each piece that comes one `Started`, its bytes as `Received`
/// and, once they are all there, exactly one `Verified` or `Bad`; at last one `Ended`. Pieces come one after the other,
/// never interleaved, within a request. Checking a piece may take longer than the stream lives: `Verified` and `Bad` may
/// follow the `Ended` of their request, and may follow the `Disconnected` of its source.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tracker names a source. The order in which sources are found is the order of the tracker's policy; naming one
    /// again changes nothing, or brings one back that was gone.
    SourceFound(PeerId),
    /// The tracker says that a source is gone. What runs with it goes on; it is not connected again.
    SourceGone(PeerId),
    /// Answers [`Action::Connect`]: connected, and the first message of its availability came.
    Connected(PeerId, Bitfield),
    /// The source has more pieces.
    Gained(PeerId, Vec<PieceIndex>),
    /// The source no longer offers pieces.
    Lost(PeerId, Vec<PieceIndex>),
    /// Answers [`Action::Connect`], or comes after `Connected`: the connection could not be made, or it or its availability
    /// stream ended. All its requests have ended too, and no `Ended` follows for them.
    Disconnected(PeerId, Failure),
    /// The request waits for an upload slot; 1 is next in turn.
    Queued(RequestId, u32),
    /// The first chunk of a piece came. Its bytes follow as `Received`.
    Started(RequestId, PieceIndex),
    /// So many bytes came of the piece that was started last, not verified yet. Best told as they come off the wire, not
    /// a whole chunk at a time: a slow source is told from a stalled one by it.
    Received(RequestId, u32),
    /// The piece was verified and written: it may be offered to others.
    Verified(RequestId, PieceIndex),
    /// The piece came whole and is not what the manifest says.
    Bad(RequestId, PieceIndex),
    /// The request's stream ended: `Ok` when the source ended it (having sent all of the set or not, also because a newer
    /// request took its place).
    Ended(RequestId, Result<(), Failure>),
    /// Time has passed. Also the first event there is, so that the machine can say at once what to do.
    Tick,
}

/// All that a download can want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the source and watch its availability. Answered by `Connected` or `Disconnected`.
    Connect(PeerId),
    /// Ask the source for pieces of this set.
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
        /// For information: the source will take this one in place of that waiting request, which keeps its stream until
        /// the source ends it (`Ended(_, Ok(()))`). Should its turn come before the newer request arrives, it is served.
        replaces: Option<RequestId>,
    },
    /// Drop the request's stream. Pieces of it that came whole are still answered by `Verified` or `Bad`; no other event of
    /// it follows.
    Cancel(RequestId),
    /// Close the connection and everything that runs over it. Pieces that came whole are still answered; no other event of
    /// it or of its requests follows.
    Disconnect(PeerId),
    /// Every piece is verified and written. The last action there is; connections may be closed.
    Complete,
}

/// What a download is told at its start, and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Fetch the pieces in the order of the file, as far as sources allow.
    pub sequential: bool,
    /// Most sources connected at a time.
    pub max_sources: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { sequential: false, max_sources: 50 }
    }
}

/// How it stands with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Known, not connected: others are preferred, or it rests after a failure.
    Resting,
    /// Being connected.
    Connecting,
    /// Connected, nothing asked of it: it has nothing that is wanted.
    Idle,
    /// Asked, not sending; the place in its queue where it told one.
    Waiting(Option<u32>),
    /// Sending.
    Sending,
    /// Not used any more: it sent bad pieces.
    Banned,
}

/// What there is to see of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceView {
    /// Who it is.
    pub peer: PeerId,
    /// How it stands with it.
    pub state: SourceState,
    /// Bytes of verified pieces that it gave.
    pub verified_bytes: u64,
    /// Bytes a second that come from it now.
    pub rate: f64,
    /// Pieces that came from it and were wrong.
    pub bad_pieces: u32,
    /// Pieces that it offers.
    pub pieces: u32,
}

struct Source {
    state: SourceState,
    has: Bitfield,
    request: Option<RequestId>,
    verified_bytes: u64,
    bad_pieces: u32,
}

struct Request {
    source: PeerId,
    pieces: Vec<PieceIndex>,
}

/// The state machine of one download.
pub struct Download {
    layout: PieceLayout,
    options: Options,
    have: Bitfield,
    taken: Bitfield,
    sources: BTreeMap<PeerId, Source>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    done_bytes: u64,
    complete: bool,
}

impl Download {
    /// A download of a file with this layout, `have` of which is verified and written already. All that is left to chance
    /// follows from `seed`.
    pub fn new(layout: PieceLayout, have: Bitfield, options: Options, _seed: u64) -> Self {
        let done_bytes = have.iter(layout).map(|piece| u64::from(layout.piece_length(piece))).sum();
        let taken = have.clone();
        Self {
            layout,
            options,
            have,
            taken,
            sources: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            done_bytes,
            complete: false,
        }
    }

    /// Takes in what happened, and appends what is to be done.
    pub fn handle(&mut self, _now: Moment, event: Event, actions: &mut Vec<Action>) {
        if self.complete {
            return;
        }
        match event {
            Event::SourceFound(peer) => {
                let has = Bitfield::empty(self.layout);
                self.sources.entry(peer).or_insert(Source {
                    state: SourceState::Resting,
                    has,
                    request: None,
                    verified_bytes: 0,
                    bad_pieces: 0,
                });
            }
            Event::SourceGone(_) | Event::Queued(..) | Event::Received(..) | Event::Tick => {}
            Event::Connected(peer, has) => {
                if let Some(source) = self.sources.get_mut(&peer) {
                    source.has = has;
                    source.state = SourceState::Idle;
                }
            }
            Event::Gained(peer, pieces) => {
                if let Some(source) = self.sources.get_mut(&peer) {
                    for piece in pieces {
                        source.has.insert(piece);
                    }
                }
            }
            Event::Lost(peer, pieces) => {
                if let Some(source) = self.sources.get_mut(&peer) {
                    for piece in pieces {
                        source.has.remove(piece);
                    }
                }
            }
            Event::Disconnected(peer, _) => self.end_all(peer, SourceState::Banned),
            Event::Started(request, _) => {
                let peer = self.requests.get(&request).map(|request| request.source);
                if let Some(source) = peer.and_then(|peer| self.sources.get_mut(&peer)) {
                    source.state = SourceState::Sending;
                }
            }
            Event::Verified(request, piece) => {
                self.have.insert(piece);
                self.taken.insert(piece);
                self.done_bytes += u64::from(self.layout.piece_length(piece));
                let peer = self.requests.get(&request).map(|request| request.source);
                if let Some(source) = peer.and_then(|peer| self.sources.get_mut(&peer)) {
                    source.verified_bytes += u64::from(self.layout.piece_length(piece));
                }
            }
            Event::Bad(request, _) => {
                let peer = self.requests.get(&request).map(|request| request.source);
                if let Some(source) = peer.and_then(|peer| self.sources.get_mut(&peer)) {
                    source.bad_pieces += 1;
                    if source.bad_pieces > 1 {
                        actions.extend(peer.map(Action::Disconnect));
                        peer.into_iter().for_each(|peer| self.end_all(peer, SourceState::Banned));
                    }
                }
            }
            Event::Ended(request, _) => self.end(request),
        }
        self.plan(actions);
    }

    /// When to hand in the next [`Event::Tick`] unless something else happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        None
    }

    fn end(&mut self, id: RequestId) {
        if let Some(request) = self.requests.remove(&id) {
            for piece in request.pieces {
                if !self.have.contains(piece) {
                    self.taken.remove(piece);
                }
            }
            if let Some(source) = self.sources.get_mut(&request.source) {
                source.request = None;
                source.state = SourceState::Idle;
            }
        }
    }

    fn end_all(&mut self, peer: PeerId, state: SourceState) {
        self.sources.get(&peer).and_then(|source| source.request).into_iter().for_each(|id| self.end(id));
        if let Some(source) = self.sources.get_mut(&peer) {
            source.state = state;
        }
    }

    fn plan(&mut self, actions: &mut Vec<Action>) {
        if self.have.is_full() {
            self.complete = true;
            actions.push(Action::Complete);
            return;
        }
        let idle = |source: &Source| !matches!(source.state, SourceState::Resting | SourceState::Banned);
        let mut connected = self.sources.values().filter(|source| idle(source)).count();
        for (&peer, source) in &mut self.sources {
            if source.state == SourceState::Resting && connected < self.options.max_sources {
                connected += 1;
                source.state = SourceState::Connecting;
                actions.push(Action::Connect(peer));
            }
            if source.state != SourceState::Idle {
                continue;
            }
            let wanted = |piece: &PieceIndex| source.has.contains(*piece) && !self.taken.contains(*piece);
            let pieces: Vec<_> = self.layout.indices().filter(wanted).take(8).collect();
            if pieces.is_empty() {
                continue;
            }
            for &piece in &pieces {
                self.taken.insert(piece);
            }
            let request = RequestId(self.next_request);
            self.next_request += 1;
            source.request = Some(request);
            source.state = SourceState::Waiting(None);
            self.requests.insert(request, Request { source: peer, pieces: pieces.clone() });
            actions.push(Action::Request {
                source: peer,
                request,
                pieces,
                max_pieces: 0,
                in_order: self.options.sequential,
                replaces: None,
            });
        }
    }

    /// The pieces that are verified and written.
    pub fn have(&self) -> &Bitfield {
        &self.have
    }

    /// Bytes of the pieces that are verified and written.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Every piece is verified and written.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes a second that come now, from all sources.
    pub fn rate(&self, _now: Moment) -> f64 {
        0.0
    }

    /// How long the rest will take at the present rate; `None` when nothing comes.
    pub fn eta(&self, _now: Moment) -> Option<Duration> {
        None
    }

    /// Every source there is, in no special order.
    pub fn sources(&self, _now: Moment) -> impl Iterator<Item = SourceView> {
        self.sources.iter().map(|(&peer, source)| SourceView {
            peer,
            state: source.state,
            verified_bytes: source.verified_bytes,
            rate: 0.0,
            bad_pieces: source.bad_pieces,
            pieces: source.has.count(),
        })
    }
}
