//! The states of pieces: wanted, in flight, verified.

use super::*;

#[test]
fn an_empty_file_is_complete_at_once() {
    assert_eq!(Bench::new(0).completed, 1);
}

#[test]
fn what_was_verified_before_is_not_fetched_again() {
    let mut bench = Bench::with(MANY, &[0, 2], Options::default(), 1);
    assert_eq!(bench.download.done_bytes(), 2 * u64::from(PIECE_LENGTH));
    bench.source(1, ALL);
    let (_, asked) = bench.asked(1).expect("asked");
    assert!(Bench::indices(&asked.pieces).into_iter().eq([1].into_iter().chain(3..MANY)), "{asked:?}");
    assert_eq!(Bench::with(4, &[0, 1, 2, 3], Options::default(), 1).completed, 1);
}

#[test]
fn pieces_of_an_earlier_run_are_neither_asked_for_nor_had_until_they_were_read_again() {
    let mut bench = Bench::unchecked(4, &[0, 2]);
    bench.source(1, "####");
    assert_eq!(bench.download.unchecked_bytes(), 2 * u64::from(PIECE_LENGTH));
    assert!(bench.download.have().is_empty());
    let fetched = [(); 2].map(|()| {
        let (id, index) = bench.begin(1);
        bench.deliver(id, index);
        index
    });
    assert!([[1, 3], [3, 1]].contains(&fetched), "{fetched:?}");
    assert_eq!(bench.completed, 0, "two are still to be read again");
    assert!(bench.asked(1).is_none(), "nothing is left to be asked for");
    bench.feed(Event::Checked(bench.piece(0), true));
    assert!(bench.download.have().contains(bench.piece(0)));
    assert_eq!(bench.view(1).verified_bytes, 2 * u64::from(PIECE_LENGTH), "no source is credited with it");
    bench.feed(Event::Checked(bench.piece(2), false));
    let (_, asked) = bench.asked(1).expect("asked for the bad one");
    assert_eq!(Bench::indices(&asked.pieces), [2]);
    // A second report, or a report of a piece that was never unchecked, has no effect.
    bench.feed(Event::Checked(bench.piece(0), false));
    bench.feed(Event::Checked(bench.piece(2), true));
    assert_eq!((bench.completed, bench.download.have().count()), (0, 3));
    let id = bench.start(1, 2);
    bench.deliver(id, 2);
    assert_eq!(bench.completed, 1);
}

#[test]
fn a_whole_file_of_an_earlier_run_is_complete_once_all_of_it_was_read_again() {
    let mut bench = Bench::unchecked(2, &[0, 1]);
    bench.feed(Event::Checked(bench.piece(0), true));
    assert_eq!(bench.completed, 0);
    bench.feed(Event::Checked(bench.piece(1), true));
    assert_eq!(bench.completed, 1);
}

#[test]
fn a_piece_that_has_come_is_not_taken_twice() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    let first = bench.start(1, 3);
    bench.deliver(first, 3);
    let (stale, _) = bench.asked(2).expect("asked");
    // The source had started before it received the replacement.
    let piece = bench.piece(3);
    bench.feed(Event::Started(stale, piece));
    assert!(bench.cancelled.contains(&stale) || !bench.open.contains_key(&stale));
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
    // The other piece is left to the first source.
    assert_eq!(Bench::indices(&bench.asked(2).expect("asked").1.pieces), [0]);
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
fn a_broken_connection_frees_its_pieces() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    bench.start(1, 2);
    bench.open.clear();
    bench.feed(Event::Disconnected(peer(1), Failure::Connection));
    bench.source(2, ALL);
    assert!(Bench::indices(&bench.asked(2).expect("asked").1.pieces).into_iter().eq(0..MANY));
}

#[test]
fn a_piece_that_was_being_verified_when_its_request_was_dropped_counts() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    bench.source(2, ALL);
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
    // It is asked for one piece at a time until it is known to be fast.
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
    // No other source is asked for a piece that only waits for its verdict.
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
fn unwanted_pieces_are_never_requested_and_the_rest_is_complete_without_them() {
    let layout = layout(5);
    let set = |pieces: &[u64]| {
        let mut set = Bitfield::empty(layout);
        for piece in pieces {
            set.insert(layout.index(*piece).expect("in the file"));
        }
        set
    };
    let download = Download::new(layout, set(&[0]), Options::default(), 1);
    // Piece 0 is verified although it is not wanted. Piece 4 is claimed, but not wanted.
    let download = download.with_wanted(&set(&[1, 3])).with_unchecked(&set(&[3, 4]));
    let mut bench = Bench::of(layout, download);
    assert_eq!(bench.download.wanted_bytes(), 3 * u64::from(PIECE_LENGTH));
    bench.source(1, "#####");
    bench.source(2, "..#.#");
    assert_eq!((bench.view(1).wanted, bench.view(2).wanted), (2, 0));
    assert_eq!(Bench::indices(&bench.asked(1).expect("asked").1.pieces), [1]);
    assert!(bench.asked(2).is_none());
    bench.feed(Event::Checked(bench.piece(4), true));
    bench.feed(Event::Gained(peer(2), vec![bench.piece(3)]));
    bench.feed(Event::Lost(peer(1), vec![bench.piece(2)]));
    let id = bench.start(1, 1);
    bench.deliver(id, 1);
    assert_eq!(bench.completed, 0, "a wanted piece is still being checked");
    bench.feed(Event::Checked(bench.piece(3), true));
    assert_eq!(bench.completed, 1);
}
