//! Who may fetch what: a certificate of the tracker, and a ticket for this file that is bound to its key.
//!
//! All of it is decided here, without asking the tracker: its keys, the groups' epochs and its clock were told before.
//!
//! What can change is asked twice, each time for another reason. [`Admission::admit`] keeps out who may not come in:
//! they get no place in the queue and learn of no piece. [`Admission::in_force`] is asked before each piece and message
//! then, and so also sees what changed between the two, when there was no stream yet that could have been cut.

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

/// How far this clock may be from the tracker's for tickets to be judged by it, in seconds. One that is further off has
/// something wrong with it, and may jump again before the tracker says so.
pub const CLOCK_OFF: u64 = 600;

/// Decides who is served.
pub(crate) struct Admission {
    shares: Arc<Shares>,
    trust: RwLock<Trust>,
    /// Epochs have risen, or the clock went off: who runs is looked at again.
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

    /// True if from now on nothing is served by this clock.
    pub(crate) fn set_clock_offset(&self, seconds: i64) -> bool {
        let (was_off, is_off) = {
            let mut trust = self.write();
            let was_off = trust.clock_is_off();
            trust.clock_offset = seconds;
            (was_off, trust.clock_is_off())
        };
        if is_off && !was_off {
            tracing::error!(
                offset_seconds = seconds,
                "this clock is more than 10 minutes off the tracker's: nothing is served until it is set right"
            );
            self.changed.send_replace(());
        }
        is_off
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

    /// Sees that who runs must be looked at again.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Lets a caller in, or says why not. `peer` is whose certificate was verified on the connection.
    pub(crate) fn admit(&self, peer: Option<PeerId>, ticket: &str, file: &[u8]) -> Result<Admitted, Status> {
        let peer = peer.ok_or_else(|| Reason::NoCertificate.status("a peer shows its certificate"))?;
        let (verifier, now) = {
            let trust = self.read();
            trust.has_the_time().map_err(refusal)?;
            (trust.verifier.clone(), trust.now())
        };
        let claims = verifier.verify(ticket, now)?;
        let file = proto::convert::file_id(file)?;
        claims.covers(&peer, file)?;
        self.read().in_epoch(&claims).map_err(refusal)?;
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
    pub(crate) fn in_force(&self, claims: &Claims) -> Result<(), Reason> {
        let trust = self.read();
        trust.has_the_time()?;
        claims.in_time(trust.now()).map_err(TicketError::reason)?;
        trust.in_epoch(claims)
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

    fn clock_is_off(&self) -> bool {
        self.clock_offset.unsigned_abs() > CLOCK_OFF
    }

    /// Whether tickets can be judged by this clock at all.
    fn has_the_time(&self) -> Result<(), Reason> {
        if self.clock_is_off() { Err(Reason::ClockOff) } else { Ok(()) }
    }

    fn in_epoch(&self, claims: &Claims) -> Result<(), Reason> {
        let min_epoch = self.epochs.get(&claims.group).copied().unwrap_or_default();
        claims.in_epoch(min_epoch).map_err(TicketError::reason)
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
        Reason::TicketInvalid => "the ticket is not valid yet",
        Reason::ClockOff => "this peer's clock is more than 10 minutes off the tracker's",
        Reason::Corrupt => "the piece can't be read from this peer's disk",
        Reason::TooSlow => "the caller took nothing for 30 seconds",
        _ => "this peer can't serve the file now",
    })
}

#[cfg(test)]
mod tests;
