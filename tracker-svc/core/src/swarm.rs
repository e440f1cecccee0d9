//! The swarms: which peer announces which file, and has which of its pieces. Pure: time and randomness are
//! arguments, and the work to do is the result.
//!
//! A [`Swarms`] is the whole state machine. A tracker may keep several and assign each file to one of them.
//! No call spans two files in different ones. A peer may be known to several.
//!
//! A leecher is told about at most [`MAX_SOURCES`](domain::limits::MAX_SOURCES) sources. Reports are not
//! queued. [`Swarms::pull`] computes the report when the leecher is ready for it, so a slow leecher costs no
//! memory. The other calls only return which leechers to wake.
//!
//! Non-goals: access control (done before), and persistence (there is none).
//!
//! - [`elsewhere`]: what other trackers of the network say about their peers, and what they are told.
//! - [`peers`]: the peers.
//! - [`members`]: the peers of one file, and what each leecher was told.
//! - [`sampling`]: which members of a large swarm are examined.
//! - [`types`]: the types that both use.

mod elsewhere;
mod members;
mod peers;
mod sampling;
pub(crate) mod types;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

pub use domain::limits::LEASE;
use domain::{FileId, GroupId, PeerId, PieceLayout, Username};

pub use self::types::{
    AnnouncingPeer, Fact, FileAnnounce, Holds, NoBaseline, PeerKey, Share, SourceInfo, SourceUpdate,
    TrackerNo, Wake,
};
use self::{
    members::Swarm,
    peers::{Peer, Peers},
};
use super::{selection::Policy, swarm_counts::Count};

/// All swarms, or one part of them.
#[derive(Debug, Default)]
pub struct Swarms {
    files: HashMap<FileId, Swarm>,
    peers: Peers,
    /// What changed since other trackers were told. `None` while there are no others.
    changed: Option<HashSet<(PeerId, FileId)>>,
}

impl Swarms {
    /// The layout of a file of the group, if the peer has announced the file and its lease still holds.
    pub fn announced(&self, peer: &PeerId, group: &GroupId, file: FileId) -> Option<PieceLayout> {
        // What another tracker says is no proof of membership here.
        let key = self.peers.key(peer).filter(|key| self.peers.get(*key).elsewhere.is_none())?;
        let swarm = self.files.get(&file).filter(|swarm| swarm.group == *group)?;
        swarm.places.contains_key(&key).then_some(swarm.layout)
    }

    /// Handles an announce, which also renews the peer's lease.
    ///
    /// # Errors
    /// [`NoBaseline`]. Nothing has changed then.
    pub fn announce(
        &mut self,
        now: Duration,
        who: &AnnouncingPeer,
        announce: FileAnnounce,
    ) -> Result<Vec<Wake>, NoBaseline> {
        let FileAnnounce { group, file, layout, holds, wants_sources } = announce;
        // A peer sends its full bitfield at the start of each stream. It has forgotten the sources that the
        // previous stream told it about.
        let is_first = !matches!(holds, Holds::Also(_));
        let starts_over = self.is_another_users(who) || self.is_elsewhere(&who.id);
        if !is_first && (starts_over || self.announced(&who.id, &group, file).is_none()) {
            return Err(NoBaseline);
        }
        // What another user announced with this key ends: this user may be no member of those groups. So does
        // what the peer announced at another tracker.
        let mut wakes = if starts_over { self.forget(&who.id) } else { Vec::new() };
        let key = self.upsert_peer(now, who, &mut wakes);
        let swarm = self.files.entry(file).or_insert_with(|| Swarm::new(group, layout));
        let is_new = swarm.join(key);
        if is_new {
            self.peers.get_mut(key).take_up(file);
        }
        let (was_source, before) = (swarm.is_source(key), swarm.share(key).filter(|_| !is_new));
        swarm.update(key, holds);
        if before != swarm.share(key)
            && let Some(changed) = &mut self.changed
        {
            changed.insert((who.id, file));
        }
        match (was_source, swarm.is_source(key)) {
            (false, true) => swarm.wake_hungry(key, file, &self.peers, &mut wakes),
            (true, false) => swarm.retract(key, file, &self.peers, &mut wakes),
            _ => {}
        }
        swarm.want(key, wants_sources, is_first);
        swarm.wake_if_hungry(key, file, &self.peers, &mut wakes);
        Ok(wakes)
    }

    /// The number of files announced here, summed over all peers.
    pub fn leases(&self) -> usize {
        self.peers.iter().filter(|peer| peer.elsewhere.is_none()).map(|peer| peer.files.len()).sum()
    }

    /// The number of files that at least one peer announces.
    pub fn swarms(&self) -> usize {
        self.files.len()
    }

    /// Removes the peer from the file's swarm.
    pub fn leave(&mut self, id: &PeerId, file: FileId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        self.remove(id, file, &mut wakes);
        wakes
    }

    /// Renews the peer's lease. If it is a leecher with room for more sources, it is woken.
    pub fn renew(&mut self, now: Duration, who: &AnnouncingPeer) -> Vec<Wake> {
        if self.is_another_users(who) {
            return self.forget(&who.id);
        }
        let mut wakes = Vec::new();
        if self.peers.key(&who.id).is_some() && !self.is_elsewhere(&who.id) {
            let key = self.upsert_peer(now, who, &mut wakes);
            for &file in &self.peers.get(key).files {
                if let Some(swarm) = self.files.get_mut(&file) {
                    swarm.wake_if_hungry(key, file, &self.peers, &mut wakes);
                }
            }
        }
        wakes
    }

    /// Returns the changes that the leecher was not told about yet, and marks them as told. Returns `None` if
    /// there are none.
    pub fn pull(
        &mut self,
        leecher: &PeerId,
        file: FileId,
        policy: &dyn Policy,
        tie_break: u64,
    ) -> Option<SourceUpdate> {
        let key = self.peers.key(leecher)?;
        let swarm = self.files.get_mut(&file)?;
        let place = *swarm.places.get(&key)? as usize;
        swarm.members[place].leech.as_mut()?.woken = false;
        let chosen = swarm.choose(Some(place), &self.peers, policy, tie_break);
        let sources: Vec<_> =
            chosen.iter().map(|source| self.peers.described(source.key, source.pieces)).collect();
        swarm.note_told(place, &chosen);
        let leech = swarm.members[place].leech.as_mut()?;
        let mut gone = std::mem::take(&mut leech.gone);
        // A peer whose addresses changed is both gone and new. It is reported as new only.
        gone.retain(|id| sources.iter().all(|source| source.id != *id));
        let update = SourceUpdate { group: swarm.group.clone(), sources, gone };
        (!update.sources.is_empty() || !update.gone.is_empty()).then_some(update)
    }

    /// Whether the leecher was told about this source of the file and this address, as a peer that the
    /// tracker sees at `observed`.
    pub fn was_told(
        &self,
        leecher: &PeerId,
        observed: IpAddr,
        file: FileId,
        source: &PeerId,
        address: &str,
    ) -> bool {
        let found = || {
            let (leecher, source) = (self.peers.key(leecher)?, self.peers.key(source)?);
            let swarm = self.files.get(&file)?;
            let leech = swarm.members[*swarm.places.get(&leecher)? as usize].leech.as_ref()?;
            let given = self.peers.get(source).addresses.given_to(observed);
            Some(leech.told.contains(&source) && given.split(',').any(|given| given == address))
        };
        found().unwrap_or_default()
    }

    /// Returns sources of the file for a peer that has no piece of it.
    pub fn find(&self, file: FileId, policy: &dyn Policy, tie_break: u64) -> Vec<SourceInfo> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let chosen = swarm.choose(None, &self.peers, policy, tie_break);
        chosen.iter().map(|source| self.peers.described(source.key, source.pieces)).collect()
    }

    /// All peers that announce the file, by id: at most `most` of those after `after`.
    pub fn everyone(&self, file: FileId, after: Option<&PeerId>, most: usize) -> Vec<SourceInfo> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let mut all: Vec<_> = swarm
            .members
            .iter()
            .map(|member| (self.peers.get(member.peer).id, member.peer, member.pieces(swarm.layout)))
            .filter(|(id, ..)| after.is_none_or(|after| id > after))
            .collect();
        if all.len() > most {
            all.select_nth_unstable_by_key(most, |(id, ..)| *id);
            all.truncate(most);
        }
        all.sort_unstable_by_key(|(id, ..)| *id);
        all.into_iter().map(|(_, key, pieces)| self.peers.described(key, pieces)).collect()
    }

    /// The number of peers that announce the file.
    pub fn count(&self, file: FileId) -> Count {
        self.files.get(&file).map_or_else(Count::default, |swarm| Count {
            seeders: swarm.seeders,
            leechers: swarm.members.len() as u32 - swarm.seeders,
        })
    }

    /// Forgets peers whose last message is more than [`LEASE`] ago.
    pub fn expire(&mut self, now: Duration) -> Vec<Wake> {
        // The tracker that holds a peer's stream ends its lease.
        let over = |peer: &&Peer| peer.elsewhere.is_none() && peer.heard + LEASE < now;
        let late: Vec<_> = self.peers.iter().filter(over).map(|peer| peer.id).collect();
        let mut wakes = Vec::new();
        for id in late {
            wakes.extend(self.forget(&id));
        }
        wakes
    }

    /// Forgets a peer and all its announces.
    pub fn forget(&mut self, id: &PeerId) -> Vec<Wake> {
        let mut wakes = Vec::new();
        while let Some(key) = self.peers.key(id) {
            let Some(&file) = self.peers.get(key).files.last() else { break };
            self.remove(id, file, &mut wakes);
        }
        wakes
    }

    /// Ends a file: forgets it and returns the peers that announced it.
    pub fn end_file(&mut self, file: FileId) -> Vec<PeerId> {
        let Some(swarm) = self.files.get(&file) else { return Vec::new() };
        let all: Vec<_> = swarm.members.iter().map(|member| self.peers.get(member.peer).id).collect();
        for id in &all {
            // Nobody is woken: all of them are told that the file ended.
            self.remove(id, file, &mut Vec::new());
        }
        all
    }

    /// Ends all announces for a group's files, of one user's peers or of all peers. Returns the ended
    /// announces and the leechers to wake.
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

    /// Whether the peer is known as another user's: that user's key was registered to this one.
    fn is_another_users(&self, who: &AnnouncingPeer) -> bool {
        self.peers.key(&who.id).is_some_and(|key| self.peers.get(key).user != who.user)
    }

    /// Returns the peer's key, and updates the peer's own data. Makes the key if the peer is new.
    fn upsert_peer(&mut self, now: Duration, who: &AnnouncingPeer, wakes: &mut Vec<Wake>) -> PeerKey {
        let Some(key) = self.peers.key(&who.id) else { return self.peers.admit(now, who, None) };
        self.peers.set_load(key, who.load);
        let known = self.peers.get_mut(key);
        known.heard = known.heard.max(now);
        if known.addresses != who.addresses {
            known.addresses.clone_from(&who.addresses);
            let (files, is_here) = (known.files.clone(), known.elsewhere.is_none());
            for file in files {
                if let Some(changed) = &mut self.changed
                    && is_here
                {
                    changed.insert((who.id, file));
                }
                if let Some(swarm) = self.files.get_mut(&file) {
                    swarm.retract(key, file, &self.peers, wakes);
                }
            }
        }
        key
    }

    /// Removes the peer from a swarm. Forgets the peer if that was its last swarm.
    fn remove(&mut self, id: &PeerId, file: FileId, wakes: &mut Vec<Wake>) {
        let Some(key) = self.peers.key(id) else { return };
        let Some(swarm) = self.files.get_mut(&file) else { return };
        if !swarm.places.contains_key(&key) {
            return;
        }
        if let Some(changed) = &mut self.changed
            && self.peers.get(key).elsewhere.is_none()
        {
            changed.insert((*id, file));
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
