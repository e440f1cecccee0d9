//! Virtual time: a queue of planned events, ordered by time.

use std::{cmp::Reverse, collections::BinaryHeap};

use peer_core::Moment;

/// The queue of planned events. Events planned for the same moment happen in the order in which they were
/// planned.
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

    /// Plans an event for the given moment, or for now if that moment has passed.
    pub(super) fn plan(&mut self, at: Moment, event: E) {
        self.planned += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), number: self.planned, event }));
    }

    /// Removes the next event from the queue and advances the clock to its moment.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// Number of events planned so far.
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
