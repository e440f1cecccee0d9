//! Decides which addresses of a peer are given to other peers: only addresses that others can dial and that
//! are not dangerous to dial.
//!
//! A loopback address is given only to peers that connect to the tracker over loopback, because those run on
//! the same host as the tracker and this peer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use domain::{
    address::{Scope, is_listened, scope},
    limits::MAX_ADDRESSES,
};

/// Maximum length of an address with its port, in bytes.
const MAX_ADDRESS: usize = 255;

/// The reason why an address is not given to other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Not `HOST:PORT`, too long, or not a host.
    Malformed,
    /// Port 0 or above 65,535.
    Port,
    /// Unspecified, broadcast, multicast or link-local.
    Unreachable,
    /// Loopback, and the peer itself does not connect from loopback.
    Loopback,
    /// More than [`MAX_ADDRESSES`].
    TooMany,
}

/// What a peer says about its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// The port that it listens on.
    pub port: u32,
    /// The IP address that it is bound to; empty if it does not say.
    pub listen: &'a str,
    /// The address to give out instead of the one that the tracker sees; empty for none.
    pub advertise: &'a str,
    /// Further addresses.
    pub more: &'a [String],
}

/// The longest text of a peer's addresses, in bytes: more than as many names as it may have.
const MAX_TEXT: usize = 4_096;

/// The addresses of a peer that others are given: `HOST:PORT`, separated by commas, loopback first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    text: Arc<str>,
    /// The place in `text` where the addresses for other hosts begin.
    others: u32,
}

impl Addresses {
    fn new(local: &[String], others: &[String]) -> Self {
        let others = others.join(",");
        let text = local.iter().map(|address| format!("{address},")).collect::<String>() + &others;
        let begin = (text.len() - others.len()) as u32;
        Self { text: text.into(), others: begin }
    }

    /// All addresses as text, and the place where those for other hosts begin: what [`Addresses::of_parts`] takes.
    pub fn parts(&self) -> (&str, u32) {
        (&self.text, self.others)
    }

    /// The addresses with these [`Addresses::parts`]. `None` if there can't be any.
    pub fn of_parts(text: &str, others: u32) -> Option<Self> {
        let is_good = text.len() <= MAX_TEXT && text.is_char_boundary(others as usize);
        is_good.then(|| Self { text: text.into(), others })
    }

    /// The addresses for a peer that the tracker sees at `observed`, separated by commas. Empty if there is
    /// none.
    pub fn given_to(&self, observed: IpAddr) -> &str {
        let begin = if scope(observed) == Scope::Host { 0 } else { self.others as usize };
        self.text.get(begin..).unwrap_or_default().trim_end_matches(',')
    }
}

/// One address, for all hosts.
impl<T: Into<Arc<str>>> From<T> for Addresses {
    fn from(address: T) -> Self {
        Self { text: address.into(), others: 0 }
    }
}

/// Returns the addresses to give out for a peer that the tracker sees at `observed`. They are what it asks
/// for with `advertise`, or else the observed address and what it says further. An address without a port
/// gets the peer's port.
///
/// # Errors
/// Fails if others cannot dial one of its addresses, or must not.
pub fn dialable(observed: IpAddr, announced: &Announced<'_>) -> Result<Addresses, AddressError> {
    let Announced { port, listen, advertise, more } = *announced;
    let port = u16::try_from(port).ok().filter(|&port| port != 0).ok_or(AddressError::Port)?;
    let observed = observed.to_canonical();
    let bound = match listen {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        text => text.parse().map_err(|_| AddressError::Malformed)?,
    };
    let asked = Some(advertise).filter(|text| !text.is_empty()).into_iter();
    let asked = asked.chain(more.iter().map(String::as_str));
    if asked.clone().count() > MAX_ADDRESSES {
        return Err(AddressError::TooMany);
    }
    let (mut local, mut others) = (Vec::new(), Vec::new());
    if advertise.is_empty() {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_bound_here = |ip: &IpAddr| is_listened(bound, *ip);
        match scope(observed) {
            Scope::Host if scope(bound) == Scope::Host => {
                local.push(SocketAddr::new(bound, port).to_string());
            }
            Scope::Host => {
                let found = loopback.into_iter().find(is_bound_here);
                local.extend(found.map(|ip| SocketAddr::new(ip, port).to_string()));
            }
            // Behind a NAT, the observed address is not the one that the peer is bound to.
            Scope::Network if scope(bound) != Scope::Host && is_same_family(bound, observed) => {
                others.push(SocketAddr::new(observed, port).to_string());
            }
            _ => {}
        }
    }
    for text in asked {
        let (address, is_local) = check(text, port, observed)?;
        let kind = if is_local { &mut local } else { &mut others };
        if !kind.contains(&address) {
            kind.push(address);
        }
    }
    others.truncate(MAX_ADDRESSES);
    Ok(Addresses::new(&local, &others))
}

/// Whether a listener at `bound` accepts connections of the family of `ip`.
fn is_same_family(bound: IpAddr, ip: IpAddr) -> bool {
    let bound = bound.to_canonical();
    bound == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || bound.is_ipv4() == ip.is_ipv4()
}

/// Checks an address that a peer asks for. Returns it with its port, and whether it is a loopback address.
fn check(asked: &str, port: u16, observed: IpAddr) -> Result<(String, bool), AddressError> {
    if asked.is_empty() || asked.len() > MAX_ADDRESS {
        return Err(AddressError::Malformed);
    }
    let ip_and_port = match (asked.parse::<SocketAddr>(), asked.parse::<IpAddr>()) {
        (Ok(address), _) => Some((address.ip(), address.port())),
        (_, Ok(ip)) => Some((ip, port)),
        _ => None,
    };
    let may_be_local = |is_local: bool| {
        if is_local && !observed.is_loopback() { Err(AddressError::Loopback) } else { Ok(is_local) }
    };
    if let Some((ip, port)) = ip_and_port {
        let ip = ip.to_canonical();
        let scope = scope(ip);
        if scope == Scope::Nowhere {
            return Err(AddressError::Unreachable);
        }
        let is_local = may_be_local(scope == Scope::Host)?;
        return if port == 0 {
            Err(AddressError::Port)
        } else {
            Ok((SocketAddr::new(ip, port).to_string(), is_local))
        };
    }
    let (host, port) = match asked.rsplit_once(':') {
        None => (asked, port),
        Some((host, port)) => (host, parse_port(port)?),
    };
    let host = host.to_ascii_lowercase();
    if !is_host_name(&host) {
        return Err(AddressError::Malformed);
    }
    let is_local = may_be_local(host == "localhost" || host.ends_with(".localhost"))?;
    Ok((format!("{host}:{port}"), is_local))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.filter(|&port| port != 0).ok_or(AddressError::Port)
}

/// Whether the text consists of labels of letters, digits and hyphens. The last label must start with a
/// letter. Many resolvers read a name that ends in a number as an IPv4 address, in spellings that no check
/// here would recognise (`127.1`, `0x7f000001`).
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

    const ELSEWHERE: &str = "198.51.100.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// What a peer on another host is given, and what one on the tracker's own host is given.
    fn given(observed: &str, listen: &str, advertise: &str, more: &[&str]) -> (String, String) {
        let more: Vec<_> = more.iter().map(|&text| text.to_owned()).collect();
        let announced = Announced { port: 7_000, listen, advertise, more: &more };
        let addresses = dialable(ip(observed), &announced).expect("good addresses");
        (addresses.given_to(ip(ELSEWHERE)).to_owned(), addresses.given_to(ip("127.0.0.1")).to_owned())
    }

    fn from(observed: &str, advertise: &str) -> Result<String, AddressError> {
        let announced = Announced { port: 7_000, listen: "", advertise, more: &[] };
        Ok(dialable(ip(observed), &announced)?.given_to(ip(observed)).to_owned())
    }

    #[test]
    fn a_loopback_address_is_given_on_the_same_host_only() {
        let pair = |elsewhere: &str, here: &str| (elsewhere.to_owned(), here.to_owned());
        let own = ["10.0.0.1", "fd00::1"];
        assert_eq!(given("127.0.0.1", "", "", &[]), pair("", "127.0.0.1:7000"));
        assert_eq!(
            given("127.0.0.1", "::", "", &own),
            pair("10.0.0.1:7000,[fd00::1]:7000", "127.0.0.1:7000,10.0.0.1:7000,[fd00::1]:7000")
        );
        assert_eq!(given("::1", "0.0.0.0", "", &[]), pair("", "127.0.0.1:7000"));
        assert_eq!(given("127.0.0.1", "::1", "", &[]), pair("", "[::1]:7000"));
        // It listens at one address only, and not on loopback.
        assert_eq!(given("127.0.0.1", "10.0.0.1", "", &own[..1]), pair("10.0.0.1:7000", "10.0.0.1:7000"));
        assert_eq!(given("127.0.0.1", "::", "10.0.0.1", &[]), pair("10.0.0.1:7000", "10.0.0.1:7000"));
        assert_eq!(given("127.0.0.1", "::", "127.0.0.1:9", &["a"]), pair("a:7000", "127.0.0.1:9,a:7000"));
    }

    #[test]
    fn the_observed_address_is_given_if_the_peer_can_be_listening_there() {
        let elsewhere = |observed, listen, more: &[&str]| given(observed, listen, "", more).0;
        assert_eq!(elsewhere("10.0.0.1", "::", &["10.0.0.1", "10.9.0.1"]), "10.0.0.1:7000,10.9.0.1:7000");
        assert_eq!(elsewhere("203.0.113.5", "10.0.0.1", &["10.0.0.1"]), "203.0.113.5:7000,10.0.0.1:7000");
        assert_eq!(elsewhere("fd00::1", "0.0.0.0", &["10.0.0.1"]), "10.0.0.1:7000");
        assert_eq!(elsewhere("10.0.0.1", "fd00::1", &["fd00::1"]), "[fd00::1]:7000");
        assert_eq!(elsewhere("10.0.0.1", "127.0.0.1", &[]), "");
        assert_eq!(elsewhere("fe80::1", "::", &[]), "");
        assert_eq!(elsewhere("169.254.1.1", "::", &[]), "");
    }

    #[test]
    fn there_are_four_at_most() {
        let more: Vec<_> = (1..=4).map(|last| format!("10.0.0.{last}")).collect();
        let announced = Announced { port: 7_000, listen: "::", advertise: "", more: &more };
        let given = dialable(ip("203.0.113.5"), &announced).expect("good addresses");
        assert_eq!(
            given.given_to(ip(ELSEWHERE)),
            "203.0.113.5:7000,10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000"
        );
        let five = Announced { advertise: "10.0.0.9", ..announced };
        assert_eq!(dialable(ip("203.0.113.5"), &five), Err(AddressError::TooMany));
        for bad in ["", "127.0.0.1", "169.254.1.1", "a b"] {
            let more = [bad.to_owned()];
            assert!(dialable(ip("203.0.113.5"), &Announced { more: &more, ..announced }).is_err(), "{bad}");
        }
        let announced = Announced { listen: "here", more: &[], ..announced };
        assert_eq!(dialable(ip("203.0.113.5"), &announced), Err(AddressError::Malformed));
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
            let announced = Announced { port, listen: "", advertise: "", more: &[] };
            assert_eq!(dialable(IpAddr::from([203, 0, 113, 5]), &announced), Err(Port));
        }
    }
}
