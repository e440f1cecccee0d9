//! Pieces that a reader waits for.

use super::*;

impl Bench {
    fn reads(&mut self, urgent: &[u64]) {
        let pieces = urgent.iter().map(|index| self.piece(*index)).collect();
        self.feed(Event::Urgent(pieces));
    }

    /// The pieces of the newest request to a source, in the order of the request.
    fn set(&self, who: u8) -> Vec<u32> {
        self.asked(who).expect("asked").1.pieces.into_iter().map(PieceIndex::get).collect()
    }
}

#[test]
fn a_source_is_asked_for_the_first_urgent_piece_that_it_has() {
    let mut bench = Bench::new(40);
    bench.reads(&[20, 21, 22]);
    bench.source(1, ALL);
    assert_eq!(bench.set(1), [20]);
    // What one source is about to send is left to it.
    bench.source(2, ALL);
    assert_eq!(bench.set(2), [21]);
    bench.source(3, ".....................#..................");
    assert_eq!(bench.set(3), [21], "it has nothing else");
    bench.source(4, "#.......................................");
    assert_eq!(bench.set(4), [0]);
}

#[test]
fn a_reader_that_goes_elsewhere_moves_the_waiting_requests() {
    let mut bench = Bench::new(40);
    bench.source(1, ALL);
    bench.source(2, ALL);
    assert_eq!(bench.set(1).len(), 40);
    bench.reads(&[30, 31]);
    while bench.set(1).len() == 40 || bench.set(2).len() == 40 {
        bench.wake();
    }
    assert!(bench.now <= ms(20), "{:?}", bench.now);
    assert_eq!((bench.set(1), bench.set(2)), (vec![30], vec![31]));
    assert!(bench.asked(1).expect("asked").1.urgent, "the reader has nothing there yet");
    // The next piece of the same window changes nothing by itself.
    let before = bench.asked(2).map(|(id, _)| id);
    bench.reads(&[30, 31, 32]);
    assert_eq!(bench.asked(2).map(|(id, _)| id), before);
    // Nobody reads any more: what is asked for next is a set.
    bench.reads(&[]);
    let id = bench.start(1, 30);
    bench.deliver(id, 30);
    assert!(bench.set(1).len() > 30);
}

#[test]
fn only_the_first_piece_of_a_reader_is_asked_for_before_its_turn() {
    let mut bench = Bench::new(40);
    bench.reads(&[20, 21, 22]);
    bench.source(1, ALL);
    let (id, first) = bench.asked(1).expect("asked");
    assert_eq!((Bench::indices(&first.pieces), first.urgent), (vec![20], true));
    bench.feed(Event::Queued(id, 1));
    bench.start(1, 20);
    bench.deliver(id, 20);
    bench.reads(&[21, 22, 23]);
    let (_, second) = bench.asked(1).expect("asked");
    assert_eq!((Bench::indices(&second.pieces), second.urgent), (vec![21], false));
}

#[test]
fn half_of_what_arrives_is_for_the_swarm() {
    let mut bench = Bench::new(40);
    bench.source(1, ALL);
    let (mut urgent, mut others) = (0, 0);
    let mut next = 0;
    while others < 10 {
        let window: Vec<u64> =
            (next..40).filter(|index| !bench.download.have().contains(bench.piece(*index))).collect();
        bench.reads(&window[..window.len().min(4)]);
        bench.at(bench.now + ms(300)).feed(Event::Tick);
        let (id, asked) = bench.asked(1).expect("asked");
        bench.feed(Event::Queued(id, 1));
        let first = asked.pieces[0];
        if asked.pieces.len() == 1 {
            urgent += 1;
        } else {
            others += 1;
        }
        bench.feed(Event::Started(id, first));
        bench.deliver(id, first.get().into());
        next = window[0];
    }
    assert!((others..=others + 4).contains(&urgent), "{urgent} urgent, {others} others");
}

#[test]
fn a_fast_source_sends_urgent_pieces_first_and_others_with_them() {
    let mut bench = Bench::new(200);
    bench.source(1, &"#".repeat(200));
    for _ in 0..3 {
        let (id, asked) = bench.asked(1).expect("asked");
        let count = if asked.max_pieces == 0 { asked.pieces.len() } else { asked.max_pieces as usize };
        for piece in &asked.pieces[..count] {
            bench.at(bench.now + ms(1)).feed(Event::Started(id, *piece));
            bench.at(bench.now + ms(1)).feed(Event::Received(id, PIECE_LENGTH));
            bench.feed(Event::Verified(id, *piece));
        }
        bench.open.remove(&id);
        bench.feed(Event::Ended(id, Ok(())));
    }
    let (open, reserved) = bench.asked(1).expect("asked");
    assert_eq!(reserved.max_pieces, 0, "the source is fast");
    let window: Vec<u64> = (100..112).collect();
    bench.reads(&window);
    // The request that is open stays. The next one begins with what is urgent and not reserved yet.
    bench.feed(Event::Started(open, reserved.pieces[0]));
    let is_open = |index: &u64| {
        let piece = bench.piece(*index);
        !reserved.pieces.contains(&piece) && !bench.download.have().contains(piece)
    };
    let expected: Vec<u32> =
        window.iter().filter(|index| is_open(index)).take(4).map(|index| *index as u32).collect();
    let set = bench.set(1);
    assert!(!expected.is_empty() && set.starts_with(&expected), "{expected:?}: {set:?}");
    assert!(set.len() >= 2 * expected.len(), "{set:?}");
}

#[test]
fn a_slow_source_does_not_keep_a_reader_waiting() {
    let mut bench = Bench::new(40);
    bench.reads(&[20]);
    bench.source(1, ALL);
    let slow = bench.start(1, 20);
    bench.at(ms(1_000)).feed(Event::Received(slow, 1_000));
    bench.source(2, ALL);
    let id = bench.start(2, 7);
    bench.at(ms(1_100)).deliver(id, 7);
    // Its speed is known now.
    bench.start(2, 8);
    assert_eq!(bench.set(2), [20], "the copy will be there sooner");
    let fast = bench.start(2, 20);
    assert!(!bench.cancelled.contains(&fast));
    bench.at(ms(1_200)).deliver(fast, 20);
    assert!(bench.cancelled.contains(&slow));
}

#[test]
fn odd_wishes_are_harmless() {
    let mut bench = Bench::new(MANY);
    let beyond = layout(100).index(99).expect("in the file");
    bench.feed(Event::Urgent(vec![beyond; 100]));
    bench.source(1, ALL);
    assert_eq!(bench.set(1).len(), ALL.len());
    bench.feed(Event::Urgent(vec![bench.piece(1); 100]));
    bench.at(ms(50)).feed(Event::Tick);
    assert_eq!(bench.set(1), [1]);
}
