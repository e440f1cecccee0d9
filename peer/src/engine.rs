//! The transfer engine: shares files in place, downloads them from many peers at once, and serves what is verified.
//!
//! It owns what moves bytes: storage, download tasks, upload slots, rate limits. It does not know the tracker: sources
//! come in by [`Engine::sources`], tickets by [`TicketSource`], trust by [`Engine::set_ticket_keys`],
//! [`Engine::raise_epochs`] and [`Engine::set_clock_offset`]; what this peer holds goes out by [`Engine::holdings`].
//! Nor does it bind a port: the owner serves [`Engine::service`].
//!
//! Non-goals: which files to take up after a restart (the library's), and what to print.

use std::{future::Future, ops::ControlFlow, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use proto::{
    domain::{Bitfield, FileId, GroupId, Manifest, PeerId, PieceIndex, Username},
    reason::Reason,
};
use tokio::sync::watch;

use crate::hashing::{FileStamp, HashError};

/// A boxed future, as the engine's traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the engine is told once, at its start. The defaults are what the daemon uses.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Uploads that run at the same time.
    pub upload_slots: u32,
    /// Requests that may wait for a slot.
    pub upload_queue: u32,
    /// Upload limit in bytes a second; 0 for none.
    pub upload_limit: u64,
    /// Download limit in bytes a second; 0 for none.
    pub download_limit: u64,
    /// Where epochs and bans are kept over restarts; `None` keeps them in memory alone.
    pub state_dir: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { upload_slots: 2, upload_queue: 64, upload_limit: 0, download_limit: 0, state_dir: None }
    }
}

/// A file of this peer's user that is to be offered in a group.
#[derive(Clone, Debug)]
pub struct ShareSpec {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// What the file is.
    pub manifest: Arc<Manifest>,
    /// Where it lies.
    pub path: PathBuf,
    /// The file as it was when its hashes were computed ([`crate::hashing::Hashed::stamp`], [`ShareView::stamp`]).
    /// `None`, or not what is there now: it is hashed again before it is offered.
    pub stamp: Option<FileStamp>,
}

/// A file to download.
#[derive(Clone, Debug)]
pub struct DownloadSpec {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// What the file is.
    pub manifest: Arc<Manifest>,
    /// The absolute path of the file to be. Its parent exists.
    pub destination: PathBuf,
    /// Pieces in order rather than random first, then rarest.
    pub sequential: bool,
    /// Read the whole again at the end and check SHA-1 and BLAKE3 of it.
    pub verify: bool,
}

/// A source, as the tracker names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAddr {
    /// The peer; its certificate must say so.
    pub peer: PeerId,
    /// `host:port` to dial, in order of preference.
    pub addresses: Vec<String>,
    /// Who runs it.
    pub username: Username,
}

/// Where tickets come from.
pub trait TicketSource: Send + Sync + 'static {
    /// A ticket for this peer and the file. With `fresh`, not the one handed out before: it was refused.
    fn ticket(
        &self,
        group: &GroupId,
        file: FileId,
        fresh: bool,
    ) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>>;
}

/// Why there is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefused {
    /// The tracker says no: not a member any more, or no such file. Asking again won't help.
    #[error("the tracker gives no ticket: {}", .0.as_str())]
    Denied(Reason),
    /// The tracker can't be asked now.
    #[error("the tracker can't be asked for a ticket: {}", .0.as_str())]
    Unavailable(Reason),
}

/// Opens connections to other peers.
pub trait Dialer: Send + Sync + 'static {
    /// A new connection to `peer` at `address` (`host:port`), and to nobody else.
    fn dial(
        &self,
        peer: PeerId,
        address: &str,
    ) -> BoxFuture<'_, Result<tonic::transport::Channel, DialError>>;
    /// This peer; `None` while it has no certificate, and can't dial.
    fn own_id(&self) -> Option<PeerId>;
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

/// A key that tickets are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKey {
    /// Names the key in a ticket's footer.
    pub key_id: String,
    /// Ed25519.
    pub public_key: [u8; 32],
}

/// What this peer has of a file, for the announcer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// What it has.
    pub what: Held,
    /// It wants pieces, and is to be told of sources.
    pub wants_sources: bool,
}

/// What a peer has of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Every piece.
    Complete,
    /// These, now; replaces what was said before.
    Bitfield(Bitfield),
    /// These besides what was said before, each once, at most 65,536.
    Gained(Vec<PieceIndex>),
    /// Nothing any more: no longer shared or wanted.
    Left,
}

/// Where a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownloadState {
    /// Its unfinished data is being opened and checked.
    Queued,
    /// Pieces are coming, or sources are being tried.
    Downloading,
    /// Nobody gives anything, or the disk takes nothing: see the problem. It goes on by itself.
    Stalled,
    /// All pieces are there; the whole is being checked and put in place.
    Verifying,
    /// In place, and offered to others.
    Complete,
    /// Stopped by the user.
    Stopped,
    /// It can't go on: see the problem.
    Failed,
}

impl DownloadState {
    /// Nothing more happens to the download in this state.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Stopped | Self::Failed)
    }
}

/// Why something does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Of the closed set.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// A download, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct DownloadView {
    /// Where it is.
    pub state: DownloadState,
    /// Bytes of verified and written pieces.
    pub done_bytes: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// Time left; `None` when it can't be told.
    pub eta: Option<Duration>,
    /// Every source that was tried, by peer id.
    pub sources: Vec<SourceView>,
    /// Why it is stalled or failed.
    pub problem: Option<Problem>,
    /// Share of each stretch of the file that is verified, 0-255, at most 64 stretches.
    pub map: Vec<u8>,
    /// A usable source was connected at some time.
    pub had_source: bool,
    /// Every source known was dropped for bad pieces.
    pub all_banned: bool,
}

/// A source of a download.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceView {
    /// The peer.
    pub peer: PeerId,
    /// Who runs it.
    pub username: Username,
    /// Verified bytes that came from it.
    pub bytes: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// Pieces from it that were not what the manifest says.
    pub bad_pieces: u32,
    /// What it is to the download.
    pub state: SourceState,
}

/// What a source is to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Being connected.
    Connecting,
    /// Nothing is asked of it now.
    Idle,
    /// A request waits for one of its upload slots.
    Queued,
    /// It sends.
    Sending,
    /// It failed, and is tried again later.
    Backoff,
    /// It sent bad pieces, and is not used any more.
    Banned,
}

/// A file that this peer offers, a running download included.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareView {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// Where it lies; of a running download, where it will.
    pub path: PathBuf,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the pieces that are offered.
    pub done_bytes: u64,
    /// Bytes sent since the engine started.
    pub uploaded_bytes: u64,
    /// Why it is not offered, if so: [`Reason::FileChanged`], [`Reason::PathNotFound`], [`Reason::Io`].
    pub problem: Option<Problem>,
    /// The complete file as it was when last hashed. Hand it back in [`ShareSpec::stamp`] after a restart.
    pub stamp: Option<FileStamp>,
}

/// Counters and gauges of the whole engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes a second over the last seconds.
    pub upload_rate: u64,
    /// Bytes a second over the last seconds.
    pub download_rate: u64,
    /// Bytes sent since the start.
    pub uploaded_bytes: u64,
    /// Verified bytes received since the start.
    pub downloaded_bytes: u64,
    /// Pieces verified since the start.
    pub pieces_verified: u64,
    /// Pieces received since the start that were not what the manifest says.
    pub pieces_bad: u64,
    /// Uploads that run.
    pub uploads_active: u32,
    /// Requests that wait for a slot.
    pub uploads_waiting: u32,
}

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
            Self::Io(_, error) if error.kind() == std::io::ErrorKind::NotFound => Reason::PathNotFound,
            Self::Io(..) => Reason::Io,
            Self::DiskFull(_) => Reason::DiskFull,
        }
    }
}

/// The transfer engine. Cheap to clone: all clones are the same engine. Methods are called within a tokio runtime.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    dialer: Arc<dyn Dialer>,
    tickets: Arc<dyn TicketSource>,
}

impl Engine {
    /// An engine that shares and downloads nothing yet.
    pub fn new(config: EngineConfig, dialer: Arc<dyn Dialer>, tickets: Arc<dyn TicketSource>) -> Self {
        Self { inner: Arc::new(Inner { config, dialer, tickets }) }
    }

    /// Offers a file, and goes on offering it for as long as it stays what it is on disk: a change stops it at once,
    /// and it is hashed again. Returns once it is offered; sharing a file that is shared already is fine.
    ///
    /// # Errors
    /// When the path is no readable regular file ([`Reason::PathNotFound`], [`Reason::Io`]), or not what the manifest
    /// says ([`Reason::FileChanged`]). Nothing is shared then.
    pub async fn share(&self, spec: ShareSpec) -> Result<FileStamp, EngineError> {
        Err(EngineError::Io(spec.path, std::io::ErrorKind::Unsupported.into()))
    }

    /// Offers the file no more; running uploads of it end. The file stays on disk. False if it was not shared.
    pub fn unshare(&self, file: FileId) -> bool {
        let _ = file;
        false
    }

    /// Starts a download, or takes it up again from what is beside its destination. Returns once the destination was
    /// looked at; all that follows is told by [`Engine::watch`]. Verified pieces are offered from the start, and once
    /// complete the file is shared as by [`Engine::share`].
    ///
    /// # Errors
    /// When something is at the destination already, its directory is missing, or the file is shared or downloading.
    pub async fn download(&self, spec: DownloadSpec) -> Result<watch::Receiver<DownloadView>, EngineError> {
        Err(EngineError::Io(spec.destination, std::io::ErrorKind::Unsupported.into()))
    }

    /// Stops a download and waits until its verified pieces are safely on disk, or gone if `discard`.
    /// Also discards what a stopped or failed one left behind. The file is no longer offered.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when it is not downloading (not even failed), or what the disk says.
    pub async fn stop(&self, file: FileId, discard: bool) -> Result<(), EngineError> {
        let _ = (file, discard);
        Err(EngineError::Unknown)
    }

    /// Deletes what an unfinished download left beside `destination`, when the engine does not run it.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn discard(&self, file: FileId, destination: PathBuf) -> Result<(), EngineError> {
        let _ = (file, destination);
        Err(EngineError::Unknown)
    }

    /// A download's state, now and whenever it changes (at most some times a second). Stays readable after the end.
    pub fn watch(&self, file: FileId) -> Option<watch::Receiver<DownloadView>> {
        let _ = file;
        None
    }

    /// Tells of sources that were found and of those that are gone. Ignored for a file that is not downloading.
    pub fn sources(&self, file: FileId, found: Vec<SourceAddr>, gone: Vec<PeerId>) {
        let _ = (file, found, gone);
    }

    /// What this peer has: first all of it, then what changes. One for each announce stream.
    pub fn holdings(&self) -> Holdings {
        Holdings { engine: self.clone() }
    }

    /// What is offered, running downloads included.
    pub fn shares(&self) -> Vec<ShareView> {
        Vec::new()
    }

    /// Reads this peer's complete copy again and checks every piece, and SHA-1 and BLAKE3 of the whole. `progress` is
    /// told how many bytes were read so far, and may break it off.
    ///
    /// # Errors
    /// [`EngineError::Unknown`] when there is no complete copy; [`Reason::Corrupt`] when it is not what it should be.
    pub async fn verify(
        &self,
        file: FileId,
        progress: impl Fn(u64) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Result<(), EngineError> {
        let _ = (file, progress);
        Err(EngineError::Unknown)
    }

    /// The keys that tickets shown to this peer must be signed with. None: every request is refused.
    pub fn set_ticket_keys(&self, keys: Vec<TicketKey>) {
        let _ = keys;
    }

    /// The least epoch of tickets for each group. It never falls, not over restarts either; running uploads against
    /// older tickets end at once.
    pub fn raise_epochs(&self, epochs: Vec<(GroupId, u64)>) {
        let _ = epochs;
    }

    /// What to add to the local clock to get the tracker's, in seconds.
    pub fn set_clock_offset(&self, seconds: i64) {
        let _ = seconds;
    }

    /// Limits in bytes a second, 0 for none; `None` leaves one as it is. Returns those in force, upload first.
    pub fn set_limits(&self, upload: Option<u64>, download: Option<u64>) -> (u64, u64) {
        (
            upload.unwrap_or(self.inner.config.upload_limit),
            download.unwrap_or(self.inner.config.download_limit),
        )
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Stops all sharing and downloading, keeping verified pieces; the engine can be used again. For a logout.
    pub async fn clear(&self) {
        let _ = (&self.inner.dialer, &self.inner.tickets);
    }

    /// [`Engine::clear`], and every task has ended when it returns. The engine is of no use afterwards.
    pub async fn shutdown(&self) {
        self.clear().await;
    }
}

/// What this peer has, told as it changes. Bounded: what is not fetched in time is merged.
pub struct Holdings {
    engine: Engine,
}

impl Holdings {
    /// What is new, at least one file; waits until there is something.
    pub async fn next(&mut self) -> Vec<Holding> {
        let _ = &self.engine;
        std::future::pending().await
    }
}
