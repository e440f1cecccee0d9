//! Which shares have changed, for any number of followers at their own pace. With many shares, a follower looks
//! at those that changed and not at all of them.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use proto::domain::FileId;
use tokio::sync::watch;

/// The number of changes that are kept. A follower that is further behind looks at all shares.
const LOG: usize = 4_096;

/// The changes of all shares. Cheap to clone: all clones are the same.
#[derive(Clone, Default)]
pub(crate) struct News {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    log: Mutex<Log>,
    /// The number of changes so far.
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    /// The files that changed last.
    files: VecDeque<FileId>,
    /// The number of changes so far.
    count: u64,
}

/// What a follower has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Every share.
    All,
    /// These shares, which may be gone by now.
    Files(HashSet<FileId>),
}

/// One follower.
pub(crate) struct NewsFollower {
    news: News,
    /// The number of changes that it knows; `None` at first.
    at: Option<u64>,
    count: watch::Receiver<u64>,
}

impl News {
    /// Notes that something about the share of this file has changed.
    pub(crate) fn note(&self, file: FileId) {
        let count = {
            let mut log = self.inner.log.lock();
            if log.files.len() == LOG {
                log.files.pop_front();
            }
            log.files.push_back(file);
            log.count += 1;
            log.count
        };
        self.inner.count.send_replace(count);
    }

    /// A follower that has seen nothing yet.
    pub(crate) fn follow(&self) -> NewsFollower {
        let mut count = self.inner.count.subscribe();
        count.mark_changed();
        NewsFollower { news: self.clone(), at: None, count }
    }
}

impl NewsFollower {
    /// Waits for changes. `None` when there will be none any more.
    pub(crate) async fn next(&mut self) -> Option<Changed> {
        self.count.changed().await.ok()?;
        let log = self.news.inner.log.lock();
        let behind = self.at.replace(log.count).map(|at| log.count - at);
        let kept = log.files.len();
        let behind = behind.and_then(|behind| usize::try_from(behind).ok()).filter(|behind| *behind <= kept);
        Some(match behind {
            Some(behind) => Changed::Files(log.files.range(kept - behind..).copied().collect()),
            None => Changed::All,
        })
    }
}

#[cfg(test)]
mod tests {
    use testkit::content::file_id;

    use super::*;

    #[tokio::test]
    async fn a_follower_looks_at_all_at_first_and_then_at_what_changed() {
        let news = News::default();
        news.note(file_id(1));
        let mut follower = news.follow();
        assert_eq!(follower.next().await, Some(Changed::All));
        for byte in [2, 3, 2] {
            news.note(file_id(byte));
        }
        assert_eq!(follower.next().await, Some(Changed::Files([file_id(2), file_id(3)].into())));
        for _ in 0..=LOG {
            news.note(file_id(4));
        }
        assert_eq!(follower.next().await, Some(Changed::All), "it was too far behind");
    }
}
