//! Who is served and who is not, asked with the generated client.

use std::sync::{Arc, atomic::Ordering};

use proto::{
    domain::{FileId, Manifest, PeerId},
    pb::{GetChunkRequest, WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
    ticket::{Claims, Signer},
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect},
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{Credentials, Node, World, dial, file_id, noise, unix_now};

const PIECE: usize = 524_288;

/// A seeder, and somebody who calls it.
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
        let client = PeerServiceClient::new(dial(&caller, seeder.peer(), &seeder.address).await.unwrap());
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
        }
    }

    /// The bytes of all pieces that come, by index; or why not.
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
async fn without_a_certificate_nobody_is_served() {
    let scene = Scene::new().await;
    let (host, port) = scene.seeder.address.rsplit_once(':').unwrap();
    let remote = Remote::Tcp { host: host.into(), port: port.parse().unwrap() };
    let config = client_config(&scene.world.ca_pem, None).unwrap();
    let security = ClientSecurity::Tls { config, server_name: scene.seeder.peer().tls_name() };
    let channel = connect(remote, security, &ChannelTuning::control()).await.unwrap();
    let request = scene.request(&scene.ticket(), &[0]);
    let status = PeerServiceClient::new(channel).get_chunk(request).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unauthenticated, Some(Reason::NoCertificate)));
    // Nor with one of another authority: the handshake fails.
    let stranger = World::new().credentials();
    let channel = dial(&stranger, scene.seeder.peer(), &scene.seeder.address).await;
    assert!(channel.is_err());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ticket_is_refused() {
    let scene = Scene::new().await;
    let long = "v4.public.".to_owned() + &"A".repeat(3_000);
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.";
    for bad in ["", "v2.public.AAAA", "v3.public.AAAA", "v4.local.AAAA", unsigned, &long] {
        assert_eq!(scene.refused(bad).await, Some(Reason::TicketInvalid), "{bad}");
    }
    let good = scene.ticket();
    for at in 0..good.len() {
        let mut flipped = good.clone().into_bytes();
        flipped[at] ^= 1;
        // What is no text any more can't even be sent.
        if let Ok(flipped) = String::from_utf8(flipped) {
            let status = scene.ask(scene.request(&flipped, &[0])).await.unwrap_err();
            assert_eq!(Reason::of(&status), Some(Reason::TicketInvalid), "byte {at}");
        }
    }
    let forged = Signer::from_seed(&[8; 32]).unwrap().sign(&scene.claims());
    assert_eq!(scene.refused(&forged).await, Some(Reason::TicketInvalid));
    assert_eq!(scene.refused(&good).await, None);
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
    // It never falls again.
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
    crate::support::until(&mut view, |view| view.done_bytes > 0).await;
    scene.world.epoch.store(7, Ordering::SeqCst);
    scene.seeder.engine.raise_epochs(vec![("g1".parse().unwrap(), 7)]);
    scene.seeder.engine.set_limits(Some(0), None);
    crate::support::until_complete(&mut view).await;
    assert_eq!(leecher.tickets.issued.load(Ordering::SeqCst), 2, "one new ticket is enough for all streams");
    leecher.end().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_refused_by_their_right_names() {
    let scene = Scene::new().await;
    let ticket = scene.ticket();
    let code = async |request: GetChunkRequest| scene.ask(request).await.unwrap_err().code();
    let with = |pieces: &[u64]| scene.request(&ticket, pieces);
    for index in [4, 1 << 31, 1 << 32, 1 << 45, u64::MAX] {
        assert_eq!(code(with(&[index])).await, Code::OutOfRange, "{index}");
    }
    assert_eq!(code(with(&[])).await, Code::InvalidArgument);
    assert_eq!(code(with(&[1, 1])).await, Code::InvalidArgument);
    assert_eq!(code(with(&vec![0; 10_000])).await, Code::InvalidArgument);
    assert_eq!(code(with(&vec![0; 65_537])).await, Code::InvalidArgument);
    // Longer than any request may be.
    assert_eq!(code(with(&vec![u64::MAX; 100_000])).await, Code::OutOfRange);
    for id in [vec![], vec![1; 15], vec![1; 17], vec![0; 16]] {
        assert_eq!(code(GetChunkRequest { file_id: id.into(), ..with(&[0]) }).await, Code::InvalidArgument);
    }
    let other = GetChunkRequest { file_id: file_id(9).as_bytes().to_vec().into(), ..with(&[0]) };
    assert_eq!(code(other).await, Code::PermissionDenied);
    // A good ticket for a file that is not shared here.
    let unshared = |file: FileId| {
        let ticket = scene.sign(&scene.world.claims("bob", scene.caller.peer, file));
        GetChunkRequest { ticket, file_id: file.as_bytes().to_vec().into(), ..with(&[0]) }
    };
    assert_eq!(code(unshared(file_id(9))).await, Code::NotFound);
    assert!(scene.ask(with(&[0])).await.is_ok(), "and all is well afterwards");
    scene.end().await;
}
