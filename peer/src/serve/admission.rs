//! Who may fetch what: a certificate of the tracker, and a ticket for this file that is bound to its key.
//!
//! All of it is decided here, without asking the tracker: its keys, the groups' epochs and its clock were told before.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use proto::{
    domain::{FileId, GroupId, PeerId},
    reason::Reason,
    ticket::{Claims, TicketError, Verifier, VerifyingKey},
};
use tokio::sync::watch;
use tonic::Status;

use super::shares::{Share, Shares};

/// Decides who is served.
pub(crate) struct Admission {
    shares: Arc<Shares>,
    trust: RwLock<Trust>,
    /// Epochs have risen: who runs is looked at again.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Trust {
    verifier: Arc<Verifier>,
    epochs: HashMap<GroupId, u64>,
    clock_offset: i64,
}

/// A caller that was let in.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) claims: Arc<Claims>,
    pub(crate) share: Arc<Share>,
}

impl Admission {
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        Self { shares, trust: RwLock::default(), changed: watch::Sender::new(()) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Trust> {
        self.trust.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_keys(&self, keys: Vec<VerifyingKey>) {
        self.write().verifier = Arc::new(Verifier::new(keys));
    }

    pub(crate) fn set_clock_offset(&self, seconds: i64) {
        self.write().clock_offset = seconds;
    }

    /// Only these are known from now on.
    pub(crate) fn replace_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        self.write().epochs = epochs.into_iter().collect();
        self.changed.send_replace(());
    }

    /// Takes up epochs that are higher than those known. True if there were any.
    pub(crate) fn raise_epochs(&self, epochs: &[(GroupId, u64)]) -> bool {
        let mut risen = false;
        {
            let mut trust = self.write();
            for (group, epoch) in epochs {
                let known = trust.epochs.entry(group.clone()).or_default();
                risen |= *epoch > *known;
                *known = (*epoch).max(*known);
            }
        }
        if risen {
            self.changed.send_replace(());
        }
        risen
    }

    /// Sees epochs rise.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Lets a caller in, or says why not. `peer` is whose certificate was verified on the connection.
    pub(crate) fn admit(&self, peer: Option<PeerId>, ticket: &str, file: &[u8]) -> Result<Admitted, Status> {
        let peer = peer.ok_or_else(|| Reason::NoCertificate.status("a peer shows its certificate"))?;
        let (verifier, now) = {
            let trust = self.read();
            (trust.verifier.clone(), trust.now())
        };
        let claims = verifier.verify(ticket, now)?;
        let file = proto::convert::file_id(file)?;
        claims.covers(&peer, file)?;
        self.in_force(&claims)?;
        let share = self.find(&claims).ok_or_else(not_shared)?;
        match share.withdrawn() {
            None => Ok(Admitted { claims, share }),
            Some(reason) => Err(refusal(reason)),
        }
    }

    /// What this peer's own user shares in that very group: never bytes that it merely happens to have.
    fn find(&self, claims: &Claims) -> Option<Arc<Share>> {
        let share = self.shares.get(claims.file)?;
        let same = share.group == claims.group && share.manifest.header().blake3 == claims.root;
        same.then_some(share)
    }

    /// Whether what was let in may go on. Asked before every piece.
    pub(crate) fn in_force(&self, claims: &Claims) -> Result<(), TicketError> {
        let trust = self.read();
        claims.in_force(trust.epochs.get(&claims.group).copied().unwrap_or_default(), trust.now())
    }
}

impl Admitted {
    /// The file that was asked for.
    pub(crate) fn file(&self) -> FileId {
        self.share.file
    }
}

impl Trust {
    /// The tracker's time, in seconds since 1970.
    fn now(&self) -> u64 {
        let local = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        local.saturating_add_signed(self.clock_offset)
    }
}

fn not_shared() -> Status {
    refusal(Reason::NotShared)
}

/// What a stream that may not go on ends with.
pub(crate) fn refusal(reason: Reason) -> Status {
    reason.status(match reason {
        Reason::NotShared => "this peer does not share that file in that group",
        Reason::FileChanged => "the file has changed on disk since it was shared",
        Reason::PathNotFound => "the file is no longer there",
        Reason::StaleEpoch => "the ticket is from before the group last changed",
        Reason::TicketExpired => "the ticket has expired",
        Reason::Corrupt => "the piece can't be read from this peer's disk",
        Reason::TooSlow => "the caller took nothing for 30 seconds",
        _ => "this peer can't serve the file now",
    })
}
