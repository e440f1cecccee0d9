//! Copies a file that this peer has to a second place.

use std::io;

use bytes::Bytes;

use super::{OpenStore, PieceReader, Progress, StoreError};

/// Copies the complete file or folder `from` to `place`, and checks each piece on the way. Blocks. Leaves nothing
/// behind when it fails.
///
/// # Errors
/// [`StoreError::Corrupt`] when the file does not match the manifest; `Interrupted` when `progress` stopped
/// it; else those of [`OpenStore::open_store`] and [`finish`](super::PieceStore::finish).
pub fn copy(from: &dyn PieceReader, place: &OpenStore, progress: Progress<'_>) -> Result<(), StoreError> {
    // If another process is working on it, this fails here, before the cleanup below could remove that
    // process's data.
    let store = place.open_store()?;
    let layout = place.manifest.layout();
    let copy_piece = |piece| {
        if progress(layout.offset(piece)).is_break() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        let length = layout.piece_length(piece) as usize;
        let mut data = vec![0; length];
        from.read(layout.offset(piece), &mut data)?;
        if !place.manifest.piece_matches(piece, &data) {
            return Err(StoreError::Corrupt);
        }
        store.write(piece, &[Bytes::from(data)])
    };
    let copy = || {
        loop {
            let (wanted, have) = (store.wanted(), store.have());
            wanted.iter(layout).filter(|piece| !have.contains(*piece)).try_for_each(copy_piece)?;
            if !store.advance()? {
                return store.finish(progress).map(drop);
            }
        }
    };
    let done = copy();
    if done.is_err() {
        store.discard()?;
    }
    done
}
