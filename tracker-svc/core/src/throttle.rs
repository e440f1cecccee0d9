//! Slows password guessing down, without locking users out.
//!
//! Failures are counted per account and network, per account, and per address. Each try counts as a failure
//! when it starts, so that many concurrent tries gain nothing. If the password is right, the failure is taken
//! back. A network from which the account has logged in before is exempt from the account's own count, so
//! that guessing strangers do not lock the owner out.
//!
//! [`Login::step`] decides. Where the counts are kept is another question: [`Throttle`] keeps them in memory, at
//! most [`MAX_KEYS`] of each kind. Trackers that share a database keep them there, so that a try at one counts at
//! all.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, net::IpAddr, time::Duration};

use domain::Username;

/// Tries for one account from one network before waits start.
const FREE: u32 = 5;
/// Maximum wait between tries.
const LONGEST: Duration = Duration::from_mins(15);
/// Failures are forgotten after this time without another one.
pub const FORGET: Duration = Duration::from_hours(1);
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

/// A moment: the time since a start that is the same for all counts.
pub type Moment = Duration;

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

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of an IPv4 subscriber, or the /64 from which an IPv6 subscriber can pick any address.
fn one_subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        ip @ IpAddr::V6(_) => Network::of(ip).0,
    }
}

/// The subject of a failure counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// An account, from one network.
    From(Username, Network),
    /// An account, from all networks from which it has not logged in.
    Account(Username),
    /// An address, whatever the account.
    Address(IpAddr),
}

/// Different keys have different texts: a username contains no space.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(user, network) => write!(f, "{user} {network}"),
            Self::Account(user) => write!(f, "{user} *"),
            Self::Address(ip) => write!(f, "* {ip}"),
        }
    }
}

/// Failures that were counted for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub failures: u32,
    /// For an account from one network: the last try. Else the first one, after which they are forgotten
    /// together.
    pub at: Moment,
    /// For an account from one network: whether the account has logged in from there.
    pub known: bool,
}

/// The counts of a login, in the order of [`Login::keys`].
pub type Counts = [Option<Count>; 3];

/// A login must not start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What has too many failures.
    pub key: Key,
    /// How long to wait.
    pub time: Duration,
}

/// What happens to a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It starts, and counts as a failure.
    Start,
    /// The password was right. `for_account` says whether it counted for the account ([`for_account`]).
    Right {
        /// See the variant.
        for_account: bool,
    },
    /// The password was not checked.
    Undone {
        /// As in [`Step::Right`].
        for_account: bool,
    },
}

/// Whether a login that started with these counts counted for the account.
pub fn for_account([from, ..]: &Counts) -> bool {
    from.is_none_or(|from| !from.known)
}

/// A try to log in.
#[derive(Clone, Debug)]
pub struct Login {
    user: Username,
    network: Network,
    /// The address that it counts for, if any.
    address: Option<IpAddr>,
}

impl Login {
    /// A login of this user from this address. An `exempt` address has no count of its own.
    pub fn new(user: &Username, ip: IpAddr, exempt: bool) -> Self {
        let address = (!exempt).then(|| one_subscriber(ip));
        Self { user: user.clone(), network: Network::of(ip), address }
    }

    /// What it counts for.
    pub fn keys(&self) -> [Option<Key>; 3] {
        let from = Key::From(self.user.clone(), self.network);
        [Some(from), Some(Key::Account(self.user.clone())), self.address.map(Key::Address)]
    }

    /// Makes new counts of the old ones.
    ///
    /// # Errors
    /// [`Wait`] if the login may not start. It does not count then.
    pub fn step(&self, step: Step, counts: Counts, now: Moment) -> Result<Counts, Wait> {
        match step {
            Step::Start => self.start(counts, now),
            Step::Right { for_account } => {
                let [from, account, address] = counts;
                let from = from.map(|from| Count { failures: 0, known: true, ..from });
                Ok([from, account.map(|count| less_if(for_account, count)), less(address)])
            }
            Step::Undone { for_account } => {
                let [from, account, address] = counts;
                Ok([less(from), account.map(|count| less_if(for_account, count)), less(address)])
            }
        }
    }

    fn start(&self, [from, account, address]: Counts, now: Moment) -> Result<Counts, Wait> {
        let [of_from, of_account, of_address] = self.keys();
        let check = |key: Option<Key>, time: Duration| match key {
            Some(key) if !time.is_zero() => Err(Wait { key, time }),
            _ => Ok(()),
        };
        let none = Count { failures: 0, at: now, known: false };
        let from = from.filter(|from| from.known || now.saturating_sub(from.at) < FORGET).unwrap_or(none);
        check(of_from, opens(from).saturating_sub(now))?;
        let running = |count: Option<Count>, length| {
            count.filter(|count| now.saturating_sub(count.at) < length).unwrap_or(none)
        };
        let (account, address) = (running(account, HOUR), running(address, MINUTE));
        let left = |count: Count, length: Duration| length.saturating_sub(now.saturating_sub(count.at));
        if !from.known && account.failures >= PER_ACCOUNT {
            check(of_account, left(account, HOUR))?;
        }
        if address.failures >= PER_ADDRESS {
            check(of_address, left(address, MINUTE))?;
        }
        let more = |count: Count| Count { failures: count.failures.saturating_add(1), ..count };
        Ok([
            Some(Count { at: now, ..more(from) }),
            Some(if from.known { account } else { more(account) }),
            self.address.map(|_| more(address)),
        ])
    }
}

/// The moment from which the next try from that network is allowed.
fn opens(from: Count) -> Moment {
    match from.failures.checked_sub(FREE) {
        None => from.at,
        // 1, 2, 4 … seconds. 2^10 s already exceeds the maximum.
        Some(past) => from.at + Duration::from_secs(1 << past.min(10)).min(LONGEST),
    }
}

fn less(count: Option<Count>) -> Option<Count> {
    count.map(|count| less_if(true, count))
}

fn less_if(is_counted: bool, count: Count) -> Count {
    Count { failures: count.failures.saturating_sub(is_counted.into()), ..count }
}

/// Counts in memory.
#[derive(Debug, Default)]
pub struct Throttle([HashMap<Key, Count>; 3]);

impl Throttle {
    /// Takes a step of a login.
    ///
    /// # Errors
    /// As [`Login::step`].
    pub fn step(&mut self, login: &Login, step: Step, now: Moment) -> Result<Counts, Wait> {
        let keys = login.keys();
        let mut before = Counts::default();
        for ((count, key), known) in before.iter_mut().zip(&keys).zip(&self.0) {
            *count = key.as_ref().and_then(|key| known.get(key)).copied();
        }
        let after = login.step(step, before, now)?;
        for ((count, key), known) in after.iter().zip(keys).zip(&mut self.0) {
            if let (Some(count), Some(key)) = (count, key) {
                put(known, key, *count);
            }
        }
        Ok(after)
    }
}

/// Inserts a count. If there are too many, the oldest of a small sample is removed.
fn put(map: &mut HashMap<Key, Count>, key: Key, count: Count) {
    if map.len() >= MAX_KEYS && !map.contains_key(&key) {
        let oldest = map.iter().take(SAMPLE).min_by_key(|(_, count)| count.at).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            map.remove(&oldest);
        }
    }
    map.insert(key, count);
}
