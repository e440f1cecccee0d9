//! Ends running calls soon after their callers lose the right to them. This is the only mechanism for all
//! RPCs.
//!
//! The authentication layer registers each call with a session, and [`Gate::enter`](super::gate::Gate::enter)
//! records the groups that the call depends on. [`Rights::run`] checks the registered calls against the
//! store. It checks the calls that a [`Change`] concerns at once, and every call each [`ROUNDS`] seconds
//! without any change. A call that lost its right ends in two steps:
//!
//! 1. A streaming call ends with the status that a new call would get. This happens in the response's body,
//!    which is polled only when the client has room for more.
//! 2. After [`GRACE`] the transport resets the call if it is still running, and discards data that was not
//!    sent yet. This works whatever the client does.
//!
//! So a call outlives its right by at most 8 seconds. Calls with a single request and a single response skip
//! the first step. Some of them end their caller's right themselves (`Logout`, `LeaveGroup`), and the client
//! still needs their response. The deadline of 10 seconds limits their handlers.
//!
//! An announce stream depends on its session only. The hub ends what the stream may report and receive about
//! each group.
//!
//! If the store cannot be read, no call ends: there is no evidence that a right is lost, and all clients
//! would call again at once.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use proto::domain::GroupId;
use tokio::time::{Instant, interval};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};
use transport::Reset;

use crate::{
    domain::{
        Caller, Change, Refusal, Session, SessionHash,
        access::{self, GroupKey, Place, Proof},
    },
    error::TrackerError,
    events::{Heard, Listener},
    store::Store,
};

/// Interval between checks. Each check covers a part of the calls.
const TICK: Duration = Duration::from_secs(1);
/// The number of parts. Each call is checked once in this many ticks.
const ROUNDS: u64 = 5;
/// Time that a call gets to end by itself after it lost its right.
const GRACE: Duration = Duration::from_secs(2);
/// Number of calls that are checked before the task yields to others. Their sessions are read at once. A lookup takes a few
/// microseconds in SQLite.
const AT_ONCE: usize = 64;

/// The paths of the RPCs that stream in either direction, from their descriptors.
static STREAMING: LazyLock<HashSet<String>> = LazyLock::new(super::methods::streaming_methods);

/// All running calls of callers with a session.
pub struct Rights {
    store: Arc<dyn Store>,
    calls: Mutex<Calls>,
    next: AtomicU64,
}

#[derive(Default)]
struct Calls {
    running: HashMap<u64, Arc<Call>>,
    /// The running calls that lost their right and were not reset yet.
    losing: Vec<u64>,
    /// The sessions of the running calls, as they were last read, and how many calls each has.
    sessions: HashMap<SessionHash, (Session, usize)>,
}

/// A running call, and the rights that it depends on.
pub struct Call {
    caller: Caller,
    groups: Mutex<Vec<Entered>>,
    lost: OnceLock<(Refusal, Instant)>,
    ended: CancellationToken,
    reset: Option<Reset>,
}

/// A proof that the call relies on.
struct Entered {
    group: GroupId,
    key: GroupKey,
    /// Makes the same proof again.
    prove: fn(&Caller, &GroupId, Option<Place>) -> Result<(), Refusal>,
}

impl Deref for Call {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Call {
    /// Resolves when the call has lost its right.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Records that the call depends on this proof.
    pub(super) fn depends_on<P: Proof>(&self, group: &GroupId, key: GroupKey) {
        let prove =
            |caller: &Caller, group: &GroupId, place| access::admit::<P>(caller, group, place).map(drop);
        self.groups().push(Entered { group: group.clone(), key, prove });
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Entered>> {
        self.groups.lock()
    }

    fn concerns(&self, change: &Change) -> bool {
        let in_group = |group: &GroupId| self.groups().iter().any(|entered| entered.group == *group);
        match change {
            Change::SessionEnded { session } => *session == self.session(),
            Change::UserDisabled { user } => user == self.user(),
            Change::MemberGone { group, user, .. } => user == self.user() && in_group(group),
            Change::GroupGone { group, .. } => in_group(group),
            Change::MemberCame { .. } | Change::FilePublished { .. } | Change::FileGone { .. } => false,
        }
    }

    fn lose(&self, refusal: Refusal) {
        tracing::debug!(user = %self.user(), %refusal, "ending a running call whose caller lost the right to it");
        let _ = self.lost.set((refusal, Instant::now()));
        self.ended.cancel();
    }

    /// The status for a call that has lost its right.
    fn status(&self) -> Status {
        let refusal = self.lost.get().map_or(Refusal::NotLoggedIn, |(refusal, _)| refusal.clone());
        TrackerError::Refused(refusal).into()
    }
}

/// A registered call. Dropping it removes the registration.
pub(super) struct Running {
    rights: Arc<Rights>,
    id: u64,
    pub(super) call: Arc<Call>,
    /// Whether the call ends with a status as soon as it loses its right.
    pub(super) streams: bool,
}

impl Running {
    /// Returns the call's response, or a refusal if the call loses its right first.
    pub(super) async fn answer<E>(
        self,
        answer: impl Future<Output = Result<http::Response<Body>, E>>,
    ) -> Result<http::Response<Body>, E> {
        let response = tokio::select! {
            biased;
            response = answer => response?,
            () = self.call.ended(), if self.streams => return Ok(self.call.status().into_http()),
        };
        Ok(response.map(|body| {
            let lost = self.streams.then(|| Box::pin(self.call.ended.clone().cancelled_owned()));
            Body::new(Guarded { body: Some(body), lost, running: self })
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.rights.calls();
        calls.running.remove(&self.id);
        if let Entry::Occupied(mut known) = calls.sessions.entry(self.call.session()) {
            known.get_mut().1 -= 1;
            if known.get().1 == 0 {
                known.remove();
            }
        }
    }
}

/// The body of a response. A streamed one ends with a status when the call loses its right.
struct Guarded {
    /// `None` after it was ended.
    body: Option<Body>,
    lost: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    running: Running,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let is_lost = self.lost.as_mut().is_some_and(|lost| lost.as_mut().poll(cx).is_ready());
        if is_lost && self.body.take().is_some() {
            self.lost = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match self.running.call.status().add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            }));
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

impl Rights {
    /// Starts with no calls.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, calls: Mutex::default(), next: AtomicU64::new(0) })
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock()
    }

    /// The session with this hash as a running call of it found it, such as the announce stream of a peer. It may have
    /// ended since, a few seconds ago at most.
    pub(super) fn recent(&self, hash: SessionHash) -> Option<Session> {
        self.calls().sessions.get(&hash).map(|(session, _)| session.clone())
    }

    /// Registers a call of a caller with this session.
    pub(super) fn begin(
        self: &Arc<Self>,
        path: &str,
        session: Session,
        caller: Caller,
        reset: Option<Reset>,
    ) -> Running {
        let (groups, lost, ended) = (Mutex::default(), OnceLock::new(), CancellationToken::new());
        let call = Arc::new(Call { caller, groups, lost, ended, reset });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut calls = self.calls();
        calls.running.insert(id, Arc::clone(&call));
        match calls.sessions.entry(session.hash) {
            Entry::Occupied(mut known) => {
                let count = known.get().1 + 1;
                known.insert((session, count));
            }
            Entry::Vacant(new) => {
                new.insert((session, 1));
            }
        }
        drop(calls);
        Running { rights: Arc::clone(self), id, call, streams: STREAMING.contains(path) }
    }

    /// Ends calls that lost their right, until `shutdown`. The listener must be made before the first call.
    pub async fn run(self: Arc<Self>, mut changes: Listener, shutdown: CancellationToken) {
        let mut tick = interval(TICK);
        let mut round = 0;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                heard = changes.next() => match heard {
                    Some(Heard::Change(change)) => self.check(|_, call| call.concerns(&change)).await,
                    Some(Heard::Missed) => self.check(|_, _| true).await,
                    None => return,
                },
                _ = tick.tick() => {
                    round = (round + 1) % ROUNDS;
                    self.reset_late();
                    self.check(|id, _| id % ROUNDS == round).await;
                }
            }
        }
    }

    async fn check(&self, which: impl Fn(u64, &Call) -> bool) {
        let running = |(id, call): (&u64, &Arc<Call>)| {
            (which(*id, call) && call.lost.get().is_none()).then(|| (*id, Arc::clone(call)))
        };
        let calls: Vec<_> = self.calls().running.iter().filter_map(running).collect();
        for some in calls.chunks(AT_ONCE) {
            match self.living_sessions(some).await {
                Ok(living) => self.check_each(some, &living).await,
                Err(error) => tracing::debug!(%error, "the sessions of running calls can't be checked"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// The sessions of these calls that are valid now. See [`end_if_over`].
    async fn living_sessions(
        &self,
        calls: &[(u64, Arc<Call>)],
    ) -> Result<HashSet<SessionHash>, TrackerError> {
        let hashes: HashSet<_> = calls.iter().map(|(_, call)| call.session()).collect();
        let sessions = self.store.sessions(&hashes.into_iter().collect::<Vec<_>>()).await?;
        let now = SystemTime::now();
        let (living, over): (Vec<_>, Vec<_>) =
            sessions.into_iter().partition(|session| session.is_alive(now));
        // One call ends all that are over.
        if let Some(session) = over.first() {
            end_if_over(&*self.store, session, now).await;
        }
        Ok(living.into_iter().map(|session| session.hash).collect())
    }

    async fn check_each(&self, calls: &[(u64, Arc<Call>)], living: &HashSet<SessionHash>) {
        for (id, call) in calls {
            match self.prove(call, living).await {
                Ok(()) => {}
                Err(TrackerError::Refused(refusal)) => {
                    call.lose(refusal);
                    self.calls().losing.push(*id);
                }
                Err(error) => tracing::debug!(%error, "the rights of a running call can't be checked"),
            }
        }
    }

    /// Whether the call would be admitted now.
    async fn prove(&self, call: &Call, living: &HashSet<SessionHash>) -> Result<(), TrackerError> {
        if !living.contains(&call.session()) {
            return Err(Refusal::NotLoggedIn.into());
        }
        let entered: Vec<_> =
            call.groups().iter().map(|entered| (entered.group.clone(), entered.key, entered.prove)).collect();
        for (group, key, prove) in entered {
            let place = self.store.place(call.account(), &group).await?;
            // A new group of the same name is a different group.
            prove(call, &group, place.filter(|place| place.group == key))?;
        }
        Ok(())
    }

    /// Resets the calls that lost their right and did not end by themselves.
    fn reset_late(&self) {
        let mut calls = self.calls();
        let Calls { running, losing, .. } = &mut *calls;
        losing.retain(|id| {
            let Some(call) = running.get(id) else { return false };
            let is_late = call.lost.get().is_some_and(|(_, since)| since.elapsed() >= GRACE);
            if let Some(reset) = call.reset.as_ref().filter(|_| is_late) {
                reset.now();
            }
            !is_late
        });
    }
}

/// Returns the session with this hash, if it is valid now. See [`end_if_over`].
///
/// # Errors
/// [`Refusal::NotLoggedIn`]; store errors.
pub(super) async fn living_session(
    store: &dyn Store,
    hash: SessionHash,
    now: SystemTime,
) -> Result<Session, TrackerError> {
    let session = store.session(hash).await?.ok_or(Refusal::NotLoggedIn)?;
    end_if_over(store, &session, now).await;
    if !session.is_alive(now) {
        return Err(Refusal::NotLoggedIn.into());
    }
    Ok(session)
}

/// Ends a session permanently if it is not valid now, so that setting the clock back does not revive it.
pub(super) async fn end_if_over(store: &dyn Store, session: &Session, now: SystemTime) {
    if !session.is_alive(now)
        && let Err(error) = store.expire_sessions(now).await
    {
        tracing::warn!(%error, "expired sessions can't be ended");
    }
}

/// Records that the session is used now, if that is not known to the minute. A full disk must not prevent reads: at worst
/// the session ends early.
pub(super) async fn touch(store: &dyn Store, session: &Session, now: SystemTime) {
    if session.wants_touch(now)
        && let Err(error) = store.touch_session(session.hash, now).await
    {
        tracing::debug!(%error, "the last use of a session can't be recorded");
    }
}
