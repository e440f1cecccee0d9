//! Reports to the announcer what this peer has: everything at first, then the changes. Changes are merged
//! until the announcer asks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use proto::domain::{FileId, GroupId, limits::MAX_PIECES_A_REQUEST};

use super::{
    have::Follower,
    news::{Changed, NewsFollower},
    shares::{Share, Shares},
};
use peer_core::announce::{Held, Holding};

/// Reports what this peer has, as it changes. The memory is bounded: changes that are not fetched in time are
/// merged.
pub struct Holdings {
    shares: Arc<Shares>,
    changed: NewsFollower,
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
        Self { changed: shares.follow(), shares, told: HashMap::new() }
    }

    /// Waits for changes, and returns those of at least one file.
    pub async fn next(&mut self) -> Vec<Holding> {
        loop {
            let Some(changed) = self.changed.next().await else {
                // The engine is gone, so nothing changes any more.
                return std::future::pending().await;
            };
            let news = match changed {
                Changed::Files(files) => self.news(files),
                Changed::All => {
                    let offered = self.shares.all().into_iter().map(|share| share.file);
                    let files = offered.chain(self.told.keys().copied()).collect();
                    self.news(files)
                }
            };
            if !news.is_empty() {
                return news;
            }
        }
    }

    /// The changes of these files.
    fn news(&mut self, files: HashSet<FileId>) -> Vec<Holding> {
        let mut news = Vec::new();
        for file in files {
            let offered = self.shares.get(file).filter(|share| share.withdrawn().is_none());
            let is_same = |told: &Told| offered.as_ref().is_some_and(|share| Arc::ptr_eq(share, &told.share));
            if let Some(told) = self.told.get_mut(&file).filter(|told| is_same(told)) {
                news.extend(told.news());
                continue;
            }
            if let Some(told) = self.told.remove(&file) {
                news.push(Holding { group: told.group, file, what: Held::Left, wants_sources: false });
            }
            if let Some(share) = offered {
                let told = Told {
                    group: share.group.clone(),
                    follower: share.have.follow(),
                    wants_sources: share.wants_sources(),
                    share,
                };
                news.push(told.all());
                self.told.insert(file, told);
            }
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
    use testkit::content::{file_id, manifest};

    use super::*;
    use crate::{ports::Problem, serve::shares::Offer, storage::MemStore};

    #[tokio::test]
    async fn tells_all_then_changes_then_that_it_left() {
        let manifest = Arc::new(manifest("file", &[1; 3 * 524_288]));
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
            folder: None,
            only: Vec::new(),
            problem: None,
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
