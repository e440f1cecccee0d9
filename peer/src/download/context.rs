//! What all tasks of one download share.

use std::{sync::Arc, time::Duration};

use proto::{
    domain::{PeerId, PieceIndex},
    reason::Reason,
};
use tokio::{sync::mpsc, time::sleep};
use tonic::Status;

use super::{check::Checks, links::Links};
use crate::{
    domain::download::Event,
    engine::{DownloadSpec, Memory, TicketRefused, TicketSource, Totals},
    limiter::Limiter,
    serve::shares::Share,
    storage::{PieceStore, StoreError},
};

/// News that wait for the driver. More than it has tasks, so that none waits for it while it keeps up.
pub(super) const NEWS: usize = 1_024;

/// What tasks tell the driver.
pub(super) enum News {
    /// Of a request.
    Request(Event),
    /// Of a source, by its connection's number.
    Source(PeerId, u64, Event),
    /// The store failed: nothing goes on.
    Trouble(StoreError),
}

/// What all tasks of one download share.
pub(super) struct Context {
    pub(super) spec: DownloadSpec,
    pub(super) store: Arc<dyn PieceStore>,
    pub(super) share: Arc<Share>,
    pub(super) links: Arc<Links>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) totals: Arc<Totals>,
    pub(super) tickets: Arc<Tickets>,
    pub(super) memory: Arc<Memory>,
    pub(super) checks: Checks,
    pub(super) news: mpsc::Sender<News>,
}

/// The download's tickets: one task at a time asks for a new one, the others find it.
pub(super) struct Tickets {
    source: Arc<dyn TicketSource>,
    turn: tokio::sync::Mutex<()>,
    trouble: std::sync::Mutex<Option<TicketRefused>>,
}

impl Tickets {
    pub(super) fn new(source: Arc<dyn TicketSource>) -> Self {
        Self { source, turn: tokio::sync::Mutex::new(()), trouble: std::sync::Mutex::new(None) }
    }

    /// A ticket; another than `refused`.
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
        *self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = got.as_ref().err().cloned();
        got
    }

    /// Why there was no ticket the last time, if so.
    /// Tells the driver, from outside of any task, that the store failed.
    pub(super) fn trouble(&self) -> Option<TicketRefused> {
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
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

    /// When a group changes, every peer's tickets are refused at once: they don't all ask for new ones at once.
    pub(super) async fn rest_before_new_ticket(&self, status: &Status) {
        if Reason::of(status) == Some(Reason::StaleEpoch) {
            sleep(Duration::from_millis(rand::random_range(0..1_000))).await;
        }
    }

    /// Tells the driver. When it is gone, there is nothing to be done.
    pub(super) async fn tell(&self, event: Event) {
        let _ = self.news.send(News::Request(event)).await;
    }

    /// Tells the driver, from outside of any task.
    pub(super) fn tell_blocking(&self, event: Event) {
        let _ = self.news.blocking_send(News::Request(event));
    }

    pub(super) async fn tell_of_source(&self, peer: PeerId, generation: u64, event: Event) {
        let _ = self.news.send(News::Source(peer, generation, event)).await;
    }

    /// Tells the driver, from outside of any task, that the store failed.
    pub(super) fn trouble(&self, error: StoreError) {
        let _ = self.news.blocking_send(News::Trouble(error));
    }

    /// The piece was verified and written: it is offered from now on.
    pub(super) fn gained(&self, piece: PieceIndex) {
        self.totals.verified(u64::from(self.spec.manifest.layout().piece_length(piece)));
        self.share.gained(piece);
    }
}
