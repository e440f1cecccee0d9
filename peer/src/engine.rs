//! The transfer engine: shares files in place, downloads them from many peers at once, and serves what is verified.
//!
//! It owns what moves bytes: storage, download tasks, upload slots, rate limits. It does not know the tracker: sources
//! come in by [`Engine::sources`], tickets by [`TicketSource`], trust by [`Engine::set_ticket_keys`],
//! [`Engine::raise_epochs`] and [`Engine::set_clock_offset`]; what this peer holds goes out by [`Engine::holdings`].
//! Nor does it bind a port: the owner serves [`Engine::service`].
//!
//! Non-goals: which files to take up after a restart (the library's), and what to print.

mod memory;
mod totals;
mod types;
mod upkeep;

use std::{
    collections::HashMap,
    future::Future,
    io,
    ops::ControlFlow,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    domain::{Bitfield, FileId, GroupId, PeerId},
    reason::Reason,
    ticket::VerifyingKey,
    transport::AuthorityFingerprint,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use memory::Memory;
pub(crate) use totals::Totals;
pub use types::{
    DialError, Dialer, DownloadSpec, DownloadState, DownloadView, EngineConfig, Held, Holding, Problem,
    ShareSpec, ShareView, SourceAddr, SourceState, SourceView, Stats, TicketRefused, TicketSource,
};

use crate::{
    domain::upload,
    download::{
        driver::{self, Handle, Tools},
        links::Links,
    },
    hashing::{self, FileStamp, HashError},
    limiter::Limiter,
    observe::with_same_id,
    serve::{
        admission::Admission,
        get_chunk::Uploads,
        shares::{Offer, Shares},
        slots::Slots,
    },
    storage::{self, OpenStore, Opener, SharedFile, StoreError, check_destination},
};

pub use crate::serve::{PeerService, admission::CLOCK_OFF, holdings::Holdings};

/// A boxed future, as the engine's traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file can't be read, or is not what it should be.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Something else is at the destination.
    #[error("{} exists already", .0.display())]
    DestinationExists(PathBuf),
    /// The destination's directory is missing, or its path is not one of a file.
    #[error("{} can't be a destination: {why}", .0.display(), why = .1)]
    BadDestination(PathBuf, &'static str),
    /// The file is being downloaded or shared already.
    #[error("the file is being downloaded or shared already")]
    Running,
    /// The engine neither shares nor downloads the file.
    #[error("the file is neither shared nor downloaded here")]
    Unknown,
    /// A path can't be read or written.
    #[error("{}: {why}", .0.display(), why = .1)]
    Io(PathBuf, #[source] std::io::Error),
    /// The disk is full.
    #[error("{}: no space left on the device", .0.display())]
    DiskFull(PathBuf),
}

impl EngineError {
    /// The reason that goes with it on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Hash(error) => error.reason(),
            Self::DestinationExists(_) => Reason::DestinationExists,
            Self::BadDestination(..) => Reason::PathNotFound,
            Self::Running => Reason::AlreadyExists,
            Self::Unknown => Reason::NotShared,
            Self::Io(_, error) => Reason::of_io(error),
            Self::DiskFull(_) => Reason::DiskFull,
        }
    }

    fn task(path: &std::path::Path, error: tokio::task::JoinError) -> Self {
        Self::Io(path.to_owned(), io::Error::other(error))
    }
}

/// The transfer engine. Cheap to clone: all clones are the same engine. Methods are called within a tokio runtime.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shares: Arc<Shares>,
    admission: Arc<Admission>,
    uploads: Arc<Uploads>,
    tools: Arc<Tools>,
    downloads: Mutex<HashMap<FileId, Arc<Handle>>>,
    tasks: TaskTracker,
    /// The tasks that live as long as the engine end.
    ended: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Engine {
    /// An engine that shares and downloads nothing yet.
    pub fn new(config: EngineConfig, dialer: Arc<dyn Dialer>, tickets: Arc<dyn TicketSource>) -> Self {
        let open: Opener = Arc::new(|place, progress| Ok(Arc::new(place.open(progress)?)));
        Self::with_storage(config, dialer, tickets, open)
    }

    /// The same with another storage for unfinished downloads.
    pub fn with_storage(
        config: EngineConfig,
        dialer: Arc<dyn Dialer>,
        tickets: Arc<dyn TicketSource>,
        open: Opener,
    ) -> Self {
        let shares = Arc::new(Shares::default());
        let admission = Arc::new(Admission::new(shares.clone()));
        let uploads = upload::Options {
            slots: config.upload_slots as usize,
            queue: config.upload_queue as usize,
            ..upload::Options::default()
        };
        let slots = Slots::new(uploads, config.seed);
        let limiter = Arc::new(Limiter::new(config.upload_limit));
        let tools = Tools {
            shares: shares.clone(),
            links: Arc::new(Links::new(dialer)),
            limiter: Arc::new(Limiter::new(config.download_limit)),
            totals: Arc::new(Totals::default()),
            tickets,
            memory: Arc::new(Memory::new(config.state_dir)),
            open,
            disk_retry: config.disk_retry,
            seed: config.seed,
        };
        let ended = CancellationToken::new();
        let tasks = TaskTracker::new();
        let keep_time = slots.clone();
        tasks.spawn(ended.clone().run_until_cancelled_owned(async move { keep_time.keep_time().await }));
        tasks.spawn(ended.clone().run_until_cancelled_owned(upkeep::keep(shares.clone())));
        let uploads = Arc::new(Uploads::new(admission.clone(), slots, limiter, tools.totals.clone()));
        let inner = Inner {
            shares,
            admission,
            uploads,
            tools: Arc::new(tools),
            downloads: Mutex::default(),
            tasks,
            ended,
        };
        Self { inner: Arc::new(inner) }
    }

    fn downloads(&self) -> MutexGuard<'_, HashMap<FileId, Arc<Handle>>> {
        self.inner.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: FileId) -> Option<Arc<Handle>> {
        self.downloads().get(&file).cloned()
    }

    /// `minitorrent.v1.PeerService`, to be served where every request bears a [`proto::transport::ConnInfo`].
    pub fn service(&self) -> PeerService {
        PeerService::new(self.inner.uploads.clone())
    }

    /// Offers a file, and goes on offering it for as long as it stays what it is on disk: a change stops it at once,
    /// and it is hashed again. Returns once it is offered; sharing a file that is shared already is fine.
    ///
    /// # Errors
    /// When the path is no readable regular file ([`Reason::PathNotFound`], [`Reason::Io`]), or not what the manifest
    /// says ([`Reason::FileChanged`]). Nothing is shared then.
    pub async fn share(&self, spec: ShareSpec) -> Result<FileStamp, EngineError> {
        let (path, manifest, stamp) = (spec.path.clone(), spec.manifest.clone(), spec.stamp);
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(stamp) = stamp
                && stamp.size() == manifest.layout().length()
                && let Ok(file) = SharedFile::open(&path, stamp)
            {
                return Ok((file, stamp));
            }
            let stamp = hashing::verify(&path, &manifest, &|_| ControlFlow::Continue(()))?;
            Ok::<_, HashError>((SharedFile::open(&path, stamp)?, stamp))
        });
        let (file, stamp) = opened.await.map_err(|error| EngineError::task(&spec.path, error))??;
        self.inner.shares.add(Offer {
            group: spec.group,
            file: spec.file,
            have: Bitfield::full(spec.manifest.layout()),
            manifest: spec.manifest,
            path: spec.path,
            reader: Arc::new(file),
            wants_sources: false,
        });
        Ok(stamp)
    }

    /// Offers the file no more; running uploads of it end. The file stays on disk. False if it was not shared.
    pub fn unshare(&self, file: FileId) -> bool {
        let finished = self.handle(file).is_none_or(|handle| handle.view.borrow().state.is_final());
        finished && self.inner.shares.remove(file)
    }

    /// Starts a download, or takes it up again from what is beside its destination. Returns once the destination was
    /// looked at; all that follows is told by [`Engine::watch`]. Verified pieces are offered from the start, and once
    /// complete the file is shared as by [`Engine::share`].
    ///
    /// # Errors
    /// When something is at the destination already, its directory is missing, or the file is shared or downloading.
    pub async fn download(&self, spec: DownloadSpec) -> Result<watch::Receiver<DownloadView>, EngineError> {
        let destination = spec.destination.clone();
        check_destination(&destination)
            .map_err(|why| EngineError::BadDestination(destination.clone(), why))?;
        let place =
            OpenStore { file: spec.file, manifest: spec.manifest.clone(), destination: destination.clone() };
        let taken = tokio::task::spawn_blocking(move || place.is_refused()).await;
        if taken
            .map_err(|error| EngineError::task(&destination, error))?
            .map_err(|e| store_error(&destination, e))?
        {
            return Err(EngineError::DestinationExists(destination));
        }
        let handle = Arc::new(Handle::new(spec));
        {
            let mut downloads = self.downloads();
            let runs = |old: &Arc<Handle>| !old.view.borrow().state.is_final();
            let file = handle.spec.file;
            if downloads.get(&file).is_some_and(runs) || self.inner.shares.get(file).is_some() {
                return Err(EngineError::Running);
            }
            downloads.insert(file, handle.clone());
        }
        let view = handle.view.subscribe();
        self.inner.tasks.spawn(with_same_id(driver::run(handle, self.inner.tools.clone())));
        Ok(view)
    }

    /// Stops a download and waits until its verified pieces are safely on disk, or gone if `discard`. The file is no
    /// longer offered.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when it is not downloading, or complete; or what the disk says.
    pub async fn stop(&self, file: FileId, discard: bool) -> Result<(), EngineError> {
        let handle = self.handle(file).ok_or(EngineError::Unknown)?;
        handle.stop.cancel();
        let mut view = handle.view.subscribe();
        let state =
            view.wait_for(|view| view.state.is_final()).await.map_err(|_| EngineError::Unknown)?.state;
        if state == DownloadState::Complete {
            return Err(EngineError::Unknown);
        }
        if discard {
            self.discard(file, handle.spec.destination.clone()).await?;
        }
        Ok(())
    }

    /// Has a download that waits for room on its disk look again now, rather than when it is time.
    pub fn look_for_room(&self, file: FileId) {
        let Some(handle) = self.handle(file) else { return };
        let full = |view: &DownloadView| {
            view.state == DownloadState::Stalled
                && view.problem.as_ref().is_some_and(|problem| problem.reason == Reason::DiskFull)
        };
        // Before it looks, so that who watches from now on sees what came of it.
        handle.view.send_if_modified(|view| {
            let waits = full(view);
            if waits {
                (view.state, view.problem) = (DownloadState::Queued, None);
                handle.retry.notify_one();
            }
            waits
        });
    }

    /// Deletes what a download that doesn't run left beside its destination.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn discard(&self, file: FileId, destination: PathBuf) -> Result<(), EngineError> {
        let path = destination.clone();
        let done = tokio::task::spawn_blocking(move || storage::discard(file, &path)).await;
        done.map_err(|error| EngineError::task(&destination, error))?
            .map_err(|e| store_error(&destination, e))
    }

    /// A download's state, now and whenever it changes (at most some times a second). Stays readable after the end.
    pub fn watch(&self, file: FileId) -> Option<watch::Receiver<DownloadView>> {
        self.handle(file).map(|handle| handle.view.subscribe())
    }

    /// Tells of sources that were found and of those that are gone. Ignored for a file that is not downloading.
    pub fn sources(&self, file: FileId, found: Vec<SourceAddr>, gone: Vec<PeerId>) {
        if let Some(handle) = self.handle(file) {
            handle.book.note(found, &gone);
        }
    }

    /// What this peer has: first all of it, then what changes. One for each announce stream.
    pub fn holdings(&self) -> Holdings {
        Holdings::new(self.inner.shares.clone())
    }

    /// What is offered, running downloads included.
    pub fn shares(&self) -> Vec<ShareView> {
        self.inner.shares.all().iter().map(|share| share.view()).collect()
    }

    /// Reads this peer's complete copy again and checks every piece, and SHA-1 and BLAKE3 of the whole. `progress` is
    /// told how many bytes were read so far, and may break it off. A copy that is not what it should be is offered no
    /// more.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when there is no complete copy; [`Reason::FileChanged`] when it is not what it should be.
    pub async fn verify(
        &self,
        file: FileId,
        progress: impl Fn(u64) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let share = self.inner.shares.get(file).filter(|share| share.is_complete_file());
        let share = share.ok_or(EngineError::Unknown)?;
        let checked = {
            let share = share.clone();
            tokio::task::spawn_blocking(move || hashing::verify(&share.path, &share.manifest, &progress))
        };
        match checked.await.map_err(|error| EngineError::task(&share.path, error))? {
            Ok(_) => Ok(()),
            Err(error @ HashError::Stopped(_)) => Err(error.into()),
            Err(error) => {
                share.withdraw(Problem { reason: error.reason(), message: error.to_string() });
                Err(error.into())
            }
        }
    }

    /// The keys that tickets shown to this peer must be signed with. None: every request is refused.
    pub fn set_ticket_keys(&self, keys: Vec<VerifyingKey>) {
        self.inner.admission.set_keys(keys);
    }

    /// Goes on with the epochs and bans that are kept for the tracker of that authority; others are forgotten.
    pub fn take_up(&self, authority: AuthorityFingerprint) {
        if let Some(epochs) = self.inner.tools.memory.take_up(authority) {
            self.inner.admission.replace_epochs(epochs);
        }
    }

    /// The least epoch of tickets for each group. It never falls, not over restarts either once [`Engine::take_up`] has
    /// said whose groups they are; running uploads against older tickets end at once.
    pub fn raise_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        let admission = &self.inner.admission;
        if admission.raise_epochs(&epochs) {
            self.cut_uploads();
            // Last: the disk may take its time.
            self.inner.tools.memory.keep_epochs(&epochs);
        }
    }

    /// What to add to the local clock to get the tracker's, in seconds. With more than [`CLOCK_OFF`] either way nothing is
    /// served, and running uploads end at once.
    pub fn set_clock_offset(&self, seconds: i64) {
        if self.inner.admission.set_clock_offset(seconds) {
            self.cut_uploads();
        }
    }

    /// Ends the uploads that may not go on.
    fn cut_uploads(&self) {
        let admission = &self.inner.admission;
        self.inner.uploads.slots.cut(|claims| admission.in_force(claims).err());
    }

    /// Limits in bytes a second, 0 for none; `None` leaves one as it is. Returns those in force, upload first.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) -> (u64, u64) {
        let limiters = [(&self.inner.uploads.limiter, upload), (&self.inner.tools.limiter, download)];
        let [up, down] = limiters.map(|(limiter, rate)| {
            rate.into_iter().for_each(|rate| limiter.set(rate));
            limiter.rate()
        });
        (up, down)
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let (uploads_active, uploads_waiting) = self.inner.uploads.slots.load();
        let (mut download_rate, mut sources) = (0, 0);
        for handle in self.downloads().values() {
            let view = handle.view.borrow();
            download_rate += view.rate;
            sources += view.sources.iter().filter(|source| source.state.is_connected()).count();
        }
        Stats {
            upload_rate: self.inner.uploads.slots.rate(),
            download_rate,
            sources: u32::try_from(sources).unwrap_or(u32::MAX),
            uploads_active,
            uploads_waiting,
            ..self.inner.tools.totals.stats()
        }
    }

    /// Stops all sharing and downloading, keeping verified pieces; the engine can be used again. For a logout.
    pub async fn clear(&self) {
        let handles: Vec<_> = self.downloads().drain().map(|(_, handle)| handle).collect();
        for handle in &handles {
            handle.stop.cancel();
        }
        for handle in handles {
            let mut view = handle.view.subscribe();
            // It can't end without a final state, and the handle holds the sender.
            let _ = view.wait_for(|view| view.state.is_final()).await;
        }
        for share in self.inner.shares.all() {
            self.inner.shares.remove(share.file);
        }
        self.inner.tools.links.clear();
    }

    /// [`Engine::clear`], and every task has ended when it returns. The engine is of no use afterwards.
    pub async fn shutdown(&self) {
        self.clear().await;
        self.inner.ended.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// What the storage says of that path.
pub(crate) fn store_error(path: &std::path::Path, error: StoreError) -> EngineError {
    match error {
        StoreError::Io(error) => EngineError::Io(path.to_owned(), error),
        StoreError::Full => EngineError::DiskFull(path.to_owned()),
        StoreError::NameTaken => EngineError::DestinationExists(path.to_owned()),
        other => EngineError::Io(path.to_owned(), io::Error::other(other)),
    }
}
