//! The index of a folder alone, in memory: to list what is in a folder without downloading the folder.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::{
    convert::folder::decode_index,
    domain::{
        Bitfield, Manifest, PieceIndex,
        folder::{Folder, FolderShape},
    },
};

use super::{PieceReader, PieceStore, Progress, Rechecked, StoreError};
use crate::hashing::FileStamp;

/// The pieces that hold the index of a folder. No other pieces are wanted.
#[derive(Debug)]
pub(crate) struct IndexStore {
    manifest: Arc<Manifest>,
    shape: FolderShape,
    /// The offset in the virtual file at which the data begins.
    base: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Grows with the pieces that arrive: a manifest can claim an index that nobody has.
    data: Vec<u8>,
    have: Bitfield,
}

impl IndexStore {
    /// A store without any piece of the index. `None` if the manifest is not that of a folder.
    pub(crate) fn new(manifest: Arc<Manifest>) -> Option<Self> {
        let shape = manifest.header().folder?;
        let inner = Inner { data: Vec::new(), have: Bitfield::empty(manifest.layout()) };
        let base = shape.index_pieces(manifest.layout());
        Some(Self { manifest, shape, base, inner: Mutex::new(inner) })
    }

    /// The entries of the folder, once all pieces that are wanted are there.
    ///
    /// # Errors
    /// [`StoreError::BadFolder`] if the index is not valid; [`StoreError::Incomplete`].
    pub(crate) fn folder(&self) -> Result<Folder, StoreError> {
        let inner = self.inner.lock();
        let length = self.manifest.layout().length();
        let start = usize::try_from(length - self.shape.index_length - self.base);
        let index = start.ok().and_then(|start| inner.data.get(start..)).ok_or(StoreError::Incomplete)?;
        let folder = decode_index(index, self.shape, length);
        folder.map_err(|error| StoreError::BadFolder(error.into()))
    }
}

impl PieceReader for IndexStore {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        let start = offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| inner.data.get(start..start.saturating_add(into.len())));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn is_unchanged(&self, _: Range<u64>) -> bool {
        true
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        true
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

impl PieceStore for IndexStore {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        let range = self.manifest.layout().range(piece);
        let start = range.start.checked_sub(self.base).ok_or(StoreError::Incomplete)?;
        let mut inner = self.inner.lock();
        let mut at = start as usize;
        let end = at + (range.end - range.start) as usize;
        if inner.data.len() < end {
            inner.data.resize(end, 0);
        }
        for part in parts {
            inner.data[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        inner.have.insert(piece);
        Ok(())
    }

    fn have(&self) -> Bitfield {
        self.inner.lock().have.clone()
    }

    fn wanted(&self) -> Bitfield {
        let layout = self.manifest.layout();
        let mut wanted = Bitfield::empty(layout);
        layout.indices().filter(|piece| layout.offset(*piece) >= self.base).for_each(|piece| {
            wanted.insert(piece);
        });
        wanted
    }

    fn unverified(&self) -> Bitfield {
        Bitfield::empty(self.manifest.layout())
    }

    fn recheck(&self, _: Rechecked<'_>) {}

    fn checkpoint(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn verify(&self, _: Progress<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn finish(&self, _: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        // It has no place on the disk.
        Err(StoreError::Incomplete)
    }

    fn discard(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The entries of the folder with this manifest, whose index is in this part. `None` if it is not there.
pub(super) fn entries_in(part: &File, manifest: &Manifest) -> Option<Folder> {
    let (shape, layout) = (manifest.header().folder?, manifest.layout());
    let start = layout.length() - shape.index_length - shape.index_pieces(layout);
    let mut index = vec![0; usize::try_from(shape.index_length).ok()?];
    part.read_exact_at(&mut index, start).ok()?;
    decode_index(&index, shape, layout.length()).ok()
}
