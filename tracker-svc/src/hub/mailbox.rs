//! The pending reports of one announce stream, kept as marks. The reports are computed when the stream is
//! ready to send.
//!
//! The number of marks is limited by the peer's announces and its user's groups, so a stream that is read
//! slowly costs no memory.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use proto::{
    domain::{FileId, GroupId, PeerId, Username, obstacle::Obstacle},
    reason::Reason,
};
use tokio::sync::Notify;

use crate::domain::{SessionHash, token::TokenScope};

/// The most reports of peers that could not reach this one.
const MAX_REPORTS: usize = 16;

/// The most published files that are named to one stream before it reads. Beyond that, the peer lists the group.
const MAX_PUBLISHED: usize = 256;

/// The reason why the tracker ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The session has ended.
    SessionEnded,
    /// A newer stream of the same peer, from this address, replaced it.
    Replaced(IpAddr),
    /// A newer stream of the same peer is at another tracker.
    Elsewhere,
    /// What the stream was told may be out of date. The peer must start again.
    Stale,
}

/// The pending reports of one announce stream, as marks.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) peer: PeerId,
    pub(crate) user: Username,
    pub(crate) session: SessionHash,
    /// What the token allows that the stream was opened with, if it was.
    token: Option<Arc<TokenScope>>,
    /// Where the stream comes from.
    pub(crate) from: IpAddr,
    /// When it was opened.
    since: AtomicU64,
    mail: Mutex<Mail>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    /// Files with changes in their sources.
    woken: HashSet<FileId>,
    /// Files that the peer must stop sharing and downloading.
    ended: HashMap<FileId, (GroupId, Reason)>,
    /// For each group that the store named to this stream: its minimum epoch, and whether the peer was told.
    epochs: HashMap<GroupId, (u64, bool)>,
    /// Files that were published in groups of `epochs`. The stream checks before it sends whether its user is a member.
    published: HashMap<FileId, GroupId>,
    /// Groups in which more was published than that.
    unlisted: HashSet<GroupId>,
    /// Whether the ticket keys have changed since the peer was last told.
    keys: bool,
    /// Whether the tracker's clock was set.
    clock: bool,
    /// Peers that could not reach this one.
    unreached: Vec<Unreached>,
    over: Option<Over>,
}

/// A report of a peer that it could not reach another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreached {
    /// The user of the peer that reports.
    pub(crate) user: Username,
    /// The address that it tried.
    pub(crate) address: String,
    /// What it met.
    pub(crate) obstacle: Obstacle,
}

/// The marks that a stream takes from its mailbox at once.
#[derive(Debug, Default)]
pub(crate) struct Letter {
    pub(crate) woken: Vec<FileId>,
    pub(crate) ended: Vec<(FileId, GroupId, Reason)>,
    pub(crate) epochs: Vec<(GroupId, u64)>,
    /// Files that were published, unless the user lost the right to them meanwhile.
    pub(crate) published: Vec<(FileId, GroupId)>,
    /// Groups in which more files were published than are named.
    pub(crate) unlisted: Vec<GroupId>,
    pub(crate) keys: bool,
    /// The tracker's clock was set. A response must be sent even if nothing else is pending.
    pub(crate) clock: bool,
    pub(crate) unreached: Vec<Unreached>,
}

impl Letter {
    pub(crate) fn is_empty(&self) -> bool {
        let is_quiet = !self.keys && !self.clock && self.unreached.is_empty();
        let is_quiet = is_quiet && self.published.is_empty() && self.unlisted.is_empty();
        self.woken.is_empty() && self.ended.is_empty() && self.epochs.is_empty() && is_quiet
    }
}

impl Mailbox {
    /// The mailbox of a stream of this peer, opened in this session, from this address. With a token, the stream hears
    /// of the token's groups alone.
    pub(crate) fn new(
        peer: PeerId,
        user: Username,
        session: SessionHash,
        from: IpAddr,
        token: Option<Arc<TokenScope>>,
    ) -> Arc<Self> {
        let since = AtomicU64::new(0);
        Arc::new(Self {
            peer,
            user,
            session,
            token,
            from,
            since,
            mail: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    /// Notes when the stream was opened, by the clock that all trackers share.
    pub(super) fn opened(&self, at: u64) {
        self.since.store(at, Ordering::Relaxed);
    }

    /// When the stream was opened.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Resolves when something was marked since the last call. Cancel safe.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Wakes [`Self::arrived`] again, for a caller that only checked whether the stream must end.
    pub(crate) fn look_again(&self) {
        self.arrived.notify_one();
    }

    /// The reason why the stream must end, if it must.
    pub(crate) fn over(&self) -> Option<Over> {
        self.mail.lock().over
    }

    /// Takes the marks of at most `most` files. If more are left, [`Self::arrived`] resolves again.
    pub(crate) fn take(&self, most: usize) -> Letter {
        let mut mail = self.mail.lock();
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
        let published: Vec<_> = mail.published.keys().take(most).copied().collect();
        let published = published.into_iter().filter_map(|file| mail.published.remove_entry(&file)).collect();
        let unlisted = std::mem::take(&mut mail.unlisted).into_iter().collect();
        let keys = std::mem::take(&mut mail.keys);
        let clock = std::mem::take(&mut mail.clock);
        if !mail.woken.is_empty() || !mail.ended.is_empty() || !mail.published.is_empty() {
            self.arrived.notify_one();
        }
        let unreached = std::mem::take(&mut mail.unreached);
        Letter { woken, ended, epochs, published, unlisted, keys, clock, unreached }
    }

    /// Records that the user is a member of the group, which has this epoch, according to the store. From now
    /// on, later changes of the group's epoch are marked.
    pub(crate) fn learn_epoch(&self, group: &GroupId, epoch: u64) {
        self.mark(|mail| {
            let known = mail.epochs.entry(group.clone()).or_insert((epoch, false));
            if known.0 < epoch {
                *known = (epoch, false);
            }
        });
    }

    /// Records that the user became a member of the group, which has this epoch. The peer is told the epoch
    /// even if it knows it: a peer that let go of the group's files asks for them again then.
    pub(super) fn tell_member(&self, group: &GroupId, epoch: u64) {
        if self.token.as_ref().is_some_and(|token| !token.covers(group)) {
            return;
        }
        self.mark(|mail| {
            let known = mail.epochs.entry(group.clone()).or_insert((epoch, false));
            *known = (known.0.max(epoch), false);
        });
    }

    /// Whether the peer was not told the group's present epoch yet.
    pub(crate) fn owes_epoch(&self, group: &GroupId) -> bool {
        self.mail.lock().epochs.get(group).is_some_and(|(_, told)| !told)
    }

    /// Records a higher epoch of a group. Ignored for a group that the store did not name to this stream.
    pub(super) fn raise_epoch(&self, group: &GroupId, epoch: u64) {
        if self.knows_group(group) {
            self.learn_epoch(group, epoch);
        }
    }

    /// Whether this stream is told about every change of the group's epoch: only if the store named the group
    /// to it.
    pub(super) fn knows_group(&self, group: &GroupId) -> bool {
        self.mail.lock().epochs.contains_key(group)
    }

    /// Marks that there may be sources of the file that the peer was not told about.
    pub(super) fn wake(&self, file: FileId) {
        self.mark(|mail| mail.woken.extend([file]));
    }

    /// Marks that the ticket keys have changed.
    pub(super) fn renew_keys(&self) {
        self.mark(|mail| mail.keys = true);
    }

    /// Marks that the tracker's clock was set.
    pub(super) fn tell_clock(&self) {
        self.mark(|mail| mail.clock = true);
    }

    /// Marks that a peer could not reach this one. The latest report of a user about an address counts.
    pub(super) fn tell_unreached(&self, report: Unreached) {
        self.mark(|mail| {
            mail.unreached.retain(|old| (&old.user, &old.address) != (&report.user, &report.address));
            if mail.unreached.len() < MAX_REPORTS {
                mail.unreached.push(report);
            }
        });
    }

    /// Marks that a file was published, if the store named the group to this stream.
    pub(super) fn tell_published(&self, group: &GroupId, file: FileId) {
        if !self.knows_group(group) {
            return;
        }
        self.mark(|mail| {
            if mail.published.len() < MAX_PUBLISHED {
                mail.published.insert(file, group.clone());
            } else {
                mail.unlisted.insert(group.clone());
            }
        });
    }

    /// Marks that the peer must stop sharing and downloading the file, for this reason.
    pub(crate) fn end_file(&self, file: FileId, group: GroupId, reason: Reason) {
        self.mark(|mail| {
            mail.woken.remove(&file);
            mail.published.remove(&file);
            mail.ended.insert(file, (group, reason));
        });
    }

    /// Marks that the stream must end. The first reason is kept.
    pub(super) fn close(&self, over: Over) {
        self.mark(|mail| mail.over = mail.over.or(Some(over)));
    }

    fn mark(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.mail.lock());
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn file(number: u8) -> FileId {
        FileId::try_from(&[number; 16][..]).expect("a file id")
    }

    #[test]
    fn marks_are_kept_once_and_taken_in_portions() {
        let mailbox =
            Mailbox::new([1; 32].into(), "ann".parse().expect("a username"), [1; 32].into(), HERE, None);
        let group: GroupId = "films".parse().expect("a group");
        for _ in 0..1_000 {
            for number in 1..=100 {
                mailbox.wake(file(number));
            }
            mailbox.learn_epoch(&group, 3);
            mailbox.learn_epoch(&group, 2);
        }
        assert!(mailbox.owes_epoch(&group));
        let first = mailbox.take(64);
        assert!(!mailbox.owes_epoch(&group));
        assert_eq!((first.woken.len(), first.epochs), (64, vec![(group.clone(), 3)]));
        let second = mailbox.take(64);
        assert_eq!((second.woken.len(), second.epochs), (36, vec![]));
        mailbox.learn_epoch(&group, 4);
        mailbox.wake(file(1));
        mailbox.end_file(file(1), group.clone(), Reason::FileNotFound);
        let third = mailbox.take(64);
        assert_eq!(third.woken, [], "an ended file has no update");
        assert_eq!(third.ended, [(file(1), group.clone(), Reason::FileNotFound)]);
        assert_eq!(third.epochs, [(group, 4)]);
        assert!(mailbox.take(64).is_empty());
        mailbox.tell_member(&third.ended[0].1, 3);
        assert_eq!(
            mailbox.take(64).epochs,
            [(third.ended[0].1.clone(), 4)],
            "told again, and never a lower one"
        );
    }

    #[test]
    fn news_of_many_files_becomes_a_list() {
        let mailbox =
            Mailbox::new([1; 32].into(), "ann".parse().expect("a username"), [1; 32].into(), HERE, None);
        let [group, other]: [GroupId; 2] = ["films", "shorts"].map(|name| name.parse().expect("a group"));
        let id = |number: u16| {
            let mut bytes = [1; 16];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            FileId::try_from(&bytes[..]).expect("a file id")
        };
        mailbox.tell_published(&group, id(0));
        assert!(mailbox.take(64).is_empty(), "the store did not name the group");
        mailbox.learn_epoch(&group, 3);
        (0..1_000).for_each(|number| mailbox.tell_published(&group, id(number)));
        mailbox.tell_published(&other, id(1_000));
        mailbox.end_file(id(7), group.clone(), Reason::FileNotFound);
        let first = mailbox.take(64);
        assert_eq!((first.published.len(), first.unlisted), (64, vec![group]));
        let rest = mailbox.take(1_000);
        let most = MAX_PUBLISHED - 1;
        assert_eq!((rest.published.len() + 64, rest.unlisted), (most, vec![]), "one has ended");
    }

    #[test]
    fn reports_are_few_and_the_latest_of_an_address_counts() {
        let mailbox =
            Mailbox::new([1; 32].into(), "ann".parse().expect("a username"), [1; 32].into(), HERE, None);
        let report = |number: usize, obstacle| Unreached {
            user: "bob".parse().expect("a username"),
            address: format!("192.0.2.1:{number}"),
            obstacle,
        };
        (1..=100).for_each(|number| mailbox.tell_unreached(report(number, Obstacle::Silent)));
        mailbox.tell_unreached(report(1, Obstacle::Refused));
        let letter = mailbox.take(64);
        assert_eq!(letter.unreached.len(), MAX_REPORTS);
        assert_eq!(letter.unreached.last(), Some(&report(1, Obstacle::Refused)));
        assert!(mailbox.take(64).is_empty());
    }
}
