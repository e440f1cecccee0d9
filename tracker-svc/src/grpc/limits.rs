//! Limits that do not depend on the content of a call: rates per user and address, and deadlines. Also the
//! statuses for requests that the library cannot decode.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use http::{Request, Response};
use tonic::Status;
use tower::Service;
use transport::{Middleware, ResponseFuture, network_of};

use super::gate::account;
use crate::{
    domain::{Origin, newcomers::ACCOUNTS_AN_HOUR, session::AccountId},
    error::{TrackerError, readable},
};

/// Time limit for the response to a call.
const UNARY: Duration = Duration::from_secs(10);

/// The limit of the deadline layer. Client streams have none here: a publication limits itself, to 60 s for
/// each 4,096 pieces; announces and reflection are not limited.
pub fn deadline(path: &str) -> Option<Duration> {
    let is_client_stream = path.ends_with("/PublishFile")
        || path.ends_with("/Announce")
        || path.ends_with("/ServerReflectionInfo");
    (!is_client_stream).then_some(UNARY)
}

/// Calls per second that a user may make, and the maximum burst.
const USER: (u32, u32) = (100, 200);
/// The same for calls for tickets and for sources. Daemons make these by themselves, so they have budgets of
/// their own: what a user does in a loop must not keep a download from its ticket. Each download begins with
/// one of each.
const TICKETS: (u32, u32) = (20, 200);
const SOURCES: (u32, u32) = (20, 200);

/// Counts calls at this tracker, and refuses those above the limits. New accounts also count over all trackers
/// ([`crate::store::Shared::count_newcomer`]): what is refused here is no load for the database.
pub struct Rates {
    users: DefaultKeyedRateLimiter<AccountId>,
    tickets: DefaultKeyedRateLimiter<AccountId>,
    sources: DefaultKeyedRateLimiter<AccountId>,
    accounts: DefaultKeyedRateLimiter<IpAddr>,
    loopback_exempt: bool,
}

impl Rates {
    /// Starts with no calls. With `loopback_exempt`, the number of new accounts from this machine is not
    /// limited.
    pub fn new(loopback_exempt: bool) -> Self {
        Self {
            users: RateLimiter::keyed(per_second(USER)),
            tickets: RateLimiter::keyed(per_second(TICKETS)),
            sources: RateLimiter::keyed(per_second(SOURCES)),
            accounts: RateLimiter::keyed(Quota::per_hour(non_zero(ACCOUNTS_AN_HOUR))),
            loopback_exempt,
        }
    }

    /// Forgets users and addresses without recent calls. Call it regularly.
    pub fn forget(&self) {
        for limiter in [&self.users, &self.tickets, &self.sources] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        self.accounts.retain_recent();
        self.accounts.shrink_to_fit();
    }

    fn admit(&self, path: &str, account: Option<AccountId>, ip: Option<IpAddr>) -> Result<(), TrackerError> {
        if let Some(account) = account {
            // A call counts in one budget only, so a call that is refused counts in none.
            let budget = match path {
                "/minitorrent.v1.SwarmService/IssueTickets" => &self.tickets,
                "/minitorrent.v1.SwarmService/FindPeers" => &self.sources,
                _ => &self.users,
            };
            take(budget, &account)?;
        }
        if path == "/minitorrent.v1.AuthService/CreateUser"
            && let Some(ip) = ip.filter(|ip| !(self.loopback_exempt && ip.is_loopback()))
        {
            take(&self.accounts, &network_of(ip))?;
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

/// Refuses calls above the rates. This layer must be inside [`super::authn::Authn`], because it reads the
/// caller and origin that it adds.
impl<S, A, B> Middleware<S, A> for Rates
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Default + Send + 'static,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
        let extensions = request.extensions();
        let ip = extensions.get::<Origin>().and_then(|origin| origin.ip);
        match self.admit(request.uri().path(), account(extensions), ip) {
            Ok(()) => Box::pin(inner.call(request)),
            Err(error) => {
                let refused = Status::from(error).into_http();
                Box::pin(async move { Ok(refused) })
            }
        }
    }
}

/// Replaces the library's statuses for requests that it cannot decode: see [`readable`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Unreadable;

impl<S, A, B> Middleware<S, A> for Unreadable
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    fn call(&self, inner: &mut S, request: Request<A>) -> ResponseFuture<S, A> {
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
        // An IPv6 /64 is one customer's.
        let of_64 = |host: u32| format!("2001:db8::{:x}", host + 1).parse().ok();
        let let_in =
            (0..=ACCOUNTS_AN_HOUR).filter(|host| rates.admit(path, None, of_64(*host)).is_ok()).count();
        assert_eq!(let_in, ACCOUNTS_AN_HOUR as usize);
        assert!(rates.admit(path, None, "2001:db8:0:1::1".parse().ok()).is_ok(), "another /64");
        let strict = Rates::new(false);
        let let_in = (0..=ACCOUNTS_AN_HOUR).filter(|_| strict.admit(path, None, near).is_ok()).count();
        assert_eq!(let_in, ACCOUNTS_AN_HOUR as usize);
    }

    #[test]
    fn a_user_may_make_two_hundred_calls_at_once_and_as_many_for_tickets_and_sources() {
        let rates = Rates::new(true);
        let let_in = |path: &str, account| {
            (0..1_000).filter(|_| rates.admit(path, Some(AccountId(account)), None).is_ok()).count()
        };
        // A slow machine lets a little more than the burst through. The budgets of one user are separate.
        for path in ["AuthService/WhoAmI", "SwarmService/IssueTickets", "SwarmService/FindPeers"] {
            let let_in = let_in(&format!("/minitorrent.v1.{path}"), 1);
            assert!((200..400).contains(&let_in), "{path}: {let_in}");
        }
    }
}
