//! Swarms against random events.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Says { peer: u8, file: u8, bits: u8, wants: bool },
    Gains { peer: u8, file: u8, piece: u64 },
    Leaves { peer: u8, file: u8 },
    Renews { peer: u8, load: u32, moved: bool },
    Pulls { peer: u8, file: u8, tie_break: u64 },
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
        8 => (peer.clone(), file.clone(), any::<u64>()).prop_map(|(peer, file, tie_break)| Step::Pulls { peer, file, tie_break }),
        1 => peer.prop_map(|peer| Step::Forgets { peer }),
        1 => file.prop_map(|file| Step::EndsFile { file }),
        2 => (0u64..40).prop_map(|seconds| Step::Waits { seconds }),
    ]
}

proptest! {
    /// In every order of steps the invariants hold. After a pull, a leecher's list is right: the sources that
    /// it was told about, without those that it was told are gone, are all existing sources.
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
                    // An announce of all pieces starts a stream. The peer has forgotten what the previous
                    // stream told it.
                    believed.remove(&(id(number), file(which)));
                    let holds = Holds::Exactly(held);
                    let said = swarms.announce(now, &peer(number), announce(file(which), layout, holds, wants));
                    prop_assert!(said.is_ok());
                }
                Step::Gains { peer: number, file: which, piece } => {
                    let known = swarms.announced(&id(number), &group, file(which)).is_some();
                    let gained = Holds::Also(vec![layout.index(piece).expect("a piece")]);
                    let said = swarms.announce(now, &peer(number), announce(file(which), layout, gained, true));
                    prop_assert_eq!(said.is_ok(), known);
                }
                Step::Leaves { peer, file: which } => {
                    swarms.leave(&id(peer), file(which));
                }
                Step::Renews { peer: number, load, moved } => {
                    let addresses = if moved { "198.51.100.1:9".into() } else { peer(number).addresses };
                    swarms.renew(now, &AnnouncingPeer { load, addresses, ..peer(number) });
                }
                Step::Pulls { peer, file: which, tie_break } => {
                    if let Some(update) = swarms.pull(&id(peer), file(which), &FewestPieces, tie_break) {
                        let believed = believed.entry((id(peer), file(which))).or_default();
                        for gone in &update.gone {
                            believed.remove(gone);
                        }
                        believed.extend(update.sources.iter().map(|source| source.id));
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
            // A peer that stopped being a leecher of a file starts with an empty list when it comes back.
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
