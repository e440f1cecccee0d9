//! The peers of several trackers: an announce stream each, many on one connection, and calls beside them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    convert,
    domain::limits::MAX_SOURCES,
    pb::{self, file_announce::Holding, swarm_service_client::SwarmServiceClient},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::interceptor::InterceptedService, transport::Channel};
use transport::{ChannelTuning, ClientSecurity, Remote, client_config, connect, raise_open_files};

use super::{clients::Bearer, world};

/// Peers of one user: as many as an account may have.
const PEERS_EACH: u32 = 16;
/// Announce streams on one connection. A tracker allows 64 calls, and calls for sources need some.
const STREAMS: u32 = 50;
/// One of this many peers leeches.
const LEECHES: u32 = 10;
/// Interval of a peer's heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Interval at which some of the peers send theirs.
const TICK: Duration = Duration::from_millis(5);
/// Number of concurrent calls and joins.
const AT_ONCE: usize = 8;
/// Announces of each leecher. A tracker allows 20 at once, the first included.
const ANNOUNCES: u32 = 16;
/// Calls of a phase without a pace.
const CALLS: u32 = 10_000;
/// Calls a second, and for how long.
const PACE: (u32, Duration) = (300, Duration::from_secs(20));

/// The number of a peer's user.
pub(super) fn user_of(peer: u32) -> u32 {
    peer / PEERS_EACH
}

fn leeches(peer: u32) -> bool {
    // Not by the peer's number alone, by which its file is chosen.
    (peer / 100).is_multiple_of(LEECHES)
}

/// All peers.
struct Load {
    peers: u32,
    channels: Vec<Vec<Channel>>,
    streams: Vec<mpsc::Sender<pb::AnnounceRequest>>,
    /// Streams that ended.
    lost: Arc<AtomicU64>,
    /// The peer that sends the next heartbeat.
    next: usize,
}

/// Lets all peers join, then runs the phases named on stdin until it ends.
pub(super) fn run(peers: u32, ca: &Path, trackers: &[&str]) -> Result<()> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let trackers: Vec<SocketAddr> = trackers.iter().map(|at| at.parse()).collect::<Result<_, _>>()?;
        let mut load = Load::connect(peers, ca, &trackers).await?;
        load.join().await?;
        println!("{peers}");
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["heartbeats", seconds] => {
                    println!("{}", load.heartbeats(Duration::from_secs(seconds.parse()?)).await?);
                }
                ["idle", seconds] => {
                    // Nothing is sent: what the trackers do by themselves is measured.
                    tokio::time::sleep(Duration::from_secs(seconds.parse()?)).await;
                    println!("1");
                }
                ["announces"] => println!("{}", load.announces().await?),
                ["finds"] => println!("{}", load.calls(Load::find).await?),
                ["tickets"] => println!("{}", load.calls(Load::ticket).await?),
                ["paced"] => {
                    let (median, p99) = load.paced().await?;
                    println!("{median:.2} {p99:.2} {}", load.lost.load(Ordering::Relaxed));
                }
                _ => bail!("{line:?} is no phase"),
            }
        }
        Ok(())
    })
}

impl Load {
    async fn connect(peers: u32, ca: &Path, trackers: &[SocketAddr]) -> Result<Self> {
        let config = client_config(&std::fs::read_to_string(ca)?, None)?;
        let each = peers.div_ceil(u32::try_from(trackers.len())?).div_ceil(STREAMS);
        let mut channels = Vec::new();
        for address in trackers {
            let one = |_| {
                let remote = Remote::Tcp { host: address.ip().to_string(), port: address.port() };
                let security =
                    ClientSecurity::Tls { config: Arc::clone(&config), server_name: "localhost".into() };
                async move { connect(remote, security, &ChannelTuning::control()).await }
            };
            channels.push(stream::iter(0..each).map(one).buffered(AT_ONCE).try_collect().await?);
        }
        Ok(Self { peers, channels, streams: Vec::new(), lost: Arc::default(), next: 0 })
    }

    /// The service for a peer: at one of the trackers, on one of its connections, with the token of its user.
    fn service(&self, peer: u32) -> Result<SwarmServiceClient<InterceptedService<Channel, Bearer>>> {
        let channels = &self.channels[peer as usize % self.channels.len()];
        let channel = &channels[peer as usize / self.channels.len() % channels.len()];
        let bearer = Bearer::of(&world::token(user_of(peer)))?;
        Ok(SwarmServiceClient::new(InterceptedService::new(channel.clone(), bearer)))
    }

    /// Opens all streams, in the order of the peers. Those that have joined send their heartbeats meanwhile.
    async fn join(&mut self) -> Result<()> {
        let (mut from, mut beat) = (0, Instant::now());
        while from < self.peers {
            let to = (from + 500).min(self.peers);
            let opening = stream::iter(from..to).map(|peer| self.open(peer));
            let opened: Vec<_> = opening.buffered(AT_ONCE).try_collect().await?;
            self.streams.extend(opened);
            from = to;
            let due = beat.elapsed().as_secs_f64() / HEARTBEAT.as_secs_f64() * f64::from(from);
            beat = Instant::now();
            self.beat(due as usize);
        }
        Ok(())
    }

    async fn open(&self, peer: u32) -> Result<mpsc::Sender<pb::AnnounceRequest>> {
        let (says, messages) = mpsc::channel(2);
        let hello =
            pb::AnnounceHello { peer_id: world::peer(peer).to_string(), port: 1_024, ..Default::default() };
        let holding = match leeches(peer) {
            true => Holding::Bitfield(convert::to_bitfield(&world::half(peer)?)),
            false => Holding::Complete(true),
        };
        let first = pb::AnnounceRequest { hello: Some(hello), ..announce(peer, self.peers, holding)? };
        says.send(first).await?;
        let mut hears = self.service(peer)?.announce(ReceiverStream::new(messages)).await?.into_inner();
        hears.message().await?.context("the stream ended")?;
        let lost = Arc::clone(&self.lost);
        tokio::spawn(async move {
            while matches!(hears.message().await, Ok(Some(_))) {}
            lost.fetch_add(1, Ordering::Relaxed);
        });
        Ok(says)
    }

    /// The next peers send a heartbeat.
    fn beat(&mut self, count: usize) {
        for _ in 0..count.min(self.streams.len()) {
            self.next = (self.next + 1) % self.streams.len();
            // If one still waits, the connection is behind.
            let _ = self.streams[self.next].try_send(pb::AnnounceRequest { load: 1, ..Default::default() });
        }
    }

    /// All peers send their heartbeats for this long. Returns how many.
    async fn heartbeats(&mut self, time: Duration) -> Result<u32> {
        let (start, mut sent) = (Instant::now(), 0);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while start.elapsed() < time {
            ticks.tick().await;
            let due = self.due(start.elapsed());
            self.beat(due - sent);
            sent = due;
        }
        Ok(u32::try_from(sent)?)
    }

    /// Number of heartbeats that are due after this time.
    fn due(&self, time: Duration) -> usize {
        (time.as_secs_f64() / HEARTBEAT.as_secs_f64() * f64::from(self.peers)) as usize
    }

    /// Each leecher announces a gained piece, and another one after all have done so. Returns how many announces there
    /// were.
    async fn announces(&mut self) -> Result<u32> {
        let mut sent = 0;
        for piece in 0..ANNOUNCES {
            for peer in (0..self.peers).filter(|peer| leeches(*peer)) {
                let holding = Holding::Gained(pb::PieceList { pieces: vec![piece.into()] });
                self.streams[peer as usize].send(announce(peer, self.peers, holding)?).await?;
                sent += 1;
                if u32::is_multiple_of(sent, 64) {
                    tokio::task::yield_now().await;
                }
            }
        }
        // A second in which the trackers take the last ones in: nothing answers an announce.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(sent)
    }

    /// Peers all over the network call, a few at a time. Returns how many calls were answered.
    async fn calls(&self, call: impl AsyncFn(&Self, u32) -> Result<()>) -> Result<u32> {
        let all = stream::iter(0..CALLS).map(|number| call(self, self.caller(number)));
        all.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(CALLS)
    }

    /// A peer, another one for each number, and of another user each time.
    fn caller(&self, number: u32) -> u32 {
        (u64::from(number) * 7_919 % u64::from(self.peers)) as u32
    }

    async fn find(&self, peer: u32) -> Result<()> {
        let name = world::name(file_of(peer, self.peers));
        let request =
            pb::FindPeersRequest { group_id: world::group()?.to_string(), name, ..Default::default() };
        let found = self.service(peer)?.find_peers(request).await?.into_inner();
        ensure!(found.sources.len() == MAX_SOURCES, "{} sources", found.sources.len());
        Ok(())
    }

    async fn ticket(&self, peer: u32) -> Result<()> {
        let file = convert::to_file_ref(&world::group()?, world::file(file_of(peer, self.peers))?);
        let request = pb::IssueTicketsRequest { peer_id: world::peer(peer).to_string(), files: vec![file] };
        let found = self.service(peer)?.issue_tickets(request).await?.into_inner();
        ensure!(found.tickets.len() == 1, "no ticket");
        Ok(())
    }

    /// Calls for sources at a steady pace while all peers send heartbeats. Returns the time in milliseconds within which
    /// half of them were answered, and 99 in 100.
    async fn paced(&mut self) -> Result<(f64, f64)> {
        let (rate, time) = PACE;
        let (start, mut sent, mut asked) = (Instant::now(), 0, 0);
        // Room for all answers.
        let (answered, mut times) = mpsc::channel(rate as usize * (time.as_secs() as usize + 1));
        let mut ticks = interval(Duration::from_millis(1));
        while start.elapsed() < time {
            ticks.tick().await;
            let due = self.due(start.elapsed());
            self.beat(due - sent);
            sent = due;
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u32;
            for number in asked..due {
                let peer = self.caller(number);
                let name = world::name(file_of(peer, self.peers));
                let group_id = world::group()?.to_string();
                let (mut service, answered) = (self.service(peer)?, answered.clone());
                tokio::spawn(async move {
                    let start = Instant::now();
                    let request = pb::FindPeersRequest { group_id, name, ..Default::default() };
                    let found = service.find_peers(request).await;
                    let _ = answered.send(found.map(|_| start.elapsed().as_secs_f64() * 1e3)).await;
                });
            }
            asked = due;
        }
        drop(answered);
        let mut all = Vec::new();
        while let Some(time) = times.recv().await {
            all.push(time?);
        }
        all.sort_by(f64::total_cmp);
        ensure!(all.len() == asked as usize && !all.is_empty(), "{} of {asked} answers", all.len());
        Ok((all[all.len() / 2], all[all.len() * 99 / 100]))
    }
}

fn file_of(peer: u32, peers: u32) -> u32 {
    peer % world::files(peers)
}

fn announce(peer: u32, peers: u32, holding: Holding) -> Result<pb::AnnounceRequest> {
    let file = convert::to_file_ref(&world::group()?, world::file(file_of(peer, peers))?);
    let file = pb::FileAnnounce { file: Some(file), holding: Some(holding), wants_sources: leeches(peer) };
    Ok(pb::AnnounceRequest { files: vec![file], load: 1, ..Default::default() })
}
