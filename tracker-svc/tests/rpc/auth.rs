//! AuthService, one test per behaviour: the effect of each RPC and every status that it returns.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use proto::{
    pb::{swarm_service_client::SwarmServiceClient, *},
    reason::{Reason, retry_after},
};
use testkit::{
    authority::csr,
    client::{PASSWORD, failed, refused},
    content::{frames, manifest},
    tracker::Tracker,
};
use tonic::{Code, Request, Status};
use tracker_core::{Origin, SessionHash, session};
use tracker_svc::store::{Accounts as _, Sessions as _};

async fn create(tracker: &Tracker, username: &str, password: &str) -> Result<CreateUserResponse, Status> {
    let request = CreateUserRequest { username: username.into(), password: password.into(), invite: None };
    Ok(tracker.anonymous().auth().create_user(request).await?.into_inner())
}

async fn login(tracker: &Tracker, username: &str, password: &str) -> Result<LoginResponse, Status> {
    let request = LoginRequest { username: username.into(), password: password.into() };
    Ok(tracker.anonymous().auth().login(request).await?.into_inner())
}

/// A request with this id.
fn named<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", id.parse().expect("a header value"));
    request
}

#[tokio::test]
async fn calls_repeated_after_a_lost_answer_succeed_once_more() {
    const NEW: &str = "ten apples sleep downhill";
    let tracker = Tracker::start().await;
    let create = async |id: &str| {
        let request = CreateUserRequest { username: "ann".into(), password: PASSWORD.into(), invite: None };
        tracker.anonymous().auth().create_user(named(id, request)).await.map(drop)
    };
    create("one").await.expect("made");
    create("one").await.expect("the same call");
    refused(create("two").await, Reason::AlreadyExists);
    let ann = tracker.login("ann").await;
    let change = async |id: &str| {
        let request = ChangePasswordRequest { old_password: PASSWORD.into(), new_password: NEW.into() };
        ann.auth().change_password(named(id, request)).await.map(drop)
    };
    change("three").await.expect("changed");
    change("three").await.expect("the same call");
    refused(change("four").await, Reason::WrongPassword);
    ann.create_group("g1").await.expect("made");
    let manifest = manifest("a.bin", b"abc");
    for (id, already) in [("five", false), ("five", false), ("six", true)] {
        let request = named(id, tokio_stream::iter(frames("g1", &manifest)));
        let answer = ann.files().publish_file(request).await.expect("published").into_inner();
        assert_eq!(answer.already_published, already, "{id}");
    }
}

#[tokio::test]
async fn accounts_are_created_once_and_only_with_valid_names_and_passwords() {
    let tracker = Tracker::start().await;
    create(&tracker, "ann", PASSWORD).await.expect("an account");
    refused(create(&tracker, "ann", "another password").await, Reason::AlreadyExists);
    let long = "a".repeat(33);
    for name in ["", "ab", &long, "Ann", "a b c", "an\u{1f600}", "аnn", "ann\0", "../x"] {
        refused(create(&tracker, name, PASSWORD).await, Reason::InvalidName);
    }
    let (longest, longer) = ("x".repeat(1_024), "x".repeat(1_025));
    for password in ["", "seven77", "password1", &longer] {
        refused(create(&tracker, "bob", password).await, Reason::WeakPassword);
    }
    create(&tracker, "bob", &longest).await.expect("the longest password");
    login(&tracker, "bob", &longest).await.expect("and it logs in");
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_get_the_same_answer() {
    let tracker = Tracker::start().await;
    create(&tracker, "ann", "caf\u{e9} au lait").await.expect("an account");
    let wrong = refused(login(&tracker, "ann", "not hers").await, Reason::BadCredentials);
    let unknown = refused(login(&tracker, "nobody", "not hers").await, Reason::BadCredentials);
    assert_eq!((wrong.message(), wrong.details()), (unknown.message(), unknown.details()));
    refused(login(&tracker, "No Name", "x").await, Reason::InvalidName);
    // Both forms of the letter are the same password.
    let session = login(&tracker, "ann", "cafe\u{301} au lait").await.expect("a session");
    assert!(session.session_token.starts_with("mts_") && session.session_token.len() <= 128);
    let expires = SystemTime::try_from(session.expires_at.expect("a time")).expect("a good time");
    let lasts = expires.duration_since(SystemTime::now()).expect("in the future");
    assert!(lasts > Duration::from_hours(29 * 24) && lasts <= Duration::from_hours(30 * 24));
}

#[tokio::test]
async fn password_guessing_is_limited_and_the_answer_says_until_when() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for _ in 0..5 {
        refused(login(&tracker, "ann", "a wrong guess").await, Reason::BadCredentials);
    }
    let status = refused(login(&tracker, "ann", PASSWORD).await, Reason::RateLimited);
    let wait = retry_after(&status).expect("how long to wait");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    // Open sessions and other accounts are not affected.
    ann.auth().who_am_i(WhoAmIRequest {}).await.expect("still logged in");
    tracker.user("bob").await;
    // Waits as long as the response said.
    tokio::time::sleep(wait).await;
    login(&tracker, "ann", PASSWORD).await.expect("the right password counts again");
}

#[tokio::test]
async fn a_session_names_its_user_until_it_ends() {
    let tracker = Tracker::start().await;
    let (first, second) = (tracker.user("ann").await, tracker.login("ann").await);
    let who = first.auth().who_am_i(WhoAmIRequest {}).await.expect("a session").into_inner();
    assert_eq!((who.username.as_str(), who.observed_ip.as_str()), ("ann", "127.0.0.1"));
    assert!(who.expires_at.is_some());
    first.auth().logout(LogoutRequest {}).await.expect("logged out");
    refused(first.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    refused(first.auth().logout(LogoutRequest {}).await, Reason::NotLoggedIn);
    let third = tracker.login("ann").await;
    let ended = second.auth().logout_all(LogoutAllRequest {}).await.expect("all out").into_inner();
    assert_eq!(ended.sessions_ended, 2);
    for user in [&second, &third] {
        refused(user.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    }
}

#[tokio::test]
async fn only_a_valid_token_is_a_session() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let other = Tracker::start().await;
    let foreign = other.user("ann").await.token.expect("a session");
    let mut changed = ann.token.clone().expect("a session").into_bytes();
    changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("ASCII");
    for token in ["", "' OR 1=1--", "mts_", &foreign, &changed, &"x".repeat(8_000)] {
        let user = tracker.with_token("ann", token);
        refused(user.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    }
    refused(tracker.anonymous().auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    ann.auth().who_am_i(WhoAmIRequest {}).await.expect("the real one");
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_a_wrong_old_one_nothing() {
    let tracker = Tracker::start().await;
    let (ann, other) = (tracker.user("ann").await, tracker.login("ann").await);
    let change = async |old: &str, new: &str| {
        let request = ChangePasswordRequest { old_password: old.into(), new_password: new.into() };
        ann.auth().change_password(request).await
    };
    refused(change("not it, sorry", "a brand new one").await, Reason::WrongPassword);
    refused(change(PASSWORD, "12345678").await, Reason::WeakPassword);
    other.auth().who_am_i(WhoAmIRequest {}).await.expect("nothing ended");
    change(PASSWORD, "a brand new one").await.expect("changed");
    ann.auth().who_am_i(WhoAmIRequest {}).await.expect("her own session goes on");
    refused(other.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    refused(login(&tracker, "ann", PASSWORD).await, Reason::BadCredentials);
    login(&tracker, "ann", "a brand new one").await.expect("the new one logs in");
}

#[tokio::test]
async fn the_twenty_first_session_ends_the_least_recently_used_one() {
    let tracker = Tracker::start().await;
    let first = tracker.user("ann").await;
    let mut latest = first.clone();
    for _ in 0..20 {
        latest = tracker.login("ann").await;
    }
    refused(first.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    latest.auth().who_am_i(WhoAmIRequest {}).await.expect("the newest lives");
    let ended = latest.auth().logout_all(LogoutAllRequest {}).await.expect("all out").into_inner();
    assert_eq!(ended.sessions_ended, 20);
}

#[tokio::test]
async fn an_expired_session_stays_expired() {
    let tracker = Tracker::start().await;
    tracker.user("ann").await;
    let token = session::token(&[7; 32]);
    let hash = SessionHash::of_token(&token).expect("a token");
    let credentials = tracker.store.credentials(&"ann".parse().unwrap()).await.unwrap().unwrap();
    let at = SystemTime::now() - session::IDLE - Duration::from_secs(1);
    let origin = Origin { actor: None, ip: None, request: "x".into(), at };
    tracker.store.open_session(&credentials, None, hash, &origin).await.unwrap();
    let old = tracker.with_token("ann", &token);
    refused(old.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    assert_eq!(tracker.store.session(hash).await.unwrap(), None, "no clock brings it back");
}

#[tokio::test]
async fn peers_are_certified_up_to_sixteen_a_user() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let issue = async |csr_der: Vec<u8>| {
        ann.auth().issue_peer_cert(IssuePeerCertRequest { csr_der: csr_der.into() }).await
    };
    let first = csr();
    let issued = issue(first.clone()).await.expect("a certificate").into_inner();
    assert_eq!(issued.tls_name, format!("{}.peer.minitorrent.internal", issued.peer_id));
    assert!(issued.certificate_pem.contains("BEGIN CERTIFICATE") && issued.expires_at.is_some());
    assert!(issued.authority_pem.contains("BEGIN CERTIFICATE"));
    for bad in [vec![], vec![1, 2, 3], vec![0x30; 5_000]] {
        refused(issue(bad).await, Reason::InvalidRequest);
    }
    for _ in 1..16 {
        issue(csr()).await.expect("one more peer");
    }
    refused(issue(csr()).await, Reason::QuotaExceeded);
    let again = issue(first).await.expect("a renewal is not one more").into_inner();
    assert_eq!(again.peer_id, issued.peer_id);
    let anonymous = tracker.anonymous();
    refused(anonymous.auth().issue_peer_cert(IssuePeerCertRequest::default()).await, Reason::NotLoggedIn);
}

#[tokio::test]
async fn anybody_gets_the_ticket_keys() {
    let tracker = Tracker::start().await;
    let keys = tracker.anonymous().auth().get_tracker_keys(GetTrackerKeysRequest {}).await.expect("keys");
    let keys = keys.into_inner().keys;
    assert!(!keys.is_empty());
    assert!(keys.iter().all(|key| !key.key_id.is_empty() && key.public_key.len() == 32));
}

#[tokio::test]
async fn one_users_flood_is_refused_and_the_others_are_served() {
    let tracker = Tracker::start().await;
    let (flooder, other) = (tracker.user("flo").await, tracker.user("ann").await);
    flooder.found("g1", &[]).await;
    let find = || async {
        let mut client = SwarmServiceClient::new(flooder.service());
        client
            .find_peers(FindPeersRequest { group_id: "g1".into(), name: "f".into(), ..Default::default() })
            .await
    };
    // The limit is 200 at once and 20 a second, so a flood reaches it.
    let mut refusals = Vec::new();
    for _ in 0..50 {
        let statuses = join_all((0..20).map(|_| find())).await;
        for status in statuses.into_iter().map(|outcome| outcome.expect_err("there is no such file")) {
            match Reason::of(&status) {
                Some(Reason::FileNotFound) => {}
                Some(Reason::RateLimited) => refusals.push(status),
                other => panic!("{other:?}: {status:?}"),
            }
        }
        if !refusals.is_empty() {
            break;
        }
    }
    assert!(!refusals.is_empty());
    let soon = |status: &Status| retry_after(status).is_some_and(|wait| wait <= Duration::from_secs(1));
    assert!(refusals.iter().all(soon));
    other.auth().who_am_i(WhoAmIRequest {}).await.expect("served");
    flooder.auth().who_am_i(WhoAmIRequest {}).await.expect("served what is no flood");
}

#[tokio::test]
async fn too_large_or_unreadable_requests_get_a_client_error() {
    let tracker = Tracker::start().await;
    let status = failed(create(&tracker, "ann", &"x".repeat(70_000)).await, Code::OutOfRange);
    assert_eq!(Reason::of(&status), Some(Reason::OutOfRange));
    // A group's name as field 1 with type varint, which the message does not allow.
    let channel = tracker.user("bob").await;
    let mut client = tonic::client::Grpc::new(channel.service());
    client.ready().await.expect("connected");
    let path = http::uri::PathAndQuery::from_static("/minitorrent.v1.GroupService/CreateGroup");
    let codec = tonic_prost::ProstCodec::<HealthLike, CreateGroupResponse>::default();
    let answer = client.unary(tonic::Request::new(HealthLike { number: 7 }), path, codec).await;
    refused(answer.map(|answer| answer.into_inner()), Reason::InvalidRequest);
}

/// A message whose first field has another type than in any request here.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthLike {
    #[prost(uint64, tag = "1")]
    number: u64,
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for path in ["/minitorrent.v1.AuthService/DropTables", "/minitorrent.v1.PeerService/GetChunk", "/x"] {
        let mut client = tonic::client::Grpc::new(ann.service());
        client.ready().await.expect("connected");
        let path = http::uri::PathAndQuery::try_from(path).expect("a path");
        let codec = tonic_prost::ProstCodec::<LogoutRequest, LogoutResponse>::default();
        let answer = client.unary(tonic::Request::new(LogoutRequest {}), path, codec).await;
        failed(answer.map(|answer| answer.into_inner()), Code::Unimplemented);
    }
    ann.auth().who_am_i(WhoAmIRequest {}).await.expect("still logged in");
}
