//! Counts connections: in all, by address, by peer.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use super::limits::Limits;
use crate::domain::PeerId;

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
    by_peer: HashMap<PeerId, usize>,
}

/// The counts of one server. The lock is held for a few map operations and never across an await.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Counts>);

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    ip: Option<IpAddr>,
    peer: Option<PeerId>,
}

impl Slots {
    /// A place for a connection from `ip`, unless there is none.
    pub(super) fn take(self: &Arc<Self>, ip: Option<IpAddr>, limits: &Limits) -> Option<Slot> {
        let counted = ip.map(network).filter(|ip| !(limits.loopback_exempt && ip.is_loopback()));
        let mut counts = self.lock();
        if counts.all >= limits.connections {
            return None;
        }
        if let Some(ip) = counted
            && !add(&mut counts.by_ip, ip, limits.connections_per_ip)
        {
            return None;
        }
        counts.all += 1;
        Some(Slot { slots: Arc::clone(self), ip: counted, peer: None })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // Counts stay right whoever panicked: every change below is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Counts the connection for its peer. False when the peer has as many as it may.
    pub(super) fn name(&mut self, peer: PeerId, limits: &Limits) -> bool {
        let added = add(&mut self.slots.lock().by_peer, peer, limits.connections_per_peer);
        if added {
            self.peer = Some(peer);
        }
        added
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.lock();
        counts.all -= 1;
        if let Some(ip) = self.ip {
            remove(&mut counts.by_ip, ip);
        }
        if let Some(peer) = self.peer {
            remove(&mut counts.by_peer, peer);
        }
    }
}

fn add<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, limit: usize) -> bool {
    let count = counts.entry(key).or_default();
    let fits = *count < limit;
    *count += usize::from(fits);
    fits
}

fn remove<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// An IPv4 address, or the /64 that one customer of a provider usually holds whole.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { connections: 4, connections_per_ip: 2, connections_per_peer: 1, ..Limits::tracker() }
    }

    #[test]
    fn counts_all_by_network_and_by_peer() {
        let slots = Arc::new(Slots::default());
        let (limits, far) = (limits(), |text: &str| Some(text.parse().expect("an address")));
        let mut first = slots.take(far("2001:db8::1"), &limits).expect("the first");
        let second = slots.take(far("2001:db8::2"), &limits).expect("the second of the /64");
        assert!(slots.take(far("2001:db8::3"), &limits).is_none(), "a third of the /64");
        let mut other = slots.take(far("192.0.2.1"), &limits).expect("another network");
        let local = slots.take(far("127.0.0.1"), &limits).expect("loopback");
        assert!(slots.take(far("127.0.0.1"), &limits).is_none(), "a fifth in all");

        let peer = PeerId::from([7; 32]);
        assert!(first.name(peer, &limits) && !other.name(peer, &limits));
        drop((first, second, local));
        assert!(other.name(peer, &limits), "the first gave its place back");
        drop(other);
        let counts = slots.lock();
        assert!(counts.all == 0 && counts.by_ip.is_empty() && counts.by_peer.is_empty());
    }
}
