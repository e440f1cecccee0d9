//! AuthService, one test a behaviour: what each RPC does and every status that it answers with.

use std::time::{Duration, SystemTime};

use crate::support::{PASSWORD, Tracker, failed, refused};
use proto::{
    pb::{swarm_service_client::SwarmServiceClient, *},
    reason::{Reason, retry_after},
};
use tonic::{Code, Status};

async fn create(tracker: &Tracker, username: &str, password: &str) -> Result<CreateUserResponse, Status> {
    let request = CreateUserRequest { username: username.into(), password: password.into() };
    Ok(tracker.anonymous().auth().create_user(request).await?.into_inner())
}

async fn login(tracker: &Tracker, username: &str, password: &str) -> Result<LoginResponse, Status> {
    let request = LoginRequest { username: username.into(), password: password.into() };
    Ok(tracker.anonymous().auth().login(request).await?.into_inner())
}

#[tokio::test]
async fn accounts_are_made_once_and_only_with_good_names_and_passwords() {
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
async fn of_many_at_once_one_gets_the_name() {
    let tracker = Tracker::start().await;
    let tries: Vec<_> = (0..12).map(|_| create(&tracker, "ann", PASSWORD)).collect();
    let outcomes = futures_util::future::join_all(tries).await;
    let (made, rest): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for outcome in rest {
        refused(outcome, Reason::AlreadyExists);
    }
}

#[tokio::test]
async fn unknown_users_and_wrong_passwords_are_told_the_same() {
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
async fn guessing_is_slowed_down_and_says_until_when() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for _ in 0..5 {
        refused(login(&tracker, "ann", "a wrong guess").await, Reason::BadCredentials);
    }
    let status = refused(login(&tracker, "ann", PASSWORD).await, Reason::RateLimited);
    let wait = retry_after(&status).expect("how long to wait");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    // Sessions that are open are not disturbed, nor are other accounts.
    ann.auth().who_am_i(WhoAmIRequest {}).await.expect("still logged in");
    tracker.user("bob").await;
    // As long as it was told to.
    tokio::time::sleep(wait).await;
    login(&tracker, "ann", PASSWORD).await.expect("the right password counts again");
}

#[tokio::test]
async fn a_session_tells_who_it_is_of_until_it_is_ended() {
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
async fn nothing_but_a_living_token_is_a_session() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let other = Tracker::start().await;
    let foreign = other.user("ann").await.token;
    let mut changed = ann.token.clone().into_bytes();
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
async fn the_twenty_first_session_ends_the_one_used_least_lately() {
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

/// A certificate request for a new P-256 key.
fn csr() -> Vec<u8> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["somebody.else".into()]).expect("parameters");
    params.serialize_request(&key).expect("a request").der().to_vec()
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
async fn ticket_keys_are_told_to_anybody() {
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
    flooder.group("g1").await;
    let find = || async {
        let mut client = SwarmServiceClient::new(flooder.service());
        client.find_peers(FindPeersRequest { group_id: "g1".into(), name: "f".into() }).await
    };
    // Ten at once and five a second: of a hundred in a row, most are too many.
    let mut refusals = Vec::new();
    for _ in 0..100 {
        let status = find().await.expect_err("there is no such file");
        match Reason::of(&status) {
            Some(Reason::FileNotFound) => {}
            Some(Reason::RateLimited) => refusals.push(status),
            other => panic!("{other:?}: {status:?}"),
        }
    }
    assert!(!refusals.is_empty());
    let soon = |status: &Status| retry_after(status).is_some_and(|wait| wait <= Duration::from_secs(1));
    assert!(refusals.iter().all(soon));
    other.auth().who_am_i(WhoAmIRequest {}).await.expect("served");
    flooder.auth().who_am_i(WhoAmIRequest {}).await.expect("served what is no flood");
}

#[tokio::test]
async fn requests_that_are_too_large_or_unreadable_are_the_callers_fault() {
    let tracker = Tracker::start().await;
    let status = failed(create(&tracker, "ann", &"x".repeat(70_000)).await, Code::OutOfRange);
    assert_eq!(Reason::of(&status), Some(Reason::OutOfRange));
    // A group's name as field 1 of type varint: not what the message says.
    let channel = tracker.user("bob").await;
    let mut client = tonic::client::Grpc::new(channel.service());
    client.ready().await.expect("connected");
    let path = http::uri::PathAndQuery::from_static("/minitorrent.v1.GroupService/CreateGroup");
    let codec = tonic_prost::ProstCodec::<HealthLike, CreateGroupResponse>::default();
    let answer = client.unary(tonic::Request::new(HealthLike { number: 7 }), path, codec).await;
    refused(answer.map(|answer| answer.into_inner()), Reason::InvalidRequest);
}

/// A message whose first field is of another type than that of any request here.
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
