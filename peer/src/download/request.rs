//! One `GetChunk` request: asked, read, and its pieces handed in to be checked, one after the other.

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
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tower::{Service as _, ServiceExt as _};

use super::{
    assembly::Assembly,
    check,
    context::Context,
    frames::{Frames, Item},
    links::Link,
};
use crate::{
    domain::download::{Event, Failure, RequestId},
    hashing::lanes,
    observe,
};

/// How long a peer may take to answer at all: with a place in its queue, or with data.
const ANSWER: Duration = Duration::from_secs(15);

/// What to ask.
pub(super) struct Ask {
    pub(super) request: RequestId,
    pub(super) pieces: Vec<PieceIndex>,
    pub(super) max_pieces: u32,
    pub(super) in_order: bool,
}

/// How a request ends before its time.
pub(super) enum Cut {
    /// As the machine is to be told.
    Failed(Failure),
    /// Refused with this status.
    Status(Status),
}

impl From<Failure> for Cut {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Carries a request out, and tells the driver all that comes of it.
pub(super) async fn run(context: Arc<Context>, link: Arc<Link>, ask: Ask, cancelled: CancellationToken) {
    let request = ask.request;
    let pending = TaskTracker::new();
    let mut ticket = None;
    // A ticket that was refused is replaced once; the peer that refuses a new one as well does not want us.
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
        // The end comes after all that it brought.
        pending.close();
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = pending.wait() => context.tell(Event::Ended(request, result)).await,
        }
        return;
    }
}

/// What a status means for the request.
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

fn message(context: &Context, ask: &Ask, ticket: &str) -> Request<Body> {
    let message = GetChunkRequest {
        ticket: ticket.to_owned(),
        file_id: context.spec.file.as_bytes().to_vec().into(),
        pieces: ask.pieces.iter().map(|piece| piece.get().into()).collect(),
        max_pieces: ask.max_pieces,
        in_order: ask.in_order,
    };
    let length = message.encoded_len();
    let mut bytes = vec![0];
    // Fits: the ticket has at most 2 KiB, the set at most 65,536 numbers.
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    let mut request = Request::new(Body::new(Full::new(Bytes::from(bytes)).map_err(|never| match never {})));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/minitorrent.v1.PeerService/GetChunk");
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    // The verb's that began the download.
    if let Some(id) = observe::request_id().and_then(|id| HeaderValue::try_from(id).ok()) {
        request.headers_mut().insert("x-request-id", id);
    }
    request
}

async fn attempt(
    context: &Arc<Context>,
    link: &Arc<Link>,
    ask: &Ask,
    ticket: Arc<str>,
    pending: &TaskTracker,
) -> Result<(), Cut> {
    // A source that is asked for one piece at a time is slow, or busy with others: one connection carries what it sends.
    let mut lease = link.lease(ask.max_pieces != 1).await;
    let call = async {
        let channel = lease.channel.ready().await.map_err(|_| Failure::Connection)?;
        channel.call(message(context, ask, &ticket)).await.map_err(|_| Failure::Connection)
    };
    let response = timeout(ANSWER, call).await.map_err(|_| Failure::Connection)??;
    if response.status() != http::StatusCode::OK {
        return Err(Failure::Connection.into());
    }
    // An answer without a body has its status among the headers.
    if let Some(status) = Status::from_header_map(response.headers()) {
        return if status.code() == Code::Ok { Ok(()) } else { Err(Cut::Status(status)) };
    }
    let mut body = response.into_body();
    let mut reading = Reading::new(context, ask, pending);
    loop {
        let Some(Ok(frame)) = body.frame().await else { return Err(Failure::Connection.into()) };
        match frame.into_data() {
            Ok(data) => {
                context.limiter.pass(data.len()).await;
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

/// What has come of an answer.
struct Reading<'a> {
    context: &'a Arc<Context>,
    request: RequestId,
    /// Counts its pieces that are being checked.
    pending: &'a TaskTracker,
    layout: PieceLayout,
    frames: Frames,
    /// Those asked for that have not come.
    open: Vec<PieceIndex>,
    most: usize,
    current: Option<Assembly>,
}

impl<'a> Reading<'a> {
    fn new(context: &'a Arc<Context>, ask: &Ask, pending: &'a TaskTracker) -> Self {
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
            tracing::debug!(%error, "a source's answer makes no sense");
            Failure::Protocol
        })? {
            match item {
                Item::Place(place) if self.current.is_none() => {
                    self.context.tell(Event::Queued(self.request, place)).await;
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
        self.context.tell(Event::Received(self.request, bytes)).await;
        if whole && let Some(assembly) = self.current.take() {
            check::hand_in(self.context, self.request, assembly.finish(), self.pending).await;
        }
        Ok(())
    }

    /// The first bytes of a piece: it must be one of those asked for.
    async fn begin(&mut self, piece: u64) -> Result<Assembly, Cut> {
        let at = self.open.iter().position(|open| u64::from(open.get()) == piece);
        let (Some(at), true) = (at, self.most > 0) else { return Err(Failure::Protocol.into()) };
        let piece = self.open.swap_remove(at);
        self.most -= 1;
        debug_assert!(self.layout.index(piece.get().into()).is_some());
        self.context.tell(Event::Started(self.request, piece)).await;
        Ok(Assembly::new(self.layout, piece, lanes::width() > 1))
    }
}
