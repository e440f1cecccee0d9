//! Tests of the swarms.

mod properties;

use std::collections::HashSet;

use domain::{Bitfield, PIECE_LENGTH, limits::MAX_SOURCES};

use super::*;
use crate::selection::FewestPieces;

const FILE: [u8; 16] = [1; 16];

fn file(number: u8) -> FileId {
    FileId::try_from(&[number; 16][..]).expect("a file id")
}

fn layout(pieces: u32) -> PieceLayout {
    PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a valid length")
}

fn id(number: u8) -> PeerId {
    PeerId::from([number; 32])
}

/// Peer `number`, with a user of its own.
fn peer(number: u8) -> AnnouncingPeer {
    AnnouncingPeer {
        id: id(number),
        user: format!("user{number}").parse().expect("a username"),
        addresses: format!("192.0.2.{number}:7000").into(),
        load: 0,
    }
}

/// The pieces marked `#`.
fn holds(picture: &str) -> Holds {
    let layout = layout(picture.len() as u32);
    let mut bits = Bitfield::empty(layout);
    for (at, _) in picture.bytes().enumerate().filter(|(_, mark)| *mark == b'#') {
        bits.insert(layout.index(at as u64).expect("a piece"));
    }
    Holds::Exactly(bits)
}

/// An announce of a file of the group `films`.
fn announce(file: FileId, layout: PieceLayout, holds: Holds, wants_sources: bool) -> FileAnnounce {
    FileAnnounce { group: "films".parse().expect("a group"), file, layout, holds, wants_sources }
}

/// One swarm of one file of four pieces, at a time that only grows.
#[derive(Default)]
struct Scenario {
    swarms: Swarms,
    now: Duration,
}

impl Scenario {
    fn says(&mut self, who: &AnnouncingPeer, holds: Holds, wants: bool) -> Vec<Wake> {
        let file = FileId::try_from(&FILE[..]).expect("a file id");
        let wakes = self.swarms.announce(self.now, who, announce(file, layout(4), holds, wants));
        self.swarms.check_invariants();
        wakes.expect("not the first announce, or all that it holds")
    }

    fn pull(&mut self, number: u8) -> (Vec<u8>, Vec<u8>) {
        let update = self.swarms.pull(&id(number), file(1), &FewestPieces, 0);
        self.swarms.check_invariants();
        update.map_or((Vec::new(), Vec::new()), |update| {
            let numbers = |ids: Vec<PeerId>| ids.iter().map(|id| id.as_bytes()[0]).collect();
            (numbers(update.sources.iter().map(|source| source.id).collect()), numbers(update.gone))
        })
    }

    fn counts(&self) -> (u32, u32) {
        let count = self.swarms.count(file(1));
        (count.seeders, count.leechers)
    }
}

fn woken(wakes: &[Wake]) -> Vec<u8> {
    wakes.iter().map(|wake| wake.peer.as_bytes()[0]).collect()
}

impl Swarms {
    fn check_invariants(&self) {
        for known in self.peers.iter() {
            let key = self.peers.key(&known.id).expect("it is found by its id");
            assert_eq!(self.peers.get(key).id, known.id);
            assert!(!known.files.is_empty(), "a peer without files is forgotten");
            assert!(known.files.iter().all(|file| self.files[file].places.contains_key(&key)));
        }
        for (file, swarm) in &self.files {
            assert!(!swarm.members.is_empty() && swarm.places.len() == swarm.members.len());
            let seeders = swarm.members.iter().filter(|m| m.pieces(swarm.layout) == swarm.layout.count());
            assert_eq!(seeders.count() as u32, swarm.seeders);
            for (at, member) in swarm.members.iter().enumerate() {
                assert_eq!(swarm.places[&member.peer] as usize, at);
                let leeches = swarm.members.iter().filter_map(|other| other.leech.as_ref());
                let told_to = leeches.filter(|leech| leech.told.contains(&member.peer)).count();
                assert_eq!(member.told_to as usize, told_to);
                assert_eq!(at < swarm.sources, member.pieces(swarm.layout) > 0, "sources come first");
                assert!(self.peers.get(member.peer).files.contains(file));
                let Some(leech) = &member.leech else { continue };
                assert!(leech.told.len() <= MAX_SOURCES);
                assert!(leech.told.iter().all(|told| swarm.is_source(*told) && *told != member.peer));
                assert_eq!(leech.told.iter().collect::<HashSet<_>>().len(), leech.told.len());
            }
        }
    }
}

#[test]
fn a_leecher_is_told_of_sources_as_they_come_gain_and_go() {
    let mut scenario = Scenario::default();
    assert_eq!(scenario.says(&peer(1), Holds::All, false), []);
    let wakes = scenario.says(&peer(2), holds("...."), true);
    assert_eq!(woken(&wakes), [2]);
    assert_eq!(scenario.counts(), (1, 1));
    assert_eq!(scenario.pull(2), (vec![1], vec![]));
    assert_eq!(scenario.pull(2), (vec![], vec![]), "told once");

    // A second leecher is not a source before it has a piece.
    assert_eq!(woken(&scenario.says(&peer(3), holds("...."), true)), [3]);
    assert_eq!(scenario.pull(3), (vec![1], vec![]));
    assert_eq!(scenario.pull(2), (vec![], vec![]));
    let gained = vec![layout(4).index(2).expect("a piece")];
    assert_eq!(woken(&scenario.says(&peer(3), Holds::Also(gained), true)), [2]);
    assert_eq!(scenario.pull(2), (vec![3], vec![]));

    // Only peer 2 renews its lease. The leases of peers 1 and 3 end.
    scenario.now += LEASE;
    assert!(scenario.swarms.renew(scenario.now, &peer(2)).is_empty());
    assert!(scenario.swarms.expire(scenario.now).is_empty(), "a lease holds to its last moment");
    scenario.now += Duration::from_millis(1);
    assert_eq!(woken(&scenario.swarms.expire(scenario.now)), [3, 2], "3 was told of 1, and goes too");
    let (came, mut went) = scenario.pull(2);
    went.sort_unstable();
    assert_eq!((came, went), (vec![], vec![1, 3]));
    assert_eq!(scenario.counts(), (0, 1));

    assert_eq!(woken(&scenario.says(&peer(1), Holds::All, false)), [2]);
    assert_eq!(scenario.pull(2), (vec![1], vec![]));
    scenario.says(&peer(2), Holds::All, false);
    assert_eq!(scenario.counts(), (2, 0));
    assert_eq!(scenario.swarms.leave(&id(1), file(1)), [], "who has all wants nothing");
    scenario.swarms.forget(&id(2));
    assert!(scenario.swarms.files.is_empty() && scenario.swarms.peers.iter().next().is_none());
}

#[test]
fn what_comes_and_goes_before_a_slow_leecher_looks_is_told_as_it_ends() {
    let mut scenario = Scenario::default();
    scenario.says(&peer(1), holds("...."), true);
    for round in 0..100 {
        let wakes = scenario.says(&peer(2), Holds::All, false);
        assert_eq!(wakes.len(), usize::from(round == 0), "woken once until it looks");
        scenario.swarms.leave(&id(2), file(1));
    }
    assert_eq!(scenario.pull(1), (vec![], vec![]), "never told of it, so not told that it went");
    scenario.says(&peer(2), Holds::All, false);
    assert_eq!(scenario.pull(1), (vec![2], vec![]));
    for _ in 0..100 {
        scenario.swarms.leave(&id(2), file(1));
        scenario.says(&peer(2), Holds::All, false);
    }
    assert_eq!(scenario.pull(1), (vec![2], vec![]), "back again: told as new");
    scenario.swarms.leave(&id(2), file(1));
    assert_eq!(scenario.pull(1), (vec![], vec![2]));
}

#[test]
fn another_address_is_told_and_a_source_without_pieces_is_gone() {
    let mut scenario = Scenario::default();
    scenario.says(&peer(1), Holds::All, false);
    scenario.says(&peer(2), holds("#..."), true);
    assert_eq!(scenario.pull(2), (vec![1], vec![]));
    let moved = AnnouncingPeer { addresses: "198.51.100.1:9".into(), ..peer(1) };
    assert_eq!(woken(&scenario.swarms.renew(scenario.now, &moved)), [2]);
    let update = scenario.swarms.pull(&id(2), file(1), &FewestPieces, 0).expect("update");
    assert_eq!(update.sources[0].addresses, "198.51.100.1:9".into());
    assert_eq!(update.gone, []);
    assert_eq!(woken(&scenario.says(&moved, holds("...."), false)), [2]);
    assert_eq!(scenario.pull(2), (vec![], vec![1]));
}

#[test]
fn the_order_is_fewest_pieces_then_least_load_and_useless_ones_are_left_out() {
    let mut scenario = Scenario::default();
    scenario.says(&peer(1), Holds::All, false);
    scenario.says(&AnnouncingPeer { load: 3, ..peer(2) }, holds(".##."), false);
    scenario.says(&AnnouncingPeer { load: 1, ..peer(3) }, holds(".#.#"), false);
    scenario.says(&peer(4), holds("#..."), false);
    scenario.says(&peer(5), holds("#..."), true);
    assert_eq!(scenario.pull(5), (vec![3, 2, 1], vec![]), "peer 4 has nothing that peer 5 lacks");
    let found = scenario.swarms.find(file(1), &FewestPieces, 7);
    let pieces: Vec<_> = found.iter().map(|source| source.pieces).collect();
    assert_eq!(pieces, [1, 1, 2, 2, 4]);
    assert!(scenario.swarms.find(file(2), &FewestPieces, 7).is_empty());
}

#[test]
fn at_most_two_sources_of_a_user_and_fifty_in_all() {
    let mut scenario = Scenario::default();
    scenario.says(&peer(250), holds("...."), true);
    let same = |number| AnnouncingPeer { user: peer(1).user, ..peer(number) };
    for number in 1..=9 {
        scenario.says(&same(number), Holds::All, false);
    }
    assert_eq!(scenario.pull(250).0.len(), 2);
    assert_eq!(scenario.swarms.find(file(1), &FewestPieces, 3).len(), 2);
    for number in 10..=100 {
        scenario.says(&peer(number), Holds::All, false);
    }
    assert_eq!(scenario.pull(250).0.len(), MAX_SOURCES - 2);
    let newcomer = scenario.says(&peer(101), Holds::All, false);
    assert_eq!(newcomer, [], "who knows enough is not told of every newcomer");
    let told =
        scenario.swarms.files[&file(1)].members.iter().find_map(|m| m.leech.as_ref()).expect("a leecher");
    let known = scenario.swarms.peers.get(told.told[20]).id;
    assert_eq!(woken(&scenario.swarms.forget(&known)), [250]);
    let (came, went) = scenario.pull(250);
    assert_eq!((came.len(), went), (1, vec![known.as_bytes()[0]]));
}

#[test]
fn only_a_leecher_that_was_told_about_a_source_can_report_it() {
    let mut scenario = Scenario::default();
    scenario.says(&peer(1), Holds::All, false);
    scenario.says(&peer(2), holds("#..."), true);
    let elsewhere = "198.51.100.1".parse().expect("an address");
    let told = |scenario: &Scenario, source, address| {
        scenario.swarms.was_told(&id(2), elsewhere, file(1), &id(source), address)
    };
    assert!(!told(&scenario, 1, "192.0.2.1:7000"), "not told yet");
    assert_eq!(scenario.pull(2), (vec![1], vec![]));
    assert!(told(&scenario, 1, "192.0.2.1:7000"));
    assert!(!told(&scenario, 1, "192.0.2.1:7"), "another address");
    assert!(!scenario.swarms.was_told(&id(1), elsewhere, file(1), &id(2), "192.0.2.2:7000"), "no leecher");
}

#[test]
fn a_crowd_is_not_sent_to_the_first_sources_alone() {
    let mut swarms = Swarms::default();
    let crowd = |number: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let user = format!("user{number}").parse().expect("a username");
        AnnouncingPeer { id: id.into(), user, addresses: "192.0.2.1:7000".into(), load: 0 }
    };
    let says = |swarms: &mut Swarms, number, holds, wants| {
        let said =
            swarms.announce(Duration::ZERO, &crowd(number), announce(file(1), layout(4), holds, wants));
        let wakes = said.expect("all that it holds");
        // All leechers pull at once.
        let pull = |wake: &Wake| swarms.pull(&wake.peer, file(1), &FewestPieces, 7);
        wakes.iter().filter_map(pull).map(|update| update.sources.len()).sum::<usize>()
    };
    says(&mut swarms, 0, Holds::All, false);
    let told: usize = (1..=300).map(|number| says(&mut swarms, number, holds("...."), true)).sum();
    assert_eq!(told, 200, "who knows none is told of one, until it would turn away more");
    for number in 301..=303 {
        assert_eq!(says(&mut swarms, number, Holds::All, false), 50);
    }
    swarms.check_invariants();
    assert_eq!(says(&mut swarms, 304, Holds::All, false), 50);
    assert_eq!(swarms.find(file(1), &FewestPieces, 7).len(), 5, "for who only looks, all");
    swarms.check_invariants();
}

#[test]
fn the_first_announce_says_all() {
    let mut scenario = Scenario::default();
    let piece = Holds::Also(vec![layout(4).index(0).expect("a piece")]);
    let refused = scenario.swarms.announce(scenario.now, &peer(1), announce(file(1), layout(4), piece, true));
    assert_eq!(refused, Err(NoBaseline));
    assert!(scenario.swarms.files.is_empty() && scenario.swarms.peers.iter().next().is_none());
}

#[test]
fn an_empty_file_is_always_complete() {
    let mut swarms = Swarms::default();
    let nothing = Holds::Exactly(Bitfield::empty(layout(0)));
    let wakes = swarms.announce(Duration::ZERO, &peer(1), announce(file(1), layout(0), nothing, true));
    assert_eq!(wakes, Ok(vec![]));
    assert_eq!(swarms.count(file(1)), Count { seeders: 1, leechers: 0 });
    assert_eq!(swarms.pull(&id(1), file(1), &FewestPieces, 0), None);
}

#[test]
fn files_groups_and_members_end() {
    let mut swarms = Swarms::default();
    let mut seed = |number: u8, group: &str, which: u8| {
        let group = group.parse().expect("a group");
        let announce = FileAnnounce { group, ..announce(file(which), layout(4), Holds::All, false) };
        swarms.announce(Duration::ZERO, &peer(number), announce).expect("all that it holds");
    };
    for number in 1..=3 {
        seed(number, "films", 1);
        seed(number, "films", 2);
        seed(number, "music", 3);
    }
    let sorted = |mut ended: Vec<(PeerId, FileId)>| {
        ended.sort_unstable();
        ended
    };
    let (films, user) = ("films".parse().expect("a group"), peer(2).user);
    let (ended, _) = swarms.end_group(&films, Some(&user));
    assert_eq!(sorted(ended), [(id(2), file(1)), (id(2), file(2))]);
    swarms.check_invariants();
    assert_eq!(swarms.end_file(file(1)).len(), 2);
    assert_eq!(swarms.end_file(file(1)).len(), 0);
    swarms.check_invariants();
    let (ended, _) = swarms.end_group(&films, None);
    assert_eq!(sorted(ended), [(id(1), file(2)), (id(3), file(2))]);
    swarms.check_invariants();
    assert_eq!(swarms.count(file(3)), Count { seeders: 3, leechers: 0 });
    assert_eq!(swarms.announced(&id(1), &films, file(1)), None);
    assert_eq!(swarms.announced(&id(1), &films, file(3)), None, "of another group");
    let music = "music".parse().expect("a group");
    assert_eq!(swarms.announced(&id(1), &music, file(3)), Some(layout(4)));
}

#[test]
fn a_key_that_becomes_another_users_leaves_the_swarms_of_the_first() {
    let mut swarms = Swarms::default();
    let file = FileId::try_from(&FILE[..]).expect("a file id");
    let other_file = FileId::try_from(&[2; 16][..]).expect("a file id");
    let elsewhere = |file| FileAnnounce {
        group: "games".parse().expect("a group"),
        ..announce(file, layout(4), holds("####"), false)
    };
    let mallory = AnnouncingPeer { user: peer(2).user, ..peer(1) };
    for renews in [true, false] {
        let first = announce(file, layout(4), holds("#..."), true);
        swarms.announce(Duration::ZERO, &peer(1), first).expect("all that it holds");
        if renews {
            swarms.renew(Duration::ZERO, &mallory);
        } else {
            let gained = FileAnnounce { holds: Holds::Also(Vec::new()), ..elsewhere(file) };
            assert!(
                swarms.announce(Duration::ZERO, &mallory, gained).is_err(),
                "it has no baseline of its own"
            );
            swarms.announce(Duration::ZERO, &mallory, elsewhere(other_file)).expect("all that it holds");
        }
        assert_eq!(swarms.announced(&peer(1).id, &"films".parse().expect("a group"), file), None);
    }
    assert_eq!(swarms.leases(), 1, "the second user's own announce stands");
}
