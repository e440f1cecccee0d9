//! Where pieces lie: positioned and synchronous, deliberately. Reads and writes of file data go through the page cache
//! in tens of microseconds; a thread hop for each would cost more (the few calls that wait for the disk, [`PieceStore::checkpoint`]
//! and [`PieceStore::finish`], say so).
//!
//! Invariants:
//! - A bit on disk never precedes its data: the data is synced first, then the bitmap is replaced whole.
//! - Nothing appears under a file's final name before every piece was verified and synced.
//! - Nothing outside the destination's directory is touched, and nothing that was there is overwritten.
//!
//! No memory mapping: a file that somebody shortens would kill the process.

mod copy;
mod dir;
mod fs;
mod mem;
mod raw;
mod shared;
mod start;
mod state;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use bytes::Bytes;
use proto::domain::{Bitfield, PieceIndex};

pub use copy::copy;
pub use dir::room;
pub use fs::{FsStore, OpenStore, check_destination, discard};
pub use mem::MemStore;
pub use shared::SharedFile;
pub use start::Progress;

use crate::hashing::FileStamp;

/// Opens the store of an unfinished download, or begins it. Waits for the disk.
pub type Opener =
    Arc<dyn Fn(&OpenStore, Progress<'_>) -> Result<Arc<dyn PieceStore>, StoreError> + Send + Sync>;

/// Bytes to read pieces from: an unfinished download, or a complete file.
pub trait PieceReader: Send + Sync + 'static {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// What the disk says; `UnexpectedEof` when the file is shorter.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Whether the file is still the one that was verified. Cheap: called before each piece.
    fn is_unchanged(&self) -> bool;

    /// Whether reading there is likely not to wait for the disk. Cheap: called before each chunk.
    fn is_cached(&self, offset: u64, length: usize) -> bool;

    /// The complete file as it was when verified; `None` of anything else.
    fn stamp(&self) -> Option<FileStamp>;
}

/// An unfinished download's pieces.
pub trait PieceStore: PieceReader {
    /// Writes a verified piece and takes it up in [`Self::have`]. Writing a piece twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]; the piece is not had then.
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError>;

    /// The pieces that are written.
    fn have(&self) -> Bitfield;

    /// Makes what is written safe over a crash. With `clean`, nothing is written after it. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`]: the pieces since the last checkpoint are lost, and are no longer in [`Self::have`].
    fn checkpoint(&self, clean: bool) -> Result<(), StoreError>;

    /// Reads the whole again and checks every piece, and SHA-1 and BLAKE3 of the whole. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], when pieces were bad; they are no longer in [`Self::have`]. `Interrupted` when `progress`
    /// broke it off.
    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError>;

    /// Puts the whole file in its place, and returns it as it is there. Waits for the disk. Reading from the store goes
    /// on as before, writing is of no use any more.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or as [`Self::checkpoint`]. The unfinished file stays as it is.
    fn finish(&self) -> Result<Arc<dyn PieceReader>, StoreError>;

    /// Deletes the unfinished file.
    ///
    /// # Errors
    /// What the disk says.
    fn discard(&self) -> Result<(), StoreError>;
}

/// Why the store can't do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, or a quota is used up. Trying again later may help.
    #[error("no space left for the file")]
    Full,
    /// Data could not be brought to the disk; what was written since the last checkpoint has to be fetched again.
    #[error("data could not be brought to the disk: {0}")]
    Unsynced(#[source] io::Error),
    /// Something is at the final name.
    #[error("something else is at the file's final name")]
    NameTaken,
    /// Another process works on the same unfinished file.
    #[error("another process is downloading the same file to the same place")]
    InUse,
    /// The unfinished data was replaced or removed under us, or is not ours.
    #[error("the unfinished data is not what this peer wrote: {0}")]
    Tampered(&'static str),
    /// What is on disk is not what was written: the bad pieces are no longer had.
    #[error("what was read back from the disk is not what the manifest says")]
    Corrupt,
    /// Some piece is missing, or the pieces don't fold into the root.
    #[error("the file is not complete")]
    Incomplete,
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}

impl From<rustix::io::Errno> for StoreError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
