//! Takes the pieces of a download from a copy that this peer has: of an older version, or of the same content.

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use peer_core::reuse::{Reuse, Version};
use proto::domain::{Bitfield, Manifest, PieceIndex, folder::Folder};

use super::{Original, PieceStore, StoreError};

/// Called with each piece that was found, and its bytes.
pub(super) type Found<'a> = &'a mut dyn FnMut(PieceIndex, Vec<u8>) -> Result<ControlFlow<()>, StoreError>;

/// Reads those of the pieces that lie in the copy, and checks each against the manifest. `folder` are the entries of the
/// new version, if they are known. Blocks.
///
/// # Errors
/// Those of `found`. What can't be read of the copy is not found.
pub fn find_pieces(
    copy: &Original,
    manifest: &Manifest,
    folder: Option<&Folder>,
    pieces: &Bitfield,
    found: Found<'_>,
) -> Result<(), StoreError> {
    let Ok(reader) = copy.reader_now() else { return Ok(()) };
    let old = Version { manifest: &copy.manifest, folder: copy.folder.as_deref() };
    let reuse = Reuse::new(old, Version { manifest, folder });
    let layout = manifest.layout();
    let mut buffer = Vec::new();
    for piece in pieces.iter(layout) {
        for guess in reuse.guesses(piece) {
            buffer.resize(layout.piece_length(piece) as usize, 0);
            let mut rest = &mut buffer[..];
            let read = guess.into_iter().try_for_each(|range| {
                let (now, later) = std::mem::take(&mut rest).split_at_mut((range.end - range.start) as usize);
                rest = later;
                reader.read(range.start, now)
            });
            if let Err(error) = &read {
                tracing::debug!(%error, path = %copy.path.display(), "a piece of an older copy can't be read");
            }
            if read.is_ok() && manifest.piece_matches(piece, &buffer) {
                if found(piece, std::mem::take(&mut buffer))?.is_break() {
                    return Ok(());
                }
                break;
            }
        }
    }
    Ok(())
}

/// Writes the wanted pieces that are missing and lie in the copy. Tells each. Blocks.
///
/// # Errors
/// Those of [`PieceStore::write`]; `Interrupted` when `tell` stopped it.
pub fn take(
    copy: &Original,
    manifest: &Manifest,
    store: &dyn PieceStore,
    tell: &mut dyn FnMut(PieceIndex) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let (have, unverified) = (store.have(), store.unverified());
    let mut missing = store.wanted();
    have.iter(manifest.layout()).chain(unverified.iter(manifest.layout())).for_each(|piece| {
        missing.remove(piece);
    });
    let folder = store.folder();
    find_pieces(copy, manifest, folder.as_deref(), &missing, &mut |piece, bytes| {
        store.write(piece, &[Bytes::from(bytes)])?;
        if tell(piece).is_break() {
            return Err(io::Error::from(io::ErrorKind::Interrupted).into());
        }
        Ok(ControlFlow::Continue(()))
    })
}
