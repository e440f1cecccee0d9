//! Ends calls whose client makes no progress, and calls that other code resets, whatever the client does.
//!
//! A client that never reads would hold a call, its buffers and its upload slot forever. It still answers
//! pings, and the HTTP library only waits for room in the client's window. So each call's task tracks since
//! when it has waited for the client, and ends itself after a limit. The client sees the stream reset. Data
//! that was not sent yet is discarded.
//!
//! Only progress counts, not speed. [`Watched`] passes the response on in parts of at most [`Limits::part`]
//! bytes. Each part that the client has room for restarts the time.
//!
//! A body is polled for its next frame only when the client has room for the last one. So a body must not
//! hold anything that others need while it waits for the next poll. See the manifests in the `tracker-svc`
//! crate for an example.
//!
//! [`Limits::part`]: super::Limits::part

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The state that a call's task and the body of its response share.
#[derive(Debug, Default)]
struct Call {
    /// Since when the call has waited for its client; `None` while the client waits for the server.
    waiting: Mutex<Option<Instant>>,
    reset: Reset,
}

tokio::task_local! {
    /// The state of the call whose task runs. The body is made within that task, and finds the state here.
    static CALL: Arc<Call>;
}

/// Resets a call. Every request that [`serve`](super::serve) passes on has one in its extensions.
#[derive(Clone, Debug, Default)]
pub struct Reset(CancellationToken);

impl Reset {
    /// The handle of the call whose task runs.
    pub(super) fn of_this_call() -> Option<Self> {
        CALL.try_with(|call| call.reset.clone()).ok()
    }

    /// Ends the call's task, whatever it waits for. Data that was not sent yet is discarded.
    pub fn now(&self) {
        self.0.cancel();
    }
}

/// In the extensions of a response: the service itself sends the last byte of the answer's data in a frame of its
/// own. Then frames are passed on as they are, which costs less.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

/// Runs the tasks of calls. Each is counted, can be cut, and ends when its call stalls.
#[derive(Clone, Debug)]
pub(super) struct StallExecutor {
    tasks: TaskTracker,
    cut: CancellationToken,
    limit: Duration,
}

impl StallExecutor {
    pub(super) fn new(tasks: TaskTracker, cut: CancellationToken, limit: Duration) -> Self {
        Self { tasks, cut, limit }
    }
}

impl<F> Executor<F> for StallExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        let call = Arc::<Call>::default();
        let (cut, limit) = (self.cut.clone(), self.limit);
        self.tasks.spawn(async move {
            let task = CALL.scope(Arc::clone(&call), task);
            tokio::select! {
                biased;
                // The task comes first: most tasks end at once, and then no timer is set and removed.
                _ = task => {}
                () = cut.cancelled() => {}
                () = call.reset.0.cancelled() => tracing::debug!("a call was reset"),
                () = call.stalled(limit) => tracing::debug!("a call was reset, because its client reads nothing"),
            }
        });
    }
}

impl Call {
    /// Returns after the call has waited for its client for `limit` without a break.
    async fn stalled(&self, limit: Duration) {
        loop {
            // Checking at most once per `limit` keeps this off the data path.
            let since = *self.waiting.lock();
            let deadline = since.unwrap_or_else(Instant::now) + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// A body that passes its data on in parts, and records whether the client or the server has to act next.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    /// The part of the body's last frame that was not passed on yet.
    rest: Bytes,
    /// Maximum size of a part, in bytes. With `None`, frames are not split.
    part: Option<usize>,
    call: Option<Arc<Call>>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, part: Option<usize>) -> Self {
        Self { body, rest: Bytes::new(), part, call: CALL.try_with(Arc::clone).ok() }
    }

    fn note(&self, since: Option<Instant>) {
        if let Some(call) = &self.call {
            *call.waiting.lock() = since;
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Watched<B> {
    fn next_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        // The last byte goes by itself. HTTP/2 takes a part of any length as soon as there is room for one byte, and
        // takes trailers at once. A call whose data is all taken has ended, so nothing could discard that data.
        let length = self.rest.len();
        let part = self.part.map_or(length, |part| part.min(length - 1).max(1));
        let part = self.rest.split_to(part);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.next_part(cx);
        // A poll means that the client has room for the previous part. After a new part, the call waits for
        // the client.
        self.note(matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn the_last_byte_of_a_frame_goes_by_itself() {
        for (length, part, parts) in [
            (10, Some(usize::MAX), &[9, 1][..]),
            (10, Some(4), &[4, 4, 1, 1]),
            (1, Some(4), &[1]),
            (0, Some(4), &[]),
            (10, None, &[10]),
        ] {
            let mut body = Watched::new(Full::new(Bytes::from(vec![7; length])), part);
            let mut seen = Vec::new();
            while let Some(frame) = body.frame().await {
                seen.push(frame.expect("no fault").into_data().expect("data").len());
            }
            assert_eq!(seen, parts, "{length} bytes in parts of {part:?}");
        }
    }
}
