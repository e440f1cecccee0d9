//! A source that lies.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use proto::{
    domain::{Bitfield, PeerId},
    pb::{
        self, GetChunkRequest, GetChunkResponse, WatchAvailabilityRequest, WatchAvailabilityResponse,
        peer_service_server::{PeerService, PeerServiceServer},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::DropGuard;
use tonic::{Request, Response, Status, body::Body};

use crate::{
    content::PIECE,
    world::{SharedFile, World},
};

/// The bytes of a chunk of an honest source.
const CHUNK: usize = PIECE / 4;

/// The answer of a lying source to a request for pieces. Unless it says otherwise, it is about each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Wrong bytes of the right number.
    Noise,
    /// The piece with one wrong byte.
    OneByte,
    /// The bytes of another piece.
    AnotherPiece,
    /// The pieces of the liar's own content, as they are.
    OtherContent,
    /// Three quarters of the first piece, then the end of the stream with success.
    Short,
    /// The first half of the piece.
    Halves,
    /// The first half of the piece, twice.
    Repeated,
    /// The piece, and more of it endlessly.
    Endless,
    /// The first quarter of the piece, endlessly.
    EndlessQuarters,
    /// Empty messages, endlessly.
    Empty,
    /// A piece that was not asked for.
    NotAsked,
    /// The piece under this number.
    Index(u64),
    /// The piece from this offset on.
    Offset(u64),
    /// Chunks of 2 MiB.
    Large,
    /// Half a piece, then an error.
    ErrorMidway,
    /// A byte now and then.
    Drip,
    /// Nothing at all.
    Silent,
    /// A place in the queue that never moves.
    Queued,
    /// An error of every kind.
    Refuses,
    /// The same, and availability that is not a bitfield of the file.
    BadBitfield,
    /// The end of the stream without a status.
    NoStatus,
    /// Bytes that are no messages.
    Garbage,
}

/// A source that lies. It stops when this is dropped.
pub struct Liar {
    /// Its peer id.
    pub peer: PeerId,
    /// Where it is.
    pub address: String,
    counts: Arc<Counts>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    taken: AtomicUsize,
}

impl Liar {
    /// Starts a source of `file` that says that it has all pieces. It has the bytes of `file.content`, which
    /// need not be the bytes of `file.manifest`.
    pub async fn start(world: &World, lie: Lie, file: &SharedFile) -> Self {
        let own = world.credentials();
        let counts = Arc::<Counts>::default();
        let service = Service { lie, file: file.clone(), counts: Arc::clone(&counts) };
        let grpc = PeerServiceServer::new(service.clone()).max_encoding_message_size(64 << 20);
        let (address, stop, _) = world.serve(&own, BelowGrpc { service, grpc }).await;
        Self { peer: own.peer, address, counts, _stop: stop.drop_guard() }
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.counts.asked.load(Ordering::Relaxed)
    }

    /// The bytes of file data that were taken from it so far.
    pub fn taken(&self) -> usize {
        self.counts.taken.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Service {
    lie: Lie,
    file: SharedFile,
    counts: Arc<Counts>,
}

type Answer<T> = Result<T, Status>;
type Chunks = mpsc::Sender<Answer<GetChunkResponse>>;

impl Service {
    fn pieces(&self) -> u64 {
        self.file.content.len().div_ceil(PIECE) as u64
    }

    fn piece(&self, piece: u64) -> Bytes {
        let start = usize::try_from(piece).unwrap() * PIECE;
        Bytes::copy_from_slice(&self.file.content[start..(start + PIECE).min(self.file.content.len())])
    }

    /// Sends one chunk. Returns `None` if nobody receives any more.
    async fn say(&self, to: &Chunks, piece_index: u64, offset: u64, data: Bytes) -> Option<()> {
        let length = data.len();
        to.send(Ok(GetChunkResponse { piece_index, offset, data, queue_place: 0 })).await.ok()?;
        self.counts.taken.fetch_add(length, Ordering::Relaxed);
        Some(())
    }

    /// Sends these bytes in chunks.
    async fn put(&self, to: &Chunks, piece_index: u64, offset: u64, data: Bytes) -> Option<()> {
        for at in (0..data.len()).step_by(CHUNK) {
            let chunk = data.slice(at..(at + CHUNK).min(data.len()));
            self.say(to, piece_index, offset.wrapping_add(at as u64), chunk).await?;
        }
        Some(())
    }

    /// Sends the lie about all pieces. Ends early when nobody receives any more.
    async fn tell(self, pieces: Vec<u64>, to: Chunks) -> Option<()> {
        for &piece in &pieces {
            self.tell_of(piece, &pieces, &to).await?;
        }
        Some(())
    }

    /// Sends the lie about one piece. Returns `None` if nothing comes after it.
    async fn tell_of(&self, piece: u64, asked: &[u64], to: &Chunks) -> Option<()> {
        let good = self.piece(piece);
        let half = good.slice(..good.len() / 2);
        match self.lie {
            Lie::Noise => self.put(to, piece, 0, vec![0xa5; good.len()].into()).await,
            Lie::OneByte => {
                let mut bytes = good.to_vec();
                bytes[good.len() / 2] ^= 1;
                self.put(to, piece, 0, bytes.into()).await
            }
            Lie::AnotherPiece => self.put(to, piece, 0, self.piece((piece + 1) % self.pieces())).await,
            Lie::OtherContent => self.put(to, piece, 0, good).await,
            Lie::Short => {
                self.put(to, piece, 0, good.slice(..good.len() * 3 / 4)).await?;
                None
            }
            Lie::Halves => self.put(to, piece, 0, half).await,
            Lie::Repeated => {
                self.put(to, piece, 0, half.clone()).await?;
                self.put(to, piece, 0, half).await
            }
            Lie::Endless => self.endless(to, piece, good).await,
            Lie::EndlessQuarters => self.endless(to, piece, good.slice(..good.len() / 4)).await,
            Lie::Empty => loop {
                self.say(to, piece, 0, Bytes::new()).await?;
            },
            Lie::NotAsked => match (0..self.pieces()).find(|index| !asked.contains(index)) {
                Some(other) => self.put(to, other, 0, self.piece(other)).await,
                None => self.put(to, self.pieces() + 100, 0, good).await,
            },
            Lie::Index(index) => self.put(to, index, 0, good).await,
            Lie::Offset(offset) => self.put(to, piece, offset, good).await,
            Lie::Large => self.say(to, piece, 0, vec![0; 2 << 20].into()).await,
            Lie::ErrorMidway => {
                self.put(to, piece, 0, half).await?;
                to.send(Err(Status::internal("on purpose"))).await.ok()?;
                None
            }
            Lie::Drip => {
                for at in 0..good.len() {
                    self.say(to, piece, at as u64, good.slice(at..=at)).await?;
                    // This delay is the lie.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Some(())
            }
            Lie::Silent => std::future::pending().await,
            Lie::Queued => {
                let waiting = GetChunkResponse { queue_place: 1, ..Default::default() };
                to.send(Ok(waiting)).await.ok()?;
                std::future::pending().await
            }
            Lie::Refuses | Lie::BadBitfield | Lie::NoStatus | Lie::Garbage => {
                unreachable!("answered before")
            }
        }
    }

    async fn endless(&self, to: &Chunks, piece: u64, data: Bytes) -> Option<()> {
        for round in 0.. {
            self.put(to, piece, round * data.len() as u64, data.clone()).await?;
        }
        Some(())
    }

    /// Returns an answer that gRPC's own server can't give, or `None`.
    fn raw(&self) -> Option<http::Response<Body>> {
        let frames = match self.lie {
            Lie::NoStatus => vec![],
            Lie::Garbage => vec![Bytes::from(vec![0xaa; 10_000])],
            _ => return None,
        };
        let frames = frames.into_iter().map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
        let mut response = http::Response::new(Body::new(StreamBody::new(stream::iter(frames))));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        Some(response)
    }
}

#[tonic::async_trait]
impl PeerService for Service {
    type GetChunkStream = ReceiverStream<Answer<GetChunkResponse>>;
    type WatchAvailabilityStream = ReceiverStream<Answer<WatchAvailabilityResponse>>;

    async fn get_chunk(&self, request: Request<GetChunkRequest>) -> Answer<Response<Self::GetChunkStream>> {
        let asked = self.counts.asked.fetch_add(1, Ordering::Relaxed);
        if matches!(self.lie, Lie::Refuses | Lie::BadBitfield) {
            let codes = [
                Status::internal("x"),
                Status::unknown("x"),
                Status::not_found("x"),
                Status::resource_exhausted("x"),
                Status::unauthenticated("x"),
                Status::ok("an answer that is none"),
            ];
            return Err(codes[asked % codes.len()].clone());
        }
        let (send, chunks) = mpsc::channel(2);
        // The task ends when its receiver does.
        tokio::spawn(self.clone().tell(request.into_inner().pieces, send));
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn watch_availability(
        &self,
        _: Request<WatchAvailabilityRequest>,
    ) -> Answer<Response<Self::WatchAvailabilityStream>> {
        let bitfield = match self.lie {
            Lie::BadBitfield => pb::Bitfield { bits: vec![0xff; 1 << 20].into() },
            _ => proto::convert::to_bitfield(&Bitfield::full(self.file.manifest.layout())),
        };
        let first = WatchAvailabilityResponse { bitfield: Some(bitfield), ..Default::default() };
        let (send, answers) = mpsc::channel(1);
        // The task ends when its receiver does.
        tokio::spawn(async move {
            if send.send(Ok(first)).await.is_ok() {
                send.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Gives the answers that gRPC's own server can't give.
#[derive(Clone)]
struct BelowGrpc {
    service: Service,
    grpc: PeerServiceServer<Service>,
}

impl tower::Service<http::Request<Body>> for BelowGrpc {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.service.raw().filter(|_| request.uri().path().ends_with("/GetChunk")) {
            Some(response) => {
                self.service.counts.asked.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move { Ok(response) })
            }
            None => Box::pin(tower::Service::call(&mut self.grpc, request)),
        }
    }
}
