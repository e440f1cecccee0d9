//! Manifests that hold together and manifests that do not.

use proptest::prelude::*;

use super::*;
use crate::PIECE_LENGTH;

fn manifest_of(data: &[u8]) -> Manifest {
    let layout = PieceLayout::new(data.len() as u64).expect("a valid length");
    let mut hasher = FileHasher::new(layout);
    for piece in layout.indices() {
        let range = layout.range(piece);
        let bytes = &data[range.start as usize..range.end as usize];
        hasher.push(hash_piece(layout, piece, bytes), bytes);
    }
    hasher.finish("file".parse().expect("a good name")).expect("every piece was read")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_fold_is_b3sum(pieces in 0usize..20, tail in 0usize..PIECE_LENGTH as usize, seed in any::<u8>()) {
        let data: Vec<u8> = (0..pieces * PIECE_LENGTH as usize + tail).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        let manifest = manifest_of(&data);
        prop_assert_eq!(manifest.header().blake3, Blake3::from(*blake3::hash(&data).as_bytes()));
        let sha1: [u8; 20] = sha1::Sha1::digest(&data).into();
        prop_assert_eq!(manifest.header().sha1.as_bytes(), &sha1);
    }
}

#[test]
fn a_piece_counts_only_when_both_digests_hold() {
    let data: Vec<u8> = (0..1_300_000u32).map(|i| i as u8).collect();
    let manifest = manifest_of(&data);
    let layout = manifest.layout();
    let last = layout.index(2).expect("three pieces");
    let bytes = &data[layout.offset(last) as usize..];
    let hashes: Vec<_> = layout
        .indices()
        .map(|piece| {
            let range = layout.range(piece);
            hash_piece(layout, piece, &data[range.start as usize..range.end as usize])
        })
        .collect();
    assert_eq!(manifest.pieces(), hashes);
    assert!(manifest.piece_matches(last, bytes));
    assert!(!manifest.piece_matches(last, &bytes[1..]));
    let mut only_sha1 = manifest.clone();
    only_sha1.pieces[2].blake3 = Blake3::from([0; 32]);
    let mut only_blake3 = manifest.clone();
    only_blake3.pieces[2].sha1 = Sha1::from([0; 20]);
    assert!(!only_sha1.piece_matches(last, bytes) && !only_blake3.piece_matches(last, bytes));
}

#[test]
fn runs_must_be_whole_in_order_and_fold() {
    let data = vec![7u8; 3 * PIECE_LENGTH as usize];
    let manifest = manifest_of(&data);
    let assembler = || Assembler::new(manifest.header().clone());

    let mut gap = assembler();
    assert_eq!(gap.push(1, &manifest.pieces[1..]), Err(ManifestError::OutOfOrder { expected: 0, got: 1 }));
    let mut long = assembler();
    assert_eq!(long.push(0, &[manifest.pieces[0]; 4]), Err(ManifestError::TooMany { pieces: 3 }));
    let mut late = assembler();
    assert_eq!(late.push(0, &manifest.pieces[..2]), Ok(()));
    assert_eq!(late.push(2, &manifest.pieces[1..]), Err(ManifestError::TooMany { pieces: 3 }));
    assert_eq!(late.push(2, &manifest.pieces[2..]), Ok(()), "a run that is refused changes nothing");
    assert_eq!(late.finish().as_ref(), Ok(&manifest));
    let mut short = assembler();
    assert_eq!(short.push(0, &manifest.pieces[..2]), Ok(()));
    assert_eq!(short.finish(), Err(ManifestError::TooFew { pieces: 3, got: 2 }));
    let mut swapped = assembler();
    assert_eq!(swapped.push(0, &[manifest.pieces[1], manifest.pieces[0], manifest.pieces[2]]), Ok(()));
    assert_eq!(swapped.finish(), Err(ManifestError::Root));
    let mut good = assembler();
    assert_eq!(good.push(0, &manifest.pieces[..1]), Ok(()));
    assert_eq!(good.push(1, &manifest.pieces[1..]), Ok(()));
    assert_eq!(good.finish(), Ok(manifest));
}
