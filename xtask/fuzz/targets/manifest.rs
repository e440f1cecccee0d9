//! Manifests, frame by frame as a publisher or a tracker sends them, against a check of the whole.
#![no_main]

use domain::{FileHeader, Manifest, manifest::ManifestCheck};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::{convert, pb};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let mut next = || {
        let (&length, after) = rest.split_first()?;
        let (frame, after) = after.split_at_checked(length.into())?;
        rest = after;
        Some(frame)
    };
    let Some(header) = next().and_then(|bytes| pb::FileHeader::decode(bytes).ok()) else { return };
    let Ok(header) = FileHeader::try_from(header) else { return };
    let mut check = ManifestCheck::new(&header);
    let mut all = Vec::new();
    while let Some(frame) = next() {
        let Ok(run) = pb::PieceHashes::decode(frame) else { return };
        let Ok(hashes) = convert::piece_hashes(&run) else { return };
        if check.push(run.first_piece, &hashes).is_err() {
            continue;
        }
        assert_eq!(run.first_piece, all.len() as u64, "a run out of order");
        all.extend(hashes);
        assert!(all.len() <= header.layout.count() as usize, "more hashes than pieces");
    }
    let whole = Manifest::new(header.clone(), all.clone());
    assert_eq!(check.finish().is_ok(), whole.is_ok(), "piecemeal and at once differ");
    if let Ok(manifest) = whole {
        assert_eq!(all.len(), header.layout.count() as usize);
        let again: Vec<_> = convert::manifest_runs(&manifest)
            .flat_map(|run| convert::piece_hashes(&run).expect("own runs are good"))
            .collect();
        assert_eq!(again, all);
    }
});
