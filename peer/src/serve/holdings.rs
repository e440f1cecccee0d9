//! What this peer has, for the announcer: all of it at first, then what changes, merged while nobody asks.

use std::{collections::HashMap, sync::Arc};

use proto::domain::{FileId, GroupId, limits::MAX_PIECES_A_REQUEST};
use tokio::sync::watch;

use super::{
    have::Follower,
    shares::{Share, Shares},
};
use crate::engine::{Held, Holding};

/// What this peer has, told as it changes. Bounded: what is not fetched in time is merged.
pub struct Holdings {
    shares: Arc<Shares>,
    changed: watch::Receiver<()>,
    told: HashMap<FileId, Told>,
}

struct Told {
    group: GroupId,
    share: Arc<Share>,
    follower: Follower,
    wants_sources: bool,
}

impl Holdings {
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        let mut changed = shares.watch();
        changed.mark_changed();
        Self { shares, changed, told: HashMap::new() }
    }

    /// What is new, at least one file; waits until there is something.
    pub async fn next(&mut self) -> Vec<Holding> {
        loop {
            if self.changed.changed().await.is_err() {
                // The engine is gone: nothing changes any more.
                std::future::pending::<()>().await;
            }
            let news = self.news();
            if !news.is_empty() {
                return news;
            }
        }
    }

    fn news(&mut self) -> Vec<Holding> {
        let offered: HashMap<FileId, Arc<Share>> = self
            .shares
            .all()
            .into_iter()
            .filter(|share| share.withdrawn().is_none())
            .map(|share| (share.file, share))
            .collect();
        let mut news = Vec::new();
        self.told.retain(|file, told| {
            let stays = offered.get(file).is_some_and(|share| Arc::ptr_eq(share, &told.share));
            if !stays {
                let group = told.group.clone();
                news.push(Holding { group, file: *file, what: Held::Left, wants_sources: false });
            }
            stays
        });
        for (file, share) in offered {
            news.extend(match self.told.get_mut(&file) {
                Some(told) => told.news(),
                None => {
                    let told = Told {
                        group: share.group.clone(),
                        follower: share.have.follow(),
                        wants_sources: share.wants_sources(),
                        share,
                    };
                    let all = told.all();
                    self.told.insert(file, told);
                    Some(all)
                }
            });
        }
        news
    }
}

impl Told {
    fn holding(&self, what: Held) -> Holding {
        Holding { group: self.group.clone(), file: self.share.file, what, wants_sources: self.wants_sources }
    }

    fn all(&self) -> Holding {
        let bits = self.follower.told();
        self.holding(if bits.is_full() { Held::Complete } else { Held::Bitfield(bits.clone()) })
    }

    fn news(&mut self) -> Option<Holding> {
        let changes = self.follower.take(&self.share.have);
        let wants_sources = self.share.wants_sources();
        let same_wish = std::mem::replace(&mut self.wants_sources, wants_sources) == wants_sources;
        if changes.is_empty() && same_wish {
            return None;
        }
        let small = changes.lost.is_empty() && (1..=MAX_PIECES_A_REQUEST).contains(&changes.gained.len());
        if small && same_wish && !self.follower.told().is_full() {
            return Some(self.holding(Held::Gained(changes.gained)));
        }
        Some(self.all())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::domain::Bitfield;

    use super::*;
    use crate::{
        engine::Problem,
        serve::shares::Offer,
        storage::MemStore,
        test_support::{file_id, manifest_of},
    };

    #[tokio::test]
    async fn tells_all_then_changes_then_that_it_left() {
        let manifest = Arc::new(manifest_of(&[1; 3 * 524_288]));
        let layout = manifest.layout();
        let shares = Arc::new(Shares::default());
        let share = shares.add(Offer {
            group: "g1".parse().unwrap(),
            file: file_id(1),
            manifest: manifest.clone(),
            path: "/x".into(),
            have: Bitfield::empty(layout),
            reader: Arc::new(MemStore::new(manifest)),
            wants_sources: true,
        });
        let mut holdings = Holdings::new(shares.clone());
        let only = |news: Vec<Holding>| {
            assert_eq!(news.len(), 1);
            (news[0].what.clone(), news[0].wants_sources)
        };
        assert_eq!(only(holdings.next().await), (Held::Bitfield(Bitfield::empty(layout)), true));
        let piece = |index| layout.index(index).unwrap();
        share.gained(piece(2));
        share.gained(piece(0));
        assert_eq!(only(holdings.next().await), (Held::Gained(vec![piece(2), piece(0)]), true));
        share.lost(piece(2));
        let mut first = Bitfield::empty(layout);
        first.insert(piece(0));
        assert_eq!(only(holdings.next().await), (Held::Bitfield(first), true));
        share.replace_have(Bitfield::full(layout));
        share.set_wants_sources(false);
        assert_eq!(only(holdings.next().await), (Held::Complete, false));
        share.withdraw(Problem { reason: proto::reason::Reason::FileChanged, message: "changed".into() });
        assert_eq!(only(holdings.next().await).0, Held::Left);
        share.offer();
        assert_eq!(only(holdings.next().await), (Held::Complete, false));
        assert!(shares.remove(file_id(1)));
        assert_eq!(only(holdings.next().await).0, Held::Left);
    }
}
