//! The types of the swarm machine: what peers announce, and what leechers are told.

use domain::{Bitfield, FileId, GroupId, PeerId, PieceIndex, PieceLayout, Username};

use crate::address::Addresses;

/// A peer's index in one [`Swarms`](super::Swarms). Invalid after the peer was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey(pub(crate) u32);

/// A peer that announces. Time is counted from the tracker's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncingPeer {
    /// The peer's id.
    pub id: PeerId,
    /// The peer's user.
    pub user: Username,
    /// The addresses at which others reach it.
    pub addresses: Addresses,
    /// The number of its uploads, running and waiting.
    pub load: u32,
}

/// The pieces of one file that a peer announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Every piece.
    All,
    /// Some pieces, and not all. Which ones is not known here.
    Some,
    /// Exactly these pieces.
    Exactly(Bitfield),
    /// These pieces, in addition to those of earlier announces.
    Also(Vec<PieceIndex>),
}

/// How much of a file a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// No piece.
    Nothing,
    /// Some pieces.
    Some,
    /// Every piece.
    All,
}

/// Another tracker of the network, by a number that the owner of the swarms gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackerNo(pub u32);

/// What a tracker tells the others about one of its peers and a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The peer, as it announces itself.
    pub peer: AnnouncingPeer,
    /// The file's group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's length and pieces.
    pub layout: PieceLayout,
    /// How much of the file the peer has.
    pub share: Share,
}

/// One file of an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAnnounce {
    /// The file's group.
    pub group: GroupId,
    /// The file.
    pub file: FileId,
    /// The file's length and pieces.
    pub layout: PieceLayout,
    /// The pieces that the peer has.
    pub holds: Holds,
    /// Whether the peer is a leecher that wants to be told about sources.
    pub wants_sources: bool,
}

/// The first announce of a file must contain all pieces that the peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first announce of a file must list all pieces that the peer has")]
pub struct NoBaseline;

/// There are changes to report to this leecher about this file. Call [`Swarms::pull`](super::Swarms::pull)
/// when the leecher is ready for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wake {
    /// The leecher.
    pub peer: PeerId,
    /// The file.
    pub file: FileId,
}

/// A source, as a leecher is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// The peer's id.
    pub id: PeerId,
    /// The peer's user.
    pub user: Username,
    /// The addresses to reach it at.
    pub addresses: Addresses,
    /// The number of pieces that it has.
    pub pieces: u32,
    /// The number of its uploads, running and waiting.
    pub load: u32,
}

/// Changes that a leecher was not told about yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceUpdate {
    /// The file's group.
    pub group: GroupId,
    /// Sources that are new or have new addresses, in the order of the policy.
    pub sources: Vec<SourceInfo>,
    /// Sources that are gone.
    pub gone: Vec<PeerId>,
}
