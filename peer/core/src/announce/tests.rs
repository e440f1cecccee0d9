use std::ops::Range;

use domain::{PIECE_LENGTH, PieceLayout};

use super::*;

const START: Moment = Duration::from_secs(100);
const HEARTBEAT: Duration = Duration::from_secs(10);

fn layout(pieces: u64) -> PieceLayout {
    PieceLayout::new(pieces * u64::from(PIECE_LENGTH)).expect("a valid length")
}

fn pieces(range: Range<u64>) -> Vec<PieceIndex> {
    let layout = layout(1 << 20);
    range.map(|index| layout.index(index).expect("in the file")).collect()
}

fn holding(byte: u8, what: Held) -> Holding {
    let file = FileId::try_from(&[byte; 16][..]).expect("a file id");
    Holding { group: "g1".parse().expect("a group"), file, what, wants_sources: true }
}

#[test]
fn reports_of_a_file_are_merged() {
    let mut announces = Announces::new(START, HEARTBEAT);
    announces.report(START, holding(1, Held::Gained(pieces(0..2))));
    announces.report(START, holding(1, Held::Gained(pieces(2..3))));
    assert_eq!(announces.due(), START + COALESCE);
    announces.report(START, holding(2, Held::Bitfield(Bitfield::empty(layout(16)))));
    assert_eq!(announces.due(), START, "a new file does not wait");
    announces.report(START, holding(2, Held::Gained(pieces(3..4))));
    announces.report(START, holding(3, Held::Complete));
    announces.report(START, holding(3, Held::Left));
    let held: Vec<_> = announces.take(START).into_iter().map(|holding| holding.what).collect();
    let mut third = Bitfield::empty(layout(16));
    third.insert(pieces(3..4)[0]);
    assert_eq!(held, [Held::Gained(pieces(0..3)), Held::Bitfield(third), Held::Left]);
    assert_eq!(announces.due(), START + HEARTBEAT, "nothing is left to say");
}

#[test]
fn the_first_piece_of_a_file_is_announced_at_once() {
    let mut announces = Announces::new(START, HEARTBEAT);
    announces.report(START, holding(1, Held::Bitfield(Bitfield::empty(layout(16)))));
    announces.take(START);
    announces.report(START, holding(1, Held::Gained(pieces(0..1))));
    assert_eq!(announces.due(), START);
    announces.take(START);
    announces.report(START, holding(1, Held::Gained(pieces(1..2))));
    assert_eq!(announces.due(), START + COALESCE);
}

#[test]
fn messages_stay_within_their_limits() {
    let mut announces = Announces::new(START, HEARTBEAT);
    announces.report(START, holding(1, Held::Gained(pieces(0..100_000))));
    announces.report(START, holding(2, Held::Bitfield(Bitfield::full(layout(2_000_000)))));
    announces.report(START, holding(3, Held::Bitfield(Bitfield::full(layout(2_000_000)))));
    let (mut gained, mut messages) = (0, 0);
    loop {
        let message = announces.take(START);
        if message.is_empty() {
            break;
        }
        assert!(message.iter().map(cost).sum::<usize>() <= MAX_BYTES);
        for holding in message {
            if let Held::Gained(pieces) = holding.what {
                assert!(pieces.len() <= MAX_PIECES_A_REQUEST);
                gained += pieces.len();
            }
        }
        messages += 1;
    }
    assert_eq!((gained, messages), (100_000, 3));
}

#[test]
fn the_pace_allows_a_burst_and_then_two_a_second() {
    let mut announces = Announces::new(START, HEARTBEAT);
    let mut now = START;
    let mut send = |now: &mut Moment| {
        announces.report(*now, holding(1, Held::Complete));
        *now = announces.due();
        announces.take(*now);
    };
    (0..=BURST).for_each(|_| send(&mut now));
    assert_eq!(now, START, "within the burst");
    (0..10).for_each(|_| send(&mut now));
    assert_eq!(now - START, PACE * 10);
}

#[test]
fn a_heartbeat_goes_when_there_is_nothing_to_say() {
    let mut announces = Announces::new(START, HEARTBEAT);
    assert_eq!(announces.due(), START + HEARTBEAT);
    assert_eq!(announces.take(START + HEARTBEAT), []);
    assert_eq!(announces.due(), START + HEARTBEAT * 2);
}
