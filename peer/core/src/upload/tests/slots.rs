//! Upload slots: how many there are, and who has them.

use std::collections::BTreeSet;

use super::{
    super::serving::{MAX_QUIET, QUIET},
    *,
};

#[test]
fn the_last_slot_is_given_when_a_piece_is_nearly_sent() {
    let mut bench = Bench::new(2);
    let (first, _) = bench.ask(1);
    let (second, actions) = bench.ask(2);
    assert_eq!(sends(&actions), []);
    assert_eq!(sends(&bench.feed(Event::Progress(first, PIECE_LENGTH / 2))), []);
    let actions = bench.feed(Event::Progress(first, PIECE_LENGTH / 2 - 1_000));
    assert_eq!(sends(&actions)[0].0, second);
    assert_eq!(bench.upload.running(), 2);
}

#[test]
fn a_thin_uplink_has_one_slot_and_a_fast_one_two() {
    let active = |bytes_a_ms: u32| {
        let mut bench =
            Bench { upload: Upload::new(Options::default(), 1), now: ms(10_000), asked: 0, urgent: false };
        let (first, _) = bench.ask(1);
        bench.ask(2);
        let mut actions = Vec::new();
        for _ in 0..100 {
            bench.now += ms(1);
            actions.extend(bench.feed(Event::Progress(first, bytes_a_ms)));
        }
        (sends(&actions).len(), bench.upload.running())
    };
    assert_eq!(active(2_500), (0, 1), "20 Mbit/s");
    assert_eq!(active(100_000), (1, 2), "800 Mbit/s");
}

#[test]
fn a_receiver_that_takes_nothing_does_not_hold_up_the_others() {
    let mut bench = Bench::new(2);
    let (stalled, _) = bench.ask(1);
    let (second, _) = bench.ask(2);
    bench.now = bench.upload.next_wakeup().expect("somebody waits");
    assert!(bench.now < ms(11_000));
    assert_eq!(sends(&bench.feed(Event::Tick))[0].0, second);
    loop {
        bench.now = bench.upload.next_wakeup().expect("it is watched");
        if bench.feed(Event::Tick).contains(&Action::End(stalled, End::Stalled)) {
            break;
        }
    }
    assert!((ms(40_000)..ms(42_000)).contains(&bench.now), "{:?}", bench.now);
}

#[test]
fn slots_of_receivers_that_fell_silent_go_to_others_and_only_so_many() {
    let mut bench = Bench::new(2);
    let begun = bench.now;
    let mut served = sends(&bench.ask(1).1);
    (2..40).for_each(|who| served.extend(sends(&bench.ask(who).1)));
    // No receiver ever takes anything.
    let mut when = vec![bench.now; served.len()];
    let (mut ticks, mut stalled) = (0, 0);
    while stalled == 0 {
        bench.now = bench.upload.next_wakeup().expect("somebody waits");
        let actions = bench.feed(Event::Tick);
        stalled += actions.iter().filter(|action| matches!(action, Action::End(..))).count();
        when.extend(sends(&actions).iter().map(|_| bench.now));
        ticks += 1;
    }
    let within = |time: u64| when.iter().filter(|at| **at < begun + ms(time)).count();
    assert_eq!(within(1_900), 2, "{when:?}");
    assert_eq!(within(2_500), 4, "{when:?}");
    // One more slot may be on trial.
    assert!((2 + MAX_QUIET..=3 + MAX_QUIET).contains(&within(29_900)), "{when:?}");
    assert!(ticks < 1_000, "woken {ticks} times in half a minute");
}

#[test]
fn a_receiver_that_is_made_to_wait_is_not_quiet() {
    let mut bench = Bench::new(1);
    let (limited, _) = bench.ask(1);
    bench.feed(Event::Progress(limited, 1_000));
    bench.feed(Event::Wants(limited));
    bench.ask(2);
    while bench.now < ms(100_000) {
        bench.now = bench.upload.next_wakeup().expect("somebody waits");
        assert_eq!(bench.feed(Event::Tick), [], "at {:?}", bench.now);
    }
    // Once the receiver was given more, it is its turn to take that.
    let (at, actions) = (bench.now, bench.feed(Event::Progress(limited, 1_000)));
    assert_eq!(actions, []);
    while sends(&bench.feed(Event::Tick)).is_empty() {
        bench.now = bench.upload.next_wakeup().expect("somebody waits");
    }
    assert!((at + QUIET..=at + 2 * QUIET).contains(&bench.now), "{:?} after {at:?}", bench.now);
}

#[test]
fn a_fast_uplink_carries_several_streams_of_one_peer_and_no_piece_twice() {
    let mut bench = Bench::new(2);
    let all: Vec<_> = (0..100).collect();
    let (first, mut actions) = bench.ask_for((1, 1, 0), &all, 0);
    for step in 0..40 {
        bench.now += ms(1);
        actions.extend(bench.feed(Event::Progress(first, PIECE_LENGTH)));
        actions.extend(bench.feed(Event::Sent(first)));
        assert!(step < 40);
    }
    for _ in 0..3 {
        actions.extend(bench.ask_for((1, 1, 0), &all, 0).1);
    }
    assert!(bench.upload.running() >= 3, "{}", bench.upload.running());
    assert_eq!(bench.upload.slots(), 2);
}

#[test]
fn a_slot_is_free_at_once_when_its_client_leaves() {
    let mut bench = Bench::new(1);
    let (first, _) = bench.ask(1);
    let (second, _) = bench.ask(2);
    assert_eq!(sends(&bench.feed(Event::Left(first)))[0].0, second);
    assert_eq!(bench.feed(Event::Left(first)), []);
}

#[test]
fn more_slots_only_while_more_goes_out() {
    // Each receiver takes 1 MB/s; the uplink carries `capacity` MB/s.
    let settle = |capacity: usize| {
        let mut bench = Bench::new(2);
        let mut running: BTreeSet<UploadRequestId> = BTreeSet::new();
        let mut handed = std::collections::BTreeMap::new();
        let mut who = 0u8;
        let mut counts = Vec::new();
        for _ in 0..4_000 {
            let mut actions = Vec::new();
            while bench.upload.waiting() < 40 {
                who = who.wrapping_add(1);
                actions.extend(bench.ask(who).1);
            }
            bench.now += ms(20);
            let share = (20_000 * capacity / running.len().max(1)).min(20_000) as u32;
            for request in running.clone() {
                actions.extend(bench.feed(Event::Progress(request, share)));
                let total = handed.entry(request).or_insert(0);
                *total += share;
                if *total >= PIECE_LENGTH {
                    running.remove(&request);
                    actions.extend(bench.feed(Event::Sent(request)));
                }
            }
            running.extend(sends(&actions).into_iter().map(|(request, _)| request));
            counts.push(bench.upload.slots());
        }
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    assert!(settle(1) <= 3, "{}", settle(1));
    let eight = settle(8);
    assert!((7..=12).contains(&eight), "{eight}");
}
