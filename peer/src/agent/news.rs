//! The news of groups that the subscriptions have not handled yet.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use proto::domain::{FileName, GroupId};
use tokio::sync::Notify;

use crate::domain::subscription::Listed;

/// The most published files that wait to be handled one by one. Beyond that, their groups are listed.
const MOST_NEWS: usize = 1_000;

/// What the tracker told, and the subscriptions have not handled.
#[derive(Default)]
pub(super) struct News {
    pub(super) told: Mutex<Told>,
    pub(super) arrived: Notify,
    /// Held while a group is listed and the list is compared with what was seen. So no news is lost between the two.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Files that this peer is publishing: they are here, though the library does not have them yet.
    publishing: Mutex<Vec<(GroupId, FileName)>>,
}

/// News of groups.
#[derive(Default)]
pub(super) struct Told {
    pub(super) published: Vec<(GroupId, Listed)>,
    /// Groups that must be listed.
    pub(super) groups: BTreeSet<GroupId>,
    /// All groups must be listed.
    pub(super) everything: bool,
}

/// A file that is being published. Its group is listed again afterwards.
pub(super) struct Publishing<'a> {
    news: &'a News,
    file: (GroupId, FileName),
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.news.publishing.lock().retain(|file| *file != self.file);
        self.news.unlisted([self.file.0.clone()]);
    }
}

impl News {
    /// Notes that the announce stream was opened.
    pub(super) fn stream_opened(&self) {
        self.note(|told| told.everything = true);
    }

    /// Notes a published file.
    pub(super) fn published(&self, group: GroupId, listed: Listed) {
        self.note(|told| {
            if told.published.len() < MOST_NEWS {
                told.published.push((group, listed));
            } else {
                told.groups.insert(group);
            }
        });
    }

    /// Notes that groups must be listed.
    pub(super) fn unlisted(&self, groups: impl IntoIterator<Item = GroupId>) {
        self.note(|told| told.groups.extend(groups));
    }

    /// Notes that this peer publishes a file, for as long as the guard lives.
    pub(super) fn publishing(&self, group: &GroupId, name: &FileName) -> Publishing<'_> {
        let file = (group.clone(), name.clone());
        self.publishing.lock().push(file.clone());
        Publishing { news: self, file }
    }

    pub(super) fn is_publishing(&self, group: &GroupId, name: &FileName) -> bool {
        self.publishing.lock().iter().any(|(of, publishing)| of == group && publishing == name)
    }

    fn note(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.arrived.notify_one();
    }
}
