//! A second copy of a file that this peer has.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use bytes::Bytes;

use super::{OpenStore, PieceStore as _, Progress, StoreError, discard};

/// Puts a copy of the complete file at `from` in `place`, each piece checked on the way. Blocks. When it fails, nothing is
/// left of it.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file is not what the manifest says; `Interrupted` when `progress` broke it off; else as
/// [`OpenStore::open`] and [`finish`](super::PieceStore::finish).
pub fn copy(from: &Path, place: &OpenStore, progress: Progress<'_>) -> Result<(), StoreError> {
    let file = File::open(from)?;
    // Another one at work on it is not to be disturbed: only what is ours is cleared away.
    let store = place.open(progress)?;
    let layout = place.manifest.layout();
    let copied = layout.indices().try_for_each(|piece| {
        if progress(layout.offset(piece)).is_break() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let length = layout.piece_length(piece) as usize;
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, layout.offset(piece))?;
        if !place.manifest.piece_matches(piece, &data) {
            return Err(StoreError::Corrupt);
        }
        store.write(piece, &[Bytes::from(data)])
    });
    let done = copied.and_then(|()| store.finish().map(drop));
    if done.is_err() {
        discard(place.file, &place.destination)?;
    }
    done
}
