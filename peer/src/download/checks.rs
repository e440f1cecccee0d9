//! The queue of pieces that wait to be checked. Its length is bounded.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::assembly::Whole;
use crate::{domain::download::DownloadRequestId, hashing::lanes};

/// The most pieces that are held here. Enough for one and a half rounds of sixteen lanes: 12 MiB.
const ROOM: usize = 24;

/// The pieces of a download that wait to be checked.
pub(super) struct Checks {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// Counts all pieces that are held here.
    pending: TaskTracker,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// A worker is running. One is enough: it is faster than pieces arrive, and finds more at a time than two
    /// would.
    busy: bool,
}

/// A piece that waits to be checked.
pub(super) struct Job {
    pub(super) request: DownloadRequestId,
    pub(super) whole: Whole,
    _room: Option<OwnedSemaphorePermit>,
    _pending: [TaskTrackerToken; 2],
}

impl Checks {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), room: Arc::new(Semaphore::new(ROOM)), pending: TaskTracker::new() }
    }

    /// Waits until there is room for one more piece.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.room.clone().acquire_owned().await.ok()
    }

    /// Adds a piece. `pending` counts it until it was reported. Returns true if no worker runs: the caller
    /// must start one.
    pub(super) fn push(
        &self,
        request: DownloadRequestId,
        whole: Whole,
        room: Option<OwnedSemaphorePermit>,
        pending: &TaskTracker,
    ) -> bool {
        let pending = [pending.token(), self.pending.token()];
        let mut queue = self.queue.lock();
        queue.waiting.push_back(Job { request, whole, _room: room, _pending: pending });
        !std::mem::replace(&mut queue.busy, true)
    }

    /// Takes the next pieces to check. Empty when none wait: then the worker ends.
    pub(super) fn next(&self) -> Vec<Job> {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(lanes::width());
        queue.busy = count > 0;
        queue.waiting.drain(..count).collect()
    }

    /// Drops the pieces that wait: the worker is gone.
    pub(super) fn give_up(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.busy = false;
            std::mem::take(&mut queue.waiting)
        };
        drop(dropped);
    }

    /// A token that counts as a held piece for as long as it lives.
    pub(super) fn token(&self) -> TaskTrackerToken {
        self.pending.token()
    }

    /// Waits until no piece is held. No piece may be handed in any more.
    pub(super) async fn done(&self) {
        self.pending.close();
        self.pending.wait().await;
    }
}
