//! What an engine remembers over restarts: the groups' epochs, lest a removed member's ticket counts again, and the
//! peers that sent bad pieces.
//!
//! One small file for each authority: another tracker's groups of the same names have epochs of their own.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::{
    domain::{GroupId, PeerId},
    durable::{self, Readers},
    transport::AuthorityFingerprint,
};
use serde::{Deserialize, Serialize};

/// How long a peer that sent bad pieces is not used.
const BAN: Duration = Duration::from_hours(1);
/// Most groups, and most peers, that are remembered: more than a user can be in, and than lie in an hour.
const MOST: usize = 10_000;

/// Epochs and bans; on disk where there is a directory for them.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    directory: Option<PathBuf>,
    /// Locked also while its file is written: a change is rare.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    path: Option<PathBuf>,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Kept {
    /// The least epoch of tickets, by group.
    epochs: BTreeMap<String, u64>,
    /// Until when a peer is not used, in seconds since 1970.
    bans: BTreeMap<String, u64>,
}

impl Memory {
    /// Nothing is read before [`Self::take_up`].
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what is remembered of that authority's groups and peers, from now on. The epochs, unless it went on
    /// with them before.
    pub(super) fn take_up(&self, authority: AuthorityFingerprint) -> Option<Vec<(GroupId, u64)>> {
        let name = format!("{}.json", authority.to_string().replace(':', ""));
        let path = self.directory.as_ref()?.join(name);
        let mut inner = self.lock();
        if inner.path.as_ref() == Some(&path) {
            return None;
        }
        let kept = durable::read_if_there(&path).and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            None => Ok(Kept::default()),
        });
        inner.kept = kept.unwrap_or_else(|error| {
            tracing::error!(%error, path = %path.display(), "epochs and bans are forgotten: their file can't be read");
            Kept::default()
        });
        inner.path = Some(path);
        let epochs = inner.kept.epochs.iter();
        Some(epochs.filter_map(|(group, epoch)| Some((group.parse().ok()?, *epoch))).collect())
    }

    /// Notes epochs that have risen.
    pub(super) fn keep_epochs(&self, epochs: &[(GroupId, u64)]) {
        let mut inner = self.lock();
        let mut changed = false;
        for (group, epoch) in epochs {
            if inner.kept.epochs.len() < MOST || inner.kept.epochs.contains_key(group.as_str()) {
                let known = inner.kept.epochs.entry(group.to_string()).or_default();
                changed |= *epoch > *known;
                *known = (*epoch).max(*known);
            }
        }
        if changed {
            inner.save();
        }
    }

    /// The peer sent bad pieces: it is not used for an hour.
    pub(crate) fn ban(&self, peer: PeerId) {
        let now = seconds(SystemTime::now());
        let mut inner = self.lock();
        inner.kept.bans.retain(|_, until| now < *until);
        if inner.kept.bans.len() < MOST {
            inner.kept.bans.entry(peer.to_string()).or_insert(now + BAN.as_secs());
            inner.save();
        }
    }

    /// Whether the peer is not to be used now.
    pub(crate) fn is_banned(&self, peer: PeerId) -> bool {
        let until = self.lock().kept.bans.get(&peer.to_string()).copied();
        // Never for longer, whatever the clock was set to meanwhile.
        until
            .and_then(|until| until.checked_sub(seconds(SystemTime::now())))
            .is_some_and(|left| (1..=BAN.as_secs()).contains(&left))
    }
}

impl Inner {
    /// What can't be written counts all the same, until the next start.
    fn save(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(&self.kept).map_err(io::Error::other).and_then(|bytes| {
            path.parent().map_or(Ok(()), durable::private_dir)?;
            durable::write(path, &bytes, Readers::Owner)
        });
        if let Err(error) = written {
            tracing::error!(%error, path = %path.display(), "epochs and bans can't be kept");
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn authority(digit: &str) -> AuthorityFingerprint {
        digit.repeat(64).parse().unwrap()
    }

    #[test]
    fn epochs_only_rise_and_bans_last_also_over_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let open = || Memory::new(Some(home.path().join("engine")));
        let (g1, g2): (GroupId, GroupId) = ("g1".parse().unwrap(), "g2".parse().unwrap());
        let (liar, other) = (PeerId::from([1; 32]), PeerId::from([2; 32]));
        let memory = open();
        assert_eq!(memory.take_up(authority("a")), Some(vec![]));
        memory.keep_epochs(&[(g1.clone(), 5), (g2.clone(), 2)]);
        memory.keep_epochs(&[(g1.clone(), 4), (g2.clone(), 3)]);
        memory.ban(liar);
        assert!(memory.is_banned(liar) && !memory.is_banned(other));
        assert_eq!(memory.take_up(authority("a")), None, "it goes on already");

        let again = open();
        assert!(!again.is_banned(liar), "not known yet");
        assert_eq!(again.take_up(authority("a")), Some(vec![(g1, 5), (g2, 3)]));
        assert!(again.is_banned(liar) && !again.is_banned(other));
        assert_eq!(again.take_up(authority("b")), Some(vec![]), "another tracker's groups are others");
        assert!(!again.is_banned(liar));
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(format!("{}.json", "A".repeat(64)));
        std::fs::write(&path, "{\"epochs\":").unwrap();
        let memory = Memory::new(Some(home.path().to_owned()));
        assert_eq!(memory.take_up(authority("a")), Some(vec![]));
        memory.ban(PeerId::from([1; 32]));
        assert!(std::fs::read_to_string(&path).unwrap().contains("bans"));
    }
}
