//! Which addresses a peer may have handed out: those that others can dial and that lead nowhere they should not.

use std::net::{IpAddr, SocketAddr};

/// Longest address with its port, in bytes.
const MAX_ADDRESS: usize = 255;

/// Why an address is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Not `HOST:PORT`, too long, or not a host.
    Malformed,
    /// Port 0 or above 65,535.
    Port,
    /// Unspecified, broadcast, multicast or link-local.
    Unreachable,
    /// Loopback, and the peer itself does not come from loopback.
    Loopback,
}

/// The address to hand out for a peer that the tracker sees at `observed`, listens at `port`, and asks for `advertise`
/// (empty for nothing special; without a port it takes `port`).
///
/// # Errors
/// When others could not dial it, or should not.
pub fn dialable(observed: IpAddr, port: u32, advertise: &str) -> Result<String, AddressError> {
    let port = u16::try_from(port).ok().filter(|&port| port != 0).ok_or(AddressError::Port)?;
    let observed = observed.to_canonical();
    if advertise.is_empty() {
        return Ok(SocketAddr::new(observed, port).to_string());
    }
    if advertise.len() > MAX_ADDRESS {
        return Err(AddressError::Malformed);
    }
    let ip_and_port = match (advertise.parse::<SocketAddr>(), advertise.parse::<IpAddr>()) {
        (Ok(address), _) => Some((address.ip(), address.port())),
        (_, Ok(ip)) => Some((ip, port)),
        _ => None,
    };
    if let Some((ip, port)) = ip_and_port {
        let ip = ip.to_canonical();
        check_ip(ip, observed)?;
        return if port == 0 { Err(AddressError::Port) } else { Ok(SocketAddr::new(ip, port).to_string()) };
    }
    let (host, port) = match advertise.rsplit_once(':') {
        None => (advertise, port),
        Some((host, port)) => (host, parse_port(port)?),
    };
    let host = host.to_ascii_lowercase();
    if !is_host_name(&host) {
        return Err(AddressError::Malformed);
    }
    let local = host == "localhost" || host.ends_with(".localhost");
    if local && !observed.is_loopback() {
        return Err(AddressError::Loopback);
    }
    Ok(format!("{host}:{port}"))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.filter(|&port| port != 0).ok_or(AddressError::Port)
}

fn check_ip(ip: IpAddr, observed: IpAddr) -> Result<(), AddressError> {
    let unreachable = ip.is_unspecified()
        || ip.is_multicast()
        || match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
    if unreachable {
        return Err(AddressError::Unreachable);
    }
    if ip.is_loopback() && !observed.is_loopback() {
        return Err(AddressError::Loopback);
    }
    Ok(())
}

/// Labels of letters, digits and hyphens. The last one starts with a letter: what ends in a number is taken for an IPv4
/// address by many resolvers, in spellings that no check here would see through (`127.1`, `0x7f000001`).
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(label)
        && last.starts_with(|first: char| first.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(observed: &str, advertise: &str) -> Result<String, AddressError> {
        dialable(observed.parse().expect("an address"), 7_000, advertise)
    }

    #[test]
    fn what_others_can_dial_is_taken() {
        for (advertise, handed_out) in [
            ("", "203.0.113.5:7000"),
            ("192.168.1.2:80", "192.168.1.2:80"),
            ("192.168.1.2", "192.168.1.2:7000"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("2001:db8::1", "[2001:db8::1]:7000"),
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
            ("Peer-1.example:65535", "peer-1.example:65535"),
            ("peer", "peer:7000"),
        ] {
            assert_eq!(from("203.0.113.5", advertise).as_deref(), Ok(handed_out), "{advertise}");
        }
        assert_eq!(from("::ffff:203.0.113.5", "").as_deref(), Ok("203.0.113.5:7000"));
        for local in ["127.0.0.1:5", "[::1]:5", "localhost:5"] {
            assert_eq!(from("127.0.0.1", local).as_deref(), Ok(local));
        }
    }

    #[test]
    fn what_leads_nowhere_or_inwards_is_refused() {
        use AddressError::{Loopback, Malformed, Port, Unreachable};
        for (advertise, error) in [
            ("0.0.0.0:5", Unreachable),
            ("0.1.2.3:5", Unreachable),
            ("[::]:5", Unreachable),
            ("169.254.169.254:80", Unreachable),
            ("[fe80::1]:80", Unreachable),
            ("224.0.0.1:5", Unreachable),
            ("[ff02::1]:5", Unreachable),
            ("255.255.255.255:5", Unreachable),
            ("127.0.0.1:5", Loopback),
            ("[::ffff:127.0.0.1]:5", Loopback),
            ("[::1]:5", Loopback),
            ("localhost:5", Loopback),
            ("a.LOCALHOST:5", Loopback),
            ("192.0.2.1:0", Port),
            ("peer.example:0", Port),
            ("peer.example:70000", Port),
            ("peer.example:+5", Port),
            ("peer.example:", Port),
            ("127.1:5", Malformed),
            ("0x7f000001:5", Malformed),
            ("2130706433:5", Malformed),
            ("http://peer.example:5", Malformed),
            ("peer.example/x:5", Malformed),
            ("-a.example:5", Malformed),
            ("a..b:5", Malformed),
            (":5", Malformed),
            ("pe er:5", Malformed),
            ("p\u{e9}er:5", Malformed),
            ("[2001:db8::1:5", Malformed),
        ] {
            assert_eq!(from("203.0.113.5", advertise), Err(error), "{advertise}");
        }
        assert_eq!(from("203.0.113.5", &"a".repeat(1 << 20)), Err(Malformed));
        for port in [0, 65_536, 70_000, u32::MAX] {
            assert_eq!(dialable(IpAddr::from([203, 0, 113, 5]), port, ""), Err(Port));
        }
    }
}
