//! The authentication layer: the only reader of the token, and keeper of the first two levels of the access table.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use proto::transport::{Answer, ConnInfo, RequestId, Surround};
use tonic::Status;
use tower::Service;

use crate::{
    domain::{
        Caller, Origin, Refusal, SessionHash,
        access::{self, Requirement},
    },
    error::TrackerError,
    store::Store,
};

/// Puts an [`Origin`] into every request, and a [`Caller`] into those of methods that ask for a session. A path that
/// is not in the table is answered with UNIMPLEMENTED, whether or not something is served there.
#[derive(Clone)]
pub struct Authn {
    store: Arc<dyn Store>,
}

impl Authn {
    /// Looks sessions up in that store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

impl<S, A, B> Surround<S, A> for Authn
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    A: Send + 'static,
    B: Default,
{
    fn call(&self, inner: &mut S, mut request: Request<A>) -> Answer<S, A> {
        // The one that is ready is used; its clone waits for the next call.
        let clone = inner.clone();
        let mut inner = std::mem::replace(inner, clone);
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            let Some(requirement) = access::requirement(request.uri().path()) else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let mut origin = origin(&request);
            if requirement > Requirement::Anyone {
                match authenticate(&*store, requirement, request.headers(), origin.at).await {
                    Ok(caller) => {
                        origin.actor = Some(caller.user().clone());
                        request.extensions_mut().insert(caller);
                    }
                    Err(error) => return Ok(Status::from(error).into_http()),
                }
            }
            request.extensions_mut().insert(origin);
            inner.call(request).await
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

/// Reads the session's row at each call: what was ended is ended at once.
async fn authenticate(
    store: &dyn Store,
    requirement: Requirement,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Caller, TrackerError> {
    let hash = token(headers).and_then(SessionHash::of_token).ok_or(Refusal::NotLoggedIn)?;
    let session = store.session(hash).await?.ok_or(Refusal::NotLoggedIn)?;
    let wants_touch = session.wants_touch(now);
    let caller = access::authenticate(requirement, session, now)?;
    // A full disk must keep nobody from reading: at worst the session ends early.
    if wants_touch && let Err(error) = store.touch_session(hash, now).await {
        tracing::debug!(%error, "the use of a session can't be noted");
    }
    Ok(caller)
}

/// The token of `authorization: Bearer …`; none when there are two such headers.
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
