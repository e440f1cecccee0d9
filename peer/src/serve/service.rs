//! `PeerService` as a tower service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use proto::{
    pb::{GetChunkRequest, WatchAvailabilityRequest},
    transport::ConnInfo,
};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    get_chunk::{Uploads, get_chunk},
    grpc,
    watch::watch,
};

/// `minitorrent.v1.PeerService`. Every request needs a [`ConnInfo`] in its extensions.
#[derive(Clone)]
pub struct PeerService {
    uploads: Arc<Uploads>,
}

impl NamedService for PeerService {
    const NAME: &'static str = "minitorrent.v1.PeerService";
}

impl PeerService {
    pub(crate) fn new(uploads: Arc<Uploads>) -> Self {
        Self { uploads }
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Response<Body>, Status>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let peer = request.extensions().get::<ConnInfo>().and_then(|info| info.peer);
        let admission = &self.uploads.admission;
        match request.uri().path() {
            "/minitorrent.v1.PeerService/GetChunk" => {
                let request: GetChunkRequest = grpc::decode(request).await?;
                let who = admission.admit(peer, &request.ticket, &request.file_id)?;
                Ok(grpc::streaming(get_chunk(self.uploads, who, &request)?))
            }
            "/minitorrent.v1.PeerService/WatchAvailability" => {
                let request: WatchAvailabilityRequest = grpc::decode(request).await?;
                let who = admission.admit(peer, &request.ticket, &request.file_id)?;
                Ok(grpc::streaming(watch(admission.clone(), who)))
            }
            _ => Err(Status::unimplemented("no such method")),
        }
    }
}

impl<B> Service<Request<B>> for PeerService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}
