//! A file, peers that share or download it, and clients of theirs, on top of the world of the engine's own tests.
//!
//! Every peer here is [`Guarded`]: a bystander calls it from its start to [`Guarded::end`], which looks at the memory and
//! for panics, and which no test can forget.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ed25519_compact::{KeyPair, Seed};
use pasetors::{
    Public,
    keys::AsymmetricSecretKey,
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use peer::engine::{DownloadSpec, DownloadView, EngineConfig, SourceAddr};
use proto::{
    domain::{
        FileId, FileName, GroupId, Manifest, PeerId, PieceLayout,
        manifest::{FileHasher, hash_piece},
    },
    pb::{WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
    ticket::Claims,
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::transport::{Channel, Error};

pub(crate) use super::world::{Credentials, Node, World, until};
use super::world::{PATIENCE, dial};

pub(crate) const PIECE: usize = 524_288;

/// A file that is published in a group.
#[derive(Clone)]
pub(crate) struct SharedFile {
    pub(crate) group: GroupId,
    pub(crate) id: FileId,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) content: Arc<Vec<u8>>,
}

impl SharedFile {
    /// Of so many whole pieces, each another.
    pub(crate) fn of_pieces(pieces: usize) -> Self {
        Self::new((0..pieces * PIECE).map(|at| (at / PIECE) as u8 ^ (at % 251) as u8).collect())
    }

    pub(crate) fn new(content: Vec<u8>) -> Self {
        let layout = PieceLayout::new(content.len() as u64).unwrap();
        let mut hasher = FileHasher::new(layout);
        for piece in layout.indices() {
            let range = layout.range(piece);
            let bytes = &content[range.start as usize..range.end as usize];
            hasher.push(hash_piece(layout, piece, bytes), bytes);
        }
        Self {
            group: super::world::GROUP.parse().unwrap(),
            id: super::world::file_id(5),
            manifest: Arc::new(hasher.finish("movie".parse::<FileName>().unwrap()).unwrap()),
            content: Arc::new(content),
        }
    }

    /// What a good ticket for that peer says.
    pub(crate) fn claims(&self, world: &World, peer: PeerId) -> Claims {
        world.know(self.id, &self.manifest);
        Claims { group: self.group.clone(), ..world.claims("ann", peer, self.id) }
    }

    pub(crate) fn ticket(&self, world: &World, peer: PeerId) -> String {
        world.signer.sign(&self.claims(world, peer))
    }

    /// A peer that does not share it yet.
    pub(crate) async fn peer(&self, world: &Arc<World>, config: EngineConfig) -> Guarded {
        Guarded::new(world.node_with("leecher", config, None).await, world, self).await
    }

    /// A peer that shares it.
    pub(crate) async fn shared_by(&self, world: &Arc<World>, config: EngineConfig) -> Guarded {
        let node = world.node_with("seeder", config, None).await;
        let path = node.dir.path().join("shared");
        std::fs::write(&path, &*self.content).unwrap();
        node.share_as(self.id, self.manifest.clone(), &path, None).await;
        Guarded::new(node, world, self).await
    }

    /// Starts to download it from these, and says where to.
    pub(crate) async fn downloaded_by(
        &self,
        node: &Node,
        from: Vec<SourceAddr>,
    ) -> (PathBuf, watch::Receiver<DownloadView>) {
        let spec = DownloadSpec { group: self.group.clone(), ..node.spec(self.id, &self.manifest) };
        let destination = spec.destination.clone();
        let view = node.engine.download(spec).await.unwrap();
        node.engine.sources(self.id, from, Vec::new());
        (destination, view)
    }
}

/// The most memory, in bytes, that the process of a test may take at once while a peer is in it: the peers, those who
/// attack them, and the content.
const ROOM: u64 = 64 << 20;
/// The bystander's pace: often enough to notice, too seldom to matter.
const PACE: Duration = Duration::from_millis(100);
/// Panics in this process, on whichever thread: one in a task of the peer's would go unnoticed.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A peer that is watched from its start to [`Guarded::end`].
pub(crate) struct Guarded {
    /// `None` at the end.
    node: Option<(Node, Bystander)>,
    /// Bytes of memory at the start.
    base: u64,
}

impl Guarded {
    async fn new(node: Node, world: &Arc<World>, file: &SharedFile) -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                PANICS.fetch_add(1, Ordering::SeqCst);
                usual(panic);
            }));
        });
        let base = peak_rss();
        let bystander = Bystander::of(&node, world, file).await;
        Self { node: Some((node, bystander)), base }
    }

    /// Ends the peer, and checks what must hold whatever was done to it: it served others, took no more memory than it
    /// may, and panicked nowhere.
    pub(crate) async fn end(mut self) {
        let (node, bystander) = self.node.take().expect("it is ended once");
        bystander.was_served().await;
        node.end().await;
        // Nothing can be said of a process that runs other tests as well.
        if std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test") {
            assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked, see above");
            let grown = peak_rss() - self.base;
            assert!(grown < ROOM, "{grown} bytes more than at the start");
        }
    }
}

impl Deref for Guarded {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node.as_ref().expect("it has not ended").0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let forgotten = self.node.is_some() && !thread::panicking();
        assert!(!forgotten, "a test ends without having called `end`");
    }
}

/// The most memory that this process held at once since its start, in bytes.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// Somebody else with every right, who is to be answered whatever a test does. On a thread of its own, so that it calls on
/// while the test is busy.
struct Bystander {
    over: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Bystander {
    /// Returns once it has been answered.
    async fn of(node: &Node, world: &Arc<World>, file: &SharedFile) -> Self {
        let (ready, answered) = oneshot::channel();
        let (over, mut end) = oneshot::channel();
        let own = world.credentials();
        let (world, file, peer, address) = (world.clone(), file.clone(), node.peer(), node.address.clone());
        let watch = async move {
            let channel = dial(&own, peer, &address).await.expect("a bystander gets a connection");
            let client = PeerServiceClient::new(channel);
            let ask = async || {
                let file_id = file.id.as_bytes().to_vec().into();
                let request = WatchAvailabilityRequest { ticket: file.ticket(&world, own.peer), file_id };
                let mut client = client.clone();
                let answer = async { client.watch_availability(request).await?.into_inner().message().await };
                // Whether it is shared, and whether by this clock and epoch, is the test's to say: any word of the peer's
                // own is an answer.
                match timeout(PATIENCE, answer).await.expect("an answer in time") {
                    Ok(first) => assert!(first.is_some(), "a bystander's stream ends at once"),
                    Err(status) => assert!(Reason::of(&status).is_some(), "a bystander is told {status:?}"),
                }
            };
            ask().await;
            // Whoever started it waits for that.
            let _ = ready.send(());
            while timeout(PACE, &mut end).await.is_err() {
                ask().await;
            }
        };
        let thread = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(watch);
        });
        answered.await.expect("a bystander is answered at the start");
        Self { over, thread }
    }

    /// Fails unless each of its calls was answered in time.
    async fn was_served(self) {
        // It is gone already if it was not answered.
        let _ = self.over.send(());
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await.expect("it only waits");
        assert!(ended.is_ok(), "a bystander was not answered, see above");
    }
}

/// A client of that peer, with a certificate or none.
pub(crate) async fn client_of(
    world: &World,
    node: &Node,
    own: Option<&Credentials>,
) -> Result<PeerServiceClient<Channel>, Error> {
    let config = match own {
        Some(own) => own.client.clone(),
        None => client_config(&world.ca_pem, None).unwrap(),
    };
    let (host, port) = node.address.rsplit_once(':').unwrap();
    let remote = Remote::Tcp { host: host.into(), port: port.parse().unwrap() };
    let security = ClientSecurity::Tls { config, server_name: node.peer().tls_name() };
    let channel = connect(remote, security, &ChannelTuning::control()).await?;
    Ok(PeerServiceClient::new(channel).max_decoding_message_size(2 * PIECE))
}

pub(crate) fn source(peer: PeerId, address: &str) -> SourceAddr {
    SourceAddr { peer, addresses: vec![address.to_owned()], username: "seeder".parse().unwrap() }
}

/// A ticket to be changed at will and signed again with the world's own key, which its signer would never do.
pub(crate) struct Forged {
    pub(crate) payload: serde_json::Map<String, serde_json::Value>,
    pub(crate) footer: String,
    pub(crate) assertion: &'static str,
}

impl From<String> for Forged {
    /// As it is, unchanged: signed again it is as good as before.
    fn from(ticket: String) -> Self {
        let token = UntrustedToken::<Public, V4>::try_from(&ticket).unwrap();
        Self {
            payload: serde_json::from_slice(token.untrusted_payload()).unwrap(),
            footer: String::from_utf8(token.untrusted_footer().to_vec()).unwrap(),
            assertion: "minitorrent/chunk/v1",
        }
    }
}

impl Forged {
    pub(crate) fn claim(mut self, name: &str, value: &str) -> Self {
        self.payload.insert(name.into(), value.into());
        self
    }

    pub(crate) fn signed(&self) -> String {
        let pair = KeyPair::from_seed(Seed::new(super::world::TICKET_SEED));
        let key = AsymmetricSecretKey::<V4>::from(pair.sk.as_ref()).unwrap();
        let payload = serde_json::to_vec(&self.payload).unwrap();
        let (footer, assertion) = (self.footer.as_bytes(), self.assertion.as_bytes());
        PublicToken::sign(&key, &payload, Some(footer), Some(assertion)).unwrap()
    }
}
