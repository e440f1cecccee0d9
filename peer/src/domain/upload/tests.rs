//! The upload machine, piece by piece.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proto::domain::PieceLayout;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::domain::Rng;

fn ms(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

fn pieces(indices: impl IntoIterator<Item = u64>) -> Vec<PieceIndex> {
    let layout = PieceLayout::new(1 << 30).expect("a valid length");
    indices.into_iter().map(|index| layout.index(index).expect("in the file")).collect()
}

struct Bench {
    upload: Upload,
    now: Moment,
    asked: u64,
}

impl Bench {
    fn new(slots: usize) -> Self {
        let options = Options { thin_slots: slots, slots, ..Options::default() };
        Self { upload: Upload::new(options, 1), now: ms(10_000), asked: 0 }
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.upload.handle(self.now, event, &mut actions);
        self.upload.check_invariant();
        actions
    }

    /// A request of peer number `peer` of user number `user`, for up to `max` of these pieces of file number `file`.
    fn ask_for(
        &mut self,
        (user, peer, file): (u8, u8, u8),
        wanted: &[u64],
        max: u32,
    ) -> (RequestId, Vec<Action>) {
        let request = RequestId(self.asked);
        self.asked += 1;
        let actions = self.feed(Event::Asked {
            request,
            peer: [peer; 32].into(),
            user: format!("user{user}").parse().expect("a username"),
            file: FileId::try_from(&[file + 1; 16][..]).expect("not nil"),
            wanted: pieces(wanted.iter().copied()),
            max_pieces: max,
            in_order: false,
        });
        (request, actions)
    }

    /// A peer that is its user's only one asks for one piece of ten.
    fn ask(&mut self, who: u8) -> (RequestId, Vec<Action>) {
        self.ask_for((who, who, 0), &(0..10).collect::<Vec<_>>(), 1)
    }

    /// Hands the whole piece over, in time.
    fn send(&mut self, request: RequestId) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..4 {
            self.now += ms(50);
            actions.extend(self.feed(Event::Progress(request, PIECE_LENGTH / 4)));
        }
        actions.extend(self.feed(Event::Sent(request)));
        actions
    }
}

fn sends(actions: &[Action]) -> Vec<(RequestId, u32)> {
    let sends = actions.iter().filter_map(|action| match action {
        Action::Send(request, piece) => Some((*request, piece.get())),
        _ => None,
    });
    sends.collect()
}

#[test]
fn few_are_served_and_the_rest_are_told_their_place() {
    let mut bench = Bench::new(1);
    let (first, actions) = bench.ask(1);
    assert_eq!(sends(&actions).len(), 1);
    let (second, actions) = bench.ask(2);
    assert_eq!(actions, [Action::Queue(second, 1)]);
    let (third, actions) = bench.ask(3);
    assert_eq!(actions, [Action::Queue(third, 2)]);
    let actions = bench.send(first);
    assert!(actions.contains(&Action::End(first, End::Done)));
    assert_eq!(sends(&actions)[0].0, second);
    assert!(actions.contains(&Action::Queue(third, 1)));
}

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
        let mut bench = Bench { upload: Upload::new(Options::default(), 1), now: ms(10_000), asked: 0 };
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
    // Nobody ever takes anything.
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
    // One slot more may be on trial.
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
    // From when it was given something more, it is its turn to take it.
    let (at, actions) = (bench.now, bench.feed(Event::Progress(limited, 1_000)));
    assert_eq!(actions, []);
    while sends(&bench.feed(Event::Tick)).is_empty() {
        bench.now = bench.upload.next_wakeup().expect("somebody waits");
    }
    assert!((at + QUIET..=at + 2 * QUIET).contains(&bench.now), "{:?} after {at:?}", bench.now);
}

#[test]
fn a_newer_request_takes_the_place_of_the_waiting_one() {
    let mut bench = Bench::new(1);
    bench.ask(1);
    let (second, _) = bench.ask(2);
    bench.ask(3);
    let (newer, actions) = bench.ask(2);
    assert_eq!(actions, [Action::End(second, End::Replaced), Action::Queue(newer, 1)]);
    assert_eq!(bench.upload.waiting(), 2);
}

#[test]
fn the_piece_sent_least_comes_first_then_the_one_named_first() {
    let mut bench = Bench::new(1);
    let mut sent = Vec::new();
    for who in 0..6 {
        let (request, actions) = bench.ask_for((who, who, 0), &[7, 3, 5], 1);
        sent.push(sends(&actions)[0].1);
        bench.send(request);
    }
    assert_eq!(sent, [7, 3, 5, 7, 3, 5]);
}

#[test]
fn in_order_is_in_order() {
    let mut bench = Bench::new(1);
    let mut sent = Vec::new();
    let request = RequestId(0);
    let mut actions = bench.feed(Event::Asked {
        request,
        peer: [1; 32].into(),
        user: "user1".parse().expect("a username"),
        file: FileId::try_from(&[1; 16][..]).expect("not nil"),
        wanted: pieces([9, 2, 4]),
        max_pieces: 0,
        in_order: true,
    });
    while let Some((request, piece)) = sends(&actions).first().copied() {
        sent.push(piece);
        actions = bench.send(request);
    }
    assert_eq!(sent, [9, 2, 4]);
    assert_eq!(actions, [Action::End(request, End::Done)]);
}

#[test]
fn a_set_is_sent_whole_unless_others_wait() {
    let mut bench = Bench::new(1);
    let (request, _) = bench.ask_for((1, 1, 0), &[0, 1, 2, 3], 0);
    assert_eq!(sends(&bench.send(request)).len(), 1);
    let (other, _) = bench.ask(2);
    let actions = bench.send(request);
    assert!(actions.contains(&Action::End(request, End::Done)));
    assert_eq!(sends(&actions)[0].0, other);
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
fn turns_go_round_by_user() {
    // One user with eight peers against one with a single peer.
    let mut bench = Bench::new(1);
    let mut open: Vec<(RequestId, u8)> = Vec::new();
    let mut sending = None;
    let mut served = [0; 2];
    let all: Vec<_> = (0..64).collect();
    let take = |actions: &[Action], sending: &mut Option<RequestId>| {
        if let Some((request, _)) = sends(actions).first() {
            *sending = Some(*request);
        }
    };
    for peer in 0..9 {
        let (request, actions) = bench.ask_for((u8::from(peer == 8), peer, 0), &all, 1);
        open.push((request, peer));
        take(&actions, &mut sending);
    }
    for _ in 0..100 {
        let request = sending.take().expect("the uplink is never idle while somebody waits");
        let (_, peer) = *open.iter().find(|(open, _)| *open == request).expect("ours");
        open.retain(|(open, _)| *open != request);
        served[usize::from(peer == 8)] += 1;
        // The peer asks for the next while this one is on its way.
        let (next, actions) = bench.ask_for((u8::from(peer == 8), peer, 0), &all, 1);
        take(&actions, &mut sending);
        open.push((next, peer));
        let actions = bench.send(request);
        take(&actions, &mut sending);
    }
    assert_eq!(served, [50, 50]);
}

#[test]
fn a_full_queue_refuses_but_no_user_fills_it_alone() {
    let mut bench = Bench::new(1);
    bench.ask(0);
    let mut refused = 0;
    for file in 0..70 {
        let (request, actions) = bench.ask_for((1, 1, file), &[0], 1);
        refused += u32::from(actions.contains(&Action::End(request, End::QueueFull)));
    }
    assert_eq!((bench.upload.waiting(), refused), (64, 6));
    let (other, actions) = bench.ask_for((2, 2, 0), &[0], 1);
    assert!(actions.iter().any(|action| matches!(action, Action::End(_, End::QueueFull))));
    let near = |action: &Action| matches!(action, Action::Queue(request, 1 | 2) if *request == other);
    assert!(actions.iter().any(near), "{actions:?}");
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
fn places_are_not_told_in_a_storm() {
    let mut bench = Bench::new(1);
    let mut told = 0;
    let mut sending = bench.ask(100).0;
    for who in 0..40 {
        bench.ask(who);
    }
    for _ in 0..30 {
        // A piece a millisecond.
        bench.now += ms(1);
        bench.feed(Event::Progress(sending, PIECE_LENGTH));
        let actions = bench.feed(Event::Sent(sending));
        sending = sends(&actions)[0].0;
        told += actions.iter().filter(|action| matches!(action, Action::Queue(..))).count();
    }
    assert!(told < 30, "{told} places told for 30 pieces");
}

#[test]
fn more_slots_only_while_more_goes_out() {
    // Each receiver takes 1 MB/s; the uplink carries `capacity` MB/s.
    let settle = |capacity: usize| {
        let mut bench = Bench::new(2);
        let mut running: BTreeSet<RequestId> = BTreeSet::new();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked, sent and left: the invariants hold and everybody is served or told.
    #[test]
    fn any_order_of_events(seed in any::<u64>(), slots in 1usize..4) {
        let mut rng = Rng::seed_from_u64(seed);
        let mut bench = Bench::new(slots);
        let mut running: BTreeSet<RequestId> = BTreeSet::new();
        let mut alive: BTreeSet<RequestId> = BTreeSet::new();
        for _ in 0..400 {
            bench.now += ms(rng.random_range(0..60));
            let actions = match rng.random_range(0..6) {
                0 | 1 => {
                    let who = (rng.random_range(0..4), rng.random_range(0..12), rng.random_range(0..3));
                    let wanted: Vec<_> = (0..rng.random_range(1..20)).collect();
                    let (request, actions) = bench.ask_for(who, &wanted, rng.random_range(0..4));
                    alive.insert(request);
                    actions
                }
                2 => match running.pop_first() {
                    Some(request) => bench.send(request),
                    None => continue,
                },
                3 => match running.last().copied() {
                    Some(request) => bench.feed(Event::Progress(request, rng.random_range(0..100_000))),
                    None => continue,
                },
                4 if rng.random_bool(0.3) => match alive.pop_first() {
                    Some(request) => {
                        running.remove(&request);
                        bench.feed(Event::Left(request))
                    }
                    None => continue,
                },
                _ => bench.feed(Event::Tick),
            };
            for action in actions {
                match action {
                    Action::Send(request, _) => prop_assert!(alive.contains(&request) && running.insert(request)),
                    Action::Queue(request, place) => prop_assert!(alive.contains(&request) && place >= 1),
                    Action::End(request, _) => {
                        running.remove(&request);
                        prop_assert!(alive.remove(&request));
                    }
                }
            }
            prop_assert_eq!(running.len(), bench.upload.running());
        }
    }
}
