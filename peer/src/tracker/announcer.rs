//! The long-lived announce stream to the tracker. It sends what this peer has, and receives what changes in
//! its swarms.
//!
//! [`Announces`] decides what is sent and when.
//!
//! When the stream breaks it is opened again: at another tracker at once, if the network has one that may
//! answer, else after a pause. The pause doubles from one second to thirty and is jittered, so that peers don't
//! all come back at once. Each stream starts with everything that this peer has. A tracker that lost its memory
//! needs that as well, and so does one that this peer comes to from another.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use peer_core::{
    announce::{Announces, Held, Holding},
    evictions::Evictions,
    subscription::Listed,
};

use proto::{
    convert,
    domain::{
        FileId, GroupId, PeerId, Username,
        limits::{HEARTBEAT, MAX_ADDRESSES},
    },
    pb::{self, file_announce::Holding as Wire},
    ticket::VerifyingKey,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    client::TrackerClient,
    line::{CALL_LIMIT, Line},
    outage::Outage,
};
use crate::{
    engine::Engine,
    error::PeerError,
    interfaces::announceable,
    ports::{Obstacle, SourceAddr, Unreached},
};

/// The shortest and the longest pause between tries at a tracker that answers, before jitter.
const BACKOFF: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
/// How long one of several trackers may take to answer the announce before another one is asked.
const WELCOME_OF_SEVERAL: Duration = Duration::from_secs(4);
/// How long the tracker may take to forget this peer when it leaves.
const FAREWELL: Duration = Duration::from_secs(1);
/// The most ticket keys that are accepted from a tracker, which has two at a time; and the most bytes of a
/// key's id.
const MAX_KEYS: usize = 16;
const MAX_KEY_ID: usize = 64;
/// The most peers that are remembered because they could not reach this one.
const MAX_UNREACHED: usize = 16;
/// The most groups of one message whose files must be listed. A user is in fewer.
const MAX_UNLISTED: usize = 10_000;

/// The state of announcing, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnnounceState {
    /// The stream is open.
    pub connected: bool,
    /// The address, without port, at which the tracker sees this peer.
    pub observed_ip: Option<String>,
    /// The addresses of this peer that the tracker gives to others. Loopback addresses are for this host.
    pub addresses: Vec<String>,
    /// Another daemon with this peer's key took this one's place at the tracker, at least once in this login.
    pub evicted: bool,
    /// Peers that could not reach this one, the latest last.
    pub unreached_by: Vec<UnreachedBy>,
    /// The seconds to add to this clock to get the tracker's.
    pub clock_offset: i64,
    /// The reason why the last try failed.
    pub problem: Option<String>,
}

/// A peer that could not reach this one, as it told the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreachedBy {
    /// The user of that peer.
    pub user: Username,
    /// The address that it tried.
    pub address: String,
    /// What it met.
    pub obstacle: Obstacle,
    /// When the tracker told it.
    pub at: SystemTime,
}

/// A report of the tracker that concerns more than the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnnounceEvent {
    /// The file must not be shared or downloaded any more: it was unpublished, or this user is no longer in
    /// the group.
    FileEnded(GroupId, FileId),
    /// The stream was opened. Files may have been published before.
    Opened,
    /// A file was published in a group of this user.
    Published(GroupId, Listed),
    /// Files were published in these groups that are not named.
    Unlisted(Vec<GroupId>),
    /// The user is or was a member of these groups, and may have become one just now.
    EpochsTold(Vec<GroupId>),
    /// The session is over, and announcing has ended.
    SessionOver,
}

/// An open stream.
struct Stream {
    sender: mpsc::Sender<pb::AnnounceRequest>,
    answers: Streaming<pb::AnnounceResponse>,
    heartbeat: Duration,
    /// What the peer said of itself.
    hello: pb::AnnounceHello,
}

/// Says that another daemon uses this peer's key, and what to do.
fn shared_key(user: &Username, by: &str) -> String {
    format!(
        "another daemon uses the key of this peer: {by}. They replaced each other three times within a minute, so this \
         one no longer announces. If this home is a copy, `peer login {user} --new-key` makes it a peer of its own; if \
         not, stop the other daemon, then `peer login {user}`"
    )
}

/// Announces during one login.
pub(crate) struct Announcer {
    /// The tracker.
    pub tracker: TrackerClient,
    /// The engine whose files are announced. It receives the tracker's reports of sources, ticket keys and
    /// epochs.
    pub engine: Engine,
    /// The user who is logged in.
    pub user: Username,
    /// The peer.
    pub peer: PeerId,
    /// The address that the peer is bound to.
    pub listen: SocketAddr,
    /// The addresses that the tracker is to hand out. Empty: those of this host, and the one that the tracker
    /// sees.
    pub advertise: Vec<String>,
    /// The state of announcing.
    pub state: watch::Sender<AnnounceState>,
    /// Receives the reports that concern more than the engine.
    pub events: mpsc::Sender<AnnounceEvent>,
    /// What was logged about a tracker that is away.
    pub outage: parking_lot::Mutex<Outage>,
}

impl Announcer {
    /// Announces until `stop` is cancelled or the session ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut pause = *BACKOFF.start();
        let (begin, mut evictions) = (Instant::now(), Evictions::default());
        loop {
            let line = self.tracker.line();
            let ended = self.stream(&line, &stop).await;
            if stop.is_cancelled() {
                break;
            }
            let stood = self.state.borrow().connected;
            let problem =
                ended.map_or_else(|error| error, |()| line.unreachable("the tracker closed the stream"));
            if problem.is_session_over() {
                tracing::warn!("the session has ended");
                self.tell(AnnounceEvent::SessionOver).await;
                break;
            }
            if let Some(by) = problem.evicted_by() {
                self.state.send_modify(|state| state.evicted = true);
                if evictions.note(begin.elapsed()) {
                    let problem = shared_key(&self.user, by);
                    tracing::warn!(problem, "announcing has ended");
                    self.state.send_modify(|state| (state.connected, state.problem) = (false, Some(problem)));
                    break;
                }
            }
            tracing::debug!(%problem, "the announce stream ended; it is opened again");
            if let Some(tries) = self.outage.lock().failed(std::time::Instant::now()) {
                tracing::warn!(%problem, tries, "the tracker is away; retrying");
            }
            self.state.send_modify(|state| {
                state.connected = false;
                state.problem = Some(problem.to_string());
            });
            if stood {
                pause = *BACKOFF.start();
            }
            let wait = async {
                if problem.is_tracker_away() {
                    self.tracker.failed(&line);
                    // One of several servers of the same name may answer at once.
                    if !stood || !self.tracker.has_spares() {
                        self.tracker.due().await;
                    }
                } else {
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                    pause = (pause * 2).min(*BACKOFF.end());
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                break;
            }
        }
        self.state.send_modify(|state| state.connected = false);
    }

    /// Runs one stream, from its hello to its end. When `stop` is cancelled, the tracker is told that this
    /// peer leaves.
    async fn stream(&self, line: &Line, stop: &CancellationToken) -> Result<(), PeerError> {
        let Some(opened) = stop.run_until_cancelled(self.open(line)).await else { return Ok(()) };
        let Stream { sender, mut answers, heartbeat, hello } = opened?;
        tokio::select! {
            outcome = self.listen(line, &mut answers) => return outcome,
            () = self.speak(&sender, heartbeat, &hello) => return Ok(()),
            () = stop.cancelled() => {}
        }
        let farewell = async {
            let leaving = pb::AnnounceRequest { leaving: true, ..Default::default() };
            // If it can't be sent, the stream is over, and the tracker waits for the end of the lease.
            let _ = sender.send(leaving).await;
            // The tracker ends the stream when it has forgotten this peer.
            while let Ok(Some(_)) = answers.message().await {}
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("the tracker did not take the farewell in time");
        }
        Ok(())
    }

    async fn open(&self, line: &Line) -> Result<Stream, PeerError> {
        let mut client = line.swarm().await?;
        let (sender, requests) = mpsc::channel(4);
        let hello = hello(self.peer, self.listen, &self.advertise);
        let first = pb::AnnounceRequest { hello: Some(hello.clone()), ..Default::default() };
        // The channel has room, because nothing was sent yet.
        let _ = sender.try_send(first);
        let mut answers = line.within(client.announce(ReceiverStream::new(requests))).await?;
        let welcome = self.welcome(line, &mut answers).await?;
        let heartbeat = match welcome.heartbeat_seconds {
            0 => HEARTBEAT,
            seconds => Duration::from_secs(seconds.clamp(1, 60).into()),
        };
        Ok(Stream { sender, answers, heartbeat, hello })
    }

    async fn welcome(
        &self,
        line: &Line,
        answers: &mut Streaming<pb::AnnounceResponse>,
    ) -> Result<pb::AnnounceWelcome, PeerError> {
        let silent = || line.unreachable("the tracker did not answer the announce");
        let limit = if self.tracker.has_spares() { WELCOME_OF_SEVERAL } else { CALL_LIMIT };
        let first = tokio::time::timeout(limit, answers.message()).await.map_err(|_| silent())?;
        let first = first.map_err(|status| PeerError::of_call(line.url(), status))?.ok_or_else(silent)?;
        let no_welcome = || PeerError::TrackerAnswer("the announce stream started without a welcome".into());
        let welcome = first.welcome.clone().ok_or_else(no_welcome)?;
        self.tracker.answered(line);
        self.state.send_modify(|state| {
            *state = AnnounceState {
                connected: true,
                observed_ip: Some(welcome.observed_ip.clone()).filter(|ip| !ip.is_empty()),
                clock_offset: state.clock_offset,
                addresses: welcome.addresses.clone(),
                unreached_by: Vec::new(),
                evicted: state.evicted,
                problem: None,
            };
        });
        if let Some(time) = self.outage.lock().over(std::time::Instant::now()) {
            tracing::info!(seconds = time.as_secs(), "the tracker is back");
        }
        // The welcome names the epochs of all groups that the user is in. They are set before the keys.
        // Otherwise a removed member's ticket would count for a moment.
        self.engine.set_epochs(epochs(&first));
        self.take(first).await;
        self.set_keys(&welcome.keys);
        self.tell(AnnounceEvent::Opened).await;
        Ok(welcome)
    }

    /// Handles the tracker's messages until the stream ends.
    async fn listen(
        &self,
        line: &Line,
        answers: &mut Streaming<pb::AnnounceResponse>,
    ) -> Result<(), PeerError> {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(message).await,
                Ok(None) => return Ok(()),
                Err(status) => return Err(PeerError::of_call(line.url(), status)),
            }
        }
    }

    async fn tell(&self, event: AnnounceEvent) {
        // The receiver lives as long as the login. Without it there is nobody to inform.
        let _ = self.events.send(event).await;
    }

    async fn take(&self, message: pb::AnnounceResponse) {
        if let Some(tracker_clock) = message.now {
            self.note_clock(tracker_clock.seconds);
        }
        let epochs = epochs(&message);
        if !epochs.is_empty() {
            let groups = epochs.iter().map(|(group, _)| group.clone()).collect();
            self.engine.raise_epochs(epochs);
            self.tell(AnnounceEvent::EpochsTold(groups)).await;
        }
        if !message.keys.is_empty() {
            self.set_keys(&message.keys);
        }
        self.note_unreached(&message.unreached_by);
        for published in message.published {
            let Ok((group, file)) = convert::file_ref(published.file.as_ref()) else { continue };
            let Ok(name) = convert::file_name(&published.name) else { continue };
            self.tell(AnnounceEvent::Published(group, Listed { name, file })).await;
        }
        let unlisted = message.unlisted_groups.iter().filter_map(|group| convert::group_id(group).ok());
        let unlisted: Vec<_> = unlisted.take(MAX_UNLISTED).collect();
        if !unlisted.is_empty() {
            self.tell(AnnounceEvent::Unlisted(unlisted)).await;
        }
        for change in message.changes {
            let Ok((group, file)) = convert::file_ref(change.file.as_ref()) else { continue };
            if change.ended {
                // Barred at once, not when the agent handles the event: this user's right to the file has
                // ended.
                self.engine.bar(&group, file);
                self.tell(AnnounceEvent::FileEnded(group, file)).await;
                continue;
            }
            let gone = change.gone_peer_ids.iter().filter_map(|peer| convert::peer_id(peer).ok()).collect();
            let found = change.sources.into_iter().filter_map(source).collect();
            self.engine.sources(file, found, gone);
        }
    }

    /// Notes the peers that could not reach this one.
    fn note_unreached(&self, told: &[pb::UnreachedBy]) {
        for new in told.iter().take(MAX_UNREACHED) {
            let Ok(user) = convert::username(&new.username) else { continue };
            let (address, obstacle) = (new.address.clone(), convert::obstacle(new.obstacle()));
            tracing::info!(%user, address, ?obstacle, "another peer can't reach this one");
            self.state.send_modify(|state| {
                state.unreached_by.retain(|old| (&old.user, &old.address) != (&user, &address));
                if state.unreached_by.len() >= MAX_UNREACHED {
                    state.unreached_by.remove(0);
                }
                let at = SystemTime::now();
                state.unreached_by.push(UnreachedBy { user, address, obstacle, at });
            });
        }
    }

    fn set_keys(&self, keys: &[pb::TicketKey]) {
        self.engine.set_ticket_keys(keys.iter().filter_map(ticket_key).take(MAX_KEYS).collect());
    }

    fn note_clock(&self, tracker_seconds: i64) {
        let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = tracker_seconds.saturating_sub(i64::try_from(ours.as_secs()).unwrap_or(i64::MAX));
        // A difference of 2 seconds can come from the network and from rounding, and counts as none.
        let offset = if offset.unsigned_abs() <= 2 { 0 } else { offset };
        self.state.send_if_modified(|state| std::mem::replace(&mut state.clock_offset, offset) != offset);
        // Passed on even if it has not changed: the engine computes the time from the last report.
        self.engine.set_clock_offset(offset);
    }

    /// Sends what this peer has and gains, and heartbeats when nothing changes. Ends with the stream, or when
    /// this host has other addresses than the `said` ones: only a new stream can say so.
    async fn speak(
        &self,
        sender: &mpsc::Sender<pb::AnnounceRequest>,
        heartbeat: Duration,
        said: &pb::AnnounceHello,
    ) {
        let start = Instant::now();
        let mut holdings = self.engine.holdings();
        let mut announces = Announces::new(start.elapsed(), heartbeat);
        loop {
            tokio::select! {
                reports = holdings.next() => {
                    let now = start.elapsed();
                    reports.into_iter().for_each(|holding| announces.report(now, holding));
                    continue;
                }
                () = sleep_until(start + announces.due()) => {}
            }
            if hello(self.peer, self.listen, &self.advertise) != *said {
                tracing::info!("this host has other addresses: announcing them");
                return;
            }
            let stats = self.engine.stats();
            let message = pb::AnnounceRequest {
                hello: None,
                files: announces.take(start.elapsed()).into_iter().map(to_wire).collect(),
                load: stats.uploads_active + stats.uploads_waiting,
                leaving: false,
                unreached: self.engine.take_unreached().into_iter().map(unreached_to_wire).collect(),
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

fn unreached_to_wire(unreached: Unreached) -> pb::UnreachedSource {
    pb::UnreachedSource {
        file: Some(convert::to_file_ref(&unreached.group, unreached.file)),
        peer_id: unreached.peer.to_string(),
        address: unreached.attempt.address,
        obstacle: convert::to_obstacle(unreached.attempt.obstacle).into(),
    }
}

fn epochs(message: &pb::AnnounceResponse) -> Vec<(GroupId, u64)> {
    let epoch = |told: &pb::GroupEpoch| Some((convert::group_id(&told.group_id).ok()?, told.min_epoch));
    message.epochs.iter().filter_map(epoch).collect()
}

fn to_wire(holding: Holding) -> pb::FileAnnounce {
    let what = match holding.what {
        Held::Complete => Wire::Complete(true),
        Held::Bitfield(bits) => Wire::Bitfield(convert::to_bitfield(&bits)),
        Held::Gained(pieces) => Wire::Gained(pb::PieceList {
            pieces: pieces.into_iter().map(|piece| piece.get().into()).collect(),
        }),
        Held::Left => Wire::Left(true),
    };
    pb::FileAnnounce {
        file: Some(convert::to_file_ref(&holding.group, holding.file)),
        wants_sources: holding.wants_sources,
        holding: Some(what),
    }
}

/// The source that the tracker named; `None` if the message is not valid.
pub(crate) fn source(source: pb::Source) -> Option<SourceAddr> {
    let peer = source.peer?;
    let username: Username = convert::username(&peer.username).ok()?;
    // On the tracker's host there may be a loopback address besides.
    let addresses = peer.addresses.into_iter().take(MAX_ADDRESSES + 1);
    let addresses = addresses.filter(|address| address.len() <= 300).collect();
    Some(SourceAddr { peer: convert::peer_id(&peer.peer_id).ok()?, addresses, username })
}

fn ticket_key(key: &pb::TicketKey) -> Option<VerifyingKey> {
    if key.key_id.len() > MAX_KEY_ID {
        return None;
    }
    let bytes = key.public_key.as_ref().try_into().ok()?;
    Some(VerifyingKey { id: key.key_id.clone(), bytes })
}

/// The hello of this peer.
fn hello(peer: PeerId, listen: SocketAddr, advertise: &[String]) -> pb::AnnounceHello {
    let port = listen.port();
    let mut asked = advertise.iter().map(|host| with_port(host, port));
    let advertise = asked.next();
    let addresses = match advertise {
        Some(_) => asked.collect(),
        None => {
            let own = announceable(listen.ip()).into_iter();
            own.map(|ip| SocketAddr::new(ip, port).to_string()).collect()
        }
    };
    pb::AnnounceHello {
        peer_id: peer.to_string(),
        port: port.into(),
        advertise: advertise.unwrap_or_default(),
        addresses,
        listen: listen.ip().to_string(),
    }
}

/// Returns `host:port`: adds the port if `host` has none.
pub(crate) fn with_port(host: &str, port: u16) -> String {
    if crate::identity::split_host_port(host).is_some() {
        host.to_owned()
    } else if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use proto::domain::{Bitfield, PIECE_LENGTH, PieceLayout, limits::MAX_ANNOUNCE};

    use super::*;

    #[test]
    fn an_encoded_message_stays_within_the_limit() {
        let layout = PieceLayout::new(2_000_000 * u64::from(PIECE_LENGTH)).expect("a valid length");
        let mut announces = Announces::new(Duration::ZERO, HEARTBEAT);
        for byte in 1..=4 {
            let file = FileId::try_from(&[byte; 16][..]).expect("a file id");
            let what = match byte {
                1 => Held::Gained((0..100_000).map(|at| layout.index(at).expect("in the file")).collect()),
                _ => Held::Bitfield(Bitfield::full(layout)),
            };
            let group = "g1".parse().expect("a group");
            announces.report(Duration::ZERO, Holding { group, file, what, wants_sources: true });
        }
        let mut messages = 0;
        loop {
            let files: Vec<_> = announces.take(Duration::ZERO).into_iter().map(to_wire).collect();
            if files.is_empty() {
                break;
            }
            let bytes = prost::Message::encoded_len(&pb::AnnounceRequest { files, ..Default::default() });
            assert!(bytes <= MAX_ANNOUNCE, "{bytes}");
            messages += 1;
        }
        assert!(messages > 1, "all fitted one message");
    }

    #[test]
    fn addresses_get_their_port() {
        for (host, full) in [
            ("peer1", "peer1:7"),
            ("peer1:8", "peer1:8"),
            ("10.0.0.1", "10.0.0.1:7"),
            ("::1", "[::1]:7"),
            ("[::1]:8", "[::1]:8"),
            ("[::1]", "[::1]:7"),
        ] {
            assert_eq!(with_port(host, 7), full);
        }
    }
}
