//! Peers that lie, cheat or play dead. Whatever they do, the file comes out right.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, task, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::StreamBody;
use peer::engine::{SourceAddr, SourceState};
use proto::{
    domain::{Bitfield, Manifest, PeerId},
    pb::{
        GetChunkRequest, GetChunkResponse, WatchAvailabilityRequest, WatchAvailabilityResponse,
        peer_service_server::{PeerService, PeerServiceServer},
    },
};
use tonic::{Request, Response, Status, body::Body};

use crate::support::{World, file_id, noise, until, until_complete};

const PIECE: usize = 524_288;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    /// Right index and length, wrong bytes.
    Noise,
    /// The right bytes of another piece.
    OtherPiece,
    /// Ends well in the middle of a piece.
    Short,
    /// Never ends a piece.
    Endless,
    /// A piece that was not asked for.
    WrongIndex,
    /// A piece that doesn't exist.
    NoSuchPiece,
    /// Offsets that jump.
    WrongOffset,
    /// Fails after some chunks of right data.
    ErrorAfter,
    /// Messages without data, for ever.
    Empty,
    /// Closes the stream without a status.
    NoTrailers,
    /// Bytes that are no messages.
    Garbage,
    /// Accepts, and says nothing.
    Silent,
    /// A byte now and then.
    Drip,
}

#[derive(Clone)]
struct Hostile {
    behaviour: Behaviour,
    data: Arc<Vec<u8>>,
    manifest: Arc<Manifest>,
}

type Answer<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PeerService for Hostile {
    type GetChunkStream = Answer<GetChunkResponse>;
    type WatchAvailabilityStream = Answer<WatchAvailabilityResponse>;

    async fn get_chunk(
        &self,
        request: Request<GetChunkRequest>,
    ) -> Result<Response<Self::GetChunkStream>, Status> {
        let asked = request.into_inner().pieces;
        Ok(Response::new(self.answer(asked)))
    }

    async fn watch_availability(
        &self,
        _: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        let all = Bitfield::full(self.manifest.layout());
        let first = WatchAvailabilityResponse {
            bitfield: Some(proto::convert::to_bitfield(&all)),
            ..Default::default()
        };
        Ok(Response::new(stream::iter([Ok(first)]).chain(stream::pending()).boxed()))
    }
}

impl Hostile {
    /// A whole piece's chunks as an honest peer sends them.
    fn chunks(&self, index: u64) -> Vec<Result<GetChunkResponse, Status>> {
        let start = index as usize * PIECE;
        let end = (start + PIECE).min(self.data.len());
        let chunk = |at: usize| GetChunkResponse {
            piece_index: index,
            offset: (at - start) as u64,
            data: Bytes::copy_from_slice(&self.data[at..(at + PIECE / 4).min(end)]),
            queue_place: 0,
        };
        (start..end).step_by(PIECE / 4).map(|at| Ok(chunk(at))).collect()
    }

    fn answer(&self, asked: Vec<u64>) -> Answer<GetChunkResponse> {
        let first = asked[0];
        let all: Vec<_> = asked.iter().flat_map(|index| self.chunks(*index)).collect();
        let change = |change: fn(&mut GetChunkResponse)| {
            let mut all = all.clone();
            all.iter_mut().for_each(|chunk| change(chunk.as_mut().unwrap()));
            stream::iter(all).boxed()
        };
        match self.behaviour {
            Behaviour::Noise => change(|chunk| chunk.data = vec![0xee; chunk.data.len()].into()),
            Behaviour::OtherPiece => {
                let mut other = self.chunks((first + 1) % 8);
                other.iter_mut().for_each(|chunk| chunk.as_mut().unwrap().piece_index = first);
                stream::iter(other).boxed()
            }
            Behaviour::Short => stream::iter(self.chunks(first).into_iter().take(3)).boxed(),
            Behaviour::Endless => {
                let chunk = self.chunks(first).remove(0).unwrap();
                stream::iter(0u64..)
                    .map(move |at| {
                        Ok(GetChunkResponse { offset: at * chunk.data.len() as u64, ..chunk.clone() })
                    })
                    .boxed()
            }
            Behaviour::WrongIndex => {
                let other = (0..8).find(|index| !asked.contains(index)).unwrap_or(100);
                stream::iter(self.chunks(other.min(7)))
                    .map(move |chunk| chunk.map(|chunk| GetChunkResponse { piece_index: other, ..chunk }))
                    .boxed()
            }
            Behaviour::NoSuchPiece => change(|chunk| chunk.piece_index = u64::MAX),
            Behaviour::WrongOffset => change(|chunk| chunk.offset = chunk.offset.wrapping_sub(7)),
            Behaviour::ErrorAfter => {
                let some = self.chunks(first).into_iter().take(2);
                stream::iter(some.chain([Err(Status::internal("oops"))])).boxed()
            }
            Behaviour::Empty => stream::repeat_with(|| Ok(GetChunkResponse::default()))
                .then(|message| async {
                    tokio::task::yield_now().await;
                    message
                })
                .boxed(),
            Behaviour::Silent => stream::pending().boxed(),
            Behaviour::Drip => {
                let chunk = self.chunks(first).remove(0).unwrap();
                stream::iter(0u64..)
                    .then(move |at| {
                        let data = chunk.data.slice(at as usize..=at as usize);
                        async move {
                            // To drip is what it is for.
                            tokio::time::sleep(Duration::from_millis(500)).await;
                            Ok(GetChunkResponse { piece_index: first, offset: at, data, queue_place: 0 })
                        }
                    })
                    .boxed()
            }
            Behaviour::NoTrailers | Behaviour::Garbage => unreachable!("answered below gRPC"),
        }
    }

    /// Answers that gRPC's own server can't give.
    fn raw(&self) -> Option<http::Response<Body>> {
        let frames: Vec<Bytes> = match self.behaviour {
            Behaviour::NoTrailers => vec![],
            Behaviour::Garbage => vec![Bytes::from(vec![0xaa; 10_000])],
            _ => return None,
        };
        let frames = frames.into_iter().map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
        let mut response = http::Response::new(Body::new(StreamBody::new(stream::iter(frames))));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        Some(response)
    }
}

#[derive(Clone)]
struct HostileService {
    hostile: Hostile,
    inner: PeerServiceServer<Hostile>,
}

impl tower::Service<http::Request<Body>> for HostileService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.hostile.raw().filter(|_| request.uri().path().ends_with("/GetChunk")) {
            Some(response) => Box::pin(async move { Ok(response) }),
            None => Box::pin(tower::Service::call(&mut self.inner, request)),
        }
    }
}

/// Starts a hostile peer.
async fn hostile(
    world: &World,
    behaviour: Behaviour,
    data: &Arc<Vec<u8>>,
    manifest: &Arc<Manifest>,
) -> SourceAddr {
    let credentials = world.credentials();
    let hostile = Hostile { behaviour, data: data.clone(), manifest: manifest.clone() };
    let service = HostileService { inner: PeerServiceServer::new(hostile.clone()), hostile };
    let (address, _, _) = world.serve(&credentials, service).await;
    SourceAddr { peer: credentials.peer, addresses: vec![address], username: "mallory".parse().unwrap() }
}

async fn comes_out_right_despite(behaviour: Behaviour) -> Option<(PeerId, u32, SourceState)> {
    let world = World::new();
    let (honest, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = Arc::new(noise(8, 8 * PIECE));
    let manifest = honest.share(file_id(1), "f", &data).await;
    // Slow enough for the hostile one to be asked as well.
    honest.engine.set_limits(Some(2 << 20), None);
    let bad = hostile(&world, behaviour, &data, &manifest).await;
    let mut view = leecher.engine.download(leecher.spec(file_id(1), &manifest)).await.unwrap();
    leecher.engine.sources(file_id(1), vec![bad.clone()], vec![]);
    // Asked alone at first, so that it is asked for sure.
    until(&mut view, |view| view.had_source).await;
    leecher.engine.sources(file_id(1), vec![honest.source()], vec![]);
    let end = until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == **data, "{behaviour:?}");
    assert_eq!(leecher.engine.stats().downloaded_bytes, data.len() as u64, "{behaviour:?}");
    let seen = end.sources.iter().find(|source| source.peer == bad.peer);
    let seen = seen.map(|source| (source.peer, source.bad_pieces, source.state));
    honest.end().await;
    leecher.end().await;
    seen
}

macro_rules! despite {
    ($($name:ident: $behaviour:ident, blamed: $blamed:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let (_, bad_pieces, state) = comes_out_right_despite(Behaviour::$behaviour).await.unwrap();
                assert_eq!(bad_pieces > 0, $blamed, "{bad_pieces} bad pieces, {state:?}");
                if $blamed && bad_pieces > 1 {
                    assert_eq!(state, SourceState::Banned);
                }
            }
        )+
    };
}

despite! {
    noise_for_pieces: Noise, blamed: true;
    data_of_another_piece: OtherPiece, blamed: true;
    pieces_cut_short: Short, blamed: true;
    pieces_without_end: Endless, blamed: true;
    pieces_not_asked_for: WrongIndex, blamed: true;
    pieces_that_do_not_exist: NoSuchPiece, blamed: true;
    offsets_that_jump: WrongOffset, blamed: true;
    an_error_midway: ErrorAfter, blamed: false;
    no_end_of_empty_messages: Empty, blamed: true;
    a_stream_without_a_status: NoTrailers, blamed: false;
    bytes_that_are_no_messages: Garbage, blamed: true;
    silence: Silent, blamed: false;
    a_byte_now_and_then: Drip, blamed: false;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_everybody_lies_nothing_is_written_and_it_is_said() {
    let world = World::new();
    let leecher = world.node("bob").await;
    let data = Arc::new(noise(9, 4 * PIECE));
    let honest = world.node("alice").await;
    let manifest = honest.share(file_id(1), "f", &data).await;
    honest.end().await;
    let mut view = leecher.engine.download(leecher.spec(file_id(1), &manifest)).await.unwrap();
    let liars = [
        hostile(&world, Behaviour::Noise, &data, &manifest).await,
        hostile(&world, Behaviour::Noise, &data, &manifest).await,
    ];
    leecher.engine.sources(file_id(1), liars.to_vec(), vec![]);
    let seen = until(&mut view, |view| view.all_banned && view.problem.is_some()).await;
    assert_eq!(seen.problem.unwrap().reason, proto::reason::Reason::Corrupt);
    assert_eq!(seen.done_bytes, 0);
    assert!(!leecher.destination(&manifest).exists());
    leecher.end().await;
}

/// Two files with the same SHA-1 and different content, from the crate that detects such.
fn shattered() -> [Vec<u8>; 2] {
    let home = std::env::var("CARGO_HOME").map_or_else(
        |_| std::path::PathBuf::from(std::env::var("HOME").unwrap()).join(".cargo"),
        std::path::PathBuf::from,
    );
    let sources = std::fs::read_dir(home.join("registry/src")).unwrap();
    let data = sources
        .map(|source| source.unwrap().path().join("sha1-checked-0.10.0/tests/data"))
        .find(|data| data.join("shattered-1.pdf").exists())
        .expect("the crate sha1-checked is a dependency of this test");
    ["shattered-1.pdf", "shattered-2.pdf"].map(|name| std::fs::read(data.join(name)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_sha1_is_not_enough() {
    let [one, two] = shattered();
    let world = World::new();
    let (honest, leecher) = (world.node("alice").await, world.node("bob").await);
    let manifest = honest.share(file_id(1), "shattered.pdf", &one).await;
    let other = honest.share(file_id(2), "other.pdf", &two).await;
    assert_eq!(manifest.pieces()[0].sha1, other.pieces()[0].sha1, "the pair has one SHA-1");
    assert_ne!(manifest.pieces()[0].blake3, other.pieces()[0].blake3);
    // A peer that answers with the twin of what is asked.
    let twin = Hostile { behaviour: Behaviour::Short, data: Arc::new(two), manifest: manifest.clone() };
    let credentials = world.credentials();
    let service = Twin(twin);
    let (address, _, _) = world.serve(&credentials, PeerServiceServer::new(service)).await;
    let source =
        SourceAddr { peer: credentials.peer, addresses: vec![address], username: "mallory".parse().unwrap() };
    let mut view = leecher.engine.download(leecher.spec(file_id(1), &manifest)).await.unwrap();
    leecher.engine.sources(file_id(1), vec![source], vec![]);
    until(&mut view, |view| view.sources.iter().any(|source| source.bad_pieces > 0)).await;
    assert_eq!(view.borrow().done_bytes, 0);
    leecher.engine.sources(file_id(1), vec![honest.source()], vec![]);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == one);
    honest.end().await;
    leecher.end().await;
}

struct Twin(Hostile);

#[tonic::async_trait]
impl PeerService for Twin {
    type GetChunkStream = Answer<GetChunkResponse>;
    type WatchAvailabilityStream = Answer<WatchAvailabilityResponse>;

    async fn get_chunk(&self, _: Request<GetChunkRequest>) -> Result<Response<Self::GetChunkStream>, Status> {
        Ok(Response::new(stream::iter(self.0.chunks(0)).boxed()))
    }

    async fn watch_availability(
        &self,
        request: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        self.0.watch_availability(request).await
    }
}
