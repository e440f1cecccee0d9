//! The standing stream to the tracker: what this peer has goes out, what changes in its swarms comes in.
//!
//! The stream is opened again when it breaks, with a pause that doubles from one second to thirty and is jittered, so
//! that peers don't all come back at once. Each stream starts with everything this peer has, which is also what a tracker
//! that lost its memory needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::{
    convert,
    domain::{
        FileId, GroupId, Username,
        limits::{MAX_ANNOUNCE, MAX_PIECES_A_REQUEST},
    },
    pb::{self, file_announce::Holding as Wire},
    ticket::VerifyingKey,
};
use rand::RngExt as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::client::{CALL_LIMIT, TrackerClient};
use crate::{
    engine::{Engine, Held, Holding, SourceAddr},
    error::PeerError,
};

/// Pieces that were gained wait at most so long to be announced with others.
const COALESCE: Duration = Duration::from_secs(1);
/// Between two messages, whatever there is to say: the tracker takes two a second.
const PACE: Duration = Duration::from_millis(500);
/// Messages that may be sent at once after a pause.
const BURST: u32 = 4;
/// Most files in one message.
const MAX_FILES: usize = 1_000;
/// Room for framing and names in a message of [`MAX_ANNOUNCE`].
const MAX_BYTES: usize = MAX_ANNOUNCE - (64 << 10);
/// Pauses between tries.
const BACKOFF: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
/// Used until the tracker says how often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How the announcing goes, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceState {
    /// The stream stands.
    pub connected: bool,
    /// The address that the tracker sees this peer at, without port.
    pub observed_ip: Option<String>,
    /// What to add to this clock to get the tracker's, in seconds.
    pub clock_offset: i64,
    /// Why the last try failed.
    pub problem: Option<String>,
}

/// What the tracker says that concerns more than the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// The file must be shared and downloaded no more: unpublished, or this user is out of the group.
    FileEnded(GroupId, FileId),
    /// The session is over; announcing has ended.
    SessionOver,
}

/// Announces for one login.
pub struct Announcer {
    /// The tracker.
    pub tracker: TrackerClient,
    /// What is announced, and what is told of sources and trust.
    pub engine: Engine,
    /// This peer, the port that it is bound to, and the address that it wants handed out (or nothing).
    pub hello: pb::AnnounceHello,
    /// How it goes.
    pub state: watch::Sender<AnnounceState>,
    /// What concerns more than the engine.
    pub events: mpsc::Sender<AnnounceEvent>,
}

impl Announcer {
    /// Announces until `stop` or the end of the session.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = *BACKOFF.start();
        while let Some(ended) = stop.run_until_cancelled(self.stream()).await {
            let stood = self.state.borrow().connected;
            let problem =
                ended.map_or_else(|error| error, |()| self.tracker.unreachable("it closed the stream"));
            if problem.is_session_over() {
                tracing::warn!("the session is over");
                // The receiver lives as long as the login; without it nobody cares.
                let _ = self.events.send(AnnounceEvent::SessionOver).await;
                break;
            }
            tracing::info!(%problem, "announcing broke off");
            self.state.send_modify(|state| {
                state.connected = false;
                state.problem = Some(problem.to_string());
            });
            if stood {
                pause = *BACKOFF.start();
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            if stop.run_until_cancelled(tokio::time::sleep(jittered)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(*BACKOFF.end());
        }
        self.state.send_modify(|state| state.connected = false);
    }

    /// One stream, from hello to its end.
    async fn stream(&self) -> Result<(), PeerError> {
        let mut client = self.tracker.swarm().await?;
        let (sender, requests) = mpsc::channel(4);
        let hello = pb::AnnounceRequest { hello: Some(self.hello.clone()), ..Default::default() };
        // There is room: nothing was sent yet.
        let _ = sender.try_send(hello);
        let mut answers = self.tracker.within(client.announce(ReceiverStream::new(requests))).await?;
        let welcome = self.welcome(&mut answers).await?;
        let heartbeat = match welcome.heartbeat_seconds {
            0 => HEARTBEAT,
            seconds => Duration::from_secs(seconds.clamp(1, 60).into()),
        };
        tokio::select! {
            outcome = self.listen(&mut answers) => outcome,
            () = self.speak(&sender, heartbeat) => Ok(()),
        }
    }

    async fn welcome(
        &self,
        answers: &mut Streaming<pb::AnnounceResponse>,
    ) -> Result<pb::AnnounceWelcome, PeerError> {
        let silent = || self.tracker.unreachable("it does not answer the announce");
        let first = tokio::time::timeout(CALL_LIMIT, answers.message()).await.map_err(|_| silent())?;
        let first =
            first.map_err(|status| PeerError::of_call(self.tracker.url(), status))?.ok_or_else(silent)?;
        let no_welcome = || PeerError::TrackerAnswer("the announce stream begins without a welcome".into());
        let welcome = first.welcome.clone().ok_or_else(no_welcome)?;
        self.engine.set_ticket_keys(welcome.keys.iter().filter_map(ticket_key).collect());
        self.state.send_modify(|state| {
            *state = AnnounceState {
                connected: true,
                observed_ip: Some(welcome.observed_ip.clone()).filter(|ip| !ip.is_empty()),
                clock_offset: state.clock_offset,
                problem: None,
            };
        });
        self.take(first).await;
        Ok(welcome)
    }

    /// Takes in what the tracker says until the stream ends.
    async fn listen(&self, answers: &mut Streaming<pb::AnnounceResponse>) -> Result<(), PeerError> {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(message).await,
                Ok(None) => return Ok(()),
                Err(status) => return Err(PeerError::of_call(self.tracker.url(), status)),
            }
        }
    }

    async fn take(&self, message: pb::AnnounceResponse) {
        if let Some(tracker_clock) = message.now {
            self.note_clock(tracker_clock.seconds);
        }
        let epochs = message.epochs.iter();
        let epochs: Vec<_> = epochs
            .filter_map(|epoch| Some((convert::group_id(&epoch.group_id).ok()?, epoch.min_epoch)))
            .collect();
        if !epochs.is_empty() {
            self.engine.raise_epochs(epochs);
        }
        for change in message.changes {
            let Ok((group, file)) = convert::file_ref(change.file.as_ref()) else { continue };
            if change.ended {
                // The receiver lives as long as the login; without it nobody cares.
                let _ = self.events.send(AnnounceEvent::FileEnded(group, file)).await;
                continue;
            }
            let gone = change.gone_peer_ids.iter().filter_map(|peer| convert::peer_id(peer).ok()).collect();
            let found = change.sources.into_iter().filter_map(source).collect();
            self.engine.sources(file, found, gone);
        }
    }

    fn note_clock(&self, tracker_seconds: i64) {
        let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = tracker_seconds.saturating_sub(i64::try_from(ours.as_secs()).unwrap_or(i64::MAX));
        // Within what the network and rounding make of it, the clocks agree.
        let offset = if offset.unsigned_abs() <= 2 { 0 } else { offset };
        let changed =
            self.state.send_if_modified(|state| std::mem::replace(&mut state.clock_offset, offset) != offset);
        if changed {
            self.engine.set_clock_offset(offset);
        }
    }

    /// Sends what this peer has and gains, and a heartbeat when there is nothing to say. Ends with the stream.
    async fn speak(&self, sender: &mpsc::Sender<pb::AnnounceRequest>, heartbeat: Duration) {
        let mut holdings = self.engine.holdings();
        let mut pending = Pending::default();
        let mut pace = Pace::new(Instant::now());
        let mut beat = Instant::now() + heartbeat;
        loop {
            let due = pending.due().map(|due| due.max(pace.next()));
            tokio::select! {
                news = holdings.next() => {
                    let now = Instant::now();
                    news.into_iter().for_each(|holding| pending.add(holding, now));
                    continue;
                }
                () = sleep_until(due.unwrap_or(beat).min(beat.max(pace.next()))) => {}
            }
            let stats = self.engine.stats();
            let message = pb::AnnounceRequest {
                hello: None,
                files: pending.take(),
                load: stats.uploads_active + stats.uploads_waiting,
            };
            if sender.send(message).await.is_err() {
                return;
            }
            let now = Instant::now();
            pace.sent(now);
            beat = now + heartbeat;
        }
    }
}

/// When the next message may go: a small burst, then evenly.
struct Pace {
    /// Grows by [`PACE`] with each message; may lie [`BURST`] messages in the future.
    spent_until: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { spent_until: now }
    }

    fn next(&self) -> Instant {
        self.spent_until.checked_sub(PACE * BURST).unwrap_or(self.spent_until)
    }

    fn sent(&mut self, now: Instant) {
        self.spent_until = self.spent_until.max(now) + PACE;
    }
}

/// What is to be announced, merged by file.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeMap<FileId, Holding>,
    /// Files of which the tracker knows, or will, that this peer holds nothing yet.
    empty: BTreeSet<FileId>,
    due: Option<Instant>,
}

impl Pending {
    fn add(&mut self, news: Holding, now: Instant) {
        // A file that is new or gone matters to others at once, and so does the first piece: it makes this peer a source.
        // Other pieces can wait for more of their kind.
        let was_empty = self.empty.remove(&news.file);
        if matches!(&news.what, Held::Bitfield(bits) if bits.is_empty()) {
            self.empty.insert(news.file);
        }
        let can_wait = matches!(news.what, Held::Gained(_)) && !was_empty;
        let due = if can_wait { now + COALESCE } else { now };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        match self.files.entry(news.file) {
            std::collections::btree_map::Entry::Vacant(empty) => {
                empty.insert(news);
            }
            std::collections::btree_map::Entry::Occupied(mut held) => {
                let held = held.get_mut();
                held.wants_sources = news.wants_sources;
                match (&mut held.what, news.what) {
                    (Held::Gained(pieces), Held::Gained(more)) => pieces.extend(more),
                    (Held::Bitfield(bits), Held::Gained(more)) => {
                        more.into_iter().for_each(|piece| {
                            bits.insert(piece);
                        });
                    }
                    (Held::Complete, Held::Gained(_)) => {}
                    (what, news) => *what = news,
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    /// As much as one message holds. The rest stays due.
    fn take(&mut self) -> Vec<pb::FileAnnounce> {
        let mut message = Vec::new();
        let mut bytes = 0;
        while message.len() < MAX_FILES
            && let Some(mut entry) = self.files.first_entry()
        {
            let cost = cost(entry.get());
            if bytes > 0 && bytes + cost > MAX_BYTES {
                break;
            }
            bytes += cost;
            match &mut entry.get_mut().what {
                // More than one announce may name: the rest goes with the next message.
                Held::Gained(pieces) if pieces.len() > MAX_PIECES_A_REQUEST => {
                    let rest = pieces.split_off(MAX_PIECES_A_REQUEST);
                    let now = std::mem::replace(pieces, rest);
                    let whole = entry.get();
                    message.push(to_wire(Holding { what: Held::Gained(now), ..whole.clone() }));
                    break;
                }
                _ => message.push(to_wire(entry.remove())),
            }
        }
        if self.files.is_empty() {
            self.due = None;
        }
        message
    }
}

/// Bytes on the wire, roughly and at most.
fn cost(holding: &Holding) -> usize {
    let names = 64 + holding.group.as_str().len();
    names
        + match &holding.what {
            Held::Complete | Held::Left => 0,
            Held::Bitfield(bits) => bits.as_bytes().len(),
            Held::Gained(pieces) => pieces.len().min(MAX_PIECES_A_REQUEST) * 4,
        }
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

/// A source as the tracker names it; none if it makes no sense.
fn source(source: pb::Source) -> Option<SourceAddr> {
    let peer = source.peer?;
    let username: Username = convert::username(&peer.username).ok()?;
    // At most 4 by the rules; more would only be more to dial.
    let addresses = peer.addresses.into_iter().take(4).filter(|address| address.len() <= 300).collect();
    Some(SourceAddr { peer: convert::peer_id(&peer.peer_id).ok()?, addresses, username })
}

fn ticket_key(key: &pb::TicketKey) -> Option<VerifyingKey> {
    let bytes = key.public_key.as_ref().try_into().ok()?;
    Some(VerifyingKey { id: key.key_id.clone(), bytes })
}

/// The hello of this peer.
pub fn hello(peer: proto::domain::PeerId, port: u16, advertise: Option<&str>) -> pb::AnnounceHello {
    pb::AnnounceHello {
        peer_id: peer.to_string(),
        port: port.into(),
        advertise: advertise.map(|host| with_port(host, port)).unwrap_or_default(),
    }
}

/// `host` or `host:port`, the port filled in.
pub fn with_port(host: &str, port: u16) -> String {
    if crate::identity::split_host_port(host).is_some() {
        host.to_owned()
    } else if host.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Shared by the parts of a login that want to know how announcing goes.
pub type AnnounceWatch = watch::Receiver<AnnounceState>;

/// What [`Announcer::state`] starts from.
pub fn quiet() -> Arc<watch::Sender<AnnounceState>> {
    Arc::new(watch::Sender::new(AnnounceState::default()))
}

#[cfg(test)]
mod tests {
    use proto::domain::{Bitfield, PIECE_LENGTH, PieceIndex, PieceLayout};

    use super::*;

    fn layout(pieces: u64) -> PieceLayout {
        PieceLayout::new(pieces * u64::from(PIECE_LENGTH)).expect("a valid length")
    }

    fn pieces(range: std::ops::Range<u64>) -> Vec<PieceIndex> {
        let layout = layout(1 << 20);
        range.map(|index| layout.index(index).expect("in the file")).collect()
    }

    fn holding(byte: u8, what: Held) -> Holding {
        let file = FileId::try_from(&[byte; 16][..]).expect("a file id");
        Holding { group: "g1".parse().expect("a group"), file, what, wants_sources: true }
    }

    #[test]
    fn news_of_a_file_is_merged() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(holding(1, Held::Gained(pieces(0..2))), now);
        pending.add(holding(1, Held::Gained(pieces(2..3))), now);
        assert_eq!(pending.due(), Some(now + COALESCE));
        pending.add(holding(2, Held::Bitfield(Bitfield::empty(layout(16)))), now);
        assert_eq!(pending.due(), Some(now), "a new file does not wait");
        pending.add(holding(2, Held::Gained(pieces(3..4))), now);
        pending.add(holding(3, Held::Complete), now);
        pending.add(holding(3, Held::Left), now);
        let message = pending.take();
        assert_eq!(pending.due(), None);
        let held: Vec<_> = message.into_iter().filter_map(|file| file.holding).collect();
        assert_eq!(
            held,
            [
                Wire::Gained(pb::PieceList { pieces: vec![0, 1, 2] }),
                Wire::Bitfield(pb::Bitfield { bits: vec![0b0001_0000, 0].into() }),
                Wire::Left(true),
            ]
        );
    }

    #[test]
    fn the_first_piece_of_a_file_is_announced_at_once() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(holding(1, Held::Bitfield(Bitfield::empty(layout(16)))), now);
        pending.take();
        pending.add(holding(1, Held::Gained(pieces(0..1))), now);
        assert_eq!(pending.due(), Some(now));
        pending.take();
        pending.add(holding(1, Held::Gained(pieces(1..2))), now);
        assert_eq!(pending.due(), Some(now + COALESCE));
    }

    #[test]
    fn messages_stay_within_their_limits() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(holding(1, Held::Gained(pieces(0..100_000))), now);
        pending.add(holding(2, Held::Bitfield(Bitfield::full(layout(2_000_000)))), now);
        pending.add(holding(3, Held::Bitfield(Bitfield::full(layout(2_000_000)))), now);
        let mut gained = 0;
        let mut messages = 0;
        while pending.due().is_some() {
            let message = pending.take();
            assert!(!message.is_empty());
            let bytes: usize = message.iter().map(prost::Message::encoded_len).sum();
            assert!(bytes <= MAX_ANNOUNCE, "{bytes}");
            for file in message {
                if let Some(Wire::Gained(list)) = file.holding {
                    assert!(list.pieces.len() <= MAX_PIECES_A_REQUEST);
                    gained += list.pieces.len();
                }
            }
            messages += 1;
        }
        assert_eq!((gained, messages), (100_000, 3));
    }

    #[test]
    fn the_pace_allows_a_burst_and_then_two_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..=BURST {
            assert!(pace.next() <= now, "within the burst");
            pace.sent(now);
        }
        assert!(pace.next() > now);
        for _ in 0..10 {
            now = now.max(pace.next());
            pace.sent(now);
        }
        assert!(now - start >= Duration::from_secs(5), "{:?}", now - start);
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
