//! The addresses of this host.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use crate::domain::addresses::{Interface, to_announce};

/// Returns the addresses of this host at which a listener that is bound to `bound` can be announced. Empty if
/// they can't be read.
pub(crate) fn announceable(bound: IpAddr) -> Vec<IpAddr> {
    let Ok(found) = getifaddrs() else { return Vec::new() };
    let interfaces: Vec<_> = found
        .filter(|one| one.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            Some(Interface { name: one.interface_name, ip: v4.or_else(v6)? })
        })
        .collect();
    to_announce(bound, &interfaces)
}
