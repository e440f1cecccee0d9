//! Who announces: the peers that a [`Swarms`](super::Swarms) knows.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, sync::Arc, time::Duration};

use hashbrown::HashTable;
use proto::domain::{FileId, PeerId, Username};

use super::{Announcer, PeerKey, Source};
use crate::domain::selection::Candidate;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) user: Username,
    pub(super) address: Arc<str>,
    pub(super) load: u32,
    pub(super) heard: Duration,
    pub(super) files: Vec<FileId>,
}

impl Peer {
    /// The peer announces that file, too.
    pub(super) fn take_up(&mut self, file: FileId) {
        if self.files.is_empty() {
            // Most have one: room for four would be a third of what a peer takes.
            self.files.reserve_exact(1);
        }
        self.files.push(file);
    }
}

/// The peers, by key and by id.
///
/// Invariant: each key in the table is of a peer that is there, and the other way round.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: Vec<Option<Peer>>,
    free: Vec<PeerKey>,
    /// By the hash of their ids. The ids are with the peers: a map with ids of its own would weigh nearly as much.
    keys: HashTable<PeerKey>,
    hasher: RandomState,
}

impl Peers {
    /// The key of a peer that is there.
    pub(super) fn key(&self, id: &PeerId) -> Option<PeerKey> {
        self.keys.find(self.hasher.hash_one(id), |key| self.get(*key).id == *id).copied()
    }

    pub(super) fn get(&self, key: PeerKey) -> &Peer {
        self.all[key.0 as usize].as_ref().expect("a key is only held while its peer is there")
    }

    pub(super) fn get_mut(&mut self, key: PeerKey) -> &mut Peer {
        self.all[key.0 as usize].as_mut().expect("a key is only held while its peer is there")
    }

    /// A source that was chosen, as others are told of it.
    pub(super) fn source(&self, chosen: &Candidate) -> Source {
        let Peer { id, user, address, .. } = self.get(chosen.key);
        Source {
            id: *id,
            user: user.clone(),
            address: Arc::clone(address),
            pieces: chosen.pieces,
            load: chosen.load,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().flatten()
    }

    /// Takes in a peer that is not there.
    pub(super) fn admit(&mut self, now: Duration, who: &Announcer) -> PeerKey {
        let key = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            PeerKey(self.all.len() as u32 - 1)
        });
        self.all[key.0 as usize] = Some(Peer {
            id: who.id,
            user: who.user.clone(),
            address: who.address.clone(),
            load: who.load,
            heard: now,
            files: Vec::new(),
        });
        let (all, hasher) = (&self.all, &self.hasher);
        let hash = |key: &PeerKey| {
            hasher.hash_one(all[key.0 as usize].as_ref().expect("each key in the table is of a peer").id)
        };
        self.keys.insert_unique(hash(&key), key, hash);
        key
    }

    /// Forgets a peer that is there.
    pub(super) fn remove(&mut self, key: PeerKey) {
        let hash = self.hasher.hash_one(self.get(key).id);
        if let Ok(entry) = self.keys.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        self.all[key.0 as usize] = None;
        self.free.push(key);
    }
}
