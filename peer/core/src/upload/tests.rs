//! Tests of the upload machine.

mod draining;
mod properties;
mod slots;

use domain::{FileId, PIECE_LENGTH, PieceIndex, PieceLayout};

use super::*;

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
    /// Whether the next requests are urgent.
    urgent: bool,
}

impl Bench {
    fn new(slots: usize) -> Self {
        let options = Options { thin_slots: slots, slots, ..Options::default() };
        Self { upload: Upload::new(options, 1), now: ms(10_000), asked: 0, urgent: false }
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.upload.handle(self.now, event, &mut actions);
        self.upload.check_invariant();
        actions
    }

    /// Peer `peer` of user `user` requests up to `max` of these pieces of file `file`. All three are numbers.
    fn ask_for(
        &mut self,
        (user, peer, file): (u8, u8, u8),
        wanted: &[u64],
        max: u32,
    ) -> (UploadRequestId, Vec<Action>) {
        let request = UploadRequestId(self.asked);
        self.asked += 1;
        let actions = self.feed(Event::Asked {
            request,
            peer: [peer; 32].into(),
            user: format!("user{user}").parse().expect("a username"),
            file: FileId::try_from(&[file + 1; 16][..]).expect("not nil"),
            wanted: pieces(wanted.iter().copied()),
            max_pieces: max,
            in_order: false,
            urgent: self.urgent,
        });
        (request, actions)
    }

    /// A user's only peer requests one of ten pieces.
    fn ask(&mut self, who: u8) -> (UploadRequestId, Vec<Action>) {
        self.ask_for((who, who, 0), &(0..10).collect::<Vec<_>>(), 1)
    }

    /// Hands over the whole piece, a quarter every 50 ms.
    fn send(&mut self, request: UploadRequestId) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..4 {
            self.now += ms(50);
            actions.extend(self.feed(Event::Progress(request, PIECE_LENGTH / 4)));
        }
        actions.extend(self.feed(Event::Sent(request)));
        actions
    }
}

fn sends(actions: &[Action]) -> Vec<(UploadRequestId, u32)> {
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
fn a_reader_takes_its_next_turn_early_and_none_more_than_the_others() {
    let mut bench = Bench::new(1);
    let (mut running, _) = bench.ask(0);
    for who in 1..8 {
        bench.ask(who);
    }
    bench.urgent = true;
    let (reader, actions) = bench.ask(9);
    assert_eq!(actions, [Action::Queue(reader, 1)]);
    let mut order = Vec::new();
    let mut asked = BTreeMap::from([(reader, 9)]);
    for _ in 0..32 {
        let actions = bench.send(running);
        running = sends(&actions)[0].0;
        let who = asked.get(&running).copied().unwrap_or(running.0 as u8);
        order.push(who);
        // All ask again at once. The reader always says that it waits.
        bench.urgent = who == 9;
        let (again, _) = bench.ask(who);
        asked.insert(again, who);
    }
    assert_eq!(order[0], 9);
    let turns = |who: u8| order.iter().filter(|other| **other == who).count();
    // Eight peers share 32 turns. The reader may be one turn ahead.
    for who in 1..8 {
        assert!((3..=4).contains(&turns(who)), "{who} had {} turns: {order:?}", turns(who));
    }
    assert!((4..=5).contains(&turns(9)), "{order:?}");
}

#[test]
fn in_order_is_in_order() {
    let mut bench = Bench::new(1);
    let mut sent = Vec::new();
    let request = UploadRequestId(0);
    let mut actions = bench.feed(Event::Asked {
        request,
        peer: [1; 32].into(),
        user: "user1".parse().expect("a username"),
        file: FileId::try_from(&[1; 16][..]).expect("not nil"),
        wanted: pieces([9, 2, 4]),
        max_pieces: 0,
        in_order: true,
        urgent: false,
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
fn turns_go_round_by_user() {
    // One user with eight peers competes with a user with one.
    let mut bench = Bench::new(1);
    let mut open: Vec<(UploadRequestId, u8)> = Vec::new();
    let mut sending = None;
    let mut served = [0; 2];
    let all: Vec<_> = (0..64).collect();
    let take = |actions: &[Action], sending: &mut Option<UploadRequestId>| {
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
        // The peer requests the next piece while this one is being sent.
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
fn places_are_not_told_in_a_storm() {
    let mut bench = Bench::new(1);
    let mut told = 0;
    let mut sending = bench.ask(100).0;
    for who in 0..40 {
        bench.ask(who);
    }
    for _ in 0..30 {
        // One piece each millisecond.
        bench.now += ms(1);
        bench.feed(Event::Progress(sending, PIECE_LENGTH));
        let actions = bench.feed(Event::Sent(sending));
        sending = sends(&actions)[0].0;
        told += actions.iter().filter(|action| matches!(action, Action::Queue(..))).count();
    }
    assert!(told < 30, "{told} places told for 30 pieces");
}
