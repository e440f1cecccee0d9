//! The peers that a [`Swarms`](super::Swarms) knows.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, time::Duration};

use domain::{FileId, PeerId, Username};
use hashbrown::HashTable;

use super::{
    sampling::fingerprint,
    types::{AnnouncingPeer, PeerKey, SourceInfo, TrackerNo},
};
use crate::address::Addresses;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) user: Username,
    pub(super) addresses: Addresses,
    pub(super) heard: Duration,
    /// The tracker that holds its stream, if that is not this one.
    pub(super) elsewhere: Option<TrackerNo>,
    /// When its stream there was opened. 0 for a peer here.
    pub(super) since: u64,
    pub(super) files: Vec<FileId>,
}

impl Peer {
    /// Records that the peer announces this file too.
    pub(super) fn take_up(&mut self, file: FileId) {
        if self.files.is_empty() {
            // Most peers announce one file. Room for four would be a third of a peer's memory.
            self.files.reserve_exact(1);
        }
        self.files.push(file);
    }
}

/// What the choice of sources reads of each peer that it examines. These are kept together, apart from the rest of the
/// peers, so that the processor's cache holds those of a large swarm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    /// The number of the peer's uploads, running and waiting.
    pub(super) load: u32,
    /// The [`fingerprint`] of the peer's user.
    pub(super) user: u32,
}

/// The peers, by key and by id.
///
/// Invariant: each key in the table belongs to an existing peer, and each existing peer has its key in the
/// table.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: Vec<Option<Peer>>,
    /// One for each entry of `all`.
    briefs: Vec<Brief>,
    free: Vec<PeerKey>,
    /// By the hash of the peers' ids. The ids are stored with the peers: a map with its own copy of the ids
    /// would need nearly as much memory.
    keys: HashTable<PeerKey>,
    hasher: RandomState,
}

impl Peers {
    /// The key of a peer, if it exists.
    pub(super) fn key(&self, id: &PeerId) -> Option<PeerKey> {
        self.keys.find(self.hasher.hash_one(id), |key| self.get(*key).id == *id).copied()
    }

    pub(super) fn get(&self, key: PeerKey) -> &Peer {
        self.all[key.0 as usize].as_ref().expect("a key is only held while its peer is there")
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> &mut Peer {
        self.all[key.0 as usize].as_mut().expect("a key is only held while its peer is there")
    }

    pub(super) fn brief(&self, key: PeerKey) -> Brief {
        self.briefs[key.0 as usize]
    }

    /// Whether two peers are of one user. Their names are read only if the fingerprints are equal.
    pub(super) fn have_same_user(&self, one: PeerKey, other: PeerKey) -> bool {
        self.brief(one).user == self.brief(other).user && self.get(one).user == self.get(other).user
    }

    pub(super) fn set_load(&mut self, key: PeerKey, load: u32) {
        self.briefs[key.0 as usize].load = load;
    }

    /// A peer, as it announced itself.
    pub(super) fn announcing(&self, key: PeerKey) -> AnnouncingPeer {
        let Peer { id, user, addresses, .. } = self.get(key);
        let load = self.brief(key).load;
        AnnouncingPeer { id: *id, user: user.clone(), addresses: addresses.clone(), load }
    }

    /// A peer with this number of a file's pieces, as others are told about it.
    pub(super) fn described(&self, key: PeerKey, pieces: u32) -> SourceInfo {
        let AnnouncingPeer { id, user, addresses, load } = self.announcing(key);
        SourceInfo { id, user, addresses, pieces, load }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().flatten()
    }

    /// Adds a peer that does not exist yet.
    pub(super) fn admit(
        &mut self,
        now: Duration,
        who: &AnnouncingPeer,
        elsewhere: Option<(TrackerNo, u64)>,
    ) -> PeerKey {
        let brief = Brief { load: who.load, user: fingerprint(&who.user) };
        let key = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.briefs.push(brief);
            PeerKey(self.all.len() as u32 - 1)
        });
        self.briefs[key.0 as usize] = brief;
        self.all[key.0 as usize] = Some(Peer {
            id: who.id,
            user: who.user.clone(),
            addresses: who.addresses.clone(),
            heard: now,
            elsewhere: elsewhere.map(|(tracker, _)| tracker),
            since: elsewhere.map_or(0, |(_, since)| since),
            files: Vec::new(),
        });
        let (all, hasher) = (&self.all, &self.hasher);
        let hash = |key: &PeerKey| {
            hasher.hash_one(all[key.0 as usize].as_ref().expect("each key in the table is of a peer").id)
        };
        self.keys.insert_unique(hash(&key), key, hash);
        key
    }

    /// Forgets an existing peer.
    pub(super) fn remove(&mut self, key: PeerKey) {
        let hash = self.hasher.hash_one(self.get(key).id);
        if let Ok(entry) = self.keys.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        self.all[key.0 as usize] = None;
        self.free.push(key);
    }
}
