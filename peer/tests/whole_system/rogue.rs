//! A client that asks for a file's pieces again and again, with the certificate and the ticket of a user, whatever
//! became of the user's right. The daemon of a removed member would stop by itself.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::{
    domain::{FileId, PeerId},
    pb::{self, peer_service_client::PeerServiceClient},
};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};
use transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect};

use crate::{line::Line, sys};

/// The window of a rogue's calls, in bytes. As much may be on its way when a right ends.
const WINDOW: u32 = 65_535;
/// What a call that began before the right ended may still bring after the bound: the window, and a message.
pub(crate) const LEFT_OVER: usize = 2 * WINDOW as usize;

/// What a rogue got: file data, or the knowledge that its stream of pieces still runs.
#[derive(Clone, Debug)]
pub(crate) struct Loot {
    pub(crate) at: Duration,
    pub(crate) from: usize,
    /// 0 for a stream of pieces.
    pub(crate) bytes: usize,
    /// When the call began.
    pub(crate) since: Duration,
}

/// A rogue that runs.
pub(crate) struct Rogue {
    pub(crate) host: usize,
    pub(crate) loot: Arc<Mutex<Vec<Loot>>>,
    /// Bytes that it got too late from the call that began at this time.
    pub(crate) late: (Duration, usize),
    /// Its tasks, to end it.
    pub(crate) tasks: [tokio::task::JoinHandle<()>; 2],
}

/// What a rogue needs: a certificate, a ticket and a source.
pub(crate) struct Kit {
    config: Arc<rustls::ClientConfig>,
    ticket: String,
    file: FileId,
    source: PeerId,
    address: String,
}

/// Gets the kit from the daemon of a user who is a member.
pub(crate) async fn kit(line: Line, ca: String, file: pb::FileName) -> Result<Kit, Status> {
    let mut control = line.control().await?;
    let certificate = control.export_cert(pb::ExportCertRequest {}).await?.into_inner();
    let answer = control.get_ticket(pb::GetTicketRequest { file: Some(file) }).await?.into_inner();
    let unusable = |what: &str| Status::internal(what.to_owned());
    let config = client_config(&ca, Some((&certificate.certificate_pem, &certificate.key_pem)));
    let source = answer.sources.into_iter().find_map(|source| source.peer);
    let source = source.ok_or_else(|| Status::unavailable("no source"))?;
    Ok(Kit {
        config: config.map_err(|error| unusable(&error.to_string()))?,
        ticket: answer.ticket,
        file: FileId::try_from(&answer.file_id[..]).map_err(|_| unusable("a file id"))?,
        source: source.peer_id.parse().map_err(|_| unusable("a peer id"))?,
        address: source.addresses.into_iter().next().ok_or_else(|| unusable("no address"))?,
    })
}

/// Watches the pieces of the source and never stops.
pub(crate) async fn watch(kit: Arc<Kit>, loot: Arc<Mutex<Vec<Loot>>>) {
    loop {
        if let Some((mut client, from)) = kit.connect().await {
            let since = Duration::from_nanos(sys::now());
            let request = pb::WatchAvailabilityRequest {
                ticket: kit.ticket.clone(),
                file_id: kit.file.as_bytes().to_vec().into(),
            };
            if let Ok(stream) = client.watch_availability(request).await {
                let mut stream = stream.into_inner();
                while let Ok(Ok(Some(_))) | Err(_) = timeout(Duration::from_secs(1), stream.message()).await {
                    let at = Duration::from_nanos(sys::now());
                    loot.lock().expect("no panic").push(Loot { at, from, bytes: 0, since });
                }
            }
        }
        sys::pass(Duration::from_secs(2)).await;
    }
}

impl Kit {
    /// Connects to the source. Returns its host too.
    async fn connect(&self) -> Option<(PeerServiceClient<Channel>, usize)> {
        let (host, port) = self.address.rsplit_once(':').expect("an address");
        let last = host.rsplit_once('.').and_then(|(_, last)| last.parse::<usize>().ok());
        let remote = Remote::Tcp { host: host.to_owned(), port: port.parse().expect("a port") };
        let security =
            ClientSecurity::Tls { config: Arc::clone(&self.config), server_name: self.source.tls_name() };
        let channel = connect(remote, security, &ChannelTuning::data_within(WINDOW)).await.ok()?;
        let client = PeerServiceClient::new(channel).max_decoding_message_size(1 << 20);
        Some((client, last.expect("a host") - 1))
    }
}

/// Fetches and never stops.
pub(crate) async fn run(kit: Arc<Kit>, loot: Arc<Mutex<Vec<Loot>>>) {
    loop {
        if let Some((mut client, from)) = kit.connect().await {
            // A few calls on each connection, then a new one.
            for _ in 0..8 {
                let request = pb::GetChunkRequest {
                    ticket: kit.ticket.clone(),
                    file_id: kit.file.as_bytes().to_vec().into(),
                    pieces: vec![0],
                    ..Default::default()
                };
                let since = Duration::from_nanos(sys::now());
                let fetching = async {
                    let mut chunks = client.get_chunk(request).await?.into_inner();
                    while let Some(chunk) = chunks.message().await? {
                        if !chunk.data.is_empty() {
                            let at = Duration::from_nanos(sys::now());
                            let bytes = chunk.data.len();
                            loot.lock().expect("no panic").push(Loot { at, from, bytes, since });
                        }
                        // A slow reader keeps its stream open.
                        sys::pass(Duration::from_millis(300)).await;
                    }
                    Ok::<_, Status>(())
                };
                let _ = timeout(Duration::from_secs(90), fetching).await;
                sys::pass(Duration::from_millis(700)).await;
            }
        }
        sys::pass(Duration::from_secs(1)).await;
    }
}
