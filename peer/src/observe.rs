//! Logging, and the request id that connects what one verb causes here, at the tracker and at other peers.

use std::{future::Future, io};

use http::{Request, Response};
use program::{log::Escaping, settings::LogFormat};
use tower::Service;
use tracing_subscriber::EnvFilter;
use transport::{Middleware, RequestId, ResponseFuture};

tokio::task_local! {
    static REQUEST: RequestId;
}

/// Writes logs to standard error from now on. A second call changes nothing.
pub(crate) fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaping::new(io::stderr(), format))
        .with_ansi(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging has already started");
    }
}

/// The id of the call that this task answers.
pub(crate) fn request_id() -> Option<String> {
    REQUEST.try_with(|id| id.as_str().to_owned()).ok()
}

/// Runs `work` with the id of the call that the current task answers. Used for tasks that a call starts. The
/// id is read when this function is called, in the task of the call.
pub(crate) fn with_same_id<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let id = REQUEST.try_with(Clone::clone).ok();
    async move {
        match id {
            Some(id) => REQUEST.scope(id, work).await,
            None => work.await,
        }
    }
}

/// Makes the id that [`transport::RequestIds`] gave a call available to the whole task that answers it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CarryRequestId;

impl<S, A, B> Middleware<S, A> for CarryRequestId
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
        let id = request.extensions().get::<RequestId>().cloned();
        let answer = inner.call(request);
        match id {
            Some(id) => Box::pin(REQUEST.scope(id, answer)),
            None => Box::pin(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::{Layer as _, ServiceExt as _};
    use transport::{MiddlewareLayer, RequestIds};

    use super::*;

    #[tokio::test]
    async fn a_task_that_a_call_starts_has_its_id() {
        let echo = tower::service_fn(|_: Request<()>| async {
            let started = tokio::spawn(with_same_id(async { request_id() }));
            Ok::<_, std::convert::Infallible>(Response::new(started.await.expect("it ends")))
        });
        let service = MiddlewareLayer(RequestIds).layer(MiddlewareLayer(CarryRequestId).layer(echo));
        let mut request = Request::new(());
        request.headers_mut().insert("x-request-id", http::HeaderValue::from_static("abc"));
        let response = service.oneshot(request).await.expect("infallible");
        assert_eq!(response.body().as_deref(), Some("abc"));
    }
}
