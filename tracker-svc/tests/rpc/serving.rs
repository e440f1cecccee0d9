//! The services besides the tracker's own, the stop of the server, and the operator's commands while it
//! serves.

use std::time::{Duration, Instant};

use proto::{domain::Username, pb::*, reason::Reason};
use testkit::{
    client::{PASSWORD, refused},
    tracker::Tracker,
    wait::eventually,
};
use tokio_stream::StreamExt as _;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracker_core::Origin;
use tracker_svc::store::{Accounts as _, sqlite::Sqlite};

#[tokio::test]
async fn health_and_reflection_need_no_token() {
    let tracker = Tracker::start().await;
    let mut health = HealthClient::new(tracker.channel());
    for service in ["", "minitorrent.v1.AuthService", "minitorrent.v1.SwarmService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service}");
    }
    use tonic_reflection::pb::{v1, v1alpha};
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(tracker.channel());
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.expect("answers");
    let answer = answers.into_inner().next().await.expect("one").expect("a good one").message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["Auth", "Group", "File", "Swarm"] {
        assert!(names.contains(&&*format!("minitorrent.v1.{name}Service")), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("Control") || name.contains("Peer")), "{names:?}");
    let symbol = "minitorrent.v1.AuthService.Login".to_owned();
    let find = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol);
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(find) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(tracker.channel());
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await.expect("answers");
    let answer = answers.into_inner().next().await.expect("one").expect("a good one").message_response;
    let found = v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(
        matches!(answer, Some(answer) if std::mem::discriminant(&answer) == std::mem::discriminant(&found(Default::default())))
    );
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    use tonic_reflection::pb::v1;
    let tracker = Tracker::start_with(&[("reflection", "false")]).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(tracker.channel());
    let answers =
        client.server_reflection_info(tokio_stream::iter([v1::ServerReflectionRequest::default()])).await;
    assert_eq!(answers.map(drop).expect_err("it is off").code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn acknowledged_changes_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let tracker = Tracker::start_in(dir.path(), &[]).await;
    let ann = tracker.user("ann").await;
    ann.found("g1", &[]).await;
    tracker.stop().await;
    let tracker = Tracker::start_in(dir.path(), &[]).await;
    let ann = tracker.with_token("ann", &ann.token.expect("a session"));
    let request = ListMembersRequest { group_id: "g1".into(), ..Default::default() };
    let members =
        ann.groups().list_members(request).await.expect("the session and the group").into_inner().members;
    assert_eq!(members.len(), 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_stay() {
    let tracker = Tracker::start().await;
    let mut health = HealthClient::new(tracker.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner();
    watch.next().await.expect("serving").expect("a status");
    let since = Instant::now();
    tracker.ask_to_stop();
    let told = watch.next().await.expect("one more").expect("a status");
    assert_eq!(told.status(), ServingStatus::NotServing);
    tracker.stop().await;
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_a_reset_password_logs_in() {
    let tracker = Tracker::start().await;
    let (ann, bob): (_, Username) = (tracker.user("ann").await, "bob".parse().expect("a username"));
    let operator = Sqlite::open_beside(tracker.data_dir()).await.expect("a store");
    let origin =
        || Origin { actor: None, ip: None, request: "operator".into(), at: std::time::SystemTime::now() };
    let user: Username = "ann".parse().expect("a username");
    operator.set_disabled(&user, true, &origin()).await.expect("disabled");
    refused(ann.auth().who_am_i(WhoAmIRequest {}).await, Reason::NotLoggedIn);
    let request = LoginRequest { username: "ann".into(), password: PASSWORD.into() };
    refused(tracker.anonymous().auth().login(request.clone()).await, Reason::BadCredentials);
    operator.set_disabled(&user, false, &origin()).await.expect("enabled");
    tracker.login("ann").await;
    assert!(operator.set_disabled(&bob, true, &origin()).await.is_err());
    eventually("the account can log in", async || {
        tracker.anonymous().auth().login(request.clone()).await.is_ok()
    })
    .await;
}
