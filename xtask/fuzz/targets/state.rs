//! `.state` files: what is read is what was written, for this very file.
#![no_main]

use domain::{Blake3, FileId, PIECE_LENGTH, PieceLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (length, seal, data) = input;
    let layout = PieceLayout::new(u64::from(length) * u64::from(PIECE_LENGTH) / 16).expect("a length");
    let file = FileId::try_from(&[7; 16][..]).expect("an id");
    let mut bytes = data.to_vec();
    if seal {
        // Past the checksum, which no change by chance survives.
        bytes.extend(blake3::hash(data).as_bytes());
    }
    if let Some(again) = peer::fuzzing::state(file, Blake3::from([9; 32]), layout, &bytes) {
        assert_eq!(again, bytes, "a state is read that would not be written");
    }
});
