//! A file that this peer wants to stop serving.

use super::*;
use crate::upload::draining::PASS_ON;

/// Drains the file that is number 0 in requests.
fn drain(bench: &mut Bench, time: Duration) {
    let file = FileId::try_from(&[1; 16][..]).expect("not nil");
    let until = bench.now + time;
    assert_eq!(bench.feed(Event::Drain(file, until)), []);
}

#[test]
fn each_piece_is_sent_once_and_again_only_if_it_is_still_wanted_much_later() {
    let mut bench = Bench::new(1);
    drain(&mut bench, 10 * PASS_ON);
    for (who, piece) in [(0, 3), (1, 5)] {
        let (request, actions) = bench.ask_for((who, who, 0), &[3, 5], 1);
        assert_eq!(sends(&actions), [(request, piece)]);
        bench.send(request);
    }
    let (late, actions) = bench.ask_for((2, 2, 0), &[3, 5], 2);
    assert_eq!(actions, [Action::Queue(late, 1)]);
    let (new, actions) = bench.ask_for((3, 3, 0), &[3, 4, 5], 3);
    assert_eq!(sends(&actions), [(new, 4)]);
    assert!(bench.send(new).contains(&Action::End(new, End::Done)), "it waits for no piece in a slot");
    let (other, actions) = bench.ask_for((4, 4, 1), &[3], 1);
    assert_eq!(sends(&actions), [(other, 3)], "other files are served");
    bench.send(other);
    bench.now += PASS_ON;
    let actions = bench.feed(Event::Tick);
    assert_eq!(sends(&actions), [(late, 3)]);
    assert_eq!(sends(&bench.send(late)), [(late, 5)]);
}

#[test]
fn the_pieces_sent_before_are_left_to_others_too() {
    let mut bench = Bench::new(1);
    let (first, _) = bench.ask_for((0, 0, 0), &[3], 1);
    bench.send(first);
    drain(&mut bench, 10 * PASS_ON);
    let (second, actions) = bench.ask_for((1, 1, 0), &[3, 5], 1);
    assert_eq!(sends(&actions), [(second, 5)]);
    let (third, actions) = bench.ask_for((2, 2, 0), &[3], 1);
    assert_eq!(actions, [Action::Queue(third, 1)]);
    bench.send(second);
    bench.now += PASS_ON;
    assert_eq!(sends(&bench.feed(Event::Tick)), [(third, 3)]);
}

#[test]
fn a_piece_whose_receiver_left_in_its_middle_is_sent_to_the_next() {
    for drained_first in [false, true] {
        let mut bench = Bench::new(1);
        if drained_first {
            drain(&mut bench, 10 * PASS_ON);
        }
        let (first, actions) = bench.ask_for((0, 0, 0), &[3], 1);
        assert_eq!(sends(&actions), [(first, 3)]);
        bench.feed(Event::Left(first));
        drain(&mut bench, 10 * PASS_ON);
        let (second, actions) = bench.ask_for((0, 0, 0), &[3], 1);
        assert_eq!(sends(&actions), [(second, 3)]);
    }
}

#[test]
fn once_the_time_is_over_everything_is_sent_as_before() {
    let mut bench = Bench::new(1);
    let (first, _) = bench.ask_for((0, 0, 0), &[3], 1);
    bench.send(first);
    drain(&mut bench, ms(10_000));
    let (second, actions) = bench.ask_for((1, 1, 0), &[3], 1);
    assert_eq!(actions, [Action::Queue(second, 1)]);
    bench.now += ms(9_000);
    drain(&mut bench, ms(10_000));
    bench.now += ms(9_000);
    assert_eq!(sends(&bench.feed(Event::Tick)), [], "it goes on");
    bench.now += ms(1_000);
    assert!(bench.upload.next_wakeup().is_some_and(|due| due <= bench.now));
    assert_eq!(sends(&bench.feed(Event::Tick)), [(second, 3)]);
}
