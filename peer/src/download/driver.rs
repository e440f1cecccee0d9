//! One download from its start to its end, as a task: opened, transferred, checked, put in place, shared.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use proto::{domain::Bitfield, reason::Reason};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    book::Book,
    check::Checks,
    context::{Context, NEWS, Tickets},
    links::Links,
    transfer::{Outcome, Transfer},
    view,
};
use crate::{
    engine::{
        DownloadSpec, DownloadState, DownloadView, Memory, Problem, TicketRefused, TicketSource, Totals,
    },
    hashing,
    limiter::Limiter,
    serve::shares::{Offer, Share, Shares},
    storage::{self, OpenStore, Opener, PieceReader, PieceStore, SharedFile, StoreError},
};

/// How long to wait before the tracker is asked for a ticket again, at first and at most.
const TICKET_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What every download of an engine works with.
pub(crate) struct Tools {
    pub(crate) shares: Arc<Shares>,
    pub(crate) links: Arc<Links>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) tickets: Arc<dyn TicketSource>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) open: Opener,
    /// A full disk is tried again after so long.
    pub(crate) disk_retry: Duration,
    /// What is left to chance follows from it.
    pub(crate) seed: u64,
}

/// How the engine reaches a download that runs.
pub(crate) struct Handle {
    pub(crate) view: watch::Sender<DownloadView>,
    pub(crate) book: Book,
    pub(crate) stop: CancellationToken,
    /// A full disk is to be tried again now.
    pub(crate) retry: Notify,
    pub(crate) spec: DownloadSpec,
}

impl Handle {
    pub(crate) fn new(spec: DownloadSpec) -> Self {
        let view = watch::Sender::new(DownloadView::queued(spec.manifest.layout().length()));
        Self { view, book: Book::default(), stop: CancellationToken::new(), retry: Notify::new(), spec }
    }
}

/// Why a download ends without being complete.
enum Failed {
    Stopped,
    Refused(TicketRefused),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn problem(error: &StoreError) -> Problem {
    let reason = match error {
        StoreError::Full => Reason::DiskFull,
        StoreError::NameTaken => Reason::DestinationExists,
        StoreError::InUse => Reason::AlreadyExists,
        StoreError::Corrupt | StoreError::Incomplete => Reason::Corrupt,
        StoreError::Unsynced(_) | StoreError::Tampered(_) => Reason::Io,
        StoreError::Io(error) => Reason::of_io(error),
    };
    Problem { reason, message: error.to_string() }
}

impl TicketRefused {
    /// What is shown of it.
    pub(crate) fn problem(&self) -> Problem {
        let (Self::Denied(reason) | Self::Unavailable(reason)) = *self;
        Problem { reason, message: self.to_string() }
    }
}

/// Runs a download to its end. The last thing it does is to set the final state.
pub(crate) async fn run(handle: Arc<Handle>, tools: Arc<Tools>) {
    let download = Driver { handle: handle.clone(), tools: tools.clone(), unsynced: false, corrupt: false };
    let result = download.run().await;
    if result.is_err() {
        tools.shares.remove(handle.spec.file);
    }
    handle.view.send_modify(|view| {
        view::still(view);
        (view.state, view.problem) = match result {
            Ok(()) => (DownloadState::Complete, None),
            Err(Failed::Stopped) => (DownloadState::Stopped, None),
            Err(Failed::Refused(refused)) => (DownloadState::Failed, Some(refused.problem())),
            Err(Failed::Store(error)) => (DownloadState::Failed, Some(problem(&error))),
        };
    });
}

struct Driver {
    handle: Arc<Handle>,
    tools: Arc<Tools>,
    /// Syncing failed once.
    unsynced: bool,
    /// Reading the whole again found bad pieces once.
    corrupt: bool,
}

impl Driver {
    async fn run(mut self) -> Result<(), Failed> {
        if self.take_up_finished().await? {
            return Ok(());
        }
        loop {
            let store = self.open().await?;
            let share = self.offer(store.have(), store.clone(), true);
            match self.fill(&store, &share).await {
                Ok(()) => return Ok(()),
                // What was safe before is taken up again, once: the rest may be gone although it reads well now.
                Err(Failed::Store(StoreError::Unsynced(error))) if !self.unsynced => {
                    tracing::warn!(%error, path = %self.handle.spec.destination.display(), "data could not be synced");
                    self.unsynced = true;
                }
                Err(failed) => {
                    self.save(&store).await;
                    return Err(failed);
                }
            }
        }
    }

    fn set(&self, state: DownloadState, problem: Option<Problem>) {
        self.handle.view.send_modify(|view| {
            if state != DownloadState::Downloading {
                view::still(view);
            }
            (view.state, view.problem) = (state, problem);
        });
    }

    /// Says that the disk is full, and waits until it is time to try again.
    async fn wait_for_room(&self) -> Result<(), Failed> {
        self.set(DownloadState::Stalled, Some(problem(&StoreError::Full)));
        tokio::select! {
            () = self.handle.retry.notified() => Ok(()),
            waited = self.pause(self.tools.disk_retry) => waited,
        }
    }

    async fn pause(&self, time: Duration) -> Result<(), Failed> {
        tokio::select! {
            () = self.handle.stop.cancelled() => Err(Failed::Stopped),
            () = sleep(time) => Ok(()),
        }
    }

    fn place(&self) -> OpenStore {
        let spec = &self.handle.spec;
        OpenStore { file: spec.file, manifest: spec.manifest.clone(), destination: spec.destination.clone() }
    }

    async fn open(&self) -> Result<Arc<dyn PieceStore>, Failed> {
        let place = self.place();
        let begun = blocking({
            let place = place.clone();
            move || place.is_begun()
        });
        if !begun.await? {
            // Nothing is made on disk before the tracker said yes.
            self.wait_for_ticket().await?;
        }
        loop {
            let (place, open, stop) = (place.clone(), self.tools.open.clone(), self.handle.stop.clone());
            let go_on =
                move |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            match blocking(move || open(&place, &go_on)).await {
                Ok(store) => return Ok(store),
                Err(StoreError::Full) => self.wait_for_room().await?,
                Err(_) if self.handle.stop.is_cancelled() => return Err(Failed::Stopped),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait_for_ticket(&self) -> Result<(), Failed> {
        let (mut rest, most) = TICKET_RETRY;
        let tickets = Tickets::new(self.tools.tickets.clone());
        loop {
            let got = tokio::select! {
                () = self.handle.stop.cancelled() => return Err(Failed::Stopped),
                got = tickets.get(&self.handle.spec, None) => got,
            };
            match got {
                Ok(_) => return Ok(()),
                Err(refused @ TicketRefused::Denied(_)) => return Err(Failed::Refused(refused)),
                Err(refused) => self.set(DownloadState::Queued, Some(refused.problem())),
            }
            self.pause(rest.mul_f64(rand::random_range(0.5..1.0))).await?;
            rest = (rest * 2).min(most);
        }
    }

    /// A crash may have come when the file was in place already, and only its traces were left to be cleared away.
    async fn take_up_finished(&self) -> Result<bool, Failed> {
        let (place, manifest) = (self.place(), self.handle.spec.manifest.clone());
        let found = blocking(move || {
            if !place.is_left_behind()? {
                return Ok(None);
            }
            let stamp = hashing::verify(&place.destination, &manifest, &|_| ControlFlow::Continue(()));
            let file = stamp.and_then(|stamp| SharedFile::open(&place.destination, stamp));
            let file = file.map_err(|_| StoreError::NameTaken)?;
            storage::discard(place.file, &place.destination)?;
            Ok(Some(file))
        });
        let Some(file) = found.await? else { return Ok(false) };
        let layout = self.handle.spec.manifest.layout();
        self.offer(Bitfield::full(layout), Arc::new(file), false);
        self.handle.view.send_modify(|view| view::complete(view, layout));
        Ok(true)
    }

    fn offer(&self, have: Bitfield, reader: Arc<dyn PieceReader>, wants_sources: bool) -> Arc<Share> {
        let spec = &self.handle.spec;
        if let Some(share) = self.tools.shares.get(spec.file) {
            share.replace_have(have);
            share.set_reader(reader);
            return share;
        }
        self.tools.shares.add(Offer {
            group: spec.group.clone(),
            file: spec.file,
            manifest: spec.manifest.clone(),
            path: spec.destination.clone(),
            have,
            reader,
            wants_sources,
        })
    }

    /// Gets all pieces, and puts the file in place.
    async fn fill(&mut self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<(), Failed> {
        loop {
            match self.transfer(store, share).await {
                Outcome::Stopped => return Err(Failed::Stopped),
                Outcome::Trouble(StoreError::Full) => self.wait_for_room().await?,
                Outcome::Trouble(error) => return Err(error.into()),
                Outcome::Complete => match self.finish(store, share).await {
                    Err(StoreError::Full) => self.wait_for_room().await?,
                    Err(StoreError::Corrupt) if !std::mem::replace(&mut self.corrupt, true) => {
                        share.replace_have(store.have());
                    }
                    done => return Ok(done?),
                },
            }
        }
    }

    async fn transfer(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Outcome {
        self.set(DownloadState::Downloading, None);
        let (sender, news) = mpsc::channel(NEWS);
        let tools = &self.tools;
        let context = Arc::new(Context {
            spec: self.handle.spec.clone(),
            store: store.clone(),
            share: share.clone(),
            links: tools.links.clone(),
            limiter: tools.limiter.clone(),
            totals: tools.totals.clone(),
            tickets: Arc::new(Tickets::new(tools.tickets.clone())),
            memory: tools.memory.clone(),
            checks: Checks::new(),
            news: sender,
        });
        Transfer::new(context, &self.handle.book, &self.handle.view, tools.seed)
            .run(news, &self.handle.stop)
            .await
    }

    async fn finish(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<(), StoreError> {
        self.set(DownloadState::Verifying, None);
        if self.handle.spec.verify {
            let (store, stop) = (store.clone(), self.handle.stop.clone());
            let go_on =
                move |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            blocking(move || store.verify(&go_on)).await?;
        }
        let reader = blocking({
            let store = store.clone();
            move || store.finish()
        });
        share.set_reader(reader.await?);
        share.set_wants_sources(false);
        Ok(())
    }

    /// Leaves everything so that it can be taken up again.
    async fn save(&self, store: &Arc<dyn PieceStore>) {
        let store = store.clone();
        if let Err(error) = blocking(move || store.checkpoint(true)).await {
            let path = self.handle.spec.destination.display().to_string();
            tracing::warn!(%error, path, "pieces since the last checkpoint are not safe on disk");
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| StoreError::Io(std::io::Error::other(error)))?
}
