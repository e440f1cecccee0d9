//! Pieces that came whole: checked against the manifest, written, and told of, several at a time where that is faster.
//!
//! Whoever reads a source hands its pieces in here and reads on. Nothing waits for more pieces to come: what is there is
//! taken at once, one piece if there is one, and while those are worked on others gather by themselves. Where SHA-1 is
//! not faster for several, readers compute it as the data comes, from their core's cache, which then is faster.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::domain::PieceHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{assembly::Whole, context::Context};
use crate::{
    domain::download::{Event, RequestId},
    hashing::lanes,
};

/// Pieces that are here at a time, at most: enough for a round of sixteen lanes and half of another, 12 MiB.
const ROOM: usize = 24;

/// The pieces of a download that wait to be checked.
pub(super) struct Checks {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// Of all pieces that are here.
    pending: TaskTracker,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Somebody is at work. One is enough: it outruns what comes, and finds more at a time than two would.
    busy: bool,
}

struct Job {
    request: RequestId,
    whole: Whole,
    _room: Option<OwnedSemaphorePermit>,
    _pending: [TaskTrackerToken; 2],
}

impl Checks {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), room: Arc::new(Semaphore::new(ROOM)), pending: TaskTracker::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next pieces to work on; with none, the worker is done.
    fn next(&self) -> Vec<Job> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(lanes::width());
        queue.busy = count > 0;
        queue.waiting.drain(..count).collect()
    }

    /// Waits until no piece is here. None may be handed in any more.
    pub(super) async fn done(&self) {
        self.pending.close();
        self.pending.wait().await;
    }
}

/// Hands a piece in; waits while there is no room. `pending` counts it until it was told of.
pub(super) async fn hand_in(context: &Arc<Context>, request: RequestId, whole: Whole, pending: &TaskTracker) {
    let checks = &context.checks;
    // Never closed.
    let room = checks.room.clone().acquire_owned().await.ok();
    let pending = [pending.token(), checks.pending.token()];
    let starts = {
        let mut queue = checks.lock();
        queue.waiting.push_back(Job { request, whole, _room: room, _pending: pending });
        !std::mem::replace(&mut queue.busy, true)
    };
    if starts {
        let context = context.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                let jobs = context.checks.next();
                if jobs.is_empty() {
                    return;
                }
                work(&context, jobs);
            }
        });
    }
}

/// Checks, writes, tells.
fn work(context: &Context, jobs: Vec<Job>) {
    let unhashed = jobs.iter().filter(|job| job.whole.sha1.is_none());
    let unhashed: Vec<&[_]> = unhashed.map(|job| &job.whole.parts[..]).collect();
    let mut hashed = lanes::sha1_of_each(&unhashed).into_iter();
    for job in jobs {
        let Whole { piece, parts, blake3, sha1 } = &job.whole;
        let hash = sha1.or_else(|| hashed.next()).map(|sha1| PieceHash { sha1, blake3: *blake3 });
        let event = if hash.is_none() || hash.as_ref() != context.spec.manifest.pieces().get(piece.as_usize())
        {
            context.totals.bad();
            Event::Bad(job.request, *piece)
        } else if let Err(error) = context.store.write(*piece, parts) {
            context.trouble(error);
            continue;
        } else {
            context.gained(*piece);
            Event::Verified(job.request, *piece)
        };
        context.tell_blocking(event);
    }
}
