//! The download machine against scripted sources.

mod chance;

use std::collections::{BTreeMap, BTreeSet};

use proto::domain::PIECE_LENGTH;

use super::*;

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
}

/// A download under test, with what it has asked for.
struct Bench {
    layout: PieceLayout,
    download: Download,
    now: Moment,
    open: BTreeMap<RequestId, Asked>,
    connecting: BTreeSet<PeerId>,
    cancelled: Vec<RequestId>,
    disconnected: Vec<PeerId>,
    completed: u32,
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
        let download = Download::new(layout, verified, options, seed);
        let mut bench = Self {
            layout,
            download,
            now: Moment::ZERO,
            open: BTreeMap::new(),
            connecting: BTreeSet::new(),
            cancelled: Vec::new(),
            disconnected: Vec::new(),
            completed: 0,
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
        self.download.check_invariant();
        for action in actions {
            assert_eq!(self.completed, 0, "an action follows the last one: {action:?}");
            match action {
                Action::Connect(peer) => assert!(self.connecting.insert(peer), "connected twice"),
                Action::Request { source, request, pieces, max_pieces, replaces, .. } => {
                    assert!(!pieces.is_empty());
                    let replaced = replaces.and_then(|replaced| self.open.get(&replaced));
                    assert!(replaced.is_none_or(|replaced| replaced.source == source));
                    self.open.insert(request, Asked { source, pieces, max_pieces });
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

    /// Lets time pass until the machine wants to be woken, and wakes it.
    fn wake(&mut self) {
        self.now = self.download.next_wakeup().expect("something to wait for").max(self.now);
        self.feed(Event::Tick);
    }

    /// A source that has these pieces, a picture of `#` and `.`.
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
    fn asked(&self, who: u8) -> Option<(RequestId, Asked)> {
        let mut open = self.open.iter().rev();
        open.find(|(_, asked)| asked.source == peer(who)).map(|(id, asked)| (*id, asked.clone()))
    }

    fn start(&mut self, who: u8, index: u64) -> RequestId {
        let (id, _) = self.asked(who).expect("asked");
        self.feed(Event::Started(id, self.piece(index)));
        id
    }

    /// The rest of a piece comes and is right.
    fn deliver(&mut self, id: RequestId, index: u64) {
        self.feed(Event::Received(id, PIECE_LENGTH));
        self.feed(Event::Verified(id, self.piece(index)));
        if self.open.remove(&id).is_some() {
            self.feed(Event::Ended(id, Ok(())));
        }
    }

    fn state(&self, who: u8) -> SourceState {
        self.view(who).state
    }

    fn view(&self, who: u8) -> SourceView {
        self.download.sources(self.now).find(|view| view.peer == peer(who)).expect("known")
    }

    fn indices(pieces: &[PieceIndex]) -> Vec<u32> {
        let mut pieces: Vec<_> = pieces.iter().map(|piece| piece.get()).collect();
        pieces.sort_unstable();
        pieces
    }
}

#[test]
fn an_empty_file_is_complete_at_once() {
    assert_eq!(Bench::new(0).completed, 1);
}

#[test]
fn what_was_verified_before_is_not_fetched_again() {
    let mut bench = Bench::with(4, &[0, 2], Options::default(), 1);
    assert_eq!(bench.download.done_bytes(), 2 * u64::from(PIECE_LENGTH));
    bench.source(1, "####");
    let (_, asked) = bench.asked(1).expect("asked");
    assert_eq!(Bench::indices(&asked.pieces), [1, 3]);
    assert_eq!(Bench::with(4, &[0, 1, 2, 3], Options::default(), 1).completed, 1);
}

#[test]
fn a_waiting_request_reserves_nothing() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    let (first, second) = (bench.asked(1).expect("asked").1, bench.asked(2).expect("asked").1);
    assert_eq!((first.max_pieces, second.max_pieces), (1, 1));
    assert_eq!(Bench::indices(&first.pieces), [0, 1, 2, 3, 4, 5]);
    assert_eq!(Bench::indices(&second.pieces), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_waiting_set_is_asked_anew_when_a_piece_of_it_comes_from_elsewhere() {
    let mut bench = Bench::new(18);
    bench.source(1, "##################");
    bench.source(2, "##################");
    let (waiting, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(waiting, 2));
    bench.start(1, 3);
    let due = bench.download.next_wakeup().expect("the refresh");
    assert!(due <= ms(20), "the place is near: asked anew soon, at {due:?}");
    bench.at(due).feed(Event::Tick);
    let (newer, asked) = bench.asked(2).expect("asked");
    assert_ne!(newer, waiting);
    assert_eq!(Bench::indices(&asked.pieces), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
}

#[test]
fn two_sources_that_may_begin_any_moment_are_not_asked_for_the_same_few_pieces() {
    let mut bench = Bench::new(12);
    bench.source(1, "##..........");
    bench.source(2, "#.#.........");
    let (first, _) = bench.asked(1).expect("asked");
    let (second, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(first, 1));
    bench.feed(Event::Queued(second, 1));
    // Asked anew, for piece 2 comes from a third: what is left is next in turn at the first.
    bench.source(3, "..#.........");
    bench.start(3, 2);
    bench.at(ms(20)).feed(Event::Tick);
    let (kept, asked) = bench.asked(2).expect("a turn that it waits for is kept");
    assert_ne!(kept, second);
    assert_eq!(Bench::indices(&asked.pieces), [0]);
    // Given up by the source, which others want, it is not asked again, unless the first lets it wait.
    bench.open.remove(&kept);
    bench.feed(Event::Ended(kept, Ok(())));
    bench.at(ms(900)).feed(Event::Tick);
    assert!(bench.asked(2).is_none_or(|(id, _)| id == second), "{:?}", bench.asked(2));
    while bench.now < ms(2_000) {
        bench.wake();
    }
    assert!(bench.asked(2).is_some_and(|(id, _)| id != second), "not asked again");
}

#[test]
fn of_few_pieces_each_is_left_to_the_source_where_the_turn_comes_first() {
    for (place, asked_here) in [(4, false), (5, false), (6, true)] {
        let mut bench = Bench::new(12);
        bench.source(1, "#...........");
        bench.source(2, "#.#.........");
        let (first, _) = bench.asked(1).expect("asked");
        let (second, _) = bench.asked(2).expect("asked");
        bench.feed(Event::Queued(first, place));
        bench.feed(Event::Queued(second, 5));
        bench.start(2, 2);
        assert_eq!(bench.asked(2).is_some_and(|(id, _)| id != second), asked_here, "place {place}");
    }
}

#[test]
fn far_back_in_the_queue_changes_gather() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    let (waiting, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(waiting, 40));
    bench.start(1, 3);
    bench.at(ms(100)).feed(Event::Tick);
    assert_eq!(bench.asked(2).expect("asked").0, waiting);
    bench.feed(Event::Queued(waiting, 1));
    assert_ne!(bench.asked(2).expect("asked").0, waiting);
}

#[test]
fn the_same_piece_from_two_sources_at_once_is_cut_short() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    bench.start(1, 3);
    let second = bench.start(2, 3);
    assert_eq!(bench.cancelled, [second]);
}

#[test]
fn a_piece_that_has_come_is_not_taken_twice() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    let first = bench.start(1, 3);
    bench.deliver(first, 3);
    let (stale, _) = bench.asked(2).expect("asked");
    // The source had begun before it heard.
    let piece = bench.piece(3);
    bench.feed(Event::Started(stale, piece));
    assert!(bench.cancelled.contains(&stale) || !bench.open.contains_key(&stale));
}

#[test]
fn two_bad_pieces_and_a_source_is_out() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    for index in [3, 4] {
        assert!(bench.disconnected.is_empty());
        let id = bench.start(1, index);
        bench.feed(Event::Received(id, PIECE_LENGTH));
        let piece = bench.piece(index);
        bench.feed(Event::Bad(id, piece));
        bench.open.remove(&id);
        bench.feed(Event::Ended(id, Ok(())));
    }
    assert_eq!(bench.disconnected, [peer(1)]);
    assert_eq!((bench.state(1), bench.view(1).bad_pieces), (SourceState::Banned, 2));
    bench.feed(Event::SourceGone(peer(1)));
    bench.feed(Event::SourceFound(peer(1)));
    bench.at(ms(100_000)).feed(Event::Tick);
    assert!(bench.connecting.is_empty() && bench.open.is_empty(), "a banned source is asked");
}

#[test]
fn a_bad_piece_is_asked_of_another() {
    let mut bench = Bench::new(2);
    bench.source(1, "##");
    let id = bench.start(1, 0);
    bench.feed(Event::Received(id, PIECE_LENGTH));
    let piece = bench.piece(0);
    bench.feed(Event::Bad(id, piece));
    bench.open.remove(&id);
    bench.feed(Event::Ended(id, Ok(())));
    assert_eq!(Bench::indices(&bench.asked(1).expect("asked").1.pieces), [1]);
    bench.source(2, "##");
    assert_eq!(Bench::indices(&bench.asked(2).expect("asked").1.pieces), [0, 1]);
}

#[test]
fn breaking_the_protocol_is_a_strike() {
    // A piece that was not asked for, two pieces at once, what the owner calls wrong.
    let wrong: [fn(&mut Bench, RequestId); 3] = [
        |bench, id| bench.feed(Event::Started(id, bench.piece(0))),
        |bench, id| bench.feed(Event::Ended(id, Err(Failure::Protocol))),
        |bench, id| {
            bench.feed(Event::Started(id, bench.piece(1)));
            bench.feed(Event::Started(id, bench.piece(2)));
        },
    ];
    for wrong in wrong {
        let mut bench = Bench::with(6, &[0], Options::default(), 1);
        bench.source(1, "######");
        let (id, _) = bench.asked(1).expect("asked");
        wrong(&mut bench, id);
        bench.open.remove(&id);
        assert_eq!(bench.view(1).bad_pieces, 1);
        let (second, _) = loop {
            bench.wake();
            if let Some(asked) = bench.asked(1) {
                break asked;
            }
        };
        wrong(&mut bench, second);
        assert_eq!(bench.state(1), SourceState::Banned);
    }
}

#[test]
fn a_piece_whose_source_falls_silent_is_asked_of_others_within_seconds() {
    let mut bench = Bench::new(8);
    bench.source(1, "########");
    bench.source(2, "########");
    let silent = bench.start(1, 5);
    bench.feed(Event::Received(silent, 100));
    let (waiting, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(waiting, 9));
    bench.at(ms(7_000)).feed(Event::Tick);
    let (id, asked) = bench.asked(2).expect("asked");
    assert!(Bench::indices(&asked.pieces).contains(&5), "{asked:?}");
    bench.feed(Event::Started(id, bench.piece(5)));
    assert!(bench.cancelled.contains(&silent));
}

#[test]
fn a_silent_source_that_wakes_up_keeps_its_piece() {
    let mut bench = Bench::new(8);
    bench.source(1, "########");
    let id = bench.start(1, 5);
    bench.at(ms(7_000)).feed(Event::Tick);
    bench.feed(Event::Received(id, 100));
    bench.feed(Event::Received(id, PIECE_LENGTH - 100));
    bench.feed(Event::Verified(id, bench.piece(5)));
    assert!(bench.download.have().contains(bench.piece(5)));
}

#[test]
fn a_source_that_drips_is_given_up_and_a_slow_one_is_not() {
    for (bytes_a_second, given_up) in [(1, true), (50, true), (1_000, false)] {
        let mut bench = Bench::new(8);
        bench.source(1, "########");
        let id = bench.start(1, 5);
        for second in 1..=65 {
            bench.at(ms(second * 1_000)).feed(Event::Received(id, bytes_a_second));
        }
        assert_eq!(bench.cancelled.contains(&id), given_up, "{bytes_a_second} bytes a second");
    }
}

#[test]
fn in_the_endgame_the_faster_source_wins_and_the_other_is_cancelled() {
    let mut bench = Bench::with(4, &[0], Options::default(), 1);
    bench.source(1, "####");
    bench.source(2, "####");
    // The first source crawls along with piece 1 ...
    let slow = bench.start(1, 1);
    bench.at(ms(100)).feed(Event::Received(slow, 1_000));
    // ... while the second brings the others.
    for index in [2, 3] {
        let id = bench.start(2, index);
        let next = bench.now + ms(10);
        bench.at(next).deliver(id, index);
    }
    for _ in 0..20 {
        if bench.asked(2).is_some() {
            break;
        }
        bench.wake();
    }
    assert!(bench.now < ms(500), "{:?}", bench.now);
    let id = bench.start(2, 1);
    assert!(bench.open.contains_key(&slow), "both run");
    bench.feed(Event::Received(id, PIECE_LENGTH));
    bench.feed(Event::Verified(id, bench.piece(1)));
    assert!(bench.cancelled.contains(&slow));
    assert_eq!(bench.completed, 1);
}

#[test]
fn failed_connections_are_tried_again_later_and_later() {
    let mut bench = Bench::new(4);
    bench.feed(Event::SourceFound(peer(1)));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert!(bench.connecting.remove(&peer(1)));
        let failed = bench.now;
        bench.feed(Event::Disconnected(peer(1), Failure::Connection));
        while bench.connecting.is_empty() {
            bench.wake();
        }
        pauses.push((bench.now - failed).as_secs_f64());
    }
    assert!(pauses[0] < 1.5 && pauses[7] > 20.0, "{pauses:?}");
    bench.connecting.clear();
    bench.feed(Event::Disconnected(peer(1), Failure::Connection));
    bench.feed(Event::SourceGone(peer(1)));
    bench.at(ms(1_000_000)).feed(Event::Tick);
    assert!(bench.connecting.is_empty(), "a source that is gone is tried again");
}

#[test]
fn a_connection_that_never_comes_is_given_up() {
    let mut bench = Bench::new(4);
    bench.feed(Event::SourceFound(peer(1)));
    bench.at(ms(15_000)).feed(Event::Tick);
    assert_eq!(bench.disconnected, [peer(1)]);
}

#[test]
fn a_broken_connection_frees_its_pieces() {
    let mut bench = Bench::new(4);
    bench.source(1, "####");
    bench.start(1, 2);
    bench.open.clear();
    bench.feed(Event::Disconnected(peer(1), Failure::Connection));
    bench.source(2, "####");
    assert_eq!(Bench::indices(&bench.asked(2).expect("asked").1.pieces), [0, 1, 2, 3]);
}

#[test]
fn a_piece_that_was_being_verified_when_its_request_was_dropped_counts() {
    let mut bench = Bench::new(4);
    bench.source(1, "####");
    bench.source(2, "####");
    let first = bench.start(1, 0);
    bench.feed(Event::Received(first, PIECE_LENGTH));
    let second = bench.start(2, 0);
    assert_eq!(bench.cancelled, [second]);
    bench.feed(Event::Bad(second, bench.piece(0)));
    assert_eq!(bench.view(2).bad_pieces, 1);
    bench.feed(Event::Verified(first, bench.piece(0)));
    assert_eq!((bench.view(1).verified_bytes, bench.view(1).bad_pieces), (u64::from(PIECE_LENGTH), 0));
}

#[test]
fn pieces_go_on_coming_while_others_of_the_request_are_verified() {
    let mut bench = Bench::new(40);
    bench.source(1, &"#".repeat(40));
    // Until it is known to be fast, it is asked for one at a time.
    let (id, asked) = loop {
        let (id, asked) = bench.asked(1).expect("asked");
        if asked.max_pieces == 0 && asked.pieces.len() > 3 {
            break (id, asked);
        }
        bench.now += ms(1);
        bench.feed(Event::Started(id, asked.pieces[0]));
        bench.now += ms(1);
        bench.deliver(id, asked.pieces[0].get().into());
    };
    let [one, two, three] = asked.pieces[..3] else { unreachable!("more than three") };
    for piece in [one, two, three] {
        bench.feed(Event::Started(id, piece));
        bench.feed(Event::Received(id, PIECE_LENGTH));
    }
    assert!(bench.cancelled.is_empty() && bench.view(1).bad_pieces == 0);
    // Nobody else is to send what only waits for its verdict.
    bench.source(2, &"#".repeat(40));
    let cut = bench.asked(2).map(|(id, _)| id).expect("asked");
    bench.feed(Event::Started(cut, two));
    assert_eq!(bench.cancelled, [cut]);
    bench.feed(Event::Bad(id, two));
    bench.feed(Event::Verified(id, one));
    bench.feed(Event::Verified(id, three));
    let have = |piece| bench.download.have().contains(piece);
    assert!(have(one) && !have(two) && have(three));
    assert_eq!(bench.view(1).bad_pieces, 1);
    let missing = bench.download.pieces.state(two);
    assert_eq!(missing, PieceState::Missing, "it is to be had again");
}

#[test]
fn a_fast_source_without_a_queue_is_asked_for_several_pieces_that_nobody_else_is() {
    let mut bench = Bench::new(100);
    bench.source(1, &"#".repeat(100));
    bench.source(2, &"#".repeat(100));
    let mut firm = BTreeMap::new();
    for round in 0..12 {
        for who in [1, 2] {
            let Some((id, asked)) = bench.asked(who) else { continue };
            let piece = asked.pieces[0];
            firm.insert(who, asked.clone());
            bench.now = ms(round * 2);
            bench.feed(Event::Started(id, piece));
            bench.now = ms(round * 2 + 1);
            bench.feed(Event::Received(id, PIECE_LENGTH));
            bench.feed(Event::Verified(id, piece));
        }
    }
    assert!(firm[&1].max_pieces == 0 && firm[&1].pieces.len() > 4, "{firm:?}");
    assert!(firm[&1].pieces.iter().all(|piece| !firm[&2].pieces.contains(piece)));
}

#[test]
fn a_source_with_a_full_queue_is_left_alone_for_a_while() {
    let mut bench = Bench::new(4);
    bench.source(1, "####");
    let (id, _) = bench.asked(1).expect("asked");
    bench.open.remove(&id);
    bench.feed(Event::Ended(id, Err(Failure::Busy)));
    assert!(bench.asked(1).is_none());
    bench.wake();
    assert!(bench.asked(1).is_some() && bench.now > ms(500));
}

#[test]
fn sequential_asks_from_the_front() {
    let mut bench = Bench::with(100, &[0], Options { sequential: true, ..Options::default() }, 1);
    bench.source(1, &"#".repeat(100));
    let pieces = Bench::indices(&bench.asked(1).expect("asked").1.pieces);
    assert!(pieces.iter().copied().eq(1..=pieces.len() as u32), "{pieces:?}");
}

#[test]
fn no_more_sources_are_connected_than_allowed() {
    let mut bench = Bench::with(4, &[], Options { max_sources: 3, ..Options::default() }, 1);
    for who in 1..10 {
        bench.feed(Event::SourceFound(peer(who)));
    }
    assert_eq!(bench.connecting.len(), 3);
    bench.connecting.remove(&peer(1));
    bench.feed(Event::Disconnected(peer(1), Failure::Connection));
    assert_eq!(bench.connecting.len(), 3, "another takes its place");
}

#[test]
fn a_source_of_no_use_makes_room_for_another() {
    let mut bench = Bench::with(4, &[], Options { max_sources: 2, ..Options::default() }, 1);
    bench.source(1, "....");
    bench.source(2, "####");
    bench.feed(Event::SourceFound(peer(3)));
    assert!(bench.connecting.is_empty());
    while bench.connecting.is_empty() {
        bench.wake();
    }
    assert_eq!((bench.disconnected.as_slice(), bench.now), (&[peer(1)][..], ms(10_000)));
}

#[test]
fn the_view_says_what_happens() {
    let mut bench = Bench::new(4);
    bench.source(1, "####");
    assert_eq!(bench.state(1), SourceState::Waiting(None));
    let (id, _) = bench.asked(1).expect("asked");
    bench.feed(Event::Queued(id, 7));
    assert_eq!(bench.state(1), SourceState::Waiting(Some(7)));
    bench.start(1, 0);
    for step in 1..=4 {
        bench.at(ms(step * 100)).feed(Event::Received(id, PIECE_LENGTH / 4));
    }
    assert_eq!(bench.state(1), SourceState::Sending);
    let rate = f64::from(PIECE_LENGTH) / 0.4;
    assert!((0.8..1.4).contains(&(bench.download.rate(bench.now) / rate)));
    bench.feed(Event::Verified(id, bench.piece(0)));
    let eta = bench.download.eta(bench.now).expect("bytes come").as_secs_f64();
    assert!((0.8..1.4).contains(&(1.2 / eta)), "{eta}");
    assert_eq!((bench.view(1).verified_bytes, bench.view(1).pieces), (u64::from(PIECE_LENGTH), 4));
}
