//! GetChunk requests, and the ranges of bytes that they lead to.
#![no_main]

use std::collections::BTreeSet;

use domain::{PIECE_LENGTH, PieceLayout};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::{convert, pb::GetChunkRequest};

fuzz_target!(|input: (u64, &[u8])| {
    let (length, data) = input;
    let Some(layout) = PieceLayout::new(length) else {
        assert!(length > 1 << 40);
        return;
    };
    let Ok(request) = GetChunkRequest::decode(data) else { return };
    let _ = convert::file_id(&request.file_id);
    let Ok(set) = convert::piece_set(layout, &request.pieces) else { return };
    assert_eq!(set.len(), request.pieces.len());
    let mut seen = BTreeSet::new();
    for (piece, asked) in set.into_iter().zip(&request.pieces) {
        assert_eq!(u64::from(piece.get()), *asked);
        assert!(seen.insert(piece), "twice in a set");
        let range = layout.range(piece);
        assert_eq!(range.start, asked * u64::from(PIECE_LENGTH));
        assert!(range.start < range.end && range.end <= length);
        assert_eq!(range.end - range.start, u64::from(layout.piece_length(piece)));
    }
});
