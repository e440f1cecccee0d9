//! Ends calls whose client takes nothing of the answer that waits for it.
//!
//! A client that never reads holds a call, its buffers and its upload slot for ever: pings are still answered, and the
//! HTTP library only waits for room in the client's window. So each call's task knows since when it is the client's
//! turn, and ends itself when that gets too long; the client sees the stream reset.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Since when the call waits for its client; none while the client waits for us.
type Waiting = Arc<Mutex<Option<Instant>>>;

tokio::task_local! {
    /// Of the call whose task runs. The body is made within that task, and finds it here.
    static WAITING: RefCell<Option<Waiting>>;
}

/// Runs each call's task so that it is counted, cut, and ended when it stalls.
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
        let waiting = Waiting::default();
        let (cut, limit) = (self.cut.clone(), self.limit);
        self.tasks.spawn(async move {
            let task = WAITING.scope(RefCell::new(Some(Arc::clone(&waiting))), task);
            tokio::select! {
                biased;
                // The task first: most are done at once, and then there is no timer to be set and taken back.
                _ = task => {}
                () = cut.cancelled() => {}
                () = stalled(&waiting, limit) => tracing::debug!("a call was reset: its client reads nothing"),
            }
        });
    }
}

/// Returns once the call has waited for its client for `limit` on end.
async fn stalled(waiting: &Waiting, limit: Duration) {
    loop {
        // Looking once in `limit` at the most keeps this off the path of the data.
        let since = waiting.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        let deadline = since + limit;
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}

/// A body that notes whose turn it is.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    waiting: Option<Waiting>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B) -> Self {
        let waiting = WAITING.try_with(|cell| cell.borrow_mut().take()).ok().flatten();
        Self { body, waiting }
    }

    fn note(&self, since: Option<Instant>) {
        if let Some(waiting) = &self.waiting {
            *waiting.lock().unwrap_or_else(PoisonError::into_inner) = since;
        }
    }
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Asked for more, the client has taken what went before; handed more, it is its turn.
        self.note(matches!(polled, Poll::Ready(Some(Ok(_)))).then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
