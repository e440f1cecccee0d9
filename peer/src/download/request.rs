//! One `GetChunk` request: sends it, reads the answer, and hands in its pieces one after the other to be
//! checked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use proto::{
    domain::{PieceIndex, PieceLayout},
    pb::GetChunkRequest,
    reason::Reason,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tower::{Service as _, ServiceExt as _};
use transport::within;

use super::{
    assembly::Assembly,
    check,
    context::Context,
    frames::{Frames, Item},
    links::Link,
};
use crate::{
    domain::download::{DownloadRequestId, Event, Failure, window},
    hashing::lanes,
    observe,
    ports::{UPLOAD_LIMIT, UPLOAD_READERS},
};

/// The time that a peer has for its first answer: a place in its queue, or data.
const ANSWER: Duration = Duration::from_secs(15);

/// The content of a request.
pub(super) struct ChunkRequest {
    pub(super) request: DownloadRequestId,
    pub(super) pieces: Vec<PieceIndex>,
    pub(super) max_pieces: u32,
    pub(super) in_order: bool,
    pub(super) urgent: bool,
}

/// The reason why a request ended early.
pub(super) enum Cut {
    /// The failure to report to the machine.
    Failed(Failure),
    /// The peer refused with this status.
    Status(Status),
}

impl From<Failure> for Cut {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs a request, and reports everything that it brings to the driver.
pub(super) async fn run(
    context: Arc<Context>,
    link: Arc<Link>,
    ask: ChunkRequest,
    cancelled: CancellationToken,
) {
    let request = ask.request;
    let pending = TaskTracker::new();
    let mut ticket = None;
    // A refused ticket is replaced once. A peer that also refuses the new one does not want to serve this
    // peer.
    for fresh in [false, true] {
        let result = async {
            let got = context.ticket(ticket.take().filter(|_| fresh)).await.map_err(|_| Failure::Refused)?;
            ticket = Some(got.clone());
            attempt(&context, &link, &ask, got, &pending).await
        };
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            result = result => result,
        };
        let result = match result {
            Ok(()) => Ok(()),
            Err(Cut::Failed(failure)) => Err(failure),
            Err(Cut::Status(status)) if !fresh && context.is_about_ticket(&status) => {
                context.rest_before_new_ticket(&status).await;
                continue;
            }
            Err(Cut::Status(status)) => ended(&status),
        };
        // The end is reported after all pieces that the request brought.
        pending.close();
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = pending.wait() => context.report(Event::Ended(request, result)).await,
        }
        return;
    }
}

/// The result of a request that ended with this status.
pub(super) fn ended(status: &Status) -> Result<(), Failure> {
    match Reason::of(status) {
        Some(Reason::Replaced) => Ok(()),
        Some(Reason::Busy | Reason::RateLimited) => Err(Failure::Busy),
        Some(Reason::NotShared | Reason::FileChanged | Reason::PathNotFound | Reason::Corrupt) => {
            Err(Failure::NotShared)
        }
        Some(_) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
            Err(Failure::Refused)
        }
        _ => Err(Failure::Connection),
    }
}

fn message(context: &Context, ask: &ChunkRequest, ticket: &str) -> Request<Body> {
    let message = GetChunkRequest {
        ticket: ticket.to_owned(),
        file_id: context.spec.file.as_bytes().to_vec().into(),
        pieces: ask.pieces.iter().map(|piece| piece.get().into()).collect(),
        max_pieces: ask.max_pieces,
        in_order: ask.in_order,
        urgent: ask.urgent,
    };
    let length = message.encoded_len();
    let mut bytes = vec![0];
    // Fits: the ticket has at most 2 KiB, and the set at most 65,536 numbers.
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    let mut request = Request::new(Body::new(Full::new(Bytes::from(bytes)).map_err(|never| match never {})));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/minitorrent.v1.PeerService/GetChunk");
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    // The id of the command that started the download.
    if let Some(id) = observe::request_id().and_then(|id| HeaderValue::try_from(id).ok()) {
        request.headers_mut().insert("x-request-id", id);
    }
    request
}

async fn attempt(
    context: &Arc<Context>,
    link: &Arc<Link>,
    ask: &ChunkRequest,
    ticket: Arc<str>,
    pending: &TaskTracker,
) -> Result<(), Cut> {
    // A source that is asked for one piece at a time is slow, or busy with other peers. One connection can
    // carry what it sends.
    let mut lease = link.lease(ask.max_pieces != 1, window(context.limiter.rate())).await;
    let call = async {
        let channel = lease.channel.ready().await.map_err(|_| Failure::Connection)?;
        channel.call(message(context, ask, &ticket)).await.map_err(|_| Failure::Connection)
    };
    let response = within(ANSWER, call).await.map_err(|_| Failure::Connection)??;
    if response.status() != http::StatusCode::OK {
        return Err(Failure::Connection.into());
    }
    // An answer without a body has its status in the headers.
    if let Some(status) = Status::from_header_map(response.headers()) {
        return if status.code() == Code::Ok { Ok(()) } else { Err(Cut::Status(status)) };
    }
    let headers = response.headers();
    link.note_uploads(number_in(headers, &UPLOAD_LIMIT), number_in(headers, &UPLOAD_READERS));
    let mut body = response.into_body();
    let mut reading = Reading::new(context, ask, pending);
    loop {
        let Some(Ok(frame)) = body.frame().await else { return Err(Failure::Connection.into()) };
        match frame.into_data() {
            Ok(data) => {
                let pass = context.limiter.pass(data.len());
                context.wait_for_us(ask.request, &context.spent.limit, pass).await;
                reading.take(data).await?;
            }
            Err(frame) => {
                let status =
                    frame.into_trailers().ok().and_then(|trailers| Status::from_header_map(&trailers));
                return match status {
                    Some(status) if status.code() == Code::Ok && reading.may_end() => Ok(()),
                    Some(status) if status.code() == Code::Ok => Err(Failure::Protocol.into()),
                    Some(status) => Err(Cut::Status(status)),
                    None => Err(Failure::Protocol.into()),
                };
            }
        }
    }
}

/// The number that a header of the answer holds.
fn number_in(headers: &http::HeaderMap, name: &http::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The state of reading an answer.
struct Reading<'a> {
    context: &'a Arc<Context>,
    request: DownloadRequestId,
    /// Counts the request's pieces that are being checked.
    pending: &'a TaskTracker,
    layout: PieceLayout,
    frames: Frames,
    /// The requested pieces that have not been started.
    open: Vec<PieceIndex>,
    most: usize,
    current: Option<Assembly>,
}

impl<'a> Reading<'a> {
    fn new(context: &'a Arc<Context>, ask: &ChunkRequest, pending: &'a TaskTracker) -> Self {
        let most = if ask.max_pieces == 0 { ask.pieces.len() } else { ask.max_pieces as usize };
        Self {
            context,
            request: ask.request,
            pending,
            layout: context.spec.manifest.layout(),
            frames: Frames::default(),
            open: ask.pieces.clone(),
            most,
            current: None,
        }
    }

    fn may_end(&self) -> bool {
        self.current.is_none() && self.frames.is_between_messages()
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<(), Cut> {
        while let Some(item) = self.frames.next(&mut bytes).map_err(|error| {
            tracing::debug!(%error, "a source sent an invalid answer");
            Failure::Protocol
        })? {
            match item {
                Item::Place(place) if self.current.is_none() => {
                    self.context.report(Event::Queued(self.request, place)).await;
                }
                Item::Place(_) => return Err(Failure::Protocol.into()),
                Item::Data { piece, offset, data } => self.data(piece, offset, data).await?,
            }
        }
        Ok(())
    }

    async fn data(&mut self, piece: u64, offset: u64, data: Bytes) -> Result<(), Cut> {
        let assembly = match self.current.take() {
            Some(assembly) => assembly,
            None => self.begin(piece).await?,
        };
        let assembly = self.current.insert(assembly);
        let bytes = data.len() as u32;
        if u64::from(assembly.piece().get()) != piece || !assembly.push(offset, data) {
            return Err(Failure::Protocol.into());
        }
        let whole = assembly.is_whole();
        self.context.report(Event::Received(self.request, bytes)).await;
        if whole && let Some(assembly) = self.current.take() {
            check::hand_in(self.context, self.request, assembly.finish(), self.pending).await;
        }
        Ok(())
    }

    /// Starts a piece with its first bytes. It must be one of the requested pieces.
    async fn begin(&mut self, piece: u64) -> Result<Assembly, Cut> {
        let at = self.open.iter().position(|open| u64::from(open.get()) == piece);
        let (Some(at), true) = (at, self.most > 0) else { return Err(Failure::Protocol.into()) };
        let piece = self.open.swap_remove(at);
        self.most -= 1;
        debug_assert!(self.layout.index(piece.get().into()).is_some());
        self.context.report(Event::Started(self.request, piece)).await;
        Ok(Assembly::new(self.layout, piece, lanes::width() > 1))
    }
}
