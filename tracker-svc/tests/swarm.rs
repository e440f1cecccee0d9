//! SwarmService over a real socket and a real store: tickets, announce streams, and what ends them.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    convert,
    domain::{Bitfield, FileHeader, FileId, FileName, GroupId, PIECE_LENGTH, PeerId, PieceLayout, Username},
    pb::{self, file_announce::Holding, swarm_service_client::SwarmServiceClient},
    reason::Reason,
    ticket::{TicketError, Verifier},
    transport::{
        Around, ChannelTuning, ClientSecurity, Limits, Remote, RequestIds, Security, connect, listen, serve,
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status, Streaming,
    service::{Routes, interceptor::InterceptedService},
    transport::Channel,
};
use tower::ServiceBuilder;
use tracker_svc::{
    domain::{Caller, Membership, Origin, Ownership, Requirement, SessionHash, access, session},
    events::Events,
    grpc::{authn::Authn, gate::Gate, swarm::SwarmService},
    hub::Hub,
    keys::TicketKeys,
    store::{
        Accounts as _, Files as _, Groups as _, Log as _, Peers as _, Sessions as _, Store, sqlite::Sqlite,
    },
};

const LONG: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(1_800);

/// A tracker with nothing but SwarmService.
struct Tracker {
    store: Arc<Sqlite>,
    keys: Arc<TicketKeys>,
    channel: Channel,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

type Sign = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send>;
type Client = SwarmServiceClient<InterceptedService<Channel, Sign>>;

struct User {
    name: Username,
    token: String,
    caller: Caller,
}

fn origin() -> Origin {
    Origin { actor: None, ip: None, request: "test".into(), at: SystemTime::now() }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl Tracker {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(directory.path()).await.unwrap());
        let keys = Arc::new(TicketKeys::open_or_create(directory.path(), TTL, now()).unwrap());
        let (events, shutdown) = (Events::default(), CancellationToken::new());
        let dynamic: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let hub = Hub::new(shutdown.clone());
        let listener = events.listen();
        let last = store.last_change().await.unwrap();
        let running = tokio::spawn(Arc::clone(&hub).run(listener, Arc::clone(&keys)));
        let pumping = tokio::spawn(events.pump(Arc::clone(&dynamic), last, shutdown.clone()));
        let service = SwarmService::new(Arc::clone(&dynamic), hub, Arc::clone(&keys), TTL);
        let routes = Routes::new(pb::swarm_service_server::SwarmServiceServer::new(service));
        let service = ServiceBuilder::new()
            .layer(Around(RequestIds))
            .layer(Around(Authn::new(dynamic)))
            .service(routes);
        let socket = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let serving = serve(socket, Security::Plaintext, service, Limits::tracker(), shutdown.clone());
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        let remote = Remote::Tcp { host: "127.0.0.1".into(), port };
        let channel = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.unwrap();
        Self { store, keys, channel, shutdown, tasks: vec![running, pumping, serving], _directory: directory }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            timeout(LONG, task).await.expect("it ends").unwrap();
        }
    }

    async fn user(&self, name: &str) -> User {
        let name: Username = name.parse().unwrap();
        self.store.create_account(&name, "hash", &origin()).await.unwrap();
        let credentials = self.store.credentials(&name).await.unwrap().unwrap();
        let token = session::token(&rand::random());
        let hash = SessionHash::of_token(&token).unwrap();
        self.store.open_session(&credentials, None, hash, &origin()).await.unwrap();
        let session = self.store.session(hash).await.unwrap().unwrap();
        let caller = access::authenticate(Requirement::Session, session, SystemTime::now()).unwrap();
        User { name, token, caller }
    }

    fn client(&self, user: &User) -> Client {
        let bearer = format!("Bearer {}", user.token);
        let sign: Sign = Box::new(move |mut request| {
            request.metadata_mut().insert("authorization", bearer.parse().unwrap());
            Ok(request)
        });
        SwarmServiceClient::with_interceptor(self.channel.clone(), sign)
    }

    async fn peer(&self, user: &User) -> PeerId {
        let peer = PeerId::from(rand::random::<[u8; 32]>());
        let expires = SystemTime::now() + Duration::from_secs(3_600);
        self.store.register_peer(&user.caller, peer, expires, &origin()).await.unwrap();
        peer
    }

    async fn member(&self, user: &User, group: &GroupId) -> Membership {
        Gate::new(Arc::clone(&self.store) as Arc<dyn Store>).enter(&user.caller, group).await.unwrap()
    }

    async fn owner(&self, user: &User, group: &GroupId) -> Ownership {
        Gate::new(Arc::clone(&self.store) as Arc<dyn Store>).enter(&user.caller, group).await.unwrap()
    }

    /// A group of the first user that the others are members of.
    async fn group(&self, name: &str, users: &[&User]) -> GroupId {
        let group: GroupId = name.parse().unwrap();
        self.store.create_group(&users[0].caller, &group, &origin()).await.unwrap();
        for user in &users[1..] {
            self.store.ask(&user.caller, &group, &origin()).await.unwrap();
            let owner = self.owner(users[0], &group).await;
            self.store.accept(&owner, &user.name, &origin()).await.unwrap();
        }
        group
    }

    /// A file of four pieces.
    async fn file(&self, user: &User, group: &GroupId, name: &str) -> FileId {
        let member = self.member(user, group).await;
        let name: FileName = name.parse().unwrap();
        let header = FileHeader { name, layout: layout(), sha1: [1; 20].into(), blake3: [2; 32].into() };
        let manifest = self.store.stage_manifest(&member, 4, SystemTime::now()).await.unwrap();
        let published = self.store.publish(&member, &header, [3; 32], manifest, &origin()).await.unwrap();
        published.file
    }

    async fn announce(&self, user: &User, first: pb::AnnounceRequest) -> Stream {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(first).await.unwrap();
        let answers = self.client(user).announce(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Stream { sender, answers }
    }

    /// A stream that was welcomed.
    async fn welcomed(&self, user: &User, peer: PeerId, files: Vec<pb::FileAnnounce>) -> Stream {
        let mut stream = self.announce(user, hello(peer, "", files)).await;
        let welcome = stream.next().await.unwrap().welcome.expect("welcome comes first");
        assert_eq!(welcome.observed_ip, "127.0.0.1");
        assert_eq!((welcome.heartbeat_seconds, welcome.instance_id.len()), (10, 16));
        assert_eq!(welcome.keys.len(), 1);
        stream
    }
}

struct Stream {
    sender: mpsc::Sender<pb::AnnounceRequest>,
    answers: Streaming<pb::AnnounceResponse>,
}

impl Stream {
    async fn next(&mut self) -> Result<pb::AnnounceResponse, Status> {
        let answer = timeout(LONG, self.answers.message()).await.expect("an answer in time")?;
        Ok(answer.expect("the stream goes on"))
    }

    /// The next change, however many answers without any come before.
    async fn change(&mut self) -> pb::SwarmChange {
        loop {
            if let Some(change) = self.next().await.unwrap().changes.into_iter().next() {
                return change;
            }
        }
    }

    async fn epoch(&mut self) -> pb::GroupEpoch {
        loop {
            if let Some(epoch) = self.next().await.unwrap().epochs.into_iter().next() {
                return epoch;
            }
        }
    }

    /// How the stream ends.
    async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(answer) => assert!(answer.now.is_some()),
                Err(status) => return status,
            }
        }
    }

    async fn say(&self, files: Vec<pb::FileAnnounce>) {
        self.sender.send(pb::AnnounceRequest { files, ..Default::default() }).await.unwrap();
    }
}

fn layout() -> PieceLayout {
    PieceLayout::new(4 * u64::from(PIECE_LENGTH)).unwrap()
}

fn hello(peer: PeerId, advertise: &str, files: Vec<pb::FileAnnounce>) -> pb::AnnounceRequest {
    let hello = pb::AnnounceHello { peer_id: peer.to_string(), port: 7_000, advertise: advertise.into() };
    pb::AnnounceRequest { hello: Some(hello), files, load: 0 }
}

fn has(group: &GroupId, file: FileId, holding: Holding) -> pb::FileAnnounce {
    let wants_sources = !matches!(holding, Holding::Complete(_));
    pb::FileAnnounce { file: Some(convert::to_file_ref(group, file)), holding: Some(holding), wants_sources }
}

fn nothing() -> Holding {
    Holding::Bitfield(convert::to_bitfield(&Bitfield::empty(layout())))
}

fn gained(pieces: &[u64]) -> Holding {
    Holding::Gained(pb::PieceList { pieces: pieces.to_vec() })
}

fn peers(sources: &[pb::Source]) -> Vec<String> {
    sources.iter().map(|source| source.peer.as_ref().unwrap().peer_id.clone()).collect()
}

fn refused(status: &Status) -> (Code, Option<Reason>) {
    (status.code(), Reason::of(status))
}

/// Polls until the condition holds.
async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    timeout(LONG, poll).await.expect("the condition comes true");
}

#[tokio::test]
async fn sources_are_pushed_as_they_come_gain_and_leave() {
    let tracker = Tracker::start().await;
    let (ann, bob, cas) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("cas").await);
    let group = tracker.group("films", &[&ann, &bob, &cas]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let (a, b, c) = (tracker.peer(&ann).await, tracker.peer(&bob).await, tracker.peer(&cas).await);

    let seeder = tracker.welcomed(&ann, a, vec![has(&group, file, Holding::Complete(true))]).await;
    let mut leecher = tracker.welcomed(&bob, b, vec![has(&group, file, nothing())]).await;
    let change = leecher.change().await;
    assert_eq!(change.file, Some(convert::to_file_ref(&group, file)));
    let source = &change.sources[0];
    let address = source.peer.as_ref().unwrap();
    assert_eq!((&address.peer_id, &address.tls_name), (&a.to_string(), &a.tls_name()));
    assert_eq!(address.addresses, ["127.0.0.1:7000"]);
    assert_eq!(address.username, "ann");
    assert_eq!((source.pieces, change.sources.len(), change.ended), (4, 1, false));

    let other = tracker.welcomed(&cas, c, vec![has(&group, file, nothing())]).await;
    other.say(vec![has(&group, file, gained(&[2]))]).await;
    let change = leecher.change().await;
    assert_eq!(peers(&change.sources), [c.to_string()]);

    let find = || async {
        let request = pb::FindPeersRequest { group_id: group.to_string(), name: "movie.mp4".into() };
        tracker.client(&bob).find_peers(request).await.unwrap().into_inner()
    };
    let found = find().await;
    assert_eq!(found.file_id, file.as_bytes().to_vec());
    assert_eq!(peers(&found.read().unwrap()), [c.to_string(), a.to_string()], "fewest pieces first");

    seeder.say(vec![has(&group, file, Holding::Left(true))]).await;
    let change = leecher.change().await;
    assert_eq!((change.gone_peer_ids, change.sources.len()), (vec![a.to_string()], 0));

    // A stream that breaks off leaves its peer its lease.
    drop((other, seeder));
    assert_eq!(peers(&find().await.read().unwrap()), [c.to_string()]);
    tracker.stop().await;
}

#[tokio::test]
async fn removal_tells_the_others_the_epoch_and_ends_the_members_files() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    let group = tracker.group("films", &[&ann, &bob]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let (a, b) = (tracker.peer(&ann).await, tracker.peer(&bob).await);
    let mut seeder = tracker.welcomed(&ann, a, vec![has(&group, file, Holding::Complete(true))]).await;
    let before = seeder.epoch().await;
    assert_eq!(before.group_id, group.to_string());
    let mut leecher = tracker.welcomed(&bob, b, vec![has(&group, file, nothing())]).await;
    assert_eq!(peers(&leecher.change().await.sources), [a.to_string()]);

    let owner = tracker.owner(&ann, &group).await;
    tracker.store.remove_member(&owner, &bob.name, &origin()).await.unwrap();
    let after = seeder.epoch().await;
    assert!(after.min_epoch > before.min_epoch);
    let change = leecher.change().await;
    assert_eq!((change.ended, change.reason.as_str()), (true, "NOT_A_MEMBER"));

    // What the member says of the group from then on is answered alike, whether or not the file exists.
    let missing = FileId::try_from(&[9; 16][..]).unwrap();
    for file in [file, missing] {
        leecher.say(vec![has(&group, file, nothing())]).await;
        let change = leecher.change().await;
        assert_eq!(change.file, Some(convert::to_file_ref(&group, file)));
        assert_eq!((change.ended, change.reason.as_str()), (true, "NOT_A_MEMBER"));
    }
    let member = tracker.member(&ann, &group).await;
    tracker.store.unpublish(&member, &"movie.mp4".parse().unwrap(), &origin()).await.unwrap();
    let change = seeder.change().await;
    assert_eq!((change.ended, change.reason.as_str()), (true, "FILE_NOT_FOUND"));
    seeder.say(vec![has(&group, file, Holding::Complete(true))]).await;
    assert_eq!(seeder.change().await.reason, "FILE_NOT_FOUND");

    let owner = tracker.owner(&ann, &group).await;
    let second = tracker.file(&ann, &group, "second.mp4").await;
    seeder.say(vec![has(&group, second, Holding::Complete(true))]).await;
    let request = pb::FindPeersRequest { group_id: group.to_string(), name: "second.mp4".into() };
    until(|| async {
        let found = tracker.client(&ann).find_peers(request.clone()).await;
        found.is_ok_and(|found| found.get_ref().sources.len() == 1)
    })
    .await;
    tracker.store.delete_group(&owner, &origin()).await.unwrap();
    assert!(seeder.change().await.ended);
    tracker.stop().await;
}

#[tokio::test]
async fn streams_end_with_their_session_and_with_the_tracker() {
    let tracker = Tracker::start().await;
    let (ann, bob, cas) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("cas").await);
    let group = tracker.group("films", &[&ann, &bob, &cas]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let mut streams = Vec::new();
    for user in [&ann, &bob, &cas] {
        let peer = tracker.peer(user).await;
        streams.push(tracker.welcomed(user, peer, vec![has(&group, file, Holding::Complete(true))]).await);
    }
    let [first, second, third] = &mut streams[..] else { panic!("three streams") };
    let request = || pb::FindPeersRequest { group_id: group.to_string(), name: "movie.mp4".into() };

    tracker.store.end_session(&ann.caller, &origin()).await.unwrap();
    let end = timeout(Duration::from_secs(2), first.end()).await.expect("within two seconds");
    assert_eq!(refused(&end), (Code::Unauthenticated, Some(Reason::NotLoggedIn)));
    tracker.store.set_disabled(&bob.name, true, &origin()).await.unwrap();
    let end = timeout(Duration::from_secs(2), second.end()).await.expect("within two seconds");
    assert_eq!(refused(&end), (Code::Unauthenticated, Some(Reason::NotLoggedIn)));
    until(|| async {
        tracker.client(&cas).find_peers(request()).await.unwrap().get_ref().sources.len() == 1
    })
    .await;

    tracker.shutdown.cancel();
    assert_eq!(refused(&third.end().await), (Code::Unavailable, Some(Reason::NotServing)));
    tracker.stop().await;
}

#[tokio::test]
async fn a_newer_stream_takes_an_older_ones_place() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let peer = tracker.peer(&ann).await;
    let mut older = tracker.welcomed(&ann, peer, vec![]).await;
    let newer = tracker.welcomed(&ann, peer, vec![]).await;
    assert_eq!(refused(&older.end().await), (Code::Aborted, Some(Reason::Replaced)));
    drop(newer);
    tracker.stop().await;
}

#[tokio::test]
async fn announces_that_are_off_end_the_stream() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    let group = tracker.group("films", &[&ann]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let (a, b) = (tracker.peer(&ann).await, tracker.peer(&bob).await);
    let bits = |bytes: &[u8]| Holding::Bitfield(pb::Bitfield { bits: bytes.to_vec().into() });
    let invalid = (Code::InvalidArgument, Some(Reason::InvalidRequest));

    let no_hello = pb::AnnounceRequest { hello: None, ..hello(a, "", vec![]) };
    let mut bad_port = hello(a, "", vec![]);
    bad_port.hello.as_mut().unwrap().port = 70_000;
    let mut bad_peer = hello(a, "", vec![]);
    bad_peer.hello.as_mut().unwrap().peer_id = "x".into();
    let mut no_file = has(&group, file, nothing());
    no_file.file = None;
    let mut no_holding = has(&group, file, nothing());
    no_holding.holding = None;
    for (first, expected) in [
        (no_hello, invalid),
        (bad_port, invalid),
        (bad_peer, invalid),
        (hello(b, "", vec![]), (Code::PermissionDenied, Some(Reason::NotYourPeer))),
        (hello(PeerId::from([1; 32]), "", vec![]), (Code::PermissionDenied, Some(Reason::NotYourPeer))),
        (hello(a, "0.0.0.0:5", vec![]), invalid),
        (hello(a, "169.254.169.254:80", vec![]), invalid),
        (hello(a, &"a".repeat(60_000), vec![]), invalid),
        (hello(a, "", vec![no_file]), invalid),
        (hello(a, "", vec![no_holding]), invalid),
        (hello(a, "", vec![has(&group, file, Holding::Complete(false))]), invalid),
        (hello(a, "", vec![has(&group, file, bits(&[]))]), invalid),
        (hello(a, "", vec![has(&group, file, bits(&[0, 0]))]), invalid),
        (hello(a, "", vec![has(&group, file, bits(&[0x08]))]), invalid),
        (hello(a, "", vec![has(&group, file, bits(&vec![0; 1 << 18]))]), invalid),
        (hello(a, "", vec![has(&group, file, gained(&[1]))]), invalid),
        (hello(a, "", vec![has(&group, file, gained(&[4]))]), (Code::OutOfRange, Some(Reason::OutOfRange))),
        (hello(a, "", vec![has(&group, file, gained(&[1, 1]))]), invalid),
        (hello(a, "", vec![has(&group, file, nothing()); 1_001]), invalid),
    ] {
        let what = format!("{first:.300?}");
        let mut stream = tracker.announce(&ann, first).await;
        assert_eq!(refused(&stream.end().await), expected, "{what}");
    }

    let mut twice = tracker.welcomed(&ann, a, vec![]).await;
    twice.sender.send(hello(a, "", vec![])).await.unwrap();
    assert_eq!(refused(&twice.end().await), invalid);

    let mut flood = tracker.welcomed(&ann, a, vec![]).await;
    for _ in 0..30 {
        // The stream may be over before all are sent.
        let _ = flood.sender.send(pb::AnnounceRequest::default()).await;
    }
    let end = flood.end().await;
    assert_eq!(refused(&end), (Code::ResourceExhausted, Some(Reason::RateLimited)));
    assert!(proto::reason::retry_after(&end).is_some());
    // And the next one is served.
    drop(tracker.welcomed(&ann, a, vec![has(&group, file, nothing())]).await);
    tracker.stop().await;
}

#[tokio::test]
async fn tickets_are_for_members_and_their_own_peers() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    let group = tracker.group("films", &[&ann]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let (a, b) = (tracker.peer(&ann).await, tracker.peer(&bob).await);
    let missing = FileId::try_from(&[9; 16][..]).unwrap();
    let none: GroupId = "none".parse().unwrap();
    let ask = |user: &User, peer: PeerId, files: Vec<pb::FileRef>| {
        let mut client = tracker.client(user);
        async move {
            let request = pb::IssueTicketsRequest { peer_id: peer.to_string(), files };
            client.issue_tickets(request).await.map(tonic::Response::into_inner)
        }
    };
    let refer = |file| convert::to_file_ref(&group, file);

    let granted = ask(&ann, a, vec![refer(file), refer(missing)]).await.unwrap();
    let [ticket] = &granted.tickets[..] else { panic!("one ticket") };
    assert_eq!(ticket.file, Some(refer(file)));
    let [refusal] = &granted.refusals[..] else { panic!("one refusal") };
    assert_eq!((&refusal.file, refusal.reason.as_str()), (&Some(refer(missing)), "FILE_NOT_FOUND"));
    let verifier = Verifier::new(tracker.keys.verifying_keys().borrow().iter().cloned());
    let claims = verifier.verify(&ticket.ticket, now()).unwrap();
    assert_eq!((&claims.user, &claims.group, claims.file, claims.peer), (&ann.name, &group, file, a));
    assert_eq!(claims.root, [2; 32].into());
    assert_eq!(claims.epoch, tracker.member(&ann, &group).await.epoch());
    assert_eq!(claims.expires - claims.issued, TTL.as_secs());
    assert_eq!(ticket.expires_at.as_ref().unwrap().seconds.cast_unsigned(), claims.expires);
    assert_eq!(claims.covers(&b, file), Err(TicketError::OtherPeer));

    let status = |outcome: Result<pb::IssueTicketsResponse, Status>| outcome.unwrap_err();
    // File 9 is missing too.
    let many: Vec<_> = (1..=65).map(|n| refer(FileId::try_from(&[n; 16][..]).unwrap())).collect();
    let bad_id = pb::FileRef { file_id: vec![1; 15].into(), ..refer(file) };
    for files in [vec![], many.clone(), vec![refer(file), refer(file)], vec![bad_id]] {
        assert_eq!(status(ask(&ann, a, files).await).code(), Code::InvalidArgument);
    }
    assert_eq!(status(ask(&ann, a, many[..64].to_vec()).await).code(), Code::NotFound);
    for peer in [b, PeerId::from([1; 32])] {
        let refusal = status(ask(&ann, peer, vec![refer(file)]).await);
        assert_eq!(refused(&refusal), (Code::PermissionDenied, Some(Reason::NotYourPeer)));
    }
    // An outsider is told the same of what exists and of what does not.
    let answers = [
        ask(&bob, b, vec![refer(file)]).await,
        ask(&bob, b, vec![refer(missing)]).await,
        ask(&bob, b, vec![convert::to_file_ref(&none, file)]).await,
    ]
    .map(status);
    for answer in &answers {
        assert_eq!(refused(answer), (Code::PermissionDenied, Some(Reason::NotAMember)));
        assert_eq!((answer.message(), answer.details()), (answers[0].message(), answers[0].details()));
    }
    for (user, name, code) in [
        (&bob, "movie.mp4", Code::PermissionDenied),
        (&bob, "none", Code::PermissionDenied),
        (&ann, "none", Code::NotFound),
        (&ann, "../x", Code::InvalidArgument),
    ] {
        let request = pb::FindPeersRequest { group_id: group.to_string(), name: name.into() };
        assert_eq!(tracker.client(user).find_peers(request).await.unwrap_err().code(), code, "{name}");
    }
    tracker.stop().await;
}
