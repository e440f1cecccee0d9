//! Slows password guessing down, without locking users out.
//!
//! Failures are counted per account and network, per account, and per address. Each try counts as a failure
//! when it starts, so that many concurrent tries gain nothing. If the password is right, the failure is taken
//! back. A network from which the account has logged in before is exempt from the account's own count, so
//! that guessing strangers do not lock the owner out.
//!
//! Nothing here is stored on disk. Memory holds at most [`MAX_KEYS`] keys of each kind.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use domain::Username;

/// Tries for one account from one network before waits start.
const FREE: u32 = 5;
/// Maximum wait between tries.
const LONGEST: Duration = Duration::from_mins(15);
/// Failures are forgotten after this time without another one.
const FORGET: Duration = Duration::from_hours(1);
/// Maximum failures of an account in [`HOUR`], over all networks from which it has not logged in.
const PER_ACCOUNT: u32 = 100;
const HOUR: Duration = Duration::from_hours(1);
/// Maximum failures of an address in [`MINUTE`].
const PER_ADDRESS: u32 = 100;
const MINUTE: Duration = Duration::from_mins(1);
/// Maximum number of keys of each kind.
const MAX_KEYS: usize = 100_000;
/// Number of keys that are compared to find one to drop when there are too many.
const SAMPLE: usize = 16;

/// A network: a block of addresses that one person may control as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The /24 or /64 of an address.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & !0xff).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        })
    }
}

/// The address of an IPv4 subscriber, or the /64 from which an IPv6 subscriber can pick any address.
fn one_subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        ip @ IpAddr::V6(_) => Network::of(ip).0,
    }
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    failures: u32,
    last: Instant,
    /// The account has logged in from here.
    known: bool,
}

impl Tries {
    /// The time from which the next try is allowed.
    fn opens(&self) -> Instant {
        match self.failures.checked_sub(FREE) {
            None => self.last,
            // 1, 2, 4 … seconds. 2^10 s already exceeds the maximum.
            Some(past) => self.last + Duration::from_secs(1 << past.min(10)).min(LONGEST),
        }
    }
}

/// Failures in the current window.
#[derive(Clone, Copy, Debug)]
struct Window {
    failures: u32,
    start: Instant,
}

/// Counts failed logins.
#[derive(Debug, Default)]
pub struct Throttle {
    tries: HashMap<(Username, Network), Tries>,
    accounts: HashMap<Username, Window>,
    addresses: HashMap<IpAddr, Window>,
}

/// A login that has started. Pass it to [`Throttle::right`] or [`Throttle::undone`]; otherwise it stays a
/// failure.
#[derive(Debug)]
#[must_use]
pub struct Try {
    user: Username,
    network: Network,
    /// Whether it counts for the account.
    for_account: bool,
    /// The address that it counts for, if any.
    for_address: Option<IpAddr>,
}

impl Throttle {
    /// Starts a try. An `exempt` address has no count of its own.
    ///
    /// # Errors
    /// The time to wait. A refused try does not count.
    pub fn start(
        &mut self,
        user: &Username,
        ip: IpAddr,
        exempt: bool,
        now: Instant,
    ) -> Result<Try, Duration> {
        let network = Network::of(ip);
        let tries = self.tries.get(&(user.clone(), network)).copied();
        let tries = tries.filter(|tries| tries.known || now.duration_since(tries.last) < FORGET);
        let tries = tries.unwrap_or(Tries { failures: 0, last: now, known: false });
        let wait = tries.opens().duration_since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let account = window(&self.accounts, user, now, HOUR);
        if !tries.known && account.failures >= PER_ACCOUNT {
            return Err(HOUR.saturating_sub(now.duration_since(account.start)));
        }
        let ip = one_subscriber(ip);
        let address = window(&self.addresses, &ip, now, MINUTE);
        if !exempt && address.failures >= PER_ADDRESS {
            return Err(MINUTE.saturating_sub(now.duration_since(address.start)));
        }
        let failures = tries.failures.saturating_add(1);
        put(&mut self.tries, (user.clone(), network), Tries { failures, last: now, ..tries }, |tries| {
            tries.last
        });
        if !tries.known {
            let account = Window { failures: account.failures + 1, ..account };
            put(&mut self.accounts, user.clone(), account, |window| window.start);
        }
        if !exempt {
            let address = Window { failures: address.failures + 1, ..address };
            put(&mut self.addresses, ip, address, |window| window.start);
        }
        let for_address = (!exempt).then_some(ip);
        Ok(Try { user: user.clone(), network, for_account: !tries.known, for_address })
    }

    /// Records that the password was right.
    pub fn right(&mut self, tried: Try) {
        let Try { user, network, .. } = &tried;
        if let Some(tries) = self.tries.get_mut(&(user.clone(), *network)) {
            (tries.failures, tries.known) = (0, true);
        }
        self.take_back(&tried);
    }

    /// Takes a try back whose password was never checked.
    pub fn undone(&mut self, tried: Try) {
        let Try { user, network, .. } = &tried;
        if let Some(tries) = self.tries.get_mut(&(user.clone(), *network)) {
            tries.failures = tries.failures.saturating_sub(1);
        }
        self.take_back(&tried);
    }

    fn take_back(&mut self, tried: &Try) {
        if let Some(window) = self.accounts.get_mut(&tried.user).filter(|_| tried.for_account) {
            window.failures = window.failures.saturating_sub(1);
        }
        if let Some(window) = tried.for_address.and_then(|ip| self.addresses.get_mut(&ip)) {
            window.failures = window.failures.saturating_sub(1);
        }
    }
}

/// The current window of a key. Returns a new one if the last has ended.
fn window<K: Eq + std::hash::Hash>(
    windows: &HashMap<K, Window>,
    key: &K,
    now: Instant,
    length: Duration,
) -> Window {
    let running = windows.get(key).filter(|window| now.duration_since(window.start) < length);
    running.copied().unwrap_or(Window { failures: 0, start: now })
}

/// Inserts an entry. If there are too many, the oldest of a small sample is removed.
fn put<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    key: K,
    value: V,
    age: impl Fn(&V) -> Instant,
) {
    if map.len() >= MAX_KEYS && !map.contains_key(&key) {
        let oldest = map.iter().take(SAMPLE).min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            map.remove(&oldest);
        }
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.7";
    const ELSEWHERE: &str = "198.51.100.9";

    fn user() -> Username {
        "ann".parse().expect("a username")
    }

    fn start(throttle: &mut Throttle, ip: &str, now: Instant) -> Result<Try, Duration> {
        throttle.start(&user(), ip.parse().expect("an address"), false, now)
    }

    #[test]
    fn five_are_free_and_then_the_wait_doubles_up_to_a_quarter_of_an_hour() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..FREE {
            assert!(start(&mut throttle, HERE, now).is_ok());
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(start(&mut throttle, HERE, now).err(), Some(wait));
            now += wait;
            assert!(start(&mut throttle, HERE, now).is_ok());
        }
        // The wait applies to another address of the same network, but not to another network.
        assert!(start(&mut throttle, "192.0.2.200", now).is_err());
        assert!(start(&mut throttle, ELSEWHERE, now).is_ok());
        assert!(start(&mut throttle, HERE, now + FORGET).is_ok());
    }

    #[test]
    fn a_right_password_clears_and_an_undone_try_does_not_count() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..100 {
            let tried = start(&mut throttle, HERE, now).expect("let through");
            throttle.right(tried);
        }
        for _ in 0..100 {
            let tried = start(&mut throttle, ELSEWHERE, now).expect("let through");
            throttle.undone(tried);
        }
    }

    #[test]
    fn guessing_from_everywhere_is_slowed_but_a_known_network_is_let_in() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let tried = start(&mut throttle, HERE, now).expect("let through");
        throttle.right(tried);
        for net in 0..PER_ACCOUNT {
            assert!(start(&mut throttle, &format!("203.0.{net}.1"), now).is_ok());
        }
        assert!(start(&mut throttle, "203.1.0.1", now).is_err());
        assert!(start(&mut throttle, HERE, now).is_ok());
        assert!(start(&mut throttle, "203.1.0.1", now + HOUR).is_ok());
    }

    #[test]
    fn an_address_has_a_hundred_failures_a_minute_unless_exempt() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let ip: IpAddr = HERE.parse().expect("an address");
        let name = |n: u32| format!("user{n}").parse::<Username>().expect("a username");
        for n in 0..PER_ADDRESS {
            assert!(throttle.start(&name(n), ip, false, now).is_ok());
        }
        assert!(throttle.start(&name(200), ip, false, now).is_err());
        assert!(throttle.start(&name(200), ip, true, now).is_ok());
        assert!(throttle.start(&name(201), ip, false, now + MINUTE).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..u32::try_from(MAX_KEYS).expect("fits") + 500 {
            let _ = start(&mut throttle, &std::net::Ipv4Addr::from(n << 8).to_string(), now + HOUR * n);
        }
        assert!(throttle.tries.len() <= MAX_KEYS && throttle.addresses.len() <= MAX_KEYS);
    }

    #[test]
    fn networks() {
        let network = |ip: &str| Network::of(ip.parse().expect("an address"));
        assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.9"));
    }
}
