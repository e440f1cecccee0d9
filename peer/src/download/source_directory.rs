//! The directory of a download's sources, as the tracker named them. Sources are noted whether or not the
//! download can use them yet.

use std::collections::HashMap;

use parking_lot::Mutex;
use proto::domain::{PeerId, Username};
use tokio::sync::Notify;

use crate::ports::SourceAddr;

/// The most sources that are remembered. This is more than the tracker names at once, and more than are
/// connected.
const MOST: usize = 500;

/// The sources of one download.
#[derive(Debug, Default)]
pub(crate) struct SourceDirectory {
    inner: Mutex<Inner>,
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<PeerId, Entry>,
    /// The number of the next entry. Entries are numbered in order of arrival.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    address: SourceAddr,
    gone: bool,
    number: u64,
    /// The reason why it could not be used last time, and whether that is a clock.
    trouble: Option<(String, bool)>,
}

impl SourceDirectory {
    /// Notes the sources that the tracker reports.
    pub(crate) fn note(&self, found: Vec<SourceAddr>, gone: &[PeerId]) {
        {
            let mut inner = self.inner.lock();
            for peer in gone {
                if let Some(entry) = inner.known.get_mut(peer) {
                    entry.gone = true;
                }
            }
            for address in found {
                if inner.known.len() >= MOST {
                    inner.known.retain(|_, entry| !entry.gone);
                }
                if inner.known.len() >= MOST && !inner.known.contains_key(&address.peer) {
                    break;
                }
                let number = inner.next;
                inner.next += 1;
                let known = inner.known.get(&address.peer).filter(|known| known.address == address);
                let trouble = known.and_then(|known| known.trouble.clone());
                inner.known.insert(address.peer, Entry { address, gone: false, number, trouble });
            }
        }
        self.changed.notify_one();
    }

    /// The present sources in the order in which they were named, and the sources that are gone.
    pub(super) fn all(&self) -> (Vec<PeerId>, Vec<PeerId>) {
        let inner = self.inner.lock();
        let (mut gone, mut there): (Vec<_>, Vec<_>) = inner.known.iter().partition(|(_, entry)| entry.gone);
        let by_number = |list: &mut Vec<(&PeerId, &Entry)>| {
            list.sort_unstable_by_key(|(_, entry)| entry.number);
            list.iter().map(|(peer, _)| **peer).collect()
        };
        (by_number(&mut there), by_number(&mut gone))
    }

    pub(super) fn address(&self, peer: PeerId) -> Option<SourceAddr> {
        self.inner.lock().known.get(&peer).map(|entry| entry.address.clone())
    }

    /// Notes why a source can't be used and whether that is a clock, or that it can.
    pub(super) fn set_trouble(&self, peer: PeerId, trouble: Option<(String, bool)>) {
        if let Some(entry) = self.inner.lock().known.get_mut(&peer) {
            entry.trouble = trouble;
        }
    }

    /// The reason why a source could not be used last time.
    pub(super) fn trouble(&self, peer: PeerId) -> Option<String> {
        self.inner.lock().known.get(&peer)?.trouble.as_ref().map(|(words, _)| words.clone())
    }

    /// Whether a source could not be used last time because of a clock.
    pub(super) fn is_clock(&self, peer: PeerId) -> bool {
        let inner = self.inner.lock();
        let trouble = inner.known.get(&peer).and_then(|entry| entry.trouble.as_ref());
        trouble.is_some_and(|(_, is_clock)| *is_clock)
    }

    /// The users of present sources that have no address.
    pub(super) fn without_address(&self) -> Vec<Username> {
        let inner = self.inner.lock();
        let lacking = inner.known.values().filter(|entry| !entry.gone && entry.address.addresses.is_empty());
        lacking.map(|entry| entry.address.username.clone()).collect()
    }

    pub(super) fn username(&self, peer: PeerId) -> Option<Username> {
        self.inner.lock().known.get(&peer).map(|entry| entry.address.username.clone())
    }
}
