//! Who may use the page: one-time links, the cookies that they turn into, and the checks of a request's head. Pure: the
//! time and the secrets are arguments.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use proto::domain::Blake3;

use crate::domain::Moment;

/// How long a link opens the page.
const LINK_LIFE: Duration = Duration::from_secs(5 * 60);
/// How long a cookie does.
const COOKIE_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// The most links and the most cookies at a time. One more ends the oldest.
const MOST: usize = 16;

/// A random secret, which is shown as hexadecimal digits.
pub(super) type Secret = [u8; 32];

/// The links and cookies that open the page. Only their hashes are kept, so that a search does not depend on how much
/// of a guess is right.
#[derive(Debug, Default)]
pub(super) struct Doors {
    links: HashMap<Blake3, Moment>,
    cookies: HashMap<Blake3, Moment>,
}

impl Doors {
    /// Makes a link that works once. Returns its text.
    pub(super) fn add_link(&mut self, now: Moment, secret: &Secret) -> String {
        add(&mut self.links, now, secret)
    }

    /// Uses up a link. Returns the text of a cookie if the link was good.
    pub(super) fn enter(&mut self, now: Moment, link: &str, secret: &Secret) -> Option<String> {
        let made = self.links.remove(&hash(link.as_bytes()))?;
        (now < made + LINK_LIFE).then(|| add(&mut self.cookies, now, secret))
    }

    /// Whether a cookie with this text was given and is still good.
    pub(super) fn is_open(&self, now: Moment, cookie: &str) -> bool {
        self.cookies.get(&hash(cookie.as_bytes())).is_some_and(|made| now < *made + COOKIE_LIFE)
    }
}

fn add(to: &mut HashMap<Blake3, Moment>, now: Moment, secret: &Secret) -> String {
    if to.len() >= MOST {
        let oldest = to.iter().min_by_key(|(_, made)| **made).map(|(hash, _)| *hash);
        if let Some(oldest) = oldest {
            to.remove(&oldest);
        }
    }
    let text = data_encoding::HEXLOWER.encode(secret);
    to.insert(hash(text.as_bytes()), now);
    text
}

fn hash(text: &[u8]) -> Blake3 {
    (*blake3::hash(text).as_bytes()).into()
}

/// The name of the page's cookie. Cookies belong to a host with all its ports, so the name has the port.
pub(super) fn cookie_name(port: u16) -> String {
    format!("minitorrent-{port}")
}

/// The value of the cookie with this name in a Cookie header.
pub(super) fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Whether a Host header names this page. A page of another site whose name was made to point here has another one. A page
/// for other hosts is named by an address: which one leads here, only the caller's network knows.
pub(super) fn is_own_host(host: &str, port: u16, is_public: bool) -> bool {
    if ["127.0.0.1", "localhost", "[::1]"].iter().any(|own| host == format!("{own}:{port}")) {
        return true;
    }
    // Browsers leave out the port that https has anyway.
    let address = host.parse().or_else(|_| format!("{host}:443").parse());
    is_public && address.is_ok_and(|address: SocketAddr| address.port() == port)
}

/// Whether a request that changes something comes from this page: its Origin must be the host that it was sent to.
pub(super) fn is_own_origin(origin: Option<&str>, scheme: &str, host: &str) -> bool {
    origin.and_then(|origin| origin.split_once("://")) == Some((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_link_opens_once_and_soon() {
        let mut doors = Doors::default();
        let link = doors.add_link(Moment::ZERO, &[1; 32]);
        assert!(!doors.is_open(SECOND, &link), "a link is no cookie");
        assert_eq!(doors.enter(SECOND, "01", &[2; 32]), None);
        let cookie = doors.enter(SECOND, &link, &[2; 32]).expect("a good link");
        assert_ne!(cookie, link);
        assert!(doors.is_open(2 * SECOND, &cookie) && !doors.is_open(2 * SECOND, &cookie[1..]));
        assert!(!doors.is_open(SECOND + COOKIE_LIFE, &cookie));
        assert_eq!(doors.enter(SECOND, &link, &[3; 32]), None, "it was used");
        let link = doors.add_link(Moment::ZERO, &[4; 32]);
        assert_eq!(doors.enter(LINK_LIFE, &link, &[5; 32]), None, "it is too old");
    }

    #[test]
    fn there_are_only_so_many() {
        let mut doors = Doors::default();
        let secret = |number: usize| [number as u8; 32];
        let links: Vec<_> =
            (0..2 * MOST).map(|number| doors.add_link(SECOND * number as u32, &secret(number))).collect();
        assert_eq!(doors.links.len(), MOST);
        assert_eq!(doors.enter(Moment::ZERO, &links[0], &[99; 32]), None);
        assert!(doors.enter(Moment::ZERO, &links[2 * MOST - 1], &[99; 32]).is_some());
    }

    #[test]
    fn heads_of_requests() {
        for good in ["127.0.0.1:80", "localhost:80", "[::1]:80"] {
            assert!(is_own_host(good, 80, false) && is_own_host(good, 80, true));
            assert!(is_own_origin(Some(&format!("http://{good}")), "http", good));
        }
        for bad in
            ["127.0.0.1", "127.0.0.1:81", "evil.example:80", "127.0.0.1:80.evil.example", "", "10.0.0.1:80"]
        {
            assert!(!is_own_host(bad, 80, false), "{bad}");
        }
        for (host, port, is_own) in [
            ("10.0.0.1:80", 80, true),
            ("[fd00::1]:80", 80, true),
            ("10.0.0.1", 443, true),
            ("10.0.0.1:81", 80, false),
            ("evil.example:80", 80, false),
            ("evil.example", 443, false),
            ("", 443, false),
        ] {
            assert_eq!(is_own_host(host, port, true), is_own, "{host}");
        }
        let host = "127.0.0.1:80";
        for bad in [
            None,
            Some("null"),
            Some("https://127.0.0.1:80"),
            Some("http://localhost:80"),
            Some("http://127.0.0.1:8"),
        ] {
            assert!(!is_own_origin(bad, "http", host), "{bad:?}");
        }
        assert_eq!(cookie("a=1; minitorrent-80=x; b", &cookie_name(80)), Some("x"));
        assert_eq!(cookie("minitorrent-8=x", &cookie_name(80)), None);
        assert_eq!(cookie("", "a"), None);
    }
}
