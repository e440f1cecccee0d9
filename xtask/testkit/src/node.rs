//! Peers in this process, behind real TLS on loopback.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use peer::{
    engine::{
        BoxFuture, DialError, Dialer, DownloadSpec, DownloadState, DownloadView, Engine, EngineConfig,
        ShareSpec, SourceAddr, TicketRefused, TicketSource,
    },
    hashing::{FileStamp, manifest_of},
    storage::Opener,
};
use proto::{
    domain::{FileId, GroupId, Manifest, PeerId},
    pb::peer_service_client::PeerServiceClient,
    reason::Reason,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Error};
use transport::{ChannelTuning, client_config, fingerprints};

use crate::{
    content::PIECE,
    liar::Liar,
    wait::PATIENCE,
    world::{Credentials, FIRST_EPOCH, GROUP, World, dial},
};

/// A running peer of a user.
pub struct Node {
    /// What it runs.
    pub engine: Engine,
    /// Its user.
    pub user: String,
    /// Its key and certificate.
    pub credentials: Arc<Credentials>,
    /// Where it serves.
    pub address: String,
    /// Where its files are.
    pub dir: tempfile::TempDir,
    /// Where it gets its tickets.
    pub tickets: Arc<Tickets>,
    world: Arc<World>,
    shutdown: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl World {
    /// Starts a peer.
    pub async fn node(self: &Arc<Self>, user: &str) -> Node {
        self.node_with(user, EngineConfig::default(), None).await
    }

    /// Starts a peer with these settings and this storage, or the real one.
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
            life: AtomicI64::new(1_800),
            away: AtomicBool::new(false),
            uses_next_key: AtomicBool::new(false),
        });
        let engine = match storage {
            Some(open) => Engine::with_storage(config, dialer, tickets.clone(), open),
            None => Engine::new(config, dialer, tickets.clone()),
        };
        engine.take_up(&fingerprints(&self.authority.pem).unwrap());
        engine.raise_epochs(vec![(GROUP.parse().unwrap(), FIRST_EPOCH)]);
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
}

impl Node {
    /// Its peer id.
    pub fn peer(&self) -> PeerId {
        self.credentials.peer
    }

    /// The peer as the tracker would name it to others.
    pub fn source(&self) -> SourceAddr {
        source(self.peer(), &self.address, &self.user)
    }

    /// Connects a client to this peer, with a certificate or without.
    ///
    /// # Errors
    /// The connection's.
    pub async fn client(&self, own: Option<&Credentials>) -> Result<PeerServiceClient<Channel>, Error> {
        let config = match own {
            Some(own) => own.client.clone(),
            None => client_config(&self.world.authority.pem, None).unwrap(),
        };
        let channel = dial(config, self.peer(), &self.address, &ChannelTuning::control()).await?;
        Ok(PeerServiceClient::new(channel).max_decoding_message_size(2 * PIECE))
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

    /// Shares a copy with other bytes than those of the manifest, as if its disk had changed them after they were
    /// hashed: neither its size nor its times show it.
    pub async fn share_damaged(&self, file: FileId, manifest: &Arc<Manifest>, damaged: &[u8]) {
        let path = self.dir.path().join(manifest.header().name.as_str());
        std::fs::write(&path, damaged).unwrap();
        let stamp = FileStamp::of(&std::fs::metadata(&path).unwrap());
        self.share_as(file, manifest.clone(), &path, Some(stamp)).await;
    }

    /// Shares the file at `path` as the content of this manifest.
    pub async fn share_as(
        &self,
        file: FileId,
        manifest: Arc<Manifest>,
        path: &Path,
        stamp: Option<FileStamp>,
    ) {
        self.world.know(file, &manifest);
        let group = GROUP.parse().unwrap();
        self.engine
            .share(ShareSpec {
                group,
                file,
                manifest,
                path: path.into(),
                stamp,
                folder: None,
                only: Vec::new(),
            })
            .await
            .unwrap();
    }

    /// A download of that file into this peer's directory.
    pub fn spec(&self, file: FileId, manifest: &Arc<Manifest>) -> DownloadSpec {
        self.world.know(file, manifest);
        DownloadSpec {
            group: GROUP.parse::<GroupId>().unwrap(),
            file,
            manifest: manifest.clone(),
            destination: self.destination(manifest),
            sequential: false,
            verify: false,
            umask: 0o022,
            begun: false,
            done_bytes: 0,
            copy: None,
            only: Vec::new(),
        }
    }

    /// Where [`Self::spec`] puts the file.
    pub fn destination(&self, manifest: &Manifest) -> PathBuf {
        self.dir.path().join(manifest.header().name.as_str())
    }

    /// Starts to download a file from these peers.
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

    /// Disappears like a process that is killed. Returns its directory.
    pub fn vanish(self) -> tempfile::TempDir {
        self.server.abort();
        self.dir
    }

    /// Stops everything, and waits for the end.
    pub async fn end(self) {
        self.engine.shutdown().await;
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

impl Liar {
    /// The liar as a tracker would name it to others.
    pub fn source(&self) -> SourceAddr {
        source(self.peer, &self.address, "mallory")
    }
}

fn source(peer: PeerId, address: &str, user: &str) -> SourceAddr {
    SourceAddr { peer, addresses: vec![address.to_owned()], username: user.parse().unwrap() }
}

/// Waits until the view satisfies `wanted`.
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

/// Waits until the download has ended.
pub async fn until_final(view: &mut watch::Receiver<DownloadView>) -> DownloadView {
    until(view, |view| view.state.is_final()).await
}

/// Waits until the download is complete.
pub async fn until_complete(view: &mut watch::Receiver<DownloadView>) -> DownloadView {
    let view = until_final(view).await;
    assert_eq!(view.state, DownloadState::Complete, "{view:?}");
    view
}

/// Issues tickets as a tracker would.
pub struct Tickets {
    world: Arc<World>,
    user: String,
    peer: PeerId,
    current: Mutex<HashMap<FileId, Arc<str>>>,
    /// The number of tickets so far.
    pub issued: AtomicU64,
    /// The life of a ticket in seconds. Below 0, it has ended when it is issued.
    pub life: AtomicI64,
    /// Whether the tracker can't be reached.
    pub away: AtomicBool,
    /// Whether the tracker signs with its next key.
    pub uses_next_key: AtomicBool,
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
                if self.away.load(Ordering::SeqCst) {
                    return Err(TicketRefused::Unavailable(Reason::TrackerUnreachable));
                }
                self.issued.fetch_add(1, Ordering::SeqCst);
                let mut claims = self.world.claims(&self.user, self.peer, file);
                claims.expires = claims.issued.saturating_add_signed(self.life.load(Ordering::SeqCst));
                claims.not_before = claims.not_before.min(claims.expires);
                let is_next = self.uses_next_key.load(Ordering::SeqCst);
                let signer = if is_next { &self.world.next_signer } else { &self.world.signer };
                current.insert(file, signer.sign(&claims).into());
            }
            Ok(current[&file].clone())
        })
    }
}

struct TestDialer(Arc<Credentials>);

impl Dialer for TestDialer {
    fn dial(&self, peer: PeerId, address: &str, window: u32) -> BoxFuture<'_, Result<Channel, DialError>> {
        let address = address.to_owned();
        Box::pin(async move {
            let tuning = ChannelTuning::data_within(window);
            let channel = dial(self.0.client.clone(), peer, &address, &tuning).await;
            channel.map_err(|error| DialError::other(error.to_string()))
        })
    }

    fn own_id(&self) -> Option<PeerId> {
        Some(self.0.peer)
    }
}
