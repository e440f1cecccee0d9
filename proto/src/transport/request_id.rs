//! One id for each call, in the log and in the caller's hands.

use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Request, Response};
use tower::Service;
use tracing::Instrument as _;

use super::{
    ConnInfo,
    around::{Answer, Surround},
};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a call; in its request's extensions.
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

    /// Takes a caller's own id, if it can't do harm in a log.
    fn from_header(value: &HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        good.then(|| Self(text.into()))
    }
}

/// Gives each call an id: the caller's `x-request-id` where it has one, else a random one. The id is in the request's
/// extensions, in the answer's headers, and in the span that the call runs in; at the level of debug, each answer is logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIds;

impl<S, A, B> Surround<S, A> for RequestIds
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    fn call(&self, inner: &mut S, mut request: Request<A>) -> Answer<S, A> {
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
            // A call that fails before its first message says so in its headers.
            let code =
                response.headers().get("grpc-status").and_then(|code| code.to_str().ok()).unwrap_or("0");
            tracing::debug!(code, took = ?since.elapsed(), "answered");
            if let Ok(mut value) = HeaderValue::from_str(id.as_str()) {
                // It never comes again: kept out of HTTP/2's table, where it would only push others out.
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
    use crate::transport::Around;

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
            let response = Around(RequestIds).layer(echo).oneshot(request).await.expect("infallible");
            let id = response.body().as_str();
            assert_eq!(response.headers()[HEADER], id);
            assert_eq!(id == sent, kept, "{sent:?}");
            assert!(!id.is_empty());
        }
    }
}
