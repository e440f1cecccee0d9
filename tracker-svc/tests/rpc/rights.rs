//! Running calls end soon after their callers lose the right to them. Tests every RPC and every way to lose
//! the right.
//!
//! The clients here give the server no room for a response, so that each call runs for as long as the tracker
//! allows.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::join_all;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use prost::Message;
use proto::pb::*;
use rustls::pki_types::ServerName;
use testkit::{
    authority::csr,
    client::{Client, PASSWORD},
    content::{manifest, start_frame},
    tracker::Tracker,
    wait::eventually,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::Code;
use tracker_core::{Origin, Requirement, access};
use tracker_svc::store::Accounts as _;
use transport::client_config;

/// The promised maximum.
const BOUND: Duration = Duration::from_secs(15);

/// A connection without room for the bodies of responses.
pub(crate) struct Connection(SendRequest<Bytes>);

/// An admitted call.
pub(crate) struct Running {
    path: &'static str,
    answer: Answer,
    /// Keeps the request of a streaming call open.
    _requests: SendStream<Bytes>,
}

/// The received part of a call's response.
enum Answer {
    /// The headers arrived. There is no room for the body.
    Begun(h2::RecvStream),
    /// The call waits for more requests before it responds.
    Waited(ResponseFuture),
}

/// The status in some headers or trailers.
fn code(headers: &http::HeaderMap) -> Option<Code> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    Some(Code::from_i32(code))
}

impl Connection {
    pub(crate) async fn new(tracker: &Tracker) -> Self {
        let socket = TcpStream::connect(tracker.address).await.expect("a connection");
        let tls = TlsConnector::from(client_config(&tracker.ca(), None).expect("a good certificate"));
        let name = ServerName::try_from("localhost").expect("a name");
        let socket = tls.connect(name, socket).await.expect("TLS");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0);
        let (requests, connection) = builder.handshake(socket).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(requests)
    }

    /// Sends a call with one message. The request of a streaming call stays open.
    pub(crate) async fn call(
        &self,
        user: &Client,
        path: &'static str,
        message: &[u8],
        streams: bool,
    ) -> Running {
        let request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", user.token.as_deref().expect("a session")))
            .body(())
            .expect("a request");
        let mut requests = self.0.clone().ready().await.expect("room for a call");
        let (answer, mut body) = requests.send_request(request, false).expect("it goes out");
        let mut bytes = BytesMut::new();
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len()).expect("a short message"));
        bytes.put_slice(message);
        body.send_data(bytes.freeze(), !streams).expect("it goes out");
        if path.ends_with("/PublishFile") {
            return Running { path, answer: Answer::Waited(answer), _requests: body };
        }
        let answer = timeout(BOUND, answer).await.expect("headers in time").expect("headers");
        assert_eq!(code(answer.headers()), None, "{path} was refused");
        Running { path, answer: Answer::Begun(answer.into_body()), _requests: body }
    }
}

impl Running {
    /// Waits until the tracker ends the call. Returns the status, or `None` if the tracker resets the stream.
    async fn end(self) -> Option<Code> {
        let mut body = match self.answer {
            Answer::Begun(body) => body,
            Answer::Waited(answer) => {
                let response = answer.await.ok()?;
                if let Some(code) = code(response.headers()) {
                    return Some(code);
                }
                response.into_body()
            }
        };
        while let Some(data) = body.data().await {
            // No data arrives, because there is no room for it.
            data.ok()?;
        }
        code(&body.trailers().await.ok()??)
    }
}

/// A way to lose the right to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Logout,
    LogoutAll,
    PasswordChange,
    PasswordReset,
    Disabling,
    Removal,
    Leaving,
    GroupDeletion,
    GroupMadeAnew,
}

impl Loss {
    const ALL: [Self; 9] = [
        Self::Logout,
        Self::LogoutAll,
        Self::PasswordChange,
        Self::PasswordReset,
        Self::Disabling,
        Self::Removal,
        Self::Leaving,
        Self::GroupDeletion,
        Self::GroupMadeAnew,
    ];

    /// Whether only the place in the group is lost, not the session.
    fn is_of_the_group(self) -> bool {
        matches!(self, Self::Removal | Self::Leaving | Self::GroupDeletion | Self::GroupMadeAnew)
    }
}

/// A member of ann's group with two sessions. The calls use one session; the other may end it.
struct Member {
    name: String,
    group: String,
    session: Client,
    other: Client,
    peer_id: String,
}

impl Member {
    async fn new(tracker: &Tracker, ann: &Client, loss: Loss) -> Self {
        let name = format!("{loss:?}").to_lowercase();
        let group = format!("group of {name}");
        let session = tracker.user(&name).await;
        let other = tracker.login(&name).await;
        ann.found(&group, &[&session]).await;
        ann.publish(&group, &manifest("f", &vec![3; 3 << 20])).await.expect("listed");
        let request = IssuePeerCertRequest { csr_der: csr().into() };
        let issued = session.auth().issue_peer_cert(request).await.expect("a certificate").into_inner();
        Self { name, group, session, other, peer_id: issued.peer_id }
    }

    /// The request of a method. `None` for methods that end their own right, and for methods whose calls
    /// cannot be distinguished from a listed one.
    fn request(&self, path: &str) -> Option<Vec<u8>> {
        let group_id = || self.group.clone();
        let name = || "f".to_owned();
        let (service, method) = path.trim_start_matches('/').split_once('/').expect("a path");
        Some(match (service.trim_start_matches("minitorrent.v1."), method) {
            ("AuthService", "WhoAmI") => WhoAmIRequest {}.encode_to_vec(),
            ("AuthService", "IssuePeerCert") => {
                IssuePeerCertRequest { csr_der: csr().into() }.encode_to_vec()
            }
            ("GroupService", "CreateGroup") => {
                CreateGroupRequest { group_id: format!("{}'s own", self.name) }.encode_to_vec()
            }
            ("GroupService", "ListGroups") => ListGroupsRequest::default().encode_to_vec(),
            ("GroupService", "ListMembers") => {
                ListMembersRequest { group_id: group_id(), ..Default::default() }.encode_to_vec()
            }
            ("FileService", "PublishFile") => {
                start_frame(&self.group, manifest("another", &vec![4; 1 << 20]).header()).encode_to_vec()
            }
            ("FileService", "ListFiles") => {
                ListFilesRequest { group_id: group_id(), ..Default::default() }.encode_to_vec()
            }
            ("FileService", "GetManifest") => {
                GetManifestRequest { group_id: group_id(), name: name() }.encode_to_vec()
            }
            ("SwarmService", "FindPeers") => {
                FindPeersRequest { group_id: group_id(), name: name(), ..Default::default() }.encode_to_vec()
            }
            ("SwarmService", "Announce") => {
                let hello = AnnounceHello { peer_id: self.peer_id.clone(), port: 1, ..Default::default() };
                AnnounceRequest { hello: Some(hello), ..Default::default() }.encode_to_vec()
            }
            (
                "AuthService",
                "Logout" | "LogoutAll" | "ChangePassword" | "CreateToken" | "ListTokens" | "RevokeToken",
            )
            | (
                "GroupService",
                "JoinGroup" | "LeaveGroup" | "ListJoinRequests" | "AcceptJoinRequest" | "RejectJoinRequest"
                | "RemoveMember" | "TransferOwnership" | "SetRole" | "DeleteGroup" | "CreateInvite"
                | "ListInvites" | "RevokeInvite" | "JoinByInvite",
            )
            | ("FileService", "UnpublishFile")
            | ("SwarmService", "IssueTickets") => return None,
            _ => panic!("{path} is not in this sweep"),
        })
    }

    async fn lose(&self, tracker: &Tracker, ann: &Client, loss: Loss) {
        let user = self.name.parse().expect("a username");
        let origin = Origin { actor: None, ip: None, request: "x".into(), at: std::time::SystemTime::now() };
        let password = PASSWORD.to_owned();
        match loss {
            Loss::Logout => drop(self.session.auth().logout(LogoutRequest {}).await.expect("logged out")),
            Loss::LogoutAll => {
                self.other.auth().logout_all(LogoutAllRequest {}).await.expect("logged out");
            }
            Loss::PasswordChange => {
                let new_password = "another long password".to_owned();
                let request = ChangePasswordRequest { old_password: password, new_password };
                self.other.auth().change_password(request).await.expect("changed");
            }
            Loss::PasswordReset => tracker.store.reset_password(&user, "hash", &origin).await.expect("reset"),
            Loss::Disabling => tracker.store.set_disabled(&user, true, &origin).await.expect("disabled"),
            Loss::Removal => ann.remove(&self.group, &self.name).await.expect("removed"),
            Loss::Leaving => {
                self.other.leave(&self.group).await.expect("left");
            }
            Loss::GroupDeletion | Loss::GroupMadeAnew => {
                ann.delete_group(&self.group).await.expect("deleted");
            }
        }
        if loss == Loss::GroupMadeAnew {
            ann.found(&self.group, &[&self.session]).await;
        }
    }
}

/// All methods that require a session, and whether each streams.
fn methods() -> Vec<(&'static str, bool)> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let streams = |path: &str| {
        set.file.iter().any(|file| {
            file.service.iter().any(|service| {
                service.method.iter().any(|method| {
                    path == format!("/{}.{}/{}", file.package(), service.name(), method.name())
                        && (method.client_streaming() || method.server_streaming())
                })
            })
        })
    };
    let with_session = access::TABLE.iter().filter(|(_, requirement, _)| *requirement > Requirement::Anyone);
    with_session.map(|(path, ..)| (*path, streams(path))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_soon_after_its_caller_loses_the_right_to_it() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let open = async |loss: Loss| {
        let member = Member::new(&tracker, &ann, loss).await;
        let connection = Connection::new(&tracker).await;
        let mut running = Vec::new();
        for (path, streams) in methods() {
            let of_the_session =
                access::requirement(path) == Some(Requirement::Session) || path.ends_with("/Announce");
            if loss.is_of_the_group() && of_the_session {
                continue;
            }
            if let Some(request) = member.request(path) {
                let keeps_sending = streams && !path.ends_with("/GetManifest");
                running.push(connection.call(&member.session, path, &request, keeps_sending).await);
            }
        }
        (loss, member, connection, running)
    };
    let mut all = Vec::new();
    for loss in Loss::ALL {
        all.push(open(loss).await);
    }
    // One file and one unfinished publication per member.
    let manifests = 2 * Loss::ALL.len() as u64;
    eventually("publications have begun", async || {
        tracker.store.manifests_stored().await.unwrap() == manifests
    })
    .await;
    // A caller that keeps the right.
    let bystander = Connection::new(&tracker).await;
    let request = ListGroupsRequest::default().encode_to_vec();
    let bystander_call =
        bystander.call(&ann, "/minitorrent.v1.GroupService/ListGroups", &request, false).await;
    let mut kept = Box::pin(bystander_call.end());

    let endings = all.into_iter().map(|(loss, member, connection, running)| {
        let (tracker, ann) = (&tracker, &ann);
        async move {
            member.lose(tracker, ann, loss).await;
            let since = Instant::now();
            let ends = running.into_iter().map(|call| async move {
                let path = call.path;
                let end = timeout(BOUND, call.end()).await;
                let code = end.unwrap_or_else(|_| panic!("{path} still runs after {loss:?}"));
                let expected =
                    if loss.is_of_the_group() { Code::PermissionDenied } else { Code::Unauthenticated };
                assert!(code.is_none_or(|code| code == expected), "{path} after {loss:?}: {code:?}");
            });
            join_all(ends).await;
            drop(connection);
            since.elapsed()
        }
    });
    let took = join_all(endings).await.into_iter().max();
    println!("the last call ended {took:?} after its caller had lost the right to it");
    assert!(timeout(Duration::ZERO, &mut kept).await.is_err(), "a call goes on whose caller keeps the right");
}
