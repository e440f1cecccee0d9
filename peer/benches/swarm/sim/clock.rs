//! Virtual time: what is to happen, in the order of when it does.

use std::{cmp::Reverse, collections::BinaryHeap};

use peer::domain::Moment;

/// What is to happen; things of the same moment in the order in which they were planned.
pub(super) struct Clock<E> {
    now: Moment,
    planned: u64,
    queue: BinaryHeap<Reverse<Entry<E>>>,
}

struct Entry<E> {
    at: Moment,
    number: u64,
    event: E,
}

impl<E> Clock<E> {
    pub(super) fn new() -> Self {
        Self { now: Moment::ZERO, planned: 0, queue: BinaryHeap::new() }
    }

    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Lets it happen then, or now if that is over.
    pub(super) fn plan(&mut self, at: Moment, event: E) {
        self.planned += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), number: self.planned, event }));
    }

    /// What happens next: it is that late from then on.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// How much has been planned so far.
    pub(super) fn planned(&self) -> u64 {
        self.planned
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Moment, u64) {
        (self.at, self.number)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
