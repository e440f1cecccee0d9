//! Who announces which file and holds which of its pieces. Pure: time and chance are arguments, duties are results.
//!
//! A [`Swarms`] is the whole state machine. A tracker may keep several and put each file into one of them: no call
//! spans two files of different ones, and a peer may be known to many.
//!
//! Leechers are told of at most [`MAX_SOURCES`](proto::domain::limits::MAX_SOURCES) sources. What there is to tell is
//! not queued but worked out when the leecher is ready to hear it ([`Swarms::pull`]), so a slow one costs no memory; the
//! other calls only say whom to wake.
//!
//! Non-goals: who may announce what (decided before), what is kept on disk (nothing).
//!
//! - [`peers`]: who there is.
//! - [`members`]: the peers of one file, and what each is told.

mod members;
mod peers;

use std::{collections::HashMap, sync::Arc, time::Duration};

use proto::domain::{Bitfield, FileId, GroupId, PeerId, PieceIndex, PieceLayout, Username};

use self::{
    members::Swarm,
    peers::{Peer, Peers},
};
use super::{population::Count, selection::Policy};

/// How long a peer is known after it was last heard of.
pub const LEASE: Duration = Duration::from_secs(30);

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
    pub address: Arc<str>,
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
    pub address: Arc<str>,
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

/// All swarms, or a share of them.
#[derive(Debug, Default)]
pub struct Swarms {
    files: HashMap<FileId, Swarm>,
    peers: Peers,
}

impl Swarms {
    /// The layout of a file of the group, if the peer announced it before and that still stands.
    pub fn announced(&self, peer: &PeerId, group: &GroupId, file: FileId) -> Option<PieceLayout> {
        let key = self.peers.key(peer)?;
        let swarm = self.files.get(&file).filter(|swarm| swarm.group == *group)?;
        swarm.places.contains_key(&key).then_some(swarm.layout)
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
            self.peers.get_mut(key).take_up(file);
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

    /// How many files are announced, by all peers together.
    pub fn leases(&self) -> usize {
        self.peers.iter().map(|peer| peer.files.len()).sum()
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
        if self.peers.key(&who.id).is_some() {
            let key = self.meet(now, who, &mut wakes);
            for &file in &self.peers.get(key).files {
                if let Some(swarm) = self.files.get_mut(&file) {
                    swarm.wake_if_hungry(key, file, &self.peers, &mut wakes);
                }
            }
        }
        wakes
    }

    /// What the leecher has not been told of the file; it counts as told from then on. `None` when there is nothing.
    pub fn pull(&mut self, leecher: &PeerId, file: FileId, policy: &dyn Policy, chance: u64) -> Option<News> {
        let key = self.peers.key(leecher)?;
        let swarm = self.files.get_mut(&file)?;
        let place = *swarm.places.get(&key)? as usize;
        swarm.members[place].leech.as_mut()?.woken = false;
        let chosen = swarm.choose(Some(place), &self.peers, policy, chance);
        let sources: Vec<_> = chosen.iter().map(|source| self.peers.source(source)).collect();
        swarm.note_told(place, &chosen);
        let leech = swarm.members[place].leech.as_mut()?;
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
        chosen.iter().map(|source| self.peers.source(source)).collect()
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
        let late: Vec<_> = self.peers.iter().filter(over).map(|peer| peer.id).collect();
        let mut wakes = Vec::new();
        for id in late {
            wakes.extend(self.forget(&id));
        }
        wakes
    }

    /// Forgets a peer and all that it announced.
    pub fn forget(&mut self, id: &PeerId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        while let Some(key) = self.peers.key(id) {
            let Some(&file) = self.peers.get(key).files.last() else { break };
            self.remove(id, file, &mut wakes);
        }
        wakes
    }

    /// Ends a file: forgets it and returns those who announced it.
    pub fn end_file(&mut self, file: FileId) -> Vec<PeerId> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let all: Vec<_> = swarm.members.iter().map(|member| self.peers.get(member.peer).id).collect();
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
            let peers = swarm.members.iter().map(|member| self.peers.get(member.peer));
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
        let Some(key) = self.peers.key(&who.id) else { return self.peers.admit(now, who) };
        let known = self.peers.get_mut(key);
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

    /// Takes the peer out of a swarm, and forgets it with its last.
    fn remove(&mut self, id: &PeerId, file: FileId, wakes: &mut Vec<Wake>) {
        let Some(key) = self.peers.key(id) else { return };
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
        let files = &mut self.peers.get_mut(key).files;
        files.retain(|other| *other != file);
        if files.is_empty() {
            self.peers.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
