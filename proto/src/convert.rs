//! Conversions between wire and domain types. No other module uses both. Input is checked here and nowhere
//! else.
//!
//! - [`folder`]: the index of a shared folder.
//! - [`found`]: the only message that is not generated.

pub mod folder;
pub mod found;

use crate::{
    domain::{
        Bitfield, Blake3, FileHeader, FileId, FileName, GroupId, Manifest, Name as _, PIECE_LENGTH, PeerId,
        PieceHash, PieceIndex, PieceLayout, Sha1, TokenName, Username,
        bitfield::BitfieldError,
        folder::FolderShape,
        ids::IdError,
        invite::{InviteSecret, LinkError},
        limits::{MANIFEST_FRAME_PIECES, MAX_PIECES_A_REQUEST},
        names::NameError,
        obstacle::Obstacle,
    },
    pb,
    reason::Reason,
    ticket::VerifyingKey,
};

/// The reason why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A name is not allowed.
    #[error("{0}: {1}")]
    Name(&'static str, NameError),
    /// An id is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The secret of an invitation is malformed.
    #[error("secret: {0}")]
    Secret(LinkError),
    /// A message lacks a field.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The file is longer than 1 TiB.
    #[error("a file has at most 1 TiB")]
    TooLong,
    /// The piece length is not 524,288.
    #[error("piece_length is always 524,288")]
    PieceLength,
    /// A folder has too many files, or an index that is too long.
    #[error(
        "a folder has at most 1,000,000 files and an index of at most 256 MiB that lies in its virtual file"
    )]
    FolderShape,
    /// A digest has the wrong size.
    #[error("{0} has a wrong number of bytes")]
    Digest(&'static str),
    /// A run of hashes is empty or too long, or its two hash lists differ in length.
    #[error("a run of piece hashes holds 1 to 4,096 pieces, 20 and 32 bytes each")]
    Run,
    /// The bytes are not a bitfield of the file.
    #[error(transparent)]
    Bitfield(#[from] BitfieldError),
    /// The set is empty, too large, or has a piece twice.
    #[error("a set of pieces holds 1 to 65,536, each once")]
    PieceSet,
    /// The file does not have this piece.
    #[error("piece {0} is past the end of the file")]
    NoSuchPiece(u64),
}

impl ConvertError {
    /// The reason on the wire for this error.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Name(..) => Reason::InvalidName,
            Self::NoSuchPiece(_) => Reason::OutOfRange,
            Self::Run | Self::FolderShape => Reason::InvalidManifest,
            _ => Reason::InvalidRequest,
        }
    }
}

impl From<ConvertError> for tonic::Status {
    fn from(error: ConvertError) -> Self {
        error.reason().status(error.to_string())
    }
}

/// Checks a username.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn username(text: &str) -> Result<Username, ConvertError> {
    text.parse().map_err(|error| ConvertError::Name("username", error))
}

/// Checks the name of a token.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn token_name(text: &str) -> Result<TokenName, ConvertError> {
    text.parse().map_err(|error| ConvertError::Name("name", error))
}

/// Checks the name of a group that exists or may exist. It may be from before the present rule for names.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn group_id(text: &str) -> Result<GroupId, ConvertError> {
    GroupId::stored(text).map_err(|error| ConvertError::Name("group_id", error))
}

/// Checks the name of a group to be made.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn new_group_id(text: &str) -> Result<GroupId, ConvertError> {
    text.parse().map_err(|error| ConvertError::Name("group_id", error))
}

/// Checks what somebody shows of an invitation: its group and its secret.
///
/// # Errors
/// [`ConvertError::Missing`], [`ConvertError::Name`] or [`ConvertError::Secret`].
pub fn invite_key(key: Option<&pb::InviteKey>) -> Result<(GroupId, InviteSecret), ConvertError> {
    let key = key.ok_or(ConvertError::Missing("invite"))?;
    let secret = key.secret.parse().map_err(ConvertError::Secret)?;
    Ok((group_id(&key.group_id)?, secret))
}

/// Checks the name of a file that exists or may exist. It may be from before the present rule for names.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn file_name(text: &str) -> Result<FileName, ConvertError> {
    FileName::stored(text).map_err(|error| ConvertError::Name("name", error))
}

/// Checks the name of a file to be published.
///
/// # Errors
/// [`ConvertError::Name`].
pub fn new_file_name(text: &str) -> Result<FileName, ConvertError> {
    text.parse().map_err(|error| ConvertError::Name("name", error))
}

/// Checks a file id.
///
/// # Errors
/// [`ConvertError::Id`].
pub fn file_id(bytes: &[u8]) -> Result<FileId, ConvertError> {
    Ok(FileId::try_from(bytes)?)
}

/// Checks a peer id.
///
/// # Errors
/// [`ConvertError::Id`].
pub fn peer_id(text: &str) -> Result<PeerId, ConvertError> {
    Ok(text.parse()?)
}

/// Checks a file reference.
///
/// # Errors
/// Fails if the reference is missing or one of its fields is invalid.
pub fn file_ref(file: Option<&pb::FileRef>) -> Result<(GroupId, FileId), ConvertError> {
    let file = file.ok_or(ConvertError::Missing("file"))?;
    Ok((group_id(&file.group_id)?, file_id(&file.file_id)?))
}

/// Converts a file reference for the wire.
pub fn to_file_ref(group: &GroupId, file: FileId) -> pb::FileRef {
    pb::FileRef { group_id: group.to_string(), file_id: file.as_bytes().to_vec().into() }
}

impl TryFrom<pb::FileHeader> for FileHeader {
    type Error = ConvertError;

    fn try_from(header: pb::FileHeader) -> Result<Self, ConvertError> {
        if header.piece_length != PIECE_LENGTH {
            return Err(ConvertError::PieceLength);
        }
        let layout = PieceLayout::new(header.length).ok_or(ConvertError::TooLong)?;
        Ok(Self {
            name: file_name(&header.name)?,
            layout,
            sha1: Sha1::try_from(&header.sha1[..]).map_err(|_| ConvertError::Digest("sha1"))?,
            blake3: Blake3::try_from(&header.blake3[..]).map_err(|_| ConvertError::Digest("blake3"))?,
            folder: header.folder.map(|shape| folder_shape(layout, &shape)).transpose()?,
        })
    }
}

/// Checks that a virtual file of this layout can have this shape.
fn folder_shape(layout: PieceLayout, shape: &pb::FolderShape) -> Result<FolderShape, ConvertError> {
    let shape = FolderShape { files: shape.files, index_length: shape.index_length };
    if shape.fits(layout) { Ok(shape) } else { Err(ConvertError::FolderShape) }
}

fn to_folder_shape(shape: FolderShape) -> pb::FolderShape {
    pb::FolderShape { files: shape.files, index_length: shape.index_length }
}

impl From<&FileHeader> for pb::FileHeader {
    fn from(header: &FileHeader) -> Self {
        Self {
            name: header.name.to_string(),
            length: header.layout.length(),
            piece_length: PIECE_LENGTH,
            sha1: header.sha1.as_bytes().to_vec().into(),
            blake3: header.blake3.as_bytes().to_vec().into(),
            folder: header.folder.map(to_folder_shape),
        }
    }
}

/// Checks the size of a run of hashes, but not its place in the file.
///
/// # Errors
/// [`ConvertError::Run`].
pub fn piece_hashes(run: &pb::PieceHashes) -> Result<Vec<PieceHash>, ConvertError> {
    let (sha1s, sha1_rest) = run.sha1.as_chunks::<{ Sha1::LENGTH }>();
    let (blake3s, blake3_rest) = run.blake3.as_chunks::<{ Blake3::LENGTH }>();
    let good = sha1_rest.is_empty()
        && blake3_rest.is_empty()
        && sha1s.len() == blake3s.len()
        && (1..=MANIFEST_FRAME_PIECES).contains(&sha1s.len());
    if !good {
        return Err(ConvertError::Run);
    }
    let both = sha1s.iter().zip(blake3s);
    Ok(both.map(|(sha1, blake3)| PieceHash { sha1: (*sha1).into(), blake3: (*blake3).into() }).collect())
}

/// Converts a run of hashes for the wire.
pub fn to_piece_hashes(first_piece: u64, run: &[PieceHash]) -> pb::PieceHashes {
    pb::PieceHashes {
        first_piece,
        sha1: run.iter().flat_map(|hash| *hash.sha1.as_bytes()).collect::<Vec<_>>().into(),
        blake3: run.iter().flat_map(|hash| *hash.blake3.as_bytes()).collect::<Vec<_>>().into(),
    }
}

/// A manifest's runs for the wire, each small enough for one frame.
pub fn manifest_runs(manifest: &Manifest) -> impl Iterator<Item = pb::PieceHashes> + '_ {
    let runs = manifest.pieces().chunks(MANIFEST_FRAME_PIECES);
    runs.zip((0u64..).step_by(MANIFEST_FRAME_PIECES)).map(|(run, first)| to_piece_hashes(first, run))
}

/// Checks a bitfield of a file.
///
/// # Errors
/// [`ConvertError::Bitfield`].
pub fn bitfield(layout: PieceLayout, bitfield: &pb::Bitfield) -> Result<Bitfield, ConvertError> {
    Ok(Bitfield::from_bytes(layout, &bitfield.bits)?)
}

/// Converts a bitfield for the wire.
pub fn to_bitfield(bitfield: &Bitfield) -> pb::Bitfield {
    pb::Bitfield { bits: bitfield.as_bytes().to_vec().into() }
}

/// Checks a set of pieces of a file. It must have at least one piece, each piece once, and only pieces of the
/// file. The order is kept.
///
/// # Errors
/// [`ConvertError::PieceSet`] or [`ConvertError::NoSuchPiece`].
pub fn piece_set(layout: PieceLayout, pieces: &[u64]) -> Result<Vec<PieceIndex>, ConvertError> {
    if !(1..=MAX_PIECES_A_REQUEST).contains(&pieces.len()) {
        return Err(ConvertError::PieceSet);
    }
    let mut seen = Bitfield::empty(layout);
    let check = |&index: &u64| {
        let piece = layout.index(index).ok_or(ConvertError::NoSuchPiece(index))?;
        if seen.insert(piece) { Ok(piece) } else { Err(ConvertError::PieceSet) }
    };
    pieces.iter().map(check).collect()
}

/// Checks a ticket key.
///
/// # Errors
/// [`ConvertError::Digest`].
pub fn ticket_key(key: &pb::TicketKey) -> Result<VerifyingKey, ConvertError> {
    let bytes = key.public_key[..].try_into().map_err(|_| ConvertError::Digest("public_key"))?;
    Ok(VerifyingKey { id: key.key_id.clone(), bytes })
}

/// Converts a ticket key for the wire.
pub fn to_ticket_key(key: &VerifyingKey) -> pb::TicketKey {
    pb::TicketKey { key_id: key.id.clone(), public_key: key.bytes.to_vec().into() }
}

/// The obstacle of a message.
pub fn obstacle(obstacle: pb::Obstacle) -> Obstacle {
    match obstacle {
        pb::Obstacle::Unspecified => Obstacle::Other,
        pb::Obstacle::Refused => Obstacle::Refused,
        pb::Obstacle::Silent => Obstacle::Silent,
        pb::Obstacle::NoRoute => Obstacle::NoRoute,
        pb::Obstacle::UnknownName => Obstacle::UnknownName,
        pb::Obstacle::AnotherPeer => Obstacle::AnotherPeer,
        pb::Obstacle::Clock => Obstacle::Clock,
        pb::Obstacle::Forbidden => Obstacle::Forbidden,
    }
}

/// An obstacle as a message says it.
pub fn to_obstacle(obstacle: Obstacle) -> pb::Obstacle {
    match obstacle {
        Obstacle::Refused => pb::Obstacle::Refused,
        Obstacle::Silent => pb::Obstacle::Silent,
        Obstacle::NoRoute => pb::Obstacle::NoRoute,
        Obstacle::UnknownName => pb::Obstacle::UnknownName,
        Obstacle::AnotherPeer => pb::Obstacle::AnotherPeer,
        Obstacle::Clock => pb::Obstacle::Clock,
        Obstacle::Forbidden => pb::Obstacle::Forbidden,
        Obstacle::Other => pb::Obstacle::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> pb::FileHeader {
        pb::FileHeader {
            name: "f".into(),
            length: 1,
            piece_length: PIECE_LENGTH,
            sha1: vec![0; 20].into(),
            blake3: vec![0; 32].into(),
            folder: None,
        }
    }

    #[test]
    fn headers_are_checked_field_by_field() {
        assert!(FileHeader::try_from(header()).is_ok());
        for length in [(1 << 40) + 1, 1 << 63, u64::MAX] {
            let bad = pb::FileHeader { length, ..header() };
            assert_eq!(FileHeader::try_from(bad), Err(ConvertError::TooLong));
        }
        for piece_length in [0, 1, 524_287, u32::MAX] {
            let bad = pb::FileHeader { piece_length, ..header() };
            assert_eq!(FileHeader::try_from(bad), Err(ConvertError::PieceLength));
        }
        for bytes in [0, 19, 21] {
            let bad = pb::FileHeader { sha1: vec![0; bytes].into(), ..header() };
            assert_eq!(FileHeader::try_from(bad), Err(ConvertError::Digest("sha1")));
        }
        let bad = pb::FileHeader { blake3: vec![0; 31].into(), ..header() };
        assert_eq!(FileHeader::try_from(bad), Err(ConvertError::Digest("blake3")));
        for (files, index_length) in [(1_000_001, 1), (1, 2), (1, u64::MAX)] {
            let bad = pb::FileHeader { folder: Some(pb::FolderShape { files, index_length }), ..header() };
            assert_eq!(FileHeader::try_from(bad), Err(ConvertError::FolderShape));
        }
    }

    #[test]
    fn a_name_of_an_earlier_rule_can_be_referred_to_but_not_made() {
        for old in ["a\u{3000}b", "p\u{430}ypal", "a\u{202e}b"] {
            assert!(group_id(old).is_ok() && new_group_id(old).is_err(), "{old:?}");
        }
        assert!(file_name("a\u{3000}b").is_ok() && new_file_name("a\u{3000}b").is_err());
        assert!(FileHeader::try_from(pb::FileHeader { name: "a\u{3000}b".into(), ..header() }).is_ok());
        for bad in ["", "..", "a/b", "a\0", "a "] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a/b", " a"] {
            assert!(group_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn runs_are_whole_and_small() {
        let run = |sha1: usize, blake3: usize| pb::PieceHashes {
            first_piece: 0,
            sha1: vec![0; sha1].into(),
            blake3: vec![0; blake3].into(),
        };
        assert_eq!(piece_hashes(&run(40, 64)).map(|hashes| hashes.len()), Ok(2));
        for (sha1, blake3) in [(0, 0), (19, 32), (21, 32), (20, 31), (40, 32), (20 * 4_097, 32 * 4_097)] {
            assert_eq!(piece_hashes(&run(sha1, blake3)), Err(ConvertError::Run));
        }
    }

    #[test]
    fn sets_hold_each_piece_once() {
        let layout = PieceLayout::new(3 * u64::from(PIECE_LENGTH)).expect("a valid length");
        assert!(piece_set(layout, &[2, 0]).is_ok());
        assert_eq!(piece_set(layout, &[]), Err(ConvertError::PieceSet));
        assert_eq!(piece_set(layout, &[1, 1]), Err(ConvertError::PieceSet));
        for index in [3, 1 << 31, 1 << 32, 1 << 45, u64::MAX] {
            assert_eq!(piece_set(layout, &[index]), Err(ConvertError::NoSuchPiece(index)));
        }
    }
}
