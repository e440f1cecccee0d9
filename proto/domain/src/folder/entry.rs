//! The entries of a folder.

use super::path::{EntryPath, LinkTarget};
use crate::digest::Blake3;

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies in the folder.
    pub path: EntryPath,
    /// Its kind, with what belongs to that kind.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(FileEntry),
    /// A symbolic link.
    Link(LinkTarget),
    /// A directory without entries.
    EmptyDirectory,
}

/// A regular file of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Bytes in the file.
    pub length: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Its modification time in nanoseconds since 1970.
    pub modified_ns: i64,
    /// BLAKE3 root of its content.
    pub blake3: Blake3,
}
