//! The download machine against scripted sources, and against random ones ([`properties`]).

mod limit;
mod pieces;
mod properties;
mod requests;
mod sources;
mod surplus;
mod urgent;

use std::collections::{BTreeMap, BTreeSet};

use domain::PIECE_LENGTH;

use super::*;

/// So many pieces that one or two sources are asked for sets of them. Of fewer, a source without a queue is asked
/// for one that it alone sends.
const MANY: u32 = 40;
/// The picture of a source that has all of [`MANY`] pieces.
const ALL: &str = "########################################";

fn layout(pieces: u32) -> PieceLayout {
    PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
}

fn peer(index: u8) -> PeerId {
    [index; 32].into()
}

fn ms(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

/// A request as the test sees it.
#[derive(Clone, Debug)]
struct Asked {
    source: PeerId,
    pieces: Vec<PieceIndex>,
    max_pieces: u32,
    urgent: bool,
}

/// A download under test, with the requests that it has made.
struct Bench {
    layout: PieceLayout,
    download: Download,
    now: Moment,
    open: BTreeMap<DownloadRequestId, Asked>,
    connecting: BTreeSet<PeerId>,
    cancelled: Vec<DownloadRequestId>,
    disconnected: Vec<PeerId>,
    completed: u32,
    /// Whether every invariant is checked after every event.
    checked: bool,
}

impl Bench {
    fn new(pieces: u32) -> Self {
        Self::with(pieces, &[], Options::default(), 1)
    }

    fn with(pieces: u32, have: &[u64], options: Options, seed: u64) -> Self {
        let layout = layout(pieces);
        let mut verified = Bitfield::empty(layout);
        for piece in have {
            verified.insert(layout.index(*piece).expect("in the file"));
        }
        Self::of(layout, Download::new(layout, verified, options, seed))
    }

    /// A bench with pieces that an earlier run wrote.
    fn unchecked(pieces: u32, claimed: &[u64]) -> Self {
        let layout = layout(pieces);
        let mut claims = Bitfield::empty(layout);
        for piece in claimed {
            claims.insert(layout.index(*piece).expect("in the file"));
        }
        let download = Download::new(layout, Bitfield::empty(layout), Options::default(), 1);
        Self::of(layout, download.with_unchecked(&claims))
    }

    fn of(layout: PieceLayout, download: Download) -> Self {
        let mut bench = Self {
            layout,
            download,
            now: Moment::ZERO,
            open: BTreeMap::new(),
            connecting: BTreeSet::new(),
            cancelled: Vec::new(),
            disconnected: Vec::new(),
            completed: 0,
            checked: true,
        };
        bench.feed(Event::Tick);
        bench
    }

    fn piece(&self, index: u64) -> PieceIndex {
        self.layout.index(index).expect("in the file")
    }

    fn feed(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.download.handle(self.now, event, &mut actions);
        if self.checked {
            self.download.check_invariant();
        }
        for action in actions {
            assert_eq!(self.completed, 0, "an action follows the last one: {action:?}");
            match action {
                Action::Connect(peer) => assert!(self.connecting.insert(peer), "connected twice"),
                Action::Request { source, request, pieces, max_pieces, urgent, .. } => {
                    assert!(!pieces.is_empty());
                    self.open.insert(request, Asked { source, pieces, max_pieces, urgent });
                }
                Action::Cancel(request) => {
                    self.open.remove(&request);
                    self.cancelled.push(request);
                }
                Action::Disconnect(peer) => {
                    self.connecting.remove(&peer);
                    self.open.retain(|_, asked| asked.source != peer);
                    self.disconnected.push(peer);
                }
                Action::Complete => self.completed += 1,
            }
        }
    }

    fn at(&mut self, now: Moment) -> &mut Self {
        self.now = now;
        self
    }

    /// Advances the time to the machine's next wake-up, and wakes it.
    fn wake(&mut self) {
        self.now = self.download.next_wakeup().expect("something to wait for").max(self.now);
        self.feed(Event::Tick);
    }

    /// Adds a source that has these pieces, as a picture of `#` and `.`.
    fn source(&mut self, who: u8, has: &str) {
        let mut set = Bitfield::empty(self.layout);
        for (piece, _) in self.layout.indices().zip(has.chars()).filter(|(_, c)| *c == '#') {
            set.insert(piece);
        }
        self.feed(Event::SourceFound(peer(who)));
        assert!(self.connecting.remove(&peer(who)), "not connected");
        self.feed(Event::Connected(peer(who), set));
    }

    /// The newest open request to a source.
    fn asked(&self, who: u8) -> Option<(DownloadRequestId, Asked)> {
        let mut open = self.open.iter().rev();
        open.find(|(_, asked)| asked.source == peer(who)).map(|(id, asked)| (*id, asked.clone()))
    }

    fn start(&mut self, who: u8, index: u64) -> DownloadRequestId {
        let (id, _) = self.asked(who).expect("asked");
        self.feed(Event::Started(id, self.piece(index)));
        id
    }

    /// Starts a piece that the source was asked for. Returns its index too.
    fn begin(&mut self, who: u8) -> (DownloadRequestId, u64) {
        let index = self.asked(who).expect("asked").1.pieces[0].get().into();
        (self.start(who, index), index)
    }

    /// Delivers the rest of a piece, correctly.
    fn deliver(&mut self, id: DownloadRequestId, index: u64) {
        self.feed(Event::Received(id, PIECE_LENGTH));
        self.feed(Event::Verified(id, self.piece(index)));
        if self.open.remove(&id).is_some() {
            self.feed(Event::Ended(id, Ok(())));
        }
    }

    fn state(&self, who: u8) -> SourcePhase {
        self.view(who).state
    }

    fn view(&self, who: u8) -> SourceSnapshot {
        self.download.sources(self.now).find(|view| view.peer == peer(who)).expect("known")
    }

    fn indices(pieces: &[PieceIndex]) -> Vec<u32> {
        let mut pieces: Vec<_> = pieces.iter().map(|piece| piece.get()).collect();
        pieces.sort_unstable();
        pieces
    }
}
