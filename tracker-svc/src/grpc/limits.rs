//! Limits that do not depend on what a call says: rates by user and address, deadlines, and what the library says of
//! requests that it can't read.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use http::{Request, Response};
use proto::transport::{Answer, Surround};
use tonic::Status;
use tower::Service;

use crate::{
    domain::{Caller, Origin, session::AccountId},
    error::{TrackerError, readable},
};

/// How long a call may take to be answered.
const UNARY: Duration = Duration::from_secs(10);

/// The limit of the deadline layer. Client streams have their own: a publication 60 s, announces and reflection none.
pub fn deadline(path: &str) -> Option<Duration> {
    let is_client_stream = path.ends_with("/PublishFile")
        || path.ends_with("/Announce")
        || path.ends_with("/ServerReflectionInfo");
    (!is_client_stream).then_some(UNARY)
}

/// Calls a second that a user may make, and at once.
const USER: (u32, u32) = (100, 200);
/// Of these, calls for tickets.
const TICKETS: (u32, u32) = (10, 20);
/// Of these, calls for sources.
const SOURCES: (u32, u32) = (5, 10);
/// Accounts that may be made from one address an hour.
const ACCOUNTS_AN_HOUR: u32 = 600;

/// Counts calls.
pub struct Rates {
    users: DefaultKeyedRateLimiter<AccountId>,
    tickets: DefaultKeyedRateLimiter<AccountId>,
    sources: DefaultKeyedRateLimiter<AccountId>,
    accounts: DefaultKeyedRateLimiter<IpAddr>,
    loopback_exempt: bool,
}

impl Rates {
    /// Nobody called yet. With `loopback_exempt`, any number of accounts can be made from this very machine.
    pub fn new(loopback_exempt: bool) -> Self {
        Self {
            users: RateLimiter::keyed(per_second(USER)),
            tickets: RateLimiter::keyed(per_second(TICKETS)),
            sources: RateLimiter::keyed(per_second(SOURCES)),
            accounts: RateLimiter::keyed(Quota::per_hour(non_zero(ACCOUNTS_AN_HOUR))),
            loopback_exempt,
        }
    }

    /// Forgets those who did not call lately. To be called now and then.
    pub fn forget(&self) {
        for limiter in [&self.users, &self.tickets, &self.sources] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        self.accounts.retain_recent();
        self.accounts.shrink_to_fit();
    }

    fn admit(&self, path: &str, caller: Option<&Caller>, ip: Option<IpAddr>) -> Result<(), TrackerError> {
        if let Some(caller) = caller {
            take(&self.users, &caller.account())?;
            match path {
                "/minitorrent.v1.SwarmService/IssueTickets" => take(&self.tickets, &caller.account())?,
                "/minitorrent.v1.SwarmService/FindPeers" => take(&self.sources, &caller.account())?,
                _ => {}
            }
        }
        if path == "/minitorrent.v1.AuthService/CreateUser"
            && let Some(ip) = ip.filter(|ip| !(self.loopback_exempt && ip.is_loopback()))
        {
            take(&self.accounts, &ip)?;
        }
        Ok(())
    }
}

fn non_zero(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn per_second((rate, burst): (u32, u32)) -> Quota {
    Quota::per_second(non_zero(rate)).allow_burst(non_zero(burst))
}

fn take<K: Clone + Eq + std::hash::Hash>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
) -> Result<(), TrackerError> {
    limiter.check_key(key).map_err(|not_until| {
        TrackerError::RateLimited(not_until.wait_time_from(DefaultClock::default().now()))
    })
}

/// Refuses calls over the rates. Goes inside [`super::authn::Authn`], whose findings it reads.
impl<S, A, B> Surround<S, A> for Rates
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Default + Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
        let extensions = request.extensions();
        let ip = extensions.get::<Origin>().and_then(|origin| origin.ip);
        match self.admit(request.uri().path(), extensions.get(), ip) {
            Ok(()) => Box::pin(inner.call(request)),
            Err(error) => {
                let refused = Status::from(error).into_http();
                Box::pin(async move { Ok(refused) })
            }
        }
    }
}

/// Rewords what the library says of requests that it can't read: see [`readable`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Unreadable;

impl<S, A, B> Surround<S, A> for Unreadable
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> Answer<S, A> {
        let answer = inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let status = Status::from_header_map(response.headers());
            Ok(match status.as_ref().and_then(readable) {
                Some(status) => status.into_http(),
                None => response,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_counted_by_address_and_loopback_may_be_exempt() {
        let path = "/minitorrent.v1.AuthService/CreateUser";
        let (near, far) = ("127.0.0.1".parse().ok(), "192.0.2.1".parse().ok());
        let rates = Rates::new(true);
        for _ in 0..ACCOUNTS_AN_HOUR {
            assert!(rates.admit(path, None, far).is_ok());
            assert!(rates.admit(path, None, near).is_ok());
        }
        let refused = rates.admit(path, None, far);
        let Err(TrackerError::RateLimited(wait)) = refused else { panic!("{refused:?}") };
        assert!(wait > Duration::ZERO && wait <= Duration::from_hours(1) / ACCOUNTS_AN_HOUR);
        assert!(rates.admit(path, None, near).is_ok());
        let strict = Rates::new(false);
        let let_in = (0..=ACCOUNTS_AN_HOUR).filter(|_| strict.admit(path, None, near).is_ok()).count();
        assert_eq!(let_in, ACCOUNTS_AN_HOUR as usize);
    }

    #[test]
    fn a_user_may_make_two_hundred_calls_at_once_and_fewer_for_tickets() {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let caller = |account| {
            let session = crate::domain::Session {
                hash: [1; 32].into(),
                user: "ann".parse().expect("a username"),
                account: AccountId(account),
                disabled: false,
                opened: now,
                used: now,
            };
            crate::domain::access::authenticate(crate::domain::Requirement::Session, session, now)
                .expect("a living session")
        };
        let rates = Rates::new(true);
        let let_in = |path: &str, account| {
            let caller = caller(account);
            (0..1_000).filter(|_| rates.admit(path, Some(&caller), None).is_ok()).count()
        };
        // A little more than the burst when the machine takes its time.
        assert!((200..400).contains(&let_in("/minitorrent.v1.AuthService/WhoAmI", 1)));
        assert!((20..60).contains(&let_in("/minitorrent.v1.SwarmService/IssueTickets", 2)));
        assert!((10..30).contains(&let_in("/minitorrent.v1.SwarmService/FindPeers", 3)));
    }
}
