//! The open connections of a server, and the closing of those that [`Places`] gives up.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::places::{Admission, ConnId, PlaceLimits, Places, Principal};

/// The open connections of one server. The lock is held for a few map operations, never across an await.
#[derive(Debug)]
pub(super) struct Connections(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    places: Places,
    open: HashMap<ConnId, Open>,
}

#[derive(Clone, Debug)]
struct Open {
    close: CancellationToken,
    closed: CancellationToken,
}

/// One connection's place. The connection's task ends when [`ConnectionGuard::close`] is cancelled, and drops
/// the guard last.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    /// Cancelled when the connection must give way.
    pub(super) close: CancellationToken,
    closed: CancellationToken,
    standing: Standing,
}

/// A connection that must give way, and may still be open.
#[derive(Debug)]
pub(super) struct Leaving(CancellationToken);

impl Leaving {
    /// Returns once the connection's socket is closed.
    pub(super) async fn gone(self) {
        self.0.cancelled().await;
    }
}

impl Connections {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { places: Places::new(limits), open: HashMap::new() })))
    }

    /// Takes a place for a newcomer from this address. Also returns the connection that gives way to it, if
    /// any.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr) -> (ConnectionGuard, Option<Leaving>) {
        let mut inner = self.0.lock();
        let (id, admission) = inner.places.admit(from);
        let leaving = inner.close(admission);
        let open = Open { close: CancellationToken::new(), closed: CancellationToken::new() };
        inner.open.insert(id, open.clone());
        let standing = Standing {
            connections: Arc::clone(self),
            id,
            has_called: Arc::default(),
            is_proven: Arc::default(),
        };
        (ConnectionGuard { close: open.close, closed: open.closed, standing }, leaving)
    }

    /// Closes the oldest stranger of the network with the most, to make room.
    pub(super) fn give_up_one(&self) -> Option<Leaving> {
        let mut inner = self.0.lock();
        let oldest = inner.places.give_up_one()?;
        inner.close(Admission::Evict(oldest))
    }
}

impl Inner {
    fn close(&mut self, admission: Admission) -> Option<Leaving> {
        let Admission::Evict(victim) = admission else { return None };
        let open = self.open.get(&victim)?;
        open.close.cancel();
        Some(Leaving(open.closed.clone()))
    }
}

impl ConnectionGuard {
    /// The handle by which the connection reports who is at its other end.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut inner = self.standing.connections.0.lock();
        inner.places.release(self.standing.id);
        inner.open.remove(&self.standing.id);
        self.closed.cancel();
    }
}

/// A connection's standing with its server. Every request of the connection has it in its extensions.
#[derive(Clone, Debug)]
pub struct Standing {
    connections: Arc<Connections>,
    id: ConnId,
    has_called: Arc<AtomicBool>,
    is_proven: Arc<AtomicBool>,
}

impl Standing {
    /// Records a request on the connection.
    pub(super) fn call(&self) {
        if !self.has_called.swap(true, Ordering::Relaxed) {
            let mut inner = self.connections.0.lock();
            let admission = inner.places.call(self.id);
            drop(inner.close(admission));
        }
    }

    /// Records that `who` is proven to be at the other end. From then on the connection does not give way to
    /// strangers. Returns false if there is no proven place for it; the connection then stays a stranger.
    /// Repeated calls are cheap.
    pub fn prove(&self, who: Principal) -> bool {
        if self.is_proven.load(Ordering::Relaxed) {
            return true;
        }
        let mut inner = self.connections.0.lock();
        let admission = inner.places.prove(self.id, who);
        // No need to wait until the evicted connection is closed: no new connection was accepted.
        drop(inner.close(admission));
        let proven = admission != Admission::Refuse;
        self.is_proven.store(proven, Ordering::Relaxed);
        proven
    }
}
