//! The lifecycle of one download, as a task: open it, transfer the pieces, check the whole, put it in place,
//! share it.

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
    time::Duration,
};

use proto::{
    domain::{Bitfield, FileName, GroupId, folder::Folder},
    reason::Reason,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    checks::Checks,
    context::{Context, DownloadTickets, MAX_REPORTS},
    driver::{Driver, Outcome},
    links::Links,
    reservations::Reservations,
    source_directory::SourceDirectory,
    view,
    wishes::Wishes,
};
use crate::{
    limiter::Limiter,
    paths::word,
    ports::{DownloadSpec, DownloadState, DownloadView, Problem, SourceAddr, TicketRefused, TicketSource},
    serve::shares::{Offer, Share, Shares},
    storage::{self, IndexStore, OpenStore, Opener, PieceReader, PieceStore, StoreError},
    totals::Totals,
    trust_memory::TrustMemory,
};

/// The first and the longest pause before the tracker is asked again for a ticket.
const TICKET_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The parts that all downloads of an engine share.
pub(crate) struct Tools {
    pub(crate) shares: Arc<Shares>,
    pub(crate) links: Arc<Links>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) tickets: Arc<dyn TicketSource>,
    pub(crate) memory: Arc<TrustMemory>,
    pub(crate) open: Opener,
    /// The space that running downloads still need.
    pub(crate) reservations: Reservations,
    /// [`recheck::AT_ONCE`](super::recheck::AT_ONCE) turns.
    pub(crate) rechecks: Arc<Semaphore>,
    /// The pause before a full disk is tried again.
    pub(crate) disk_retry: Duration,
    /// The seed of all random choices.
    pub(crate) seed: u64,
}

/// The engine's access to a running download.
pub(crate) struct Handle {
    pub(crate) view: watch::Sender<DownloadView>,
    pub(crate) directory: SourceDirectory,
    pub(crate) stop: CancellationToken,
    /// Which bytes are read while they arrive.
    pub(crate) wishes: Arc<Wishes>,
    /// Notified when a full disk should be tried again now.
    pub(crate) retry: Notify,
    pub(crate) spec: DownloadSpec,
    /// The file system of the destination, and the place of this download among those that need space there.
    pub(crate) space: OnceLock<(u64, u64)>,
}

impl Handle {
    pub(crate) fn new(spec: DownloadSpec) -> Self {
        let size = spec.manifest.layout().length();
        let done_bytes = spec.done_bytes.min(size);
        let files = spec.manifest.header().folder.map(|folder| (0, folder.files));
        let view = watch::Sender::new(DownloadView { done_bytes, files, ..DownloadView::queued(size) });
        Self {
            view,
            directory: SourceDirectory::default(),
            stop: CancellationToken::new(),
            wishes: Arc::default(),
            retry: Notify::new(),
            spec,
            space: OnceLock::new(),
        }
    }
}

/// The reason why a download ended before it was complete.
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

/// What to do about unfinished data that is not where it should be. The user decides: nothing is fetched again
/// unasked.
pub(crate) fn way_out(group: &GroupId, name: &FileName) -> String {
    let (group, name) = (word(group), word(name));
    format!(
        "put it back and `peer resume-download {group} {name}`, or give it up with `peer stop-download {group} {name} \
         --discard` and download again"
    )
}

/// The problem to show to the user of the download of `spec`.
fn problem_of(spec: &DownloadSpec, error: &StoreError) -> Problem {
    let Problem { reason, message } = problem(error);
    let (path, name) = (spec.destination.display(), &spec.manifest.header().name);
    if matches!(error, StoreError::Modified(_)) {
        let (group, name) = (word(&spec.group), word(name));
        let message = format!("{message}, and `peer update {group} {name}` again; nothing was replaced");
        return Problem { reason, message };
    }
    if matches!(error, StoreError::NameTaken) {
        let (group, name) = (word(&spec.group), word(name));
        let message = format!(
            "something else is at {path}: move it away, then `peer resume-download {group} {name}` continues"
        );
        return Problem { reason, message };
    }
    let is_out_of_place = matches!(
        error,
        StoreError::Gone | StoreError::Tampered(_) | StoreError::Displaced | StoreError::Linked
    );
    if !is_out_of_place {
        return Problem { reason, message };
    }
    let next = way_out(&spec.group, name);
    Problem { reason, message: format!("{path}: {message}; {next}") }
}

fn problem(error: &StoreError) -> Problem {
    let reason = match error {
        StoreError::Full => Reason::DiskFull,
        StoreError::NameTaken | StoreError::Modified(_) | StoreError::Unrepairable(_) => {
            Reason::DestinationExists
        }
        StoreError::InUse => Reason::AlreadyExists,
        StoreError::Corrupt | StoreError::Incomplete | StoreError::BadFolder(_) => Reason::Corrupt,
        StoreError::NothingChosen => Reason::FileNotFound,
        StoreError::Unsynced(_) | StoreError::Tampered(_) => Reason::Io,
        StoreError::Linked | StoreError::Displaced | StoreError::Gone => Reason::PathNotFound,
        StoreError::Io(error) => Reason::of_io(error),
    };
    Problem { reason, message: error.to_string() }
}

impl TicketRefused {
    /// The problem to show to the user.
    pub(crate) fn problem(&self) -> Problem {
        let (Self::Denied(reason) | Self::Unavailable(reason)) = *self;
        Problem { reason, message: self.to_string() }
    }
}

/// Runs a download to its end. Its last step sets the final state.
pub(crate) async fn run(handle: Arc<Handle>, place: OpenStore, tools: Arc<Tools>) {
    let download =
        Lifecycle { handle: handle.clone(), place, tools: tools.clone(), unsynced: false, corrupt: false };
    let result = download.run().await;
    if result.is_err() {
        tools.shares.remove(handle.spec.file);
    }
    handle.view.send_modify(|view| {
        view::still(view);
        (view.state, view.problem) = match result {
            Ok(()) => {
                view.files = view.files.map(|(_, all)| (all, all));
                (DownloadState::Complete, None)
            }
            Err(Failed::Stopped) => (DownloadState::Stopped, None),
            Err(Failed::Refused(refused)) => (DownloadState::Failed, Some(refused.problem())),
            Err(Failed::Store(error)) => (DownloadState::Failed, Some(problem_of(&handle.spec, &error))),
        };
    });
}

struct Lifecycle {
    handle: Arc<Handle>,
    /// This is not in the handle: after the download has ended its directory must not stay open, or its drive
    /// can't be detached.
    place: OpenStore,
    tools: Arc<Tools>,
    /// A sync has failed once.
    unsynced: bool,
    /// The final check of the whole has found bad pieces once.
    corrupt: bool,
}

impl Lifecycle {
    async fn run(mut self) -> Result<(), Failed> {
        if self.take_up_finished().await? {
            return Ok(());
        }
        loop {
            let store = self.open().await?;
            let share = self.offer(store.have(), store.clone(), true);
            match self.fill(&store, &share).await {
                Ok(()) => return Ok(()),
                // The download continues once from what was safe before. The rest may be lost although it
                // still reads well now.
                Err(Failed::Store(StoreError::Unsynced(error))) if !self.unsynced => {
                    let path = self.handle.spec.destination.display();
                    tracing::warn!(%error, %path, "the downloaded data could not be synced to disk");
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

    /// Shows that the disk is full, and waits until it should be tried again.
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

    async fn open(&self) -> Result<Arc<dyn PieceStore>, Failed> {
        let place = self.place.clone();
        let begun = blocking({
            let place = place.clone();
            move || place.is_begun()
        });
        if !begun.await? {
            if self.handle.spec.begun {
                return Err(StoreError::Gone.into());
            }
            // Nothing is created on disk before the tracker has given a ticket.
            self.wait_for_ticket().await?;
        }
        loop {
            let space = self.handle.space.get();
            let needed =
                space.map_or(0, |(device, order)| self.tools.reservations.needed(*device, Some(*order)));
            let (place, open) = (place.clone().with_reserved(needed), self.tools.open.clone());
            match blocking(move || open(&place)).await {
                Ok(store) => return Ok(store),
                Err(StoreError::Full) => self.wait_for_room().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait_for_ticket(&self) -> Result<(), Failed> {
        let (mut rest, most) = TICKET_RETRY;
        let tickets = DownloadTickets::new(self.tools.tickets.clone());
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

    /// Finishes a download that a crash interrupted after the file was in place and before its traces were
    /// removed. Returns whether there was one.
    async fn take_up_finished(&self) -> Result<bool, Failed> {
        let place = self.place.clone();
        let found = blocking(move || {
            if !place.is_left_behind()? {
                return Ok(None);
            }
            place.check_path()?;
            let file = match place.left().check(&|_| ControlFlow::Continue(())) {
                Ok(file) => file,
                // The older version is still in place.
                Err(_) if place.replaced().is_some() => return Ok(None),
                Err(_) => return Err(StoreError::NameTaken),
            };
            storage::discard(place.file, &place.destination)?;
            Ok(Some(file))
        });
        let Some(file) = found.await? else { return Ok(false) };
        let layout = self.handle.spec.manifest.layout();
        let have = file.pieces_without(layout, &[]).unwrap_or_else(|| Bitfield::full(layout));
        self.offer(have, file, false);
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
            folder: None,
            only: spec.only.clone(),
            problem: None,
        })
    }

    /// Gets all pieces, and puts the file in place.
    async fn fill(&mut self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<(), Failed> {
        let mut take = true;
        loop {
            if std::mem::take(&mut take) {
                match self.take(store, share).await {
                    Err(_) if self.handle.stop.is_cancelled() => return Err(Failed::Stopped),
                    // The transfer finds the same, and waits for room.
                    Ok(()) | Err(StoreError::Full) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match self.transfer(store, share).await {
                Outcome::Stopped => return Err(Failed::Stopped),
                Outcome::Trouble(StoreError::Full) => self.wait_for_room().await?,
                Outcome::Trouble(error) => return Err(error.into()),
                Outcome::Complete => match self.go_on(store, share).await {
                    // Other pieces are wanted now.
                    Ok(false) => take = true,
                    Err(StoreError::Full) => self.wait_for_room().await?,
                    Err(StoreError::Corrupt) if !std::mem::replace(&mut self.corrupt, true) => {
                        share.replace_have(store.have());
                    }
                    Err(_) if self.handle.stop.is_cancelled() => return Err(Failed::Stopped),
                    finished => return finished.map(|_| ()).map_err(Failed::Store),
                },
            }
        }
    }

    /// Takes what is wanted from a copy on this peer's disk, if there is one.
    async fn take(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<(), StoreError> {
        let Some(copy) = self.handle.spec.copy.as_ref().map(|copy| copy.original.clone()) else {
            return Ok(());
        };
        self.set(DownloadState::Downloading, None);
        let (handle, store, share) = (self.handle.clone(), store.clone(), share.clone());
        blocking(move || {
            let manifest = &handle.spec.manifest;
            storage::take(&copy, manifest, &*store, &mut |piece| {
                share.gained(piece);
                let length = u64::from(manifest.layout().piece_length(piece));
                handle.view.send_modify(|view| {
                    view.taken_bytes += length;
                    view.done_bytes = (view.done_bytes + length).min(view.size);
                });
                if handle.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })
        .await
    }

    async fn transfer(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Outcome {
        self.set(DownloadState::Downloading, None);
        if store.folder().is_some() && !self.handle.spec.only.is_empty() {
            let layout = self.handle.spec.manifest.layout();
            let size = store.wanted().iter(layout).map(|piece| u64::from(layout.piece_length(piece))).sum();
            self.handle.view.send_modify(|view| view.size = size);
        }
        transfer(&self.handle, &self.tools, store, share).await
    }

    /// Goes on to the next pieces, or finishes the download if all are there. Returns whether it is finished.
    async fn go_on(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<bool, StoreError> {
        let next = store.clone();
        if blocking(move || next.advance()).await? {
            return Ok(false);
        }
        self.finish(store, share).await.map(|()| true)
    }

    async fn finish(&self, store: &Arc<dyn PieceStore>, share: &Arc<Share>) -> Result<(), StoreError> {
        self.set(DownloadState::Verifying, None);
        let (store, stop, verify) = (store.clone(), self.handle.stop.clone(), self.handle.spec.verify);
        let reader = blocking(move || {
            let go_on =
                |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            if verify {
                store.verify(&go_on)?;
            }
            store.finish(&go_on)
        });
        share.set_reader(reader.await?);
        // Of a part of a folder, some pieces were only here to be checked.
        share.set_wrong_files(Vec::new());
        share.set_wants_sources(false);
        Ok(())
    }

    /// Makes the written pieces safe, so that the download can be resumed.
    async fn save(&self, store: &Arc<dyn PieceStore>) {
        let store = store.clone();
        if let Err(error) = blocking(move || store.checkpoint(true)).await {
            let path = self.handle.spec.destination.display().to_string();
            tracing::warn!(%error, path, "the last checkpoint of a download could not be written");
        }
    }
}

/// Gets the pieces that the store wants.
async fn transfer(
    handle: &Handle,
    tools: &Tools,
    store: &Arc<dyn PieceStore>,
    share: &Arc<Share>,
) -> Outcome {
    let (sender, reports) = mpsc::channel(MAX_REPORTS);
    let context = Arc::new(Context {
        spec: handle.spec.clone(),
        store: store.clone(),
        share: share.clone(),
        links: tools.links.clone(),
        limiter: tools.limiter.clone(),
        totals: tools.totals.clone(),
        tickets: Arc::new(DownloadTickets::new(tools.tickets.clone())),
        memory: tools.memory.clone(),
        checks: Checks::new(),
        spent: Default::default(),
        rechecks: tools.rechecks.clone(),
        reports: sender,
    });
    let Handle { directory, view, wishes, .. } = handle;
    Driver::new(context, directory, view, wishes, tools.seed).run(reports, &handle.stop).await
}

/// Fetches the entries of a folder from these sources, and keeps nothing. Nobody is told that this peer has these
/// pieces.
///
/// # Errors
/// [`Reason::NoSource`] if no source could be used within `patience`; [`Reason::Corrupt`] if the index is not valid.
pub(crate) async fn fetch_folder(
    spec: DownloadSpec,
    tools: &Tools,
    sources: Vec<SourceAddr>,
    patience: Duration,
) -> Result<Folder, Problem> {
    let not_a_folder = || Problem { reason: Reason::Corrupt, message: "it is not a folder".into() };
    let index = Arc::new(IndexStore::new(spec.manifest.clone()).ok_or_else(not_a_folder)?);
    let store: Arc<dyn PieceStore> = index.clone();
    // A list of shares of its own, so that nothing of this is announced.
    let share = Shares::default().add(Offer {
        group: spec.group.clone(),
        file: spec.file,
        manifest: spec.manifest.clone(),
        path: spec.destination.clone(),
        have: store.have(),
        reader: index.clone(),
        wants_sources: false,
        folder: None,
        only: Vec::new(),
        problem: None,
    });
    let handle = Handle::new(spec);
    handle.directory.note(sources, &[]);
    let nobody = async {
        sleep(patience).await;
        if handle.view.borrow().had_source {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        outcome = transfer(&handle, tools, &store, &share) => outcome,
        () = nobody => {
            let cause = handle.view.borrow().problem.as_ref().map(|problem| problem.message.clone());
            let message = cause.unwrap_or_else(|| "no source answers".to_owned());
            return Err(Problem { reason: Reason::NoSource, message });
        }
    };
    match outcome {
        Outcome::Complete => index.folder().map_err(|error| problem(&error)),
        Outcome::Trouble(error) => Err(problem(&error)),
        Outcome::Stopped => Err(Problem { reason: Reason::Stopped, message: "it was stopped".into() }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| StoreError::Io(std::io::Error::other(error)))?
}
