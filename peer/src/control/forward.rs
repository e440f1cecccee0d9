//! Services of the tracker that the socket answers too: requests go on as they are, with the session's token.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use proto::reason::Reason;
use tonic::{Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower::{Service, ServiceExt as _};

use crate::{agent::Agent, error::PeerError, tracker::client::CALL_LIMIT};

/// Calls that need no session.
const OPEN: &str = "CreateUser";

/// Passes the service that `S` names on to the tracker.
pub(super) struct Forward<S> {
    agent: Arc<Agent>,
    /// The methods that are passed on; empty for all.
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
        return Err(Status::unimplemented("this call is not passed on to the tracker"));
    }
    let headers = request.headers_mut();
    super::same_tracker(agent, &MetadataMap::from_headers(headers.clone()))?;
    headers.remove(super::TRACKER_METADATA);
    headers.remove(AUTHORIZATION);
    match agent.tracker().bearer().header() {
        Some(token) => {
            let mut value = HeaderValue::from_bytes(token.as_bytes()).map_err(PeerError::internal)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        None if method == OPEN => {}
        None => return Err(PeerError::NotLoggedIn.into()),
    }
    let channel = agent.tracker().channel().await?;
    match tokio::time::timeout(CALL_LIMIT, channel.oneshot(request)).await {
        Ok(Ok(response)) => Ok(told(agent, response)),
        Ok(Err(error)) => Err(PeerError::of_connection(agent.tracker().url(), &error).into()),
        Err(_) => Err(agent.tracker().unreachable("no answer within 10 s").into()),
    }
}

/// The answer as it is, unless the transport made it up.
fn told(agent: &Agent, response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok && Reason::of(&status).is_none() => {
            Status::from(PeerError::of_call(agent.tracker().url(), status)).into_http()
        }
        _ => response,
    }
}
