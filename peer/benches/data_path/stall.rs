//! A reader that stalls among others that don't: what a serving daemon's memory is measured against.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use proto::{
    pb::{
        ExportCertRequest, FileName, GetChunkRequest, GetTicketRequest, GetTicketResponse,
        control_service_client::ControlServiceClient, peer_service_client::PeerServiceClient,
    },
    transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect_lazy},
};
use tonic::transport::Channel;

/// Streams that one connection carries.
const STREAMS_A_CONNECTION: u32 = 8;

/// Who is asked, and for what.
pub(super) struct Ask<'a> {
    /// The control socket of the daemon whose identity and ticket are used.
    pub(super) socket: &'a Path,
    /// The authority's certificate.
    pub(super) ca: &'a Path,
    pub(super) group: &'a str,
    pub(super) name: &'a str,
    /// Where the serving daemon listens, and the name in its certificate.
    pub(super) address: &'a str,
    pub(super) tls_name: &'a str,
}

/// Asks for the file in `streams` streams, and reads and drops what comes on all of them but the first, of which it reads
/// one message. Until it is killed.
#[tokio::main]
pub(super) async fn run(ask: &Ask<'_>, streams: u32) -> Result<()> {
    let tuning = ChannelTuning::control();
    let socket = Remote::Unix(ask.socket.to_owned());
    let mut control = ControlServiceClient::new(connect_lazy(socket, ClientSecurity::Plaintext, &tuning));
    let file = FileName { group_id: ask.group.to_owned(), name: ask.name.to_owned() };
    let ticket = Arc::new(control.get_ticket(GetTicketRequest { file: Some(file) }).await?.into_inner());
    let own = control.export_cert(ExportCertRequest {}).await?.into_inner();
    let identity = (own.certificate_pem.as_str(), own.key_pem.as_str());
    let tls = client_config(&std::fs::read_to_string(ask.ca)?, Some(identity))?;

    let mut connection = None;
    for stream in 0..streams {
        if stream % STREAMS_A_CONNECTION == 0 {
            connection = Some(dial(ask, Arc::clone(&tls))?);
        }
        let channel = connection.clone().context("there is a connection from the first stream on")?;
        let ticket = Arc::clone(&ticket);
        tokio::spawn(async move {
            loop {
                if let Err(error) = read(channel.clone(), &ticket, stream, streams).await {
                    eprintln!("stream {stream}: {error:#}");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    println!("listening nowhere");
    std::future::pending().await
}

fn dial(ask: &Ask<'_>, config: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let (host, port) = ask.address.rsplit_once(':').context("an address without a port")?;
    let remote = Remote::Tcp { host: host.to_owned(), port: port.parse()? };
    let security = ClientSecurity::Tls { config, server_name: ask.tls_name.to_owned() };
    Ok(connect_lazy(remote, security, &ChannelTuning::data()))
}

/// Each stream asks for pieces of its own: 1,024 of them in a row, so that no set is too large.
async fn read(channel: Channel, ticket: &GetTicketResponse, stream: u32, streams: u32) -> Result<()> {
    let pieces = 1_024 / u64::from(streams);
    let first = u64::from(stream) * pieces;
    let request = GetChunkRequest {
        ticket: ticket.ticket.clone(),
        file_id: ticket.file_id.clone(),
        pieces: (first..first + pieces).collect(),
        ..GetChunkRequest::default()
    };
    let mut client = PeerServiceClient::new(channel).max_decoding_message_size(1 << 20);
    let mut chunks = client.get_chunk(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        if stream == 0 && !chunk.data.is_empty() {
            // The serving side gives up on it in time; then it asks again.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    Ok(())
}
