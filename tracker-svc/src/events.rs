//! What changed in the store that running streams must hear of.
//!
//! Changes are written in the transaction that makes them, and read back by one pump, which then broadcasts them: so
//! those of the operator's commands, which are other processes, arrive on the same way as our own, each once and in
//! order. Our own arrive at once (a commit wakes the pump), others within [`POLL`].

use std::{sync::Arc, time::Duration};

use proto::domain::{FileId, GroupId, Username};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{domain::SessionHash, store::Store};

/// How often the store is asked for changes of other processes.
pub const POLL: Duration = Duration::from_secs(2);

/// How many changes a listener may be behind before it misses some: about a second of the fastest store.
const BACKLOG: usize = 4_096;

/// Something that ends a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session is over: logout, password change, disabling.
    SessionEnded {
        /// The session.
        session: SessionHash,
    },
    /// A user has no rights in a group any more: left, put out, or disabled. Tickets below `epoch` are void.
    MemberGone {
        /// The group.
        group: GroupId,
        /// The user.
        user: Username,
        /// The group's new epoch.
        epoch: u64,
    },
    /// A file was unlisted.
    FileGone {
        /// The group it was in.
        group: GroupId,
        /// The file.
        file: FileId,
    },
    /// A group ended, and all its files with it. Tickets below `epoch` are void; a group of that name made anew starts
    /// above it.
    GroupGone {
        /// The group.
        group: GroupId,
        /// An epoch above all that it had.
        epoch: u64,
    },
    /// An account was disabled; its sessions and memberships are told of one by one before.
    UserDisabled {
        /// The user.
        user: Username,
    },
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A change.
    Change(Change),
    /// Some changes were missed: whatever the listener holds must be checked against the store anew.
    Missed,
}

/// Broadcasts changes.
#[derive(Clone, Debug)]
pub struct Events {
    sender: broadcast::Sender<Change>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0 }
    }
}

impl Events {
    /// Hears all changes from now on.
    pub fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }

    /// Reads changes from the store and broadcasts them, until `shutdown`.
    ///
    /// A store that fails is asked again at the next poll: changes wait there.
    pub async fn pump(self, store: Arc<dyn Store>, mut last: i64, shutdown: CancellationToken) {
        loop {
            match store.changes(last).await {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => {
                    for (number, change) in changes {
                        last = number;
                        tracing::debug!(?change, "broadcast");
                        // Nobody listening is no error.
                        let _ = self.sender.send(change);
                    }
                    continue;
                }
                Err(error) => tracing::warn!(%error, "cannot read changes"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = store.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Hears changes.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Change>,
}

impl Listener {
    /// The next change; `None` once the tracker stops. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(change) => Some(Heard::Change(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
