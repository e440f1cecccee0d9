//! The vocabulary between the engine, its parts and its owner: the files to share and to download, their
//! states, and the traits through which the engine gets tickets and connections.

use std::{path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use http::HeaderName;
use proto::{
    domain::{FileId, GroupId, Manifest, PeerId, Username, folder::Folder},
    reason::Reason,
};

pub use crate::domain::reach::{Attempt, Obstacle};
use crate::{hashing::FileStamp, storage::Original};

/// A boxed future, as the traits here return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A file of this peer's user to offer in a group.
#[derive(Clone, Debug)]
pub struct ShareSpec {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's manifest.
    pub manifest: Arc<Manifest>,
    /// The file's path.
    pub path: PathBuf,
    /// The file's stamp when its hashes were computed ([`crate::hashing::Hashed::stamp`],
    /// [`ShareView::stamp`]). If it is `None` or no longer right, the file is hashed again before it is
    /// offered.
    pub stamp: Option<FileStamp>,
    /// The entries of a folder, if they are known. Without them the folder is listed and hashed again.
    pub folder: Option<Arc<Folder>>,
    /// Patterns of the entries of a folder that are here. Empty for all.
    pub only: Vec<String>,
}

/// A file to download.
#[derive(Clone, Debug)]
pub struct DownloadSpec {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's manifest.
    pub manifest: Arc<Manifest>,
    /// The absolute path of the complete file. Its parent exists.
    pub destination: PathBuf,
    /// Whether to fetch pieces in order, rather than random pieces first and then the rarest.
    pub sequential: bool,
    /// Whether to read the whole again at the end and check its SHA-1 and BLAKE3.
    pub verify: bool,
    /// The permissions that the complete file does not get.
    pub umask: u32,
    /// Whether the unfinished data of an earlier run must be there. If it is not, the download fails rather
    /// than starting from nothing.
    pub begun: bool,
    /// The verified bytes of earlier runs, as far as is known. Shown until the unfinished data was read.
    pub done_bytes: u64,
    /// A copy on this peer's disk from which pieces are taken.
    pub copy: Option<LocalCopy>,
    /// Patterns of the entries of a folder that are wanted, as in a gitignore file. Empty for all.
    pub only: Vec<String>,
}

/// A copy on this peer's disk that may hold pieces of a download: of an older version, or of the same content.
#[derive(Clone, Debug)]
pub struct LocalCopy {
    /// The copy.
    pub original: Original,
    /// The copy is at the destination, and had this stamp when it was verified. It is replaced at the end.
    pub replaced: Option<FileStamp>,
}

/// A source as the tracker names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAddr {
    /// The peer. Its certificate must prove this id.
    pub peer: PeerId,
    /// The addresses to dial as `host:port`, in order of preference.
    pub addresses: Vec<String>,
    /// The user who runs it.
    pub username: Username,
}

/// The source of tickets.
pub trait TicketSource: Send + Sync + 'static {
    /// A ticket for this peer and the file. With `fresh`, a new one, because the last one was refused.
    fn ticket(
        &self,
        group: &GroupId,
        file: FileId,
        fresh: bool,
    ) -> BoxFuture<'_, Result<Arc<str>, TicketRefused>>;
}

/// The reason why there is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefused {
    /// The tracker refuses: this user is no longer a member, or there is no such file. Asking again won't
    /// help.
    #[error("the tracker refused a ticket: {}", .0.as_str())]
    Denied(Reason),
    /// The tracker can't be asked now.
    #[error("no ticket can be fetched from the tracker: {}", .0.as_str())]
    Unavailable(Reason),
}

/// Opens connections to other peers.
pub trait Dialer: Send + Sync + 'static {
    /// Opens a new connection to `peer` at `address` (`host:port`), and to no other peer. The peer may send
    /// `window` bytes ahead of what is read, for each call.
    fn dial(
        &self,
        peer: PeerId,
        address: &str,
        window: u32,
    ) -> BoxFuture<'_, Result<tonic::transport::Channel, DialError>>;
    /// This peer's id; `None` while it has no certificate and can't dial.
    fn own_id(&self) -> Option<PeerId>;
}

/// The reason why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DialError {
    /// The kind of failure.
    pub obstacle: Obstacle,
    /// The failure in words.
    pub message: String,
}

impl DialError {
    /// A failure of no particular kind.
    pub fn other(message: impl Into<String>) -> Self {
        Self { obstacle: Obstacle::Other, message: message.into() }
    }
}

impl From<&transport::ConnectError> for DialError {
    fn from(error: &transport::ConnectError) -> Self {
        use transport::ConnectFault as Fault;
        let obstacle = match error.fault() {
            Fault::Refused => Obstacle::Refused,
            Fault::Silent => Obstacle::Silent,
            Fault::NoRoute => Obstacle::NoRoute,
            Fault::Forbidden => Obstacle::Forbidden,
            Fault::UnknownName => Obstacle::UnknownName,
            Fault::NotTls | Fault::AnotherName | Fault::UnknownAuthority => Obstacle::AnotherPeer,
            Fault::Expired => Obstacle::Clock,
            Fault::Other => Obstacle::Other,
        };
        Self { obstacle, message: error.words() }
    }
}

/// A source that could not be reached at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// The group of the file.
    pub group: GroupId,
    /// The file for which the tracker named the source.
    pub file: FileId,
    /// The source.
    pub peer: PeerId,
    /// What was tried.
    pub attempt: Attempt,
}

/// The state of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownloadState {
    /// Its unfinished data is being opened and checked.
    Queued,
    /// Pieces are arriving, or sources are being tried.
    Downloading,
    /// No source sends anything, or the disk accepts nothing: see the problem. It continues by itself.
    Stalled,
    /// All pieces are there. The whole is being checked and put in place.
    Verifying,
    /// In place, and offered to others.
    Complete,
    /// Stopped by the user.
    Stopped,
    /// It can't go on: see the problem.
    Failed,
}

impl DownloadState {
    /// Whether the download has ended in this state.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Stopped | Self::Failed)
    }
}

/// The reason why something does not continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason, from the closed set.
    pub reason: Reason,
    /// The message for people.
    pub message: String,
}

/// Metadata of an answer to GetChunk: the limit of all uploads together, in bytes a second; 0 for none.
pub(crate) const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
/// The same: the number of peers that are served or wait, the caller included.
pub(crate) const UPLOAD_READERS: HeaderName = HeaderName::from_static("upload-readers");

/// The present state of a download.
#[derive(Clone, Debug, PartialEq)]
pub struct DownloadView {
    /// The state.
    pub state: DownloadState,
    /// The bytes of verified and written pieces.
    pub done_bytes: u64,
    /// The length of the file in bytes.
    pub size: u64,
    /// The rate over the last seconds, in bytes a second.
    pub rate: u64,
    /// The time left; `None` when it is not known.
    pub eta: Option<Duration>,
    /// All sources that were tried, by peer id.
    pub sources: Vec<SourceView>,
    /// The reason why it is stalled or failed.
    pub problem: Option<Problem>,
    /// The share of each stretch of the file that is verified, 0-255. At most 64 stretches.
    pub map: Vec<u8>,
    /// Whether a usable source was ever connected.
    pub had_source: bool,
    /// Whether every known source is banned for bad pieces.
    pub all_banned: bool,
    /// What the data waits for on this peer's side.
    pub local: LocalWork,
    /// The number of pieces that are missing.
    pub missing: u32,
    /// How many of these no connected source has.
    pub unheld: u32,
    /// The verified files of a folder, and all. `None` for a file.
    pub files: Option<(u32, u32)>,
    /// The bytes that were taken from a copy on this peer's disk.
    pub taken_bytes: u64,
}

/// What data that arrives waited for on this peer's side over the last seconds, and what was done with it, in
/// percent of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalWork {
    /// It waited for the download limit.
    pub limit_wait: u8,
    /// It waited for room to be checked.
    pub check_wait: u8,
    /// Pieces were hashed.
    pub hashing: u8,
    /// Pieces were written.
    pub writing: u8,
    /// This process used a processor.
    pub processor: u8,
}

impl DownloadView {
    /// A download of this number of bytes of which nothing else is known yet.
    pub fn queued(size: u64) -> Self {
        Self {
            state: DownloadState::Queued,
            done_bytes: 0,
            size,
            rate: 0,
            eta: None,
            sources: Vec::new(),
            problem: None,
            map: Vec::new(),
            had_source: false,
            all_banned: false,
            local: LocalWork::default(),
            missing: 0,
            unheld: 0,
            files: None,
            taken_bytes: 0,
        }
    }
}

/// A source of a download.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceView {
    /// The peer.
    pub peer: PeerId,
    /// The user who runs it.
    pub username: Username,
    /// The verified bytes that came from it.
    pub bytes: u64,
    /// The rate over the last seconds, in bytes a second.
    pub rate: u64,
    /// The number of bad pieces that came from it.
    pub bad_pieces: u32,
    /// Its state for the download.
    pub state: SourceState,
    /// The reason why it is of no use now, if it isn't.
    pub cause: Option<String>,
    /// The reason is a clock that is off.
    pub is_clock: bool,
    /// This peer's place in its queue, if it said.
    pub place: Option<u32>,
    /// The number of missing pieces that it has.
    pub wanted: u32,
    /// The limit of all its uploads together, in bytes a second; 0 if it has none or did not say.
    pub upload_limit: u64,
    /// The number of peers that it serves or lets wait; 0 if it did not say.
    pub readers: u32,
}

/// The state of a source for a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Being connected.
    Connecting,
    /// Connected, and nothing is requested from it now.
    Idle,
    /// A request waits for one of its upload slots.
    Queued,
    /// Sending.
    Sending,
    /// It failed, and will be tried again later.
    Backoff,
    /// Banned: it sent bad pieces, and is not used any more.
    Banned,
}

impl SourceState {
    /// Whether a piece could be requested from it now.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Idle | Self::Queued | Self::Sending)
    }
}

/// A file that this peer offers. Running downloads are included.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareView {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's path. For a running download, its final path.
    pub path: PathBuf,
    /// The length of the file in bytes.
    pub size: u64,
    /// The bytes of the offered pieces.
    pub done_bytes: u64,
    /// The bytes sent since the engine started.
    pub uploaded_bytes: u64,
    /// The reason why it is not offered, if it isn't: [`Reason::FileChanged`], [`Reason::PathNotFound`],
    /// [`Reason::Io`]. Of a folder, the rest may be offered all the same.
    pub problem: Option<Problem>,
    /// The paths of the files of a folder that changed. The pieces with them are not offered.
    pub wrong_files: Vec<String>,
    /// The complete file's stamp when it was last hashed. After a restart it can be passed in
    /// [`ShareSpec::stamp`].
    pub stamp: Option<FileStamp>,
}
