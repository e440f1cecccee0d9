//! Bytes, manifests, and the messages that publish them.

use proto::domain::{
    FileHeader, FileId, Manifest, PIECE_LENGTH, PieceHash, PieceLayout,
    manifest::{FileHasher, hash_piece},
};
use proto::pb::{PieceHashes, PublishFileRequest, PublishStart, publish_file_request::Frame};

/// The length of a piece in bytes.
pub const PIECE: usize = PIECE_LENGTH as usize;

/// Returns pseudo-random bytes, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut data = vec![0; length];
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut data);
    data
}

/// The file id whose bytes all are `number`, which is not 0.
pub fn file_id(number: u8) -> FileId {
    FileId::try_from(&[number; 16][..]).unwrap()
}

/// The manifest of this content.
pub fn manifest(name: &str, content: &[u8]) -> Manifest {
    let layout = PieceLayout::new(content.len() as u64).unwrap();
    let mut hasher = FileHasher::new(layout);
    for (piece, bytes) in layout.indices().zip(content.chunks(PIECE)) {
        hasher.push(hash_piece(layout, piece, bytes), bytes);
    }
    hasher.finish(name.parse().unwrap()).unwrap()
}

/// The manifest of a file of `length` bytes that does not exist: its hashes are made up, and all different.
pub fn imagined(name: &str, length: u64) -> Manifest {
    let layout = PieceLayout::new(length).unwrap();
    let mut hasher = FileHasher::new(layout);
    for n in 0..length.div_ceil(u64::from(PIECE_LENGTH)) {
        let (mut sha1, mut blake3) = ([1; 20], [2; 32]);
        sha1[..8].copy_from_slice(&n.to_be_bytes());
        blake3[..8].copy_from_slice(&n.to_be_bytes());
        hasher.push(PieceHash { sha1: sha1.into(), blake3: blake3.into() }, b"");
    }
    hasher.finish(name.parse().unwrap()).unwrap()
}

/// The frame that starts the publication of a file.
pub fn start_frame(group: &str, header: &FileHeader) -> PublishFileRequest {
    let start = PublishStart { group_id: group.into(), header: Some(header.into()), ..Default::default() };
    PublishFileRequest { frame: Some(Frame::Start(start)) }
}

/// A frame of hashes.
pub fn pieces_frame(run: PieceHashes) -> PublishFileRequest {
    PublishFileRequest { frame: Some(Frame::Pieces(run)) }
}

/// All frames of a publication.
pub fn frames(group: &str, manifest: &Manifest) -> Vec<PublishFileRequest> {
    let runs = proto::convert::manifest_runs(manifest).map(pieces_frame);
    std::iter::once(start_frame(group, manifest.header())).chain(runs).collect()
}
