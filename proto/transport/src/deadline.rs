//! Deadlines: the earlier of the caller's (`grpc-timeout`) and the server's own.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tower::Service;

use super::middleware::{Middleware, ResponseFuture};
use proto::reason::Reason;

/// Ends calls that take too long with DEADLINE_EXCEEDED, and drops their work.
///
/// The deadline covers the time until the response begins. For a unary call or a server stream this includes
/// reading the request. Other code limits streams that have begun.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    limit: fn(&str) -> Option<Duration>,
}

impl Deadlines {
    /// `limit` returns the server's own limit for a method path such as `/minitorrent.v1.AuthService/Login`.
    /// It returns `None` for calls whose request may last long.
    pub fn new(limit: fn(&str) -> Option<Duration>) -> Self {
        Self { limit }
    }
}

impl<S, A, B> Middleware<S, A> for Deadlines
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
        let ours = (self.limit)(request.uri().path());
        let limit = ours.into_iter().chain(asked(request.headers())).min();
        let answer = inner.call(request);
        let Some(limit) = limit else { return Box::pin(answer) };
        Box::pin(async move {
            // `timeout` polls its future before its clock. Without this check, work would begin for a
            // deadline of zero.
            if !limit.is_zero()
                && let Ok(answered) = tokio::time::timeout(limit, answer).await
            {
                return answered;
            }
            Ok(Reason::Deadline.status("the call did not finish before its deadline").into_http())
        })
    }
}

/// The deadline that the caller asks for: at most 8 digits and a unit. Anything else is ignored.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status, body::Body};
    use tower::{Layer as _, ServiceExt as _};

    use super::*;
    use crate::MiddlewareLayer;

    async fn code(asked: Option<&str>, takes: Duration) -> Code {
        let slow = tower::service_fn(move |_: Request<Body>| async move {
            // The clock is paused, so this takes no real time. The sleep is the duration under test.
            tokio::time::sleep(takes).await;
            Ok::<_, std::convert::Infallible>(Status::ok("").into_http::<Body>())
        });
        let limit = |path: &str| (path == "/unary").then_some(Duration::from_secs(10));
        let mut request = Request::builder().uri(if asked.is_none() { "/unary" } else { "/stream" });
        if let Some(asked) = asked {
            request = request.header("grpc-timeout", asked);
        }
        let request = request.body(Body::default()).expect("a good request");
        let response =
            MiddlewareLayer(Deadlines::new(limit)).layer(slow).oneshot(request).await.expect("infallible");
        Status::from_header_map(response.headers()).expect("a status in the headers").code()
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_counts_and_nonsense_is_ignored() {
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(code(None, short).await, Code::Ok);
        assert_eq!(code(None, long).await, Code::DeadlineExceeded);
        assert_eq!(code(Some("5S"), long).await, Code::DeadlineExceeded);
        assert_eq!(code(Some("500u"), short).await, Code::DeadlineExceeded);
        assert_eq!(code(Some("0n"), Duration::ZERO).await, Code::DeadlineExceeded);
        for ignored in ["", "S", "-1S", "5", "5x", "123456789S", "99999999H"] {
            assert_eq!(code(Some(ignored), long).await, Code::Ok, "{ignored:?}");
        }
    }
}
