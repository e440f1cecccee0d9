//! Which bytes of a download its readers wait for.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The readers of one download.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// Notified when they have changed.
    pub(super) changed: Notify,
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    left: BTreeMap<u64, Range<u64>>,
}

impl Wishes {
    /// The bytes that each reader still wants, in order.
    pub(super) fn all(&self) -> Vec<Range<u64>> {
        self.readers.lock().left.values().cloned().collect()
    }
}

/// The wish of one reader. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Wish {
    wishes: Arc<Wishes>,
    id: u64,
}

impl Wish {
    /// Tells the download that a reader wants these bytes, in order.
    pub(crate) fn new(wishes: &Arc<Wishes>, left: Range<u64>) -> Self {
        let mut readers = wishes.readers.lock();
        let id = readers.next;
        readers.next += 1;
        readers.left.insert(id, left);
        drop(readers);
        wishes.changed.notify_one();
        Self { wishes: wishes.clone(), id }
    }

    /// Tells the download what the reader wants now.
    pub(crate) fn change(&self, left: Range<u64>) {
        let before = self.wishes.readers.lock().left.insert(self.id, left.clone());
        if before != Some(left) {
            self.wishes.changed.notify_one();
        }
    }

    /// Whether it was told to this download.
    pub(crate) fn is_of(&self, wishes: &Arc<Wishes>) -> bool {
        Arc::ptr_eq(&self.wishes, wishes)
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.wishes.readers.lock().left.remove(&self.id);
        self.wishes.changed.notify_one();
    }
}
