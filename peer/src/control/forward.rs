//! Services of the tracker that the socket offers too. Requests are forwarded unchanged, with the session's
//! token.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, Limited};
use proto::reason::Reason;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower::{Service, ServiceExt as _};

use super::tracker_choice::{TRACKER_METADATA, same_tracker};
use crate::{
    agent::Agent,
    error::PeerError,
    observe,
    tracker::{
        client::{PATIENCE, pause},
        line::{CALL_LIMIT, Line},
    },
};

/// The method that needs no session.
const OPEN: [&str; 2] = ["CreateUser", "GetTrackerKeys"];
/// The methods that set a password. They are not repeated when the tracker asks for a pause: the user should
/// hear of it.
const PASSWORD: [&str; 2] = ["CreateUser", "ChangePassword"];
/// The longest request that is forwarded, in bytes. All of them hold a few names.
const LONGEST: usize = 64 << 10;
/// The longest answer that is passed on, in bytes: more than a page of a list has.
const LONGEST_ANSWER: usize = 8 << 20;

/// Forwards the service that `S` names to the tracker.
pub(super) struct Forward<S> {
    agent: Arc<Agent>,
    /// The methods that are forwarded; empty for all.
    methods: Arc<BTreeSet<&'static str>>,
    service: PhantomData<fn() -> S>,
}

impl<S> Forward<S> {
    pub(super) fn new(agent: &Arc<Agent>, methods: &[&'static str]) -> Self {
        let methods = Arc::new(methods.iter().copied().collect());
        Self { agent: Arc::clone(agent), methods, service: PhantomData }
    }
}

impl<S> Clone for Forward<S> {
    fn clone(&self) -> Self {
        Self { agent: Arc::clone(&self.agent), methods: Arc::clone(&self.methods), service: PhantomData }
    }
}

impl<S: NamedService> NamedService for Forward<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Forward<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (agent, methods) = (Arc::clone(&self.agent), Arc::clone(&self.methods));
        Box::pin(
            async move { Ok(forward(&agent, &methods, request).await.unwrap_or_else(Status::into_http)) },
        )
    }
}

async fn forward(
    agent: &Agent,
    methods: &BTreeSet<&'static str>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    if !methods.is_empty() && !methods.contains(method.as_str()) {
        return Err(Status::unimplemented("the daemon does not forward this call to the tracker"));
    }
    let headers = request.headers_mut();
    same_tracker(agent, &MetadataMap::from_headers(headers.clone()))?;
    headers.remove(TRACKER_METADATA);
    headers.remove(AUTHORIZATION);
    match agent.tracker().line().bearer().header() {
        Some(token) => {
            let mut value = HeaderValue::from_bytes(token.as_bytes()).map_err(PeerError::internal)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        None if OPEN.contains(&method.as_str()) => {}
        None => return Err(PeerError::NotLoggedIn.into()),
    }
    if let Some(id) = observe::request_id().and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert("x-request-id", id);
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LONGEST).collect().await;
    let body = body.map_err(|_| Status::out_of_range("the request is too long"))?.to_bytes();
    let deadline =
        Instant::now() + if PASSWORD.contains(&method.as_str()) { Duration::ZERO } else { PATIENCE };
    loop {
        let call = async |line: Line| {
            let request = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let channel = line.channel().await?;
            let answer = async {
                whole(channel.oneshot(request).await.map_err(|error| line.not_connected(&error))?).await
            };
            match tokio::time::timeout(CALL_LIMIT, answer).await {
                Ok(answer) => told(&line, answer?),
                Err(_) => Err(line.unreachable("no answer within 10 s")),
            }
        };
        let response = match agent.tracker().ask(call).await {
            Err(PeerError::Tracker(status)) => status.into_http(),
            other => other?,
        };
        let refused = Status::from_header_map(response.headers());
        match refused.filter(|status| status.code() == Code::ResourceExhausted) {
            Some(status) if pause(&status, deadline).await => {}
            _ => return Ok(response),
        }
    }
}

/// Receives the whole answer, so that a call whose answer breaks off can be repeated.
async fn whole(response: Response<Body>) -> Result<Response<Body>, PeerError> {
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, LONGEST_ANSWER).collect().await {
        Ok(body) => body,
        Err(error) => {
            let broken = error
                .downcast::<Status>()
                .map_or_else(|_| Status::unknown("the answer broke off"), |status| *status);
            return Ok(broken.into_http());
        }
    };
    let trailers = body.trailers().cloned();
    let body = Full::new(body.to_bytes()).with_trailers(std::future::ready(trailers.map(Ok)));
    Ok(Response::from_parts(head, Body::new(body)))
}

/// Returns the tracker's answer unchanged. A status that the transport made up becomes a [`PeerError`], and so
/// does that of a tracker that does not serve.
fn told(line: &Line, response: Response<Body>) -> Result<Response<Body>, PeerError> {
    let status = Status::from_header_map(response.headers());
    match status.filter(|status| status.code() != Code::Ok) {
        Some(status) if Reason::of(&status).is_none() => Err(line.explained(status)),
        Some(status) if Reason::of(&status) == Some(Reason::NotServing) => Err(PeerError::Tracker(status)),
        _ => Ok(response),
    }
}
