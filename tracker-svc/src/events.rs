//! Changes in the store that running streams must be told about.
//!
//! A change is written in the transaction that makes it. One pump reads changes from the store and broadcasts
//! them. So changes by the operator's commands, which run in other processes, arrive in the same way as the
//! tracker's own: each once and in order. The tracker's own arrive at once, because a commit wakes the pump.
//! Others arrive within [`POLL`]. [`Events::read`] says how far they are known.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Change,
    store::{MOST_CHANGES, Store},
};

/// Interval at which the store is polled for changes by other processes.
pub const POLL: Duration = Duration::from_secs(2);

/// The same where trackers share the store. A read that fails is repeated before what the tracker knows is too old.
const POLL_SHARED: Duration = Duration::from_secs(1);

/// A pause between two reads after which the log may lack changes: half as long as it keeps them.
const LONG: Duration = Duration::from_mins(30);

/// Number of changes that a listener may be behind before it misses some: about one second of the fastest
/// store.
const BACKLOG: usize = 4_096;

/// A message to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A change.
    Change(Change),
    /// Some changes were missed. The listener must check its state against the store again.
    Missed,
}

/// Broadcasts changes.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Heard>,
    /// All changes before this moment were broadcast.
    read: watch::Sender<Instant>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0, read: watch::Sender::new(Instant::now()) }
    }
}

impl Events {
    /// Starts a listener, which receives all later changes.
    pub fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }

    /// The moment before which every change in the store was broadcast.
    pub fn read(&self) -> watch::Receiver<Instant> {
        self.read.subscribe()
    }

    /// Reads changes from the store and broadcasts them, until `shutdown`.
    ///
    /// If the store fails, the pump tries again at the next poll. The changes stay in the store.
    ///
    /// After a pause that was so long that changes may have been deleted unread, the listeners hear of that.
    pub async fn pump(self, store: Arc<dyn Store>, mut last: i64, shutdown: CancellationToken) {
        let mut read = Instant::now();
        let poll = if store.shared().is_some() { POLL_SHARED } else { POLL };
        loop {
            let begun = Instant::now();
            let found = store.changes(last).await;
            if found.is_ok() && begun.duration_since(std::mem::replace(&mut read, begun)) > LONG {
                let _ = self.sender.send(Heard::Missed);
            }
            match found {
                Ok(changes) => {
                    let found = changes.len();
                    for (number, change) in changes {
                        last = number;
                        tracing::debug!(?change, "broadcast");
                        // A broadcast without listeners is not an error.
                        let _ = self.sender.send(Heard::Change(change));
                    }
                    if found < MOST_CHANGES {
                        self.read.send_replace(begun);
                    }
                    if found > 0 {
                        continue;
                    }
                }
                Err(error) => tracing::warn!(%error, "changes in the store can't be read"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = store.changed() => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
    }
}

/// Receives changes.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Heard>,
}

impl Listener {
    /// Returns the next change, or `None` when the tracker stops. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(heard) => Some(heard),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
