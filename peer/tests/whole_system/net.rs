//! The network of a simulation: connections in memory, with latency, bandwidth and faults.
//!
//! A host has the address 10.0.0.n, n its number plus 1. What a host sends arrives [`TICK`] later at the earliest,
//! and hosts run one after the other for one tick each. So no host sees anything from its future.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future as _,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Sleep,
};
use transport::{Accept, Duplex, Network, Waiting};

use crate::sys;

/// How far hosts may be apart in time, and the least latency.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Bytes of one direction of a connection that may be on their way.
const WINDOW: usize = 256 << 10;
/// How often a connection that is held up looks whether it still is.
const LOOK: u64 = 100_000_000;

/// The network of the running simulation. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

struct State {
    dice: StdRng,
    listeners: BTreeMap<(usize, u16), Weak<Queue>>,
    links: Vec<Link>,
    /// Pairs of hosts that can't reach each other.
    cut: BTreeSet<(usize, usize)>,
    /// When each host's uplink is free again, in nanoseconds.
    free: [u64; sys::HOSTS],
    /// Bytes a second of each host's uplink.
    uplink: [u64; sys::HOSTS],
    ports: u16,
    opened: u64,
    /// Bytes that arrived, by sender and receiver.
    arrived: BTreeMap<(usize, usize), u64>,
    digest: blake3::Hasher,
}

/// A connection, for faults.
struct Link {
    hosts: (usize, usize),
    pipes: [Weak<Mutex<Pipe>>; 2],
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            dice: StdRng::seed_from_u64(seed),
            listeners: BTreeMap::new(),
            links: Vec::new(),
            cut: BTreeSet::new(),
            free: [0; sys::HOSTS],
            uplink: [4 << 20; sys::HOSTS],
            ports: 40_000,
            opened: 0,
            arrived: BTreeMap::new(),
            digest: blake3::Hasher::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A hash of everything that arrived, and when.
    pub(crate) fn digest(&self) -> String {
        self.lock().digest.finalize().to_hex()[..16].to_owned()
    }

    /// Bytes that arrived at a host from another so far, TLS and HTTP/2 included.
    pub(crate) fn arrived(&self, from: usize, to: usize) -> u64 {
        self.lock().arrived.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Sets the rate of a host's uplink, in bytes a second.
    pub(crate) fn set_uplink(&self, host: usize, rate: u64) {
        self.lock().uplink[host] = rate;
    }

    /// Cuts two hosts off from each other. Their connections stay open, and nothing arrives.
    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.lock().cut.insert((a.min(b), a.max(b)));
    }

    /// Whether two hosts are cut off from each other.
    pub(crate) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.lock().is_cut(a, b)
    }

    /// Ends the cut between two hosts. What was sent arrives now.
    pub(crate) fn heal(&self, a: usize, b: usize) {
        self.lock().cut.remove(&(a.min(b), a.max(b)));
    }

    /// Breaks the connections between two hosts. Returns their number.
    pub(crate) fn break_links(&self, a: usize, b: usize) -> usize {
        let pipes: Vec<_> = {
            let mut state = self.lock();
            let (broken, left) = std::mem::take(&mut state.links)
                .into_iter()
                .partition::<Vec<_>, _>(|link| link.hosts == (a, b) || link.hosts == (b, a));
            state.links = left;
            broken.into_iter().flat_map(|link| link.pipes).filter_map(|pipe| pipe.upgrade()).collect()
        };
        for pipe in &pipes {
            lock(pipe).break_it();
        }
        pipes.len() / 2
    }

    /// Holds back what is on its way between two hosts, in both directions.
    pub(crate) fn stall(&self, a: usize, b: usize, until: u64) {
        let state = self.lock();
        let links = state.links.iter().filter(|link| link.hosts == (a, b) || link.hosts == (b, a));
        for pipe in links.flat_map(|link| &link.pipes).filter_map(Weak::upgrade) {
            let mut pipe = lock(&pipe);
            pipe.held = pipe.held.max(until);
        }
    }
}

impl State {
    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }
}

/// One direction of a connection.
struct Pipe {
    net: Net,
    from: usize,
    to: usize,
    number: u64,
    latency: u64,
    /// What is on its way, and when it arrives. An empty piece is the end.
    queue: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last: u64,
    /// Nothing arrives before this time.
    held: u64,
    ended: bool,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Pipe {
    fn break_it(&mut self) {
        self.broken = true;
        self.queue.clear();
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn send(&mut self, data: Bytes) {
        let (length, now) = (data.len() as u64, sys::now());
        let net = self.net.clone();
        let mut net = net.lock();
        let uplink = net.uplink[self.from];
        let free = &mut net.free[self.from];
        *free = now.max(*free) + length * 1_000_000_000 / uplink;
        self.last = self.last.max(*free + self.latency);
        self.bytes += data.len();
        self.queue.push_back((self.last, data));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of a connection. The drop ends what it sends, and breaks what it receives.
struct End {
    rx: Arc<Mutex<Pipe>>,
    tx: Arc<Mutex<Pipe>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut tx = lock(&self.tx);
        if !tx.ended && !tx.broken {
            tx.ended = true;
            tx.send(Bytes::new());
        }
        drop(tx);
        lock(&self.rx).break_it();
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let now = sys::now();
            let at = {
                let mut pipe = lock(&self.rx);
                if pipe.broken {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                let Some(at) = pipe.queue.front().map(|(at, _)| pipe.held.max(*at)) else {
                    pipe.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                let cut = pipe.net.is_cut(pipe.from, pipe.to);
                if at <= now && !cut {
                    pipe.receive(now, buf);
                    return Poll::Ready(Ok(()));
                }
                // A break has to wake the reader too.
                pipe.reader = Some(cx.waker().clone());
                if cut { at.max(now + LOOK) } else { at }
            };
            let mut timer = Box::pin(sys::pass(Duration::from_nanos(at - now)));
            if timer.as_mut().poll(cx).is_pending() {
                self.timer = Some(timer);
                return Poll::Pending;
            }
        }
    }
}

impl Pipe {
    fn receive(&mut self, now: u64, buf: &mut ReadBuf<'_>) {
        let mut count = 0;
        while let Some((at, data)) = self.queue.front_mut() {
            if *at > now || buf.remaining() == 0 || (data.is_empty() && count > 0) {
                break;
            }
            if data.is_empty() {
                // The end stays at the front, so that every later read finds it.
                break;
            }
            let some = data.len().min(buf.remaining());
            buf.put_slice(&data[..some]);
            data.advance(some);
            count += some;
            if data.is_empty() {
                self.queue.pop_front();
            }
        }
        self.bytes -= count;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        let net = self.net.clone();
        let mut net = net.lock();
        for value in [now, self.number, self.from as u64, count as u64] {
            net.digest.update(&value.to_le_bytes());
        }
        *net.arrived.entry((self.from, self.to)).or_default() += count as u64;
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.tx);
        if pipe.broken || pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(buf.len());
        if count > 0 {
            pipe.send(Bytes::copy_from_slice(&buf[..count]));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.tx);
        if !pipe.ended && !pipe.broken {
            pipe.ended = true;
            pipe.send(Bytes::new());
        }
        Poll::Ready(Ok(()))
    }
}

/// Connections that wait to be accepted, and when they arrive.
struct Queue {
    host: usize,
    port: u16,
    waiting: Mutex<VecDeque<(u64, End, SocketAddr)>>,
    arrival: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, End, SocketAddr)>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn address(host: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host as u8 + 1)), port)
}

/// The host that has this address.
fn host_of(name: &str) -> io::Result<usize> {
    let last = name.strip_prefix("10.0.0.").and_then(|last| last.parse::<usize>().ok());
    last.and_then(|last| last.checked_sub(1))
        .filter(|host| *host < sys::HOSTS)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no host {name}")))
}

impl Network for Net {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Waiting<'a, Box<dyn Duplex>> {
        Box::pin(async move {
            let (from, to) = (sys::host(), host_of(host)?);
            let latency = {
                let most = TICK * 5;
                self.lock().dice.random_range(TICK.as_nanos()..=most.as_nanos()) as u64
            };
            sys::pass(Duration::from_nanos(2 * latency)).await;
            while self.is_cut(from, to) {
                sys::pass(Duration::from_nanos(LOOK)).await;
            }
            let queue = self.lock().listeners.get(&(to, port)).and_then(Weak::upgrade);
            let Some(queue) = queue else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let (near, far, remote) = self.open(from, to, latency);
            queue.lock().push_back((sys::now() + latency, far, remote));
            queue.arrival.notify_one();
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }

    fn listen(&self, asked: SocketAddr) -> io::Result<Box<dyn Accept>> {
        let host = sys::host();
        let mut state = self.lock();
        let taken = state.listeners.get(&(host, asked.port())).and_then(Weak::upgrade);
        if taken.is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (waiting, arrival) = (Mutex::default(), Notify::new());
        let queue = Arc::new(Queue { host, port: asked.port(), waiting, arrival });
        state.listeners.insert((host, asked.port()), Arc::downgrade(&queue));
        Ok(Box::new(Listening(queue)))
    }
}

impl Net {
    fn open(&self, from: usize, to: usize, latency: u64) -> (End, End, SocketAddr) {
        let mut state = self.lock();
        state.opened += 1;
        state.ports = state.ports.checked_add(1).unwrap_or(40_000);
        let number = state.opened;
        let pipe = |from, to| {
            Arc::new(Mutex::new(Pipe {
                net: self.clone(),
                from,
                to,
                number,
                latency,
                queue: VecDeque::new(),
                bytes: 0,
                last: 0,
                held: 0,
                ended: false,
                broken: false,
                reader: None,
                writer: None,
            }))
        };
        let (there, back) = (pipe(from, to), pipe(to, from));
        state.links.retain(|link| link.pipes.iter().all(|pipe| pipe.strong_count() > 0));
        let pipes = [Arc::downgrade(&there), Arc::downgrade(&back)];
        state.links.push(Link { hosts: (from, to), pipes });
        let near = End { rx: Arc::clone(&back), tx: Arc::clone(&there), timer: None };
        (near, End { rx: there, tx: back, timer: None }, address(from, state.ports))
    }
}

struct Listening(Arc<Queue>);

impl Accept for Listening {
    fn accept(&self) -> Waiting<'_, (Box<dyn Duplex>, SocketAddr)> {
        Box::pin(async {
            loop {
                let now = sys::now();
                let next = {
                    let mut waiting = self.0.lock();
                    match waiting.front().map(|(at, ..)| *at) {
                        Some(at) if at <= now => Err(waiting.pop_front()),
                        at => Ok(at),
                    }
                };
                match next {
                    Err(Some((_, end, remote))) => return Ok((Box::new(end) as Box<dyn Duplex>, remote)),
                    Ok(Some(at)) => sys::pass(Duration::from_nanos(at - now)).await,
                    Ok(None) | Err(None) => self.0.arrival.notified().await,
                }
            }
        })
    }

    fn local_addr(&self) -> SocketAddr {
        address(self.0.host, self.0.port)
    }
}
