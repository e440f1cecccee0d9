//! Decides which connections a server keeps when more connect than it has places for. Decisions only: no
//! socket, no clock.
//!
//! There are three kinds of connections. Each kind has its own places, so that no kind can use up another's:
//!
//! 1. *Newcomers* have not sent a request yet. A finished TLS handshake or HTTP/2 preface changes nothing,
//!    because anybody can complete one and then be silent.
//! 2. *Callers* have sent a request, such as a login.
//! 3. *Proven* connections have proved that somebody with a right is at the other end. The server defines the
//!    proof: a call with a valid session on a tracker, a call with a valid ticket on a peer, or the user of
//!    the process on a Unix socket. A certificate alone is no proof, because every account gets one.
//!
//! Newcomers and callers are strangers. They are counted by network. A stranger always gets a place. If its
//! network is at its limit, the oldest stranger of that network is closed. If all places are taken, the
//! oldest stranger of the network with the most is closed. So a crowd behind one address displaces its own
//! connections, and a silent connection does not keep its place by waiting.
//!
//! Proven connections are counted by principal, never by address, because many principals can share an
//! address behind a NAT. If all proven places are taken, a principal with fewer connections displaces the
//! oldest connection of the principal with the most.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
};

use domain::PeerId;

/// Maximum numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceLimits {
    /// Proven connections.
    pub proven: usize,
    /// Proven connections of one principal.
    pub proven_each: usize,
    /// Newcomers. The same number applies to callers.
    pub strangers: usize,
    /// Newcomers from one IPv4 address or one IPv6 /64. The same number applies to callers.
    pub strangers_each: usize,
}

impl PlaceLimits {
    /// Scales the limits down in proportion if all of them together exceed `files` open files.
    #[must_use]
    pub fn within(self, files: usize) -> Self {
        let wanted = self.proven + 2 * self.strangers;
        if files >= wanted {
            return self;
        }
        let part = |count: usize| (count * files / wanted).max(1);
        let each = |count: usize| count.min((count * files).div_ceil(wanted)).max(2);
        Self {
            proven: part(self.proven),
            // A peer needs several connections, even if there are few places.
            proven_each: self.proven_each,
            strangers: part(self.strangers),
            strangers_each: each(self.strangers_each),
        }
    }
}

/// The proven identity at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A peer that has shown a ticket, by its certificate.
    Peer(PeerId),
    /// An account of the tracker, by its number.
    Account(i64),
    /// A user of this machine, by user id.
    User(u32),
}

/// A connection's number, in the order of admission: a smaller number is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnId(u64);

/// The decision about a connection that was accepted, or that proved its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The connection has a place.
    Admit,
    /// The connection takes the place of this one, which must be closed.
    Evict(ConnId),
    /// The connection has no place. A stranger that fails to prove itself keeps its stranger's place.
    Refuse,
}

/// The connections of one server.
#[derive(Debug)]
pub(super) struct Places {
    limits: PlaceLimits,
    next: u64,
    newcomers: Crowd<IpAddr>,
    callers: Crowd<IpAddr>,
    proven: Crowd<Principal>,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Self {
        let (newcomers, callers) = (Crowd::default(), Crowd::default());
        Self { limits, next: 0, newcomers, callers, proven: Crowd::default() }
    }

    /// Admits a newcomer from this address. A newcomer is never refused.
    pub(super) fn admit(&mut self, from: IpAddr) -> (ConnId, Admission) {
        let (id, network) = (ConnId(self.next), network_of(from));
        self.next += 1;
        let victim = self.newcomers.in_the_way(&network, &self.limits);
        self.newcomers.insert(id, network);
        (id, self.evicted(victim))
    }

    /// Records a request. Refused only if the connection is being closed.
    pub(super) fn call(&mut self, id: ConnId) -> Admission {
        if let Some(network) = self.newcomers.remove(id) {
            let victim = self.callers.in_the_way(&network, &self.limits);
            self.callers.insert(id, network);
            self.evicted(victim)
        } else if self.callers.members.contains_key(&id) || self.proven.members.contains_key(&id) {
            Admission::Admit
        } else {
            Admission::Refuse
        }
    }

    /// Records who is at the other end. A refused connection stays a stranger.
    pub(super) fn prove(&mut self, id: ConnId, who: Principal) -> Admission {
        if self.proven.members.contains_key(&id) {
            return Admission::Admit;
        }
        let own = self.proven.count(&who);
        let open = self.newcomers.members.contains_key(&id) || self.callers.members.contains_key(&id);
        if own >= self.limits.proven_each || !open {
            return Admission::Refuse;
        }
        let mut victim = None;
        if self.proven.members.len() >= self.limits.proven {
            let fairer = self.proven.oldest_of_the_largest().filter(|(_, most)| *most > own + 1);
            let Some((oldest, _)) = fairer else { return Admission::Refuse };
            victim = Some(oldest);
        }
        self.release(id);
        self.proven.insert(id, who);
        self.evicted(victim)
    }

    /// Gives up a stranger when open files run out for any reason. Prefers newcomers.
    pub(super) fn give_up_one(&mut self) -> Option<ConnId> {
        let oldest = self.newcomers.oldest_of_the_largest().or_else(|| self.callers.oldest_of_the_largest());
        let (oldest, _) = oldest?;
        self.release(oldest);
        Some(oldest)
    }

    /// Frees the place of a connection that has ended.
    pub(super) fn release(&mut self, id: ConnId) {
        self.newcomers.remove(id);
        self.callers.remove(id);
        self.proven.remove(id);
    }

    fn evicted(&mut self, victim: Option<ConnId>) -> Admission {
        let Some(victim) = victim else { return Admission::Admit };
        self.release(victim);
        Admission::Evict(victim)
    }
}

/// Connections ordered by age and counted by a key.
#[derive(Debug)]
struct Crowd<K> {
    members: BTreeMap<ConnId, K>,
    counts: HashMap<K, usize>,
}

impl<K> Default for Crowd<K> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), counts: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Crowd<K> {
    fn count(&self, key: &K) -> usize {
        self.counts.get(key).copied().unwrap_or(0)
    }

    fn insert(&mut self, id: ConnId, key: K) {
        self.members.insert(id, key);
        *self.counts.entry(key).or_default() += 1;
    }

    fn remove(&mut self, id: ConnId) -> Option<K> {
        let key = self.members.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        Some(key)
    }

    /// The oldest connection of a key with the highest count, and that count.
    fn oldest_of_the_largest(&self) -> Option<(ConnId, usize)> {
        let most = self.counts.values().copied().max()?;
        let (id, _) = self.members.iter().find(|(_, key)| self.count(key) == most)?;
        Some((*id, most))
    }
}

impl Crowd<IpAddr> {
    /// The stranger that must be closed before another from that network is added, if any.
    fn in_the_way(&self, network: &IpAddr, limits: &PlaceLimits) -> Option<ConnId> {
        if self.count(network) >= limits.strangers_each {
            self.members.iter().find(|(_, of)| *of == network).map(|(id, _)| *id)
        } else if self.members.len() >= limits.strangers {
            self.oldest_of_the_largest().map(|(id, _)| id)
        } else {
            None
        }
    }
}

/// The network of an address: the IPv4 address itself, or the IPv6 /64, which providers usually assign to one
/// customer.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> PlaceLimits {
        PlaceLimits { proven: 4, proven_each: 3, strangers: 4, strangers_each: 2 }
    }

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn peer(number: u8) -> Principal {
        Principal::Peer(PeerId::from([number; 32]))
    }

    #[test]
    fn an_address_displaces_its_own_oldest_stranger() {
        let mut places = Places::new(limits());
        let (other, _) = places.admit(at("192.0.2.9"));
        let (first, _) = places.admit(at("2001:db8::1"));
        let (second, admission) = places.admit(at("2001:db8::2"));
        assert_eq!(admission, Admission::Admit);
        assert_eq!(places.admit(at("2001:db8::3")).1, Admission::Evict(first), "the third of the /64");
        assert_eq!(places.admit(at("2001:db8::4")).1, Admission::Evict(second));
        assert!(places.newcomers.members.contains_key(&other), "older, but not of that network");
    }

    #[test]
    fn with_all_taken_the_network_with_the_most_gives_way() {
        let mut places = Places::new(limits());
        let (_alone, _) = places.admit(at("192.0.2.1"));
        let (oldest_of_two, _) = places.admit(at("192.0.2.2"));
        let _ = places.admit(at("192.0.2.2"));
        let _ = places.admit(at("192.0.2.3"));
        assert_eq!(places.admit(at("192.0.2.4")).1, Admission::Evict(oldest_of_two));
        // Each network has one now, so the oldest of all is closed.
        assert_eq!(places.admit(at("192.0.2.5")).1, Admission::Evict(ConnId(0)));
    }

    #[test]
    fn the_proven_are_counted_by_who_they_are_and_never_displaced_by_strangers() {
        let mut places = Places::new(limits());
        // All are behind one address, and there are more than the strangers' limit.
        let of = |places: &mut Places, number| {
            let (id, _) = places.admit(at("192.0.2.1"));
            (id, places.prove(id, peer(number)))
        };
        let (first, admission) = of(&mut places, 1);
        assert_eq!(admission, Admission::Admit);
        assert_eq!(places.prove(first, peer(1)), Admission::Admit, "once more");
        assert_eq!(of(&mut places, 1).1, Admission::Admit);
        assert_eq!(of(&mut places, 1).1, Admission::Admit);
        assert_eq!(of(&mut places, 1).1, Admission::Refuse, "a fourth of the same");
        assert_eq!(of(&mut places, 2).1, Admission::Admit);
        // All proven places are taken: a principal with fewer displaces the oldest of the one with the most.
        assert_eq!(of(&mut places, 3).1, Admission::Evict(first));
        assert_eq!(places.prove(first, peer(1)), Admission::Refuse, "it is being closed");
        let (_, again) = of(&mut places, 2);
        assert_eq!(again, Admission::Refuse, "2 would have as many as the most");
        for _ in 0..100 {
            let _ = places.admit(at("192.0.2.1"));
        }
        assert_eq!((places.proven.members.len(), places.newcomers.members.len()), (4, 2));
        while let Some(id) = places.give_up_one() {
            assert!(!places.proven.members.contains_key(&id));
        }
        assert!(places.newcomers.counts.is_empty());
    }

    #[test]
    fn callers_are_displaced_by_callers_alone() {
        let mut places = Places::new(limits());
        let here = at("192.0.2.1");
        let call = |places: &mut Places| {
            let (id, _) = places.admit(here);
            (id, places.call(id))
        };
        let (first, admission) = call(&mut places);
        assert_eq!(admission, Admission::Admit);
        for _ in 0..100 {
            let _ = places.admit(here);
        }
        assert_eq!(places.call(first), Admission::Admit, "silence displaces silence");
        assert_eq!(call(&mut places).1, Admission::Admit);
        assert_eq!(call(&mut places).1, Admission::Evict(first));
        assert_eq!(places.call(first), Admission::Refuse, "it is being closed");
    }

    #[test]
    fn few_open_files_mean_few_places() {
        let all = PlaceLimits { proven: 2_000, proven_each: 64, strangers: 250, strangers_each: 100 };
        assert_eq!(all.within(usize::MAX >> 32), all);
        assert_eq!(all.within(2_500), all);
        let few = all.within(192);
        assert!(few.proven + 2 * few.strangers <= 192, "{few:?}");
        assert!(few.proven >= 150 && few.strangers >= 18 && few.strangers_each >= 7, "{few:?}");
        let none = all.within(0);
        assert!(none.proven >= 1 && none.strangers >= 1 && none.strangers_each >= 1, "{none:?}");
    }

    proptest! {
        /// The counts stay correct and within the limits in any order of steps, and a newcomer always gets a
        /// place.
        #[test]
        fn limits_hold_in_every_order(steps in prop::collection::vec((0_u8..5, 0_u8..6, 0_u64..60), 0..300)) {
            let limits = limits();
            let mut places = Places::new(limits);
            let mut open = std::collections::BTreeSet::new();
            for (what, number, which) in steps {
                let admission = match what {
                    0 | 1 => {
                        let (id, admission) = places.admit(IpAddr::from([192, 0, 2, number]));
                        prop_assert_ne!(admission, Admission::Refuse);
                        open.insert(id);
                        admission
                    }
                    2 => places.prove(ConnId(which), peer(number)),
                    3 => places.call(ConnId(which)),
                    _ => {
                        places.release(ConnId(which));
                        open.remove(&ConnId(which));
                        Admission::Admit
                    }
                };
                if let Admission::Evict(victim) = admission {
                    prop_assert!(open.remove(&victim), "{victim:?} had ended");
                }
                let strangers = [&places.newcomers, &places.callers];
                let held = strangers.into_iter().flat_map(|crowd| crowd.members.keys());
                let held = held.chain(places.proven.members.keys()).copied();
                prop_assert_eq!(&held.collect::<std::collections::BTreeSet<_>>(), &open);
                for crowd in strangers {
                    prop_assert!(crowd.members.len() <= limits.strangers);
                    let each = 1..=limits.strangers_each;
                    prop_assert!(crowd.counts.values().all(|count| each.contains(count)));
                }
                prop_assert!(places.proven.members.len() <= limits.proven);
                let each = 1..=limits.proven_each;
                prop_assert!(places.proven.counts.values().all(|count| each.contains(count)));
            }
        }
    }
}
