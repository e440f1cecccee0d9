//! The runtime of the swarms: time, locks, and a mailbox for each announce stream.
//!
//! Nothing here is stored on disk. Files are distributed over shards. Each shard is a [`Swarms`] behind a
//! lock that is held briefly. The pending reports of a stream are in its [`Mailbox`].
//!
//! Access: a stream asks the store about its user's groups and files, while changes of access arrive from
//! elsewhere. So a stream reads [`Hub::generation`] before it asks the store, acts on the answer, and then
//! calls [`Hub::changed_since`]. A change increments the generation before it removes anything. So either the
//! change finds what the stream did, or the stream detects the change and asks the store again.
//!
//! A stream learns about its groups from the store, never from an earlier stream of the same peer. Leases
//! outlive streams, and neither stream was told about a change that happened between them.

mod mailbox;
#[cfg(test)]
mod orders;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::histogram::Histogram;
use proto::{
    domain::{FileId, GroupId, PeerId, PieceLayout, Username},
    reason::Reason,
};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::mailbox::{Letter, Mailbox, Over, Unreached};
use crate::{
    domain::{
        Change,
        selection::{FewestPieces, Policy},
        swarm::{
            AnnouncingPeer, FileAnnounce, NoBaseline, SourceInfo, SourceUpdate, Swarms, TrackerNo, Wake,
        },
        swarm_counts::{Count, SwarmCounts},
    },
    events::{Heard, Listener},
    keys::TicketKeys,
    metrics,
};

/// A power of two, large enough that two cores rarely use the same shard at once.
pub(crate) const SHARDS: usize = 64;
/// Interval at which leases are checked.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// If the clock moves away from elapsed time by this much, peers are told at once. A smaller change is
/// reported with the next message. Tickets are checked against the clock to the second.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Detects that the clock was set.
struct ClockWatch {
    passed: std::time::Instant,
    clock: SystemTime,
}

impl ClockWatch {
    /// Whether the clock was set by [`CLOCK_STEP`] or more since the last call.
    fn was_set(&mut self, passed: std::time::Instant, clock: SystemTime) -> bool {
        let expected = self.clock + passed.saturating_duration_since(self.passed);
        *self = Self { passed, clock };
        let off = clock.duration_since(expected).unwrap_or_else(|earlier| earlier.duration());
        off >= CLOCK_STEP
    }
}

/// The swarms and the streams.
pub struct Hub {
    shards: Vec<Mutex<Swarms>>,
    streams: Mutex<HashMap<PeerId, Arc<Mailbox>>>,
    policy: Box<dyn Policy>,
    instance: [u8; 16],
    started: Instant,
    generation: AtomicU64,
    /// Milliseconds to add to [`Hub::now`] to get the clock that all trackers of the network share, in
    /// milliseconds since 1970.
    shared_clock: AtomicU64,
    /// Whether that is the clock of the store that trackers share.
    follows_store: AtomicBool,
    /// Ends all streams.
    cut: Notify,
    /// The tasks of the streams; owned by [`Hub::run`].
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// Seconds spent on handling an announce.
    pub(crate) latency: Histogram,
}

impl Hub {
    /// Makes a hub without peers. Streams end at `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            streams: Mutex::default(),
            policy: Box::new(FewestPieces),
            instance: rand::random(),
            started: Instant::now(),
            generation: AtomicU64::new(0),
            shared_clock: AtomicU64::new(
                SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64
            ),
            follows_store: AtomicBool::new(false),
            cut: Notify::new(),
            tasks: TaskTracker::new(),
            shutdown,
            latency: metrics::latency(),
        })
    }

    /// Expires leases, and passes changes of access and of ticket keys to the streams, until shutdown. Then
    /// waits for the streams to end. The listener must be made before the first stream.
    pub async fn run(self: Arc<Self>, mut changes: Listener, keys: Arc<TicketKeys>) {
        let mut verifying = keys.verifying_keys();
        let mut tick = tokio::time::interval(EXPIRE_EVERY);
        let mut clock = ClockWatch { passed: std::time::Instant::now(), clock: SystemTime::now() };
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                heard = changes.next() => match heard {
                    Some(Heard::Change(change)) => self.apply(&change),
                    Some(Heard::Missed) => self.start_over(),
                    None => break,
                },
                Ok(()) = verifying.changed() => {
                    self.streams().values().for_each(|mailbox| mailbox.renew_keys());
                }
                _ = tick.tick() => {
                    if clock.was_set(std::time::Instant::now(), SystemTime::now()) {
                        tracing::warn!("the tracker's clock was set: every peer is told");
                        self.tell_clock();
                    }
                    self.expire();
                }
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The number of announced files, summed over all peers.
    pub(crate) fn leases(&self) -> u64 {
        let each = (0..SHARDS).map(|number| self.shard_number(number).leases() as u64);
        each.sum()
    }

    /// The number of files that at least one peer announces.
    pub(crate) fn swarms(&self) -> u64 {
        (0..SHARDS).map(|number| self.shard_number(number).swarms() as u64).sum()
    }

    /// The number of peers with a stream here.
    pub(crate) fn peers(&self) -> u64 {
        self.streams().len() as u64
    }

    /// An id that is random at each start.
    pub(crate) fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// The time since the start, which is the swarms' clock.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets the clock that all trackers of the network share, in milliseconds since 1970. Ignored while it is that of
    /// their store.
    pub(crate) fn set_shared_clock(&self, now: u64) {
        if !self.follows_store.load(Ordering::Relaxed) {
            self.shared_clock.store(self.since_start(now), Ordering::Relaxed);
        }
    }

    /// Goes by the clock of the store that trackers share, in milliseconds since 1970: their own may differ. Every peer
    /// is told if it was set.
    pub(crate) fn follow_store(&self, now: u64) {
        let new = self.since_start(now);
        let old = self.shared_clock.swap(new, Ordering::Relaxed);
        let was_set = u128::from(old.abs_diff(new)) >= CLOCK_STEP.as_millis();
        if self.follows_store.swap(true, Ordering::Relaxed) && was_set {
            tracing::warn!("the clock of the store was set: every peer is told");
            self.tell_clock();
        }
    }

    fn since_start(&self, now: u64) -> u64 {
        now.saturating_sub(self.now().as_millis() as u64)
    }

    /// The time by which tickets are signed, and which peers are told: that of the store that trackers share, else
    /// this machine's.
    pub(crate) fn clock(&self) -> SystemTime {
        if !self.follows_store.load(Ordering::Relaxed) {
            return SystemTime::now();
        }
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.shared_clock.load(Ordering::Relaxed)) + self.now()
    }

    /// When the open stream of a peer was opened, by the clock that all trackers share. 0 if none is open.
    pub(crate) fn stream_since(&self, peer: &PeerId) -> u64 {
        self.streams().get(peer).map_or(0, |mailbox| mailbox.since())
    }

    /// Whether the peer has a stream here, or announced this file or one of its shard here.
    pub(crate) fn is_here(&self, peer: &PeerId, file: FileId) -> bool {
        self.streams().contains_key(peer) || self.shard(file).0.is_here(peer)
    }

    /// Ends what a peer announces here, because its newest stream is at another tracker.
    pub(crate) fn move_away(&self, peer: &PeerId) {
        let stream = self.streams().get(peer).map(Arc::clone);
        if let Some(stream) = stream {
            stream.close(Over::Elsewhere);
        }
        self.everywhere(|swarms| if swarms.is_here(peer) { swarms.forget(peer) } else { Vec::new() });
    }

    /// Forgets all peers of another tracker.
    pub(crate) fn forget_tracker(&self, tracker: TrackerNo) {
        self.everywhere(|swarms| swarms.unlearn_others(tracker, &HashSet::new()));
    }

    /// The number of access changes so far.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether access changed since `seen`, and updates `seen`. If so, the store's last answer may be out of
    /// date.
    pub(crate) fn changed_since(&self, seen: &mut u64) -> bool {
        let now = self.generation();
        std::mem::replace(seen, now) != now
    }

    /// Returns the file's layout if the stream may announce the file without asking the store. That is so if
    /// the peer's lease on the file holds, and the stream is told about changes in the group.
    pub(crate) fn admitted(&self, stream: &Mailbox, group: &GroupId, file: FileId) -> Option<PieceLayout> {
        let hears = stream.knows_group(group);
        hears.then(|| self.shard(file).0.announced(&stream.peer, group, file)).flatten()
    }

    /// Opens a stream's mailbox. An older stream of the same peer ends.
    pub(crate) fn open(&self, mailbox: &Arc<Mailbox>) {
        mailbox.opened(self.shared_clock.load(Ordering::Relaxed) + self.now().as_millis() as u64);
        if let Some(older) = self.streams().insert(mailbox.peer, Arc::clone(mailbox)) {
            older.close(Over::Replaced(mailbox.from));
        }
    }

    /// Closes a stream's mailbox. The peer's announces stay until its lease ends.
    pub(crate) fn close(&self, mailbox: &Arc<Mailbox>) {
        let mut streams = self.streams();
        if streams.get(&mailbox.peer).is_some_and(|open| Arc::ptr_eq(open, mailbox)) {
            streams.remove(&mailbox.peer);
        }
    }

    /// Ends all streams, whatever they wait for, so that their peers go on at another tracker. What the peers
    /// announced stays until their leases end.
    pub(crate) fn cut_off(&self) {
        self.cut.notify_waiters();
    }

    /// Resolves at the next [`Hub::cut_off`] after this call.
    pub(crate) fn when_cut_off(&self) -> Notified<'_> {
        self.cut.notified()
    }

    /// The shard of a file, and its number.
    pub(crate) fn shard(&self, file: FileId) -> (MutexGuard<'_, Swarms>, usize) {
        // File ids are random, so the first byte distributes them evenly.
        let number = usize::from(file.as_bytes()[0]) % SHARDS;
        (self.shard_number(number), number)
    }

    pub(crate) fn shard_number(&self, number: usize) -> MutexGuard<'_, Swarms> {
        self.shards[number].lock()
    }

    /// Marks the streams of the woken leechers.
    pub(crate) fn wake(&self, wakes: &[Wake]) {
        if wakes.is_empty() {
            return;
        }
        let streams = self.streams();
        for wake in wakes {
            if let Some(mailbox) = streams.get(&wake.peer) {
                mailbox.wake(wake.file);
            }
        }
    }

    /// Passes an announce to the file's swarm, wakes the leechers that it concerns, and returns the number of
    /// the shard. The caller has already checked that the peer may announce the file. Does nothing if the
    /// stream `is_over`. This is asked under the lock of the shard: a newer stream of the peer changes the
    /// swarm only after the older one is over, so the older one can't undo the change.
    ///
    /// # Errors
    /// Same as [`Swarms::announce`].
    pub fn announce(
        &self,
        who: &AnnouncingPeer,
        announce: FileAnnounce,
        is_over: impl FnOnce() -> bool,
    ) -> Result<usize, NoBaseline> {
        let (mut swarms, shard) = self.shard(announce.file);
        if is_over() {
            return Ok(shard);
        }
        let wakes = swarms.announce(self.now(), who, announce);
        drop(swarms);
        self.wake(&wakes?);
        Ok(shard)
    }

    /// Ends the announce of a file by a stream's peer, unless the stream is over ([`Hub::announce`]).
    pub(crate) fn leave_file(&self, stream: &Mailbox, file: FileId) {
        let (mut swarms, _) = self.shard(file);
        if stream.over().is_none() {
            let wakes = swarms.leave(&stream.peer, file);
            drop(swarms);
            self.wake(&wakes);
        }
    }

    /// See [`Swarms::pull`].
    pub fn pull(&self, peer: &PeerId, file: FileId) -> Option<SourceUpdate> {
        self.shard(file).0.pull(peer, file, &*self.policy, rand::random())
    }

    /// Tells a source that the leecher could not reach it, if the leecher was told about it and the address.
    pub(crate) fn tell_unreached(
        &self,
        leecher: (&PeerId, IpAddr),
        file: FileId,
        source: &PeerId,
        report: Unreached,
    ) {
        let told = self.shard(file).0.was_told(leecher.0, leecher.1, file, source, &report.address);
        if told && let Some(mailbox) = self.streams().get(source) {
            mailbox.tell_unreached(report);
        }
    }

    /// See [`Swarms::find`].
    pub(crate) fn find(&self, file: FileId) -> Vec<SourceInfo> {
        self.shard(file).0.find(file, &*self.policy, rand::random())
    }

    /// See [`Swarms::everyone`].
    pub(crate) fn everyone(&self, file: FileId, after: Option<&PeerId>, most: usize) -> Vec<SourceInfo> {
        self.shard(file).0.everyone(file, after, most)
    }

    /// Forgets all announces of a stream's peer, unless a newer stream of that peer has taken its place.
    pub(crate) fn leave(&self, mailbox: &Mailbox) {
        if mailbox.over().is_none() {
            self.everywhere(|swarms| swarms.forget(&mailbox.peer));
        }
    }

    fn expire(&self) {
        let now = self.now();
        self.everywhere(|swarms| swarms.expire(now));
    }

    fn everywhere(&self, mut act: impl FnMut(&mut Swarms) -> Vec<Wake>) {
        for number in 0..SHARDS {
            let wakes = act(&mut self.shard_number(number));
            self.wake(&wakes);
        }
    }

    fn apply(&self, change: &Change) {
        // A published file ends no right, so no stream has to ask the store again.
        if !matches!(change, Change::FilePublished { .. }) {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
        match change {
            Change::SessionEnded { session } => self.end_streams(|mailbox| mailbox.session == *session),
            Change::UserDisabled { user } => self.end_streams(|mailbox| mailbox.user == *user),
            Change::MemberGone { group, user, epoch } => {
                self.tell_epoch(group, *epoch);
                self.end_group(group, Some(user), Reason::NotAMember);
            }
            Change::MemberCame { group, user, epoch } => {
                let streams = self.streams();
                let theirs = streams.values().filter(|mailbox| mailbox.user == *user);
                theirs.for_each(|mailbox| mailbox.tell_member(group, *epoch));
            }
            Change::GroupGone { group, epoch } => {
                self.tell_epoch(group, *epoch);
                self.end_group(group, None, Reason::NotAMember);
            }
            Change::FilePublished { group, file } => {
                self.streams().values().for_each(|mailbox| mailbox.tell_published(group, *file));
            }
            Change::FileGone { group, file } => {
                let announced = self.shard(*file).0.end_file(*file);
                let streams = self.streams();
                for mailbox in announced.iter().filter_map(|peer| streams.get(peer)) {
                    mailbox.end_file(*file, group.clone(), Reason::FileNotFound);
                }
            }
        }
    }

    /// Handles missed changes: the state here may be wrong, so all peers must start again.
    fn start_over(&self) {
        tracing::warn!("changes came faster than they could be applied: every peer announces anew");
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.streams().values().for_each(|mailbox| mailbox.close(Over::Stale));
        for shard in &self.shards {
            shard.lock().start_over();
        }
    }

    /// Removes all announces of these streams' peers, and reports nothing more to them. A stream that waits
    /// for its client ends in the same way as every call that lost its right.
    fn end_streams(&self, theirs: impl Fn(&Mailbox) -> bool) {
        let ended: Vec<_> =
            self.streams().values().filter(|mailbox| theirs(mailbox)).map(Arc::clone).collect();
        for mailbox in ended {
            mailbox.close(Over::SessionEnded);
            self.everywhere(|swarms| swarms.forget(&mailbox.peer));
        }
    }

    fn tell_clock(&self) {
        self.streams().values().for_each(|mailbox| mailbox.tell_clock());
    }

    fn tell_epoch(&self, group: &GroupId, epoch: u64) {
        for mailbox in self.streams().values() {
            mailbox.raise_epoch(group, epoch);
        }
    }

    fn end_group(&self, group: &GroupId, user: Option<&Username>, reason: Reason) {
        let mut ended = Vec::new();
        self.everywhere(|swarms| {
            let (theirs, wakes) = swarms.end_group(group, user);
            ended.extend(theirs);
            wakes
        });
        let streams = self.streams();
        for (peer, file) in ended {
            if let Some(mailbox) = streams.get(&peer) {
                mailbox.end_file(file, group.clone(), reason);
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Mailbox>>> {
        self.streams.lock()
    }
}

impl SwarmCounts for Hub {
    fn count(&self, _: &GroupId, file: FileId) -> Count {
        self.shard(file).0.count(file)
    }
}

/// The address at which the tracker sees a caller. Loopback for a caller without a network address.
pub(crate) fn observed(ip: Option<IpAddr>) -> IpAddr {
    ip.unwrap_or(IpAddr::from([127, 0, 0, 1])).to_canonical()
}

#[cfg(test)]
mod tests {
    use proto::domain::PIECE_LENGTH;

    use super::*;
    use crate::{
        domain::swarm::{Holds, LEASE},
        events::Events,
    };

    fn id(number: u8) -> PeerId {
        PeerId::from([number; 32])
    }

    fn file(number: u8) -> FileId {
        FileId::try_from(&[number; 16][..]).expect("a file id")
    }

    fn mailbox(number: u8) -> Arc<Mailbox> {
        Mailbox::new(
            id(number),
            "ann".parse().expect("a username"),
            [number; 32].into(),
            [127, 0, 0, 1].into(),
            None,
        )
    }

    fn announce(hub: &Hub, number: u8, holds: Holds) {
        let who = announcer(number);
        let group = "films".parse().expect("a group");
        let wants_sources = !matches!(holds, Holds::All);
        let announce = FileAnnounce { group, file: file(1), layout: layout(), holds, wants_sources };
        hub.announce(&who, announce, || false).expect("all that it holds");
    }

    fn renew(hub: &Hub, number: u8) {
        let wakes = hub.shard(file(1)).0.renew(hub.now(), &announcer(number));
        hub.wake(&wakes);
    }

    fn announcer(number: u8) -> AnnouncingPeer {
        let user = format!("user{number}").parse().expect("a username");
        AnnouncingPeer { id: id(number), user, addresses: "192.0.2.1:1".into(), load: 0 }
    }

    fn layout() -> PieceLayout {
        PieceLayout::new(u64::from(PIECE_LENGTH)).expect("a valid length")
    }

    fn nothing() -> Holds {
        Holds::Exactly(proto::domain::Bitfield::empty(layout()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_falls_silent_is_told_to_be_gone_after_its_lease() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keys = TicketKeys::open_or_create(directory.path(), LEASE, 1).expect("made");
        let (hub, events) = (Hub::new(CancellationToken::new()), Events::default());
        let running = tokio::spawn(Arc::clone(&hub).run(events.listen(), Arc::new(keys)));
        let leecher = mailbox(2);
        hub.open(&leecher);
        announce(&hub, 1, Holds::All);
        announce(&hub, 2, nothing());
        leecher.arrived().await;
        assert_eq!(leecher.take(64).woken, [file(1)]);
        assert_eq!(hub.pull(&id(2), file(1)).expect("update").sources[0].id, id(1));

        let silent_since = hub.now();
        let heartbeat = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                renew(&hub, 2);
            }
        };
        tokio::select! {
            () = leecher.arrived() => {}
            () = heartbeat => {}
        }
        let silence = hub.now() - silent_since;
        assert!(silence > LEASE && silence <= LEASE + 2 * EXPIRE_EVERY, "{silence:?}");
        assert_eq!(hub.pull(&id(2), file(1)).expect("update").gone, [id(1)]);
        assert_eq!(hub.count(&"films".parse().expect("a group"), file(1)), Count { seeders: 0, leechers: 1 });
        hub.shutdown.cancel();
        running.await.expect("it ends");
    }

    #[test]
    fn a_clock_that_is_set_is_told_to_every_stream() {
        let at = Duration::from_millis;
        let (start, epoch) = (std::time::Instant::now(), SystemTime::UNIX_EPOCH + at(1_000_000_000));
        let mut watch = ClockWatch { passed: start, clock: epoch };
        assert!(!watch.was_set(start + at(60_000), epoch + at(60_900)), "it only runs a little fast");
        assert!(watch.was_set(start + at(61_000), epoch + at(7_200_000)), "two hours ahead");
        assert!(!watch.was_set(start + at(62_000), epoch + at(7_201_000)), "told once");
        assert!(watch.was_set(start + at(63_000), epoch + at(63_000)), "and back");

        let hub = Hub::new(CancellationToken::new());
        let stream = mailbox(1);
        hub.open(&stream);
        assert!(stream.take(64).is_empty());
        hub.tell_clock();
        assert!(stream.take(64).clock);
        assert!(stream.take(64).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_the_store_counts_where_trackers_share_one() {
        let (hub, at) = (Hub::new(CancellationToken::new()), |millis| {
            SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
        });
        let stream = mailbox(1);
        hub.open(&stream);
        hub.follow_store(500_000);
        assert!(stream.take(64).is_empty(), "there was no other before");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(hub.clock(), at(502_000));
        hub.set_shared_clock(7);
        hub.follow_store(502_900);
        assert_eq!(hub.clock(), at(502_900));
        assert!(stream.take(64).is_empty(), "it runs a little fast");
        hub.follow_store(900_000);
        assert!(stream.take(64).clock);
        assert_eq!(hub.clock(), at(900_000));
    }

    #[test]
    fn missed_changes_make_every_peer_begin_anew() {
        let hub = Hub::new(CancellationToken::new());
        let stream = mailbox(1);
        hub.open(&stream);
        announce(&hub, 1, Holds::All);
        let seen = hub.generation();
        hub.start_over();
        assert!(hub.generation() > seen);
        assert_eq!(stream.over(), Some(Over::Stale));
        assert!(hub.find(file(1)).is_empty());
    }
}
