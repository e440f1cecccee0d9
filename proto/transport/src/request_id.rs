//! One id for each call, for the log and for the caller.

use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Request, Response};
use tower::Service;
use tracing::Instrument as _;

use super::{
    ConnInfo,
    middleware::{Middleware, ResponseFuture},
};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a call. It is in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text: 1-64 letters, digits, `-`, `_` and `.`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// Accepts a caller's own id if it is harmless in a log.
    fn from_header(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        good.then(|| Self(text.into()))
    }
}

/// Gives each call an id: the caller's `x-request-id` if it is valid, else a random one. The id is in the
/// request's extensions, in the response's headers, and in the call's tracing span. At level debug, each
/// response is logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIds;

impl<S, A, B> Middleware<S, A> for RequestIds
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, mut request: Request<A>) -> ResponseFuture<S, A> {
        let id =
            request.headers().get(HEADER).and_then(RequestId::from_header).unwrap_or_else(RequestId::new);
        let info = request.extensions().get::<ConnInfo>();
        let span = tracing::info_span!(
            "call",
            id = id.as_str(),
            path = request.uri().path(),
            remote = info.and_then(|info| info.remote).map(tracing::field::display),
            peer = info.and_then(|info| info.peer).map(tracing::field::display),
        );
        request.extensions_mut().insert(id.clone());
        let answer = span.in_scope(|| inner.call(request));
        let since = Instant::now();
        let answer = async move {
            let mut response = answer.await?;
            // A call that fails before its first message has its status in the headers.
            let code =
                response.headers().get("grpc-status").and_then(|code| code.to_str().ok()).unwrap_or("0");
            tracing::debug!(code, took = ?since.elapsed(), "answered");
            if let Ok(mut value) = HeaderValue::from_str(id.as_str()) {
                // The value never repeats. This keeps it out of HTTP/2's header table, where it would evict
                // useful entries.
                value.set_sensitive(true);
                response.headers_mut().insert(HEADER, value);
            }
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use tower::{Layer as _, ServiceExt as _};

    use super::*;
    use crate::MiddlewareLayer;

    #[tokio::test]
    async fn good_ids_are_kept_and_bad_ones_replaced() {
        let echo = tower::service_fn(|request: Request<()>| async move {
            let id = request.extensions().get::<RequestId>().expect("every call has an id").clone();
            Ok::<_, std::convert::Infallible>(Response::new(id))
        });
        let long = "a".repeat(65);
        for (sent, kept) in [
            ("abc-1_2.3", true),
            ("", false),
            ("a b", false),
            ("\u{e9}", false),
            (&long, false),
            ("a{}", false),
        ] {
            let mut request = Request::new(());
            request.headers_mut().insert(HEADER, HeaderValue::from_bytes(sent.as_bytes()).expect("visible"));
            let response =
                MiddlewareLayer(RequestIds).layer(echo).oneshot(request).await.expect("infallible");
            let id = response.body().as_str();
            assert_eq!(response.headers()[HEADER], id);
            assert_eq!(id == sent, kept, "{sent:?}");
            assert!(!id.is_empty());
        }
    }
}
