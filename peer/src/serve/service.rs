//! `PeerService` as a tower service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use proto::{
    pb::{GetChunkRequest, WatchAvailabilityRequest},
    reason::Reason,
};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;
use transport::{ConnInfo, Principal, Reset, Standing, Whole};

use crate::ports::{UPLOAD_LIMIT, UPLOAD_READERS};

use super::{
    get_chunk::{Uploads, get_chunk},
    grpc,
    guard::guarded,
    watch::watch,
};

/// When a caller without a place should ask again.
const RETRY: Duration = Duration::from_secs(5);

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
        let reset = request.extensions().get::<Reset>().cloned();
        let standing = request.extensions().get::<Standing>().cloned();
        let admission = self.uploads.admission.clone();
        let admit = |ticket: &str, file: &[u8]| {
            let who = admission.admit(peer, ticket, file)?;
            // Only a ticket gives a connection a place of its own. Any account gets a certificate.
            let is_proven = standing.is_none_or(|standing| standing.prove(Principal::Peer(who.claims.peer)));
            if is_proven { Ok(who) } else { Err(too_many()) }
        };
        match request.uri().path() {
            "/minitorrent.v1.PeerService/GetChunk" => {
                let request: GetChunkRequest = grpc::decode(request).await?;
                let who = admit(&request.ticket, &request.file_id)?;
                let chunks = get_chunk(self.uploads.clone(), who.clone(), &request)?;
                let mut response = grpc::streaming(guarded(&admission, &who, reset, chunks));
                let (limit, readers) = (self.uploads.limiter.rate(), self.uploads.slots.readers());
                response.headers_mut().insert(UPLOAD_LIMIT, limit.into());
                response.headers_mut().insert(UPLOAD_READERS, readers.into());
                response.extensions_mut().insert(Whole);
                Ok(response)
            }
            "/minitorrent.v1.PeerService/WatchAvailability" => {
                let request: WatchAvailabilityRequest = grpc::decode(request).await?;
                let who = admit(&request.ticket, &request.file_id)?;
                let changes = watch(admission.clone(), who.clone());
                Ok(grpc::streaming(guarded(&admission, &who, reset, changes)))
            }
            _ => Err(Status::unimplemented("no such method")),
        }
    }
}

fn too_many() -> Status {
    Reason::Busy
        .status_retry("the peer has as many connections as it may have, or all places are taken", RETRY)
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
