//! How sources are connected, banned and shown.

use super::*;

#[test]
fn two_bad_pieces_and_a_source_is_out() {
    let mut bench = Bench::new(MANY);
    bench.source(1, ALL);
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
    assert_eq!((bench.state(1), bench.view(1).bad_pieces), (SourcePhase::Banned, 2));
    bench.feed(Event::SourceGone(peer(1)));
    bench.feed(Event::SourceFound(peer(1)));
    bench.at(ms(100_000)).feed(Event::Tick);
    assert!(bench.connecting.is_empty() && bench.open.is_empty(), "a banned source is asked");
}

#[test]
fn breaking_the_protocol_counts_as_a_bad_piece() {
    // A piece that was not requested, two pieces at once, and an answer that the owner calls a breach.
    let wrong: [fn(&mut Bench, DownloadRequestId); 3] = [
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
        assert_eq!(bench.state(1), SourcePhase::Banned);
    }
}

#[test]
fn a_source_that_drips_is_given_up_and_a_slow_one_is_not() {
    for (bytes_a_second, given_up) in [(1, true), (50, true), (1_000, false)] {
        let mut bench = Bench::new(MANY);
        bench.source(1, ALL);
        let id = bench.start(1, 5);
        for second in 1..=65 {
            bench.at(ms(second * 1_000)).feed(Event::Received(id, bytes_a_second));
        }
        assert_eq!(bench.cancelled.contains(&id), given_up, "{bytes_a_second} bytes a second");
    }
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
    assert_eq!(bench.state(1), SourcePhase::Waiting(None));
    let (id, _) = bench.asked(1).expect("asked");
    bench.feed(Event::Queued(id, 7));
    assert_eq!(bench.state(1), SourcePhase::Waiting(Some(7)));
    bench.start(1, 0);
    for step in 1..=4 {
        bench.at(ms(step * 100)).feed(Event::Received(id, PIECE_LENGTH / 4));
    }
    assert_eq!(bench.state(1), SourcePhase::Sending);
    let rate = f64::from(PIECE_LENGTH) / 0.4;
    assert!((0.8..1.4).contains(&(bench.download.rate(bench.now) / rate)));
    bench.feed(Event::Verified(id, bench.piece(0)));
    let eta = bench.download.eta(bench.now).expect("bytes come").as_secs_f64();
    assert!((0.8..1.4).contains(&(1.2 / eta)), "{eta}");
    assert_eq!((bench.view(1).verified_bytes, bench.view(1).pieces), (u64::from(PIECE_LENGTH), 4));
}
