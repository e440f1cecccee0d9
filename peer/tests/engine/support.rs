//! A swarm in one process: engines behind real TLS on loopback, one authority, one ticket signer, no tracker.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use peer::{
    engine::{
        BoxFuture, DialError, Dialer, DownloadSpec, DownloadState, DownloadView, Engine, EngineConfig,
        ShareSpec, SourceAddr, TicketRefused, TicketSource,
    },
    hashing::manifest_of,
    storage::Opener,
};
use proto::{
    domain::{Blake3, FileId, GroupId, Manifest, PeerId},
    ticket::{Claims, Signer},
    transport::{
        ChannelTuning, ClientSecurity, Limits, Remote, Security, client_config, connect, peer_id_of_spki,
        serve, server_config,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::Channel};

/// Longer than anything here takes, on a machine that does other things as well.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const GROUP: &str = "g1";

/// What the key is made from that tickets are signed with.
pub const TICKET_SEED: [u8; 32] = [7; 32];

/// What all peers of a test trust.
pub struct World {
    issuer: Issuer<'static, KeyPair>,
    pub ca_pem: String,
    pub signer: Signer,
    pub epoch: AtomicU64,
    roots: Mutex<HashMap<FileId, Blake3>>,
}

/// A key and certificate of the world's authority.
pub struct Credentials {
    pub peer: PeerId,
    server: Arc<rustls::ServerConfig>,
    pub client: Arc<rustls::ClientConfig>,
}

/// A peer of a user, serving.
pub struct Node {
    pub engine: Engine,
    pub user: String,
    pub credentials: Arc<Credentials>,
    pub address: String,
    pub dir: tempfile::TempDir,
    pub tickets: Arc<Tickets>,
    world: Arc<World>,
    shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl World {
    pub fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Arc::new(Self {
            issuer: Issuer::new(params, key),
            ca_pem,
            signer: Signer::from_seed(&TICKET_SEED).unwrap(),
            epoch: AtomicU64::new(1),
            roots: Mutex::default(),
        })
    }

    pub fn credentials(&self) -> Credentials {
        self.credentials_until(unix_now() + 3_600, &self.ca_pem)
    }

    /// With a certificate that runs out then (seconds since 1970), of somebody who trusts that authority.
    pub fn credentials_until(&self, ends: u64, trusted_pem: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let peer = peer_id_of_spki(&key.subject_public_key_info());
        let mut params = CertificateParams::new(vec![peer.tls_name()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = (UNIX_EPOCH + Duration::from_secs(ends)).into();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Credentials {
            peer,
            server: server_config(&pem, &key, Some(trusted_pem)).unwrap(),
            client: client_config(trusted_pem, Some((&pem, &key))).unwrap(),
        }
    }

    pub async fn node(self: &Arc<Self>, user: &str) -> Node {
        self.node_with(user, EngineConfig::default(), None).await
    }

    pub async fn node_with(
        self: &Arc<Self>,
        user: &str,
        config: EngineConfig,
        storage: Option<Opener>,
    ) -> Node {
        let credentials = Arc::new(self.credentials());
        let dialer = Arc::new(TestDialer(credentials.clone()));
        let tickets = Arc::new(Tickets {
            world: self.clone(),
            user: user.into(),
            peer: credentials.peer,
            current: Mutex::default(),
            issued: AtomicU64::new(0),
        });
        let engine = match storage {
            Some(open) => Engine::with_storage(config, dialer, tickets.clone(), open),
            None => Engine::new(config, dialer, tickets.clone()),
        };
        engine.set_ticket_keys(vec![self.signer.verifying_key().clone()]);
        let (address, shutdown, server) = self.serve(&credentials, engine.service()).await;
        Node {
            engine,
            user: user.into(),
            credentials,
            address,
            dir: tempfile::tempdir().unwrap(),
            tickets,
            world: self.clone(),
            shutdown,
            server,
        }
    }

    /// Serves anything as a peer.
    pub async fn serve<S>(
        &self,
        credentials: &Credentials,
        service: S,
    ) -> (String, CancellationToken, JoinHandle<std::io::Result<()>>)
    where
        S: tower::Service<
                http::Request<Body>,
                Response = http::Response<Body>,
                Error = std::convert::Infallible,
            > + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let (config, security) = watch::channel(Some(credentials.server.clone()));
        let stop = shutdown.clone();
        let server = tokio::spawn(async move {
            let limits = Limits { grace: Duration::ZERO, ..Limits::peer() };
            let result = serve(listener, Security::Tls(security), service, limits, stop).await;
            drop(config);
            result
        });
        (address, shutdown, server)
    }

    pub fn claims(&self, user: &str, peer: PeerId, file: FileId) -> Claims {
        let now = unix_now();
        let root = self.roots.lock().unwrap().get(&file).copied().unwrap_or(Blake3::from([0; 32]));
        Claims {
            user: user.parse().unwrap(),
            group: GROUP.parse().unwrap(),
            file,
            root,
            peer,
            epoch: self.epoch.load(Ordering::SeqCst),
            issued: now,
            not_before: now,
            expires: now + 1_800,
            id: rand::random(),
        }
    }

    pub fn know(&self, file: FileId, manifest: &Manifest) {
        self.roots.lock().unwrap().insert(file, manifest.header().blake3);
    }
}

impl Node {
    pub fn peer(&self) -> PeerId {
        self.credentials.peer
    }

    pub fn source(&self) -> SourceAddr {
        SourceAddr {
            peer: self.peer(),
            addresses: vec![self.address.clone()],
            username: self.user.parse().unwrap(),
        }
    }

    /// Puts a file into this peer's directory and shares it.
    pub async fn share(&self, file: FileId, name: &str, data: &[u8]) -> Arc<Manifest> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, data).unwrap();
        let hashed =
            manifest_of(&path, name.parse().unwrap(), &|_| std::ops::ControlFlow::Continue(())).unwrap();
        let manifest = Arc::new(hashed.manifest);
        self.share_as(file, manifest.clone(), &path, Some(hashed.stamp)).await;
        manifest
    }

    pub async fn share_as(
        &self,
        file: FileId,
        manifest: Arc<Manifest>,
        path: &Path,
        stamp: Option<peer::hashing::FileStamp>,
    ) {
        self.world.know(file, &manifest);
        let group = GROUP.parse().unwrap();
        self.engine.share(ShareSpec { group, file, manifest, path: path.into(), stamp }).await.unwrap();
    }

    pub fn spec(&self, file: FileId, manifest: &Arc<Manifest>) -> DownloadSpec {
        self.world.know(file, manifest);
        DownloadSpec {
            group: GROUP.parse::<GroupId>().unwrap(),
            file,
            manifest: manifest.clone(),
            destination: self.destination(manifest),
            sequential: false,
            verify: false,
        }
    }

    pub fn destination(&self, manifest: &Manifest) -> PathBuf {
        self.dir.path().join(manifest.header().name.as_str())
    }

    pub async fn download(
        &self,
        file: FileId,
        manifest: &Arc<Manifest>,
        sources: &[&Self],
    ) -> watch::Receiver<DownloadView> {
        let view = self.engine.download(self.spec(file, manifest)).await.unwrap();
        self.engine.sources(file, sources.iter().map(|node| node.source()).collect(), vec![]);
        view
    }

    /// Disappears as a process does that is killed.
    pub fn vanish(self) -> tempfile::TempDir {
        self.server.abort();
        self.dir
    }

    pub async fn end(self) {
        self.engine.shutdown().await;
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// Waits until the view is as wanted.
pub async fn until(
    view: &mut watch::Receiver<DownloadView>,
    wanted: impl FnMut(&DownloadView) -> bool,
) -> DownloadView {
    let seen = timeout(PATIENCE, view.wait_for(wanted)).await.map(|view| view.map(|view| view.clone()));
    match seen {
        Ok(view) => view.expect("the download is still there"),
        Err(_) => panic!("it never became so: {:?}", *view.borrow()),
    }
}

pub async fn until_final(view: &mut watch::Receiver<DownloadView>) -> DownloadView {
    until(view, |view| view.state.is_final()).await
}

pub async fn until_complete(view: &mut watch::Receiver<DownloadView>) -> DownloadView {
    let view = until_final(view).await;
    assert_eq!(view.state, DownloadState::Complete, "{view:?}");
    view
}

/// Waits until something else holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            // Between two looks; the deadline is around it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "it never happened: {what}");
}

/// Bytes that look random and are the same each time.
pub fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut data);
    data
}

pub fn file_id(number: u8) -> FileId {
    FileId::try_from(&[number; 16][..]).unwrap()
}

/// A tracker's tickets.
pub struct Tickets {
    world: Arc<World>,
    user: String,
    peer: PeerId,
    current: Mutex<HashMap<FileId, Arc<str>>>,
    pub issued: AtomicU64,
}

impl TicketSource for Tickets {
    fn ticket(
        &self,
        _: &GroupId,
        file: FileId,
        fresh: bool,
    ) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>> {
        Box::pin(async move {
            let mut current = self.current.lock().unwrap();
            if fresh || !current.contains_key(&file) {
                self.issued.fetch_add(1, Ordering::SeqCst);
                let claims = self.world.claims(&self.user, self.peer, file);
                current.insert(file, self.world.signer.sign(&claims).into());
            }
            Ok(current[&file].clone())
        })
    }
}

struct TestDialer(Arc<Credentials>);

impl Dialer for TestDialer {
    fn dial(&self, peer: PeerId, address: &str) -> BoxFuture<'_, Result<Channel, DialError>> {
        let address = address.to_owned();
        Box::pin(
            async move { dial(&self.0, peer, &address).await.map_err(|error| DialError(error.to_string())) },
        )
    }

    fn own_id(&self) -> Option<PeerId> {
        Some(self.0.peer)
    }
}

pub async fn dial(
    credentials: &Credentials,
    peer: PeerId,
    address: &str,
) -> Result<Channel, tonic::transport::Error> {
    let (host, port) = address.rsplit_once(':').unwrap();
    let remote = Remote::Tcp { host: host.into(), port: port.parse().unwrap() };
    let security = ClientSecurity::Tls { config: credentials.client.clone(), server_name: peer.tls_name() };
    connect(remote, security, &ChannelTuning::data()).await
}
