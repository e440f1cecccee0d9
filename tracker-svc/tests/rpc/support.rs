//! A tracker in this process, on a free port, over TLS, and clients for it.
//!
//! ```ignore
//! let tracker = Tracker::start().await;
//! let ann = tracker.user("ann").await;
//! ann.group("g1").await;
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    domain::{
        FileHeader, Manifest,
        manifest::{FileHasher, hash_piece},
    },
    pb::{
        auth_service_client::AuthServiceClient, file_service_client::FileServiceClient,
        group_service_client::GroupServiceClient, *,
    },
    reason::Reason,
    settings::{Layers, Settings, Typed},
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect_lazy},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tracker_svc::{
    config::{Config, SETTINGS},
    store::sqlite::Sqlite,
};

/// The password of every user that the harness makes.
pub(crate) const PASSWORD: &str = "a password of the tests";

/// A running tracker; stopped when dropped.
pub(crate) struct Tracker {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Sqlite>,
    data_dir: PathBuf,
    /// Removed with the tracker; none when the directory is the test's own.
    _dir: Option<tempfile::TempDir>,
    shutdown: CancellationToken,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Tracker {
    /// Starts one on an empty data directory.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with settings by name, as flags would set them.
    pub(crate) async fn start_with(flags: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut tracker = Self::start_in(dir.path(), flags).await;
        tracker._dir = Some(dir);
        tracker
    }

    /// Starts one on a data directory of the test's.
    pub(crate) async fn start_in(data_dir: &Path, flags: &[(&'static str, &str)]) -> Self {
        let config = config(data_dir, flags);
        let store = Arc::new(Sqlite::open(data_dir).await.expect("a store"));
        let tracker = tracker_svc::Tracker::prepare(store.clone(), &config).await.expect("a tracker");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(tracker.serve(listener, shutdown.clone()));
        let data_dir = data_dir.to_owned();
        Self { address, store, data_dir, _dir: None, shutdown, serving: Some(serving) }
    }

    /// Where its data is.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops it and waits for the end.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let serving = self.serving.take().expect("it is stopped once");
        serving.await.expect("no panic").expect("a good end");
        self.store.close().await;
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// A new connection.
    pub(crate) fn channel(&self) -> Channel {
        let pem = std::fs::read_to_string(self.data_dir.join("ca.pem")).expect("the CA's certificate");
        let config = client_config(&pem, None).expect("a good certificate");
        let remote = Remote::Tcp { host: "127.0.0.1".into(), port: self.address.port() };
        let security = ClientSecurity::Tls { config, server_name: "localhost".into() };
        connect_lazy(remote, security, &ChannelTuning::control())
    }

    /// Clients without a token.
    pub(crate) fn anonymous(&self) -> User {
        User::new("", self.channel(), None)
    }

    /// Clients with that token.
    pub(crate) fn with_token(&self, name: &str, token: &str) -> User {
        User::new(name, self.channel(), Some(token))
    }

    /// Makes an account and logs it in.
    pub(crate) async fn user(&self, name: &str) -> User {
        let request = CreateUserRequest { username: name.into(), password: PASSWORD.into() };
        self.anonymous().auth().create_user(request).await.expect("an account");
        self.login(name).await
    }

    /// Logs an account in once more.
    pub(crate) async fn login(&self, name: &str) -> User {
        let request = LoginRequest { username: name.into(), password: PASSWORD.into() };
        let session = self.anonymous().auth().login(request).await.expect("a session").into_inner();
        self.with_token(name, &session.session_token)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The settings of a tracker on that data directory.
pub(crate) fn config(data_dir: &Path, flags: &[(&'static str, &str)]) -> Config {
    let mut typed = Typed::new();
    typed.insert("listen", "127.0.0.1:0".into());
    typed.extend(flags.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let layers = Layers {
        flags: typed,
        env: &|_| None,
        file: data_dir.join("config.toml"),
        file_asked: false,
        directory: data_dir.to_owned(),
    };
    let settings = Settings::resolve(SETTINGS, &layers).expect("good settings");
    Config::new(data_dir.to_owned(), &settings).expect("good settings")
}

/// Puts the token into each request.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A channel that sends the token.
pub(crate) type Authorised = InterceptedService<Channel, Bearer>;

/// Somebody who calls the tracker.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) token: String,
    channel: Channel,
    bearer: Bearer,
}

impl User {
    fn new(name: &str, channel: Channel, token: Option<&str>) -> Self {
        let bearer = Bearer(token.map(|token| format!("Bearer {token}").parse().expect("a header value")));
        Self { name: name.into(), token: token.unwrap_or_default().into(), channel, bearer }
    }

    /// The channel with the token, for any other client.
    pub(crate) fn service(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Authorised> {
        AuthServiceClient::new(self.service())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Authorised> {
        GroupServiceClient::new(self.service())
    }

    pub(crate) fn files(&self) -> FileServiceClient<Authorised> {
        FileServiceClient::new(self.service())
    }

    /// Makes a group.
    pub(crate) async fn group(&self, group: &str) {
        self.groups().create_group(CreateGroupRequest { group_id: group.into() }).await.expect("a group");
    }

    /// Asks to be let in.
    pub(crate) async fn ask(&self, group: &str) {
        self.groups().join_group(JoinGroupRequest { group_id: group.into() }).await.expect("a request");
    }

    /// Lets somebody in who asked.
    pub(crate) async fn accept(&self, group: &str, user: &Self) {
        let request = AcceptJoinRequestRequest { group_id: group.into(), username: user.name.clone() };
        self.groups().accept_join_request(request).await.expect("a member");
    }

    /// Asks and is let in by the owner.
    pub(crate) async fn join(&self, group: &str, owner: &Self) {
        self.ask(group).await;
        owner.accept(group, self).await;
    }

    /// Puts a member out.
    pub(crate) async fn remove(&self, group: &str, user: &Self) {
        let request = RemoveMemberRequest { group_id: group.into(), username: user.name.clone() };
        self.groups().remove_member(request).await.expect("a removal");
    }

    /// Publishes a manifest.
    pub(crate) async fn publish(
        &self,
        group: &str,
        manifest: &Manifest,
    ) -> Result<PublishFileResponse, Status> {
        let frames = tokio_stream::iter(frames(group, manifest));
        Ok(self.files().publish_file(frames).await?.into_inner())
    }
}

/// The manifest of that content.
pub(crate) fn manifest(name: &str, content: &[u8]) -> Manifest {
    let layout = proto::domain::PieceLayout::new(content.len() as u64).expect("a short file");
    let mut hasher = FileHasher::new(layout);
    for (index, bytes) in layout.indices().zip(content.chunks(proto::domain::PIECE_LENGTH as usize)) {
        hasher.push(hash_piece(layout, index, bytes), bytes);
    }
    hasher.finish(name.parse().expect("a file name")).expect("hashes that fold")
}

/// The frame that starts the publication of a file.
pub(crate) fn start_frame(group: &str, header: &FileHeader) -> PublishFileRequest {
    let start = PublishStart { group_id: group.into(), header: Some(header.into()) };
    PublishFileRequest { frame: Some(publish_file_request::Frame::Start(start)) }
}

/// A frame of hashes.
pub(crate) fn pieces_frame(run: PieceHashes) -> PublishFileRequest {
    PublishFileRequest { frame: Some(publish_file_request::Frame::Pieces(run)) }
}

/// All frames of a publication.
pub(crate) fn frames(group: &str, manifest: &Manifest) -> Vec<PublishFileRequest> {
    let runs = proto::convert::manifest_runs(manifest).map(pieces_frame);
    std::iter::once(start_frame(group, manifest.header())).chain(runs).collect()
}

/// Asserts that a call failed with that reason, and the code that goes with it.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, reason: Reason) -> Status {
    let status = result.expect_err("it should be refused");
    assert_eq!(Reason::of(&status), Some(reason), "{status:?}");
    assert_eq!(status.code(), reason.code());
    status
}

/// Asserts that a call failed with that code.
#[track_caller]
pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> Status {
    let status = result.expect_err("it should fail");
    assert_eq!(status.code(), code, "{status:?}");
    status
}

/// Waits until `condition` holds, at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
