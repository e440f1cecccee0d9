//! The space that running downloads still need, so that a later one does not take it from an earlier one.

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ports::DownloadView;

/// The running downloads, in the order in which they were accepted.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: u64,
    running: Vec<Reservation>,
}

#[derive(Debug)]
struct Reservation {
    order: u64,
    device: u64,
    view: watch::Receiver<DownloadView>,
}

impl Reservations {
    /// Adds a download to that file system. Returns its place in the order.
    pub(crate) fn add(&self, device: u64, view: watch::Receiver<DownloadView>) -> u64 {
        let mut inner = self.inner.lock();
        let order = inner.accepted;
        inner.accepted += 1;
        inner.running.retain(|other| !other.view.borrow().state.is_final());
        inner.running.push(Reservation { order, device, view });
        order
    }

    /// The bytes that running downloads still need on that file system: those that were accepted before
    /// `order`, or all.
    pub(crate) fn needed(&self, device: u64, order: Option<u64>) -> u64 {
        let inner = self.inner.lock();
        let earlier = inner.running.iter().filter(|other| order.is_none_or(|order| other.order < order));
        earlier
            .filter(|other| other.device == device)
            .map(|other| {
                let view = other.view.borrow();
                if view.state.is_final() { 0 } else { view.size.saturating_sub(view.done_bytes) }
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::DownloadState;

    #[test]
    fn what_earlier_downloads_still_need_is_counted() {
        let reservations = Reservations::default();
        let views: Vec<_> = [100, 50, 20].map(|size| watch::Sender::new(DownloadView::queued(size))).into();
        let orders: Vec<u64> = [1, 1, 2]
            .iter()
            .zip(&views)
            .map(|(&device, view)| reservations.add(device, view.subscribe()))
            .collect();
        assert_eq!(reservations.needed(1, None), 150);
        assert_eq!(reservations.needed(1, Some(orders[1])), 100, "a later one waits for an earlier one only");
        assert_eq!(reservations.needed(1, Some(orders[0])), 0);
        assert_eq!(reservations.needed(2, None), 20);
        views[0].send_modify(|view| view.done_bytes = 70);
        assert_eq!(reservations.needed(1, Some(orders[1])), 30, "the rest is on the disk");
        views[0].send_modify(|view| view.state = DownloadState::Stopped);
        assert_eq!(reservations.needed(1, Some(orders[1])), 0);
    }
}
