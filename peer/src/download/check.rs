//! Pieces that came whole: checked against the manifest, written, and told of, several at a time where that is faster.
//!
//! Whoever reads a source hands its pieces in here and reads on. Nothing waits for more pieces to come: what is there is
//! taken at once, one piece if there is one, and while those are worked on others gather by themselves.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
};

use proto::domain::PieceHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{assembly::Whole, context::Context};
use crate::{
    domain::download::{Event, RequestId},
    hashing::lanes,
};

/// Pieces that are here at a time, at most: enough for one round of the lanes and half of another, 12 MiB.
const ROOM: usize = 24;

/// The pieces of a download that wait to be checked.
pub(super) struct Checks {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    /// Of all pieces that are here.
    pending: TaskTracker,
    at_once: AtOnce,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    workers: usize,
}

/// How the work is divided.
#[derive(Clone, Copy, Debug)]
struct AtOnce {
    workers: usize,
    pieces: usize,
}

struct Job {
    request: RequestId,
    whole: Whole,
    _room: Option<OwnedSemaphorePermit>,
    _pending: [TaskTrackerToken; 2],
}

impl Checks {
    pub(super) fn new() -> Self {
        // Lanes are fullest with one worker, and then it outruns what comes; otherwise every core lends a hand.
        let at_once = if lanes::are_there() {
            AtOnce { workers: 1, pieces: lanes::LANES }
        } else {
            AtOnce { workers: available_parallelism().map_or(1, usize::from).min(4), pieces: 1 }
        };
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            pending: TaskTracker::new(),
            at_once,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next pieces to work on; with none, the worker is done.
    fn next(&self) -> Vec<Job> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(self.at_once.pieces);
        if count == 0 {
            queue.workers -= 1;
        }
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
        let starts = queue.workers < checks.at_once.workers;
        queue.workers += usize::from(starts);
        starts
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
    let parts: Vec<&[_]> = jobs.iter().map(|job| &job.whole.parts[..]).collect();
    let hashes = lanes::sha1_of_each(&parts);
    for (job, sha1) in jobs.into_iter().zip(hashes) {
        let Whole { piece, parts, blake3 } = &job.whole;
        let expected = context.spec.manifest.pieces().get(piece.as_usize());
        let event = if expected != Some(&PieceHash { sha1, blake3: *blake3 }) {
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
