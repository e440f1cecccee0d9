//! The copy of an older version that a new one replaces. It is the user's, and stays as it is until the new version is
//! whole. Nothing is replaced that this peer did not put there: if anything was changed or added, the update ends.

use std::{fs, io, path::PathBuf};

use proto::domain::folder::{EntryKind, Folder};

use super::{Original, StoreError, choose, is_chosen};
use crate::hashing::FileStamp;

/// The copy that a new version replaces.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The copy.
    pub original: Original,
    /// The stamp that it had when it was verified.
    pub stamp: FileStamp,
}

impl Replaced {
    /// Checks that the copy is what was verified, and that there is nothing else in a folder. Its content is not read.
    ///
    /// # Errors
    /// [`StoreError::Modified`], with what differs as far as it is known.
    pub fn check(&self) -> Result<(), StoreError> {
        let path = &self.original.path;
        if self.original.open(self.stamp).is_none() {
            return Err(StoreError::Modified(path.clone()));
        }
        let Some(folder) = &self.original.folder else { return Ok(()) };
        match self.other(folder) {
            Ok(None) => Ok(()),
            Ok(Some(other)) => Err(StoreError::Modified(other)),
            Err(error) => Err(error.into()),
        }
    }

    /// Something below the folder that is not one of its entries, and not a directory above one.
    fn other(&self, folder: &Folder) -> io::Result<Option<PathBuf>> {
        let root = &self.original.path;
        let (entries, chosen) = (folder.entries(), choose(folder, &self.original.only));
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for found in fs::read_dir(&directory)? {
                let path = found?.path();
                let Some(text) = path.strip_prefix(root).ok().and_then(|path| path.to_str()) else {
                    return Ok(Some(path));
                };
                let at = entries.partition_point(|entry| entry.path.as_str() < text);
                let own =
                    entries.get(at).filter(|entry| entry.path.as_str() == text && is_chosen(&chosen, at));
                let kind = fs::symlink_metadata(&path)?.file_type();
                let below = format!("{text}/");
                let is_above = || {
                    let first = entries.partition_point(|entry| entry.path.as_str() < below.as_str());
                    entries.get(first).is_some_and(|entry| entry.path.as_str().starts_with(&below))
                };
                let is_known = match own.map(|entry| &entry.kind) {
                    Some(EntryKind::File(_)) => kind.is_file(),
                    Some(EntryKind::EmptyDirectory) => kind.is_dir(),
                    Some(EntryKind::Link(target)) => {
                        kind.is_symlink() && fs::read_link(&path)?.to_str() == Some(target.as_str())
                    }
                    None => kind.is_dir() && is_above(),
                };
                if !is_known {
                    return Ok(Some(path));
                }
                if kind.is_dir() {
                    directories.push(path);
                }
            }
        }
        Ok(None)
    }
}
