//! Tokens for machines: what is refused, and how one ends. `bad_inputs/access.rs` has what each may call.

use std::time::Duration;

use proto::{pb::*, reason::Reason};
use testkit::{
    authority::csr,
    client::{Client, refused},
    tracker::Tracker,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use tracker_svc::store::Log as _;

async fn make(user: &Client, request: CreateTokenRequest) -> Result<String, Status> {
    user.auth().create_token(request).await.map(|answer| answer.into_inner().token)
}

fn named(name: &str) -> CreateTokenRequest {
    CreateTokenRequest { name: name.into(), ..Default::default() }
}

fn lasting(seconds: u64) -> CreateTokenRequest {
    let lifetime = Some(Duration::from_secs(seconds).try_into().expect("a duration"));
    CreateTokenRequest { lifetime, ..named("x") }
}

async fn who_am_i(user: &Client) -> Result<String, Status> {
    user.auth().who_am_i(WhoAmIRequest {}).await.map(|answer| answer.into_inner().username)
}

async fn listed(user: &Client) -> Vec<Token> {
    user.auth().list_tokens(ListTokensRequest {}).await.expect("a list").into_inner().tokens
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.create_group("g1").await.expect("a group");
    for name in ["", "A", "-a", "a/b", "ä", &"a".repeat(33)] {
        refused(make(&ann, named(name)).await, Reason::InvalidName);
    }
    for seconds in [0, 59, 366 * 86_400 + 1] {
        refused(make(&ann, lasting(seconds)).await, Reason::InvalidRequest);
    }
    refused(make(&ann, CreateTokenRequest { allow: 9, ..named("x") }).await, Reason::InvalidRequest);
    let many = (0..65).map(|number| format!("g{number}")).collect();
    refused(make(&ann, CreateTokenRequest { group_ids: many, ..named("x") }).await, Reason::InvalidRequest);
    for (user, group) in [(&bob, "g1"), (&ann, "g2")] {
        let request = CreateTokenRequest { group_ids: vec![group.into()], ..named("x") };
        refused(make(user, request).await, Reason::NotAMember);
    }
    assert_eq!(listed(&ann).await, []);

    let token = make(&ann, named("ci")).await.expect("a token");
    refused(make(&ann, named("ci")).await, Reason::AlreadyExists);
    refused(bob.auth().revoke_token(RevokeTokenRequest { name: "ci".into() }).await, Reason::TokenNotFound);
    for wrong in
        [token.replace("mtt_", "mts_"), token[..46].to_owned() + "A", token.to_uppercase(), String::new()]
    {
        refused(who_am_i(&ann.with_token(Some(&wrong))).await, Reason::NotLoggedIn);
    }
    for number in 1..100 {
        make(&ann, named(&format!("t{number}"))).await.expect("a token");
    }
    refused(make(&ann, named("one-more")).await, Reason::QuotaExceeded);
    let tokens = listed(&ann).await;
    assert_eq!((tokens.len(), tokens[0].name.as_str()), (100, "ci"));
    assert!(!format!("{tokens:?}").contains(&token[4..]), "a secret is not shown again");
    tracker.stop().await;
}

#[tokio::test]
async fn a_revoked_token_ends_with_its_streams() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    ann.create_group("g1").await.expect("a group");
    let group_ids = vec!["g1".to_owned()];
    let request = CreateTokenRequest { group_ids, allow: TokenAllow::Share.into(), ..named("ci") };
    let machine = ann.with_token(Some(&make(&ann, request).await.expect("a token")));
    let whose = machine.auth().who_am_i(WhoAmIRequest {}).await.expect("it counts").into_inner();
    assert_eq!((whose.username.as_str(), whose.token_name.as_str()), ("ann", "ci"));

    let certify = IssuePeerCertRequest { csr_der: csr().into() };
    let peer_id = machine.auth().issue_peer_cert(certify).await.expect("a peer").into_inner().peer_id;
    // The audit log tells what the token did from what the account did itself.
    let log = tracker.store.audit(std::time::SystemTime::UNIX_EPOCH, 0, 100).await.expect("the audit log");
    let by: Vec<_> =
        log.iter().filter_map(|row| Some((row.action.as_str(), row.actor.as_deref()?))).collect();
    let expected = [
        ("create_user", "ann"),
        ("login", "ann"),
        ("create_group", "ann"),
        ("create_token", "ann"),
        ("issue_peer_cert", "ann/ci"),
    ];
    assert_eq!(by, expected);

    let open = async |client: &Client| {
        let hello = AnnounceHello { peer_id: peer_id.clone(), port: 1, ..Default::default() };
        let (sender, messages) = tokio::sync::mpsc::channel(1);
        sender.send(AnnounceRequest { hello: Some(hello), ..Default::default() }).await.expect("room");
        let stream =
            client.swarm().announce(ReceiverStream::new(messages)).await.map(Response::into_inner)?;
        Ok::<_, Status>((sender, stream))
    };
    let (_sender, mut stream) = open(&machine).await.expect("a stream");
    assert!(stream.message().await.expect("an answer").expect("an answer").welcome.is_some());
    // The peer is the token's alone, not its user's.
    let (_other, mut others) = open(&ann).await.expect("a stream");
    refused(others.message().await, Reason::NotYourPeer);

    ann.auth().revoke_token(RevokeTokenRequest { name: "ci".into() }).await.expect("revoked");
    let ended = loop {
        match tokio::time::timeout(Duration::from_secs(8), stream.message()).await.expect("in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), Reason::of(&ended)), (Code::Unauthenticated, Some(Reason::NotLoggedIn)));
    refused(who_am_i(&machine).await, Reason::NotLoggedIn);
    assert_eq!(who_am_i(&ann).await.as_deref().ok(), Some("ann"));
    tracker.stop().await;
}

#[tokio::test]
async fn a_token_for_one_group_learns_of_no_other() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for group in ["g1", "g2"] {
        ann.create_group(group).await.expect("a group");
    }
    let request = CreateTokenRequest { group_ids: vec!["g1".into()], ..named("ci") };
    let machine = ann.with_token(Some(&make(&ann, request).await.expect("a token")));
    let groups =
        machine.groups().list_groups(ListGroupsRequest::default()).await.expect("a list").into_inner();
    assert_eq!(groups.groups.iter().map(|group| group.group_id.as_str()).collect::<Vec<_>>(), ["g1"]);
    let list = |group: &str| ListFilesRequest { group_id: group.into(), ..Default::default() };
    machine.files().list_files(list("g1")).await.expect("a list");
    refused(machine.files().list_files(list("g2")).await, Reason::NotAMember);
    refused(machine.auth().logout_all(LogoutAllRequest {}).await, Reason::OutOfScope);
    tracker.stop().await;
}
