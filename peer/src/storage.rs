//! The stores of pieces. Reads and writes are positioned and synchronous on purpose: file data goes through
//! the page cache in tens of microseconds, and a thread hop for each call would cost more. The few calls that
//! wait for the disk, such as [`PieceStore::checkpoint`] and [`PieceStore::finish`], say so.
//!
//! Invariants:
//! - A bit on disk never precedes its data: the data is synced first, then the bitmap is replaced whole.
//! - A piece that an earlier run wrote is not offered, and does not count as written, before this run has
//!   read and verified it.
//! - No file gets its final name before this run has verified and synced every piece.
//! - The store touches nothing outside the destination's directory, and overwrites nothing that was there.
//!   The directory is held open from acceptance to the end, and everything is opened relative to it. After a
//!   restart the directory is opened by its path, which was resolved when the destination was accepted. A
//!   symbolic link in that path was put there later, and is refused. Device and inode numbers are not
//!   remembered, because a drive may have others when it is attached again.
//!
//! "Verified" means: this run hashed the piece in memory before it wrote it, or this run read and hashed it.
//! If another process changes the unfinished file while it is open here, the store notices it and reads the
//! whole file again before the file gets its name. [`watch`] says which changes are not noticed. Two gaps are
//! left: the microseconds between the last check and the rename, and a disk that changes data after this run
//! wrote or read it. `--verify`, which always reads the whole file again, covers these, and so does every
//! receiver's own check.
//!
//! Files are not memory-mapped: shortening a mapped file would kill the process.

mod chosen;
mod claims;
mod copy;
mod dir;
mod folder;
mod fs;
mod index;
mod ledger;
mod mem;
mod raw;
mod recheck;
mod replaced;
mod shared;
mod state;
mod take;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

use std::{
    io,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    convert::folder::IndexError,
    domain::{Bitfield, PieceIndex, PieceLayout, folder::Folder},
};

use crate::hashing::FileStamp;
pub use crate::hashing::{Progress, folder::WrongFile};
pub(crate) use chosen::{Chosen, choose, is_chosen};
pub use copy::copy;
pub use dir::{device, make_directories, room};
pub use fs::{FsStore, OpenStore, check_destination, discard, take_back};
pub(crate) use index::IndexStore;
pub use mem::MemStore;
pub use replaced::Replaced;
pub use shared::{Examined, Original, SharedFile};
#[cfg(fuzzing)]
pub use state::read_again;
pub use take::{find_pieces, take};

/// Opens the store of an unfinished download, or begins it. Waits for the disk.
pub type Opener = Arc<dyn Fn(&OpenStore) -> Result<Arc<dyn PieceStore>, StoreError> + Send + Sync>;

/// The storage of the daemon: files on disk.
pub fn on_disk() -> Opener {
    Arc::new(|place| place.open_store())
}

/// Called with each piece that was read again, and whether it matches the manifest. May stop the recheck.
pub type Rechecked<'a> = &'a mut dyn FnMut(PieceIndex, bool) -> ControlFlow<()>;

/// The bytes of pieces: those of an unfinished download, or of a complete file.
pub trait PieceReader: Send + Sync + 'static {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The disk's error; `UnexpectedEof` when the file is shorter.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Whether what holds these bytes is still what was verified. Cheap for the bytes of a piece: called before
    /// each.
    fn is_unchanged(&self, bytes: Range<u64>) -> bool;

    /// Whether a read of this range will probably not wait for the disk. Cheap: called before each chunk.
    fn is_cached(&self, offset: u64, length: usize) -> bool;

    /// The stamp that a complete file had when it was verified; `None` for anything else.
    fn stamp(&self) -> Option<FileStamp>;

    /// A reader that keeps the file open, for reading much of it. `None` if this one does.
    ///
    /// # Errors
    /// Fails when the file can't be opened, or is not the one that was verified.
    fn opened(&self) -> io::Result<Option<Arc<dyn PieceReader>>> {
        Ok(None)
    }

    /// The entries of a folder, once they are known; `None` for anything else.
    fn folder(&self) -> Option<Arc<Folder>> {
        None
    }

    /// The pieces of a complete folder that can be offered: all but those that a file touches that is wrong or was not
    /// chosen. `None` for anything else.
    fn pieces_without(&self, layout: PieceLayout, wrong: &[WrongFile]) -> Option<Bitfield> {
        let _ = (layout, wrong);
        None
    }

    /// The files of a complete folder that are not those that were verified, with their present stamps.
    ///
    /// # Errors
    /// The system's error for the folder itself.
    fn changed_files(&self) -> io::Result<Vec<WrongFile>> {
        Ok(Vec::new())
    }

    /// Reads these files of a complete folder again. Returns a reader that knows those whose content is right, and the
    /// others. Waits for the disk.
    ///
    /// # Errors
    /// The system's error for the folder itself.
    fn look_again(&self, changed: &[WrongFile]) -> io::Result<(Arc<dyn PieceReader>, Vec<WrongFile>)> {
        let _ = changed;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The pieces of an unfinished download.
pub trait PieceStore: PieceReader {
    /// Writes a verified piece and adds it to [`Self::have`]. Writing a piece twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Io`]. The piece is not added then.
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError>;

    /// The pieces that are written and that this run has verified.
    fn have(&self) -> Bitfield;

    /// The pieces that an earlier run claims to have written and that this run has not read again yet. None
    /// of them is in [`Self::have`].
    fn unverified(&self) -> Bitfield;

    /// The pieces that are to be fetched now: all, or only those that tell which ones follow.
    fn wanted(&self) -> Bitfield;

    /// The files that are wanted of a folder, and how many of them lie in these pieces. `None` for a file, and before
    /// that is known.
    fn files_in(&self, have: &Bitfield) -> Option<(u32, u32)> {
        let _ = have;
        None
    }

    /// Goes on to the pieces that are to be fetched next, once all that are wanted are there. Returns false if there
    /// are none. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::BadFolder`]; [`StoreError::Full`]; [`StoreError::Corrupt`] when pieces were bad; they are no
    /// longer in [`Self::have`]; else the disk's error.
    fn advance(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Reads the unverified pieces one after the other, and calls `tell` with each. A piece that matches the
    /// manifest is added to [`Self::have`]. The others, and those that can't be read, are missing. Waits for
    /// the disk, and does not block [`Self::write`].
    fn recheck(&self, tell: Rechecked<'_>);

    /// Makes the written pieces survive a crash. `clean` means that nothing is written after it: then the
    /// download can be opened again, even if this fails. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`]: the pieces since the last checkpoint are lost, and are no longer in
    /// [`Self::have`].
    fn checkpoint(&self, clean: bool) -> Result<(), StoreError>;

    /// Reads the whole file again, and checks every piece and the SHA-1 and BLAKE3 of the whole. Waits for
    /// the disk.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when pieces were bad; they are no longer in [`Self::have`]. `Interrupted` when
    /// `progress` stopped it.
    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError>;

    /// Gives the complete file its final name, and returns a reader of it there. If another process opened
    /// the file meanwhile, the whole is read again first. Waits for the disk. The store can still be read
    /// afterwards; writing to it has no effect.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or those of [`Self::checkpoint`] and [`Self::verify`]. The unfinished file
    /// stays as it is.
    fn finish(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError>;

    /// Deletes the unfinished file.
    ///
    /// # Errors
    /// The disk's error.
    fn discard(&self) -> Result<(), StoreError>;
}

/// The reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no space, or a quota is used up. A later try may succeed.
    #[error("no space left for the file")]
    Full,
    /// Data could not be brought to the disk. What was written since the last checkpoint must be fetched
    /// again.
    #[error("data could not be brought to the disk: {0}")]
    Unsynced(#[source] io::Error),
    /// Something else has the final name.
    #[error("something else is at the file's final name")]
    NameTaken,
    /// The copy that a new version is to replace is not what this peer put there.
    #[error("{} changed, or is not of this version, and would be lost; move it away", .0.display())]
    Modified(std::path::PathBuf),
    /// The complete file can't become unfinished data again.
    #[error("the file can't be mended in place: {0}")]
    Unrepairable(&'static str),
    /// The data of an earlier run is not there.
    #[error("the unfinished data that was downloaded before is not there any more")]
    Gone,
    /// Another process works on the same unfinished file.
    #[error("another process is downloading the same file to the same place")]
    InUse,
    /// The unfinished data was replaced or removed by somebody else, or does not belong to this user.
    #[error("the unfinished data is not what this peer wrote: {0}")]
    Tampered(&'static str),
    /// A symbolic link is part of the destination's path. It was not there when the destination was accepted.
    #[error("a symbolic link is now part of the path of its directory")]
    Linked,
    /// The directory that was held open is no longer at its path.
    #[error("the directory was moved or replaced while the download ran; the unfinished data is in it")]
    Displaced,
    /// The data on disk is not what was written. The bad pieces are no longer in [`PieceStore::have`].
    #[error("what was read back from the disk is not what the manifest says")]
    Corrupt,
    /// A piece is missing, or the pieces don't fold into the root.
    #[error("the file is not complete")]
    Incomplete,
    /// The index of a folder is not valid, or a file of the folder is not what the index says. No peer has
    /// another one.
    #[error("{0}; the folder was published like that")]
    BadFolder(BadFolder),
    /// No entry of the folder matches the patterns.
    #[error("nothing in the folder matches --only; `peer list-files GROUP NAME` lists what is in it")]
    NothingChosen,
    /// Any other error.
    #[error(transparent)]
    Io(io::Error),
}

/// What is wrong with a folder that was published.
#[derive(Debug, thiserror::Error)]
pub enum BadFolder {
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The content of the file with this path.
    #[error("{0} in the folder is not what its index says")]
    Content(String),
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
