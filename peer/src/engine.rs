//! The transfer engine: shares files in place, downloads them from many peers at once, and serves the
//! verified pieces.
//!
//! It owns everything that moves bytes: storage, download tasks, upload slots, rate limits. It knows nothing
//! of the tracker. It receives sources by [`Engine::sources`], tickets by [`TicketSource`], and trust by
//! [`Engine::set_ticket_keys`], [`Engine::raise_epochs`] and [`Engine::set_clock_offset`]. It reports what
//! this peer has by [`Engine::holdings`]. It does not bind a port either: the owner serves
//! [`Engine::service`].
//!
//! Non-goals: which files to resume after a restart, which the library decides, and what to print.

mod config;
mod reader;
mod receivers;

use std::{collections::HashMap, io, ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use proto::{
    domain::{Bitfield, FileId, GroupId, PeerId, folder::Folder},
    reason::Reason,
    ticket::VerifyingKey,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use transport::AuthorityFingerprint;

pub use crate::{
    ports::{
        Attempt, BoxFuture, DialError, Dialer, DownloadSpec, DownloadState, DownloadView, LocalCopy,
        Obstacle, Problem, ShareSpec, ShareView, SourceAddr, SourceState, SourceView, TicketRefused,
        TicketSource, Unreached,
    },
    totals::Stats,
};
pub use config::EngineConfig;
pub use reader::Reader;

use crate::{
    domain::upload,
    download::{
        lifecycle::{self, Handle, Tools},
        links::Links,
        recheck,
        reservations::Reservations,
    },
    hashing::{Damage, FileStamp, HashError},
    limiter::Limiter,
    observe::with_same_id,
    serve::{
        admission::Admission,
        get_chunk::Uploads,
        shares::{Offer, Shares},
        slots::UploadSlots,
        upkeep,
    },
    storage::{
        self, Examined, OpenStore, Opener, Original, Replaced, SharedFile, StoreError, check_destination,
    },
    totals::Totals,
    trust_memory::TrustMemory,
};

pub use crate::serve::{PeerService, admission::CLOCK_OFF, holdings::Holdings};

/// The reason why the engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file can't be read, or is not what it should be.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Something else is at the destination.
    #[error("{} already exists; choose another destination", .0.display())]
    DestinationExists(PathBuf),
    /// The destination's directory is missing, or its path can't be the path of a file.
    #[error("{} can't be used as a destination: {why}", .0.display(), why = .1)]
    BadDestination(PathBuf, &'static str),
    /// The path to the destination's directory has changed since the destination was accepted.
    #[error(
        "{}: {why}; put it back and `peer resume-download` it, or give it up with `peer stop-download --discard` and \
         download again",
        .0.display(), why = .1
    )]
    Displaced(PathBuf, #[source] StoreError),
    /// The copy on disk does not match the manifest.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The file can't be mended in place.
    #[error("{} can't be mended in place: {why}; move it away, and download it again", .0.display(), why = .1)]
    Unrepairable(PathBuf, &'static str),
    /// The file is already being downloaded or shared.
    #[error("the file is already being downloaded or shared")]
    Running,
    /// The engine neither shares nor downloads the file.
    #[error("the file is neither shared nor downloaded here")]
    Unknown,
    /// A path can't be read or written.
    #[error("{}: {why}", .0.display(), why = .1)]
    Io(PathBuf, #[source] std::io::Error),
    /// The entries of a folder can't be fetched.
    #[error("what is in the folder can't be fetched: {}", .0.message)]
    NoFolder(Problem),
    /// The copy that is to be replaced is not what this peer put there.
    #[error("{} changed, or is not of this version, and would be lost; move it away, then update again", .0.display())]
    Modified(PathBuf),
    /// The file can't be read now.
    #[error("{}", .0.message)]
    Unreadable(Problem),
    /// The disk is full.
    #[error("no space is left on the disk of {}; free some space", .0.display())]
    DiskFull(PathBuf),
}

impl EngineError {
    /// The reason that stands for this error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Hash(error) => error.reason(),
            Self::DestinationExists(_) | Self::Modified(_) | Self::Unrepairable(..) => {
                Reason::DestinationExists
            }
            Self::Damaged(_) => Reason::FileChanged,
            Self::BadDestination(..) | Self::Displaced(..) => Reason::PathNotFound,
            Self::Running => Reason::AlreadyExists,
            Self::Unknown => Reason::NotShared,
            Self::Io(_, error) => Reason::of_io(error),
            Self::NoFolder(problem) => problem.reason,
            Self::Unreadable(problem) => problem.reason,
            Self::DiskFull(_) => Reason::DiskFull,
        }
    }

    fn task(path: &std::path::Path, error: tokio::task::JoinError) -> Self {
        Self::Io(path.to_owned(), io::Error::other(error))
    }
}

/// The transfer engine. Cheap to clone: all clones are the same engine. Its methods must be called within a
/// tokio runtime.
///
/// ```
/// use std::sync::Arc;
/// use peer::engine::*;
/// use proto::{domain::{FileId, GroupId, PeerId}, reason::Reason};
///
/// /// Without a tracker there are no tickets, and without a certificate there are no connections.
/// struct Offline;
///
/// impl TicketSource for Offline {
///     fn ticket(&self, _: &GroupId, _: FileId, _: bool) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>> {
///         Box::pin(async { Err(TicketRefused::Unavailable(Reason::TrackerUnreachable)) })
///     }
/// }
///
/// impl Dialer for Offline {
///     fn dial(&self, _: PeerId, _: &str, _: u32) -> BoxFuture<'_, Result<tonic::transport::Channel, DialError>> {
///         Box::pin(async { Err(DialError::other("offline")) })
///     }
///     fn own_id(&self) -> Option<PeerId> {
///         None
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::new(EngineConfig::default(), Arc::new(Offline), Arc::new(Offline));
/// assert_eq!(engine.stats().uploaded_bytes, 0);
/// # });
/// ```
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
    /// Cancelled to end the tasks that live as long as the engine.
    ended: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Engine {
    /// Creates an engine that shares and downloads nothing yet.
    pub fn new(config: EngineConfig, dialer: Arc<dyn Dialer>, tickets: Arc<dyn TicketSource>) -> Self {
        Self::with_storage(config, dialer, tickets, storage::on_disk())
    }

    /// Like [`Engine::new`], with another storage for unfinished downloads.
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
        let slots = UploadSlots::new(uploads, config.seed);
        let limiter = Arc::new(Limiter::new(config.upload_limit));
        let tools = Tools {
            shares: shares.clone(),
            links: Arc::new(Links::new(dialer)),
            limiter: Arc::new(Limiter::new(config.download_limit)),
            totals: Arc::new(Totals::default()),
            tickets,
            memory: Arc::new(TrustMemory::new(config.state_dir)),
            open,
            reservations: Reservations::default(),
            rechecks: Arc::new(Semaphore::new(recheck::AT_ONCE)),
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
        self.inner.downloads.lock()
    }

    fn handle(&self, file: FileId) -> Option<Arc<Handle>> {
        self.downloads().get(&file).cloned()
    }

    /// `minitorrent.v1.PeerService`. Every request that it serves must carry a [`transport::ConnInfo`].
    pub fn service(&self) -> PeerService {
        PeerService::new(self.inner.uploads.clone())
    }

    /// Offers a file for as long as it stays unchanged on disk. After a change it is withdrawn at once, and
    /// hashed again; of a folder, only the pieces with the changed files are. Returns once the file is offered. A file that is already shared may be shared again.
    ///
    /// # Errors
    /// Fails when the path is not a readable regular file ([`Reason::PathNotFound`], [`Reason::Io`]), or when
    /// the file does not match the manifest ([`Reason::FileChanged`]). Nothing is shared then.
    pub async fn share(&self, spec: ShareSpec) -> Result<Option<FileStamp>, EngineError> {
        let original = Original {
            path: spec.path.clone(),
            manifest: spec.manifest.clone(),
            folder: spec.folder,
            only: spec.only.clone(),
        };
        let stamp = spec.stamp;
        let opened =
            tokio::task::spawn_blocking(move || match stamp.and_then(|stamp| original.open(stamp)) {
                Some(reader) => Ok(Examined { reader, damage: None }),
                None => original.examine(&|_| ControlFlow::Continue(())),
            });
        let opened = opened.await.map_err(|error| EngineError::task(&spec.path, error))??;
        let Examined { reader, damage } = opened;
        // The right files of a folder are shared, whatever became of the others.
        let wrong = match damage {
            Some(damage) if damage.files.is_empty() => return Err(HashError::Mismatch(spec.path).into()),
            damage => damage.map(|damage| damage.wrong_files()).unwrap_or_default(),
        };
        let (stamp, layout) = (reader.stamp(), spec.manifest.layout());
        let have = reader.pieces_without(layout, &wrong);
        let share = self.inner.shares.add(Offer {
            group: spec.group,
            file: spec.file,
            have: have.unwrap_or_else(|| Bitfield::full(layout)),
            manifest: spec.manifest,
            path: spec.path,
            reader,
            wants_sources: false,
            folder: None,
            only: spec.only,
            problem: None,
        });
        share.set_wrong_files(wrong);
        Ok(stamp)
    }

    /// Offers a file later: it can't be offered now, for this reason. It is offered as soon as it is at its
    /// path again, or is replaced there by one with the right content.
    pub fn share_later(&self, spec: ShareSpec, problem: Problem) {
        let expected = SharedFile::expected(&spec.path, spec.stamp.unwrap_or_default());
        let original = Original {
            path: spec.path.clone(),
            manifest: spec.manifest.clone(),
            folder: spec.folder.clone(),
            only: spec.only.clone(),
        };
        let now = original.stamp_now();
        let share = self.inner.shares.add(Offer {
            group: spec.group,
            file: spec.file,
            have: Bitfield::full(spec.manifest.layout()),
            manifest: spec.manifest,
            path: spec.path,
            reader: Arc::new(expected),
            wants_sources: false,
            folder: spec.folder,
            only: spec.only,
            problem: Some(problem),
        });
        share.refuse_as(now);
    }

    /// Stops offering the file, and ends its running uploads. The file stays on disk. Returns false if it was
    /// not shared.
    pub fn unshare(&self, file: FileId) -> bool {
        let finished = self.handle(file).is_none_or(|handle| handle.view.borrow().state.is_final());
        finished && self.inner.shares.remove(file)
    }

    /// Starts a download, or resumes it from the unfinished data beside its destination. Returns once the
    /// destination was checked. [`Engine::watch`] reports everything that follows. Verified pieces are
    /// offered from the start, and the complete file is shared as by [`Engine::share`].
    ///
    /// # Errors
    /// Fails when something is already at the destination, when its directory is missing or reached over a
    /// symbolic link, or when the file is already shared or downloading.
    pub async fn download(&self, spec: DownloadSpec) -> Result<watch::Receiver<DownloadView>, EngineError> {
        let destination = spec.destination.clone();
        check_destination(&destination)
            .map_err(|why| EngineError::BadDestination(destination.clone(), why))?;
        let (file, manifest, path) = (spec.file, spec.manifest.clone(), destination.clone());
        let (umask, only) = (spec.umask, spec.only.clone());
        let replaced = spec.copy.as_ref().and_then(|copy| {
            Some(Arc::new(Replaced { original: copy.original.clone(), stamp: copy.replaced? }))
        });
        let opened = tokio::task::spawn_blocking(move || {
            let place =
                OpenStore::at(file, manifest, path)?.with_umask(umask).in_place_of(replaced).with_only(only);
            if place.is_refused()? { Err(StoreError::NameTaken) } else { Ok(place) }
        });
        let place = opened.await.map_err(|error| EngineError::task(&destination, error))?;
        let place = place.map_err(|error| store_error(&destination, error))?;
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
        let device = place.device();
        let order = self.inner.tools.reservations.add(device, view.clone());
        // This can't fail: the handle is new.
        let _ = handle.space.set((device, order));
        self.inner.tasks.spawn(with_same_id(lifecycle::run(handle, place, self.inner.tools.clone())));
        Ok(view)
    }

    /// Stops a download, and waits until its verified pieces are safely on disk, or deleted if `discard`. The
    /// file is no longer offered.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when the file is not downloading, or is complete; else the disk's error.
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

    /// Forgets a download that has ended. Called before the download starts again, so that nobody takes the end
    /// of the last run for that of the next one.
    pub fn forget_ended(&self, file: FileId) {
        let ended = |handle: &Arc<Handle>| handle.view.borrow().state.is_final();
        let mut downloads = self.downloads();
        if downloads.get(&file).is_some_and(ended) {
            downloads.remove(&file);
        }
    }

    /// Makes a download that waits for space on its disk try again now, before its time.
    pub fn look_for_room(&self, file: FileId) {
        let Some(handle) = self.handle(file) else { return };
        let full = |view: &DownloadView| {
            view.state == DownloadState::Stalled
                && view.problem.as_ref().is_some_and(|problem| problem.reason == Reason::DiskFull)
        };
        // Set before the download tries again, so that a watcher that starts now sees the result.
        handle.view.send_if_modified(|view| {
            let waits = full(view);
            if waits {
                (view.state, view.problem) = (DownloadState::Queued, None);
                handle.retry.notify_one();
            }
            waits
        });
    }

    /// The bytes that running downloads still need on the file system of `destination`.
    pub fn needed_at(&self, destination: &std::path::Path) -> u64 {
        storage::device(destination).map_or(0, |device| self.inner.tools.reservations.needed(device, None))
    }

    /// Deletes what a download that is not running left beside its destination.
    ///
    /// # Errors
    /// The disk's error.
    pub async fn discard(&self, file: FileId, destination: PathBuf) -> Result<(), EngineError> {
        let path = destination.clone();
        let done = tokio::task::spawn_blocking(move || storage::discard(file, &path)).await;
        match done.map_err(|error| EngineError::task(&destination, error))? {
            // The link's target was never accepted as a destination, and the data is not there.
            Err(error @ StoreError::Linked) => {
                tracing::warn!(%error, path = %destination.display(), "the unfinished data of a download can't be deleted");
                Ok(())
            }
            done => done.map_err(|error| store_error(&destination, error)),
        }
    }

    /// Makes the complete file at `destination` the unfinished data of its download again, and offers it no
    /// more. A download then checks each of its pieces and fetches those that are bad.
    ///
    /// # Errors
    /// [`EngineError::Unrepairable`]; else the disk's error. The file stays in place then.
    pub async fn take_back(&self, file: FileId, destination: PathBuf) -> Result<(), EngineError> {
        let path = destination.clone();
        let done = tokio::task::spawn_blocking(move || storage::take_back(file, &path)).await;
        let done = done.map_err(|error| EngineError::task(&destination, error))?;
        done.map_err(|error| store_error(&destination, error))?;
        self.unshare(file);
        Ok(())
    }

    /// The reason why a shared file, or a part of a folder, is not offered, if there is one.
    pub fn share_problem(&self, file: FileId) -> Option<Problem> {
        self.inner.shares.get(file)?.trouble()
    }

    /// A download's state, now and at each change, at most a few times a second. Stays readable after the
    /// end.
    pub fn watch(&self, file: FileId) -> Option<watch::Receiver<DownloadView>> {
        self.handle(file).map(|handle| handle.view.subscribe())
    }

    /// Adds sources that were found, and removes those that are gone. Ignored for a file that is not
    /// downloading.
    pub fn sources(&self, file: FileId, found: Vec<SourceAddr>, gone: Vec<PeerId>) {
        if let Some(handle) = self.handle(file) {
            handle.directory.note(found, &gone);
        }
    }

    /// Reports what this peer has: everything first, then the changes. Each announce stream needs its own.
    pub fn holdings(&self) -> Holdings {
        Holdings::new(self.inner.shares.clone())
    }

    /// The entries of a folder that is shared or downloaded, once they are known.
    pub fn folder(&self, file: FileId) -> Option<Arc<Folder>> {
        self.inner.shares.get(file)?.reader().folder()
    }

    /// Fetches the entries of a folder from these sources, without downloading the folder. Waits as long as
    /// `patience` for a source that can be used.
    ///
    /// # Errors
    /// [`EngineError::NoFolder`].
    pub async fn fetch_folder(
        &self,
        spec: DownloadSpec,
        sources: Vec<SourceAddr>,
        patience: Duration,
    ) -> Result<Arc<Folder>, EngineError> {
        let fetched = lifecycle::fetch_folder(spec, &self.inner.tools, sources, patience).await;
        fetched.map(Arc::new).map_err(EngineError::NoFolder)
    }

    /// The stamp of a complete file that is shared.
    pub fn stamp(&self, file: FileId) -> Option<crate::hashing::FileStamp> {
        self.inner.shares.get(file)?.reader().stamp()
    }

    /// The offered files, running downloads included.
    pub fn shares(&self) -> Vec<ShareView> {
        self.inner.shares.all().iter().map(|share| share.view()).collect()
    }

    /// Reads this peer's complete copy again, and checks every piece and the SHA-1 and BLAKE3 of the whole.
    /// `progress` is called with the bytes read so far, and may stop it. A copy that does not match the
    /// manifest is no longer offered.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when there is no complete copy; [`Reason::FileChanged`] when it does not
    /// match the manifest.
    pub async fn verify(
        &self,
        file: FileId,
        progress: impl Fn(u64) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let share = self.inner.shares.get(file).filter(|share| share.is_complete_file());
        let share = share.ok_or(EngineError::Unknown)?;
        let original = share.original();
        let checked = tokio::task::spawn_blocking(move || original.examine(&progress));
        match checked.await.map_err(|error| EngineError::task(&share.path, error))? {
            Ok(Examined { damage: None, .. }) => Ok(()),
            Ok(Examined { reader, damage: Some(damage) }) if !damage.files.is_empty() => {
                share.set_reader(reader);
                share.set_wrong_files(damage.wrong_files());
                Err(EngineError::Damaged(Box::new(damage)))
            }
            Ok(Examined { reader, damage: Some(damage) }) => {
                share.refuse_as(reader.stamp());
                share.withdraw(Problem { reason: Reason::FileChanged, message: damage.to_string() });
                Err(EngineError::Damaged(Box::new(damage)))
            }
            Err(error @ HashError::Stopped(_)) => Err(error.into()),
            Err(error) => {
                share.withdraw(Problem { reason: error.reason(), message: error.to_string() });
                Err(error.into())
            }
        }
    }

    /// Sets the keys that verify the tickets shown to this peer. Without keys every request is refused. The
    /// keys are kept over restarts once [`Engine::take_up`] has named their authority.
    pub fn set_ticket_keys(&self, keys: Vec<VerifyingKey>) {
        self.inner.tools.memory.keep_keys(&keys);
        self.inner.admission.set_keys(keys);
    }

    /// Continues with the ticket keys, epochs, clock and bans that are kept for the tracker with any of these
    /// authorities. All others are forgotten. Must be called before the tracker's first keys, epochs and time
    /// are set, and again when its authorities change. The running tracker's trust stays if it has kept one.
    pub fn take_up(&self, authorities: &[AuthorityFingerprint]) {
        if let Some(remembered) = self.inner.tools.memory.take_up(authorities) {
            // Epochs and clock before keys: no ticket is accepted before there are keys.
            self.inner.admission.replace_epochs(remembered.epochs);
            self.inner.admission.resume_clock(remembered.clock);
            self.inner.admission.set_keys(remembered.keys);
        }
    }

    /// Stops serving the file of that group to anybody, at once, until [`Engine::allow`]: the tracker says
    /// that this peer's user may not share it. Nothing else about the file changes.
    pub fn bar(&self, group: &GroupId, file: FileId) {
        if let Some(share) = self.inner.shares.get(file).filter(|share| share.group == *group) {
            share.set_barred(true);
        }
    }

    /// Reverts [`Engine::bar`]. The file is announced again.
    pub fn allow(&self, file: FileId) {
        if let Some(share) = self.inner.shares.get(file) {
            share.set_barred(false);
        }
    }

    /// Raises the lowest epoch that tickets may have, by group. It never falls. A group without one is not
    /// served. This also holds over restarts once [`Engine::take_up`] has named the groups' authority.
    /// Running uploads with older tickets end at once.
    pub fn raise_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        let admission = &self.inner.admission;
        if admission.raise_epochs(&epochs) {
            self.cut_uploads();
            // Last, because the disk may be slow.
            self.inner.tools.memory.keep_epochs(&epochs);
        }
    }

    /// As [`Engine::raise_epochs`], with the epochs of all groups that this peer's user is in. Other groups
    /// are not served until their epochs are known: nobody told this peer who left them meanwhile.
    pub fn set_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        if self.inner.admission.set_epochs(&epochs) {
            self.cut_uploads();
            self.inner.tools.memory.set_epochs(&epochs);
        }
    }

    /// Sets the seconds to add to the local clock to get the tracker's. With more than [`CLOCK_OFF`] in
    /// either direction, nothing is served, and running uploads end at once. This also holds over restarts
    /// once [`Engine::take_up`] has named the tracker's authority.
    pub fn set_clock_offset(&self, seconds: i64) {
        let (clock, is_off) = self.inner.admission.set_clock_offset(seconds);
        if is_off {
            self.cut_uploads();
        }
        self.inner.tools.memory.keep_clock(clock);
    }

    /// Takes the sources that could not be reached since the last call, for the tracker.
    pub(crate) fn take_unreached(&self) -> Vec<Unreached> {
        self.inner.tools.links.take_unreached()
    }

    /// Ends the uploads that lost their right.
    fn cut_uploads(&self) {
        let admission = &self.inner.admission;
        self.inner.uploads.slots.cut(|claims| admission.in_force(claims).err());
    }

    /// Hands the file over to those who fetch it, for this long: see [`crate::domain::upload::Event::Drain`].
    pub(crate) fn drain(&self, file: FileId, time: Duration) {
        self.inner.uploads.slots.drain(file, time);
    }

    /// Sets the limits in bytes a second, 0 for none; `None` leaves a limit unchanged. Returns the limits in
    /// force, upload first.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) -> (u64, u64) {
        let limiters = [(&self.inner.uploads.limiter, upload), (&self.inner.tools.limiter, download)];
        let [up, down] = limiters.map(|(limiter, rate)| {
            rate.into_iter().for_each(|rate| limiter.set(rate));
            limiter.rate()
        });
        (up, down)
    }

    /// The engine's counters and gauges.
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

    /// Stops all sharing and downloading, and keeps verified pieces. The engine can be used again. Called at
    /// a logout.
    pub async fn clear(&self) {
        let handles: Vec<_> = self.downloads().drain().map(|(_, handle)| handle).collect();
        handles.iter().for_each(|handle| handle.stop.cancel());
        for handle in handles {
            let mut view = handle.view.subscribe();
            // This can't fail: a download always ends with a final state, and the handle holds the sender.
            let _ = view.wait_for(|view| view.state.is_final()).await;
        }
        for share in self.inner.shares.all() {
            self.inner.shares.remove(share.file);
        }
        self.inner.tools.links.clear();
    }

    /// Like [`Engine::clear`], and also ends every task before it returns. The engine can't be used again.
    pub async fn shutdown(&self) {
        self.clear().await;
        self.inner.ended.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// The engine's error for a storage error at that path.
pub(crate) fn store_error(path: &std::path::Path, error: StoreError) -> EngineError {
    match error {
        StoreError::Io(error) => EngineError::Io(path.to_owned(), error),
        StoreError::Full => EngineError::DiskFull(path.to_owned()),
        StoreError::Modified(changed) => EngineError::Modified(changed),
        StoreError::NameTaken => EngineError::DestinationExists(path.to_owned()),
        StoreError::Unrepairable(why) => EngineError::Unrepairable(path.to_owned(), why),
        error @ (StoreError::Linked | StoreError::Displaced) => {
            EngineError::Displaced(path.to_owned(), error)
        }
        other => EngineError::Io(path.to_owned(), io::Error::other(other)),
    }
}
