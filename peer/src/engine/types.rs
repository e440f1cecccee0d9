//! What the engine is told and what it tells.

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::{
    domain::{Bitfield, FileId, GroupId, Manifest, PeerId, PieceIndex, Username},
    reason::Reason,
};

use super::BoxFuture;
use crate::hashing::FileStamp;

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
    /// A download that a full disk has stopped is tried again after so long.
    pub disk_retry: Duration,
    /// Where epochs and bans are kept over restarts; `None` keeps them in memory alone.
    pub state_dir: Option<PathBuf>,
    /// What is left to chance follows from it, as far as the network lets it. Random by default.
    pub seed: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            upload_slots: 2,
            upload_queue: 64,
            upload_limit: 0,
            download_limit: 0,
            disk_retry: Duration::from_secs(30),
            state_dir: None,
            seed: rand::random(),
        }
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

impl DownloadView {
    /// A download of so many bytes of which nothing is known yet.
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
        }
    }
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

impl SourceState {
    /// Whether something could be asked of it now.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Idle | Self::Queued | Self::Sending)
    }
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
    /// Sources that are connected, by all downloads together.
    pub sources: u32,
}
