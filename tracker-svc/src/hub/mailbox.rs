//! What one announce stream has to tell its peer, kept as marks and worked out when the stream is ready to send.
//!
//! Marks can't grow past what the peer announces, so a stream that is read slowly costs no memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    domain::{FileId, GroupId, PeerId, Username},
    reason::Reason,
};
use tokio::sync::Notify;

use crate::domain::SessionHash;

/// Why a stream ends before its peer ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The session is over.
    SessionEnded,
    /// A newer stream of the same peer.
    Replaced,
    /// What the stream was told may be out of date: the peer is to begin anew.
    Stale,
}

/// What one announce stream has to tell, as marks.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) peer: PeerId,
    pub(crate) user: Username,
    pub(crate) session: SessionHash,
    mail: Mutex<Mail>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    /// Files with news of sources.
    woken: HashSet<FileId>,
    /// Files that the peer must let go of.
    ended: HashMap<FileId, (GroupId, Reason)>,
    /// Least epochs of the groups that the peer announces in, and whether the peer was told.
    epochs: HashMap<GroupId, (u64, bool)>,
    /// The ticket keys are others than those told last.
    keys: bool,
    over: Option<Over>,
}

/// What a stream takes out of its mailbox at once.
#[derive(Debug, Default)]
pub(crate) struct Letter {
    pub(crate) woken: Vec<FileId>,
    pub(crate) ended: Vec<(FileId, GroupId, Reason)>,
    pub(crate) epochs: Vec<(GroupId, u64)>,
    pub(crate) keys: bool,
}

impl Letter {
    pub(crate) fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.ended.is_empty() && self.epochs.is_empty() && !self.keys
    }
}

impl Mailbox {
    /// Of a stream of this peer, opened in this session.
    pub(crate) fn new(peer: PeerId, user: Username, session: SessionHash) -> Arc<Self> {
        Arc::new(Self { peer, user, session, mail: Mutex::default(), arrived: Notify::new() })
    }

    /// Resolves when something was marked since the last time. Cancel safe.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Marks it again after [`Self::arrived`], for somebody who only looked whether it is over.
    pub(crate) fn look_again(&self) {
        self.arrived.notify_one();
    }

    /// Why the stream is to end, if it is.
    pub(crate) fn over(&self) -> Option<Over> {
        self.lock().over
    }

    /// Takes marks of at most so many files; with more left, the mailbox stays marked.
    pub(crate) fn take(&self, most: usize) -> Letter {
        let mut mail = self.lock();
        let woken: Vec<_> = mail.woken.iter().take(most).copied().collect();
        mail.woken.retain(|file| !woken.contains(file));
        let ended: Vec<_> = mail.ended.keys().take(most).copied().collect();
        let ended = ended.into_iter().filter_map(|file| {
            let (group, reason) = mail.ended.remove(&file)?;
            Some((file, group, reason))
        });
        let ended = ended.collect();
        let untold = mail.epochs.iter_mut().filter(|(_, (_, told))| !told);
        let epochs = untold.map(|(group, (epoch, told))| {
            *told = true;
            (group.clone(), *epoch)
        });
        let epochs = epochs.collect();
        let keys = std::mem::take(&mut mail.keys);
        if !mail.woken.is_empty() || !mail.ended.is_empty() {
            self.arrived.notify_one();
        }
        Letter { woken, ended, epochs, keys }
    }

    /// The peer announces in a group of this least epoch.
    pub(crate) fn learn_epoch(&self, group: &GroupId, epoch: u64) {
        self.mark(|mail| {
            let known = mail.epochs.entry(group.clone()).or_insert((epoch, false));
            if known.0 < epoch {
                *known = (epoch, false);
            }
        });
    }

    /// Like [`Self::learn_epoch`], if the peer announces in that group at all.
    pub(super) fn raise_epoch(&self, group: &GroupId, epoch: u64) {
        if self.lock().epochs.contains_key(group) {
            self.learn_epoch(group, epoch);
        }
    }

    /// There may be sources of the file that the peer has not been told of.
    pub(super) fn wake(&self, file: FileId) {
        self.mark(|mail| mail.woken.extend([file]));
    }

    /// The ticket keys are others now.
    pub(super) fn renew_keys(&self) {
        self.mark(|mail| mail.keys = true);
    }

    /// The peer must let go of the file, for this reason.
    pub(crate) fn end_file(&self, file: FileId, group: GroupId, reason: Reason) {
        self.mark(|mail| {
            mail.woken.remove(&file);
            mail.ended.insert(file, (group, reason));
        });
    }

    /// The stream is to end. The first reason stands.
    pub(super) fn close(&self, over: Over) {
        self.mark(|mail| mail.over = mail.over.or(Some(over)));
    }

    fn mark(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.lock());
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> FileId {
        FileId::try_from(&[number; 16][..]).expect("a file id")
    }

    #[test]
    fn marks_are_kept_once_and_taken_in_portions() {
        let mailbox = Mailbox::new([1; 32].into(), "ann".parse().expect("a username"), [1; 32].into());
        let group: GroupId = "films".parse().expect("a group");
        for _ in 0..1_000 {
            for number in 1..=100 {
                mailbox.wake(file(number));
            }
            mailbox.learn_epoch(&group, 3);
            mailbox.learn_epoch(&group, 2);
        }
        let first = mailbox.take(64);
        assert_eq!((first.woken.len(), first.epochs), (64, vec![(group.clone(), 3)]));
        let second = mailbox.take(64);
        assert_eq!((second.woken.len(), second.epochs), (36, vec![]));
        mailbox.learn_epoch(&group, 4);
        mailbox.wake(file(1));
        mailbox.end_file(file(1), group.clone(), Reason::FileNotFound);
        let third = mailbox.take(64);
        assert_eq!(third.woken, [], "an ended file has no news");
        assert_eq!(third.ended, [(file(1), group.clone(), Reason::FileNotFound)]);
        assert_eq!(third.epochs, [(group, 4)]);
        assert!(mailbox.take(64).is_empty());
    }
}
