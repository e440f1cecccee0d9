//! A user that calls a tracker.

use std::net::{IpAddr, SocketAddr};

use proto::{
    domain::Manifest,
    pb::{
        self, auth_service_client::AuthServiceClient, file_service_client::FileServiceClient,
        group_service_client::GroupServiceClient, swarm_service_client::SwarmServiceClient,
    },
    reason::Reason,
};
use tonic::{
    Code, Request, Response, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::content::frames;

/// The password of all users.
pub const PASSWORD: &str = "nine lemons roll uphill";

/// How to reach a tracker: without TLS if `ca` is empty, or else with that authority (PEM). With `from`, the
/// connections come from that address. All of 127.0.0.0/8 belongs to this machine.
pub fn endpoint(tracker: SocketAddr, ca: &str, from: Option<IpAddr>) -> Endpoint {
    let endpoint = if ca.is_empty() {
        Endpoint::from_shared(format!("http://{tracker}")).unwrap()
    } else {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("localhost");
        Endpoint::from_shared(format!("https://{tracker}")).unwrap().tls_config(tls).unwrap()
    };
    endpoint.local_address(from)
}

/// Adds the token to each request.
#[derive(Clone)]
pub struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// A channel that sends the token.
pub type Authorised = InterceptedService<Channel, Bearer>;

/// A user that calls a tracker, or somebody without a session.
#[derive(Clone)]
pub struct Client {
    /// The username. Empty without a session.
    pub name: String,
    /// The session's token.
    pub token: Option<String>,
    /// The connection.
    pub channel: Channel,
}

/// The calls return what the tracker answered.
#[allow(clippy::missing_errors_doc, reason = "an error is the tracker's status")]
impl Client {
    /// A client without a session.
    pub fn anonymous(channel: Channel) -> Self {
        Self { name: String::new(), token: None, channel }
    }

    /// A client on the same connection with another token, or none.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// The channel with the token, for any other client.
    pub fn service(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), Bearer(self.token.clone()))
    }

    /// The client of AuthService.
    pub fn auth(&self) -> AuthServiceClient<Authorised> {
        AuthServiceClient::new(self.service())
    }

    /// The client of GroupService.
    pub fn groups(&self) -> GroupServiceClient<Authorised> {
        GroupServiceClient::new(self.service())
    }

    /// The client of FileService.
    pub fn files(&self) -> FileServiceClient<Authorised> {
        FileServiceClient::new(self.service())
    }

    /// The client of SwarmService.
    pub fn swarm(&self) -> SwarmServiceClient<Authorised> {
        SwarmServiceClient::new(self.service())
    }

    /// Creates an account.
    pub async fn create_user(&self, name: &str, password: &str) -> Result<(), Status> {
        let request =
            pb::CreateUserRequest { username: name.into(), password: password.into(), invite: None };
        self.auth().create_user(request).await.map(drop)
    }

    /// Opens a session.
    pub async fn login(&self, name: &str, password: &str) -> Result<pb::LoginResponse, Status> {
        let request = pb::LoginRequest { username: name.into(), password: password.into() };
        self.auth().login(request).await.map(Response::into_inner)
    }

    /// Opens a session of a user with [`PASSWORD`]. Returns a client with it, on the same connection.
    pub async fn logged_in(&self, name: &str) -> Self {
        let session = self.login(name, PASSWORD).await.expect("a session");
        Self { name: name.into(), token: Some(session.session_token), channel: self.channel.clone() }
    }

    /// Creates a group.
    pub async fn create_group(&self, group: &str) -> Result<(), Status> {
        self.groups().create_group(pb::CreateGroupRequest { group_id: group.into() }).await.map(drop)
    }

    /// Asks to join a group.
    pub async fn join_group(&self, group: &str) -> Result<(), Status> {
        self.groups().join_group(pb::JoinGroupRequest { group_id: group.into() }).await.map(drop)
    }

    /// Accepts a request.
    pub async fn accept(&self, group: &str, user: &str) -> Result<(), Status> {
        let request = pb::AcceptJoinRequestRequest { group_id: group.into(), username: user.into() };
        self.groups().accept_join_request(request).await.map(drop)
    }

    /// Rejects a request.
    pub async fn reject(&self, group: &str, user: &str) -> Result<(), Status> {
        let request = pb::RejectJoinRequestRequest { group_id: group.into(), username: user.into() };
        self.groups().reject_join_request(request).await.map(drop)
    }

    /// Leaves a group, or withdraws a request.
    pub async fn leave(&self, group: &str) -> Result<(), Status> {
        self.groups().leave_group(pb::LeaveGroupRequest { group_id: group.into() }).await.map(drop)
    }

    /// Removes a member.
    pub async fn remove(&self, group: &str, user: &str) -> Result<(), Status> {
        let request = pb::RemoveMemberRequest { group_id: group.into(), username: user.into() };
        self.groups().remove_member(request).await.map(drop)
    }

    /// Hands a group to a member.
    pub async fn transfer(&self, group: &str, user: &str) -> Result<(), Status> {
        let request = pb::TransferOwnershipRequest { group_id: group.into(), username: user.into() };
        self.groups().transfer_ownership(request).await.map(drop)
    }

    /// Deletes a group.
    pub async fn delete_group(&self, group: &str) -> Result<(), Status> {
        self.groups().delete_group(pb::DeleteGroupRequest { group_id: group.into() }).await.map(drop)
    }

    /// Creates a group that this user owns, with these members.
    pub async fn found(&self, group: &str, members: &[&Self]) {
        self.create_group(group).await.expect("a group");
        for member in members {
            self.admit(group, member).await;
        }
    }

    /// Lets a user ask to join a group of this user, and accepts the request.
    pub async fn admit(&self, group: &str, user: &Self) {
        user.join_group(group).await.expect("a request");
        self.accept(group, &user.name).await.expect("a member");
    }

    /// The members of a group, first page.
    pub async fn members(&self, group: &str) -> Result<Vec<pb::Member>, Status> {
        let request = pb::ListMembersRequest { group_id: group.into(), ..Default::default() };
        Ok(self.groups().list_members(request).await?.into_inner().members)
    }

    /// The users that ask to join a group, first page.
    pub async fn requests(&self, group: &str) -> Result<Vec<String>, Status> {
        let request = pb::ListJoinRequestsRequest { group_id: group.into(), ..Default::default() };
        let requests = self.groups().list_join_requests(request).await?.into_inner().requests;
        Ok(requests.into_iter().map(|request| request.username).collect())
    }

    /// Sends the frames of a publication.
    pub async fn send_frames(
        &self,
        frames: Vec<pb::PublishFileRequest>,
    ) -> Result<pb::PublishFileResponse, Status> {
        self.files().publish_file(tokio_stream::iter(frames)).await.map(Response::into_inner)
    }

    /// Publishes a manifest in place of what has its name.
    pub async fn replace(&self, group: &str, manifest: &Manifest) -> Result<pb::PublishFileResponse, Status> {
        let mut frames = frames(group, manifest);
        if let Some(pb::publish_file_request::Frame::Start(start)) =
            frames.first_mut().and_then(|first| first.frame.as_mut())
        {
            start.replace = true;
        }
        self.send_frames(frames).await
    }

    /// Publishes a manifest.
    pub async fn publish(&self, group: &str, manifest: &Manifest) -> Result<pb::PublishFileResponse, Status> {
        self.send_frames(frames(group, manifest)).await
    }
}

/// Asserts that a call failed with this reason and its code.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, reason: Reason) -> Status {
    let status = result.expect_err("it should be refused");
    assert_eq!(Reason::of(&status), Some(reason), "{status:?}");
    assert_eq!(status.code(), reason.code());
    status
}

/// Asserts that a call failed with this code.
#[track_caller]
pub fn failed<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> Status {
    let status = result.expect_err("it should fail");
    assert_eq!(status.code(), code, "{status:?}");
    status
}
