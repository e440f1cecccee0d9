//! Decides which callers may fetch which file. A caller needs a certificate of the tracker, and a ticket for
//! the file that is bound to the certificate's key.
//!
//! No decision needs a call to the tracker: its keys, the groups' epochs and its clock were received before.
//!
//! What can change is checked twice, for two reasons. [`Admission::admit`] rejects callers without a right:
//! they get no place in the queue and learn of no piece. [`Admission::in_force`] is called before each piece
//! and message. It also sees changes between the two calls, when there was no stream yet to end.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;
use proto::{
    domain::{FileId, GroupId, PeerId},
    reason::Reason,
    ticket::{Claims, TicketError, Verifier, VerifyingKey},
};
use tokio::sync::watch;
use tonic::Status;

use super::shares::{Share, Shares};
use crate::trust_memory::KeptClock;

/// How far this clock may be off the tracker's for tickets to be judged by it, in seconds. A clock that is
/// further off is faulty, and may jump again before the tracker next reports its time.
pub const CLOCK_OFF: u64 = 600;

/// Decides who is served.
pub(crate) struct Admission {
    shares: Arc<Shares>,
    trust: RwLock<Trust>,
    /// Changes when epochs have risen or the clock went off, so that running calls are checked again.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Trust {
    verifier: Arc<Verifier>,
    epochs: HashMap<GroupId, u64>,
    clock: Clock,
}

/// The tracker's clock, as far as this peer knows it.
#[derive(Default)]
struct Clock {
    /// The seconds to add to this machine's clock to get the tracker's, when the tracker last reported its
    /// time.
    offset: i64,
    /// The tracker's time when it was last reported, in seconds since 1970, with the time since this
    /// machine's start at that moment. The latter advances evenly, even if this machine's clock is set or the
    /// machine sleeps.
    told: Option<(u64, Duration)>,
}

impl Clock {
    fn report(&mut self, offset: i64, local: u64, since_boot: Duration) {
        self.offset = offset;
        self.told = Some((local.saturating_add_signed(offset), since_boot));
    }

    /// Continues after a restart, until the tracker reports its time. This machine's clock may have been set
    /// meanwhile. The tracker's time is then at least what it last was.
    fn resume(&mut self, kept: KeptClock, local: u64, since_boot: Duration) {
        self.offset = kept.offset;
        self.told = Some((local.saturating_add_signed(kept.offset).max(kept.told), since_boot));
    }

    /// The tracker's time, in seconds since 1970. This machine's time until the tracker has reported its own.
    fn now(&self, local: u64, since_boot: Duration) -> u64 {
        self.told.map_or(local, |(told, at)| told.saturating_add(since_boot.saturating_sub(at).as_secs()))
    }
}

/// A caller that was admitted.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) claims: Arc<Claims>,
    pub(crate) share: Arc<Share>,
}

impl Admission {
    pub(crate) fn new(shares: Arc<Shares>) -> Self {
        Self { shares, trust: RwLock::default(), changed: watch::Sender::new(()) }
    }

    pub(crate) fn set_keys(&self, keys: Vec<VerifyingKey>) {
        self.trust.write().verifier = Arc::new(Verifier::new(keys));
    }

    /// Continues with the tracker's clock as it was before a restart. With `None`, nothing is known of it.
    pub(crate) fn resume_clock(&self, kept: Option<KeptClock>) {
        let mut clock = Clock::default();
        if let Some(kept) = kept {
            clock.resume(kept, local_time(), since_boot());
        }
        self.trust.write().clock = clock;
    }

    /// Sets the tracker's clock. Returns what to keep of it, and true if this clock is now too far off to
    /// serve anything.
    pub(crate) fn set_clock_offset(&self, seconds: i64) -> (KeptClock, bool) {
        let (kept, was_off, is_off) = {
            let mut trust = self.trust.write();
            let was_off = trust.clock_is_off();
            trust.clock.report(seconds, local_time(), since_boot());
            (KeptClock { offset: seconds, told: trust.now() }, was_off, trust.clock_is_off())
        };
        if is_off && !was_off {
            tracing::error!(
                offset_seconds = seconds,
                "this machine's clock differs from the tracker's by more than 10 minutes; nothing is served \
                 until the clock is corrected"
            );
            self.changed.send_replace(());
        }
        (kept, is_off)
    }

    /// Replaces all known epochs by these.
    pub(crate) fn replace_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        self.trust.write().epochs = epochs.into_iter().collect();
        self.changed.send_replace(());
    }

    /// Sets the epochs of all groups that this peer's user is in. An epoch never falls. The epochs of other
    /// groups are forgotten, because the tracker does not tell this peer when they rise. Returns true if
    /// running calls may have lost their right.
    pub(crate) fn set_epochs(&self, epochs: &[(GroupId, u64)]) -> bool {
        let forgotten = {
            let mut trust = self.trust.write();
            let before = trust.epochs.len();
            let told: HashSet<&GroupId> = epochs.iter().map(|(group, _)| group).collect();
            trust.epochs.retain(|group, _| told.contains(group));
            trust.epochs.len() < before
        };
        let risen = self.raise_epochs(epochs);
        if forgotten && !risen {
            self.changed.send_replace(());
        }
        forgotten || risen
    }

    /// Raises the known epochs to these where these are higher or none was known. Returns true if any was.
    pub(crate) fn raise_epochs(&self, epochs: &[(GroupId, u64)]) -> bool {
        let mut risen = false;
        {
            let mut trust = self.trust.write();
            for (group, epoch) in epochs {
                if trust.epochs.get(group).is_none_or(|known| known < epoch) {
                    trust.epochs.insert(group.clone(), *epoch);
                    risen = true;
                }
            }
        }
        if risen {
            self.changed.send_replace(());
        }
        risen
    }

    /// Changes when running calls must be checked again.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Admits a caller, or fails with the reason why not. `peer` is the peer whose certificate was verified
    /// on the connection.
    pub(crate) fn admit(&self, peer: Option<PeerId>, ticket: &str, file: &[u8]) -> Result<Admitted, Status> {
        let peer =
            peer.ok_or_else(|| Reason::NoCertificate.status("the caller has no client certificate"))?;
        let (verifier, now) = {
            let trust = self.trust.read();
            trust.has_the_time().map_err(refusal)?;
            (trust.verifier.clone(), trust.now())
        };
        let claims = verifier.verify(ticket, now)?;
        let file = proto::convert::file_id(file)?;
        claims.covers(&peer, file)?;
        let in_epoch = self.trust.read().in_epoch(&claims);
        // A removed member does not learn what is shared here.
        if in_epoch == Err(Reason::StaleEpoch) {
            return Err(refusal(Reason::StaleEpoch));
        }
        let share = self.find(&claims).ok_or_else(not_shared)?;
        in_epoch.map_err(refusal)?;
        match share.withdrawn() {
            None => Ok(Admitted { claims, share }),
            Some(reason) => Err(refusal(reason)),
        }
    }

    /// The share that the claims are for. This peer's own user must share the file in that very group: other
    /// data that happens to be on this machine is never served.
    fn find(&self, claims: &Claims) -> Option<Arc<Share>> {
        let share = self.shares.get(claims.file)?;
        let same = share.group == claims.group && share.manifest.header().blake3 == claims.root;
        same.then_some(share)
    }

    /// Whether an admitted caller may go on. Called before every piece.
    pub(crate) fn in_force(&self, claims: &Claims) -> Result<(), Reason> {
        let trust = self.trust.read();
        trust.has_the_time()?;
        claims.in_time(trust.now()).map_err(TicketError::reason)?;
        trust.in_epoch(claims)
    }
}

impl Admitted {
    /// The requested file.
    pub(crate) fn file(&self) -> FileId {
        self.share.file
    }
}

impl Trust {
    /// The tracker's time, in seconds since 1970.
    fn now(&self) -> u64 {
        self.clock.now(local_time(), since_boot())
    }

    fn clock_is_off(&self) -> bool {
        self.clock.offset.unsigned_abs() > CLOCK_OFF
    }

    /// Whether this clock is close enough to the tracker's to judge tickets.
    fn has_the_time(&self) -> Result<(), Reason> {
        if self.clock_is_off() { Err(Reason::ClockOff) } else { Ok(()) }
    }

    /// Whether nobody left the claims' group since the ticket was signed. Until the tracker has told the
    /// group's epoch, nobody can say: a ticket could be a removed member's.
    fn in_epoch(&self, claims: &Claims) -> Result<(), Reason> {
        let min_epoch = *self.epochs.get(&claims.group).ok_or(Reason::NotServing)?;
        claims.in_epoch(min_epoch).map_err(TicketError::reason)
    }
}

/// This machine's time, in seconds since 1970.
fn local_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time since the machine started, including the time that it slept.
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

fn not_shared() -> Status {
    refusal(Reason::NotShared)
}

/// The status that ends a stream for this reason.
pub(crate) fn refusal(reason: Reason) -> Status {
    reason.status(match reason {
        Reason::NotShared => "this peer does not share the file in this group",
        Reason::FileChanged => "the file has changed on disk since it was shared",
        Reason::PathNotFound => "the file no longer exists",
        Reason::StaleEpoch => {
            "the ticket was issued before the group's membership changed; fetch a new ticket"
        }
        Reason::TicketExpired => "the ticket has expired",
        Reason::TicketInvalid => "the ticket is not valid yet",
        Reason::ClockOff => "this peer's clock differs from the tracker's by more than 10 minutes",
        Reason::NotServing => "this peer does not know the group's epoch yet",
        Reason::Corrupt => "the piece can't be read from this peer's disk",
        Reason::TooSlow => "the caller read nothing for 30 seconds",
        _ => "this peer can't serve the file now",
    })
}

#[cfg(test)]
mod tests;
