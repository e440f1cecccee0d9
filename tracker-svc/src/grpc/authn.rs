//! The authentication layer. It alone reads the session token, and enforces the first two levels of the
//! access table.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::Service;
use transport::{ConnInfo, Middleware, Principal, RequestId, Reset, ResponseFuture, Standing};

use super::rights::{Rights, living_session};
use crate::{
    domain::{
        Caller, Origin, Refusal, SessionHash,
        access::{self, Requirement, Rule},
    },
    error::TrackerError,
    store::Store,
};

/// Adds an [`Origin`] to every request, and a [`Call`](super::rights::Call) to the requests of methods that
/// require a session. A path that is not in the table gets UNIMPLEMENTED, whether or not a service exists
/// there.
#[derive(Clone)]
pub struct Authn {
    rights: Arc<Rights>,
}

impl Authn {
    /// Makes the layer. It registers the admitted calls with `rights`.
    pub fn new(rights: Arc<Rights>) -> Self {
        Self { rights }
    }
}

impl<S, A> Middleware<S, A> for Authn
where
    S: Service<Request<A>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    A: Send + 'static,
{
    fn call(&self, inner: &mut S, mut request: Request<A>) -> ResponseFuture<S, A> {
        // The ready service handles this call. Its clone waits for the next call.
        let clone = inner.clone();
        let mut inner = std::mem::replace(inner, clone);
        let rights = Arc::clone(&self.rights);
        Box::pin(async move {
            let Some(rule) = access::rule(request.uri().path()) else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let mut origin = origin(&request);
            if rule.requirement == Requirement::Anyone {
                request.extensions_mut().insert(origin);
                return inner.call(request).await;
            }
            let caller = match authenticate(rights.store(), rule, request.headers(), origin.at).await {
                Ok(caller) => caller,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            origin.actor = Some(caller.user().clone());
            if let Some(standing) = request.extensions().get::<Standing>() {
                // If the account has too many connections, this fails, and the connection still gives way to
                // newcomers.
                standing.prove(Principal::Account(caller.account().0));
            }
            let reset = request.extensions().get::<Reset>().cloned();
            let running = rights.begin(request.uri().path(), caller, reset);
            request.extensions_mut().insert(Arc::clone(&running.call));
            request.extensions_mut().insert(origin);
            running.answer(inner.call(request)).await
        })
    }
}

fn origin<A>(request: &Request<A>) -> Origin {
    let extensions = request.extensions();
    let ip: Option<IpAddr> =
        extensions.get::<ConnInfo>().and_then(|info| info.remote).map(|remote| remote.ip());
    let request = extensions.get::<RequestId>().map_or("", RequestId::as_str);
    Origin { actor: None, ip, request: request.into(), at: SystemTime::now() }
}

/// Reads the session's row for each call, so that an ended session is refused at once.
async fn authenticate(
    store: &dyn Store,
    rule: Rule,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Caller, TrackerError> {
    let hash = token(headers).and_then(SessionHash::of_token).ok_or(Refusal::NotLoggedIn)?;
    let session = living_session(store, hash, now).await?;
    let wants_touch = session.wants_touch(now);
    let caller = access::authenticate(rule, session, now)?;
    // A full disk must not prevent reads. At worst the session ends early.
    if wants_touch && let Err(error) = store.touch_session(hash, now).await {
        tracing::debug!(%error, "the last use of a session can't be recorded");
    }
    Ok(caller)
}

/// The token of `authorization: Bearer …`; `None` if there are two such headers.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_one_bearer_token_counts() {
        let headers = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a header value"));
            }
            headers
        };
        assert_eq!(token(&headers(&[b"Bearer abc"])), Some("abc"));
        assert_eq!(token(&headers(&[b"bearer abc"])), Some("abc"));
        let none: [&[&[u8]]; 6] = [
            &[],
            &[b""],
            &[b"Bearer"],
            &[b"Basic abc"],
            &[b"Bearer a", b"Bearer a"],
            &["Bearer ä".as_bytes()],
        ];
        for values in none {
            assert_eq!(token(&headers(values)), None, "{values:?}");
        }
    }
}
