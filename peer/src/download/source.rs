//! One source: its connections and its pieces. Reports to the driver for as long as the source lasts.

use std::{
    fmt::Display,
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    convert,
    domain::{Bitfield, PeerId, PieceIndex, Username, limits::MAX_PEER_REQUEST},
    pb::{WatchAvailabilityRequest, peer_service_client::PeerServiceClient},
    reason::Reason,
};
use tonic::Status;
use transport::within;

use super::{
    context::{Context, Gone},
    links::{Lease, Link},
    request::ended,
};
use crate::{
    domain::{
        download::{Event, Failure, window},
        reach::unreached,
    },
    ports::{Obstacle, SourceAddr},
};

/// The time that a peer has to send its bitfield.
const ANSWER: Duration = Duration::from_secs(10);

/// The words for a source that breaks the protocol.
const BROKEN: &str = "it breaks the protocol";

/// A source that is in use.
pub(super) struct SourceConnection {
    /// Set once it is connected.
    pub(super) link: OnceLock<Arc<Link>>,
    /// The number of the connection. Reports of earlier connections are ignored.
    pub(super) generation: u64,
    pub(super) address: SourceAddr,
}

/// An open availability stream.
struct Watching {
    stream: tonic::Streaming<proto::pb::WatchAvailabilityResponse>,
    has: Bitfield,
    _lease: Lease,
}

/// Connects and watches the source until that fails. The failure is the last report. The caller cancels by
/// dropping the future.
pub(super) async fn run(context: Arc<Context>, source: Arc<SourceConnection>) {
    let peer = source.address.peer;
    let gone = match watch(&context, &source).await {
        Ok(never) => match never {},
        Err(gone) => gone,
    };
    tracing::debug!(%peer, failure = ?gone.failure, cause = gone.cause, "a source was lost");
    context.report_gone(peer, source.generation, gone).await;
}

/// The two ends of a connection, in words: the user and the address.
struct There<'a> {
    user: &'a Username,
    address: &'a str,
}

impl There<'_> {
    fn gone(&self, failure: Failure, what: impl Display) -> Gone {
        let cause = format!("{} at {}: {what}", self.user, self.address);
        Gone { failure, cause, attempts: Vec::new(), is_clock: false }
    }

    /// The source ended a call with this status.
    fn ended(&self, status: &Status) -> Gone {
        let failure = ended(status).err().unwrap_or(Failure::Connection);
        match Reason::of(status) {
            Some(reason) => {
                let gone = self.gone(failure, format_args!("it refuses: {}", status.message()));
                Gone { is_clock: reason == Reason::ClockOff, ..gone }
            }
            None => self.gone(failure, "the connection broke; is the link down, or the daemon there?"),
        }
    }
}

async fn watch(
    context: &Arc<Context>,
    source: &Arc<SourceConnection>,
) -> Result<std::convert::Infallible, Gone> {
    let SourceAddr { peer, addresses, username } = &source.address;
    let peer = *peer;
    let link = context.links.connect(peer, addresses, own_window(context)).await.map_err(|attempts| {
        let cause = unreached(username.as_str(), &attempts);
        let is_clock = attempts.iter().any(|attempt| attempt.obstacle == Obstacle::Clock);
        Gone { failure: Failure::Connection, cause, attempts, is_clock }
    })?;
    let there = There { user: username, address: link.address() };
    let _ = source.link.set(link.clone());
    let report = |event| context.report_source(peer, source.generation, event);
    let mut watching = open(context, &link, &there).await?;
    report(Event::Connected(peer, watching.has.clone())).await;
    loop {
        match watching.stream.message().await {
            Ok(Some(change)) => {
                if change.bitfield.is_some() {
                    return Err(there.gone(Failure::Protocol, BROKEN));
                }
                let broken = |failure| there.gone(failure, BROKEN);
                let gained = pieces(context, &change.gained).map_err(broken)?;
                let lost = pieces(context, &change.lost).map_err(broken)?;
                for piece in &gained {
                    watching.has.insert(*piece);
                }
                for piece in &lost {
                    watching.has.remove(*piece);
                }
                if !gained.is_empty() {
                    report(Event::Gained(peer, gained)).await;
                }
                if !lost.is_empty() {
                    report(Event::Lost(peer, lost)).await;
                }
            }
            Ok(None) => return Err(there.gone(Failure::NotShared, "it no longer shares the file")),
            // The ticket expired. A stream with a new ticket continues where this one ended.
            Err(status) if context.is_about_ticket(&status) => {
                context.rest_before_new_ticket(&status).await;
                let before = watching.has;
                watching = open(context, &link, &there).await?;
                let layout = context.spec.manifest.layout();
                let gained: Vec<_> =
                    watching.has.iter(layout).filter(|piece| !before.contains(*piece)).collect();
                let lost: Vec<_> =
                    before.iter(layout).filter(|piece| !watching.has.contains(*piece)).collect();
                report(Event::Gained(peer, gained)).await;
                report(Event::Lost(peer, lost)).await;
            }
            Err(status) => return Err(there.ended(&status)),
        }
    }
}

async fn open(context: &Arc<Context>, link: &Arc<Link>, there: &There<'_>) -> Result<Watching, Gone> {
    let mut refused = None;
    for fresh in [false, true] {
        let ticket = context.ticket(refused.take()).await;
        let ticket = ticket.map_err(|error| there.gone(Failure::Refused, error))?;
        match within(ANSWER, ask(context, link, &ticket)).await {
            Ok(Ok(watching)) => return Ok(watching),
            Ok(Err(status)) if !fresh && context.is_about_ticket(&status) => {
                context.rest_before_new_ticket(&status).await;
                refused = Some(ticket);
            }
            Ok(Err(status)) => return Err(there.ended(&status)),
            Err(_) => return Err(there.gone(Failure::Connection, "it does not answer; is the link down?")),
        }
    }
    let gone = there.gone(Failure::Refused, "it refuses a new ticket; are both clocks right?");
    Err(Gone { is_clock: true, ..gone })
}

async fn ask(context: &Arc<Context>, link: &Arc<Link>, ticket: &str) -> Result<Watching, Status> {
    let lease = link.lease(false, own_window(context)).await;
    // The bitfield of the longest file is half as long.
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

/// How far a source may send ahead under this peer's own rate limit.
fn own_window(context: &Context) -> u32 {
    window(context.limiter.rate())
}

fn pieces(context: &Context, indices: &[u64]) -> Result<Vec<PieceIndex>, Failure> {
    let layout = context.spec.manifest.layout();
    indices.iter().map(|index| layout.index(*index).ok_or(Failure::Protocol)).collect()
}

/// Whether a source that the tracker named can be used by this peer.
pub(super) fn is_usable(source: &SourceAddr, own: Option<PeerId>) -> bool {
    own != Some(source.peer) && !source.addresses.is_empty()
}
