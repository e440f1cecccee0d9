//! Verifies complete pieces against the manifest, writes them and reports them, several at a time where that
//! is faster.
//!
//! The reader of a source hands its pieces in here and continues to read. Nothing waits for more pieces to
//! come. The worker takes the pieces that are there at once, even a single one, and others gather while it
//! works. Where hashing several pieces together is not faster, readers compute the SHA-1 as the data arrives,
//! which then is faster because the data is in their core's cache.

use std::{sync::Arc, time::Instant};

use proto::domain::PieceHash;
use tokio_util::task::TaskTracker;

use super::{
    assembly::Whole,
    checks::Job,
    context::{Context, Spent},
};
use crate::{
    domain::download::{DownloadRequestId, Event},
    hashing::lanes,
};

/// Hands a piece in. Waits while there is no room. `pending` counts the piece until it was reported.
pub(super) async fn hand_in(
    context: &Arc<Context>,
    request: DownloadRequestId,
    whole: Whole,
    pending: &TaskTracker,
) {
    let room = context.wait_for_us(request, &context.spent.room, context.checks.room()).await;
    if context.checks.push(request, whole, room, pending) {
        let context = context.clone();
        tokio::task::spawn_blocking(move || {
            let _fails = context.fails_in_a_panic("the check of pieces");
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

/// Verifies, writes and reports the pieces.
fn work(context: &Context, jobs: Vec<Job>) {
    let unhashed = jobs.iter().filter(|job| job.whole.sha1.is_none());
    let unhashed: Vec<&[_]> = unhashed.map(|job| &job.whole.parts[..]).collect();
    let began = Instant::now();
    let mut hashed = lanes::sha1_of_each(&unhashed).into_iter();
    Spent::add(&context.spent.hashing, began);
    for job in jobs {
        let Whole { piece, parts, blake3, sha1 } = &job.whole;
        let hash = sha1.or_else(|| hashed.next()).map(|sha1| PieceHash { sha1, blake3: *blake3 });
        let began = Instant::now();
        let event = if hash.is_none() || hash.as_ref() != context.spec.manifest.pieces().get(piece.as_usize())
        {
            context.totals.bad();
            Event::Bad(job.request, *piece)
        } else if let Err(error) = context.store.write(*piece, parts) {
            context.trouble(error);
            continue;
        } else {
            Spent::add(&context.spent.writing, began);
            context.gained(*piece);
            Event::Verified(job.request, *piece)
        };
        context.report_blocking(event);
    }
}
