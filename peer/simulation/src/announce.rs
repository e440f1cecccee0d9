//! The announces of peers to the tracker, and the tracker's answers.

use std::time::Duration;

use peer_core::{
    announce::{Held, Holding},
    download::Event,
};
use rand::RngExt as _;
use tracker_core::{
    selection::FewestPieces,
    swarm::{AnnouncingPeer, FileAnnounce, Holds, SourceUpdate, Wake},
};

use super::{
    No,
    tracker::{Tracker, file},
    world::{Happening, World},
};

/// Interval at which the tracker looks for peers whose lease has expired.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// One-way latency between a peer and the tracker.
const LATENCY: Duration = Duration::from_millis(10);

impl World {
    /// Reports everything that the peer has. Used when a stream to the tracker begins, and when the set of
    /// what the peer announces changes.
    pub(super) fn report_all(&mut self, no: No) {
        let have = &self.hosts[no as usize].have;
        let what = if have.is_full() { Held::Complete } else { Held::Bitfield(have.clone()) };
        self.report(no, what);
    }

    /// Reports that the peer has more of the file than it announced so far.
    pub(super) fn report(&mut self, no: No, what: Held) {
        let (now, group) = (self.clock.now(), self.tracker.group.clone());
        let host = self.host(no);
        let wants_sources = host.leech.as_ref().is_some_and(|leech| leech.finished.is_none());
        host.announces.report(now, Holding { group, file: file(), what, wants_sources });
        self.plan_announce(no);
    }

    /// Plans a wake-up for when the peer's next announce is due.
    fn plan_announce(&mut self, no: No) {
        let due = self.hosts[no as usize].announces.due();
        self.clock.plan(due, Happening::AnnounceDue(no));
    }

    /// Sends the announce that is due, unless it has been sent in the meantime.
    pub(super) fn announce_due(&mut self, no: No) {
        let now = self.clock.now();
        let host = self.host(no);
        if host.is_there() && host.announces.due() <= now {
            let message = host.announces.take(now);
            self.plan_announce(no);
            let there = self.leave(no, 50) + LATENCY;
            self.clock.plan(there, Happening::Announced(no, message));
        }
    }

    /// Handles a peer's announce when it reaches the tracker.
    pub(super) fn announced(&mut self, no: No, message: Vec<Holding>) {
        let host = &self.hosts[no as usize];
        if !host.is_there() {
            return;
        }
        // The cast is lossless: the upload options bound both numbers.
        let load = (host.upload.running() + host.upload.waiting()) as u32;
        let who =
            AnnouncingPeer { id: host.id, user: host.user.clone(), addresses: "198.51.100.1:1".into(), load };
        let now = self.clock.now();
        let Tracker { swarms, layout, .. } = &mut self.tracker;
        let mut wakes = Vec::new();
        for Holding { group, file, what, wants_sources } in message {
            let holds = match what {
                Held::Complete => Holds::All,
                Held::Bitfield(bits) => Holds::Exactly(bits),
                Held::Gained(pieces) => Holds::Also(pieces),
                Held::Left => {
                    wakes.extend(swarms.leave(&who.id, file));
                    continue;
                }
            };
            let announce = FileAnnounce { group, file, layout: *layout, holds, wants_sources };
            let taken = swarms.announce(now, &who, announce);
            wakes.extend(taken.expect("a stream begins with everything that the peer has"));
        }
        wakes.extend(swarms.renew(now, &who));
        self.wake(wakes);
    }

    /// Sends each leecher the changes that the tracker has for it.
    fn wake(&mut self, wakes: Vec<Wake>) {
        for wake in wakes {
            let update = self.tracker.swarms.pull(&wake.peer, file(), &FewestPieces, self.rng.random());
            if let Some(update) = update {
                let at = self.clock.now() + LATENCY;
                self.clock.plan(at, Happening::Told(self.numbers[&wake.peer], Box::new(update)));
            }
        }
    }

    pub(super) fn told(&mut self, no: No, update: SourceUpdate) {
        if self.hosts[no as usize].is_there() {
            update.gone.into_iter().for_each(|gone| self.feed(no, Event::SourceGone(gone)));
            update.sources.into_iter().for_each(|source| self.feed(no, Event::SourceFound(source.id)));
        }
    }

    pub(super) fn forget(&mut self, no: No) {
        let wakes = self.tracker.swarms.leave(&self.hosts[no as usize].id, file());
        self.wake(wakes);
    }

    pub(super) fn expire(&mut self) {
        let now = self.clock.now();
        let wakes = self.tracker.swarms.expire(now);
        self.wake(wakes);
        self.clock.plan(now + EXPIRE_EVERY, Happening::Expires);
    }
}
