//! What the peers of a test trust: an authority and a key that signs tickets. No tracker is needed.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::{
    domain::{Blake3, FileId, GroupId, Manifest, PeerId},
    ticket::{Claims, Signer},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    transport::{Channel, Error},
};
use transport::{ChannelTuning, ClientSecurity, Limits, Remote, Security, connect, serve};

use crate::{
    authority::{Authority, Identity},
    content::{PIECE, file_id, manifest},
};

/// The group of all files.
pub const GROUP: &str = "g1";

/// The group's epoch at the start, which every peer knows.
pub const FIRST_EPOCH: u64 = 1;

/// The seed of the key that signs tickets.
pub const TICKET_SEED: [u8; 32] = [7; 32];

/// The seed of the key that signs later.
const NEXT_TICKET_SEED: [u8; 32] = [8; 32];

/// The authority and the ticket signer that all peers of a test trust.
pub struct World {
    /// Certifies all peers.
    pub authority: Authority,
    /// Signs tickets.
    pub signer: Signer,
    /// The key that a tracker would sign with next.
    pub next_signer: Signer,
    /// The epoch of the group in new tickets.
    pub epoch: AtomicU64,
    roots: Mutex<HashMap<FileId, Blake3>>,
}

/// A key and certificate of the world's authority, ready for use.
pub struct Credentials {
    /// The peer id that belongs to the key.
    pub peer: PeerId,
    /// How it serves.
    pub server: Arc<rustls::ServerConfig>,
    /// How it connects.
    pub client: Arc<rustls::ClientConfig>,
}

/// A file that is published in a group.
#[derive(Clone)]
pub struct SharedFile {
    /// The group.
    pub group: GroupId,
    /// The id that the tracker would have given it.
    pub id: FileId,
    /// The manifest of the content.
    pub manifest: Arc<Manifest>,
    /// All bytes.
    pub content: Arc<Vec<u8>>,
}

/// The time in seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl World {
    /// Creates an authority and a signer. The epoch is 1.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            authority: Authority::new(),
            signer: Signer::from_seed(&TICKET_SEED).unwrap(),
            next_signer: Signer::from_seed(&NEXT_TICKET_SEED).unwrap(),
            epoch: AtomicU64::new(FIRST_EPOCH),
            roots: Mutex::default(),
        })
    }

    /// Credentials of a new peer.
    pub fn credentials(&self) -> Credentials {
        Credentials::new(&self.authority.peer(), &self.authority.pem)
    }

    /// Credentials with a certificate that expires at `end` (seconds since 1970). Their owner trusts the
    /// authority in `trusted` (PEM).
    pub fn credentials_until(&self, end: u64, trusted: &str) -> Credentials {
        Credentials::new(&self.authority.peer_until(UNIX_EPOCH + Duration::from_secs(end)), trusted)
    }

    /// Serves `service` as a peer on a free port. Returns the address, the token that stops the server, and
    /// its task.
    pub async fn serve<S>(
        &self,
        credentials: &Credentials,
        service: S,
    ) -> (String, CancellationToken, JoinHandle<std::io::Result<()>>)
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
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

    /// The claims of a good ticket for a file whose manifest [`Self::know`] was told, or of a root of zeros.
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

    /// Takes the root of a file into its tickets.
    pub fn know(&self, file: FileId, manifest: &Manifest) {
        self.roots.lock().unwrap().insert(file, manifest.header().blake3);
    }
}

impl Credentials {
    fn new(identity: &Identity, trusted: &str) -> Self {
        Self { peer: identity.peer, server: identity.server(trusted), client: identity.client(trusted) }
    }

    /// Connects to that peer.
    ///
    /// # Errors
    /// The connection's.
    pub async fn dial(&self, peer: PeerId, address: &str) -> Result<Channel, Error> {
        dial(self.client.clone(), peer, address, &ChannelTuning::data()).await
    }
}

/// Connects to a peer with this configuration.
pub(crate) async fn dial(
    config: Arc<rustls::ClientConfig>,
    peer: PeerId,
    address: &str,
    tuning: &ChannelTuning,
) -> Result<Channel, Error> {
    let (host, port) = address.rsplit_once(':').unwrap();
    let remote = Remote::Tcp { host: host.into(), port: port.parse().unwrap() };
    connect(remote, ClientSecurity::Tls { config, server_name: peer.tls_name() }, tuning).await
}

impl SharedFile {
    /// Creates a file of this many whole pieces, all different.
    pub fn of_pieces(pieces: usize) -> Self {
        Self::new((0..pieces * PIECE).map(|at| (at / PIECE) as u8 ^ (at % 251) as u8).collect())
    }

    /// Creates a file of this content.
    pub fn new(content: Vec<u8>) -> Self {
        Self {
            group: GROUP.parse().unwrap(),
            id: file_id(5),
            manifest: Arc::new(manifest("movie", &content)),
            content: Arc::new(content),
        }
    }

    /// Returns the claims of a good ticket for that peer.
    pub fn claims(&self, world: &World, peer: PeerId) -> Claims {
        world.know(self.id, &self.manifest);
        Claims { group: self.group.clone(), ..world.claims("ann", peer, self.id) }
    }

    /// Returns a good ticket for that peer.
    pub fn ticket(&self, world: &World, peer: PeerId) -> String {
        world.signer.sign(&self.claims(world, peer))
    }
}
