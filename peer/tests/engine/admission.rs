//! The checks of admission, tested with the generated client.

use std::sync::{Arc, atomic::Ordering};

use proto::{
    domain::{Manifest, PeerId},
    pb::{GetChunkRequest, WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
    ticket::Claims,
};
use testkit::{
    content::{PIECE, file_id, noise},
    node::{Node, until, until_complete},
    world::{Credentials, GROUP, World, unix_now},
};
use tonic::{Code, Status, transport::Channel};

/// A seeder, and a caller of it.
struct Scene {
    world: Arc<World>,
    seeder: Node,
    caller: Credentials,
    client: PeerServiceClient<Channel>,
    manifest: Arc<Manifest>,
    data: Vec<u8>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let seeder = world.node("alice").await;
        let data = noise(10, 3 * PIECE + 100);
        let manifest = seeder.share(file_id(1), "f", &data).await;
        let caller = world.credentials();
        let client = PeerServiceClient::new(caller.dial(seeder.peer(), &seeder.address).await.unwrap());
        Self { world, seeder, caller, client, manifest, data }
    }

    fn claims(&self) -> Claims {
        self.world.claims("bob", self.caller.peer, file_id(1))
    }

    fn sign(&self, claims: &Claims) -> String {
        self.world.signer.sign(claims)
    }

    fn ticket(&self) -> String {
        self.sign(&self.claims())
    }

    fn request(&self, ticket: &str, pieces: &[u64]) -> GetChunkRequest {
        GetChunkRequest {
            ticket: ticket.into(),
            file_id: file_id(1).as_bytes().to_vec().into(),
            pieces: pieces.to_vec(),
            max_pieces: 0,
            in_order: false,
            urgent: false,
        }
    }

    /// Returns the bytes of all pieces that arrive, by index, or the error.
    async fn ask(&self, request: GetChunkRequest) -> Result<Vec<(u64, Vec<u8>)>, Status> {
        let mut stream = self.client.clone().get_chunk(request).await?.into_inner();
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        while let Some(message) = stream.message().await? {
            if message.queue_place != 0 {
                continue;
            }
            match pieces.last_mut().filter(|(index, _)| *index == message.piece_index) {
                Some((_, data)) => {
                    assert_eq!(message.offset, data.len() as u64, "chunks come in order");
                    data.extend_from_slice(&message.data);
                }
                None => {
                    assert_eq!(message.offset, 0);
                    pieces.push((message.piece_index, message.data.to_vec()));
                }
            }
        }
        Ok(pieces)
    }

    async fn refused(&self, ticket: &str) -> Option<Reason> {
        let watching = WatchAvailabilityRequest {
            ticket: ticket.into(),
            file_id: file_id(1).as_bytes().to_vec().into(),
        };
        let get = self.ask(self.request(ticket, &[0])).await.err();
        let watch = self.client.clone().watch_availability(watching).await.err();
        assert_eq!(
            get.as_ref().map(Status::code),
            watch.as_ref().map(Status::code),
            "both calls decide alike"
        );
        get.map(|status| Reason::of(&status).expect("every refusal has a reason"))
    }

    async fn end(self) {
        drop(self.client);
        self.seeder.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generated_client_gets_pieces() {
    let scene = Scene::new().await;
    let mut pieces = scene.ask(scene.request(&scene.ticket(), &[3, 0])).await.unwrap();
    pieces.sort();
    assert_eq!(pieces.len(), 2);
    assert!(pieces[0] == (0, scene.data[..PIECE].to_vec()));
    assert!(pieces[1] == (3, scene.data[3 * PIECE..].to_vec()));
    let in_order =
        GetChunkRequest { in_order: true, max_pieces: 2, ..scene.request(&scene.ticket(), &[2, 1, 0]) };
    let order: Vec<u64> = scene.ask(in_order).await.unwrap().into_iter().map(|(index, _)| index).collect();
    assert_eq!(order, [2, 1]);
    for (index, data) in pieces {
        let piece = scene.manifest.layout().index(index).unwrap();
        assert!(scene.manifest.piece_matches(piece, &data));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn availability_is_a_bitfield_and_then_what_changes() {
    let scene = Scene::new().await;
    let request =
        WatchAvailabilityRequest { ticket: scene.ticket(), file_id: file_id(1).as_bytes().to_vec().into() };
    let mut stream = scene.client.clone().watch_availability(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bitfield.unwrap().bits[..], [0xf0]);
    assert!(scene.seeder.engine.unshare(file_id(1)));
    let end = stream.message().await.unwrap_err();
    assert_eq!((end.code(), Reason::of(&end)), (Code::NotFound, Some(Reason::NotShared)));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_certificate_is_refused() {
    let scene = Scene::new().await;
    let request = scene.request(&scene.ticket(), &[0]);
    let status = scene.seeder.client(None).await.unwrap().get_chunk(request).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unauthenticated, Some(Reason::NoCertificate)));
    // A certificate of another authority fails too: in the handshake.
    let stranger = World::new().credentials();
    let channel = stranger.dial(scene.seeder.peer(), &scene.seeder.address).await;
    assert!(channel.is_err());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_for_one_peer_one_file_one_group_and_its_time() {
    let scene = Scene::new().await;
    let refused = async |change: fn(&mut Claims)| {
        let mut claims = scene.claims();
        change(&mut claims);
        scene.refused(&scene.sign(&claims)).await
    };
    assert_eq!(refused(|claims| claims.peer = PeerId::from([5; 32])).await, Some(Reason::TicketMismatch));
    assert_eq!(refused(|claims| claims.file = file_id(9)).await, Some(Reason::TicketMismatch));
    assert_eq!(refused(|claims| claims.group = "g2".parse().unwrap()).await, Some(Reason::NotShared));
    assert_eq!(refused(|claims| claims.root = [1; 32].into()).await, Some(Reason::NotShared));
    assert_eq!(refused(|claims| claims.expires = unix_now() - 65).await, Some(Reason::TicketExpired));
    assert_eq!(refused(|claims| claims.not_before = unix_now() + 65).await, Some(Reason::TicketInvalid));
    assert_eq!(refused(|claims| claims.expires = unix_now() - 55).await, None);
    assert_eq!(refused(|claims| claims.not_before = unix_now() + 55).await, None);
    // The tracker's clock decides, not this machine's.
    scene.seeder.engine.set_clock_offset(600);
    assert_eq!(refused(|claims| claims.expires = unix_now() + 535).await, Some(Reason::TicketExpired));
    assert_eq!(refused(|claims| claims.not_before = unix_now() + 600).await, None);
    scene.seeder.engine.set_clock_offset(0);
    scene.seeder.engine.set_ticket_keys(vec![]);
    assert_eq!(refused(|_| {}).await, Some(Reason::TicketInvalid));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_epoch_ends_running_streams_at_once() {
    let scene = Scene::new().await;
    scene.seeder.engine.set_limits(Some(64 << 10), None);
    let request =
        WatchAvailabilityRequest { ticket: scene.ticket(), file_id: file_id(1).as_bytes().to_vec().into() };
    let mut watching = scene.client.clone().watch_availability(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    let request = scene.request(&scene.ticket(), &[0, 1, 2]);
    let mut stream = scene.client.clone().get_chunk(request).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().data.is_empty());
    scene.seeder.engine.raise_epochs(vec![("g2".parse().unwrap(), 100)]);
    assert!(stream.message().await.is_ok(), "another group's epoch changes nothing");
    scene.seeder.engine.raise_epochs(vec![("g1".parse().unwrap(), 2)]);
    let cut = std::time::Instant::now();
    let end = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(Reason::of(&end), Some(Reason::StaleEpoch));
    assert_eq!(Reason::of(&watching.message().await.unwrap_err()), Some(Reason::StaleEpoch));
    assert!(cut.elapsed().as_secs() < 2, "{:?}", cut.elapsed());
    // The epoch never falls.
    scene.seeder.engine.raise_epochs(vec![("g1".parse().unwrap(), 1)]);
    assert_eq!(scene.refused(&scene.ticket()).await, Some(Reason::StaleEpoch));
    scene.world.epoch.store(2, Ordering::SeqCst);
    scene.seeder.engine.set_limits(Some(0), None);
    assert_eq!(scene.refused(&scene.ticket()).await, None);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_a_new_epoch() {
    let scene = Scene::new().await;
    let leecher = scene.world.node("carol").await;
    scene.seeder.engine.set_limits(Some(256 << 10), None);
    let mut view = leecher.download(file_id(1), &scene.manifest, &[&scene.seeder]).await;
    until(&mut view, |view| view.done_bytes > 0).await;
    scene.world.epoch.store(7, Ordering::SeqCst);
    scene.seeder.engine.raise_epochs(vec![("g1".parse().unwrap(), 7)]);
    scene.seeder.engine.set_limits(Some(0), None);
    until_complete(&mut view).await;
    assert_eq!(leecher.tickets.issued.load(Ordering::SeqCst), 2, "one new ticket is enough for all streams");
    leecher.end().await;
    scene.end().await;
}

/// Returns a call on a connection with room for `window` bytes of its answer. The call lasts until the peer
/// resets it.
async fn stalled_until_reset(
    scene: &Scene,
    path: &str,
    message: &impl prost::Message,
    window: u32,
) -> tokio::task::JoinHandle<()> {
    let socket = tokio::net::TcpStream::connect(&scene.seeder.address).await.unwrap();
    let name = scene.seeder.peer().tls_name().try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(scene.caller.client.clone());
    let socket = tls.connect(name, socket).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (requests, connection) = builder.handshake::<_, bytes::Bytes>(socket).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://{}{path}", scene.seeder.peer().tls_name()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut requests = requests.ready().await.unwrap();
    let (answer, mut body) = requests.send_request(request, false).unwrap();
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    body.send_data(framed.into(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().get("grpc-status"), None, "{path} was let in");
    let mut body = answer.into_body();
    // The bytes that there is room for are taken before the caller goes on.
    let mut taken = 0;
    while taken < window as usize {
        taken += body.data().await.expect("the answer goes on").expect("it is served").len();
    }
    tokio::spawn(async move {
        let end = loop {
            match body.data().await {
                Some(Ok(data)) => taken += data.len(),
                end => break end,
            }
        };
        assert!(matches!(end, Some(Err(_))), "reset, not served: {end:?}");
        assert!(taken <= window as usize, "{taken} bytes came");
        drop(requests);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_that_takes_nothing_is_reset() {
    let scene = Scene::new().await;
    let ticket = scene.ticket();
    let request = scene.request(&ticket, &[0, 1]);
    let watching = WatchAvailabilityRequest { ticket, file_id: request.file_id.clone() };
    let calls = [
        stalled_until_reset(&scene, "/minitorrent.v1.PeerService/GetChunk", &request, 0).await,
        stalled_until_reset(&scene, "/minitorrent.v1.PeerService/WatchAvailability", &watching, 0).await,
    ];
    scene.seeder.engine.raise_epochs(vec![(GROUP.parse().unwrap(), 2)]);
    for call in calls {
        let end = tokio::time::timeout(std::time::Duration::from_secs(15), call).await;
        end.expect("within the bound").expect("a reset");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_that_takes_one_byte_gets_no_more_of_a_short_answer() {
    let scene = Scene::new().await;
    // The whole answer is one frame: the last piece has 100 bytes.
    let request = GetChunkRequest { max_pieces: 1, ..scene.request(&scene.ticket(), &[3]) };
    let call = stalled_until_reset(&scene, "/minitorrent.v1.PeerService/GetChunk", &request, 1).await;
    scene.seeder.engine.raise_epochs(vec![(GROUP.parse().unwrap(), 2)]);
    let end = tokio::time::timeout(std::time::Duration::from_secs(15), call).await;
    end.expect("within the bound").expect("a reset");
    scene.end().await;
}
