//! Deadlines: the caller's (`grpc-timeout`) and ours, whichever comes first.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tower::Service;

use super::around::{Answer, Surround};
use crate::reason::Reason;

/// Answers calls that take too long to be answered with DEADLINE_EXCEEDED, and drops their work.
///
/// It bounds the time until an answer begins: for a unary call or a server stream that includes reading the request.
/// Streams that have begun are bounded elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    limit: fn(&str) -> Option<Duration>,
}

impl Deadlines {
    /// `limit` tells our own limit for a method path such as `/minitorrent.v1.AuthService/Login`; none for calls whose
    /// request may go on for long.
    pub fn new(limit: fn(&str) -> Option<Duration>) -> Self {
        Self { limit }
    }
}

impl<S, A, B> Surround<S, A> for Deadlines
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
        let ours = (self.limit)(request.uri().path());
        let limit = ours.into_iter().chain(asked(request.headers())).min();
        let answer = inner.call(request);
        let Some(limit) = limit else { return Box::pin(answer) };
        Box::pin(async move {
            // A timeout polls its future before its clock: no work at all is done for a deadline that is over.
            if !limit.is_zero()
                && let Ok(answered) = tokio::time::timeout(limit, answer).await
            {
                return answered;
            }
            Ok(Reason::Deadline.status("the call took longer than its deadline").into_http())
        })
    }
}

/// What the caller asked for: at most 8 digits and a unit. Anything else is ignored.
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
    use crate::transport::Around;

    async fn code(asked: Option<&str>, takes: Duration) -> Code {
        let slow = tower::service_fn(move |_: Request<Body>| async move {
            // On a paused clock: it passes at once, and is the very thing that is measured.
            tokio::time::sleep(takes).await;
            Ok::<_, std::convert::Infallible>(Status::ok("").into_http::<Body>())
        });
        let limit = |path: &str| (path == "/unary").then_some(Duration::from_secs(10));
        let mut request = Request::builder().uri(if asked.is_none() { "/unary" } else { "/stream" });
        if let Some(asked) = asked {
            request = request.header("grpc-timeout", asked);
        }
        let request = request.body(Body::default()).expect("a good request");
        let response = Around(Deadlines::new(limit)).layer(slow).oneshot(request).await.expect("infallible");
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
