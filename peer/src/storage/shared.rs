//! A complete file that is shared in place.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{PieceReader, raw};
use crate::hashing::{FileStamp, HashError, open_regular};

/// A complete file, watched for change by its stamp.
#[derive(Debug)]
pub struct SharedFile {
    path: PathBuf,
    file: File,
    stamp: FileStamp,
    in_memory: bool,
}

impl SharedFile {
    /// Opens the file at `path`, which must have this stamp.
    ///
    /// # Errors
    /// [`HashError::Changing`] when it has another stamp; else when it is no readable regular file.
    pub fn open(path: &Path, stamp: FileStamp) -> Result<Self, HashError> {
        let (file, now) = open_regular(path)?;
        if now != stamp {
            return Err(HashError::Changing(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), in_memory: raw::lives_in_memory(&file), file, stamp })
    }
}

impl PieceReader for SharedFile {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn is_unchanged(&self) -> bool {
        let same = |metadata: io::Result<std::fs::Metadata>| {
            metadata.is_ok_and(|metadata| FileStamp::of(&metadata) == self.stamp)
        };
        same(std::fs::metadata(&self.path)) && same(self.file.metadata())
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.in_memory || raw::is_cached(&self.file, offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        Some(self.stamp)
    }
}
