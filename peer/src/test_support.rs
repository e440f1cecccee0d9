//! What several tests need.

#![allow(clippy::unwrap_used)]

use proto::domain::{FileId, Manifest, PieceLayout, manifest::FileHasher, manifest::hash_piece};

pub(crate) fn file_id(number: u8) -> FileId {
    FileId::try_from(&[number; 16][..]).unwrap()
}

pub(crate) fn manifest_of(data: &[u8]) -> Manifest {
    let layout = PieceLayout::new(data.len() as u64).unwrap();
    let mut hasher = FileHasher::new(layout);
    for piece in layout.indices() {
        let range = layout.range(piece);
        let bytes = &data[range.start as usize..range.end as usize];
        hasher.push(hash_piece(layout, piece, bytes), bytes);
    }
    hasher.finish("file".parse().unwrap()).unwrap()
}
