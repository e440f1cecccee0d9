//! Any bytes into a peer's server: raw, as frames of HTTP/2, and as requests with a good ticket.
#![no_main]

use std::{cell::OnceCell, sync::Arc};

use ::peer::{
    engine::{BoxFuture, DialError, Dialer, Engine, EngineConfig, ShareSpec, TicketRefused, TicketSource},
    hashing::FileStamp,
};
use domain::PeerId;
use fuzz::{CONTENT, SIGNER, block_on, claims, connection, converse, file, peer};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::{pb::GetChunkRequest, reason::Reason, ticket::Claims};
use tonic::transport::Channel;
use transport::{ConnInfo, Limits, serve_duplex};

/// A peer that shares a file, and knows nobody else.
struct World {
    engine: Engine,
    ticket: String,
    _dir: tempfile::TempDir,
}

struct Alone;

impl Dialer for Alone {
    fn dial(&self, _: PeerId, _: &str, _: u32) -> BoxFuture<'_, Result<Channel, DialError>> {
        Box::pin(async { Err(DialError::other("nobody is there")) })
    }

    fn own_id(&self) -> Option<PeerId> {
        None
    }
}

impl TicketSource for Alone {
    fn ticket(
        &self,
        _: &domain::GroupId,
        _: domain::FileId,
        _: bool,
    ) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>> {
        Box::pin(async { Err(TicketRefused::Unavailable(Reason::TrackerUnreachable)) })
    }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let (data, manifest) = &*CONTENT;
        let path = dir.path().join("f");
        std::fs::write(&path, data).expect("written");
        let stamp = FileStamp::of(&std::fs::metadata(&path).expect("it is there"));
        let engine = Engine::new(
            EngineConfig { seed: 1, ..EngineConfig::default() },
            Arc::new(Alone),
            Arc::new(Alone),
        );
        engine.set_ticket_keys(vec![SIGNER.verifying_key().clone()]);
        let group = "g1".parse().expect("a group");
        let manifest = Arc::new(manifest.clone());
        let root = manifest.header().blake3;
        let spec = ShareSpec {
            group,
            file: file(),
            manifest,
            path,
            stamp: Some(stamp),
            folder: None,
            only: Vec::new(),
        };
        engine.share(spec).await.expect("shared");
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = Claims { root, issued: now, not_before: now, expires: now + 80_000, ..claims() };
        Self { engine, ticket: SIGNER.sign(&claims), _dir: dir }
    }
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

const PATHS: [&str; 3] = [
    "/minitorrent.v1.PeerService/GetChunk",
    "/minitorrent.v1.PeerService/WatchAvailability",
    "/minitorrent.v1.PeerService/NoSuchMethod",
];

fuzz_target!(|input: &[u8]| {
    WORLD.with(|world| {
        block_on(async {
            if world.get().is_none() {
                let _ = world.set(World::new().await);
            }
            let world = world.get().expect("just made");
            let bytes = match input {
                // Requests with a good ticket, and the pieces that the input names.
                [200..=255, rest @ ..] => {
                    let mut bytes = fuzz::PREFACE.to_vec();
                    for (part, stream) in rest.chunks(8).zip((1..).step_by(2)) {
                        let request = GetChunkRequest {
                            ticket: world.ticket.clone(),
                            file_id: file().as_bytes().to_vec().into(),
                            pieces: part[1..].iter().map(|piece| (*piece % 4).into()).collect(),
                            max_pieces: u32::from(part[0] & 3),
                            in_order: part[0] & 4 != 0,
                            urgent: part[0] & 8 != 0,
                        };
                        let path = PATHS[usize::from(part[0] >> 3) % 2];
                        bytes.extend(fuzz::call(stream, path, None, &request.encode_to_vec()));
                    }
                    bytes
                }
                input => connection(input, &PATHS, None),
            };
            let info = ConnInfo { remote: Some(([127, 0, 0, 1], 9).into()), peer: Some(peer()) };
            let serve = |io| serve_duplex(io, world.engine.service(), Limits::peer(), info);
            converse(&bytes, serve).await;
        });
    });
});
