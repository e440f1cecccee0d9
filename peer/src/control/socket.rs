//! The socket of the daemon: bound at the start, and bound again when somebody deletes it.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use program::durable;
use tokio::{
    net::UnixListener,
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::home::{Home, HomeLock};

/// The time between two looks whether the socket is still in its place. A verb waits a little longer.
const LOOK: Duration = Duration::from_secs(2);

/// The bound socket. It is removed when this is dropped.
pub(crate) struct Socket {
    home: Home,
    listener: watch::Sender<Arc<UnixListener>>,
    /// Device and inode of the bound socket.
    bound: (u64, u64),
}

impl Socket {
    /// Binds the socket. Removes one that was left by a daemon that was killed: the lock proves that nobody
    /// uses it.
    ///
    /// # Errors
    /// Fails when the socket can't be bound, or when others control its directory.
    pub(crate) fn bind(home: &Home) -> io::Result<Self> {
        let (listener, bound) = bind(home.socket())?;
        Ok(Self { home: home.clone(), listener: watch::Sender::new(Arc::new(listener)), bound })
    }

    /// The listener, and those that take its place.
    pub(crate) fn listeners(&self) -> watch::Receiver<Arc<UnixListener>> {
        self.listener.subscribe()
    }

    /// Binds the socket again whenever it is gone, for as long as the home is this daemon's. Never returns.
    pub(crate) async fn keep(&mut self, lock: &HomeLock) {
        let mut clock = interval(LOOK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            clock.tick().await;
            if self.is_in_place() || !lock.is_in_place() {
                continue;
            }
            match self.home.create().and_then(|()| bind(self.home.socket())) {
                Ok((listener, bound)) => {
                    tracing::warn!(path = %self.home.socket().display(), "the socket was deleted, and was created again");
                    self.listener.send_replace(Arc::new(listener));
                    (self.bound, told) = (bound, false);
                }
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::error!(%error, "the socket was deleted, and can't be created again");
                }
                Err(_) => {}
            }
        }
    }

    fn is_in_place(&self) -> bool {
        std::fs::symlink_metadata(self.home.socket())
            .is_ok_and(|found| (found.dev(), found.ino()) == self.bound)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_in_place()
            && let Err(error) = durable::remove_if_there(self.home.socket())
        {
            tracing::debug!(%error, "the socket can't be removed");
        }
    }
}

fn bind(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    durable::remove_if_there(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let found = std::fs::symlink_metadata(path)?;
    Ok((listener, (found.dev(), found.ino())))
}
