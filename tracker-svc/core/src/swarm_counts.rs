//! Counts of the peers that announce a file, for lists of files.

use domain::{FileId, GroupId};

/// The peers that currently announce a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Peers with all pieces.
    pub seeders: u32,
    /// Peers with some pieces, or none yet.
    pub leechers: u32,
}

/// Provides the counts of swarms.
pub trait SwarmCounts: Send + Sync {
    /// The peers that announce the file; zero if no peer ever did.
    fn count(&self, group: &GroupId, file: FileId) -> Count;
}
