//! The real peers that announce, and the real users that call.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    convert,
    domain::limits::MAX_SOURCES,
    pb::{
        self, auth_service_client::AuthServiceClient, file_announce::Holding,
        swarm_service_client::SwarmServiceClient,
    },
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect, raise_open_files};

use super::world;

/// The number of clients, each with a connection: half of what a tracker accepts.
const COUNT: u32 = 1_000;
/// The clients' numbers. The numbers of the simulated peers do not reach this range.
pub(super) const NUMBERS: std::ops::Range<u32> = 1 << 30..(1 << 30) + COUNT;
/// Announces per client. The tracker allows 20 at once, the first included.
const ANNOUNCES: u32 = 16;
/// Calls for sources per client. The tracker allows 10 at once.
const FINDS: u32 = 8;
/// Other calls per client.
const CALLS: u32 = 16;
/// Number of concurrent calls.
const AT_ONCE: usize = 8;
/// Number of files that they announce; each client announces one of these.
const FILES: u32 = 10;

/// Connects all clients, then runs the phases named on stdin until it ends.
pub(super) fn run(address: SocketAddr, ca: &Path) -> Result<()> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = client_config(&std::fs::read_to_string(ca)?, None)?;
        let clients = stream::iter(NUMBERS).map(|number| Client::start(number, address, Arc::clone(&config)));
        let mut clients: Vec<_> = clients.buffer_unordered(AT_ONCE).try_collect().await?;
        println!("{COUNT}");
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            let done = match line.as_str() {
                "announce" => announce(&mut clients).await?,
                "find-peers" => calls(&clients, FINDS, User::find_peers).await?,
                "who-am-i" => calls(&clients, CALLS, User::who_am_i).await?,
                other => bail!("{other:?} is no phase"),
            };
            println!("{done}");
        }
        Ok(())
    })
}

/// Each client announces a gained piece, and another one after all have done so. Each message is a packet of
/// its own. Then the clients end their streams. The tracker answers that when it has handled all messages.
async fn announce(clients: &mut [Client]) -> Result<u32> {
    for round in 0..ANNOUNCES {
        for client in &*clients {
            client.say(Holding::Gained(pb::PieceList { pieces: vec![round.into()] })).await?;
        }
    }
    for client in &mut *clients {
        client.says = None;
    }
    for client in clients {
        while client.hears.message().await?.is_some() {}
    }
    Ok(COUNT * ANNOUNCES)
}

async fn calls<F: Future<Output = Result<()>>>(
    clients: &[Client],
    each: u32,
    call: impl Fn(User) -> F,
) -> Result<u32> {
    let all = (0..each).flat_map(|_| clients).map(|client| call(client.user.clone()));
    stream::iter(all).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(COUNT * each)
}

/// Adds the token to each request.
#[derive(Clone)]
pub(super) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// Adds this token.
    pub(super) fn of(token: &str) -> Result<Self> {
        Ok(Self(format!("Bearer {token}").parse()?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A user with a connection.
#[derive(Clone)]
struct User {
    number: u32,
    service: InterceptedService<Channel, Bearer>,
}

impl User {
    async fn connect(number: u32, address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let remote = Remote::Tcp { host: address.ip().to_string(), port: address.port() };
        let security = ClientSecurity::Tls { config, server_name: "localhost".into() };
        let channel = connect(remote, security, &ChannelTuning::control()).await?;
        let bearer = Bearer::of(&world::token(number))?;
        Ok(Self { number, service: InterceptedService::new(channel, bearer) })
    }

    fn file(&self) -> u32 {
        self.number % FILES
    }

    async fn find_peers(self) -> Result<()> {
        let request = pb::FindPeersRequest {
            group_id: world::group()?.to_string(),
            name: world::name(self.file()),
            ..Default::default()
        };
        let found = SwarmServiceClient::new(self.service).find_peers(request).await?.into_inner();
        ensure!(found.sources.len() == MAX_SOURCES, "{} sources", found.sources.len());
        Ok(())
    }

    async fn who_am_i(self) -> Result<()> {
        AuthServiceClient::new(self.service).who_am_i(pb::WhoAmIRequest {}).await?;
        Ok(())
    }
}

/// A user's peer, with its announce stream.
struct Client {
    user: User,
    says: Option<mpsc::Sender<pb::AnnounceRequest>>,
    hears: Streaming<pb::AnnounceResponse>,
}

impl Client {
    /// Connects and announces the peer's pieces. On return the peer has been told about sources.
    async fn start(number: u32, address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let user = User::connect(number, address, config).await?;
        // At most one message waits: the next is sent only after it has gone.
        let (says, messages) = mpsc::channel(1);
        let mut swarm = SwarmServiceClient::new(user.service.clone());
        let peer_id = world::peer(number).to_string();
        let hello = pb::AnnounceHello { peer_id, port: 1_024, ..Default::default() };
        let first = pb::AnnounceRequest { hello: Some(hello), ..Default::default() };
        says.send(first).await?;
        let hears = swarm.announce(ReceiverStream::new(messages)).await?.into_inner();
        let mut client = Self { user, says: Some(says), hears };
        client.say(Holding::Bitfield(convert::to_bitfield(&world::half(number)?))).await?;
        while client.hears.message().await?.context("the stream ended")?.changes.is_empty() {}
        Ok(client)
    }

    async fn say(&self, holding: Holding) -> Result<()> {
        let file = convert::to_file_ref(&world::group()?, world::file(self.user.file())?);
        let file = pb::FileAnnounce { file: Some(file), holding: Some(holding), wants_sources: true };
        let message = pb::AnnounceRequest { files: vec![file], load: 1, ..Default::default() };
        Ok(self.says.as_ref().context("it hung up")?.send(message).await?)
    }
}
