//! Ends calls that lost their right while their clients take nothing.
//!
//! The streams themselves check before each piece and message whether they may go on, and end with a status.
//! But a stream is polled only when its client has room. A client that takes little or nothing would keep the
//! data that is already buffered for it, and could take it at any time. Therefore each call is also watched
//! from outside. It is reset if it does not end by itself within [`GRACE`], and data that was not sent yet is
//! discarded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body::Frame;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use transport::Reset;

use super::admission::{Admission, Admitted};

/// The interval at which the ticket's time is checked. Other changes that end a right are noticed at once.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(5);
/// The time that a call has to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Returns the same stream. Its call is reset soon after `who` loses its right. Without a `reset` the call
/// can't be ended from outside.
pub(super) fn guarded<S>(
    admission: &Arc<Admission>,
    who: &Admitted,
    reset: Option<Reset>,
    stream: S,
) -> impl Stream<Item = Frame<Bytes>> + Send + use<S>
where
    S: Stream<Item = Frame<Bytes>> + Send,
{
    let over = CancellationToken::new();
    if let Some(reset) = reset {
        let (admission, who, over) = (Arc::clone(admission), who.clone(), over.clone());
        tokio::spawn(async move {
            let lost = async {
                until_lost(&admission, &who).await;
                sleep(GRACE).await;
            };
            if over.run_until_cancelled(lost).await.is_some() {
                tracing::debug!(peer = %who.claims.peer, "ending a call whose caller lost its right and reads nothing");
                reset.now();
            }
        });
    }
    let over = over.drop_guard();
    stream.map(move |frame| {
        let _runs = &over;
        frame
    })
}

/// Returns once the caller may not go on.
async fn until_lost(admission: &Admission, who: &Admitted) {
    let (mut trust, mut offer) = (admission.watch(), who.share.watch_offer());
    loop {
        if admission.in_force(&who.claims).is_err() || offer.borrow_and_update().is_some() {
            return;
        }
        tokio::select! {
            _ = trust.changed() => {}
            changed = offer.changed() => if changed.is_err() { return },
            () = sleep(CHECK_EVERY) => {}
        }
    }
}
