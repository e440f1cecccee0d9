//! Rechecks the pieces that an earlier run wrote, while the other pieces arrive.

use std::{ops::ControlFlow, sync::Arc, thread};

use super::context::{Context, Report};
use crate::domain::download::Event;

/// Added to the thread's nice value. Arriving pieces are handled first; on idle processors it makes no
/// difference.
const NICER: i32 = 10;

/// The most downloads of an engine whose pieces are rechecked at the same time. The others wait for their turn.
/// Each recheck reads from the disk and takes a core.
pub(crate) const AT_ONCE: usize = 2;

/// Starts to recheck the pieces that an earlier run wrote, if there are any, once it is this download's turn. The
/// recheck ends soon after the transfer stops taking reports.
/// [`Checks::done`](super::checks::Checks::done) waits for that.
pub(super) fn start(context: &Arc<Context>) {
    if context.store.unverified().is_empty() {
        return;
    }
    let (context, pending) = (context.clone(), context.checks.token());
    tokio::spawn(async move {
        let turn = tokio::select! {
            turn = context.rechecks.clone().acquire_owned() => turn,
            () = context.reports.closed() => return,
        };
        let work = {
            let context = context.clone();
            move || {
                let (_turn, _pending) = (turn, pending);
                recheck(&context);
            }
        };
        // It has a thread of its own, because a thread can't lower its nice value again.
        if let Err(error) = thread::Builder::new().name("recheck".into()).spawn(work) {
            let _ = context.reports.send(Report::Trouble(error.into())).await;
        }
    });
}

fn recheck(context: &Arc<Context>) {
    let fails = context.fails_in_a_panic("the recheck of an earlier run");
    // If this fails, the recheck only takes more time from the arriving pieces.
    let _ = rustix::process::nice(NICER);
    context.store.recheck(&mut |piece, good| {
        if good {
            context.share.gained(piece);
        }
        context.report_blocking(Event::Checked(piece, good));
        if context.reports.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(fails);
}
