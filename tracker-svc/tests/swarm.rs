//! SwarmService over a real socket and a real store: tickets, announce streams, and the reasons for which
//! streams end.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "swarm/cluster.rs"]
mod cluster;

use std::{
    collections::VecDeque,
    ops::Deref,
    time::{Duration, SystemTime},
};

use proto::{
    convert,
    domain::{
        Bitfield, FileHeader, FileId, FileName, GroupId, Name as _, PIECE_LENGTH, PeerId, PieceLayout,
        Username,
    },
    pb::{self, file_announce::Holding},
    reason::Reason,
    ticket::{TicketError, Verifier},
};
use testkit::{client::Client, content::file_id, wait::eventually, world::unix_now};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracker_core::{
    Caller, Membership, Origin, Ownership, Requirement, SessionHash, access, operator::ListingQuotas,
};
use tracker_svc::store::{
    Accounts as _, Files as _, Groups as _, IfTaken, Peers as _, Publication, Sessions as _,
};

const LONG: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(1_800);

/// A tracker, and the calls of its store that set a scene.
struct Tracker(testkit::tracker::Tracker);

impl Deref for Tracker {
    type Target = testkit::tracker::Tracker;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

struct User {
    name: Username,
    client: Client,
    caller: Caller,
}

fn origin() -> Origin {
    Origin { actor: None, ip: None, request: "test".into(), at: SystemTime::now() }
}

impl Tracker {
    async fn start() -> Self {
        Self(testkit::tracker::Tracker::start().await)
    }

    async fn stop(self) {
        timeout(LONG, self.0.stop()).await.expect("it ends");
    }

    async fn user(&self, name: &str) -> User {
        let client = self.0.user(name).await;
        let hash = SessionHash::of_token(client.token.as_deref().unwrap()).unwrap();
        let session = self.store.session(hash).await.unwrap().unwrap();
        let caller = access::authenticate(Requirement::Session, session, SystemTime::now()).unwrap();
        User { name: name.parse().unwrap(), client, caller }
    }

    async fn peer(&self, user: &User) -> PeerId {
        let peer = PeerId::from(rand::random::<[u8; 32]>());
        let expires = SystemTime::now() + Duration::from_secs(3_600);
        self.store.register_peer(&user.caller, peer, expires, &origin()).await.unwrap();
        peer
    }

    async fn member(&self, user: &User, group: &GroupId) -> Membership {
        self.enter(user, group).await
    }

    async fn owner(&self, user: &User, group: &GroupId) -> Ownership {
        self.enter(user, group).await
    }

    async fn enter<P: access::Proof>(&self, user: &User, group: &GroupId) -> P {
        let place = self.store.place(user.caller.account(), group).await.unwrap();
        access::admit(&user.caller, group, place).unwrap()
    }

    /// A group of the first user, with the others as members.
    async fn group(&self, name: &str, users: &[&User]) -> GroupId {
        let group = GroupId::stored(name).unwrap();
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
        let name = FileName::stored(name).unwrap();
        let header =
            FileHeader { name, layout: layout(), sha1: [1; 20].into(), blake3: [2; 32].into(), folder: None };
        let manifest = self.store.stage_manifest(&member, 4, SystemTime::now()).await.unwrap();
        let (if_taken, quotas) = (IfTaken::Refuse, &ListingQuotas::default());
        let file = Publication { header: &header, hashes: [3; 32], manifest, if_taken, quotas };
        self.store.publish(&member, file, &origin()).await.unwrap().file
    }

    async fn announce(&self, user: &User, first: pb::AnnounceRequest) -> Stream {
        let (sender, receiver) = mpsc::channel(64);
        sender.send(first).await.unwrap();
        let answers = user.client.swarm().announce(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Stream { sender, answers, epochs: VecDeque::new() }
    }

    /// Opens a stream and waits for the welcome.
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
    /// Received epochs that no test has read yet.
    epochs: VecDeque<pb::GroupEpoch>,
}

impl Stream {
    async fn next(&mut self) -> Result<pb::AnnounceResponse, Status> {
        let answer = timeout(LONG, self.answers.message()).await.expect("an answer in time")?;
        let answer = answer.expect("the stream goes on");
        self.epochs.extend(answer.epochs.iter().cloned());
        Ok(answer)
    }

    /// The next change. Skips responses without changes.
    async fn change(&mut self) -> pb::SwarmChange {
        loop {
            if let Some(change) = self.next().await.unwrap().changes.into_iter().next() {
                return change;
            }
        }
    }

    /// The next received epoch.
    async fn epoch(&mut self) -> pb::GroupEpoch {
        loop {
            if let Some(epoch) = self.epochs.pop_front() {
                return epoch;
            }
            self.next().await.unwrap();
        }
    }

    /// The next published files.
    async fn published(&mut self) -> Vec<pb::PublishedFile> {
        loop {
            let published = self.next().await.unwrap().published;
            if !published.is_empty() {
                return published;
            }
        }
    }

    /// The status with which the stream ends.
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
    let hello = pb::AnnounceHello {
        peer_id: peer.to_string(),
        port: 7_000,
        advertise: advertise.into(),
        ..Default::default()
    };
    pb::AnnounceRequest { hello: Some(hello), files, ..Default::default() }
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

#[tokio::test]
async fn sources_are_pushed_when_they_join_gain_pieces_and_leave() {
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
        let request = pb::FindPeersRequest {
            group_id: group.to_string(),
            name: "movie.mp4".into(),
            ..Default::default()
        };
        bob.client.swarm().find_peers(request).await.unwrap().into_inner()
    };
    let found = find().await;
    assert_eq!(found.file_id, file.as_bytes().to_vec());
    assert_eq!(peers(&found.read().unwrap()), [c.to_string(), a.to_string()], "fewest pieces first");

    // Everyone, in pages: also the leecher without a piece, and the caller's own peer.
    let mut everyone = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::FindPeersRequest {
            group_id: group.to_string(),
            name: "movie.mp4".into(),
            everyone: true,
            page_size: 2,
            page_token,
        };
        let page = bob.client.swarm().find_peers(request).await.unwrap().into_inner();
        everyone.extend(page.read().unwrap());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut expected = [(a, 4), (b, 0), (c, 1)];
    expected.sort();
    let expected = expected.map(|(id, pieces)| (id.to_string(), pieces));
    let got: Vec<_> = peers(&everyone).into_iter().zip(everyone.iter().map(|peer| peer.pieces)).collect();
    assert_eq!(got, expected);
    assert!(everyone.iter().all(|peer| peer.peer.as_ref().unwrap().addresses.is_empty()));
    let forged = pb::FindPeersRequest {
        group_id: group.to_string(),
        name: "movie.mp4".into(),
        everyone: true,
        page_token: "forged".into(),
        ..Default::default()
    };
    let status = bob.client.swarm().find_peers(forged).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    seeder.say(vec![has(&group, file, Holding::Left(true))]).await;
    let change = leecher.change().await;
    assert_eq!((change.gone_peer_ids, change.sources.len()), (vec![a.to_string()], 0));

    // When a stream breaks off, its peer keeps its lease.
    drop((other, seeder));
    assert_eq!(peers(&find().await.read().unwrap()), [c.to_string()]);
    tracker.stop().await;
}

#[tokio::test]
async fn a_removal_sends_the_epoch_to_others_and_ends_the_members_files() {
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

    // From then on the member gets the same response about the group, whether or not the file exists.
    let missing = file_id(9);
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
    let request =
        pb::FindPeersRequest { group_id: group.to_string(), name: "second.mp4".into(), ..Default::default() };
    eventually("one source is found", async || {
        let found = ann.client.swarm().find_peers(request.clone()).await;
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
    let request = || pb::FindPeersRequest {
        group_id: group.to_string(),
        name: "movie.mp4".into(),
        ..Default::default()
    };

    tracker.store.end_session(&ann.caller, &origin()).await.unwrap();
    let end = timeout(Duration::from_secs(2), first.end()).await.expect("within two seconds");
    assert_eq!(refused(&end), (Code::Unauthenticated, Some(Reason::NotLoggedIn)));
    tracker.store.set_disabled(&bob.name, true, &origin()).await.unwrap();
    let end = timeout(Duration::from_secs(2), second.end()).await.expect("within two seconds");
    assert_eq!(refused(&end), (Code::Unauthenticated, Some(Reason::NotLoggedIn)));
    eventually("one source is found", async || {
        let found = cas.client.swarm().find_peers(request()).await;
        found.is_ok_and(|found| found.get_ref().sources.len() == 1)
    })
    .await;

    tracker.ask_to_stop();
    assert_eq!(refused(&third.end().await), (Code::Unavailable, Some(Reason::NotServing)));
    tracker.stop().await;
}

#[tokio::test]
async fn members_hear_of_published_files_and_nobody_else_does() {
    let tracker = Tracker::start().await;
    let (ann, bob, cas) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("cas").await);
    let group = tracker.group("films", &[&ann, &bob]).await;
    let old = tracker.file(&ann, &group, "old.mp4").await;
    let mut member = tracker.welcomed(&bob, tracker.peer(&bob).await, vec![]).await;
    let mut outsider = tracker.welcomed(&cas, tracker.peer(&cas).await, vec![]).await;
    let news = |file, name: &str| pb::PublishedFile {
        file: Some(convert::to_file_ref(&group, file)),
        name: name.into(),
    };
    let first = tracker.file(&ann, &group, "first.mp4").await;
    assert_eq!(member.published().await, [news(first, "first.mp4")], "{old:?} was published before");

    // A removed member's stream hears of nothing more, not even with the next group's news.
    let owner = tracker.owner(&ann, &group).await;
    tracker.store.remove_member(&owner, &bob.name, &origin()).await.unwrap();
    tracker.file(&ann, &group, "second.mp4").await;
    let other = tracker.group("shorts", &[&ann, &bob, &cas]).await;
    let third = tracker.file(&ann, &other, "third.mp4").await;
    let expected =
        pb::PublishedFile { file: Some(convert::to_file_ref(&other, third)), name: "third.mp4".into() };
    for stream in [&mut member, &mut outsider] {
        assert_eq!(stream.published().await, std::slice::from_ref(&expected));
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_newer_stream_replaces_an_older_one() {
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
async fn a_stream_that_returns_within_the_lease_hears_of_a_later_removal() {
    let tracker = Tracker::start().await;
    let (ann, bob, cas) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("cas").await);
    let group = tracker.group("films", &[&ann, &bob, &cas]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let peer = tracker.peer(&ann).await;
    let complete = || vec![has(&group, file, Holding::Complete(true))];
    let epoch = || async { tracker.member(&ann, &group).await.epoch() };
    let remove = |user: &User| {
        let (tracker, name) = (&tracker, user.name.clone());
        let (ann, group) = (&ann, &group);
        async move {
            let owner = tracker.owner(ann, group).await;
            tracker.store.remove_member(&owner, &name, &origin()).await.unwrap();
        }
    };
    let mut first = tracker.welcomed(&ann, peer, complete()).await;
    assert_eq!(first.epoch().await.min_epoch, epoch().await);

    // Each way to lose a stream and open the next one while the lease of the first still holds.
    let mut older = None;
    let mut stream = tracker.welcomed(&ann, peer, complete()).await;
    assert_eq!(refused(&first.end().await), (Code::Aborted, Some(Reason::Replaced)));
    assert_eq!(stream.epoch().await.min_epoch, epoch().await, "a stream that took another's place");
    remove(&bob).await;
    assert_eq!(stream.epoch().await.min_epoch, epoch().await, "removed while the second stream stands");
    drop(stream);
    remove(&cas).await;
    for announced in [complete(), vec![]] {
        let mut stream = tracker.welcomed(&ann, peer, announced).await;
        assert_eq!(stream.epoch().await.min_epoch, epoch().await, "removed while no stream stood");
        // The stream stays open until the next one replaces it.
        older = Some(stream);
    }
    drop(older);
    tracker.stop().await;
}

#[tokio::test]
async fn a_peer_with_a_new_user_does_not_inherit_announces() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    let group = tracker.group("films", &[&ann]).await;
    let file = tracker.file(&ann, &group, "movie.mp4").await;
    let peer = tracker.peer(&ann).await;
    let seeder = tracker.welcomed(&ann, tracker.peer(&ann).await, vec![]).await;
    seeder.say(vec![has(&group, file, Holding::Complete(true))]).await;
    let mut first = tracker.welcomed(&ann, peer, vec![has(&group, file, nothing())]).await;
    assert_eq!(first.change().await.sources.len(), 1);

    let expires = SystemTime::now() + Duration::from_secs(3_600);
    tracker.store.register_peer(&bob.caller, peer, expires, &origin()).await.unwrap();
    let mut stream = tracker.welcomed(&bob, peer, vec![has(&group, file, nothing())]).await;
    let change = stream.change().await;
    assert_eq!((change.sources.len(), change.ended, change.reason.as_str()), (0, true, "NOT_A_MEMBER"));
    tracker.stop().await;
}

#[tokio::test]
async fn invalid_announces_end_the_stream() {
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
        // The stream may end before all are sent.
        let _ = flood.sender.send(pb::AnnounceRequest::default()).await;
    }
    let end = flood.end().await;
    assert_eq!(refused(&end), (Code::ResourceExhausted, Some(Reason::RateLimited)));
    assert!(proto::reason::retry_after(&end).is_some());
    // The next stream is served.
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
    let missing = file_id(9);
    let none: GroupId = "none".parse().unwrap();
    let ask = |user: &User, peer: PeerId, files: Vec<pb::FileRef>| {
        let mut client = user.client.swarm();
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
    let keys = ann.client.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.unwrap().into_inner();
    let verifier = Verifier::new(keys.keys.iter().map(|key| convert::ticket_key(key).unwrap()));
    let claims = verifier.verify(&ticket.ticket, unix_now()).unwrap();
    assert_eq!((&claims.user, &claims.group, claims.file, claims.peer), (&ann.name, &group, file, a));
    assert_eq!(claims.root, [2; 32].into());
    assert_eq!(claims.epoch, tracker.member(&ann, &group).await.epoch());
    assert_eq!(claims.expires - claims.issued, TTL.as_secs());
    assert_eq!(ticket.expires_at.as_ref().unwrap().seconds.cast_unsigned(), claims.expires);
    assert_eq!(claims.covers(&b, file), Err(TicketError::OtherPeer));

    let status = |outcome: Result<pb::IssueTicketsResponse, Status>| outcome.unwrap_err();
    // File 9 is missing too.
    let many: Vec<_> = (1..=65).map(|n| refer(file_id(n))).collect();
    let bad_id = pb::FileRef { file_id: vec![1; 15].into(), ..refer(file) };
    for files in [vec![], many.clone(), vec![refer(file), refer(file)], vec![bad_id]] {
        assert_eq!(status(ask(&ann, a, files).await).code(), Code::InvalidArgument);
    }
    assert_eq!(status(ask(&ann, a, many[..64].to_vec()).await).code(), Code::NotFound);
    for peer in [b, PeerId::from([1; 32])] {
        let refusal = status(ask(&ann, peer, vec![refer(file)]).await);
        assert_eq!(refused(&refusal), (Code::PermissionDenied, Some(Reason::NotYourPeer)));
    }
    // An outsider gets the same response about things that exist and things that do not.
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
        let request =
            pb::FindPeersRequest { group_id: group.to_string(), name: name.into(), ..Default::default() };
        assert_eq!(user.client.swarm().find_peers(request).await.unwrap_err().code(), code, "{name}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn a_name_of_an_earlier_rule_spoils_no_batch_and_no_stream() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let (old, group) = (tracker.group("p\u{430}ypal", &[&ann]).await, tracker.group("g1", &[&ann]).await);
    let old_name = "a\u{3000}b";
    let files =
        [(&old, tracker.file(&ann, &old, old_name).await), (&group, tracker.file(&ann, &group, "f").await)];
    let peer = tracker.peer(&ann).await;
    let asked = files.map(|(group, file)| convert::to_file_ref(group, file)).to_vec();
    let request = pb::IssueTicketsRequest { peer_id: peer.to_string(), files: asked };
    let tickets = ann.client.swarm().issue_tickets(request).await.unwrap().into_inner().tickets;
    let keys = ann.client.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.unwrap().into_inner();
    let verifier = Verifier::new(keys.keys.iter().map(|key| convert::ticket_key(key).unwrap()));
    for (ticket, (group, _)) in tickets.iter().zip(files) {
        assert_eq!(&verifier.verify(&ticket.ticket, unix_now()).unwrap().group, group);
    }
    assert_eq!(tickets.len(), 2);
    let holds = files.map(|(group, file)| has(group, file, Holding::Complete(true))).to_vec();
    let _stream = tracker.welcomed(&ann, peer, holds).await;
    for (group, name) in [(&group, "f"), (&old, old_name)] {
        let is_found = async || {
            let request =
                pb::FindPeersRequest { group_id: group.to_string(), name: name.into(), ..Default::default() };
            !ann.client.swarm().find_peers(request).await.unwrap().into_inner().sources.is_empty()
        };
        let found = async {
            while !is_found().await {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, found).await.expect("it is announced");
    }
    tracker.stop().await;
}
