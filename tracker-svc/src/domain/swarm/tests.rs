use std::collections::HashSet;

use proptest::prelude::*;
use proto::domain::{PIECE_LENGTH, limits::MAX_SOURCES};

use super::*;
use crate::domain::selection::FewestPieces;

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

/// Peer `number`, of a user of its own.
fn peer(number: u8) -> Announcer {
    Announcer {
        id: id(number),
        user: format!("user{number}").parse().expect("a username"),
        address: format!("192.0.2.{number}:7000").into(),
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

/// One swarm of one file of four pieces, at a time that only grows.
#[derive(Default)]
struct Story {
    swarms: Swarms,
    now: Duration,
}

impl Story {
    fn says(&mut self, who: &Announcer, holds: Holds, wants: bool) -> Vec<Wake> {
        let group = "films".parse().expect("a group");
        let file = FileId::try_from(&FILE[..]).expect("a file id");
        let wakes = self.swarms.announce(self.now, who, &group, file, layout(4), holds, wants);
        self.swarms.check_invariants();
        wakes.expect("not the first announce, or all that it holds")
    }

    fn pull(&mut self, number: u8) -> (Vec<u8>, Vec<u8>) {
        let news = self.swarms.pull(&id(number), file(1), &FewestPieces, 0);
        self.swarms.check_invariants();
        news.map_or((Vec::new(), Vec::new()), |news| {
            let numbers = |ids: Vec<PeerId>| ids.iter().map(|id| id.as_bytes()[0]).collect();
            (numbers(news.sources.iter().map(|source| source.id).collect()), numbers(news.gone))
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
    let mut story = Story::default();
    assert_eq!(story.says(&peer(1), Holds::All, false), []);
    let wakes = story.says(&peer(2), holds("...."), true);
    assert_eq!(woken(&wakes), [2]);
    assert_eq!(story.counts(), (1, 1));
    assert_eq!(story.pull(2), (vec![1], vec![]));
    assert_eq!(story.pull(2), (vec![], vec![]), "told once");

    // A second leecher is no source before it holds a piece.
    assert_eq!(woken(&story.says(&peer(3), holds("...."), true)), [3]);
    assert_eq!(story.pull(3), (vec![1], vec![]));
    assert_eq!(story.pull(2), (vec![], vec![]));
    let gained = vec![layout(4).index(2).expect("a piece")];
    assert_eq!(woken(&story.says(&peer(3), Holds::Also(gained), true)), [2]);
    assert_eq!(story.pull(2), (vec![3], vec![]));

    // Peers 1 and 3 stay, the clock goes on; peer 2 is heard of last.
    story.now += LEASE;
    assert!(story.swarms.renew(story.now, &peer(2)).is_empty());
    assert!(story.swarms.expire(story.now).is_empty(), "a lease holds to its last moment");
    story.now += Duration::from_millis(1);
    assert_eq!(woken(&story.swarms.expire(story.now)), [3, 2], "3 was told of 1, and goes too");
    let (came, mut went) = story.pull(2);
    went.sort_unstable();
    assert_eq!((came, went), (vec![], vec![1, 3]));
    assert_eq!(story.counts(), (0, 1));

    assert_eq!(woken(&story.says(&peer(1), Holds::All, false)), [2]);
    assert_eq!(story.pull(2), (vec![1], vec![]));
    story.says(&peer(2), Holds::All, false);
    assert_eq!(story.counts(), (2, 0));
    assert_eq!(story.swarms.leave(&id(1), file(1)), [], "who has all wants nothing");
    story.swarms.forget(&id(2));
    assert!(story.swarms.files.is_empty() && story.swarms.peers.iter().next().is_none());
}

#[test]
fn what_comes_and_goes_before_a_slow_leecher_looks_is_told_as_it_ends() {
    let mut story = Story::default();
    story.says(&peer(1), holds("...."), true);
    for round in 0..100 {
        let wakes = story.says(&peer(2), Holds::All, false);
        assert_eq!(wakes.len(), usize::from(round == 0), "woken once until it looks");
        story.swarms.leave(&id(2), file(1));
    }
    assert_eq!(story.pull(1), (vec![], vec![]), "never told of it, so not told that it went");
    story.says(&peer(2), Holds::All, false);
    assert_eq!(story.pull(1), (vec![2], vec![]));
    for _ in 0..100 {
        story.swarms.leave(&id(2), file(1));
        story.says(&peer(2), Holds::All, false);
    }
    assert_eq!(story.pull(1), (vec![2], vec![]), "back again: told as new");
    story.swarms.leave(&id(2), file(1));
    assert_eq!(story.pull(1), (vec![], vec![2]));
}

#[test]
fn another_address_is_told_and_a_source_without_pieces_is_gone() {
    let mut story = Story::default();
    story.says(&peer(1), Holds::All, false);
    story.says(&peer(2), holds("#..."), true);
    assert_eq!(story.pull(2), (vec![1], vec![]));
    let moved = Announcer { address: "198.51.100.1:9".into(), ..peer(1) };
    assert_eq!(woken(&story.swarms.renew(story.now, &moved)), [2]);
    let news = story.swarms.pull(&id(2), file(1), &FewestPieces, 0).expect("news");
    assert_eq!(&*news.sources[0].address, "198.51.100.1:9");
    assert_eq!(news.gone, []);
    assert_eq!(woken(&story.says(&moved, holds("...."), false)), [2]);
    assert_eq!(story.pull(2), (vec![], vec![1]));
}

#[test]
fn the_order_is_fewest_pieces_then_least_load_and_useless_ones_are_left_out() {
    let mut story = Story::default();
    story.says(&peer(1), Holds::All, false);
    story.says(&Announcer { load: 3, ..peer(2) }, holds(".##."), false);
    story.says(&Announcer { load: 1, ..peer(3) }, holds(".#.#"), false);
    story.says(&peer(4), holds("#..."), false);
    story.says(&peer(5), holds("#..."), true);
    assert_eq!(story.pull(5), (vec![3, 2, 1], vec![]), "peer 4 has nothing that peer 5 lacks");
    let found = story.swarms.find(file(1), &FewestPieces, 7);
    let pieces: Vec<_> = found.iter().map(|source| source.pieces).collect();
    assert_eq!(pieces, [1, 1, 2, 2, 4]);
    assert!(story.swarms.find(file(2), &FewestPieces, 7).is_empty());
}

#[test]
fn at_most_two_sources_of_a_user_and_fifty_in_all() {
    let mut story = Story::default();
    story.says(&peer(250), holds("...."), true);
    let same = |number| Announcer { user: peer(1).user, ..peer(number) };
    for number in 1..=9 {
        story.says(&same(number), Holds::All, false);
    }
    assert_eq!(story.pull(250).0.len(), 2);
    assert_eq!(story.swarms.find(file(1), &FewestPieces, 3).len(), 2);
    for number in 10..=100 {
        story.says(&peer(number), Holds::All, false);
    }
    assert_eq!(story.pull(250).0.len(), MAX_SOURCES - 2);
    let newcomer = story.says(&peer(101), Holds::All, false);
    assert_eq!(newcomer, [], "who knows enough is not told of every newcomer");
    let told = story.swarms.files[&file(1)].members.iter().find_map(|m| m.leech.as_ref()).expect("a leecher");
    let known = story.swarms.peers.get(told.told[20]).id;
    assert_eq!(woken(&story.swarms.forget(&known)), [250]);
    let (came, went) = story.pull(250);
    assert_eq!((came.len(), went), (1, vec![known.as_bytes()[0]]));
}

#[test]
fn a_crowd_is_not_sent_to_the_first_sources_alone() {
    let mut swarms = Swarms::default();
    let group: GroupId = "films".parse().expect("a group");
    let crowd = |number: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let user = format!("user{number}").parse().expect("a username");
        Announcer { id: id.into(), user, address: "192.0.2.1:7000".into(), load: 0 }
    };
    let says = |swarms: &mut Swarms, number, holds, wants| {
        let said = swarms.announce(Duration::ZERO, &crowd(number), &group, file(1), layout(4), holds, wants);
        let wakes = said.expect("all that it holds");
        // Everybody looks at once.
        let pull = |wake: &Wake| swarms.pull(&wake.peer, file(1), &FewestPieces, 7);
        wakes.iter().filter_map(pull).map(|news| news.sources.len()).sum::<usize>()
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
    let mut story = Story::default();
    let group = "films".parse().expect("a group");
    let piece = Holds::Also(vec![layout(4).index(0).expect("a piece")]);
    let refused = story.swarms.announce(story.now, &peer(1), &group, file(1), layout(4), piece, true);
    assert_eq!(refused, Err(NoBaseline));
    assert!(story.swarms.files.is_empty() && story.swarms.peers.iter().next().is_none());
}

#[test]
fn an_empty_file_is_always_complete() {
    let mut swarms = Swarms::default();
    let group = "films".parse().expect("a group");
    let nothing = Holds::Exactly(Bitfield::empty(layout(0)));
    let wakes = swarms.announce(Duration::ZERO, &peer(1), &group, file(1), layout(0), nothing, true);
    assert_eq!(wakes, Ok(vec![]));
    assert_eq!(swarms.count(file(1)), Count { seeders: 1, leechers: 0 });
    assert_eq!(swarms.pull(&id(1), file(1), &FewestPieces, 0), None);
}

#[test]
fn files_groups_and_members_end() {
    let mut swarms = Swarms::default();
    let mut announce = |number: u8, group: &str, which: u8| {
        let group = group.parse().expect("a group");
        swarms
            .announce(Duration::ZERO, &peer(number), &group, file(which), layout(4), Holds::All, false)
            .expect("all that it holds");
    };
    for number in 1..=3 {
        announce(number, "films", 1);
        announce(number, "films", 2);
        announce(number, "music", 3);
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

#[derive(Clone, Debug)]
enum Step {
    Says { peer: u8, file: u8, bits: u8, wants: bool },
    Gains { peer: u8, file: u8, piece: u64 },
    Leaves { peer: u8, file: u8 },
    Renews { peer: u8, load: u32, moved: bool },
    Pulls { peer: u8, file: u8, chance: u64 },
    Forgets { peer: u8 },
    EndsFile { file: u8 },
    Waits { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, file) = (1u8..9, 1u8..4);
    prop_oneof![
        8 => (peer.clone(), file.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(peer, file, bits, wants)| Step::Says { peer, file, bits, wants }),
        8 => (peer.clone(), file.clone(), 0u64..7).prop_map(|(peer, file, piece)| Step::Gains { peer, file, piece }),
        2 => (peer.clone(), file.clone()).prop_map(|(peer, file)| Step::Leaves { peer, file }),
        2 => (peer.clone(), 0u32..5, any::<bool>()).prop_map(|(peer, load, moved)| Step::Renews { peer, load, moved }),
        8 => (peer.clone(), file.clone(), any::<u64>()).prop_map(|(peer, file, chance)| Step::Pulls { peer, file, chance }),
        1 => peer.prop_map(|peer| Step::Forgets { peer }),
        1 => file.prop_map(|file| Step::EndsFile { file }),
        2 => (0u64..40).prop_map(|seconds| Step::Waits { seconds }),
    ]
}

proptest! {
    /// Whatever happens, the invariants hold, and what a leecher was told, less what it was told is gone, are living
    /// sources once it has pulled.
    #[test]
    fn what_a_leecher_believes_is_true_once_it_has_looked(steps in prop::collection::vec(step(), 1..120)) {
        let (mut swarms, mut now) = (Swarms::default(), Duration::ZERO);
        let group: GroupId = "films".parse().expect("a group");
        let layout = layout(7);
        let mut believed: HashMap<(PeerId, FileId), HashSet<PeerId>> = HashMap::new();
        for step in steps {
            match step {
                Step::Says { peer: number, file: which, bits, wants } => {
                    let held = Bitfield::from_bytes(layout, &[bits & 0xfe]).expect("a bitfield");
                    // Who says all that it holds starts a stream, and has forgotten what it was told in the last.
                    believed.remove(&(id(number), file(which)));
                    let holds = Holds::Exactly(held);
                    let said = swarms.announce(now, &peer(number), &group, file(which), layout, holds, wants);
                    prop_assert!(said.is_ok());
                }
                Step::Gains { peer: number, file: which, piece } => {
                    let known = swarms.announced(&id(number), &group, file(which)).is_some();
                    let gained = Holds::Also(vec![layout.index(piece).expect("a piece")]);
                    let said = swarms.announce(now, &peer(number), &group, file(which), layout, gained, true);
                    prop_assert_eq!(said.is_ok(), known);
                }
                Step::Leaves { peer, file: which } => {
                    swarms.leave(&id(peer), file(which));
                }
                Step::Renews { peer: number, load, moved } => {
                    let address = if moved { "198.51.100.1:9".into() } else { peer(number).address };
                    swarms.renew(now, &Announcer { load, address, ..peer(number) });
                }
                Step::Pulls { peer, file: which, chance } => {
                    if let Some(news) = swarms.pull(&id(peer), file(which), &FewestPieces, chance) {
                        let believed = believed.entry((id(peer), file(which))).or_default();
                        for gone in &news.gone {
                            believed.remove(gone);
                        }
                        believed.extend(news.sources.iter().map(|source| source.id));
                        for id in believed.iter() {
                            let key = swarms.peers.key(id);
                            prop_assert!(key.is_some_and(|key| swarms.files[&file(which)].is_source(key)));
                        }
                    }
                }
                Step::Forgets { peer } => {
                    swarms.forget(&id(peer));
                }
                Step::EndsFile { file: which } => {
                    swarms.end_file(file(which));
                }
                Step::Waits { seconds } => {
                    now += Duration::from_secs(seconds);
                    swarms.expire(now);
                }
            }
            swarms.check_invariants();
            // Who is no leecher of a file any more starts anew when it comes back.
            believed.retain(|(id, file), _| swarms.announced(id, &group, *file).is_some());
            let leeching = |id: &PeerId, file: &FileId| {
                let swarm = &swarms.files[file];
                let place = swarms.peers.key(id).and_then(|key| swarm.places.get(&key));
                place.is_some_and(|place| swarm.members[*place as usize].leech.is_some())
            };
            believed.retain(|(id, file), _| leeching(id, file));
        }
    }
}
