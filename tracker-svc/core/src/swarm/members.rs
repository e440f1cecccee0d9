//! The peers of one file, the pieces that each has, and the sources that each leecher was told about.

use std::collections::HashMap;

use domain::{
    Bitfield, FileId, GroupId, PeerId, PieceLayout,
    limits::{MAX_PEER_CONNECTIONS, MAX_SOURCES},
};

use super::{
    peers::Peers,
    sampling::{scramble, spread},
    types::{Holds, PeerKey, Share, Wake},
};
use crate::selection::{Candidate, Policy};

/// Maximum number of one user's sources that a leecher is told about.
const SOURCES_A_USER: usize = 2;
/// A source is told to at most this many leechers: as many as the sources that one leecher is told about. In
/// a swarm where every peer is both, all are then known equally well. Otherwise a crowd would be sent to the
/// first sources, and the other sources would have nothing to do.
const TOLD_TO: u32 = MAX_SOURCES as u32;
/// The same limit for leechers that know no source. Beyond it the source would have to refuse them. That
/// would cost its uplink more than waiting for the next source costs the leechers.
const TOLD_TO_WHO_KNOW_NONE: u32 = MAX_PEER_CONNECTIONS as u32;

#[derive(Debug)]
pub(super) enum Holding {
    Complete,
    Partial(Bitfield),
    /// Some pieces, and not all. Which ones, the tracker knows that holds the peer's stream.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: PeerKey,
    /// The number of leechers that were told about it and not yet that it is gone.
    pub(super) told_to: u32,
    pub(super) holding: Holding,
    /// Set if it wants sources.
    pub(super) leech: Option<Box<Leech>>,
}

#[derive(Debug, Default)]
pub(super) struct Leech {
    /// Sources that it was told about, at most [`MAX_SOURCES`].
    pub(super) told: Vec<PeerKey>,
    /// Sources that are gone, and that it was not yet told are gone. No more than it was ever told about at
    /// once.
    pub(super) gone: Vec<PeerId>,
    /// Whether it was woken and has not pulled yet.
    pub(super) woken: bool,
}

/// The peers of one file.
///
/// Invariants:
///
/// - The first `sources` members are those that have a piece.
/// - `seeders` counts the members that have all pieces.
/// - `places` maps each member to its index.
/// - Every peer in a `told` list is a source.
/// - `told_to` counts the `told` lists that contain the member.
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
            // A peer that nobody here knows the pieces of comes after those that are known to have few.
            Holding::Unknown => layout.count().saturating_sub(1).max(1),
        }
    }

    /// How much of the file it has.
    fn share(&self) -> Share {
        match &self.holding {
            Holding::Complete => Share::All,
            Holding::Partial(bits) if bits.count() == 0 => Share::Nothing,
            Holding::Partial(_) | Holding::Unknown => Share::Some,
        }
    }

    /// Whether it has a piece that `other` lacks.
    fn has_for(&self, other: &Self, layout: PieceLayout) -> bool {
        match (&self.holding, &other.holding) {
            (_, Holding::Complete) => false,
            (Holding::Unknown, _) | (_, Holding::Unknown) => true,
            // With more pieces than the other has, at least one is new to it.
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

    /// Adds a member that has no piece. Returns false if it is already a member.
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

    /// Applies what a member announces that it has.
    pub(super) fn update(&mut self, key: PeerKey, holds: Holds) {
        let Some(&place) = self.places.get(&key) else { return };
        let member = &mut self.members[place as usize];
        let was_seeder = matches!(member.holding, Holding::Complete);
        match holds {
            Holds::All => member.holding = Holding::Complete,
            Holds::Exactly(bits) => member.holding = Holding::Partial(bits),
            Holds::Some => member.holding = Holding::Unknown,
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

    /// Counts a member as a seeder if it is one, and moves it to the correct side of the boundary between
    /// sources and others. The member must not be counted as a seeder yet.
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

    /// How much of the file a member has.
    pub(super) fn share(&self, key: PeerKey) -> Option<Share> {
        self.places.get(&key).map(|&place| self.members[place as usize].share())
    }

    pub(super) fn is_source(&self, key: PeerKey) -> bool {
        self.places.get(&key).is_some_and(|&place| (place as usize) < self.sources)
    }

    /// Sets whether the member is to be told about sources. With `is_first`, it starts as if it had never been
    /// told about any.
    pub(super) fn want(&mut self, key: PeerKey, wants: bool, is_first: bool) {
        if let Some(&place) = self.places.get(&key) {
            let member = &mut self.members[place as usize];
            // A member that has all pieces wants none.
            let wants = wants && !matches!(member.holding, Holding::Complete);
            let before = if !wants {
                member.leech.take()
            } else if is_first || member.leech.is_none() {
                member.leech.replace(Box::default())
            } else {
                None
            };
            self.forget_told(before);
        }
    }

    /// Updates the counts of the sources in a removed `told` list.
    fn forget_told(&mut self, leech: Option<Box<Leech>>) {
        for source in leech.into_iter().flat_map(|leech| leech.told) {
            if let Some(&place) = self.places.get(&source) {
                self.members[place as usize].told_to -= 1;
            }
        }
    }

    /// Records that the member at `place` was told about these sources.
    pub(super) fn note_told(&mut self, place: usize, sources: &[Candidate]) {
        let Some(leech) = &mut self.members[place].leech else { return };
        leech.told.extend(sources.iter().map(|source| source.key));
        for source in sources {
            let place = self.places[&source.key];
            self.members[place as usize].told_to += 1;
        }
    }

    /// Wakes leechers for a new source: as many as may be told about it. The search starts at a random
    /// member, and skips leechers that know the maximum number of sources.
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

    /// Wakes one leecher if there may be sources that it does not know.
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

    /// Removes a source from every leecher's list, and wakes the leechers that knew it.
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

    /// Chooses sources that the member at `place` does not know yet, up to the maximum that it may be told
    /// about. Without `place`, chooses for a peer that has no piece.
    pub(super) fn choose(
        &self,
        place: Option<usize>,
        peers: &Peers,
        policy: &dyn Policy,
        tie_break: u64,
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
        let some = || spread(sources.len(), tie_break).map(|place| &sources[place]).filter(wanted);
        let candidate = |source: &Member| Candidate {
            key: source.peer,
            pieces: source.pieces(self.layout),
            load: peers.brief(source.peer).load,
            tie_break: scramble(tie_break, source.peer.0),
        };
        let told_to_less = |than: u32| move |source: &&Member| asking.is_none() || source.told_to < than;
        let mut candidates: Vec<_> = some().filter(told_to_less(TOLD_TO)).map(candidate).collect();
        if candidates.is_empty() && told.is_empty() {
            candidates.extend(some().find(told_to_less(TOLD_TO_WHO_KNOW_NONE)).map(candidate));
        }
        policy.order(&mut candidates);

        // There are so few users that a linear search is cheaper than a map.
        let mut known = told.to_vec();
        let room = MAX_SOURCES.saturating_sub(told.len());
        let few_of_a_user = |candidate: &Candidate| {
            let same = known.iter().filter(|&&other| peers.have_same_user(other, candidate.key));
            let is_one_of_few = same.count() < SOURCES_A_USER;
            if is_one_of_few {
                known.push(candidate.key);
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
