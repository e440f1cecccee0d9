//! Chooses the addresses of this host that are announced to other peers.

use std::{collections::HashMap, net::IpAddr};

use domain::{
    address::{Family, Scope, interleave, is_listened, scope},
    limits::MAX_ADDRESSES,
};

/// Beginnings of the names of interfaces that containers and virtual machines use. Other hosts rarely reach
/// their addresses.
const VIRTUAL: [&str; 8] = ["docker", "br-", "veth", "virbr", "cni", "podman", "lxc", "lxdbr"];

/// An address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The name of the interface.
    pub name: String,
    /// One of its addresses.
    pub ip: IpAddr,
}

/// Returns the addresses to announce for a listener that is bound to `bound`, best first, at most
/// [`MAX_ADDRESSES`]. The families take turns. The first address of each interface comes before the second of
/// any, and interfaces of containers come last.
pub fn to_announce(bound: IpAddr, interfaces: &[Interface]) -> Vec<IpAddr> {
    let mut counts: HashMap<(&str, bool), usize> = HashMap::new();
    let mut ranked = Vec::new();
    for Interface { name, ip } in interfaces {
        let ip = ip.to_canonical();
        if scope(ip) != Scope::Network || !is_listened(bound, ip) {
            continue;
        }
        let is_virtual = VIRTUAL.iter().any(|start| name.starts_with(start));
        let count = counts.entry((name, ip.is_ipv4())).or_default();
        ranked.push(((is_virtual, *count), ip));
        *count += 1;
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.dedup_by_key(|(_, ip)| *ip);
    let (near, far): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|((is_virtual, _), _)| !is_virtual);
    let ordered = |group: Vec<(_, IpAddr)>| {
        interleave(group.into_iter().map(|(_, ip)| ip).collect(), |ip| Family::of(*ip))
    };
    ordered(near).into_iter().chain(ordered(far)).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(bound: &str, interfaces: &[(&str, &str)]) -> Vec<String> {
        let ip = |text: &str| text.parse().expect("an address");
        let interfaces: Vec<_> =
            interfaces.iter().map(|(name, text)| Interface { name: (*name).into(), ip: ip(text) }).collect();
        to_announce(ip(bound), &interfaces).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn loopback_and_link_local_addresses_are_never_announced() {
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "fe80::1"),
            ("eth0", "169.254.1.2"),
            ("eth0", "10.0.0.1"),
            ("eth0", "fd00::1"),
        ];
        assert_eq!(chosen("::", &interfaces), ["10.0.0.1", "fd00::1"]);
        assert_eq!(chosen("0.0.0.0", &interfaces), ["10.0.0.1"], "IPv6 is not listened on");
        assert_eq!(chosen("fd00::1", &interfaces), ["fd00::1"]);
        assert!(chosen("127.0.0.1", &interfaces).is_empty());
    }

    #[test]
    fn every_interface_and_both_families_have_a_place_before_a_second_address() {
        let interfaces = [
            ("docker0", "172.17.0.1"),
            ("eth0", "2001:db8::1"),
            ("eth0", "2001:db8::2"),
            ("eth0", "2001:db8::3"),
            ("eth0", "10.0.0.1"),
            ("eth1", "10.9.0.1"),
        ];
        assert_eq!(chosen("::", &interfaces), ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.9.0.1"]);
        assert_eq!(chosen("0.0.0.0", &interfaces), ["10.0.0.1", "10.9.0.1", "172.17.0.1"]);
    }
}
