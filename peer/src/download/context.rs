//! The parts that all tasks of one download share.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use proto::{
    domain::{PeerId, PieceIndex},
    reason::Reason,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tonic::Status;

use super::{checks::Checks, links::Links};
use crate::{
    domain::download::{DownloadRequestId, Event, Failure},
    limiter::Limiter,
    ports::{Attempt, DownloadSpec, TicketRefused, TicketSource, Unreached},
    serve::shares::Share,
    storage::{PieceStore, StoreError},
    totals::Totals,
    trust_memory::TrustMemory,
};

/// The length of the queue of reports. It is longer than the number of tasks, so that no task waits for the
/// transfer while the driver keeps up.
pub(super) const MAX_REPORTS: usize = 1_024;

/// The reason why a source can't be used any more.
pub(super) struct Gone {
    /// What the machine is told.
    pub(super) failure: Failure,
    /// What the user is told.
    pub(super) cause: String,
    /// The addresses at which it could not be reached.
    pub(super) attempts: Vec<Attempt>,
    /// The reason is a clock that is off, here or there.
    pub(super) is_clock: bool,
}

/// A report of a task to the driver.
pub(super) enum Report {
    /// A report of a request.
    Request(Event),
    /// A report of a source, with the number of its connection.
    Source(PeerId, u64, Event),
    /// A source, by the number of its connection, can't be used any more.
    Gone(PeerId, u64, Gone),
    /// The store failed, and the download can't go on.
    Trouble(StoreError),
}

/// What the data of a download waited for on this peer's side, and what was done with it: the time of each
/// since the start, in nanoseconds, summed over all requests.
#[derive(Default)]
pub(super) struct Spent {
    /// Bytes waited for the rate limit.
    pub(super) limit: AtomicU64,
    /// Pieces waited for room to be checked.
    pub(super) room: AtomicU64,
    /// Pieces were hashed.
    pub(super) hashing: AtomicU64,
    /// Pieces were written.
    pub(super) writing: AtomicU64,
}

impl Spent {
    /// Adds the time since `began`.
    pub(super) fn add(to: &AtomicU64, began: Instant) {
        to.fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Limit, room, hashing and writing, in this order.
    pub(super) fn all(&self) -> [u64; 4] {
        [&self.limit, &self.room, &self.hashing, &self.writing].map(|spent| spent.load(Ordering::Relaxed))
    }
}

/// The parts that all tasks of one download share.
pub(super) struct Context {
    pub(super) spec: DownloadSpec,
    pub(super) store: Arc<dyn PieceStore>,
    pub(super) share: Arc<Share>,
    pub(super) links: Arc<Links>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) totals: Arc<Totals>,
    pub(super) tickets: Arc<DownloadTickets>,
    pub(super) memory: Arc<TrustMemory>,
    pub(super) checks: Checks,
    pub(super) spent: Spent,
    /// The turns of the downloads to recheck what an earlier run wrote.
    pub(super) rechecks: Arc<Semaphore>,
    pub(super) reports: mpsc::Sender<Report>,
}

/// See [`Context::fails_in_a_panic`].
pub(super) struct FailsInAPanic {
    context: Arc<Context>,
    what: &'static str,
}

impl Drop for FailsInAPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.context.checks.give_up();
            let error = format!("{} broke off: this is a bug, and the log has the details", self.what);
            self.context.trouble(StoreError::Io(std::io::Error::other(error)));
        }
    }
}

/// The download's tickets. One task at a time fetches a new ticket; the others find it.
pub(super) struct DownloadTickets {
    source: Arc<dyn TicketSource>,
    turn: tokio::sync::Mutex<()>,
    trouble: parking_lot::Mutex<Option<TicketRefused>>,
}

impl DownloadTickets {
    pub(super) fn new(source: Arc<dyn TicketSource>) -> Self {
        Self { source, turn: tokio::sync::Mutex::new(()), trouble: parking_lot::Mutex::new(None) }
    }

    /// Returns a ticket other than `refused`.
    pub(super) async fn get(
        &self,
        spec: &DownloadSpec,
        refused: Option<Arc<str>>,
    ) -> Result<Arc<str>, TicketRefused> {
        let mut got = self.source.ticket(&spec.group, spec.file, false).await;
        if let (Ok(ticket), Some(refused)) = (&got, &refused)
            && ticket == refused
        {
            let _turn = self.turn.lock().await;
            got = self.source.ticket(&spec.group, spec.file, false).await;
            if got.as_ref() == Ok(refused) {
                got = self.source.ticket(&spec.group, spec.file, true).await;
            }
        }
        *self.trouble.lock() = got.as_ref().err().cloned();
        got
    }

    /// The reason why the last call got no ticket, if it got none.
    pub(super) fn trouble(&self) -> Option<TicketRefused> {
        self.trouble.lock().clone()
    }
}

impl Context {
    pub(super) async fn ticket(&self, refused: Option<Arc<str>>) -> Result<Arc<str>, TicketRefused> {
        self.tickets.get(&self.spec, refused).await
    }

    /// Whether another ticket may help.
    pub(super) fn is_about_ticket(&self, status: &Status) -> bool {
        matches!(Reason::of(status), Some(Reason::StaleEpoch | Reason::TicketExpired | Reason::TicketInvalid))
    }

    /// Waits up to a second before a new ticket is requested. When a group changes, all peers' tickets are
    /// refused together, and they must not all request new ones at the same moment.
    pub(super) async fn rest_before_new_ticket(&self, status: &Status) {
        if Reason::of(status) == Some(Reason::StaleEpoch) {
            sleep(Duration::from_millis(rand::random_range(0..1_000))).await;
        }
    }

    /// Reports an event to the driver. If the driver has ended, the report is dropped.
    pub(super) async fn report(&self, event: Event) {
        let _ = self.reports.send(Report::Request(event)).await;
    }

    /// Like [`Self::report`], from a thread outside the runtime.
    pub(super) fn report_blocking(&self, event: Event) {
        let _ = self.reports.blocking_send(Report::Request(event));
    }

    /// Waits for something on this peer's side, such as the rate limit or room to check pieces. If it takes
    /// time, the machine is told, so that the wait does not count as slowness of the request's source, and the time
    /// is added to `spent`.
    pub(super) async fn wait_for_us<T>(
        &self,
        request: DownloadRequestId,
        spent: &AtomicU64,
        wait: impl Future<Output = T>,
    ) -> T {
        let mut wait = pin!(wait);
        let at_once = poll_fn(|task| Poll::Ready(wait.as_mut().poll(task))).await;
        if let Poll::Ready(done) = at_once {
            return done;
        }
        let began = Instant::now();
        self.report(Event::Held(request)).await;
        let done = wait.await;
        Spent::add(spent, began);
        self.report(Event::Freed(request)).await;
        done
    }

    pub(super) async fn report_source(&self, peer: PeerId, generation: u64, event: Event) {
        let _ = self.reports.send(Report::Source(peer, generation, event)).await;
    }

    pub(super) async fn report_gone(&self, peer: PeerId, generation: u64, gone: Gone) {
        let attempts = gone.attempts.iter();
        self.links.note_unreached(attempts.map(|attempt| Unreached {
            group: self.spec.group.clone(),
            file: self.spec.file,
            peer,
            attempt: attempt.clone(),
        }));
        let _ = self.reports.send(Report::Gone(peer, generation, gone)).await;
    }

    /// Reports to the driver that the store failed. For threads outside the runtime.
    pub(super) fn trouble(&self, error: StoreError) {
        let _ = self.reports.blocking_send(Report::Trouble(error));
    }

    /// If the thread panics while it holds the returned value, the download fails, and drops the pieces that wait
    /// to be checked. Nobody else would notice the panic.
    pub(super) fn fails_in_a_panic(self: &Arc<Self>, what: &'static str) -> FailsInAPanic {
        FailsInAPanic { context: self.clone(), what }
    }

    /// Notes that the piece was verified and written. It is offered from now on.
    pub(super) fn gained(&self, piece: PieceIndex) {
        self.totals.verified(u64::from(self.spec.manifest.layout().piece_length(piece)));
        self.share.gained(piece);
    }
}
