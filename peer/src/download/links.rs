//! Connections to other peers, shared by all downloads.
//!
//! Two connections to a peer that sends fast, since one is one task and so one core at each end; more only when many
//! downloads from the same peer would wait for each other behind its limit of calls on a connection. A second one to each
//! peer would double what a crowd spends on handshakes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use proto::domain::PeerId;
use tonic::transport::Channel;

use crate::engine::{DialError, Dialer};

/// Connections that carry bulk data, where there is some for several.
const SPREAD: usize = 2;
/// Calls on one connection. A peer takes 16.
const CALLS: usize = 14;
/// Connections to one peer. It takes 8 of ours, perhaps from another daemon with our key's certificate as well.
const CONNECTIONS: usize = 6;

/// All connections to other peers.
pub(crate) struct Links {
    dialer: Arc<dyn Dialer>,
    links: Mutex<HashMap<PeerId, Weak<Link>>>,
}

/// The connections to one peer. They close with the last one who holds it.
pub(crate) struct Link {
    peer: PeerId,
    address: String,
    dialer: Arc<dyn Dialer>,
    lines: Mutex<Vec<Line>>,
}

struct Line {
    channel: Channel,
    /// Calls that run.
    calls: usize,
    /// Those of them that carry bulk data.
    bulk: usize,
}

/// A call's share of a connection.
pub(crate) struct Lease {
    pub(crate) channel: Channel,
    link: Arc<Link>,
    line: usize,
    bulk: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    pub(crate) fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, links: Mutex::default() }
    }

    pub(crate) fn own_id(&self) -> Option<PeerId> {
        self.dialer.own_id()
    }

    /// Connects to the peer at the first of its addresses that answers, or joins the connections that are there.
    pub(crate) async fn connect(&self, peer: PeerId, addresses: &[String]) -> Result<Arc<Link>, DialError> {
        let known = |links: &HashMap<PeerId, Weak<Link>>| {
            let link = links.get(&peer)?.upgrade()?;
            addresses.contains(&link.address).then_some(link)
        };
        if let Some(link) = known(&lock(&self.links)) {
            return Ok(link);
        }
        let mut failed = DialError("the peer has no address".into());
        for address in addresses {
            match self.dialer.dial(peer, address).await {
                Ok(channel) => {
                    let mut links = lock(&self.links);
                    // Another download may have been faster.
                    if let Some(link) = known(&links) {
                        return Ok(link);
                    }
                    let link = Arc::new(Link {
                        peer,
                        address: address.clone(),
                        dialer: self.dialer.clone(),
                        lines: Mutex::new(vec![Line { channel, calls: 0, bulk: 0 }]),
                    });
                    links.retain(|_, link| link.strong_count() > 0);
                    links.insert(peer, Arc::downgrade(&link));
                    return Ok(link);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Forgets all connections: who dials is another from now on.
    pub(crate) fn clear(&self) {
        lock(&self.links).clear();
    }
}

impl Link {
    /// A connection for a call; `bulk` if it is to carry piece after piece.
    pub(crate) async fn lease(self: &Arc<Self>, bulk: bool) -> Lease {
        if self.needs_line(bulk) {
            // If it can't be had, those that are there will do.
            if let Ok(channel) = self.dialer.dial(self.peer, &self.address).await {
                let mut lines = lock(&self.lines);
                if lines.len() < CONNECTIONS {
                    lines.push(Line { channel, calls: 0, bulk: 0 });
                }
            }
        }
        let mut lines = lock(&self.lines);
        let load = |line: &Line| if bulk { (line.bulk, line.calls) } else { (line.calls, line.bulk) };
        let free = |line: &Line| usize::from(line.calls >= CALLS);
        let least =
            lines.iter().enumerate().min_by_key(|(_, line)| (free(line), load(line))).map_or(0, |(at, _)| at);
        let line = &mut lines[least];
        line.calls += 1;
        line.bulk += usize::from(bulk);
        Lease { channel: line.channel.clone(), link: self.clone(), line: least, bulk }
    }

    fn needs_line(&self, bulk: bool) -> bool {
        let lines = lock(&self.lines);
        let full = lines.iter().all(|line| line.calls >= CALLS);
        let busy = bulk && lines.len() < SPREAD && lines.iter().all(|line| line.calls > 0);
        lines.len() < CONNECTIONS && (full || busy)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Lines are never taken away, so it is still the same one.
        if let Some(line) = lock(&self.link.lines).get_mut(self.line) {
            line.calls -= 1;
            line.bulk -= usize::from(self.bulk);
        }
    }
}
