//! The tracker, and how peers announce to it.

use std::time::Duration;

use peer::domain::download::Event;
use proto::domain::{FileId, GroupId, PieceLayout};
use rand::RngExt as _;
use tracker_svc::domain::{
    selection::FewestPieces,
    swarm::{Announcer, Holds, News, Swarms, Wake},
};

use super::{
    No,
    world::{Happening, World},
};

/// Pieces that were gained wait so long to be announced with others, as in the product; all but the first.
const COALESCE: Duration = Duration::from_secs(1);
/// A lease is renewed so often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The tracker looks so often for peers that fell silent.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// From a peer to the tracker.
const LATENCY: Duration = Duration::from_millis(10);

/// The tracker: its machine, and the one file that it knows.
pub(super) struct Tracker {
    swarms: Swarms,
    group: GroupId,
    layout: PieceLayout,
}

/// The file that everybody wants.
pub(super) fn file() -> FileId {
    FileId::try_from(&[1; 16][..]).expect("not nil")
}

impl Tracker {
    pub(super) fn new(layout: PieceLayout) -> Self {
        Self { swarms: Swarms::default(), group: "crowd".parse().expect("a group"), layout }
    }
}

impl World {
    /// Announces all that there is, at once.
    pub(super) fn announce_now(&mut self, no: No) {
        let host = self.host(no);
        host.unannounced.clear();
        let holds = if host.have.is_full() { Holds::All } else { Holds::Exactly(host.have.clone()) };
        self.announce(no, Some(holds));
    }

    /// Something was gained.
    pub(super) fn announce_soon(&mut self, no: No) {
        let now = self.clock.now();
        let host = self.host(no);
        let at = if host.have.count() == 1 { now } else { now + COALESCE };
        if host.unannounced.len() == 1 && host.announce_at.is_none_or(|before| before > at) {
            host.announce_at = Some(at);
            self.clock.plan(at, Happening::AnnounceDue(no));
        }
    }

    pub(super) fn announce_due(&mut self, no: No) {
        let now = self.clock.now();
        let host = self.host(no);
        if host.is_there() && host.announce_at == Some(now) {
            let gained = std::mem::take(&mut host.unannounced);
            self.announce(no, (!gained.is_empty()).then_some(Holds::Also(gained)));
        }
    }

    fn announce(&mut self, no: No, holds: Option<Holds>) {
        let at = self.clock.now() + HEARTBEAT;
        self.host(no).announce_at = Some(at);
        self.clock.plan(at, Happening::AnnounceDue(no));
        let there = self.leave(no, 50) + LATENCY;
        self.clock.plan(there, Happening::Announced(no, holds));
    }

    /// A peer's announce reaches the tracker.
    pub(super) fn announced(&mut self, no: No, holds: Option<Holds>) {
        let host = &self.hosts[no as usize];
        if !host.is_there() {
            return;
        }
        // Fits: both are bounded by the machine's options.
        let load = (host.upload.running() + host.upload.waiting()) as u32;
        let who = Announcer { id: host.id, user: host.user.clone(), address: "198.51.100.1:1".into(), load };
        let wants = host.leech.as_ref().is_some_and(|leech| leech.finished.is_none());
        let now = self.clock.now();
        let Tracker { swarms, group, layout } = &mut self.tracker;
        let mut wakes = match holds {
            Some(holds) => {
                let taken = swarms.announce(now, &who, group, file(), *layout, holds, wants);
                taken.expect("what was gained is announced after what there was")
            }
            None => Vec::new(),
        };
        wakes.extend(swarms.renew(now, &who));
        self.wake(wakes);
    }

    /// Tells leechers what is new to them.
    fn wake(&mut self, wakes: Vec<Wake>) {
        for wake in wakes {
            let news = self.tracker.swarms.pull(&wake.peer, file(), &FewestPieces, self.rng.random());
            if let Some(news) = news {
                let at = self.clock.now() + LATENCY;
                self.clock.plan(at, Happening::Told(self.numbers[&wake.peer], Box::new(news)));
            }
        }
    }

    pub(super) fn told(&mut self, no: No, news: News) {
        if self.hosts[no as usize].is_there() {
            news.gone.into_iter().for_each(|gone| self.feed(no, Event::SourceGone(gone)));
            news.sources.into_iter().for_each(|source| self.feed(no, Event::SourceFound(source.id)));
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
