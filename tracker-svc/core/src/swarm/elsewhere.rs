//! Peers whose streams other trackers of the network hold.
//!
//! A tracker tells the others what changes about its own peers: who has how much of which file, and where. It
//! keeps the pieces to itself. What the others say fills the same swarms, so that one state machine decides who is
//! told about which source. A peer is in one place: here, or at one other tracker, where its newest stream is. The
//! owner of the swarms compares that with the streams here before it calls [`Swarms::learn`].
//!
//! Nothing is decided here about the life of other trackers. A peer elsewhere stays until its tracker takes it back,
//! or until its tracker is forgotten.

use std::{collections::HashSet, time::Duration};

use domain::{FileId, PeerId};

use super::{
    Swarms,
    members::Swarm,
    peers::Peer,
    types::{Fact, Holds, Share, TrackerNo, Wake},
};

impl Swarms {
    /// From now on, notes what changes about the peers here.
    pub fn share(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Takes what has changed about the peers here since the last call: each peer and file once. What is true of
    /// them now, [`Swarms::fact`] tells.
    pub fn take_changed(&mut self) -> Vec<(PeerId, FileId)> {
        self.changed.as_mut().map(|changed| changed.drain().collect()).unwrap_or_default()
    }

    /// The fact that is shared about a peer here and a file. `None` if the peer does not announce the file here.
    pub fn fact(&self, id: &PeerId, file: FileId) -> Option<Fact> {
        let key = self.peers.key(id)?;
        let swarm = self.files.get(&file)?;
        let share = swarm.share(key).filter(|_| self.peers.get(key).elsewhere.is_none())?;
        Some(Fact {
            peer: self.peers.announcing(key),
            group: swarm.group.clone(),
            file,
            layout: swarm.layout,
            share,
        })
    }

    /// The facts that are shared about all peers here.
    pub fn facts(&self) -> Vec<Fact> {
        let here = self.peers.iter().filter(|peer| peer.elsewhere.is_none());
        here.flat_map(|peer| peer.files.iter().filter_map(|&file| self.fact(&peer.id, file))).collect()
    }

    /// Whether the peer is known, and its stream is at another tracker.
    pub fn is_elsewhere(&self, id: &PeerId) -> bool {
        self.peers.key(id).is_some_and(|key| self.peers.get(key).elsewhere.is_some())
    }

    /// Whether the peer announces a file here.
    pub fn is_here(&self, id: &PeerId) -> bool {
        self.peers.key(id).is_some_and(|key| self.peers.get(key).elsewhere.is_none())
    }

    /// Takes in what another tracker says about a peer, whose stream there was opened at `since`. If the peer was
    /// here, that is over. If it has a newer stream at a third tracker, nothing happens. All trackers count `since`
    /// alike.
    pub fn learn(&mut self, at: TrackerNo, since: u64, fact: &Fact) -> Vec<Wake> {
        let Fact { peer: who, group, file, layout, share } = fact;
        let known = self.peers.key(&who.id).map(|key| self.peers.get(key));
        let is_newer = |peer: &Peer| peer.elsewhere.is_some_and(|other| other != at) && peer.since > since;
        if known.is_some_and(is_newer) {
            return Vec::new();
        }
        let stays = known.is_some_and(|peer| peer.elsewhere == Some(at) && peer.user == who.user);
        let mut wakes = if stays { Vec::new() } else { self.forget(&who.id) };
        let key = if stays {
            self.upsert_peer(Duration::ZERO, who, &mut wakes)
        } else {
            self.peers.admit(Duration::ZERO, who, Some((at, since)))
        };
        self.peers.get_mut(key).since = since;
        let swarm = self.files.entry(*file).or_insert_with(|| Swarm::new(group.clone(), *layout));
        if swarm.join(key) {
            self.peers.get_mut(key).take_up(*file);
        }
        let was_source = swarm.is_source(key);
        swarm.update(
            key,
            match share {
                Share::Nothing => Holds::Exactly(domain::Bitfield::empty(swarm.layout)),
                Share::Some => Holds::Some,
                Share::All => Holds::All,
            },
        );
        match (was_source, swarm.is_source(key)) {
            (false, true) => swarm.wake_hungry(key, *file, &self.peers, &mut wakes),
            (true, false) => swarm.retract(key, *file, &self.peers, &mut wakes),
            _ => {}
        }
        wakes
    }

    /// Another tracker takes back what it said about a peer and a file.
    pub fn unlearn(&mut self, at: TrackerNo, id: &PeerId, file: FileId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        if self.peers.key(id).is_some_and(|key| self.peers.get(key).elsewhere == Some(at)) {
            self.remove(id, file, &mut wakes);
        }
        wakes
    }

    /// Takes back everything that a tracker said, except about these peers and files.
    pub fn unlearn_others(&mut self, at: TrackerNo, stay: &HashSet<(PeerId, FileId)>) -> Vec<Wake> {
        let theirs = self.peers.iter().filter(|peer| peer.elsewhere == Some(at));
        let over = theirs.flat_map(|peer| peer.files.iter().map(|&file| (peer.id, file)));
        let over: Vec<_> = over.filter(|said| !stay.contains(said)).collect();
        let mut wakes = Vec::new();
        for (id, file) in over {
            self.remove(&id, file, &mut wakes);
        }
        wakes
    }

    /// Forgets all peers here. The peers of other trackers stay.
    pub fn start_over(&mut self) {
        if self.changed.is_none() {
            *self = Self::default();
            return;
        }
        let here: Vec<_> =
            self.peers.iter().filter(|peer| peer.elsewhere.is_none()).map(|peer| peer.id).collect();
        for id in here {
            // All streams start again, so nobody has to be woken.
            self.forget(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Bitfield, GroupId, PIECE_LENGTH, PieceLayout, Username};

    use super::*;
    use crate::{
        selection::FewestPieces,
        swarm::{AnnouncingPeer, FileAnnounce, LEASE},
    };

    const A: TrackerNo = TrackerNo(1);
    const B: TrackerNo = TrackerNo(2);

    fn file() -> FileId {
        FileId::try_from(&[1; 16][..]).expect("a file id")
    }

    fn group() -> GroupId {
        "films".parse().expect("a group")
    }

    fn layout() -> PieceLayout {
        PieceLayout::new(8 * u64::from(PIECE_LENGTH)).expect("a length")
    }

    fn peer(number: u8) -> AnnouncingPeer {
        let user: Username = format!("user{number}").parse().expect("a username");
        let addresses = format!("10.0.0.{number}:1").into();
        AnnouncingPeer { id: PeerId::from([number; 32]), user, addresses, load: 0 }
    }

    fn fact(number: u8, share: Share) -> Fact {
        Fact { peer: peer(number), group: group(), file: file(), layout: layout(), share }
    }

    fn announce(swarms: &mut Swarms, number: u8, holds: Holds) -> Vec<Wake> {
        let wants_sources = !matches!(holds, Holds::All);
        let announce = FileAnnounce { group: group(), file: file(), layout: layout(), holds, wants_sources };
        swarms.announce(Duration::ZERO, &peer(number), announce).expect("all that it has")
    }

    fn nothing() -> Holds {
        Holds::Exactly(Bitfield::empty(layout()))
    }

    fn sources(swarms: &mut Swarms, leecher: u8) -> (Vec<PeerId>, Vec<PeerId>) {
        let update = swarms.pull(&peer(leecher).id, file(), &FewestPieces, 7);
        update.map_or_else(Default::default, |update| {
            (update.sources.into_iter().map(|source| source.id).collect(), update.gone)
        })
    }

    #[test]
    fn leechers_here_are_told_about_sources_elsewhere() {
        let mut swarms = Swarms::default();
        announce(&mut swarms, 1, nothing());
        assert!(swarms.learn(A, 1, &fact(2, Share::Nothing)).is_empty(), "it has nothing to give");
        assert_eq!(swarms.learn(A, 1, &fact(2, Share::Some)), [Wake { peer: peer(1).id, file: file() }]);
        swarms.learn(B, 1, &fact(3, Share::All));
        assert_eq!(sources(&mut swarms, 1), (vec![peer(2).id, peer(3).id], vec![]));
        assert_eq!((swarms.count(file()).seeders, swarms.count(file()).leechers), (1, 2));
        assert_eq!(swarms.leases(), 1, "only those here are counted");
        assert_eq!(swarms.find(file(), &FewestPieces, 7).len(), 2);
        // Their trackers end their leases, and nobody else takes back what a tracker said.
        swarms.expire(LEASE * 10);
        assert!(swarms.unlearn(A, &peer(3).id, file()).is_empty());
        assert_eq!(swarms.unlearn(B, &peer(3).id, file()).len(), 0, "the leecher here is over");
        assert_eq!(swarms.count(file()).seeders, 0);
    }

    #[test]
    fn a_tracker_that_is_forgotten_takes_its_peers_along() {
        let mut swarms = Swarms::default();
        announce(&mut swarms, 1, nothing());
        swarms.learn(A, 1, &fact(2, Share::All));
        swarms.learn(B, 1, &fact(3, Share::All));
        assert_eq!(sources(&mut swarms, 1).0.len(), 2);
        let stay = HashSet::from([(peer(3).id, file())]);
        assert!(swarms.unlearn_others(B, &stay).is_empty());
        assert_eq!(swarms.unlearn_others(A, &HashSet::new()).len(), 1);
        assert_eq!(sources(&mut swarms, 1), (vec![], vec![peer(2).id]));
    }

    #[test]
    fn a_peer_is_in_one_place() {
        let mut swarms = Swarms::default();
        swarms.share();
        swarms.learn(A, 1, &fact(1, Share::All));
        assert!(swarms.announced(&peer(1).id, &group(), file()).is_none(), "no right comes from elsewhere");
        let pieces = FileAnnounce {
            group: group(),
            file: file(),
            layout: layout(),
            holds: Holds::Also(vec![]),
            wants_sources: true,
        };
        assert!(swarms.announce(Duration::ZERO, &peer(1), pieces).is_err(), "it has no baseline here");
        announce(&mut swarms, 1, nothing());
        assert!(swarms.is_here(&peer(1).id) && !swarms.is_elsewhere(&peer(1).id));
        assert_eq!((swarms.count(file()).seeders, swarms.count(file()).leechers), (0, 1));
        assert_eq!(swarms.unlearn(A, &peer(1).id, file()), [], "it moved here meanwhile");
        assert_eq!(swarms.count(file()).leechers, 1);
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        // And back.
        swarms.learn(B, 8, &fact(1, Share::All));
        assert!(swarms.is_elsewhere(&peer(1).id));
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        assert_eq!(swarms.fact(&peer(1).id, file()), None, "it is no longer told from here");
        // What a third tracker says of an older stream comes late.
        assert!(swarms.learn(A, 7, &fact(1, Share::Nothing)).is_empty());
        swarms.unlearn(A, &peer(1).id, file());
        assert_eq!(swarms.count(file()).seeders, 1);
        swarms.learn(A, 9, &fact(1, Share::Nothing));
        swarms.unlearn(B, &peer(1).id, file());
        assert_eq!((swarms.count(file()).seeders, swarms.count(file()).leechers), (0, 1));
    }

    #[test]
    fn only_changes_are_told() {
        let mut swarms = Swarms::default();
        announce(&mut swarms, 9, Holds::All);
        swarms.share();
        assert!(swarms.take_changed().is_empty(), "what was there is among all facts");
        assert_eq!(swarms.facts(), [fact(9, Share::All)]);
        announce(&mut swarms, 1, nothing());
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        announce(&mut swarms, 1, nothing());
        swarms.renew(Duration::ZERO, &peer(1));
        assert!(swarms.take_changed().is_empty(), "a renewed lease is no news");
        let one = layout().index(3).expect("a piece");
        announce(&mut swarms, 1, Holds::Also(vec![one]));
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        assert_eq!(swarms.fact(&peer(1).id, file()).map(|fact| fact.share), Some(Share::Some));
        announce(&mut swarms, 1, Holds::Also(vec![layout().index(4).expect("a piece")]));
        assert!(swarms.take_changed().is_empty(), "which pieces it has stays here");
        let moved = AnnouncingPeer { addresses: "10.1.1.1:1".into(), ..peer(1) };
        swarms.renew(Duration::ZERO, &moved);
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        swarms.leave(&peer(1).id, file());
        assert_eq!(swarms.take_changed(), [(peer(1).id, file())]);
        assert_eq!(swarms.fact(&peer(1).id, file()), None);
        swarms.learn(A, 1, &fact(2, Share::All));
        swarms.start_over();
        assert_eq!(swarms.take_changed(), [(peer(9).id, file())]);
        assert!(swarms.is_elsewhere(&peer(2).id), "what others said stays");
    }
}
