//! An unfinished download on disk.
//!
//! ```text
//! DIR/.minitorrent/<file id>.part     the data, sparse, for this user alone
//! DIR/.minitorrent/<file id>.state    which pieces of it are safe (`state.rs`)
//! DIR/NAME                            the file, once complete
//! ```
//! The part is sparse rather than allocated in full: on a file system in memory allocating means clearing, elsewhere
//! delayed allocation serves as well; that space is there is checked before the start instead.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use proto::domain::{Bitfield, FileId, Manifest, PieceIndex, manifest::RootFold};
use rustix::{
    fs::{self as sys, FlockOperation, Mode},
    io::Errno,
};

use super::{
    PieceReader, PieceStore, SharedFile, StoreError,
    dir::{self, Places},
    raw,
    start::{self, Progress},
    state::{State, Subject},
};
use crate::hashing::{self, FileStamp};

/// Which unfinished download to open.
#[derive(Clone, Debug)]
pub struct OpenStore {
    /// The file.
    pub file: FileId,
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// The path of the file to be.
    pub destination: PathBuf,
}

/// An unfinished download on disk. See [`PieceStore`].
#[derive(Debug)]
pub struct FsStore {
    subject: Subject,
    manifest: Arc<Manifest>,
    destination: PathBuf,
    places: Places,
    part: File,
    part_name: String,
    state_name: String,
    in_memory: bool,
    /// Brings the part's data to the disk; another one in tests.
    sync: fn(&File) -> io::Result<()>,
    progress: Mutex<Claims>,
    /// One checkpoint at a time.
    checkpoint: Mutex<()>,
}

/// What is written, and what of it is safe.
#[derive(Debug)]
struct Claims {
    have: Bitfield,
    durable: Bitfield,
    settled: Bitfield,
    /// Syncing failed: what the kernel says of this descriptor can't be trusted any more.
    broken: bool,
    /// A sync failed at some time: see [`State::lost`].
    lost: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names(file: FileId) -> (String, String) {
    (format!("{file}.part"), format!("{file}.state"))
}

impl OpenStore {
    /// Whether something is at the final name that is not this download's own.
    ///
    /// # Errors
    /// When its directory is missing or can't be read.
    pub fn is_refused(&self) -> Result<bool, StoreError> {
        Ok(Places::open(&self.destination)?.final_stat()?.is_some() && !self.is_left_behind()?)
    }

    /// Whether an unfinished download is there to be taken up.
    ///
    /// # Errors
    /// When its directory is missing or can't be read.
    pub fn is_begun(&self) -> Result<bool, StoreError> {
        let places = Places::open(&self.destination)?;
        let Ok(parts) = places.parts() else { return Ok(false) };
        Ok(dir::stat(parts, names(self.file).0)?.is_some())
    }

    /// Whether the file was put in place and only the traces of the download are left: a crash came between.
    ///
    /// # Errors
    /// When its directory is missing or can't be read.
    pub fn is_left_behind(&self) -> Result<bool, StoreError> {
        let places = Places::open(&self.destination)?;
        let Ok(parts) = places.parts() else { return Ok(false) };
        let (part, state) = names(self.file);
        let taken = places.final_stat()?.is_some();
        Ok(taken && dir::stat(parts, part)?.is_none() && dir::stat(parts, state)?.is_some())
    }

    /// Opens the unfinished download, or begins it. Hashes what a crash left in doubt, so it can take a while.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::Full`], [`StoreError::InUse`], [`StoreError::Tampered`]; `Interrupted`
    /// when `progress` broke it off.
    pub fn open(&self, progress: Progress<'_>) -> Result<FsStore, StoreError> {
        let mut places = Places::open(&self.destination)?;
        if places.final_stat()?.is_some() {
            return Err(StoreError::NameTaken);
        }
        let layout = self.manifest.layout();
        let subject = Subject { file: self.file, root: self.manifest.header().blake3, layout };
        let (part_name, state_name) = names(self.file);
        let parts = places.make_parts()?;
        let begun = dir::open_regular(parts, &part_name)?;
        let is_new = begun.is_none();
        let part = match begun {
            Some(part) => part,
            None => dir::create(parts, &part_name)?,
        };
        match sys::flock(&part, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse),
            Err(error) => return Err(error.into()),
        }
        let (have, lost) = if is_new {
            (Bitfield::empty(layout), false)
        } else {
            // A state that can't be read is a bad state.
            let bytes = dir::read_small(parts, &state_name, State::size(layout)).ok().flatten();
            let state = bytes.and_then(|bytes| State::decode(&bytes, &subject));
            let lost = state.as_ref().is_some_and(|state| state.lost);
            (start::believed(&part, &self.manifest, state, progress)?, lost)
        };
        let store = FsStore {
            subject,
            manifest: self.manifest.clone(),
            destination: self.destination.clone(),
            in_memory: raw::lives_in_memory(&part),
            places,
            part,
            part_name,
            state_name,
            sync: File::sync_data,
            progress: Mutex::new(Claims {
                durable: have.clone(),
                settled: have.clone(),
                have,
                broken: false,
                lost,
            }),
            checkpoint: Mutex::new(()),
        };
        store.begin()?;
        Ok(store)
    }
}

/// Deletes what an unfinished download of `file` to `destination` left.
///
/// # Errors
/// When its directory is missing or can't be changed.
pub fn discard(file: FileId, destination: &Path) -> Result<(), StoreError> {
    let (part, state) = names(file);
    Places::open(destination)?.remove(&[&part, &state, &format!("{state}.new")])
}

impl FsStore {
    /// The same, with another way to bring its data to the disk: how a disk that fails is tried out.
    #[must_use]
    pub fn with_sync(self, sync: fn(&File) -> io::Result<()>) -> Self {
        Self { sync, ..self }
    }

    fn begin(&self) -> Result<(), StoreError> {
        let length = self.subject.layout.length();
        let have = self.have();
        let had: u64 =
            have.iter(self.subject.layout).map(|p| u64::from(self.subject.layout.piece_length(p))).sum();
        let missing = length - had;
        if missing > 0 && self.places.room()? < missing {
            return Err(StoreError::Full);
        }
        if self.part.metadata()?.len() != length {
            sys::ftruncate(&self.part, length)?;
        }
        // From here on things may be written: a crash must not find the state of a clean stop.
        self.checkpoint(false)
    }

    fn save(&self, claims: &State) -> Result<(), StoreError> {
        dir::replace(self.places.parts()?, &self.state_name, &claims.encode(&self.subject))
    }

    /// Gives the file the permissions that this user's new files have.
    fn open_permissions(&self) -> Result<(), StoreError> {
        let mask = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        });
        let Some(mask) = mask else { return Ok(()) };
        sys::fchmod(&self.part, Mode::from_raw_mode(0o666 & !mask))?;
        Ok(())
    }

    fn check_root(&self) -> Result<(), StoreError> {
        let have = self.have();
        let mut fold = RootFold::default();
        for (piece, hash) in self.subject.layout.indices().zip(self.manifest.pieces()) {
            if !have.contains(piece) {
                return Err(StoreError::Incomplete);
            }
            fold.push(hash.blake3);
        }
        if fold.finish() == self.subject.root { Ok(()) } else { Err(StoreError::Incomplete) }
    }
}

impl PieceReader for FsStore {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.part.read_exact_at(into, offset)
    }

    fn is_unchanged(&self) -> bool {
        // Its times change with every piece that is written. Deleted under us, it is of no use to anybody.
        sys::fstat(&self.part)
            .is_ok_and(|stat| stat.st_nlink > 0 && stat.st_size as u64 == self.subject.layout.length())
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.in_memory || raw::is_cached(&self.part, offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

impl PieceStore for FsStore {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        raw::write(&self.part, self.subject.layout.offset(piece), parts)?;
        let mut claims = lock(&self.progress);
        if claims.broken {
            return Err(StoreError::Unsynced(io::ErrorKind::Other.into()));
        }
        claims.have.insert(piece);
        Ok(())
    }

    fn have(&self) -> Bitfield {
        lock(&self.progress).have.clone()
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.checkpoint);
        // Before the sync: what comes in during it may not be covered.
        let (have, settled, lost) = {
            let claims = lock(&self.progress);
            if claims.broken {
                return Err(StoreError::Unsynced(io::ErrorKind::Other.into()));
            }
            (claims.have.clone(), claims.settled.clone(), claims.lost)
        };
        if !dir::is_same(self.places.parts()?, &self.part_name, &self.part)? {
            return Err(StoreError::Tampered("it was replaced or deleted"));
        }
        if let Err(error) = (self.sync)(&self.part) {
            // The kernel may have dropped the data and still say yes the next time.
            let mut claims = lock(&self.progress);
            claims.broken = true;
            claims.have = claims.durable.clone();
            let lost = State {
                clean: false,
                lost: true,
                have: claims.durable.clone(),
                settled: claims.settled.clone(),
            };
            if let Err(error) = self.save(&lost) {
                tracing::warn!(%error, "a failed sync can't be noted");
            }
            // So that it can be opened anew while uploads still read from this one.
            let _ = sys::flock(&self.part, FlockOperation::Unlock);
            return Err(StoreError::Unsynced(error));
        }
        self.save(&State { clean, lost, have: have.clone(), settled })?;
        let mut claims = lock(&self.progress);
        claims.settled = std::mem::replace(&mut claims.durable, have);
        Ok(())
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        let Some((sha1, pieces)) = hashing::hash_open(&self.part, self.subject.layout, progress)? else {
            return Err(StoreError::Tampered("it was cut short"));
        };
        let pairs = pieces.iter().zip(self.manifest.pieces()).zip(self.subject.layout.indices());
        let bad: Vec<PieceIndex> =
            pairs.filter(|((got, expected), _)| got != expected).map(|(_, piece)| piece).collect();
        let header = self.manifest.header();
        if bad.is_empty() {
            // Good pieces of another whole: the manifest's author is to blame, and nobody has a better one.
            return if sha1 == header.sha1 { self.check_root() } else { Err(StoreError::Incomplete) };
        }
        let mut claims = lock(&self.progress);
        for piece in bad {
            claims.have.remove(piece);
        }
        Err(StoreError::Corrupt)
    }

    fn finish(&self) -> Result<Arc<dyn PieceReader>, StoreError> {
        self.checkpoint(false)?;
        self.check_root()?;
        self.open_permissions()?;
        self.places.move_into_place(&self.part_name)?;
        let stamp = FileStamp::of(&self.part.metadata()?);
        let shared = SharedFile::open(&self.destination, stamp)
            .map_err(|_| StoreError::Tampered("it changed while it was put in place"))?;
        // The file is there; what can't be cleared away now does no harm.
        if let Err(error) = self.places.remove(&[&self.state_name]) {
            tracing::warn!(%error, path = %self.destination.display(), "traces of a finished download are left");
        }
        Ok(Arc::new(shared))
    }

    fn discard(&self) -> Result<(), StoreError> {
        self.places.remove(&[&self.part_name, &self.state_name])
    }
}

/// Whether `destination` can hold a file: an absolute path with a name, in a directory that is there.
///
/// # Errors
/// Why not, for people.
pub fn check_destination(destination: &Path) -> Result<(), &'static str> {
    if !destination.is_absolute() {
        return Err("the path is not absolute");
    }
    let name = destination.file_name().ok_or("the path has no file name")?;
    if name.to_string_lossy().to_lowercase().starts_with(".minitorrent") {
        return Err("that name is reserved");
    }
    match destination.parent().map(Path::is_dir) {
        Some(true) => Ok(()),
        _ => Err("its directory does not exist"),
    }
}
