//! Logs, and the id that ties together what one verb causes here, at the tracker and at other peers.

use std::{future::Future, io};

use http::{Request, Response};
use proto::{
    settings::LogFormat,
    transport::{Answer, RequestId, Surround},
};
use tower::Service;
use tracing_subscriber::EnvFilter;

tokio::task_local! {
    static REQUEST: RequestId;
}

/// Writes logs to standard error from now on. A second call changes nothing.
pub fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging runs already");
    }
}

/// The id of the call that this task answers.
pub fn request_id() -> Option<String> {
    REQUEST.try_with(|id| id.as_str().to_owned()).ok()
}

/// Runs `work` with the id of the call that the current task answers. For tasks that a call starts.
pub async fn with_same_id<F: Future>(work: F) -> F::Output {
    match REQUEST.try_with(Clone::clone) {
        Ok(id) => REQUEST.scope(id, work).await,
        Err(_) => work.await,
    }
}

/// Makes the id that [`proto::transport::RequestIds`] gave a call known to all that its task does.
#[derive(Clone, Copy, Debug, Default)]
pub struct CarryRequestId;

impl<S, A, B> Surround<S, A> for CarryRequestId
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
        let id = request.extensions().get::<RequestId>().cloned();
        let answer = inner.call(request);
        match id {
            Some(id) => Box::pin(REQUEST.scope(id, answer)),
            None => Box::pin(answer),
        }
    }
}
