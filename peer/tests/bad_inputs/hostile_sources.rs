//! Sources that lie: whatever one sends, nothing bad is written, it is named for it, and another source completes the
//! download.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peer::engine::{DownloadState, EngineConfig, SourceState};
use proto::{
    pb::{
        self, GetChunkRequest, GetChunkResponse, WatchAvailabilityRequest, WatchAvailabilityResponse,
        peer_service_server::PeerServiceServer,
    },
    transport::fingerprints,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::support::{PIECE, SharedFile, World, source, until};

/// What a source does when it is asked for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// The right number of wrong bytes.
    Noise,
    /// One byte of the piece is another.
    OneByte,
    /// The bytes of another piece.
    AnotherPiece,
    /// Less than the piece, then a good end.
    Short,
    /// The piece, and more of it without end.
    Endless,
    /// Messages that hold nothing, without end.
    Empty,
    /// Pieces that nobody asked for, or that do not exist.
    WrongIndex(u64),
    /// Bytes past the end of the piece.
    WrongOffset(u64),
    /// The first half of the piece, twice.
    Repeated,
    /// Chunks of 2 MiB.
    Large,
    /// Half a piece, then an error.
    ErrorMidway,
    /// A byte now and then.
    Drip,
    /// Nothing at all, ever.
    Silent,
    /// A place in a queue that never moves.
    Queued,
    /// An error of every kind.
    Refuses,
    /// Availability that is no bitfield of the file.
    BadBitfield,
}

#[derive(Clone)]
struct Liar {
    lie: Lie,
    file: SharedFile,
    /// Bytes of file data that were taken from it.
    taken: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

impl Liar {
    fn piece(&self, piece: u64) -> Bytes {
        let start = usize::try_from(piece).unwrap() * PIECE;
        Bytes::copy_from_slice(&self.file.content[start..(start + PIECE).min(self.file.content.len())])
    }

    /// Sends what the lie is made of; ends early when nobody listens any more.
    async fn tell(
        self,
        pieces: Vec<u64>,
        send: mpsc::Sender<Result<GetChunkResponse, Status>>,
    ) -> Option<()> {
        let say = async |piece_index, offset, data: Bytes| {
            let length = data.len();
            let chunk = GetChunkResponse { piece_index, offset, data, queue_place: 0 };
            send.send(Ok(chunk)).await.ok()?;
            self.taken.fetch_add(length, Ordering::Relaxed);
            Some(())
        };
        let forever = std::future::pending::<Option<()>>;
        let half = PIECE / 2;
        for piece in pieces {
            let good = self.piece(piece);
            match self.lie {
                Lie::Noise => say(piece, 0, vec![0xa5; good.len()].into()).await?,
                Lie::OneByte => {
                    let mut bytes = good.to_vec();
                    bytes[good.len() / 2] ^= 1;
                    say(piece, 0, bytes.into()).await?;
                }
                Lie::AnotherPiece => {
                    let others = (piece + 1) % (self.file.content.len() / PIECE) as u64;
                    say(piece, 0, self.piece(others)).await?;
                }
                Lie::Short => say(piece, 0, good.slice(..half)).await?,
                Lie::Endless => {
                    let mut offset = 0;
                    loop {
                        say(piece, offset, good.clone()).await?;
                        offset += good.len() as u64;
                    }
                }
                Lie::Empty => loop {
                    say(piece, 0, Bytes::new()).await?;
                },
                Lie::WrongIndex(index) => say(index, 0, good).await?,
                Lie::WrongOffset(offset) => say(piece, offset, good).await?,
                Lie::Repeated => {
                    say(piece, 0, good.slice(..half)).await?;
                    say(piece, 0, good.slice(..half)).await?;
                }
                Lie::Large => say(piece, 0, vec![0; 2 << 20].into()).await?,
                Lie::ErrorMidway => {
                    say(piece, 0, good.slice(..half)).await?;
                    send.send(Err(Status::internal("on purpose"))).await.ok()?;
                    return None;
                }
                Lie::Drip => {
                    for at in 0..good.len() {
                        say(piece, at as u64, good.slice(at..=at)).await?;
                        // The drip itself.
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                }
                Lie::Silent => return forever().await,
                Lie::Queued => {
                    let waiting = GetChunkResponse { queue_place: 1, ..Default::default() };
                    send.send(Ok(waiting)).await.ok()?;
                    return forever().await;
                }
                Lie::Refuses | Lie::BadBitfield => unreachable!("refused before"),
            }
        }
        Some(())
    }
}

#[tonic::async_trait]
impl pb::peer_service_server::PeerService for Liar {
    type GetChunkStream = Stream<GetChunkResponse>;
    type WatchAvailabilityStream = Stream<WatchAvailabilityResponse>;

    async fn get_chunk(
        &self,
        request: Request<GetChunkRequest>,
    ) -> Result<Response<Self::GetChunkStream>, Status> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
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
        // Ends when its reader does.
        tokio::spawn(self.clone().tell(request.into_inner().pieces, send));
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn watch_availability(
        &self,
        _: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        let pieces = self.file.manifest.pieces().len();
        let bits = match self.lie {
            Lie::BadBitfield => vec![0xff; 1 << 20],
            _ => {
                let full = proto::domain::Bitfield::full(self.file.manifest.layout());
                let bits = proto::convert::to_bitfield(&full).bits.to_vec();
                assert_eq!(bits.len(), pieces.div_ceil(8));
                bits
            }
        };
        let (send, answers) = mpsc::channel(1);
        let bitfield = Some(pb::Bitfield { bits: bits.into() });
        // Ends when its reader does.
        tokio::spawn(async move {
            let first = WatchAvailabilityResponse { bitfield, ..Default::default() };
            if send.send(Ok(first)).await.is_ok() {
                send.closed().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// Downloads from a liar and an honest source that is not fast.
async fn completes_beside(lie: Lie) {
    let (trust, file) = (World::new(), SharedFile::of_pieces(6));
    let liar = Liar { lie, file: file.clone(), taken: Arc::default(), asked: Arc::default() };
    let lying = trust.credentials();
    let service = PeerServiceServer::new(liar.clone()).max_encoding_message_size(64 << 20);
    let (address, stop, _) = trust.serve(&lying, service).await;
    let honest_config = EngineConfig { upload_limit: 2 << 20, ..Default::default() };
    let honest = file.shared_by(&trust, honest_config).await;
    let leecher = file.peer(&trust, EngineConfig::default()).await;

    // The liar is asked first.
    let (destination, mut view) = file.downloaded_by(&leecher, vec![source(lying.peer, &address)]).await;
    until(&mut view, |view| {
        liar.asked.load(Ordering::Relaxed) > 0
            || view.sources.iter().any(|source| source.state == SourceState::Backoff)
            || view.state.is_final()
    })
    .await;
    leecher.engine.sources(file.id, vec![honest.source()], Vec::new());
    until(&mut view, |view| view.state == DownloadState::Complete).await;

    assert_eq!(std::fs::read(&destination).unwrap(), *file.content, "{lie:?}");
    let view = view.borrow().clone();
    let told = view.sources.iter().find(|source| source.peer == lying.peer).expect("the liar is named");
    // The pieces that are followed by too much are themselves right.
    let right = if lie == Lie::Endless { 2 * PIECE as u64 } else { 0 };
    assert!(told.bytes <= right, "{lie:?}: nothing of it counted: {told:?}");
    let lied_with_bytes = matches!(
        lie,
        Lie::Noise
            | Lie::OneByte
            | Lie::AnotherPiece
            | Lie::Endless
            | Lie::WrongIndex(_)
            | Lie::WrongOffset(_)
    );
    assert!(!lied_with_bytes || told.bad_pieces > 0, "{lie:?}: it is blamed: {told:?}");
    // What nobody wants is not taken in without end: windows and buffers, no more.
    let taken = liar.taken.load(Ordering::Relaxed);
    assert!(taken < 40 << 20, "{lie:?}: {taken} bytes were taken from it");
    leecher.end().await;
    honest.end().await;
    stop.cancel();
}

#[tokio::test]
async fn wrong_bytes_are_dropped_and_blamed() {
    tokio::join!(
        completes_beside(Lie::Noise),
        completes_beside(Lie::OneByte),
        completes_beside(Lie::AnotherPiece),
    );
}

#[tokio::test]
async fn lengths_and_places_that_can_not_be_are_dropped() {
    tokio::join!(
        completes_beside(Lie::Short),
        completes_beside(Lie::Endless),
        completes_beside(Lie::Empty),
        completes_beside(Lie::Repeated),
        completes_beside(Lie::Large),
    );
    tokio::join!(
        completes_beside(Lie::WrongIndex(6)),
        completes_beside(Lie::WrongIndex(u64::MAX)),
        completes_beside(Lie::WrongOffset(1)),
        completes_beside(Lie::WrongOffset(u64::MAX)),
        completes_beside(Lie::BadBitfield),
    );
}

#[tokio::test]
async fn sources_that_stop_or_drip_are_replaced() {
    tokio::join!(
        completes_beside(Lie::ErrorMidway),
        completes_beside(Lie::Drip),
        completes_beside(Lie::Silent),
        completes_beside(Lie::Queued),
        completes_beside(Lie::Refuses),
    );
}

/// Nobody but liars: the download says so, and nothing appears under the file's name.
#[tokio::test]
async fn everybody_lying_ends_nowhere() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(4));
    let leecher = file.peer(&trust, EngineConfig::default()).await;
    let mut sources = Vec::new();
    let mut stops = Vec::new();
    for lie in [Lie::Noise, Lie::OneByte] {
        let liar = Liar { lie, file: file.clone(), taken: Arc::default(), asked: Arc::default() };
        let own = trust.credentials();
        let service = PeerServiceServer::new(liar).max_encoding_message_size(64 << 20);
        let (address, stop, _) = trust.serve(&own, service).await;
        sources.push(source(own.peer, &address));
        stops.push(stop);
    }
    let (destination, mut view) = file.downloaded_by(&leecher, sources).await;
    until(&mut view, |view| view.all_banned).await;
    assert!(!destination.exists());
    assert_eq!(view.borrow().done_bytes, 0);
    leecher.end().await;
    for stop in stops {
        stop.cancel();
    }
}

#[tokio::test]
async fn a_liar_is_remembered_over_a_restart() {
    let (trust, file) = (World::new(), SharedFile::of_pieces(4));
    let state = tempfile::tempdir().unwrap();
    let liar = Liar { lie: Lie::Noise, file: file.clone(), taken: Arc::default(), asked: Arc::default() };
    let own = trust.credentials();
    let (address, stop, _) = trust.serve(&own, PeerServiceServer::new(liar.clone())).await;
    let mut asked = Vec::new();
    for _ in 0..2 {
        let config = EngineConfig { state_dir: Some(state.path().to_owned()), ..EngineConfig::default() };
        let leecher = file.peer(&trust, config).await;
        leecher.engine.take_up(fingerprints(&trust.ca_pem).unwrap()[0]);
        let (_, mut view) = file.downloaded_by(&leecher, vec![source(own.peer, &address)]).await;
        until(&mut view, |view| view.all_banned).await;
        leecher.end().await;
        asked.push(liar.asked.load(Ordering::Relaxed));
    }
    assert!(asked[0] > 0);
    assert_eq!(asked[0], asked[1], "it was not asked again");
    stop.cancel();
}

/// Two beginnings with the same SHA-1 (M. Stevens and others, "The first collision for full SHA-1", 2017), and the same
/// rest: every piece and the whole agree in SHA-1.
#[tokio::test]
async fn a_piece_of_equal_sha1_is_not_taken_for_the_piece() {
    let with = |head: &[u8]| [head, &[7; PIECE]].concat();
    let real = SharedFile::new(with(include_bytes!("shattered-1.bin")));
    let forged = SharedFile::new(with(include_bytes!("shattered-2.bin")));
    assert_ne!(real.content, forged.content);
    assert_eq!(real.manifest.header().sha1, forged.manifest.header().sha1);
    assert_eq!(real.manifest.pieces()[0].sha1, forged.manifest.pieces()[0].sha1);

    let trust = World::new();
    let own = trust.credentials();
    // Tells the bytes of the forged file; `Repeated` and the others would spoil them.
    let liar = Forger(forged);
    let service = PeerServiceServer::new(liar).max_encoding_message_size(64 << 20);
    let (address, stop, _) = trust.serve(&own, service).await;
    let leecher = real.peer(&trust, EngineConfig::default()).await;
    let (destination, mut view) = real.downloaded_by(&leecher, vec![source(own.peer, &address)]).await;
    until(&mut view, |view| view.sources.iter().any(|source| source.bad_pieces > 0)).await;
    assert!(!destination.exists());
    let honest = real.shared_by(&trust, EngineConfig::default()).await;
    leecher.engine.sources(real.id, vec![honest.source()], Vec::new());
    until(&mut view, |view| view.state == DownloadState::Complete).await;
    assert_eq!(std::fs::read(&destination).unwrap(), *real.content);
    leecher.end().await;
    honest.end().await;
    stop.cancel();
}

/// Serves the bytes of another file, honestly.
struct Forger(SharedFile);

#[tonic::async_trait]
impl pb::peer_service_server::PeerService for Forger {
    type GetChunkStream = Stream<GetChunkResponse>;
    type WatchAvailabilityStream = Stream<WatchAvailabilityResponse>;

    async fn get_chunk(
        &self,
        request: Request<GetChunkRequest>,
    ) -> Result<Response<Self::GetChunkStream>, Status> {
        let (send, chunks) = mpsc::channel(4);
        let content = self.0.content.clone();
        // Ends when its reader does.
        tokio::spawn(async move {
            for piece_index in request.into_inner().pieces {
                let start = usize::try_from(piece_index).unwrap() * PIECE;
                let data = content[start..(start + PIECE).min(content.len())].to_vec().into();
                let chunk = GetChunkResponse { piece_index, offset: 0, data, queue_place: 0 };
                if send.send(Ok(chunk)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn watch_availability(
        &self,
        request: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
        let liar =
            Liar { lie: Lie::Noise, file: self.0.clone(), taken: Arc::default(), asked: Arc::default() };
        liar.watch_availability(request).await
    }
}
