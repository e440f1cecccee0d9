//! One source: its connections, and what it offers, told to the driver for as long as it lasts.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    convert,
    domain::{Bitfield, PeerId, PieceIndex, limits::MAX_PEER_REQUEST},
    pb::{WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
};
use tokio::time::timeout;
use tonic::Status;

use super::{
    context::Context,
    links::{Lease, Link},
    request::ended,
};
use crate::{
    domain::download::{Event, Failure},
    engine::SourceAddr,
};

/// How long a peer may take to tell what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// A source that is used.
pub(super) struct Source {
    /// There once it is connected.
    pub(super) link: OnceLock<Arc<Link>>,
    /// Which of the driver's connections it is: news of an earlier one are void.
    pub(super) generation: u64,
    pub(super) address: SourceAddr,
}

/// An open availability stream.
struct Watching {
    stream: tonic::Streaming<proto::pb::WatchAvailabilityResponse>,
    has: Bitfield,
    _lease: Lease,
}

/// Connects and watches until it fails; the failure is the last thing told. The caller cancels by dropping.
pub(super) async fn run(context: Arc<Context>, source: Arc<Source>) {
    let peer = source.address.peer;
    let failure = match watch(&context, &source).await {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    tracing::debug!(%peer, ?failure, "a source is gone");
    context.tell_of_source(peer, source.generation, Event::Disconnected(peer, failure)).await;
}

async fn watch(context: &Arc<Context>, source: &Arc<Source>) -> Result<std::convert::Infallible, Failure> {
    let peer = source.address.peer;
    let link = context.links.connect(peer, &source.address.addresses).await.map_err(|error| {
        tracing::debug!(%peer, %error, "a source can't be reached");
        Failure::Connection
    })?;
    let _ = source.link.set(link.clone());
    let tell = |event| context.tell_of_source(peer, source.generation, event);
    let mut watching = open(context, &link).await?;
    tell(Event::Connected(peer, watching.has.clone())).await;
    loop {
        match watching.stream.message().await {
            Ok(Some(change)) => {
                if change.bitfield.is_some() {
                    return Err(Failure::Protocol);
                }
                let gained = pieces(context, &change.gained)?;
                let lost = pieces(context, &change.lost)?;
                for piece in &gained {
                    watching.has.insert(*piece);
                }
                for piece in &lost {
                    watching.has.remove(*piece);
                }
                if !gained.is_empty() {
                    tell(Event::Gained(peer, gained)).await;
                }
                if !lost.is_empty() {
                    tell(Event::Lost(peer, lost)).await;
                }
            }
            Ok(None) => return Err(Failure::NotShared),
            // The ticket ran out: another one goes on where this one ended.
            Err(status) if context.is_about_ticket(&status) => {
                context.rest_before_new_ticket(&status).await;
                let before = watching.has;
                watching = open(context, &link).await?;
                let layout = context.spec.manifest.layout();
                let gained: Vec<_> =
                    watching.has.iter(layout).filter(|piece| !before.contains(*piece)).collect();
                let lost: Vec<_> =
                    before.iter(layout).filter(|piece| !watching.has.contains(*piece)).collect();
                tell(Event::Gained(peer, gained)).await;
                tell(Event::Lost(peer, lost)).await;
            }
            Err(status) => return Err(failure(&status)),
        }
    }
}

async fn open(context: &Arc<Context>, link: &Arc<Link>) -> Result<Watching, Failure> {
    let mut refused = None;
    for fresh in [false, true] {
        let ticket = context.ticket(refused.take()).await.map_err(|_| Failure::Refused)?;
        match timeout(ANSWER, ask(context, link, &ticket)).await {
            Ok(Ok(watching)) => return Ok(watching),
            Ok(Err(status)) if !fresh && context.is_about_ticket(&status) => {
                context.rest_before_new_ticket(&status).await;
                refused = Some(ticket);
            }
            Ok(Err(status)) => return Err(failure(&status)),
            Err(_) => return Err(Failure::Connection),
        }
    }
    Err(Failure::Refused)
}

async fn ask(context: &Arc<Context>, link: &Arc<Link>, ticket: &str) -> Result<Watching, Status> {
    let lease = link.lease(false).await;
    // A bitfield of the longest file has half of that.
    let mut client =
        PeerServiceClient::new(lease.channel.clone()).max_decoding_message_size(MAX_PEER_REQUEST);
    let request = WatchAvailabilityRequest {
        ticket: ticket.to_owned(),
        file_id: context.spec.file.as_bytes().to_vec().into(),
    };
    let mut stream = client.watch_availability(request).await?.into_inner();
    let first = stream.message().await?.and_then(|first| first.bitfield);
    let first = first.ok_or_else(|| Status::internal("the first message has no bitfield"))?;
    let has = convert::bitfield(context.spec.manifest.layout(), &first)?;
    Ok(Watching { stream, has, _lease: lease })
}

fn failure(status: &Status) -> Failure {
    ended(status).err().unwrap_or(Failure::Connection)
}

fn pieces(context: &Context, indices: &[u64]) -> Result<Vec<PieceIndex>, Failure> {
    let layout = context.spec.manifest.layout();
    indices.iter().map(|index| layout.index(*index).ok_or(Failure::Protocol)).collect()
}

/// Whether a tracker's source can be one of ours.
pub(super) fn is_usable(source: &SourceAddr, own: Option<PeerId>) -> bool {
    own != Some(source.peer) && !source.addresses.is_empty()
}
