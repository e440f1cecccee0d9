//! A download that is kept in memory only, for tests and measurements.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::domain::{Bitfield, Manifest, PieceIndex};

use super::{PieceReader, PieceStore, Progress, Rechecked, StoreError};
use crate::hashing::FileStamp;

/// The pieces, in memory.
#[derive(Clone, Debug)]
pub struct MemStore {
    manifest: Arc<Manifest>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    data: Vec<u8>,
    have: Bitfield,
}

impl MemStore {
    /// A store without any piece of the file.
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let layout = manifest.layout();
        let inner = Inner { data: vec![0; layout.length() as usize], have: Bitfield::empty(layout) };
        Self { manifest, inner: Arc::new(Mutex::new(inner)) }
    }
}

impl PieceReader for MemStore {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = inner.data.get(start..start.saturating_add(into.len()));
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

impl PieceStore for MemStore {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        let range = self.manifest.layout().range(piece);
        let mut inner = self.inner.lock();
        let mut at = range.start as usize;
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
        Bitfield::full(self.manifest.layout())
    }

    fn unverified(&self) -> Bitfield {
        Bitfield::empty(self.manifest.layout())
    }

    fn recheck(&self, _: Rechecked<'_>) {}

    fn checkpoint(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn verify(&self, _: Progress<'_>) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let layout = self.manifest.layout();
        let is_bad = |piece: &PieceIndex| {
            let range = layout.range(*piece);
            !self.manifest.piece_matches(*piece, &inner.data[range.start as usize..range.end as usize])
        };
        let bad: Vec<PieceIndex> = layout.indices().filter(is_bad).collect();
        for piece in &bad {
            inner.have.remove(*piece);
        }
        if bad.is_empty() { Ok(()) } else { Err(StoreError::Corrupt) }
    }

    fn finish(&self, _: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        if self.inner.lock().have.is_full() {
            Ok(Arc::new(self.clone()))
        } else {
            Err(StoreError::Incomplete)
        }
    }

    fn discard(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.data.clear();
        inner.have = Bitfield::empty(self.manifest.layout());
        Ok(())
    }
}
