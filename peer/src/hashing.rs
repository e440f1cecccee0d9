//! Hashing a file for sharing: one read, everything a manifest needs.

use std::{
    fs::{File, Metadata},
    io,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use proto::{
    domain::{FileName, Manifest},
    reason::Reason,
};
use serde::{Deserialize, Serialize};

/// What tells that a file is still the one that was hashed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl FileStamp {
    /// The stamp in a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A hashed file.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// What the file is.
    pub manifest: Manifest,
    /// The file as it was hashed.
    pub stamp: FileStamp,
}

/// Why a file can't be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// There is nothing at the path, or a part of it is missing.
    #[error("{}: no such file", .0.display())]
    NotFound(PathBuf),
    /// A directory, a device, a FIFO or a socket.
    #[error("{} is {what}, not a regular file", .0.display(), what = .1)]
    NotAFile(PathBuf, &'static str),
    /// Longer than 1 TiB.
    #[error("{} is longer than 1 TiB", .0.display())]
    TooLong(PathBuf),
    /// It changed while it was read, twice in a row.
    #[error("{} changed while it was being hashed", .0.display())]
    Changing(PathBuf),
    /// It is not what the manifest says.
    #[error("{} is not what was shared: its content differs", .0.display())]
    Mismatch(PathBuf),
    /// Broken off by the caller.
    #[error("hashing {} was broken off", .0.display())]
    Stopped(PathBuf),
    /// It can't be read.
    #[error("{}: {why}", .0.display(), why = .1)]
    Io(PathBuf, #[source] io::Error),
}

impl HashError {
    /// The reason that goes with it on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) | Self::NotAFile(..) => Reason::PathNotFound,
            Self::TooLong(_) => Reason::InvalidRequest,
            Self::Changing(_) | Self::Mismatch(_) => Reason::FileChanged,
            Self::Stopped(_) => Reason::Stopped,
            Self::Io(..) => Reason::Io,
        }
    }
}

/// Hashes the file at `path` into the manifest that it has under `name`, with one read. Blocks: not for async tasks.
/// `progress` is told the bytes read so far, in steps of a few MiB, and may break it off.
///
/// # Errors
/// When the path is no readable regular file of at most 1 TiB, or changes while it is read, twice in a row.
pub fn manifest_of(
    path: &Path,
    name: FileName,
    progress: &(dyn Fn(u64) -> ControlFlow<()> + Sync),
) -> Result<Hashed, HashError> {
    use proto::domain::{PieceLayout, manifest::FileHasher, manifest::hash_piece};
    use std::os::unix::fs::FileExt as _;
    let io_error = |error| HashError::Io(path.to_owned(), error);
    let file = File::open(path).map_err(io_error)?;
    let stamp = FileStamp::of(&file.metadata().map_err(io_error)?);
    let layout = PieceLayout::new(stamp.size()).ok_or_else(|| HashError::TooLong(path.to_owned()))?;
    let mut hasher = FileHasher::new(layout);
    for piece in layout.indices() {
        let mut data = vec![0; layout.piece_length(piece) as usize];
        file.read_exact_at(&mut data, layout.offset(piece)).map_err(io_error)?;
        hasher.push(hash_piece(layout, piece, &data), &data);
        if progress(layout.range(piece).end).is_break() {
            return Err(HashError::Stopped(path.to_owned()));
        }
    }
    let manifest = hasher.finish(name).map_err(|_| HashError::Changing(path.to_owned()))?;
    Ok(Hashed { manifest, stamp })
}
