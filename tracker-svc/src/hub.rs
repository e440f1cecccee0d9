//! The living side of the swarms: time, locks, and a mailbox for each announce stream.
//!
//! Nothing here is on disk. Files are spread over shards, each a [`Swarms`] behind a short lock; what a stream is to be
//! told waits in its [`Mailbox`].
//!
//! Access: a stream checks with the store what its peer may announce, while changes of access arrive from elsewhere. Who
//! checks reads [`Hub::generation`] before, announces, and compares after; whoever brings a change counts it up before
//! removing anything. So either the change finds the announce, or the announce finds the change.

mod mailbox;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::histogram::Histogram;
use proto::{
    domain::{FileId, GroupId, PeerId, PieceLayout, Username},
    reason::Reason,
};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::mailbox::{Letter, Mailbox, Over};
use crate::{
    domain::{
        population::{Count, Population},
        selection::{FewestPieces, Policy},
        swarm::{Announcer, Holds, News, NoBaseline, Source, Swarms, Wake},
    },
    events::{Change, Heard, Listener},
    keys::TicketKeys,
    metrics,
};

/// Power of two; enough that two cores seldom meet.
const SHARDS: usize = 64;
/// How often leases are looked over.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// The swarms and the streams.
pub struct Hub {
    shards: Vec<Mutex<Swarms>>,
    streams: Mutex<HashMap<PeerId, Arc<Mailbox>>>,
    policy: Box<dyn Policy>,
    instance: [u8; 16],
    started: Instant,
    generation: AtomicU64,
    /// Of the streams; owned by [`Hub::run`].
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// Seconds that taking in an announce took.
    pub(crate) latency: Histogram,
}

impl Hub {
    /// No peer has announced yet. Streams end at `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            streams: Mutex::default(),
            policy: Box::new(FewestPieces),
            instance: rand::random(),
            started: Instant::now(),
            generation: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            shutdown,
            latency: metrics::latency(),
        })
    }

    /// Expires leases, and brings changes of access and of ticket keys to the streams, until shutdown; then waits for
    /// the streams to end. The listener must have been made before the first stream.
    pub async fn run(self: Arc<Self>, mut changes: Listener, keys: Arc<TicketKeys>) {
        let mut verifying = keys.verifying_keys();
        let mut tick = tokio::time::interval(EXPIRE_EVERY);
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
                _ = tick.tick() => self.expire(),
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many files are announced, by all peers together.
    pub(crate) fn leases(&self) -> u64 {
        let each = (0..SHARDS).map(|number| self.shard_number(number).leases() as u64);
        each.sum()
    }

    /// Random at each start.
    pub(crate) fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// Since the start: the swarms' time.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many changes of access there were.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Opens a stream's mailbox; an older stream of the same peer ends.
    pub(crate) fn open(&self, mailbox: &Arc<Mailbox>) {
        if let Some(older) = self.streams().insert(mailbox.peer, Arc::clone(mailbox)) {
            older.close(Over::Replaced);
        }
    }

    /// The stream is over. What its peer announced stays until its lease ends.
    pub(crate) fn close(&self, mailbox: &Arc<Mailbox>) {
        let mut streams = self.streams();
        if streams.get(&mailbox.peer).is_some_and(|open| Arc::ptr_eq(open, mailbox)) {
            streams.remove(&mailbox.peer);
        }
    }

    /// The shard of a file, and its number.
    pub(crate) fn shard(&self, file: FileId) -> (MutexGuard<'_, Swarms>, usize) {
        // File ids are random, so their first byte spreads them well.
        let number = usize::from(file.as_bytes()[0]) % SHARDS;
        (self.shard_number(number), number)
    }

    pub(crate) fn shard_number(&self, number: usize) -> MutexGuard<'_, Swarms> {
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks those streams.
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

    /// Takes an announce into the file's swarm, wakes whom it concerns, and says which shard it went to. Whether the peer
    /// may announce the file was decided before.
    ///
    /// # Errors
    /// As [`Swarms::announce`].
    pub fn announce(
        &self,
        who: &Announcer,
        group: &GroupId,
        file: FileId,
        layout: PieceLayout,
        holds: Holds,
        wants_sources: bool,
    ) -> Result<usize, NoBaseline> {
        let (mut swarms, shard) = self.shard(file);
        let wakes = swarms.announce(self.now(), who, group, file, layout, holds, wants_sources);
        drop(swarms);
        self.wake(&wakes?);
        Ok(shard)
    }

    /// See [`Swarms::pull`].
    pub fn pull(&self, peer: &PeerId, file: FileId) -> Option<News> {
        self.shard(file).0.pull(peer, file, &*self.policy, rand::random())
    }

    /// See [`Swarms::find`].
    pub(crate) fn find(&self, file: FileId) -> Vec<Source> {
        self.shard(file).0.find(file, &*self.policy, rand::random())
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
        self.generation.fetch_add(1, Ordering::SeqCst);
        match change {
            Change::SessionEnded { session } => self.end_streams(|mailbox| mailbox.session == *session),
            Change::UserDisabled { user } => self.end_streams(|mailbox| mailbox.user == *user),
            Change::MemberGone { group, user, epoch } => {
                self.tell_epoch(group, *epoch);
                self.end_group(group, Some(user), Reason::NotAMember);
            }
            Change::GroupGone { group, epoch } => {
                self.tell_epoch(group, *epoch);
                self.end_group(group, None, Reason::NotAMember);
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

    /// Some changes were missed: nothing that is here can be relied on, so all peers begin anew.
    fn start_over(&self) {
        tracing::warn!("changes came faster than they could be applied: every peer announces anew");
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.streams().values().for_each(|mailbox| mailbox.close(Over::Stale));
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Swarms::default();
        }
    }

    fn end_streams(&self, theirs: impl Fn(&Mailbox) -> bool) {
        let ended: Vec<_> =
            self.streams().values().filter(|mailbox| theirs(mailbox)).map(Arc::clone).collect();
        for mailbox in ended {
            mailbox.close(Over::SessionEnded);
            self.everywhere(|swarms| swarms.forget(&mailbox.peer));
        }
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
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Population for Hub {
    fn count(&self, _: &GroupId, file: FileId) -> Count {
        self.shard(file).0.count(file)
    }
}

/// Where the tracker sees a caller; without a network there is none.
pub(crate) fn observed(ip: Option<IpAddr>) -> IpAddr {
    ip.unwrap_or(IpAddr::from([127, 0, 0, 1])).to_canonical()
}

#[cfg(test)]
mod tests {
    use proto::domain::PIECE_LENGTH;

    use super::*;
    use crate::{domain::swarm::LEASE, events::Events};

    fn id(number: u8) -> PeerId {
        PeerId::from([number; 32])
    }

    fn file(number: u8) -> FileId {
        FileId::try_from(&[number; 16][..]).expect("a file id")
    }

    fn mailbox(number: u8) -> Arc<Mailbox> {
        Mailbox::new(id(number), "ann".parse().expect("a username"), [number; 32].into())
    }

    fn announce(hub: &Hub, number: u8, holds: Holds) {
        let who = announcer(number);
        let group = "films".parse().expect("a group");
        let wants = !matches!(holds, Holds::All);
        hub.announce(&who, &group, file(1), layout(), holds, wants).expect("all that it holds");
    }

    fn renew(hub: &Hub, number: u8) {
        let wakes = hub.shard(file(1)).0.renew(hub.now(), &announcer(number));
        hub.wake(&wakes);
    }

    fn announcer(number: u8) -> Announcer {
        let user = format!("user{number}").parse().expect("a username");
        Announcer { id: id(number), user, address: "192.0.2.1:1".into(), load: 0 }
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
        assert_eq!(hub.pull(&id(2), file(1)).expect("news").sources[0].id, id(1));

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
        assert_eq!(hub.pull(&id(2), file(1)).expect("news").gone, [id(1)]);
        assert_eq!(hub.count(&"films".parse().expect("a group"), file(1)), Count { seeders: 0, leechers: 1 });
        hub.shutdown.cancel();
        running.await.expect("it ends");
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
