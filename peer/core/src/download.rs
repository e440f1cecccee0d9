//! One download: which sources to connect, which pieces to request from which source, and when it is
//! complete.
//!
//! [`Download`] receives events and answers with actions. Its owner carries the actions out in order. The
//! owner never passes an event in while doing so, and wakes the machine with [`Event::Tick`] at
//! [`Download::next_wakeup`].

mod asking;
mod budget;
mod claims;
mod connections;
mod endgame;
mod events;
mod invariant;
mod plan;
mod protocol;
mod readers;
mod request;
mod requests;
#[cfg(test)]
mod tests;
mod urgent;

use std::time::Duration;

use domain::{Bitfield, PeerId, PieceIndex, PieceLayout};
use rand::SeedableRng;

pub use self::{
    budget::window,
    protocol::{Action, Event, Failure, Options, SourcePhase, SourceSnapshot},
    urgent::MAX_URGENT,
};
use self::{requests::Requests, urgent::Urgent};
pub use super::request_id::DownloadRequestId;
use super::{
    Moment, Rng,
    availability::Availability,
    meter::Meter,
    picker::{Picker, RandomThenRarest, Sequential},
    pieces::{PieceState, Pieces},
    sources::{LinkState, MAX_BAD_PIECES, Source, Sources},
};

/// The state machine of one download.
///
/// Every connected source that has a wanted piece always has a request of this peer. There are two kinds of
/// requests:
/// - A *speculative* request waits for an upload slot. It asks for one piece of a large set, from which the
///   source chooses, and reserves nothing. When pieces of the set have arrived from elsewhere, a newer
///   request replaces it.
/// - A *reserved* request goes to a source without a queue that is fast, or to any source without a queue while
///   few pieces are left. It asks for a few pieces that are requested from no other source. If it has to wait
///   for a slot after all, it becomes a speculative one.
///
/// A request claims a piece when the piece's first chunk arrives. Once every piece is claimed, the endgame
/// begins: a piece whose source is slow is also requested from one other source that should be much faster, and
/// the first copy that arrives is kept.
///
/// Pieces that a reader of the file waits for are *urgent*. They are requested first, for about half of what arrives.
///
/// ```
/// use std::time::Duration;
/// use domain::{Bitfield, PIECE_LENGTH, PieceLayout};
/// use peer_core::download::{Action, Download, Event, Options};
///
/// let layout = PieceLayout::new(4 * u64::from(PIECE_LENGTH)).unwrap();
/// let mut download = Download::new(layout, Bitfield::empty(layout), Options::default(), 1);
/// let mut actions = Vec::new();
/// let source = [7; 32].into();
/// download.handle(Duration::ZERO, Event::SourceFound(source), &mut actions);
/// assert_eq!(actions, [Action::Connect(source)]);
///
/// actions.clear();
/// download.handle(Duration::ZERO, Event::Connected(source, Bitfield::full(layout)), &mut actions);
/// assert!(actions.iter().any(|action| matches!(action, Action::Request { .. })));
/// ```
pub struct Download {
    layout: PieceLayout,
    options: Options,
    rng: Rng,
    picker: Box<dyn Picker>,
    pieces: Pieces,
    availability: Availability,
    sources: Sources,
    requests: Requests,
    urgent: Urgent,
    next_rank: u64,
    rate: Meter,
    /// The download limit of this peer in bytes a second; 0 without one.
    limit: u64,
    /// The sources that had events since they were last tended.
    touched: Vec<PeerId>,
    /// All sources must be tended.
    touched_all: bool,
    due: Option<Moment>,
    complete: bool,
}

impl Download {
    /// A download of a file with this layout. The pieces in `have` are already verified and written. All
    /// random choices follow from `seed`.
    pub fn new(layout: PieceLayout, have: Bitfield, options: Options, seed: u64) -> Self {
        let picker: Box<dyn Picker> =
            if options.sequential { Box::new(Sequential) } else { Box::new(RandomThenRarest::default()) };
        Self::with_picker(layout, have, options, picker, seed)
    }

    /// Like [`Download::new`], with another picker.
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
            requests: Requests::default(),
            urgent: Urgent::default(),
            next_rank: 0,
            rate: Meter::new(Duration::from_secs(3)),
            limit: 0,
            touched: Vec::new(),
            touched_all: true,
            due: None,
            complete: false,
        }
    }

    /// Leaves out all pieces but these. They are not requested, and the download is complete without them.
    #[must_use]
    pub fn with_wanted(mut self, wanted: &Bitfield) -> Self {
        for piece in self.layout.indices().filter(|piece| !wanted.contains(*piece)) {
            if self.pieces.exclude(piece) {
                self.availability.close(piece);
            }
        }
        self
    }

    /// Adds pieces that an earlier run wrote and that are being rechecked. Until [`Event::Checked`] has
    /// reported such a piece, it is not requested, and the download is not complete. Unwanted pieces are not added.
    #[must_use]
    pub fn with_unchecked(mut self, pieces: &Bitfield) -> Self {
        for piece in pieces.iter(self.layout) {
            if self.pieces.await_check(piece) {
                self.availability.close(piece);
            }
        }
        self
    }

    /// Handles an event, and appends the actions that it requires.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        if self.complete {
            return;
        }
        match event {
            Event::SourceFound(peer) => self.found(peer),
            Event::SourceBanned(peer) => self.banned(now, peer, actions),
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
            Event::Checked(piece, good) => self.checked(piece, good),
            Event::Held(request) => self.held(now, request),
            Event::Freed(request) => self.freed(now, request),
            Event::Urgent(pieces) => self.set_urgent(pieces),
            Event::Limit(limit) => self.limited(now, limit, actions),
            Event::Ended(request, result) => self.ended(now, request, result, actions),
            Event::Tick => {}
        }
        self.plan(now, actions);
    }

    /// When to pass in the next [`Event::Tick`], unless another event comes first.
    pub fn next_wakeup(&self) -> Option<Moment> {
        if self.complete { None } else { self.due }
    }

    /// The verified and written pieces.
    pub fn have(&self) -> &Bitfield {
        self.pieces.verified()
    }

    /// The bytes of the verified and written pieces.
    pub fn done_bytes(&self) -> u64 {
        self.pieces.done_bytes()
    }

    /// The bytes of an earlier run's pieces that have not been rechecked.
    pub fn unchecked_bytes(&self) -> u64 {
        self.pieces.unchecked_bytes()
    }

    /// The bytes of all pieces that are wanted, or were verified at the start.
    pub fn wanted_bytes(&self) -> u64 {
        self.layout.length() - self.pieces.unwanted_bytes()
    }

    /// Whether every wanted piece is verified and written.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether every piece is verified or claimed. From then on, a piece that is requested twice is requested
    /// twice on purpose, to race slow sources.
    pub fn is_endgame(&self) -> bool {
        self.availability.open() == 0
    }

    /// The number of connected sources that have the piece.
    pub fn holders(&self, piece: PieceIndex) -> u32 {
        self.availability.holders(piece)
    }

    /// The number of pieces that are missing, and how many of these no connected source has.
    pub fn missing(&self) -> (u32, u32) {
        (self.layout.count() - self.have().count(), self.availability.unheld())
    }

    /// The rate at which bytes arrive now from all sources, in bytes a second.
    pub fn rate(&self, now: Moment) -> f64 {
        self.rate.rate(now)
    }

    /// The time that the rest will take at the present rate; `None` when next to nothing arrives.
    pub fn eta(&self, now: Moment) -> Option<Duration> {
        let left = self.wanted_bytes() - self.done_bytes() - self.unchecked_bytes();
        let rate = self.rate(now);
        if left == 0 {
            return Some(Duration::ZERO);
        }
        (rate >= 1.0).then(|| Duration::from_secs_f64(left as f64 / rate))
    }

    /// All sources, in no particular order.
    pub fn sources(&self, now: Moment) -> impl Iterator<Item = SourceSnapshot> {
        self.sources.iter().map(move |(&peer, source)| SourceSnapshot {
            peer,
            state: self.source_state(source),
            verified_bytes: source.verified_bytes,
            rate: source.rate.rate(now),
            bad_pieces: source.bad_pieces,
            pieces: source.has.count(),
            wanted: source.interesting,
        })
    }

    fn source_state(&self, source: &Source) -> SourcePhase {
        match source.link {
            LinkState::Resting(_) => SourcePhase::Resting,
            LinkState::Connecting(_) => SourcePhase::Connecting,
            LinkState::Banned => SourcePhase::Banned,
            LinkState::Connected if !source.sending.is_empty() => SourcePhase::Sending,
            LinkState::Connected => match source.waiting.and_then(|waiting| self.requests.get(waiting)) {
                Some(waiting) => SourcePhase::Waiting(waiting.place),
                None => SourcePhase::Idle,
            },
        }
    }
}
