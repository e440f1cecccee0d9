//! Who announces which file and holds which of its pieces. Pure: time and chance are arguments, duties are results.
//!
//! A [`Swarms`] is the whole state machine. A tracker may keep several and put each file into one of them: no call
//! spans two files of different ones, and a peer may be known to many.
//!
//! Leechers are told of at most [`MAX_SOURCES`] sources. What there is to tell is not queued but worked out when the
//! leecher is ready to hear it ([`Swarms::pull`]), so a slow one costs no memory; the other calls only say whom to wake.
//!
//! Non-goals: who may announce what (decided before), what is kept on disk (nothing).

use std::{collections::HashMap, time::Duration};

use proto::domain::{
    Bitfield, FileId, GroupId, PeerId, PieceIndex, PieceLayout, Username, limits::MAX_SOURCES,
};

use super::{
    population::Count,
    selection::{Candidate, Policy},
};

/// How long a peer is known after it was last heard of.
pub const LEASE: Duration = Duration::from_secs(30);
/// Most sources of one user that a leecher is told of.
const SOURCES_A_USER: usize = 2;
/// Most members of a swarm that are looked at to find sources for one leecher: a stretch of so many from a random place.
const LOOKED_AT: usize = 512;

/// A peer's place in one [`Swarms`]. Meaningless once the peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey(pub(super) u32);

/// A peer that announces. Time is counted from the tracker's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcer {
    /// Which peer.
    pub id: PeerId,
    /// Whose.
    pub user: Username,
    /// Where others reach it.
    pub address: Box<str>,
    /// Uploads that it has running and waiting.
    pub load: u32,
}

/// What a peer says that it holds of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Every piece.
    All,
    /// These pieces and no others.
    Exactly(Bitfield),
    /// These pieces too, since its last announce.
    Also(Vec<PieceIndex>),
}

/// The first announce of a file must say all that the peer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first announce of a file says all that the peer holds, not what it gained")]
pub struct NoBaseline;

/// There is something to tell this leecher of this file: call [`Swarms::pull`] when it is ready to hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wake {
    /// The leecher.
    pub peer: PeerId,
    /// The file.
    pub file: FileId,
}

/// A source, as a leecher is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which peer.
    pub id: PeerId,
    /// Whose.
    pub user: Username,
    /// Where to reach it.
    pub address: Box<str>,
    /// Pieces that it holds.
    pub pieces: u32,
    /// Uploads that it has running and waiting.
    pub load: u32,
}

/// What a leecher has not been told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The file's group.
    pub group: GroupId,
    /// Sources that are new, or have another address, in the order of the policy.
    pub sources: Vec<Source>,
    /// Sources that are gone.
    pub gone: Vec<PeerId>,
}

#[derive(Debug)]
struct Peer {
    id: PeerId,
    user: Username,
    address: Box<str>,
    load: u32,
    heard: Duration,
    files: Vec<FileId>,
}

#[derive(Debug)]
enum Holding {
    Complete,
    Partial(Bitfield),
}

#[derive(Debug)]
struct Member {
    peer: PeerKey,
    holding: Holding,
    /// For those who want sources.
    leech: Option<Box<Leech>>,
}

#[derive(Debug, Default)]
struct Leech {
    /// Sources that it knows of, at most [`MAX_SOURCES`].
    told: Vec<PeerKey>,
    /// Sources that are gone and that it still believes in; no more than it was ever told of at once.
    gone: Vec<PeerId>,
    /// It was woken and has not pulled yet.
    woken: bool,
}

/// The peers of one file.
///
/// Invariants: the first `sources` members are those that hold a piece; `seeders` counts those that hold all; `places`
/// tells where each member is; nobody is told of a peer that is not a source.
#[derive(Debug)]
struct Swarm {
    group: GroupId,
    layout: PieceLayout,
    members: Vec<Member>,
    places: HashMap<PeerKey, u32>,
    sources: usize,
    seeders: u32,
}

/// All swarms, or a share of them.
#[derive(Debug, Default)]
pub struct Swarms {
    files: HashMap<FileId, Swarm>,
    peers: Vec<Option<Peer>>,
    free: Vec<PeerKey>,
    keys: HashMap<PeerId, PeerKey>,
}

impl Swarms {
    /// The layout of a file of the group, if the peer announced it before and that still stands.
    pub fn announced(&self, peer: &PeerId, group: &GroupId, file: FileId) -> Option<PieceLayout> {
        let key = self.keys.get(peer)?;
        let swarm = self.files.get(&file).filter(|swarm| swarm.group == *group)?;
        swarm.places.contains_key(key).then_some(swarm.layout)
    }

    /// Takes an announce, which also renews the peer's lease.
    ///
    /// # Errors
    /// [`NoBaseline`]; nothing has changed then.
    #[allow(
        clippy::too_many_arguments,
        reason = "an announce is that many things, and a struct would be made once"
    )]
    pub fn announce(
        &mut self,
        now: Duration,
        who: &Announcer,
        group: &GroupId,
        file: FileId,
        layout: PieceLayout,
        holds: Holds,
        wants_sources: bool,
    ) -> Result<Vec<Wake>, NoBaseline> {
        if matches!(holds, Holds::Also(_)) && self.announced(&who.id, group, file).is_none() {
            return Err(NoBaseline);
        }
        let mut wakes = Vec::new();
        let key = self.meet(now, who, &mut wakes);
        let swarm = self.files.entry(file).or_insert_with(|| Swarm::new(group.clone(), layout));
        if swarm.join(key) {
            peer_mut(&mut self.peers, key).files.push(file);
        }
        let was_source = swarm.is_source(key);
        // Who says all that it has says so at the start of a stream, and has forgotten what it was told in the last.
        let anew = !matches!(holds, Holds::Also(_));
        swarm.update(key, holds);
        match (was_source, swarm.is_source(key)) {
            (false, true) => swarm.wake_hungry(key, file, &self.peers, &mut wakes),
            (true, false) => swarm.retract(key, file, &self.peers, &mut wakes),
            _ => {}
        }
        swarm.want(key, wants_sources, anew);
        swarm.wake_if_hungry(key, file, &self.peers, &mut wakes);
        Ok(wakes)
    }

    /// The peer has nothing to do with the file any more.
    pub fn leave(&mut self, id: &PeerId, file: FileId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        self.remove(id, file, &mut wakes);
        wakes
    }

    /// The peer was heard of. Leechers that could do with more sources look again.
    pub fn renew(&mut self, now: Duration, who: &Announcer) -> Vec<Wake> {
        let mut wakes = Vec::new();
        if self.keys.contains_key(&who.id) {
            let key = self.meet(now, who, &mut wakes);
            for &file in &peer(&self.peers, key).files {
                if let Some(swarm) = self.files.get_mut(&file) {
                    swarm.wake_if_hungry(key, file, &self.peers, &mut wakes);
                }
            }
        }
        wakes
    }

    /// What the leecher has not been told of the file; it counts as told from then on. `None` when there is nothing.
    pub fn pull(&mut self, leecher: &PeerId, file: FileId, policy: &dyn Policy, chance: u64) -> Option<News> {
        let key = *self.keys.get(leecher)?;
        let swarm = self.files.get_mut(&file)?;
        let place = *swarm.places.get(&key)? as usize;
        swarm.members[place].leech.as_mut()?.woken = false;
        let chosen = swarm.choose(Some(place), &self.peers, policy, chance);
        let sources: Vec<_> = chosen.iter().map(|&source| swarm.source(source, &self.peers)).collect();
        let leech = swarm.members[place].leech.as_mut()?;
        leech.told.extend(chosen);
        let mut gone = std::mem::take(&mut leech.gone);
        // Those whose address changed went and came back.
        gone.retain(|id| sources.iter().all(|source| source.id != *id));
        let news = News { group: swarm.group.clone(), sources, gone };
        (!news.sources.is_empty() || !news.gone.is_empty()).then_some(news)
    }

    /// Sources of the file for somebody who holds nothing of it.
    pub fn find(&self, file: FileId, policy: &dyn Policy, chance: u64) -> Vec<Source> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let chosen = swarm.choose(None, &self.peers, policy, chance);
        chosen.into_iter().map(|source| swarm.source(source, &self.peers)).collect()
    }

    /// How many peers announce the file.
    pub fn count(&self, file: FileId) -> Count {
        self.files.get(&file).map_or_else(Count::default, |swarm| Count {
            seeders: swarm.seeders,
            leechers: swarm.members.len() as u32 - swarm.seeders,
        })
    }

    /// Forgets peers that were not heard of for longer than [`LEASE`].
    pub fn expire(&mut self, now: Duration) -> Vec<Wake> {
        let over = |peer: &&Peer| peer.heard + LEASE < now;
        let late: Vec<_> = self.peers.iter().flatten().filter(over).map(|peer| peer.id).collect();
        let mut wakes = Vec::new();
        for id in late {
            wakes.extend(self.forget(&id));
        }
        wakes
    }

    /// Forgets a peer and all that it announced.
    pub fn forget(&mut self, id: &PeerId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        while let Some(&key) = self.keys.get(id) {
            let Some(&file) = peer(&self.peers, key).files.last() else { break };
            self.remove(id, file, &mut wakes);
        }
        wakes
    }

    /// Ends a file: forgets it and returns those who announced it.
    pub fn end_file(&mut self, file: FileId) -> Vec<PeerId> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let all: Vec<_> = swarm.members.iter().map(|member| peer(&self.peers, member.peer).id).collect();
        for id in &all {
            // Nobody is woken: all of them are told that it ended.
            self.remove(id, file, &mut Vec::new());
        }
        all
    }

    /// Ends what one user's peers announced of a group, or everybody's; returns who announced what.
    pub fn end_group(
        &mut self,
        group: &GroupId,
        user: Option<&Username>,
    ) -> (Vec<(PeerId, FileId)>, Vec<Wake>) {
        let (mut ended, mut wakes) = (Vec::new(), Vec::new());
        for (&file, swarm) in self.files.iter().filter(|(_, swarm)| swarm.group == *group) {
            let peers = swarm.members.iter().map(|member| peer(&self.peers, member.peer));
            let theirs = peers.filter(|peer| user.is_none_or(|user| peer.user == *user));
            ended.extend(theirs.map(|peer| (peer.id, file)));
        }
        for (id, file) in &ended {
            self.remove(id, *file, &mut wakes);
        }
        (ended, wakes)
    }

    /// The peer's key, made if need be, with what it says of itself brought up to date.
    fn meet(&mut self, now: Duration, who: &Announcer, wakes: &mut Vec<Wake>) -> PeerKey {
        let Some(&key) = self.keys.get(&who.id) else { return self.admit(now, who) };
        let known = peer_mut(&mut self.peers, key);
        known.heard = known.heard.max(now);
        known.load = who.load;
        if known.address != who.address || known.user != who.user {
            known.address.clone_from(&who.address);
            known.user.clone_from(&who.user);
            for file in known.files.clone() {
                if let Some(swarm) = self.files.get_mut(&file) {
                    swarm.retract(key, file, &self.peers, wakes);
                }
            }
        }
        key
    }

    fn admit(&mut self, now: Duration, who: &Announcer) -> PeerKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            PeerKey(self.peers.len() as u32 - 1)
        });
        self.peers[key.0 as usize] = Some(Peer {
            id: who.id,
            user: who.user.clone(),
            address: who.address.clone(),
            load: who.load,
            heard: now,
            files: Vec::new(),
        });
        self.keys.insert(who.id, key);
        key
    }

    /// Takes the peer out of a swarm, and forgets it with its last.
    fn remove(&mut self, id: &PeerId, file: FileId, wakes: &mut Vec<Wake>) {
        let Some(&key) = self.keys.get(id) else { return };
        let Some(swarm) = self.files.get_mut(&file) else { return };
        if !swarm.places.contains_key(&key) {
            return;
        }
        if swarm.is_source(key) {
            swarm.retract(key, file, &self.peers, wakes);
        }
        swarm.remove(key);
        if swarm.members.is_empty() {
            self.files.remove(&file);
        }
        let files = &mut peer_mut(&mut self.peers, key).files;
        files.retain(|other| *other != file);
        if files.is_empty() {
            self.keys.remove(id);
            self.peers[key.0 as usize] = None;
            self.free.push(key);
        }
    }
}

fn peer(peers: &[Option<Peer>], key: PeerKey) -> &Peer {
    peers[key.0 as usize].as_ref().expect("a key is only held while its peer is there")
}

fn peer_mut(peers: &mut [Option<Peer>], key: PeerKey) -> &mut Peer {
    peers[key.0 as usize].as_mut().expect("a key is only held while its peer is there")
}

impl Member {
    fn pieces(&self, layout: PieceLayout) -> u32 {
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
    fn new(group: GroupId, layout: PieceLayout) -> Self {
        Self { group, layout, members: Vec::new(), places: HashMap::new(), sources: 0, seeders: 0 }
    }

    /// Adds a member that holds nothing. False when it is one already.
    fn join(&mut self, key: PeerKey) -> bool {
        if self.places.contains_key(&key) {
            return false;
        }
        self.places.insert(key, self.members.len() as u32);
        let holding = Holding::Partial(Bitfield::empty(self.layout));
        self.members.push(Member { peer: key, holding, leech: None });
        self.normalize(key);
        true
    }

    /// Takes what a member says that it holds.
    fn update(&mut self, key: PeerKey, holds: Holds) {
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

    fn remove(&mut self, key: PeerKey) {
        let Some(&place) = self.places.get(&key) else { return };
        let mut place = place as usize;
        self.seeders -= u32::from(matches!(self.members[place].holding, Holding::Complete));
        if place < self.sources {
            self.sources -= 1;
            self.swap(place, self.sources);
            place = self.sources;
        }
        self.swap(place, self.members.len() - 1);
        self.members.pop();
        self.places.remove(&key);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.members.swap(a, b);
        self.places.insert(self.members[a].peer, a as u32);
        self.places.insert(self.members[b].peer, b as u32);
    }

    fn is_source(&self, key: PeerKey) -> bool {
        self.places.get(&key).is_some_and(|&place| (place as usize) < self.sources)
    }

    /// Notes whether the member is to be told of sources; `anew`, as if it had never been told of any.
    fn want(&mut self, key: PeerKey, wants: bool, anew: bool) {
        if let Some(&place) = self.places.get(&key) {
            let member = &mut self.members[place as usize];
            // Who holds all can want nothing.
            let wants = wants && !matches!(member.holding, Holding::Complete);
            if !wants {
                member.leech = None;
            } else if anew || member.leech.is_none() {
                member.leech = Some(Box::default());
            }
        }
    }

    /// A new source: wakes those who know fewer than they may.
    fn wake_hungry(&mut self, source: PeerKey, file: FileId, peers: &[Option<Peer>], wakes: &mut Vec<Wake>) {
        for member in self.members.iter_mut().filter(|member| member.peer != source) {
            if let Some(leech) = &mut member.leech
                && leech.told.len() < MAX_SOURCES
            {
                leech.wake(peer(peers, member.peer).id, file, wakes);
            }
        }
    }

    /// Wakes one leecher when there may be sources that it does not know.
    fn wake_if_hungry(&mut self, key: PeerKey, file: FileId, peers: &[Option<Peer>], wakes: &mut Vec<Wake>) {
        let Some(&place) = self.places.get(&key) else { return };
        let others = self.sources - usize::from((place as usize) < self.sources);
        if let Some(leech) = &mut self.members[place as usize].leech
            && leech.told.len() < others.min(MAX_SOURCES)
        {
            leech.wake(peer(peers, key).id, file, wakes);
        }
    }

    /// Makes everybody forget a source, and wakes those who knew it.
    fn retract(&mut self, source: PeerKey, file: FileId, peers: &[Option<Peer>], wakes: &mut Vec<Wake>) {
        let id = peer(peers, source).id;
        for member in &mut self.members {
            if let Some(leech) = &mut member.leech
                && let Some(at) = leech.told.iter().position(|told| *told == source)
            {
                leech.told.swap_remove(at);
                if !leech.gone.contains(&id) {
                    leech.gone.push(id);
                }
                leech.wake(peer(peers, member.peer).id, file, wakes);
            }
        }
    }

    /// Sources that the member at `place`, or somebody who holds nothing, does not know yet, as many as it may be told.
    fn choose(
        &self,
        place: Option<usize>,
        peers: &[Option<Peer>],
        policy: &dyn Policy,
        chance: u64,
    ) -> Vec<PeerKey> {
        let asking = place.map(|place| &self.members[place]);
        let told = asking.and_then(|member| member.leech.as_ref()).map_or(&[][..], |leech| &leech.told);
        let wanted = |source: &&Member| {
            let (other, useful) = asking.map_or((true, true), |asking| {
                (source.peer != asking.peer, source.has_for(asking, self.layout))
            });
            other && useful && !told.contains(&source.peer)
        };
        let sources = &self.members[..self.sources];
        let start = if sources.is_empty() { 0 } else { (chance % sources.len() as u64) as usize };
        let stretch = sources[start..].iter().chain(&sources[..start]).take(LOOKED_AT);
        let mut candidates: Vec<_> = stretch
            .filter(wanted)
            .map(|source| Candidate {
                key: source.peer,
                pieces: source.pieces(self.layout),
                load: peer(peers, source.peer).load,
                chance: scramble(chance, source.peer.0),
            })
            .collect();
        policy.order(&mut candidates);

        let mut users: HashMap<&Username, usize> = HashMap::new();
        for &known in told {
            *users.entry(&peer(peers, known).user).or_default() += 1;
        }
        let mut few_of_a_user = |candidate: &Candidate| {
            let count = users.entry(&peer(peers, candidate.key).user).or_default();
            *count += 1;
            *count <= SOURCES_A_USER
        };
        let room = MAX_SOURCES.saturating_sub(told.len());
        candidates
            .into_iter()
            .filter(|candidate| few_of_a_user(candidate))
            .take(room)
            .map(|c| c.key)
            .collect()
    }

    fn source(&self, key: PeerKey, peers: &[Option<Peer>]) -> Source {
        let peer = peer(peers, key);
        Source {
            id: peer.id,
            user: peer.user.clone(),
            address: peer.address.clone(),
            pieces: self
                .places
                .get(&key)
                .map_or(0, |&place| self.members[place as usize].pieces(self.layout)),
            load: peer.load,
        }
    }
}

impl Leech {
    fn wake(&mut self, peer: PeerId, file: FileId, wakes: &mut Vec<Wake>) {
        if !std::mem::replace(&mut self.woken, true) {
            wakes.push(Wake { peer, file });
        }
    }
}

/// A number that looks random and is the same for the same two.
fn scramble(chance: u64, key: u32) -> u32 {
    let mixed = (chance ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

#[cfg(test)]
mod tests;
