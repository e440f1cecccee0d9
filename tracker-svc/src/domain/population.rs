//! How many peers announce a file: what lists of files need to know of swarms.

use proto::domain::{FileId, GroupId};

/// Peers that announce a file, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// With all of it.
    pub seeders: u32,
    /// With some of it, or none yet.
    pub leechers: u32,
}

/// Knows the swarms.
pub trait Population: Send + Sync {
    /// How many peers announce the file; none when nobody ever did.
    fn count(&self, group: &GroupId, file: FileId) -> Count;
}
