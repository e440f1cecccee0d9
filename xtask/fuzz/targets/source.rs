//! A downloader against an arbitrary source. Whatever the source sends, a complete file is the right one.
#![no_main]

use std::sync::{Arc, Mutex};

use ::peer::{
    engine::{
        BoxFuture, DialError, Dialer, DownloadSpec, Engine, EngineConfig, SourceAddr, TicketRefused,
        TicketSource,
    },
    storage::{MemStore, PieceReader as _},
};
use arbitrary::Arbitrary;
use bytes::Bytes;
use domain::{Bitfield, PIECE_LENGTH, PeerId};
use fuzz::{CONTENT, block_on, file, peer};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::{
    convert,
    pb::{GetChunkRequest, GetChunkResponse, WatchAvailabilityResponse},
};
use tonic::transport::{Channel, Endpoint};

/// What the source does next in an answer.
#[derive(Arbitrary, Clone, Debug)]
enum Act {
    /// Sends the right bytes from where it is, so many.
    Right(u16),
    /// Sends the rest of the piece.
    Rest,
    /// Sends bytes with one of them changed.
    Flipped(u16, u8),
    /// Sends a message with these numbers.
    Odd { piece: u8, offset: u32, length: u8, place: u32 },
    /// Sends bytes that may be no message.
    Raw(Vec<u8>),
    /// Goes on to the next piece that was asked for.
    Next,
    /// Goes to some piece.
    Jump(u8),
}

/// How an answer ends.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum End {
    Well,
    Status(u8),
    Reset,
    NoTrailers,
}

#[derive(Arbitrary, Clone, Debug)]
struct Answer {
    acts: Vec<Act>,
    end: End,
}

#[derive(Arbitrary, Debug)]
struct Script {
    /// `None`: all pieces.
    bitfield: Option<Vec<u8>>,
    gained: Vec<u8>,
    answers: Vec<Answer>,
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes
}

/// The bytes of an answer.
fn play(answer: &Answer, asked: &[u64]) -> Vec<u8> {
    let data = &CONTENT.0;
    let (mut asked, mut body) = (asked.iter().copied(), Vec::new());
    let (mut piece, mut offset) = (asked.next().unwrap_or(0), 0_u64);
    for act in &answer.acts {
        let from =
            (piece.saturating_mul(PIECE_LENGTH.into()).saturating_add(offset) as usize).min(data.len());
        let end = (((piece + 1) * u64::from(PIECE_LENGTH)) as usize).min(data.len()).max(from);
        let mut send = |bytes: &[u8], flip: Option<u8>| {
            for part in bytes.chunks(128 << 10) {
                let mut part = part.to_vec();
                if let (Some(flip), Some(last)) = (flip, part.last_mut()) {
                    *last ^= flip;
                }
                let message =
                    GetChunkResponse { piece_index: piece, offset, data: part.into(), queue_place: 0 };
                offset += message.data.len() as u64;
                body.extend(framed(&message));
            }
        };
        match act {
            Act::Right(length) => send(&data[from..(from + usize::from(*length)).min(end)], None),
            Act::Rest => send(&data[from..end], None),
            Act::Flipped(length, flip) => {
                send(&data[from..(from + usize::from(*length)).min(end)], Some(*flip));
            }
            Act::Odd { piece, offset, length, place } => body.extend(framed(&GetChunkResponse {
                piece_index: (*piece).into(),
                offset: (*offset).into(),
                data: vec![7; (*length).into()].into(),
                queue_place: *place,
            })),
            Act::Raw(bytes) => body.extend(bytes),
            Act::Next => (piece, offset) = (asked.next().unwrap_or(0), 0),
            Act::Jump(to) => (piece, offset) = ((*to % 4).into(), 0),
        }
    }
    body
}

/// Serves one connection by the script.
async fn source(io: tokio::io::DuplexStream, script: Arc<Mutex<Script>>) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    // A watcher's stream stays open.
    let mut watching = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let ok =
            || http::Response::builder().header("content-type", "application/grpc").body(()).expect("good");
        if request.uri().path().ends_with("WatchAvailability") {
            let Ok(mut stream) = respond.send_response(ok(), false) else { continue };
            let (bitfield, gained) = {
                let script = script.lock().expect("no panic");
                (script.bitfield.clone(), script.gained.clone())
            };
            let bits = bitfield.map_or_else(
                || convert::to_bitfield(&Bitfield::full(CONTENT.1.layout())),
                |bits| proto::pb::Bitfield { bits: bits.into() },
            );
            let first = WatchAvailabilityResponse { bitfield: Some(bits), ..Default::default() };
            let _ = stream.send_data(framed(&first).into(), false);
            let gained = gained.into_iter().map(u64::from).collect();
            let second = WatchAvailabilityResponse { gained, ..Default::default() };
            let _ = stream.send_data(framed(&second).into(), false);
            watching.push(stream);
            continue;
        }
        let script = script.clone();
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                message.extend(data);
            }
            let asked =
                GetChunkRequest::decode(message.get(5..).unwrap_or_default()).unwrap_or_default().pieces;
            let answer = {
                let mut script = script.lock().expect("no panic");
                if script.answers.is_empty() { None } else { Some(script.answers.remove(0)) }
            };
            let Some(answer) = answer else {
                // The script is over: from here on it refuses.
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            };
            let Ok(mut stream) = respond.send_response(ok(), false) else { return };
            let mut rest = Bytes::from(play(&answer, &asked));
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                if stream.send_data(rest.split_to(room.min(rest.len())), false).is_err() {
                    return;
                }
            }
            let status = match answer.end {
                End::Well => 0_u16,
                End::Status(code) => code.into(),
                End::Reset => return stream.send_reset(h2::Reason::INTERNAL_ERROR),
                End::NoTrailers => {
                    let _ = stream.send_data(Bytes::new(), true);
                    return;
                }
            };
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", status.into());
            let _ = stream.send_trailers(trailers);
        });
    }
}

struct Scripted(Arc<Mutex<Script>>);

impl Dialer for Scripted {
    fn dial(&self, _: PeerId, _: &str, _: u32) -> BoxFuture<'_, Result<Channel, DialError>> {
        let script = self.0.clone();
        Box::pin(async move {
            let connector = tower::service_fn(move |_: http::Uri| {
                let (near, far) = tokio::io::duplex(1 << 20);
                tokio::spawn(source(far, script.clone()));
                async move { Ok::<_, std::io::Error>(TokioIo::new(near)) }
            });
            let endpoint = Endpoint::from_static("http://source");
            endpoint
                .connect_with_connector(connector)
                .await
                .map_err(|error| DialError::other(error.to_string()))
        })
    }

    fn own_id(&self) -> Option<PeerId> {
        Some(PeerId::from([9; 32]))
    }
}

impl TicketSource for Scripted {
    fn ticket(
        &self,
        _: &domain::GroupId,
        _: domain::FileId,
        _: bool,
    ) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>> {
        Box::pin(async { Ok("ticket".into()) })
    }
}

fuzz_target!(|script: Script| {
    if script.answers.len() > 16 || script.answers.iter().any(|answer| answer.acts.len() > 64) {
        return;
    }
    block_on(async {
        let script = Arc::new(Mutex::new(script));
        let (data, manifest) = &*CONTENT;
        let manifest = Arc::new(manifest.clone());
        let store = MemStore::new(manifest.clone());
        let given = store.clone();
        let engine = Engine::with_storage(
            EngineConfig { seed: 1, ..EngineConfig::default() },
            Arc::new(Scripted(script.clone())),
            Arc::new(Scripted(script.clone())),
            Arc::new(move |_| Ok(Arc::new(given.clone()))),
        );
        let dir = std::env::temp_dir().canonicalize().expect("a directory");
        let spec = DownloadSpec {
            group: "g1".parse().expect("a group"),
            file: file(),
            manifest: manifest.clone(),
            destination: dir.join("mini-torrent-fuzz-never-written"),
            sequential: true,
            verify: false,
            umask: 0o022,
            begun: false,
            done_bytes: 0,
            copy: None,
            only: Vec::new(),
        };
        let mut view = engine.download(spec).await.expect("accepted");
        let username = "bob".parse().expect("a username");
        engine.sources(
            file(),
            vec![SourceAddr { peer: peer(), addresses: vec!["s".into()], username }],
            vec![],
        );
        // Until it has ended, or the script is over and the source has been left.
        let over = view.wait_for(|view| {
            view.state.is_final()
                || script.lock().expect("no panic").answers.is_empty()
                || view.sources.iter().any(|source| !source.state.is_connected() && view.had_source)
        });
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), over).await;
        for piece in manifest.layout().indices() {
            let range = manifest.layout().range(piece);
            let mut found = vec![0; (range.end - range.start) as usize];
            let have = ::peer::storage::PieceStore::have(&store);
            if have.contains(piece) {
                store.read(range.start, &mut found).expect("it is there");
                assert!(found == data[range.start as usize..range.end as usize], "a wrong piece counts");
            }
        }
        engine.shutdown().await;
    });
});
