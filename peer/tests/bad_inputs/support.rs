//! A file, peers that share or download it, and clients of theirs, on top of the world of the engine's own tests.

use std::{path::PathBuf, sync::Arc};

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
    pb::peer_service_client::PeerServiceClient,
    ticket::Claims,
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect},
};
use tokio::sync::watch;
use tonic::transport::{Channel, Error};

pub(crate) use super::world::{Credentials, Node, World, until};

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

    /// A peer that shares it.
    pub(crate) async fn shared_by(&self, world: &Arc<World>, config: EngineConfig) -> Node {
        let node = world.node_with("seeder", config, None).await;
        let path = node.dir.path().join("shared");
        std::fs::write(&path, &*self.content).unwrap();
        node.share_as(self.id, self.manifest.clone(), &path, None).await;
        node
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
