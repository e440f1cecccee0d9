//! Connections to other peers, shared by all downloads.
//!
//! A peer that sends fast gets two connections, because one connection is one task, and so one core, at each
//! end. There are more only when many downloads from the same peer would otherwise wait for its limit of
//! calls on a connection. A second connection to every peer would double the cost of handshakes in a crowd.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use proto::domain::{
    PeerId,
    address::{Family, interleave},
};
use tonic::transport::Channel;

use crate::ports::{Attempt, Dialer, Unreached};

/// The number of connections that carry bulk data, if there is enough for several.
const SPREAD: usize = 2;
/// The most calls on one connection. A peer accepts 16.
const CALLS: usize = 14;
/// The most connections to one peer. A peer accepts 8 of one key, and another daemon may use a certificate of
/// the same key.
const CONNECTIONS: usize = 6;

/// The most failures that are kept for the tracker: as many as it takes at a time.
const MOST_UNREACHED: usize = 16;

/// All connections to other peers.
pub(crate) struct Links {
    dialer: Arc<dyn Dialer>,
    links: Mutex<HashMap<PeerId, Weak<Link>>>,
    /// Failures that the tracker has not been told yet, the latest of each address.
    unreached: Mutex<Vec<Unreached>>,
}

/// The connections to one peer. They close when the last holder drops this.
pub(crate) struct Link {
    peer: PeerId,
    address: String,
    dialer: Arc<dyn Dialer>,
    lines: Mutex<Vec<Line>>,
    /// The number of the next line.
    numbers: AtomicU64,
    /// The limit of all uploads of the peer, as it told last, in bytes a second; 0 for none.
    upload_limit: AtomicU64,
    /// The number of peers that it served or let wait, as it told last.
    readers: AtomicU64,
}

struct Line {
    /// The line's number among all lines that this link has had.
    number: u64,
    channel: Channel,
    /// The bytes that the peer may send ahead, for each call. Fixed when the line is opened.
    window: u32,
    /// The number of running calls.
    calls: usize,
    /// The number of running calls that carry bulk data.
    bulk: usize,
}

/// A call's use of a connection.
pub(crate) struct Lease {
    pub(crate) channel: Channel,
    link: Arc<Link>,
    line: u64,
    bulk: bool,
}

impl Links {
    pub(crate) fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, links: Mutex::default(), unreached: Mutex::default() }
    }

    pub(crate) fn own_id(&self) -> Option<PeerId> {
        self.dialer.own_id()
    }

    /// Connects to the peer, or shares an existing connection. All addresses are dialled, each a moment after
    /// the one before it, and the first connection on which the peer proves its id is used. On a new
    /// connection the peer may send `window` bytes ahead.
    pub(crate) async fn connect(
        &self,
        peer: PeerId,
        addresses: &[String],
        window: u32,
    ) -> Result<Arc<Link>, Vec<Attempt>> {
        let known = |links: &HashMap<PeerId, Weak<Link>>| {
            let link = links.get(&peer)?.upgrade()?;
            addresses.contains(&link.address).then_some(link)
        };
        if let Some(link) = known(&self.links.lock()) {
            return Ok(link);
        }
        let ordered = interleave(addresses.to_vec(), |address| Family::of_text(address));
        let attempts =
            ordered.into_iter().map(async |address| match self.dialer.dial(peer, &address, window).await {
                Ok(channel) => Ok((address, channel)),
                Err(error) => Err(Attempt { address, obstacle: error.obstacle, error: error.message }),
            });
        let (address, channel) = transport::race(attempts).await?;
        let mut links = self.links.lock();
        // Another download may have connected meanwhile.
        if let Some(link) = known(&links) {
            return Ok(link);
        }
        let link = Arc::new(Link {
            peer,
            address,
            dialer: self.dialer.clone(),
            lines: Mutex::new(vec![Line::new(0, channel, window)]),
            numbers: AtomicU64::new(1),
            upload_limit: AtomicU64::new(0),
            readers: AtomicU64::new(0),
        });
        links.retain(|_, link| link.strong_count() > 0);
        links.insert(peer, Arc::downgrade(&link));
        Ok(link)
    }

    /// Notes sources that could not be reached.
    pub(crate) fn note_unreached(&self, found: impl Iterator<Item = Unreached>) {
        let mut unreached = self.unreached.lock();
        for new in found {
            unreached.retain(|old| (old.peer, &old.attempt.address) != (new.peer, &new.attempt.address));
            if unreached.len() < MOST_UNREACHED {
                unreached.push(new);
            }
        }
    }

    /// Takes the sources that could not be reached since the last call.
    pub(crate) fn take_unreached(&self) -> Vec<Unreached> {
        std::mem::take(&mut *self.unreached.lock())
    }

    /// Forgets all connections, because this peer's identity changes.
    pub(crate) fn clear(&self) {
        self.links.lock().clear();
    }
}

impl Link {
    /// The address that the peer was reached at.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Notes what the peer said about its uploads.
    pub(super) fn note_uploads(&self, limit: Option<u64>, readers: Option<u64>) {
        self.upload_limit.store(limit.unwrap_or_default(), Ordering::Relaxed);
        self.readers.store(readers.unwrap_or_default(), Ordering::Relaxed);
    }

    /// The limit of all uploads of the peer in bytes a second, and the number of peers that it serves or lets wait;
    /// 0 for what it has not said.
    pub(super) fn uploads(&self) -> (u64, u32) {
        let readers = self.readers.load(Ordering::Relaxed);
        (self.upload_limit.load(Ordering::Relaxed), u32::try_from(readers).unwrap_or(u32::MAX))
    }

    /// Returns a connection for a call. `bulk` means that the call will carry piece after piece. The peer may
    /// send `window` bytes ahead if such a connection exists or can be opened.
    pub(crate) async fn lease(self: &Arc<Self>, bulk: bool, window: u32) -> Lease {
        if self.needs_line(bulk, window) {
            // If a new connection can't be opened, the existing ones are used.
            if let Ok(channel) = self.dialer.dial(self.peer, &self.address, window).await {
                self.add_line(channel, window);
            }
        }
        let mut lines = self.lines.lock();
        let load = |line: &Line| if bulk { (line.bulk, line.calls) } else { (line.calls, line.bulk) };
        let unfit = |line: &Line| (line.window.abs_diff(window), line.calls >= CALLS);
        let least = lines
            .iter()
            .enumerate()
            .min_by_key(|(_, line)| (unfit(line), load(line)))
            .map_or(0, |(at, _)| at);
        let line = &mut lines[least];
        line.calls += 1;
        line.bulk += usize::from(bulk);
        Lease { channel: line.channel.clone(), link: self.clone(), line: line.number, bulk }
    }

    fn needs_line(&self, bulk: bool, window: u32) -> bool {
        let lines = self.lines.lock();
        let fit = || lines.iter().filter(|line| line.window == window);
        let full = fit().all(|line| line.calls >= CALLS);
        let busy = bulk && fit().count() < SPREAD && fit().all(|line| line.calls > 0);
        let room = lines.len() < CONNECTIONS || lines.iter().any(|line| line.is_obsolete(window));
        room && (full || busy)
    }

    /// Adds a line. If there are too many, it replaces one that is obsolete.
    fn add_line(&self, channel: Channel, window: u32) {
        let mut lines = self.lines.lock();
        if lines.len() >= CONNECTIONS
            && let Some(at) = lines.iter().position(|line| line.is_obsolete(window))
        {
            lines.remove(at);
        }
        if lines.len() < CONNECTIONS {
            lines.push(Line::new(self.numbers.fetch_add(1, Ordering::Relaxed), channel, window));
        }
    }
}

impl Line {
    fn new(number: u64, channel: Channel, window: u32) -> Self {
        Self { number, channel, window, calls: 0, bulk: 0 }
    }

    /// Whether it was opened for another limit and carries no call.
    fn is_obsolete(&self, window: u32) -> bool {
        self.calls == 0 && self.window != window
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A line with running calls is never removed.
        let mut lines = self.link.lines.lock();
        if let Some(line) = lines.iter_mut().find(|line| line.number == self.line) {
            line.calls -= 1;
            line.bulk -= usize::from(self.bulk);
        }
    }
}
