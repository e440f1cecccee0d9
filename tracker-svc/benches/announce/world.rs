//! The peers, users and files that both processes know, by number.

use anyhow::{Context as _, Result};
use proto::domain::{Bitfield, FileId, GroupId, PIECE_LENGTH, PeerId, PieceLayout, Username};
use tracker_core::{
    session,
    swarm::{AnnouncingPeer, FileAnnounce, Holds},
};
use tracker_svc::hub::Hub;

/// Peers of one file.
const SWARM: u32 = 1_000;
/// Pieces of each file: a gigabyte.
const PIECES: u32 = 2_048;

/// The group of every file.
pub(super) fn group() -> Result<GroupId> {
    "bench".parse().context("a valid name")
}

/// The layout of each file.
pub(super) fn layout() -> Result<PieceLayout> {
    PieceLayout::new(u64::from(PIECES) * u64::from(PIECE_LENGTH)).context("a valid length")
}

/// The number of files that this many peers announce, one each.
pub(super) fn files(peers: u32) -> u32 {
    peers.div_ceil(SWARM)
}

/// The id of a file. Random, like real ids.
pub(super) fn file(number: u32) -> Result<FileId> {
    Ok(FileId::try_from(&random("file", number)[..16])?)
}

/// The name of a file.
pub(super) fn name(number: u32) -> String {
    format!("file-{number}")
}

/// The id of a peer.
pub(super) fn peer(number: u32) -> PeerId {
    PeerId::from(random("peer", number))
}

/// The name of a peer's user.
pub(super) fn user(number: u32) -> Result<Username> {
    format!("user-{number}").parse().context("a valid name")
}

/// The token of a user's session.
pub(super) fn token(number: u32) -> String {
    session::token(&random("token", number))
}

fn random(what: &str, number: u32) -> [u8; 32] {
    blake3::hash(format!("{what} {number}").as_bytes()).into()
}

/// The pieces of a leecher: about half.
pub(super) fn half(number: u32) -> Result<Bitfield> {
    let bits: Vec<u8> = (0..PIECES / 8 / 32).flat_map(|part| random("bits", number ^ (part << 24))).collect();
    Ok(Bitfield::from_bytes(layout()?, &bits)?)
}

/// Announces this many peers, one file each. A peer that does not leech seeds.
pub(super) fn announce(hub: &Hub, peers: u32, leeches: impl Fn(u32) -> bool) -> Result<()> {
    let (group, layout) = (group()?, layout()?);
    for number in 0..peers {
        let who = AnnouncingPeer {
            id: peer(number),
            user: user(number)?,
            addresses: format!("192.0.2.{}:{}", number % 250, 1_024 + number % 60_000).into(),
            load: number % 4,
        };
        let wants_sources = leeches(number);
        let holds = if wants_sources { Holds::Exactly(half(number)?) } else { Holds::All };
        let (group, file) = (group.clone(), file(number % files(peers))?);
        hub.announce(&who, FileAnnounce { group, file, layout, holds, wants_sources }, || false)?;
    }
    Ok(())
}
