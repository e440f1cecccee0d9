//! The disks of the peers: real files in memory, with faults.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use peer::{
    hashing::FileStamp,
    storage::{OpenStore, Opener, PieceReader, PieceStore, Progress, Rechecked, StoreError},
};
use proto::domain::{Bitfield, PIECE_LENGTH, PieceIndex};
use rand::{RngExt as _, rngs::StdRng};

/// The unit in which data reaches a disk.
const PAGE: u64 = 4096;

/// A disk. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<State>);

#[derive(Default)]
struct State {
    full: AtomicBool,
    /// What was written and not synced: the unfinished file, and the range.
    unsynced: Mutex<Vec<(PathBuf, u64, u64)>>,
}

impl Disk {
    fn unsynced(&self) -> MutexGuard<'_, Vec<(PathBuf, u64, u64)>> {
        self.0.unsynced.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether writes of pieces find no space.
    pub(crate) fn set_full(&self, full: bool) {
        self.0.full.store(full, SeqCst);
    }

    /// Whether writes of pieces find no space.
    pub(crate) fn is_full(&self) -> bool {
        self.0.full.load(SeqCst)
    }

    /// Cuts the power: some pages of what was not synced never reached the disk. Returns the number of these.
    pub(crate) fn lose_unsynced(&self, dice: &mut StdRng) -> usize {
        let mut lost = 0;
        for (path, offset, length) in std::mem::take(&mut *self.unsynced()) {
            let Ok(file) = OpenOptions::new().write(true).open(path) else { continue };
            for start in (offset..offset + length).step_by(PAGE as usize) {
                if dice.random() {
                    let zeros = vec![0; PAGE.min(offset + length - start) as usize];
                    file.write_all_at(&zeros, start).expect("written");
                    lost += 1;
                }
            }
        }
        lost
    }

    /// The storage of a daemon on this disk.
    pub(crate) fn opener(&self) -> Opener {
        let disk = self.clone();
        Arc::new(move |place| {
            let path = part_of(place);
            Ok(Arc::new(OnDisk { inner: Arc::new(place.open()?), path, disk: disk.clone() }))
        })
    }
}

/// Flips one bit in each unfinished file of a directory. Returns their number.
pub(crate) fn flip_bits(directory: &Path, dice: &mut StdRng) -> usize {
    let Ok(entries) = fs::read_dir(directory.join(".minitorrent")) else { return 0 };
    let mut parts: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "part"));
    parts.sort();
    for part in &parts {
        let file = OpenOptions::new().read(true).write(true).open(part).expect("opened");
        let length = file.metadata().expect("read").len();
        if length > 0 {
            let (at, mut byte) = (dice.random_range(0..length), [0]);
            file.read_exact_at(&mut byte, at).expect("read");
            byte[0] ^= 1 << dice.random_range(0..8);
            file.write_all_at(&byte, at).expect("written");
        }
    }
    parts.len()
}

fn part_of(place: &OpenStore) -> PathBuf {
    let directory = place.destination.parent().expect("a file has a directory");
    directory.join(".minitorrent").join(format!("{}.part", place.file))
}

/// The real store, on a disk with faults.
struct OnDisk {
    inner: Arc<dyn PieceStore>,
    path: PathBuf,
    disk: Disk,
}

impl OnDisk {
    fn synced(&self) {
        self.disk.unsynced().retain(|(path, ..)| *path != self.path);
    }
}

impl PieceReader for OnDisk {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, into)
    }

    fn is_unchanged(&self, bytes: std::ops::Range<u64>) -> bool {
        self.inner.is_unchanged(bytes)
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.inner.is_cached(offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        self.inner.stamp()
    }
}

impl PieceStore for OnDisk {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        if self.disk.is_full() {
            return Err(StoreError::Full);
        }
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let offset = u64::from(piece.get()) * u64::from(PIECE_LENGTH);
        self.disk.unsynced().push((self.path.clone(), offset, length));
        self.inner.write(piece, parts)
    }

    fn have(&self) -> Bitfield {
        self.inner.have()
    }

    fn wanted(&self) -> Bitfield {
        self.inner.wanted()
    }

    fn advance(&self) -> Result<bool, StoreError> {
        self.inner.advance()
    }

    fn unverified(&self) -> Bitfield {
        self.inner.unverified()
    }

    fn recheck(&self, tell: Rechecked<'_>) {
        self.inner.recheck(tell);
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        self.inner.checkpoint(clean).inspect(|()| self.synced())
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        self.inner.verify(progress)
    }

    fn finish(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        self.inner.finish(progress).inspect(|_| self.synced())
    }

    fn discard(&self) -> Result<(), StoreError> {
        self.inner.discard()
    }
}
