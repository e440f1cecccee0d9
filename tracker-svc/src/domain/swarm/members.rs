//! The peers of one file, what each holds, and what each leecher was told.

use std::collections::HashMap;

use proto::domain::{
    Bitfield, FileId, GroupId, PeerId, PieceLayout, Username,
    limits::{MAX_PEER_CONNECTIONS, MAX_SOURCES},
};

use super::{Holds, PeerKey, Wake, peers::Peers};
use crate::domain::selection::{Candidate, Policy};

/// Most sources of one user that a leecher is told of.
const SOURCES_A_USER: usize = 2;
/// Most members of a swarm that are looked at to find sources for one leecher.
const LOOKED_AT: usize = 128;
/// So many of them stand side by side, for the processor's sake, and the next ones far off. Who came at the same time has
/// the same pieces, and was told of the same others: leechers that only know such have little to give each other.
const SIDE_BY_SIDE: usize = 8;
/// A source is told to no more leechers than a leecher is told of sources: where everybody is both, all are known alike. A
/// crowd would else be sent to the sources that were there first, and the others would have nothing to do.
const TOLD_TO: u32 = MAX_SOURCES as u32;
/// The same for leechers that know no source. More would have to be turned away by it, which costs its uplink more than
/// their waiting for the next source costs them.
const TOLD_TO_WHO_KNOW_NONE: u32 = MAX_PEER_CONNECTIONS as u32;

#[derive(Debug)]
pub(super) enum Holding {
    Complete,
    Partial(Bitfield),
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: PeerKey,
    /// Leechers that were told of it, and have not been told that it is gone.
    pub(super) told_to: u32,
    pub(super) holding: Holding,
    /// For those who want sources.
    pub(super) leech: Option<Box<Leech>>,
}

#[derive(Debug, Default)]
pub(super) struct Leech {
    /// Sources that it knows of, at most [`MAX_SOURCES`].
    pub(super) told: Vec<PeerKey>,
    /// Sources that are gone and that it still believes in; no more than it was ever told of at once.
    pub(super) gone: Vec<PeerId>,
    /// It was woken and has not pulled yet.
    pub(super) woken: bool,
}

/// The peers of one file.
///
/// Invariants: the first `sources` members are those that hold a piece; `seeders` counts those that hold all; `places`
/// tells where each member is; nobody is told of a peer that is not a source; `told_to` counts the `told` that name it.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) group: GroupId,
    pub(super) layout: PieceLayout,
    pub(super) members: Vec<Member>,
    pub(super) places: HashMap<PeerKey, u32>,
    pub(super) sources: usize,
    pub(super) seeders: u32,
}

impl Member {
    pub(super) fn pieces(&self, layout: PieceLayout) -> u32 {
        match &self.holding {
            Holding::Complete => layout.count(),
            Holding::Partial(bits) => bits.count(),
        }
    }

    /// Whether it holds a piece that `other` lacks.
    fn has_for(&self, other: &Self, layout: PieceLayout) -> bool {
        match (&self.holding, &other.holding) {
            (_, Holding::Complete) => false,
            // More pieces than the other has: one at least must be new to it.
            (_, Holding::Partial(theirs)) if self.pieces(layout) > theirs.count() => true,
            (Holding::Complete, Holding::Partial(_)) => false,
            (Holding::Partial(ours), Holding::Partial(theirs)) => {
                ours.as_bytes().iter().zip(theirs.as_bytes()).any(|(ours, theirs)| ours & !theirs != 0)
            }
        }
    }
}

impl Swarm {
    pub(super) fn new(group: GroupId, layout: PieceLayout) -> Self {
        Self { group, layout, members: Vec::new(), places: HashMap::new(), sources: 0, seeders: 0 }
    }

    /// Adds a member that holds nothing. False when it is one already.
    pub(super) fn join(&mut self, key: PeerKey) -> bool {
        if self.places.contains_key(&key) {
            return false;
        }
        self.places.insert(key, self.members.len() as u32);
        let holding = Holding::Partial(Bitfield::empty(self.layout));
        self.members.push(Member { peer: key, told_to: 0, holding, leech: None });
        self.normalize(key);
        true
    }

    /// Takes what a member says that it holds.
    pub(super) fn update(&mut self, key: PeerKey, holds: Holds) {
        let Some(&place) = self.places.get(&key) else { return };
        let member = &mut self.members[place as usize];
        let was_seeder = matches!(member.holding, Holding::Complete);
        match holds {
            Holds::All => member.holding = Holding::Complete,
            Holds::Exactly(bits) => member.holding = Holding::Partial(bits),
            Holds::Also(pieces) => {
                if let Holding::Partial(bits) = &mut member.holding {
                    for piece in pieces {
                        bits.insert(piece);
                    }
                }
            }
        }
        self.seeders -= u32::from(was_seeder);
        self.normalize(key);
    }

    /// Counts a member that is not counted as a seeder, and puts it on its side of the line between sources and others.
    fn normalize(&mut self, key: PeerKey) {
        let place = self.places[&key] as usize;
        let member = &mut self.members[place];
        if matches!(&member.holding, Holding::Partial(bits) if bits.is_full()) {
            member.holding = Holding::Complete;
        }
        self.seeders += u32::from(matches!(member.holding, Holding::Complete));
        let is_source = member.pieces(self.layout) > 0;
        match (place < self.sources, is_source) {
            (false, true) => {
                self.swap(place, self.sources);
                self.sources += 1;
            }
            (true, false) => {
                self.sources -= 1;
                self.swap(place, self.sources);
            }
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, key: PeerKey) {
        let Some(&place) = self.places.get(&key) else { return };
        let mut place = place as usize;
        self.seeders -= u32::from(matches!(self.members[place].holding, Holding::Complete));
        if place < self.sources {
            self.sources -= 1;
            self.swap(place, self.sources);
            place = self.sources;
        }
        self.swap(place, self.members.len() - 1);
        let gone = self.members.pop();
        self.places.remove(&key);
        self.forget_told(gone.and_then(|member| member.leech));
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.members.swap(a, b);
        self.places.insert(self.members[a].peer, a as u32);
        self.places.insert(self.members[b].peer, b as u32);
    }

    pub(super) fn is_source(&self, key: PeerKey) -> bool {
        self.places.get(&key).is_some_and(|&place| (place as usize) < self.sources)
    }

    /// Notes whether the member is to be told of sources; `anew`, as if it had never been told of any.
    pub(super) fn want(&mut self, key: PeerKey, wants: bool, anew: bool) {
        if let Some(&place) = self.places.get(&key) {
            let member = &mut self.members[place as usize];
            // Who holds all can want nothing.
            let wants = wants && !matches!(member.holding, Holding::Complete);
            let before = if !wants {
                member.leech.take()
            } else if anew || member.leech.is_none() {
                member.leech.replace(Box::default())
            } else {
                None
            };
            self.forget_told(before);
        }
    }

    /// The leecher is none any more, or knows nothing any more.
    fn forget_told(&mut self, leech: Option<Box<Leech>>) {
        for source in leech.into_iter().flat_map(|leech| leech.told) {
            if let Some(&place) = self.places.get(&source) {
                self.members[place as usize].told_to -= 1;
            }
        }
    }

    /// The member at `place` was told of these sources.
    pub(super) fn note_told(&mut self, place: usize, sources: &[Candidate]) {
        let Some(leech) = &mut self.members[place].leech else { return };
        leech.told.extend(sources.iter().map(|source| source.key));
        for source in sources {
            let place = self.places[&source.key];
            self.members[place as usize].told_to += 1;
        }
    }

    /// A new source: wakes as many as can be told of it, from a random one on, of those who know fewer than they may.
    pub(super) fn wake_hungry(
        &mut self,
        source: PeerKey,
        file: FileId,
        peers: &Peers,
        wakes: &mut Vec<Wake>,
    ) {
        let start = scramble(self.members.len() as u64, source.0) as usize % self.members.len();
        let (head, tail) = self.members.split_at_mut(start);
        let hungry = tail.iter_mut().chain(head).filter(|member| {
            member.peer != source && member.leech.as_ref().is_some_and(|leech| leech.told.len() < MAX_SOURCES)
        });
        for member in hungry.take(TOLD_TO as usize) {
            if let Some(leech) = &mut member.leech {
                leech.wake(peers.get(member.peer).id, file, wakes);
            }
        }
    }

    /// Wakes one leecher when there may be sources that it does not know.
    pub(super) fn wake_if_hungry(
        &mut self,
        key: PeerKey,
        file: FileId,
        peers: &Peers,
        wakes: &mut Vec<Wake>,
    ) {
        let Some(&place) = self.places.get(&key) else { return };
        let others = self.sources - usize::from((place as usize) < self.sources);
        if let Some(leech) = &mut self.members[place as usize].leech
            && leech.told.len() < others.min(MAX_SOURCES)
        {
            leech.wake(peers.get(key).id, file, wakes);
        }
    }

    /// Makes everybody forget a source, and wakes those who knew it.
    pub(super) fn retract(&mut self, source: PeerKey, file: FileId, peers: &Peers, wakes: &mut Vec<Wake>) {
        let id = peers.get(source).id;
        for member in &mut self.members {
            if let Some(leech) = &mut member.leech
                && let Some(at) = leech.told.iter().position(|told| *told == source)
            {
                leech.told.swap_remove(at);
                if !leech.gone.contains(&id) {
                    leech.gone.push(id);
                }
                leech.wake(peers.get(member.peer).id, file, wakes);
            }
        }
        if let Some(&place) = self.places.get(&source) {
            self.members[place as usize].told_to = 0;
        }
    }

    /// Sources that the member at `place`, or somebody who holds nothing, does not know yet, as many as it may be told.
    pub(super) fn choose(
        &self,
        place: Option<usize>,
        peers: &Peers,
        policy: &dyn Policy,
        chance: u64,
    ) -> Vec<Candidate> {
        let asking = place.map(|place| &self.members[place]);
        let told = asking.and_then(|member| member.leech.as_ref()).map_or(&[][..], |leech| &leech.told);
        let wanted = |source: &&Member| {
            let (other, useful) = asking.map_or((true, true), |asking| {
                (source.peer != asking.peer, source.has_for(asking, self.layout))
            });
            other && useful && !told.contains(&source.peer)
        };
        let sources = &self.members[..self.sources];
        let some = || spread(sources.len(), chance).map(|place| &sources[place]).filter(wanted);
        let candidate = |source: &Member| Candidate {
            key: source.peer,
            pieces: source.pieces(self.layout),
            load: peers.get(source.peer).load,
            chance: scramble(chance, source.peer.0),
        };
        let told_to_less = |than: u32| move |source: &&Member| asking.is_none() || source.told_to < than;
        let mut candidates: Vec<_> = some().filter(told_to_less(TOLD_TO)).map(candidate).collect();
        if candidates.is_empty() && told.is_empty() {
            candidates.extend(some().find(told_to_less(TOLD_TO_WHO_KNOW_NONE)).map(candidate));
        }
        policy.order(&mut candidates);

        // So few that to look through them costs less than a map of them does.
        let user = |key: PeerKey| (fingerprint(&peers.get(key).user), &peers.get(key).user);
        let mut users: Vec<_> = told.iter().map(|&known| user(known)).collect();
        let room = MAX_SOURCES.saturating_sub(told.len());
        let few_of_a_user = |candidate: &Candidate| {
            let user = user(candidate.key);
            let is_one_of_few = users.iter().filter(|&&other| other == user).count() < SOURCES_A_USER;
            if is_one_of_few {
                users.push(user);
            }
            is_one_of_few
        };
        candidates.into_iter().filter(few_of_a_user).take(room).collect()
    }
}

impl Leech {
    fn wake(&mut self, peer: PeerId, file: FileId, wakes: &mut Vec<Wake>) {
        if !std::mem::replace(&mut self.woken, true) {
            wakes.push(Wake { peer, file });
        }
    }
}

/// At most [`LOOKED_AT`] numbers below `count`, each once, spread evenly from one that follows from `chance`.
fn spread(count: usize, chance: u64) -> impl Iterator<Item = usize> {
    let start = if count == 0 { 0 } else { (chance % count as u64) as usize };
    let looked_at = count.min(LOOKED_AT);
    (0..looked_at).map(move |number| {
        let gaps = number / SIDE_BY_SIDE * (count - looked_at) / (LOOKED_AT / SIDE_BY_SIDE);
        (start + number + gaps) % count
    })
}

/// Tells most users apart at a glance (FNV-1a).
fn fingerprint(user: &Username) -> u32 {
    user.as_str().bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A number that looks random and is the same for the same two.
fn scramble(chance: u64, key: u32) -> u32 {
    let mixed = (chance ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn members_are_looked_at_all_over_the_swarm() {
        for count in [0, 1, 7, 127, 128, 129, 200, 10_000, 1 << 20] {
            for chance in [0, 1, 12_345_678_901] {
                let places: Vec<_> = spread(count, chance).collect();
                assert!(places.iter().all(|place| *place < count));
                assert_eq!(places.iter().collect::<HashSet<_>>().len(), count.min(LOOKED_AT), "{count}");
                let tenths: HashSet<_> = places.iter().map(|place| place * 10 / count).collect();
                assert_eq!(tenths.len(), count.min(10), "{count}: not all over it");
            }
        }
    }
}
