//! The requests to each source, and the endgame.

use super::*;

#[test]
fn a_waiting_request_reserves_nothing() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    bench.source(2, ALL);
    let (first, second) = (bench.asked(1).expect("asked").1, bench.asked(2).expect("asked").1);
    assert_eq!((first.max_pieces, second.max_pieces), (1, 1));
    assert_eq!((first.pieces.len(), second.pieces.len()), (ALL.len(), ALL.len()));
}

#[test]
fn of_few_pieces_a_source_without_a_queue_is_asked_for_one_of_its_own() {
    let mut bench = Bench::new(6);
    bench.source(1, "######");
    bench.source(2, "######");
    let (first, (waiting, second)) = (bench.asked(1).expect("asked").1, bench.asked(2).expect("asked"));
    assert_eq!((first.pieces.len(), second.pieces.len()), (1, 1));
    assert_ne!(first.pieces, second.pieces);
    // A queue is no reason to keep the piece from others. The next request there asks for a set.
    bench.feed(Event::Queued(waiting, 1));
    bench.at(ms(10)).feed(Event::Tick);
    let (newer, set) = bench.asked(2).expect("asked");
    assert_ne!(newer, waiting);
    assert_eq!((set.pieces.len(), set.max_pieces), (5, 1), "all but the one of the first source");
    // The first request had its turn before it was replaced. Both sources go on.
    bench.feed(Event::Started(waiting, second.pieces[0]));
    bench.begin(1);
    assert!(bench.cancelled.is_empty());
}

#[test]
fn a_piece_that_another_source_starts_is_not_waited_for() {
    let mut bench = Bench::new(1);
    bench.source(1, "#");
    let (waiting, _) = bench.asked(1).expect("asked");
    bench.feed(Event::Queued(waiting, 1));
    bench.source(2, "#");
    let (reserved, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Started(waiting, bench.piece(0)));
    assert_eq!(bench.cancelled, [reserved]);
}

#[test]
fn a_waiting_set_is_asked_anew_when_a_piece_of_it_comes_from_elsewhere() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
    bench.source(2, ALL);
    let (waiting, _) = bench.asked(2).expect("asked");
    bench.feed(Event::Queued(waiting, 2));
    bench.start(1, 3);
    let due = bench.download.next_wakeup().expect("the refresh");
    assert!(due <= ms(20), "the place is near: asked anew soon, at {due:?}");
    bench.at(due).feed(Event::Tick);
    let (newer, asked) = bench.asked(2).expect("asked");
    assert_ne!(newer, waiting);
    assert!(Bench::indices(&asked.pieces).into_iter().eq((0..3).chain(4..MANY)), "{asked:?}");
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
    // The request is sent again, because piece 2 arrives from a third source. What is left is next in turn at
    // the first source.
    bench.source(3, "..#.........");
    bench.start(3, 2);
    bench.at(ms(20)).feed(Event::Tick);
    let (kept, asked) = bench.asked(2).expect("a turn that it waits for is kept");
    assert_ne!(kept, second);
    assert_eq!(Bench::indices(&asked.pieces), [0]);
    // The source, which others want, ended the request. It is not asked again unless the first source makes
    // this peer wait.
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
fn in_the_endgame_the_faster_source_wins_and_the_other_is_cancelled() {
    let mut bench = Bench::with(4, &[0], Options::default(), 1);
    bench.source(1, "####");
    bench.source(2, "####");
    // The first source crawls along with a piece ...
    let (slow, raced) = bench.begin(1);
    bench.at(ms(100)).feed(Event::Received(slow, 1_000));
    // ... while the second brings the others.
    for _ in 0..2 {
        let (id, index) = bench.begin(2);
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
    let id = bench.start(2, raced);
    assert!(bench.open.contains_key(&slow), "both run");
    bench.feed(Event::Received(id, PIECE_LENGTH));
    bench.feed(Event::Verified(id, bench.piece(raced)));
    assert!(bench.cancelled.contains(&slow));
    assert_eq!(bench.completed, 1);
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
fn sequential_asks_from_the_front() {
    let mut bench = Bench::with(100, &[0], Options { sequential: true, ..Options::default() }, 1);
    bench.source(1, &"#".repeat(100));
    let pieces = Bench::indices(&bench.asked(1).expect("asked").1.pieces);
    assert!(pieces.iter().copied().eq(1..=pieces.len() as u32), "{pieces:?}");
}
