//! Peers in this process that are watched: a bystander calls them, and at the end their memory is checked and
//! panics are looked for. A test can't forget to end them.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use peer::engine::{DownloadSpec, DownloadView, EngineConfig, SourceAddr};
use proto::{
    pb::{WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
};
use tokio::{sync::watch, time::timeout};
use tonic::transport::Channel;

use crate::{
    bystander::Bystander,
    node::Node,
    process::peak_rss,
    wait::PATIENCE,
    world::{SharedFile, World},
};

/// The most memory, in bytes, by which the process of a test may grow while a peer is in it. This includes
/// the peers, their attackers and the content.
const ROOM: u64 = 64 << 20;

/// The number of panics in this process, on any thread. A panic in one of the peer's tasks would otherwise be
/// unnoticed.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A peer that is watched from its start to [`Guarded::end`].
pub struct Guarded {
    /// `None` after the end.
    node: Option<(Node, Bystander)>,
    /// The memory at the start, in bytes.
    base: u64,
}

impl SharedFile {
    /// Starts a peer that does not share the file yet.
    pub async fn peer(&self, world: &Arc<World>, config: EngineConfig) -> Guarded {
        Guarded::new(world.node_with("leecher", config, None).await, world, self).await
    }

    /// Starts a peer that shares the file.
    pub async fn shared_by(&self, world: &Arc<World>, config: EngineConfig) -> Guarded {
        let node = world.node_with("seeder", config, None).await;
        let path = node.dir.path().join("shared");
        std::fs::write(&path, &*self.content).unwrap();
        node.share_as(self.id, self.manifest.clone(), &path, None).await;
        Guarded::new(node, world, self).await
    }

    /// Starts to download the file from these sources. Returns also the destination.
    pub async fn downloaded_by(
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
        let base = peak_rss(std::process::id());
        let bystander = watch_over(&node, world, file).await;
        Self { node: Some((node, bystander)), base }
    }

    /// Ends the peer, and checks what must always hold: it served others, took no more memory than allowed,
    /// and did not panic.
    pub async fn end(mut self) {
        let (node, bystander) = self.node.take().expect("it is ended once");
        bystander.was_served().await;
        node.end().await;
        // These checks mean nothing in a process that runs other tests as well.
        if std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test") {
            assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked, see above");
            let grown = peak_rss(std::process::id()) - self.base;
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

/// Starts a bystander with valid rights to the file.
async fn watch_over(node: &Node, world: &Arc<World>, file: &SharedFile) -> Bystander {
    let own = world.credentials();
    let (peer, caller, address) = (node.peer(), own.peer, node.address.clone());
    let connect = async move || {
        let channel = own.dial(peer, &address).await.expect("a bystander gets a connection");
        PeerServiceClient::new(channel)
    };
    let (world, file) = (world.clone(), file.clone());
    let call = async move |client: &PeerServiceClient<Channel>| {
        let file_id = file.id.as_bytes().to_vec().into();
        let request = WatchAvailabilityRequest { ticket: file.ticket(&world, caller), file_id };
        let mut client = client.clone();
        let answer = async { client.watch_availability(request).await?.into_inner().message().await };
        // Whether the file is shared, and which clock and epoch count, depends on the test. So any message of
        // the peer itself is an answer.
        match timeout(PATIENCE, answer).await.expect("an answer in time") {
            Ok(first) => assert!(first.is_some(), "a bystander's stream ends at once"),
            Err(status) => assert!(Reason::of(&status).is_some(), "a bystander is told {status:?}"),
        }
    };
    Bystander::start(connect, call).await
}
