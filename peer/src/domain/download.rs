//! One download: which sources to connect, which pieces to ask of whom, when it is done.
//!
//! [`Download`] is fed what happened and answers what to do about it. Its owner carries the actions out in order,
//! never feeds it while doing so, and wakes it with [`Event::Tick`] at [`Download::next_wakeup`].

mod events;
mod plan;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use proto::domain::{Bitfield, PeerId, PieceIndex, PieceLayout};
use rand::SeedableRng;

use self::request::Request;
pub use super::request_id::RequestId;
use super::{
    Moment, Rng,
    availability::Availability,
    meter::Meter,
    picker::{Picker, RandomThenRarest, Sequential},
    pieces::{PieceState, Pieces},
    sources::{Link, STRIKES, Source, Sources},
};

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
    /// It broke the protocol: a wrong index, a wrong offset, a short or an endless piece. Counts as a bad piece.
    Protocol,
}

/// All that can happen to a download.
///
/// The life of a request: any number of `Queued`, then for each piece that comes one `Started`, its bytes as `Received`
/// and, once they are all there, exactly one `Verified` or `Bad`; at last one `Ended`. Pieces come one after the other
/// within a request: a piece is judged before the next one starts, and before the request ends. After an
/// [`Action::Cancel`] or [`Action::Disconnect`] a piece that was being judged may still be told, and counts.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tracker names a source. The order in which sources are found is the order of the tracker's policy; naming one
    /// again changes nothing, or brings one back that was gone.
    SourceFound(PeerId),
    /// The tracker names a source that is not to be used: it sent bad pieces to another download.
    SourceShunned(PeerId),
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
    /// About so many bytes came of the piece that was started last, not verified yet. Best told as they come off the
    /// wire, not a whole chunk at a time: speed is measured by it, and a slow source told from a stalled one.
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
    /// Drop the request's stream. No event of it follows, but for the `Verified` or `Bad` of a piece that had come whole.
    Cancel(RequestId),
    /// Close the connection and everything that runs over it. No event of it or of its requests follows, but for the
    /// `Verified` or `Bad` of pieces that had come whole.
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

/// The state machine of one download.
///
/// How it works. Every connected source that has something wanted is kept asked. A request that waits for a slot is
/// *soft*: it asks for one piece of a large set, of which the source chooses, and reserves nothing; it is asked anew in its
/// place when pieces of the set have come from elsewhere. A piece is claimed by a request when its first chunk comes. A
/// source that is fast and has no queue gets *firm* requests, for a few pieces that nobody else is asked for. When every
/// piece is claimed, pieces whose source is slow are asked of others too, and the first to come whole wins: the endgame.
pub struct Download {
    layout: PieceLayout,
    options: Options,
    rng: Rng,
    picker: Box<dyn Picker>,
    pieces: Pieces,
    availability: Availability,
    sources: Sources,
    requests: BTreeMap<RequestId, Request>,
    /// The requests that ended last, and whose they were.
    ended: VecDeque<(RequestId, PeerId)>,
    next_request: u64,
    next_rank: u64,
    rate: Meter,
    /// Sources that something happened to since they were last tended.
    touched: Vec<PeerId>,
    /// All of them.
    touched_all: bool,
    due: Option<Moment>,
    complete: bool,
}

impl Download {
    /// A download of a file with this layout, `have` of which is verified and written already. All that is left to chance
    /// follows from `seed`.
    pub fn new(layout: PieceLayout, have: Bitfield, options: Options, seed: u64) -> Self {
        let picker: Box<dyn Picker> =
            if options.sequential { Box::new(Sequential) } else { Box::new(RandomThenRarest::default()) };
        Self::with_picker(layout, have, options, picker, seed)
    }

    /// The same with a policy of one's own.
    pub fn with_picker(
        layout: PieceLayout,
        have: Bitfield,
        options: Options,
        picker: Box<dyn Picker>,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let mut availability = Availability::new(layout, &mut rng);
        have.iter(layout).for_each(|piece| availability.close(piece));
        Self {
            layout,
            options,
            rng,
            picker,
            pieces: Pieces::new(layout, have),
            availability,
            sources: Sources::new(),
            requests: BTreeMap::new(),
            ended: VecDeque::new(),
            next_request: 0,
            next_rank: 0,
            rate: Meter::new(Duration::from_secs(3)),
            touched: Vec::new(),
            touched_all: true,
            due: None,
            complete: false,
        }
    }

    /// Takes in what happened, and appends what is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        if self.complete {
            return;
        }
        match event {
            Event::SourceFound(peer) => self.found(peer),
            Event::SourceShunned(peer) => self.shunned(now, peer, actions),
            Event::SourceGone(peer) => self.gone(peer),
            Event::Connected(peer, has) => self.connected(peer, has),
            Event::Gained(peer, pieces) => self.gained(peer, &pieces),
            Event::Lost(peer, pieces) => self.lost(peer, &pieces),
            Event::Disconnected(peer, failure) => self.disconnected(now, peer, failure),
            Event::Queued(request, place) => self.queued(now, request, place),
            Event::Started(request, piece) => self.started(now, request, piece, actions),
            Event::Received(request, bytes) => self.received(now, request, bytes),
            Event::Verified(request, piece) => self.verified(now, request, piece, actions),
            Event::Bad(request, piece) => self.bad(now, request, piece, actions),
            Event::Ended(request, result) => self.ended(now, request, result, actions),
            Event::Tick => {}
        }
        self.plan(now, actions);
    }

    /// When to hand in the next [`Event::Tick`] unless something else happens before.
    pub fn next_wakeup(&self) -> Option<Moment> {
        if self.complete { None } else { self.due }
    }

    /// The pieces that are verified and written.
    pub fn have(&self) -> &Bitfield {
        self.pieces.verified()
    }

    /// Bytes of the pieces that are verified and written.
    pub fn done_bytes(&self) -> u64 {
        self.pieces.done_bytes()
    }

    /// Every piece is verified and written.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Every piece is verified or on its way: what comes twice now comes twice on purpose, for slow sources are raced.
    pub fn is_endgame(&self) -> bool {
        self.availability.open() == 0
    }

    /// Sources, of those connected, that hold the piece.
    pub fn holders(&self, piece: PieceIndex) -> u32 {
        self.availability.holders(piece)
    }

    /// Bytes a second that come now, from all sources.
    pub fn rate(&self, now: Moment) -> f64 {
        self.rate.rate(now)
    }

    /// How long the rest will take at the present rate; `None` when next to nothing comes.
    pub fn eta(&self, now: Moment) -> Option<Duration> {
        let left = self.layout.length() - self.done_bytes();
        let rate = self.rate(now);
        if left == 0 {
            return Some(Duration::ZERO);
        }
        (rate >= 1.0).then(|| Duration::from_secs_f64(left as f64 / rate))
    }

    /// Every source there is, in no special order.
    pub fn sources(&self, now: Moment) -> impl Iterator<Item = SourceView> {
        self.sources.iter().map(move |(&peer, source)| SourceView {
            peer,
            state: self.source_state(source),
            verified_bytes: source.verified_bytes,
            rate: source.rate.rate(now),
            bad_pieces: source.bad_pieces,
            pieces: source.has.count(),
        })
    }

    fn source_state(&self, source: &Source) -> SourceState {
        match source.link {
            Link::Resting(_) => SourceState::Resting,
            Link::Connecting(_) => SourceState::Connecting,
            Link::Banned => SourceState::Banned,
            Link::Connected if !source.sending.is_empty() => SourceState::Sending,
            Link::Connected => match source.waiting.and_then(|waiting| self.requests.get(&waiting)) {
                Some(waiting) => SourceState::Waiting(waiting.place),
                None => SourceState::Idle,
            },
        }
    }

    /// Panics where an invariant does not hold. For tests.
    pub fn check_invariant(&self) {
        self.availability.check_invariant();
        self.pieces.check_invariant();
        for piece in self.layout.indices() {
            let state = self.pieces.state(piece);
            assert_eq!(
                self.availability.is_open(piece),
                state == PieceState::Missing,
                "{piece:?} is {state:?}"
            );
            let holders = self.sources.values().filter(|source| source.has.contains(piece)).count() as u32;
            assert_eq!(self.availability.holders(piece), holders, "holders of {piece:?}");
        }
        for (piece, state) in self.pieces.claims() {
            match state {
                PieceState::InFlight(id) => {
                    let request = &self.requests[&id];
                    assert!(
                        request.is_on(piece),
                        "{piece:?} is in flight from {id:?}, which does not send it"
                    );
                    let stalled = request.stalled && !request.judged.contains(&piece);
                    assert!(!stalled, "{piece:?} is claimed by a stalled request");
                }
                PieceState::Promised(id) => {
                    let request = &self.requests[&id];
                    assert!(request.firm && request.set.contains(&piece));
                }
                PieceState::Missing | PieceState::Verified => unreachable!("not a claim"),
            }
        }
        for (id, request) in &self.requests {
            let source = &self.sources[&request.source];
            assert!(source.link == Link::Connected, "{id:?} outlived its connection");
            assert!(!(source.waiting == Some(*id) && source.sending.contains(id)));
        }
        for source in self.sources.values() {
            assert!(source.bad_pieces < STRIKES || source.link == Link::Banned);
            let interesting =
                source.has.iter(self.layout).filter(|piece| !self.have().contains(*piece)).count();
            assert_eq!(source.interesting as usize, interesting);
            for id in source.waiting.iter().chain(&source.sending) {
                assert!(self.requests.contains_key(id));
            }
        }
    }
}
