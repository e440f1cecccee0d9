//! Several trackers of one network: each tells the others where its peers are, and how much they have.
//!
//! The tracker that holds a peer's announce stream knows whether the peer is alive, and which pieces it has. So only
//! changes are shared: joined, has some, has all, moved, left. Each tracker writes what it says to a [`Board`] and
//! tells the others that it did. A tracker that is gone takes along what it said. Renewing a lease writes nothing.
//!
//! The board carries facts. What follows from them is decided by the swarms (`domain::swarm`), which others are
//! alive and whether news is missing by [`Others`].
//!
//! Without the board, a tracker goes on with its own peers, and for one lease with what it knows of others. When the
//! board is back, every tracker writes anew what the board has lost, and reads what it may have missed.
//!
//! - [`facts`]: what is written, as bytes.
//! - [`on_redis`]: a board on Redis.

mod facts;
pub(crate) mod on_redis;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use proto::domain::{FileId, PeerId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::async_trait;
use transport::LogThrottle;

use self::facts::{Change, News};
use crate::{
    domain::{
        others::{Due, Instance, News as WhatToDo, Others},
        swarm::{Fact, TrackerNo},
    },
    hub::{Hub, SHARDS},
};

/// Interval at which changes are written. With the time of the network it stays far below the 250 ms that others may
/// wait for them.
const POST_EVERY: Duration = Duration::from_millis(50);
/// Interval at which a tracker says that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A tracker is taken to live for this long after it last said so.
const LIVES: Duration = Duration::from_secs(5);
/// What a tracker said is deleted this long after it last said that it lives.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The pause before the board is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// The most changes in one message. If there are more, the shard is written anew, and others read it.
const MOST: usize = 500;

/// Why the board can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BoardError(String);

/// What the board answers to a tracker that says that it lives.
#[derive(Debug)]
struct Beat {
    /// The board's clock, in milliseconds since 1970.
    clock: u64,
    /// The number of this tracker's news that the board knows of. `None` if it does not know the tracker.
    known: Option<u64>,
    /// The trackers that live, this one too, with the number of news of each.
    live: Vec<(Instance, u64)>,
}

/// Everything that a tracker says about one shard.
#[derive(Debug)]
struct Said {
    /// The number of its last news.
    number: u64,
    /// The facts by their keys.
    facts: Vec<(Bytes, Bytes)>,
}

/// Where the trackers of a network leave facts for each other.
#[async_trait]
pub(crate) trait Board: Send + Sync {
    /// Connects.
    async fn open(&self) -> Result<Box<dyn Connection>, BoardError>;
}

/// A connection to the board. Every call ends in time.
#[async_trait]
#[allow(private_interfaces, reason = "the boards are in this module")]
pub(crate) trait Connection: Send {
    /// Says that this tracker lives, and has made this number of news.
    async fn beat(&mut self, me: Instance, news: u64) -> Result<Beat, BoardError>;
    /// Writes news, and tells the others. `total` is the number of news with these.
    async fn post(&mut self, news: &[News], total: u64) -> Result<(), BoardError>;
    /// Reads these shards of what a tracker says.
    async fn read(&mut self, of: Instance, shards: &[usize]) -> Result<Vec<Said>, BoardError>;
    /// Waits for the next news of any tracker. `None` if the connection is lost. Cancel safe.
    async fn news(&mut self) -> Option<Bytes>;
    /// Says that this tracker ends.
    async fn leave(&mut self, me: Instance) -> Result<(), BoardError>;
}

/// How it goes, for health and metrics.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    reachable: AtomicBool,
    others: AtomicU64,
}

impl Standing {
    /// Whether the board answers.
    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// The number of other trackers that are alive.
    pub(crate) fn others(&self) -> u64 {
        self.others.load(Ordering::Relaxed)
    }
}

/// What this tracker has still to say about one shard.
#[derive(Default)]
struct Shard {
    /// The number of its last news.
    number: u64,
    changed: HashSet<(PeerId, FileId)>,
    /// The board may not have what was said before.
    rewrite: bool,
}

/// One tracker of a network with several. See the module's documentation.
pub(crate) struct Cluster {
    hub: Arc<Hub>,
    board: Arc<dyn Board>,
    standing: Arc<Standing>,
    others: Others,
    shards: Vec<Shard>,
    /// The number of news that the board took.
    posted: u64,
    throttle: LogThrottle,
}

impl Cluster {
    /// The tracker of this hub, whose peers it shares from now on.
    pub(crate) fn new(hub: Arc<Hub>, board: Arc<dyn Board>, standing: Arc<Standing>) -> Self {
        (0..SHARDS).for_each(|number| hub.shard_number(number).share());
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self {
            hub,
            board,
            standing,
            others: Others::new(SHARDS),
            shards,
            posted: 0,
            throttle: LogThrottle::new(),
        }
    }

    /// Shares until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let Err(error) = self.share(&stop).await else { return };
            self.standing.reachable.store(false, Ordering::Relaxed);
            if let Some(tries) = self.throttle.due(std::time::Instant::now()) {
                tracing::warn!(%error, tries, "the swarm store is away: going on with the peers of this tracker");
            }
            self.others.was_deaf();
            for number in self.others.silence(self.hub.now()) {
                self.hub.forget_tracker(number);
            }
            self.standing.others.store(self.others.count() as u64, Ordering::Relaxed);
            if stop.run_until_cancelled(sleep(TRY_AGAIN)).await.is_none() {
                return;
            }
        }
    }

    /// Shares over one connection, until it fails.
    async fn share(&mut self, stop: &CancellationToken) -> Result<(), BoardError> {
        let Some(opened) = stop.run_until_cancelled(self.board.open()).await else { return Ok(()) };
        let mut board = opened?;
        let (mut post, mut beat) = (interval(POST_EVERY), interval(BEAT_EVERY));
        post.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.beat(&mut *board).await?;
        if !self.standing.reachable.swap(true, Ordering::Relaxed) {
            tracing::info!(others = self.others.count(), "the swarm store answers");
            self.throttle = LogThrottle::new();
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return board.leave(self.hub.instance()).await,
                news = board.news() => {
                    let news = news.ok_or_else(|| BoardError("the connection was closed".to_owned()))?;
                    self.hear(&mut *board, news).await?;
                }
                _ = post.tick() => self.post(&mut *board).await?,
                _ = beat.tick() => self.beat(&mut *board).await?,
            }
        }
    }

    /// Says that this tracker lives, and learns who else does.
    async fn beat(&mut self, board: &mut dyn Connection) -> Result<(), BoardError> {
        let me = self.hub.instance();
        let asked = Instant::now();
        let Beat { clock, known, live } = board.beat(me, self.posted).await?;
        // The answer was on its way for half of the time.
        self.hub.set_shared_clock(clock + asked.elapsed().as_millis() as u64 / 2);
        if known.is_none_or(|known| known < self.posted) {
            // The board is new to this tracker, or has lost what it knew.
            self.shards.iter_mut().for_each(|shard| shard.rewrite = true);
        }
        let live: Vec<_> = live.into_iter().filter(|(instance, _)| *instance != me).collect();
        for due in self.others.live(self.hub.now(), &live) {
            match due {
                Due::Read(instance) => self.read(board, instance, &(0..SHARDS).collect::<Vec<_>>()).await?,
                Due::Forget(number) => self.hub.forget_tracker(number),
            }
        }
        self.standing.others.store(self.others.count() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes what has changed about the peers here.
    async fn post(&mut self, board: &mut dyn Connection) -> Result<(), BoardError> {
        let mut news = Vec::new();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            shard.changed.extend(self.hub.shard_number(number).take_changed());
            let all = std::mem::take(&mut shard.changed);
            shard.rewrite |= all.len() > MOST;
            if !shard.rewrite && all.is_empty() {
                continue;
            }
            let changes: Vec<_> = if shard.rewrite {
                let facts = self.hub.shard_number(number).facts();
                facts.iter().map(|fact| self.hub.change_of(&fact.peer.id, fact.file, Some(fact))).collect()
            } else {
                let swarms = self.hub.shard_number(number);
                let now = all.into_iter().map(|(peer, file)| (peer, file, swarms.fact(&peer, file)));
                let now: Vec<_> = now.collect();
                drop(swarms);
                now.iter().map(|(peer, file, fact)| self.hub.change_of(peer, *file, fact.as_ref())).collect()
            };
            shard.number += 1;
            let (instance, whole) = (self.hub.instance(), shard.rewrite);
            news.push(News { instance, shard: number, number: shard.number, whole, changes });
        }
        if news.is_empty() {
            return Ok(());
        }
        let total = self.shards.iter().map(|shard| shard.number).sum();
        let posted = board.post(&news, total).await;
        for said in &news {
            // What the board did with news that it did not acknowledge is not known.
            self.shards[said.shard].rewrite = posted.is_err();
        }
        if posted.is_ok() {
            self.posted = total;
        }
        posted
    }

    async fn hear(&mut self, board: &mut dyn Connection, news: Bytes) -> Result<(), BoardError> {
        let Ok(news) = News::decode(news) else {
            tracing::debug!("another tracker sent news that can't be read");
            return Ok(());
        };
        if news.instance == self.hub.instance() || news.shard >= SHARDS {
            return Ok(());
        }
        match self.others.heard(self.hub.now(), news.instance, news.shard, news.number, news.whole) {
            WhatToDo::Apply(from) => self.hub.apply_news(from, &news.changes),
            WhatToDo::Read => self.read(board, news.instance, &[news.shard]).await?,
            WhatToDo::ReadAll => {
                self.read(board, news.instance, &(0..SHARDS).collect::<Vec<_>>()).await?;
            }
            WhatToDo::Known => {}
        }
        Ok(())
    }

    /// Reads what a tracker says about these shards, in place of what was known.
    async fn read(
        &mut self,
        board: &mut dyn Connection,
        of: Instance,
        shards: &[usize],
    ) -> Result<(), BoardError> {
        let said = board.read(of, shards).await?;
        let (now, numbers) =
            (self.hub.now(), shards.iter().copied().zip(said.iter().map(|said| said.number)));
        let counts = self.others.was_read(now, of, &numbers.collect::<Vec<_>>());
        let from = self.others.number(now, of);
        for ((&shard, said), counts) in shards.iter().zip(said).zip(counts) {
            if counts {
                let change = |(key, fact)| Change { key, fact: Some(fact) };
                self.hub.replace_news(from, shard, &said.facts.into_iter().map(change).collect::<Vec<_>>());
            }
        }
        Ok(())
    }
}

impl Hub {
    /// What to say about a peer here and a file: the fact, or that it is over.
    fn change_of(&self, peer: &PeerId, file: FileId, fact: Option<&Fact>) -> Change {
        let since = self.stream_since(peer);
        Change { key: facts::key(peer, file), fact: fact.map(|fact| facts::encode(fact, since)) }
    }

    /// Takes in what another tracker says.
    fn apply_news(&self, from: TrackerNo, changes: &[Change]) {
        for Change { key, fact } in changes {
            match fact {
                Some(fact) => {
                    if let Ok((fact, since)) = facts::decode(key, fact) {
                        self.learn(from, since, &fact);
                    }
                }
                None => {
                    if let Ok((peer, file)) = facts::read_key(key) {
                        let (mut swarms, _) = self.shard(file);
                        let wakes = swarms.unlearn(from, &peer, file);
                        drop(swarms);
                        self.wake(&wakes);
                    }
                }
            }
        }
    }

    /// Takes in all that another tracker says about a shard, in place of what it said before.
    fn replace_news(&self, from: TrackerNo, shard: usize, changes: &[Change]) {
        let stay = changes.iter().filter_map(|change| facts::read_key(&change.key).ok()).collect();
        let mut swarms = self.shard_number(shard);
        let wakes = swarms.unlearn_others(from, &stay);
        drop(swarms);
        self.wake(&wakes);
        self.apply_news(from, changes);
    }

    /// Takes in one fact. A peer that is here comes or goes by which of its two streams is the newer one.
    fn learn(&self, from: TrackerNo, since: u64, fact: &Fact) {
        if self.is_here(&fact.peer.id, fact.file) {
            if since <= self.stream_since(&fact.peer.id) {
                return;
            }
            self.move_away(&fact.peer.id);
        }
        let (mut swarms, _) = self.shard(fact.file);
        let wakes = swarms.learn(from, since, fact);
        drop(swarms);
        self.wake(&wakes);
    }
}
