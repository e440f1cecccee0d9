//! An unfinished download on disk.
//!
//! ```text
//! DIR/.minitorrent/<file id>.part     the data, sparse, for this user alone
//! DIR/.minitorrent/<file id>.state    which pieces of it are safe (`state.rs`)
//! DIR/NAME                            the file, once complete
//! ```
//! `folder` has the places of a folder.
//!
//! The part is sparse rather than allocated in full. On a file system in memory, allocating means clearing;
//! elsewhere, delayed allocation works as well. Free space is checked before the start instead.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::domain::{Bitfield, FileId, Manifest, PieceIndex, manifest::RootFold};
use rustix::{
    fs::{self as sys, Advice, FlockOperation, Mode},
    io::Errno,
};

use super::{
    Original, PieceReader, PieceStore, Progress, Rechecked, Replaced, SharedFile, StoreError,
    dir::{self, Directory, Places},
    index,
    ledger::Ledger,
    raw, recheck,
    state::{State, Subject},
    tree,
    watch::{Seen, Watch},
};
use crate::hashing::{self, FileStamp};

/// The most times that the whole is read again at the end because another process wrote to it meanwhile.
const REREADS: usize = 3;

/// The unfinished download to open. Its directory is held open for as long as this value lives.
#[derive(Clone, Debug)]
pub struct OpenStore {
    /// The file's id.
    pub file: FileId,
    /// The file's manifest.
    pub manifest: Arc<Manifest>,
    /// The final path of the file.
    pub destination: PathBuf,
    directory: Directory,
    /// The permissions that the complete file does not get.
    umask: u32,
    /// The bytes on its file system that are meant for others.
    reserved: u64,
    /// What is at the final path, and is to be replaced.
    replaced: Option<Arc<Replaced>>,
    /// Patterns of the entries of a folder that are wanted. Empty for all.
    only: Vec<String>,
}

/// An unfinished download on disk. See [`PieceStore`].
#[derive(Debug)]
pub struct FsStore {
    ledger: Ledger,
    manifest: Arc<Manifest>,
    destination: PathBuf,
    places: Places,
    part: File,
    names: Names,
    in_memory: bool,
    umask: u32,
    replaced: Option<Arc<Replaced>>,
    /// Brings the part's data to the disk. Tests replace it.
    sync: fn(&File) -> io::Result<()>,
    watch: Mutex<Watch>,
    /// The part's times before the whole was last read again and found good.
    read_at: Mutex<Option<Times>>,
}

/// When a file's content and its node were last changed: seconds and nanoseconds of both.
type Times = (i64, u64, i64, u64);

/// The names of what an unfinished download consists of.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) part: String,
    pub(super) state: String,
    /// A folder's tree while it is unfinished.
    pub(super) tree: String,
    /// A folder's part once its tree is complete.
    pub(super) spent: String,
    /// A folder of an older version, on file systems that can't exchange two names.
    pub(super) old: String,
}

impl Names {
    fn of(file: FileId) -> Self {
        let name = |kind| format!("{file}.{kind}");
        Self {
            part: name("part"),
            state: name("state"),
            tree: name("tree"),
            spent: name("spent"),
            old: name("old"),
        }
    }
}

impl OpenStore {
    /// The download of a file to an absolute path whose directories are not symbolic links.
    ///
    /// # Errors
    /// [`StoreError::Linked`]; other errors when the directory is missing or can't be read.
    pub fn at(file: FileId, manifest: Arc<Manifest>, destination: PathBuf) -> Result<Self, StoreError> {
        Ok(Self {
            file,
            manifest,
            directory: Directory::of(&destination)?,
            destination,
            umask: 0o077,
            reserved: 0,
            replaced: None,
            only: Vec::new(),
        })
    }

    /// The same with other permissions for the complete file: all but these. The default is 0o077.
    #[must_use]
    pub fn with_umask(self, umask: u32) -> Self {
        Self { umask, ..self }
    }

    /// The same with so many bytes of free space left to others.
    #[must_use]
    pub fn with_reserved(self, reserved: u64) -> Self {
        Self { reserved, ..self }
    }

    /// The same in place of a copy that is at its final path.
    #[must_use]
    pub fn in_place_of(self, replaced: Option<Arc<Replaced>>) -> Self {
        Self { replaced, ..self }
    }

    /// The same with a part of a folder: the entries that match these patterns.
    #[must_use]
    pub fn with_only(self, only: Vec<String>) -> Self {
        Self { only, ..self }
    }

    /// The patterns of the entries of a folder that are wanted. Empty for all.
    pub(super) fn only(&self) -> &[String] {
        &self.only
    }

    /// The complete file or folder of a download that was left behind.
    pub fn left(&self) -> Original {
        let Names { spent, .. } = Names::of(self.file);
        let spent = self.places().and_then(|places| dir::open_regular(places.parts()?, spent));
        let folder = spent.ok().flatten().and_then(|part| index::entries_in(&part, &self.manifest));
        Original {
            path: self.destination.clone(),
            manifest: self.manifest.clone(),
            folder: folder.map(Arc::new),
            only: self.only.clone(),
        }
    }

    /// The copy that it replaces, if it does.
    pub fn replaced(&self) -> Option<&Arc<Replaced>> {
        self.replaced.as_ref()
    }

    /// The number of the file system of its directory.
    pub fn device(&self) -> u64 {
        self.directory.device()
    }

    fn places(&self) -> Result<Places, StoreError> {
        Places::of(&self.directory, &self.destination)
    }

    /// Checks that the path of the directory still leads to the one that is held open.
    ///
    /// # Errors
    /// [`StoreError::Displaced`] if it doesn't.
    pub fn check_path(&self) -> Result<(), StoreError> {
        self.places()?.check_path()
    }

    /// Whether the final name is taken by something other than this download's own file.
    ///
    /// # Errors
    /// Fails when the directory is missing or can't be read.
    pub fn is_refused(&self) -> Result<bool, StoreError> {
        let is_taken = self.places()?.final_stat()?.is_some();
        Ok(is_taken && self.replaced.is_none() && !self.is_left_behind()?)
    }

    /// Whether there is an unfinished download to resume.
    ///
    /// # Errors
    /// Fails when the directory is missing or can't be read.
    pub fn is_begun(&self) -> Result<bool, StoreError> {
        let places = self.places()?;
        let Ok(parts) = places.parts() else { return Ok(false) };
        let Names { part, spent, .. } = Names::of(self.file);
        Ok(dir::stat(parts, part)?.is_some() || dir::stat(parts, spent)?.is_some())
    }

    /// Whether the file has its final name and only traces of the download are left. A crash between the two
    /// steps causes this.
    ///
    /// # Errors
    /// Fails when the directory is missing or can't be read.
    pub fn is_left_behind(&self) -> Result<bool, StoreError> {
        let places = self.places()?;
        let Ok(parts) = places.parts() else { return Ok(false) };
        let Names { part, state, .. } = Names::of(self.file);
        let taken = places.final_stat()?.is_some();
        Ok(taken && dir::stat(parts, part)?.is_none() && dir::stat(parts, state)?.is_some())
    }

    /// As [`Self::open_store`], for a file.
    ///
    /// # Errors
    /// As [`Self::open_store`].
    pub fn open(&self) -> Result<FsStore, StoreError> {
        let Found { places, names, part, is_new, state } = self.find()?;
        // The watch begins before any byte of the part is read.
        let watch = Watch::new(&part);
        let lost = state.as_ref().is_some_and(|state| state.lost);
        let claimed = match is_new {
            true => Bitfield::empty(self.manifest.layout()),
            false => recheck::claimed(&part, &self.manifest, state),
        };
        let store = FsStore {
            ledger: Ledger::new(self.subject(), names.state.clone(), claimed, lost),
            manifest: self.manifest.clone(),
            destination: self.destination.clone(),
            in_memory: raw::lives_in_memory(&part),
            umask: self.umask,
            replaced: self.replaced.clone(),
            places,
            part,
            names,
            sync: File::sync_data,
            watch: Mutex::new(watch),
            read_at: Mutex::default(),
        };
        store.begin(self.reserved)?;
        Ok(store)
    }

    pub(super) fn subject(&self) -> Subject {
        Subject { file: self.file, root: self.manifest.header().blake3, layout: self.manifest.layout() }
    }

    /// Finds the part of the download, or creates it, and locks it.
    pub(super) fn find(&self) -> Result<Found, StoreError> {
        let mut places = self.places()?;
        places.check_path()?;
        let names = Names::of(self.file);
        places.put_back(&names.old)?;
        if places.final_stat()?.is_some() && self.replaced.is_none() {
            return Err(StoreError::NameTaken);
        }
        let parts = places.make_parts()?;
        let begun = match dir::open_regular(parts, &names.part)? {
            None => dir::open_regular(parts, &names.spent)?,
            part => part,
        };
        let is_new = begun.is_none();
        let part = match begun {
            Some(part) => part,
            None => dir::create(parts, &names.part)?,
        };
        match sys::flock(&part, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse),
            Err(error) => return Err(error.into()),
        }
        // Only under the lock: a running download may be putting its tree in place.
        dir::rename_if_there(parts, &names.spent, &names.part)?;
        // A state that can't be read is treated as a damaged one.
        let bytes = dir::read_small(parts, &names.state, State::size(self.manifest.layout()));
        let state = bytes.ok().flatten().and_then(|bytes| State::decode(&bytes, &self.subject()));
        Ok(Found { places, names, part, is_new, state: state.filter(|_| !is_new) })
    }

    /// The permissions that the complete file does not get.
    pub(super) fn umask(&self) -> u32 {
        self.umask
    }

    /// The bytes on its file system that are meant for others.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }
}

/// The part of a download that was found or created, and is locked.
pub(super) struct Found {
    pub(super) places: Places,
    pub(super) names: Names,
    pub(super) part: File,
    pub(super) is_new: bool,
    /// The state of an earlier run.
    pub(super) state: Option<State>,
}

/// Deletes what an unfinished download of `file` to `destination` left behind. What somebody else put in its
/// place is set aside.
///
/// # Errors
/// Fails when the directory can't be changed.
pub fn discard(file: FileId, destination: &Path) -> Result<(), StoreError> {
    let Names { part, state, tree: unfinished, spent, old } = Names::of(file);
    let directory = match Directory::of(destination) {
        // The directory was deleted, or its drive is not attached.
        Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        directory => directory?,
    };
    let places = Places::of(&directory, destination)?;
    places.put_back(&old)?;
    if let Ok(parts) = places.parts() {
        tree::remove_tree(parts, &unfinished)?;
        tree::remove_tree(parts, &old)?;
    }
    places.remove(&[&part, &spent, &state, &format!("{state}.new")])
}

/// Makes the complete file at `destination` the unfinished data of `file` again. Its name is free then, so
/// nobody takes it for a complete file before a download has checked every piece and put it back. What an
/// earlier download left there is deleted.
///
/// # Errors
/// [`StoreError::Unrepairable`] if it is not a regular file of this user with one name. The file stays in
/// place then.
pub fn take_back(file: FileId, destination: &Path) -> Result<(), StoreError> {
    let Names { part, state, .. } = Names::of(file);
    Places::of(&Directory::of(destination)?, destination)?.take_back(&part, &[&part, &state])
}

impl FsStore {
    /// Returns the same store with another way to bring its data to the disk. Tests use it to simulate a
    /// failing disk.
    #[must_use]
    pub fn with_sync(self, sync: fn(&File) -> io::Result<()>) -> Self {
        Self { sync, ..self }
    }

    /// As on a system that has no watch left.
    #[cfg(test)]
    pub(super) fn without_watch(self) -> Self {
        Self { watch: Mutex::new(Watch::none()), ..self }
    }

    fn begin(&self, reserved: u64) -> Result<(), StoreError> {
        let length = self.ledger.subject.layout.length();
        let claimed = self.unverified();
        let had: u64 = claimed
            .iter(self.ledger.subject.layout)
            .map(|p| u64::from(self.ledger.subject.layout.piece_length(p)))
            .sum();
        let missing = length - had;
        if missing > 0 && self.places.room()? < missing.saturating_add(reserved) {
            return Err(StoreError::Full);
        }
        if !self.has_length()? {
            sys::ftruncate(&self.part, length)?;
        }
        // Pieces may be written from here on, so a crash must not find the state of a clean stop.
        self.checkpoint(false)
    }

    fn has_length(&self) -> Result<bool, StoreError> {
        Ok(self.part.metadata()?.len() == self.ledger.subject.layout.length())
    }

    /// Gives the file the permissions that its caller's new files have.
    fn open_permissions(&self) -> Result<(), StoreError> {
        sys::fchmod(&self.part, Mode::from_raw_mode(0o666 & !self.umask))?;
        Ok(())
    }

    fn times(&self) -> Result<Times, StoreError> {
        let stat = sys::fstat(&self.part)?;
        Ok((stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec))
    }

    fn make_safe(&self, clean: bool) -> Result<(), StoreError> {
        let parts = self.places.parts()?;
        let saved = self.ledger.make_safe(parts, clean, || {
            if !dir::is_same(parts, &self.names.part, &self.part)? {
                return Err(StoreError::Tampered("it was replaced or deleted"));
            }
            (self.sync)(&self.part).map_err(StoreError::Unsynced)
        });
        if let Err(StoreError::Unsynced(_)) = &saved {
            // Unlocked, so that the part can be opened again while uploads still read from this store.
            let _ = sys::flock(&self.part, FlockOperation::Unlock);
        }
        saved
    }

    fn check_root(&self) -> Result<(), StoreError> {
        let have = self.have();
        let mut fold = RootFold::default();
        for (piece, hash) in self.ledger.subject.layout.indices().zip(self.manifest.pieces()) {
            if !have.contains(piece) {
                return Err(StoreError::Incomplete);
            }
            fold.push(hash.blake3);
        }
        if fold.finish() == self.ledger.subject.root { Ok(()) } else { Err(StoreError::Incomplete) }
    }
}

impl PieceReader for FsStore {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.part.read_exact_at(into, offset)
    }

    fn is_unchanged(&self, _: Range<u64>) -> bool {
        // The part's times change with every piece that is written, so they say nothing. A part that somebody
        // deleted is useless.
        sys::fstat(&self.part)
            .is_ok_and(|stat| stat.st_nlink > 0 && stat.st_size as u64 == self.ledger.subject.layout.length())
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.in_memory || raw::is_cached(&self.part, offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

impl recheck::Source for FsStore {
    fn advise(&self, bytes: Range<u64>, advice: Advice) {
        recheck::advise(&self.part, bytes, advice);
    }
}

impl PieceStore for FsStore {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        raw::write(&self.part, self.ledger.subject.layout.offset(piece), parts)?;
        self.ledger.wrote(piece)
    }

    fn have(&self) -> Bitfield {
        self.ledger.have()
    }

    fn wanted(&self) -> Bitfield {
        Bitfield::full(self.ledger.subject.layout)
    }

    fn unverified(&self) -> Bitfield {
        self.ledger.unverified()
    }

    fn recheck(&self, tell: Rechecked<'_>) {
        let pieces: Vec<PieceIndex> = self.unverified().iter(self.ledger.subject.layout).collect();
        recheck::recheck(self, &self.manifest, &self.ledger, &pieces, tell);
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        let saved = self.make_safe(clean);
        if clean {
            // Nothing is written any more. Uploads may still read from this store when the download is resumed.
            let _ = sys::flock(&self.part, FlockOperation::Unlock);
        }
        saved
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        if !self.has_length()? {
            // Another process cut it short, or made it longer.
            sys::ftruncate(&self.part, self.ledger.subject.layout.length())?;
        }
        // Nothing is written any more. Earlier changes are forgotten: the read that follows sees them.
        {
            let mut watch = self.watch.lock();
            watch.watch_writes(&self.part);
            watch.take();
        }
        *self.read_at.lock() = None;
        let times = self.times()?;
        let Some((sha1, pieces)) = hashing::hash_open(&self.part, self.ledger.subject.layout, progress)?
        else {
            return Err(StoreError::Tampered("it was cut short"));
        };
        let pairs = pieces.iter().zip(self.manifest.pieces()).zip(self.ledger.subject.layout.indices());
        let bad: Vec<PieceIndex> =
            pairs.filter(|((got, expected), _)| got != expected).map(|(_, piece)| piece).collect();
        let header = self.manifest.header();
        if bad.is_empty() {
            // All pieces are good but the whole is not: the manifest's author made the mistake, and no peer
            // has a better file.
            if sha1 != header.sha1 {
                return Err(StoreError::Incomplete);
            }
            self.check_root()?;
            *self.read_at.lock() = Some(times);
            return Ok(());
        }
        let mut claims = self.ledger.claims();
        for piece in bad {
            claims.lose_piece(piece);
        }
        Err(StoreError::Corrupt)
    }

    fn finish(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        for reads in 0..=REREADS {
            self.checkpoint(false)?;
            self.check_root()?;
            let seen = self.watch.lock().take();
            let read_at = *self.read_at.lock();
            // Also notices most writes through a memory mapping: see `watch`.
            let is_same = read_at.map(|times| Ok::<_, StoreError>(times == self.times()?)).transpose()?;
            match (seen, is_same) {
                // No watch notices a length that is changed by path.
                _ if !self.has_length()? => {}
                // Only this process wrote to it, and it checked what it wrote.
                (Seen::Nothing, None) => return self.put_in_place(),
                // Writes were watched while the whole was read, or can't be watched at all. Times alone never fail a
                // download: some file systems set them late.
                (Seen::Nothing | Seen::Opened | Seen::Unknown, Some(is_same))
                    if is_same || reads == REREADS =>
                {
                    return self.put_in_place();
                }
                _ => {}
            }
            tracing::info!(path = %self.destination.display(), ?seen, "the whole file is read again");
            self.verify(progress)?;
        }
        Err(StoreError::Tampered("another process writes to it again and again"))
    }

    fn discard(&self) -> Result<(), StoreError> {
        self.places.remove(&[&self.names.part, &self.names.state])
    }
}

impl FsStore {
    /// Gives the file its final name.
    fn put_in_place(&self) -> Result<Arc<dyn PieceReader>, StoreError> {
        self.places.check_path()?;
        self.open_permissions()?;
        match self.replaced.as_ref().filter(|replaced| replaced.original.path.exists()) {
            Some(replaced) => {
                replaced.check()?;
                self.places.replace(&self.names.part)?;
            }
            None => self.places.move_into_place(&self.names.part)?,
        }
        let stamp = FileStamp::of(&self.part.metadata()?);
        let shared = SharedFile::at(&self.destination, stamp)
            .map_err(|_| StoreError::Tampered("it changed while it was put in place"))?;
        self.places.remove_traces(&[&self.names.state], &self.destination);
        Ok(Arc::new(shared))
    }
}

/// Checks that `destination` can hold a file: an absolute path with a file name, in a directory that exists.
///
/// # Errors
/// The reason why not, for people.
pub fn check_destination(destination: &Path) -> Result<(), &'static str> {
    if !destination.is_absolute() {
        return Err("the path is not absolute");
    }
    let name = destination.file_name().ok_or("the path has no file name")?;
    if name.to_string_lossy().to_lowercase().starts_with(".minitorrent") {
        return Err("this name is reserved");
    }
    match destination.parent().map(Path::is_dir) {
        Some(true) => Ok(()),
        _ => Err("its directory does not exist"),
    }
}
