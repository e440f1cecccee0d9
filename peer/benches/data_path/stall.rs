//! A reader with one stalled stream among many. The benchmark measures a serving daemon's memory against it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use proto::pb::{
    ExportCertRequest, FileName, GetChunkRequest, GetTicketRequest, GetTicketResponse,
    control_service_client::ControlServiceClient, peer_service_client::PeerServiceClient,
};
use tonic::transport::Channel;
use transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect_lazy};

/// Streams on one connection.
const STREAMS_A_CONNECTION: u32 = 8;

/// The daemons that take part, and the file to request.
pub(super) struct Target<'a> {
    /// The control socket of the daemon whose identity and ticket are used.
    pub(super) socket: &'a Path,
    /// The authority's certificate.
    pub(super) ca: &'a Path,
    pub(super) group: &'a str,
    pub(super) name: &'a str,
    /// The address of the serving daemon, and the name in its certificate.
    pub(super) address: &'a str,
    pub(super) tls_name: &'a str,
}

/// Requests the file in `streams` streams. Reads one message of the first stream and then stalls it. Reads
/// and discards everything on the others. Runs until it is killed.
#[tokio::main]
pub(super) async fn run(target: &Target<'_>, streams: u32) -> Result<()> {
    let tuning = ChannelTuning::control();
    let socket = Remote::Unix(target.socket.to_owned());
    let mut control = ControlServiceClient::new(connect_lazy(socket, ClientSecurity::Plaintext, &tuning));
    let file = FileName { group_id: target.group.to_owned(), name: target.name.to_owned() };
    let ticket = Arc::new(control.get_ticket(GetTicketRequest { file: Some(file) }).await?.into_inner());
    let own = control.export_cert(ExportCertRequest {}).await?.into_inner();
    let identity = (own.certificate_pem.as_str(), own.key_pem.as_str());
    let tls = client_config(&std::fs::read_to_string(target.ca)?, Some(identity))?;

    let mut connection = None;
    for stream in 0..streams {
        if stream % STREAMS_A_CONNECTION == 0 {
            connection = Some(dial(target, Arc::clone(&tls))?);
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

fn dial(target: &Target<'_>, config: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let (host, port) = target.address.rsplit_once(':').context("an address without a port")?;
    let remote = Remote::Tcp { host: host.to_owned(), port: port.parse()? };
    let security = ClientSecurity::Tls { config, server_name: target.tls_name.to_owned() };
    Ok(connect_lazy(remote, security, &ChannelTuning::data()))
}

/// Each stream requests its own share of the first 1,024 pieces, consecutively, so that no set of pieces is
/// too large.
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
            // The serving side drops the stalled stream in the meantime. The loop in `run` then requests it
            // again.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    Ok(())
}
