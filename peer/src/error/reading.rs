//! Why a file can't be read from this peer.

use proto::{
    domain::{FileName, GroupId},
    reason::Reason,
};

use crate::{paths::word, units};

/// The reason why a file can't be read from this peer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// This peer neither has nor downloads it.
    #[error(
        "this peer has nothing of {1} of {0}; `peer download {group} {name} DEST -d` starts to download it",
        group = word(.0), name = word(.1)
    )]
    NotHere(GroupId, FileName),
    /// It is a folder.
    #[error("{1} is a folder; `peer cat {group} {name}/PATH` reads one of its files", group = word(.0), name = word(.1))]
    Folder(GroupId, FileName),
    /// There is no such file in the folder.
    #[error("there is no file {1} in {0}")]
    NoSuchPath(FileName, String),
    /// The first byte is after the end.
    #[error("byte {offset} is after the end: {name} has {}", units::count(*.size as usize, "byte"))]
    AfterEnd {
        /// The file.
        name: String,
        /// The first byte that was asked for.
        offset: u64,
        /// The length of the file in bytes.
        size: u64,
    },
}

impl ReadError {
    /// The reason that represents the error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotHere(..) => Reason::DownloadNotFound,
            Self::Folder(..) => Reason::InvalidRequest,
            Self::NoSuchPath(..) => Reason::FileNotFound,
            Self::AfterEnd { .. } => Reason::OutOfRange,
        }
    }
}
