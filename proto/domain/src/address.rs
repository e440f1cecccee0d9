//! Addresses of peers: which of them other hosts can use, and in which order to dial them.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The hosts that can use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// No host by the address alone: unspecified, broadcast, multicast or link-local.
    Nowhere,
    /// The host itself: loopback.
    Host,
    /// Other hosts too.
    Network,
}

/// Returns the scope of an address. An IPv4 address that is mapped into IPv6 counts as IPv4.
pub fn scope(ip: IpAddr) -> Scope {
    let ip = ip.to_canonical();
    let nowhere = ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
    match (nowhere, ip.is_loopback()) {
        (true, _) => Scope::Nowhere,
        (_, true) => Scope::Host,
        _ => Scope::Network,
    }
}

/// Whether a listener bound to `bound` accepts connections to `ip`. A listener on `::` accepts both families.
pub fn is_listened(bound: IpAddr, ip: IpAddr) -> bool {
    match bound.to_canonical() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.to_canonical().is_ipv4(),
        bound => bound == ip.to_canonical(),
    }
}

/// Returns `host:port` addresses in the order in which to dial them (RFC 8305, section 4): the families take
/// turns, and the family of the first address begins. A host name counts as an address of its own family.
pub fn interleave<T>(addresses: Vec<T>, family: impl Fn(&T) -> Family) -> Vec<T> {
    let mut queues: Vec<(Family, VecDeque<T>)> = Vec::new();
    for address in addresses {
        let family = family(&address);
        match queues.iter_mut().find(|(known, _)| *known == family) {
            Some((_, queue)) => queue.push_back(address),
            None => queues.push((family, VecDeque::from([address]))),
        }
    }
    let mut ordered = Vec::new();
    while queues.iter().any(|(_, queue)| !queue.is_empty()) {
        ordered.extend(queues.iter_mut().filter_map(|(_, queue)| queue.pop_front()));
    }
    ordered
}

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// A host name, which may have addresses of both.
    Name,
}

impl Family {
    /// The family of an IP address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a `host:port` address.
    pub fn of_text(address: &str) -> Self {
        address.parse().map_or(Self::Name, |address: std::net::SocketAddr| Self::of(address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_what_other_hosts_can_dial_is_of_the_network() {
        for (text, expected) in [
            ("10.0.0.1", Scope::Network),
            ("203.0.113.5", Scope::Network),
            ("fd00::1", Scope::Network),
            ("2001:db8::1", Scope::Network),
            ("::ffff:10.0.0.1", Scope::Network),
            ("127.0.0.1", Scope::Host),
            ("127.9.9.9", Scope::Host),
            ("::1", Scope::Host),
            ("::ffff:127.0.0.1", Scope::Host),
            ("0.0.0.0", Scope::Nowhere),
            ("0.1.2.3", Scope::Nowhere),
            ("169.254.169.254", Scope::Nowhere),
            ("224.0.0.1", Scope::Nowhere),
            ("255.255.255.255", Scope::Nowhere),
            ("::", Scope::Nowhere),
            ("fe80::1", Scope::Nowhere),
            ("ff02::1", Scope::Nowhere),
        ] {
            assert_eq!(scope(ip(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_listener_accepts_its_families_or_its_one_address() {
        for (bound, to, accepted) in [
            ("::", "10.0.0.1", true),
            ("::", "fd00::1", true),
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "::ffff:10.0.0.1", true),
            ("0.0.0.0", "fd00::1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "127.0.0.1", false),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            assert_eq!(is_listened(ip(bound), ip(to)), accepted, "{bound} {to}");
        }
    }

    #[test]
    fn the_families_take_turns_and_the_first_begins() {
        let ordered = |all: &[&'static str]| interleave(all.to_vec(), |text| Family::of_text(text));
        assert_eq!(
            ordered(&["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fd00::2]:1"]),
            ["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1", "[fd00::2]:1"]
        );
        assert_eq!(
            ordered(&["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1", "a.example:1"]),
            ["[fd00::1]:1", "10.0.0.1:1", "a.example:1", "[fd00::2]:1"]
        );
        assert!(ordered(&[]).is_empty());
    }
}
