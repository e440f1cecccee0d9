//! The sources that the tracker names for a download, whether it is ready for them or not.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::domain::{PeerId, Username};
use tokio::sync::Notify;

use crate::engine::SourceAddr;

/// Most sources that are remembered: more than the tracker names at once, and than are connected.
const MOST: usize = 500;

/// The sources of one download.
#[derive(Debug, Default)]
pub(crate) struct Book {
    inner: Mutex<Inner>,
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<PeerId, Entry>,
    /// Numbers the entries in the order they came.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    address: SourceAddr,
    gone: bool,
    number: u64,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the tracker says.
    pub(crate) fn note(&self, found: Vec<SourceAddr>, gone: &[PeerId]) {
        {
            let mut inner = self.lock();
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
                inner.known.insert(address.peer, Entry { address, gone: false, number });
            }
        }
        self.changed.notify_one();
    }

    /// The sources that are there, in the order they were named; and those that are gone.
    pub(super) fn all(&self) -> (Vec<PeerId>, Vec<PeerId>) {
        let inner = self.lock();
        let (mut gone, mut there): (Vec<_>, Vec<_>) = inner.known.iter().partition(|(_, entry)| entry.gone);
        let by_number = |list: &mut Vec<(&PeerId, &Entry)>| {
            list.sort_unstable_by_key(|(_, entry)| entry.number);
            list.iter().map(|(peer, _)| **peer).collect()
        };
        (by_number(&mut there), by_number(&mut gone))
    }

    pub(super) fn address(&self, peer: PeerId) -> Option<SourceAddr> {
        self.lock().known.get(&peer).map(|entry| entry.address.clone())
    }

    pub(super) fn username(&self, peer: PeerId) -> Option<Username> {
        self.lock().known.get(&peer).map(|entry| entry.address.username.clone())
    }
}
