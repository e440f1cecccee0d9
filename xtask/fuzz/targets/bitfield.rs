//! Bitfields, against a set of numbers.
#![no_main]

use std::collections::BTreeSet;

use domain::{Bitfield, PIECE_LENGTH, PieceLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8], Vec<(bool, u16)>)| {
    let (pieces, bytes, changes) = input;
    let layout = PieceLayout::new(u64::from(pieces) * u64::from(PIECE_LENGTH)).expect("a length");
    let Ok(mut field) = Bitfield::from_bytes(layout, bytes) else { return };
    assert_eq!(bytes.len(), usize::from(pieces).div_ceil(8));
    let bit = |index: u32| bytes[index as usize / 8] & (0x80 >> (index % 8)) != 0;
    let mut model: BTreeSet<u32> =
        layout.indices().map(|piece| piece.get()).filter(|index| bit(*index)).collect();
    for (insert, index) in changes {
        let Some(piece) = layout.index(index.into()) else { continue };
        if insert {
            assert_eq!(field.insert(piece), model.insert(piece.get()));
        } else {
            assert_eq!(field.remove(piece), model.remove(&piece.get()));
        }
    }
    let found: BTreeSet<u32> = field.iter(layout).map(|piece| piece.get()).collect();
    assert_eq!(found, model);
    assert_eq!(field.count() as usize, model.len());
    assert_eq!(field.is_full(), model.len() == usize::from(pieces));
    assert_eq!(Bitfield::from_bytes(layout, field.as_bytes()), Ok(field));
});
