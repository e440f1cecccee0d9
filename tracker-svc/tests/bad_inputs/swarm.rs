//! Peers, their certificates, announces and tickets.

use std::time::{Duration, Instant};

use prost::Message as _;
use proto::{
    domain::PeerId,
    pb::{self, file_announce::Holding},
};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData as _,
};
use testkit::wait::eventually_within;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use transport::peer_id_of_spki;

use super::{
    client::{Client, never_came_in, refused},
    files::publish,
    process::Tracker,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn csr(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap().serialize_request(key).unwrap().der().to_vec()
}

async fn issue(client: &Client, csr_der: Vec<u8>) -> Result<pb::IssuePeerCertResponse, Status> {
    let request = pb::IssuePeerCertRequest { csr_der: csr_der.into() };
    client.auth().issue_peer_cert(request).await.map(tonic::Response::into_inner)
}

/// Registers a new peer of the client's user.
pub(crate) async fn certify(client: &Client) -> Result<String, Status> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    Ok(issue(client, csr(&key, &[])).await?.peer_id)
}

pub(crate) fn complete(file: pb::FileRef) -> pb::FileAnnounce {
    pb::FileAnnounce { file: Some(file), holding: Some(Holding::Complete(true)), wants_sources: false }
}

fn file_ref(group: &str, file: &[u8]) -> pb::FileRef {
    pb::FileRef { group_id: group.into(), file_id: file.to_vec().into() }
}

/// Asks for tickets and fails if any is issued. Returns the tracker's wording, without the parts of the
/// request.
pub(crate) async fn no_ticket(client: &Client, request: pb::IssueTicketsRequest) -> (Code, Vec<String>) {
    match client.swarm().issue_tickets(request).await {
        Err(status) => (status.code(), vec![status.message().to_owned()]),
        Ok(answer) => {
            let answer = answer.into_inner();
            assert!(answer.tickets.is_empty(), "{answer:?}");
            (Code::Ok, answer.refusals.into_iter().map(|refusal| refusal.reason).collect())
        }
    }
}

async fn tickets(
    client: &Client,
    peer: &str,
    files: Vec<pb::FileRef>,
) -> Result<pb::IssueTicketsResponse, Status> {
    let request = pb::IssueTicketsRequest { peer_id: peer.into(), files };
    client.swarm().issue_tickets(request).await.map(tonic::Response::into_inner)
}

/// An announce stream.
struct Announcing {
    send: mpsc::Sender<pb::AnnounceRequest>,
    answers: Streaming<pb::AnnounceResponse>,
}

pub(crate) fn hello(peer: &str, port: u32, advertise: &str) -> pb::AnnounceRequest {
    let hello =
        pb::AnnounceHello { peer_id: peer.into(), port, advertise: advertise.into(), ..Default::default() };
    pb::AnnounceRequest { hello: Some(hello), ..Default::default() }
}

fn holds(group: &str, file: &[u8], holding: Option<Holding>) -> pb::AnnounceRequest {
    let file = pb::FileAnnounce { file: Some(file_ref(group, file)), holding, wants_sources: false };
    pb::AnnounceRequest { files: vec![file], ..Default::default() }
}

fn bits(bits: &[u8]) -> Option<Holding> {
    Some(Holding::Bitfield(pb::Bitfield { bits: bits.to_vec().into() }))
}

impl Announcing {
    async fn open(client: &Client, first: pb::AnnounceRequest) -> Result<Self, Status> {
        let (send, messages) = mpsc::channel(4);
        send.send(first).await.unwrap();
        let mut swarm = client.swarm();
        let call = swarm.announce(ReceiverStream::new(messages));
        let answers = timeout(PATIENCE, call).await.expect("an answer")?.into_inner();
        Ok(Self { send, answers })
    }

    /// Opens a stream and waits until the tracker says welcome.
    async fn welcome(client: &Client, first: pb::AnnounceRequest) -> Result<Self, Status> {
        let mut announcing = Self::open(client, first).await?;
        let answer = timeout(PATIENCE, announcing.answers.message()).await.expect("an answer")?;
        assert!(answer.is_some_and(|answer| answer.welcome.is_some()), "no welcome");
        Ok(announcing)
    }

    /// Reads until the tracker ends the stream.
    async fn end(&mut self) -> Result<(), Status> {
        let reading = async {
            while self.answers.message().await?.is_some() {}
            Ok(())
        };
        timeout(PATIENCE, reading).await.expect("the stream ends")
    }
}

/// The status with which the tracker ends a stream of these messages.
async fn ended(
    client: &Client,
    messages: impl IntoIterator<Item = pb::AnnounceRequest>,
) -> Result<(), Status> {
    let mut messages = messages.into_iter();
    let mut announcing = Announcing::open(client, messages.next().unwrap()).await?;
    for message in messages {
        if announcing.send.send(message).await.is_err() {
            break;
        }
    }
    announcing.end().await
}

/// The result of an announce of files: a status, or the change that says that the files have ended for the
/// peer.
pub(crate) async fn announce_outcome(client: &Client, first: &[u8]) -> Status {
    let first = pb::AnnounceRequest::decode(first).unwrap();
    let files = first.files.len();
    let mut announcing = match Announcing::open(client, first).await {
        Ok(announcing) => announcing,
        Err(status) => return status,
    };
    // A second message. Only an open stream answers it.
    let _ = announcing.send.send(pb::AnnounceRequest::default()).await;
    drop(announcing.send);
    let mut ended = 0;
    loop {
        match timeout(PATIENCE, announcing.answers.message()).await.expect("an end") {
            Ok(Some(answer)) => ended += answer.changes.iter().filter(|change| change.ended).count(),
            Ok(None) if ended >= files => return Status::permission_denied("over for this peer"),
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

async fn seeders(client: &Client, group: &str) -> u32 {
    let request = pb::ListFilesRequest { group_id: group.into(), ..Default::default() };
    let files = client.files().list_files(request).await.unwrap().into_inner().files;
    files.iter().map(|file| file.seeders).sum()
}

#[tokio::test]
async fn a_certificate_contains_the_trackers_values_not_the_requested_ones() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    let bobs: PeerId = certify(&bob).await.unwrap().parse().unwrap();

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let own = peer_id_of_spki(&key.subject_public_key_info());
    let issued = issue(&ann, csr(&key, &[&bobs.tls_name(), "localhost", "tracker"])).await.unwrap();
    assert_eq!((issued.peer_id, issued.tls_name), (own.to_string(), own.tls_name()));
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(!certificate.is_ca());

    let good = csr(&key, &[]);
    let mut unsigned = good.clone();
    *unsigned.last_mut().unwrap() ^= 1;
    let (p384, ed25519) = (
        csr(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), &[]),
        csr(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), &[]),
    );
    for (what, der) in [
        ("nothing", vec![]),
        ("noise", vec![0xff; 300]),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("more after it", [&good[..], &[0]].concat()),
        ("not signed by its key", unsigned),
        ("P-384", p384),
        ("Ed25519", ed25519),
        ("too long", [&good[..], &[0; 4096]].concat()),
    ] {
        refused(issue(&ann, der).await, Code::InvalidArgument, what);
    }
    tracker.finish().await;
}

#[tokio::test]
async fn a_user_has_sixteen_peers() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    for _ in 0..16 {
        certify(&ann).await.unwrap();
    }
    refused(certify(&ann).await, Code::ResourceExhausted, "a 17th");
    tracker.finish().await;
}

#[tokio::test]
async fn tickets_are_for_the_callers_own_peer_and_each_file_once() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    ann.found("g1", &[&bob]).await;
    let file = publish(&ann, "g1", "x", b"bytes").await.unwrap();
    let (anns, bobs) = (certify(&ann).await.unwrap(), certify(&bob).await.unwrap());
    let many: Vec<_> = (1..=65).map(|n| file_ref("g1", &[n; 16])).collect();
    let one = || file_ref("g1", &file);
    refused(tickets(&ann, &anns, many).await, Code::InvalidArgument, "65 files");
    refused(tickets(&ann, &anns, vec![one(), one()]).await, Code::InvalidArgument, "the same twice");
    refused(tickets(&ann, &anns, vec![]).await, Code::InvalidArgument, "none");
    refused(tickets(&ann, &bobs, vec![one()]).await, Code::PermissionDenied, "another's peer");
    let nobodys = PeerId::from([7; 32]).to_string();
    refused(tickets(&ann, &nobodys, vec![one()]).await, Code::PermissionDenied, "nobody's peer");
    for peer in ["", "abc", &anns.to_uppercase(), &anns[1..], &format!("{anns}a")] {
        refused(tickets(&ann, peer, vec![one()]).await, Code::InvalidArgument, peer);
    }
    for id in [&[][..], &[1; 15], &[1; 17], &[0; 16]] {
        refused(tickets(&ann, &anns, vec![file_ref("g1", id)]).await, Code::InvalidArgument, id);
    }
    let answer = tickets(&ann, &anns, vec![one(), file_ref("g1", &[7; 16])]).await.unwrap();
    assert_eq!((answer.tickets.len(), answer.refusals.len()), (1, 1));
    assert_eq!(answer.refusals[0].reason, "FILE_NOT_FOUND");
    assert_eq!(tickets(&bob, &bobs, vec![one()]).await.unwrap().tickets.len(), 1);
    ann.remove("g1", "bob").await.unwrap();
    no_ticket(&bob, pb::IssueTicketsRequest { peer_id: bobs, files: vec![one()] }).await;
    tracker.finish().await;
}

#[tokio::test]
async fn announces_for_another_peer_or_a_foreign_group_are_refused() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let bob = Client::user(&tracker, "bob").await;
    ann.create_group("g1").await.unwrap();
    bob.create_group("g2").await.unwrap();
    let file = publish(&ann, "g1", "x", b"bytes").await.unwrap();
    let (anns, bobs) = (certify(&ann).await.unwrap(), certify(&bob).await.unwrap());
    let complete = || Some(Holding::Complete(true));

    refused(ended(&bob, [hello(&anns, 7000, "")]).await, Code::PermissionDenied, "another user's peer");
    let nobodys = PeerId::from([7; 32]).to_string();
    refused(ended(&bob, [hello(&nobodys, 7000, "")]).await, Code::PermissionDenied, "nobody's peer");
    refused(ended(&bob, [hello("", 7000, "")]).await, Code::InvalidArgument, "no peer");
    refused(ended(&bob, [pb::AnnounceRequest::default()]).await, Code::InvalidArgument, "no hello");
    let twice = [hello(&bobs, 7000, ""), hello(&bobs, 7000, "")];
    refused(ended(&bob, twice).await, Code::InvalidArgument, "hello twice");

    // The outsider is either cut off or told that the file has ended for it. It is never counted.
    for (group, id) in [("g1", &file[..]), ("none", &file), ("g2", &file), ("g2", &[7; 16])] {
        let mut announcing = Announcing::welcome(&bob, hello(&bobs, 7000, "")).await.unwrap();
        announcing.send.send(holds(group, id, complete())).await.unwrap();
        let answer = timeout(PATIENCE, async {
            loop {
                match announcing.answers.message().await {
                    Ok(Some(answer)) if answer.changes.iter().any(|change| change.ended) => return None,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("ended well"),
                    Err(status) => return Some(status.code()),
                }
            }
        });
        let code = answer.await.expect("an answer");
        assert!(matches!(code, None | Some(Code::PermissionDenied | Code::NotFound)), "{group}: {code:?}");
        assert_eq!(seeders(&ann, "g1").await, 0);
    }
    tracker.finish().await;
}

#[tokio::test]
async fn unreachable_addresses_are_not_given_to_others() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    ann.create_group("g1").await.unwrap();
    let file = publish(&ann, "g1", "x", b"bytes").await.unwrap();
    let peer = certify(&ann).await.unwrap();
    let huge = format!("{}:5", "a".repeat(60_000));
    for (port, advertise) in [
        (0, ""),
        (70_000, ""),
        (u32::MAX, ""),
        (7000, "0.0.0.0:5"),
        (7000, "169.254.169.254:80"),
        (7000, "224.0.0.1:5"),
        (7000, "255.255.255.255:5"),
        (7000, "[::]:5"),
        (7000, "192.0.2.1:0"),
        (7000, "192.0.2.1:70000"),
        (7000, "http://192.0.2.1:5"),
        (7000, "peer.example:5/path"),
        (7000, "127.1:5"),
        (7000, "a b:5"),
        (7000, "unix:/tmp/socket"),
        (7000, &huge),
    ] {
        refused(
            ended(&ann, [hello(&peer, port, advertise)]).await,
            Code::InvalidArgument,
            (port, &advertise[..9.min(advertise.len())]),
        );
    }
    for (listen, more) in [
        ("", &["192.0.2.1:0"][..]),
        ("", &[""]),
        ("", &["169.254.169.254:80"]),
        ("", &["fe80::1"]),
        ("", &["a b"]),
        ("", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"]),
        ("here", &[]),
        ("127.0.0.1:7000", &[]),
    ] {
        let mut first = hello(&peer, 7000, "");
        let said = first.hello.as_mut().unwrap();
        said.listen = listen.into();
        said.addresses = more.iter().map(|&text| text.into()).collect();
        refused(ended(&ann, [first]).await, Code::InvalidArgument, (listen, more));
    }
    // A peer on loopback is seen at a loopback address, and may advertise one.
    let announcing = Announcing::welcome(&ann, hello(&peer, 7000, "")).await.unwrap();
    announcing.send.send(holds("g1", &file, Some(Holding::Complete(true)))).await.unwrap();
    let mut sources = Vec::new();
    eventually_within(PATIENCE, "the peer is a source", async || {
        let request = pb::FindPeersRequest { group_id: "g1".into(), name: "x".into(), ..Default::default() };
        sources = ann.swarm().find_peers(request).await.unwrap().into_inner().read().unwrap();
        !sources.is_empty()
    })
    .await;
    assert_eq!(sources[0].peer.as_ref().unwrap().addresses, ["127.0.0.1:7000"]);
    tracker.finish().await;
}

#[tokio::test]
async fn an_invalid_bitfield_ends_the_stream() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    ann.create_group("g1").await.unwrap();
    // Ten pieces: two bytes, six spare bits.
    let file = publish(&ann, "g1", "x", &vec![7; 10 * 524_288]).await.unwrap();
    let peer = certify(&ann).await.unwrap();
    let gained = |pieces: Vec<u64>| Some(Holding::Gained(pb::PieceList { pieces }));
    let base = tracker.rss();
    for (what, holding) in [
        ("nothing", None),
        ("no bits", bits(&[])),
        ("short", bits(&[0xff])),
        ("long", bits(&[0xff, 0xc0, 0])),
        ("spare bits", bits(&[0xff, 0xe0])),
        ("500 KiB", bits(&vec![0; 500 << 10])),
        ("a piece past the end", gained(vec![10])),
        ("a piece far past the end", gained(vec![u64::MAX])),
        ("a piece twice", gained(vec![1, 1])),
    ] {
        // The first announce contains all pieces, so that the second is judged by its own pieces.
        let first = holds("g1", &file, bits(&[0, 0]));
        let messages = [hello(&peer, 7000, ""), first, holds("g1", &file, holding)];
        let status = ended(&ann, messages).await.expect_err(what);
        assert!(matches!(status.code(), Code::InvalidArgument | Code::OutOfRange), "{what}: {status:?}");
    }
    // The first announce of a peer that the tracker does not know.
    let fresh = certify(&ann).await.unwrap();
    let baseless = [hello(&fresh, 7000, ""), holds("g1", &file, gained(vec![1]))];
    refused(ended(&ann, baseless).await, Code::InvalidArgument, "gained before anything was said");
    // Larger than any announce may be.
    let huge = [hello(&peer, 7000, ""), holds("g1", &file, bits(&vec![0; 1 << 20]))];
    let status = ended(&ann, huge).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument),
        "{status:?}"
    );
    assert!(tracker.rss() < base + (8 << 20));
    tracker.finish().await;
}

#[tokio::test]
async fn a_flood_of_announces_or_calls_is_refused_and_others_are_served() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    ann.create_group("g1").await.unwrap();
    publish(&ann, "g1", "x", b"bytes").await.unwrap();
    let peer = certify(&ann).await.unwrap();
    let served = bob.keep_calling();

    let announces = std::iter::once(hello(&peer, 7000, ""))
        .chain(std::iter::repeat_n(pb::AnnounceRequest::default(), 5_000));
    refused(ended(&ann, announces).await, Code::ResourceExhausted, "announces");
    let mut refusals = 0;
    // The limit is 200 at once and 20 a second.
    for _ in 0..400 {
        let request = pb::FindPeersRequest { group_id: "g1".into(), name: "x".into(), ..Default::default() };
        if let Err(status) = ann.swarm().find_peers(request).await {
            let status = refused(Err::<(), _>(status), Code::ResourceExhausted, "FindPeers");
            assert!(proto::reason::retry_after(&status).is_some());
            refusals += 1;
        }
    }
    assert!(refusals > 50, "{refusals}");
    let began = Instant::now();
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move { ann.who_am_i().await })
        })
        .collect();
    let mut refusals = 0;
    for call in calls {
        if let Err(status) = call.await.unwrap()
            && !never_came_in(&status)
        {
            refused(Err::<(), _>(status), Code::ResourceExhausted, "WhoAmI");
            refusals += 1;
        }
    }
    // The limit is 200 at once and 100 a second. A slower machine cannot make a flood.
    let took = began.elapsed();
    assert!(refusals > 0 || took > Duration::from_secs(7), "a thousand calls in {took:?} were let through");
    assert_eq!(bob.who_am_i().await.unwrap(), "bob");
    let (calls, slowest) = served.all_the_time().await;
    assert!(slowest < Duration::from_secs(2), "the slowest of {calls} calls took {slowest:?}");
    tracker.finish().await;
}
