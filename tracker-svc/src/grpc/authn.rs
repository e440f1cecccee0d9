//! The authentication layer. It alone reads the session token, and enforces the first two levels of the
//! access table.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::Service;
use transport::{ConnInfo, Middleware, Principal, RequestId, Reset, ResponseFuture, Standing};

use super::{
    gate::Presumed,
    rights::{Rights, living_session, touch},
};
use crate::{
    domain::{
        Actor, Caller, Origin, Refusal, Session, SessionHash,
        access::{self, Requirement, Rule},
    },
    error::TrackerError,
};

/// Adds an [`Origin`] to every request, and a [`Call`](super::rights::Call) to the requests of methods that
/// require a session. A path that is not in the table gets UNIMPLEMENTED, whether or not a service exists
/// there.
///
/// The calls of [`AT_ONCE`] carry a [`Presumed`] instead of a `Call`.
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

/// The reads that daemons make by themselves. They read the session again, together with all else that decides them
/// ([`Gate::admit`](super::gate::Gate::admit)), so that the store is asked once. Here it is asked about sessions only
/// that have no running call, because the body of a request is read for known callers alone.
const AT_ONCE: [&str; 4] = [
    "/minitorrent.v1.FileService/ListFiles",
    "/minitorrent.v1.FileService/GetManifest",
    "/minitorrent.v1.SwarmService/IssueTickets",
    "/minitorrent.v1.SwarmService/FindPeers",
];

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
            let at_once = AT_ONCE.contains(&request.uri().path());
            let authenticated = authenticate(&rights, rule, request.headers(), origin.at, at_once).await;
            let (session, caller) = match authenticated {
                Ok(authenticated) => authenticated,
                Err(error) => return Ok(Status::from(error).into_http()),
            };
            let token = caller.token().map(|token| token.name.clone());
            origin.actor = Some(Actor { user: caller.user().clone(), token });
            if let Some(standing) = request.extensions().get::<Standing>() {
                // If the account has too many connections, this fails, and the connection still gives way to
                // newcomers.
                standing.prove(Principal::Account(caller.account().0));
            }
            let reset = request.extensions().get::<Reset>().cloned();
            let running = rights.begin(request.uri().path(), session, caller, reset);
            let call = Arc::clone(&running.call);
            match at_once {
                true => request.extensions_mut().insert(Presumed::new(call, rule)).map(drop),
                false => request.extensions_mut().insert(call).map(drop),
            };
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

/// Reads the session's row for each call, so that an ended session is refused at once. If the call reads it again, what
/// another running call found is enough here.
async fn authenticate(
    rights: &Rights,
    rule: Rule,
    headers: &HeaderMap,
    now: SystemTime,
    at_once: bool,
) -> Result<(Session, Caller), TrackerError> {
    let hash = token(headers).and_then(SessionHash::of_token).ok_or(Refusal::NotLoggedIn)?;
    let recent = rights.recent(hash).filter(|session| at_once && session.is_alive(now));
    let session = match recent {
        Some(session) => session,
        None => living_session(rights.store(), hash, now).await?,
    };
    let caller = access::authenticate(rule, session.clone(), now)?;
    if !at_once {
        touch(rights.store(), &session, now).await;
    }
    Ok((session, caller))
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
