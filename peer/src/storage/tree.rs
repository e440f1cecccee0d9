//! The tree of a folder while it is being downloaded: the contents of its files, at their places.
//!
//! ```text
//! DIR/.minitorrent/<file id>.part     the pieces of the index (`folder.rs`)
//! DIR/.minitorrent/<file id>.tree     the tree: directories, and files as far as they are written
//! DIR/.minitorrent/<file id>.spent    the part, once the tree is complete and on disk
//! DIR/NAME                            the tree, at its final place
//! ```
//! A file is created when the first of its bytes arrives. Everything is opened below the root of the tree, and no
//! link is followed, so no path of the index can lead elsewhere. The tree lies in a directory of this user alone.
//! At most [`OPEN`] and [`UNSYNCED`] of its files are open at a time.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::domain::{
    Bitfield, Blake3, Manifest, PIECE_LENGTH, PieceLayout,
    folder::{
        Entry, EntryKind, FileEntry, Folder,
        contents::{Part, Segment},
    },
    manifest::RootFold,
};
use rustix::{
    fs::{self as sys, Advice, AtFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps},
    io::Errno,
};

use super::{
    Chosen, StoreError, dir, is_chosen, raw, recheck,
    watch::{Seen, Watch},
};
use crate::hashing::{
    FileStamp,
    below::{open_below, open_with},
};

/// The most files that are kept open for the next read or write.
const OPEN: usize = 16;
/// The most files that are kept open because their data is not on the disk yet. With more, the whole file system
/// is synced.
const UNSYNCED: usize = 4;
/// Bytes that are read at a time.
const READ: usize = 256 << 10;
/// A first file of this length is watched, so that it need not be read again at the end.
const WATCHED: u64 = 16 << 20;

/// The unfinished tree.
#[derive(Debug)]
pub(super) struct Tree {
    root: File,
    folder: Arc<Folder>,
    /// The entries that become part of the tree.
    chosen: Chosen,
    /// The permissions that files and directories do not get.
    umask: u32,
    /// The files that were used last, the latest at the end.
    open: Mutex<Vec<(usize, Arc<File>)>>,
    unsynced: Mutex<Unsynced>,
    first: Option<First>,
    in_memory: bool,
}

/// What has to be synced.
#[derive(Debug, Default)]
struct Unsynced {
    files: Vec<(usize, Arc<File>)>,
    /// Files were created, or more of them were written than are kept open.
    all: bool,
}

/// A long first file. Its bytes are the first of the virtual file, so its hash follows from those of the pieces.
/// Nobody else has opened it as long as the watch sees nothing.
#[derive(Debug)]
struct First {
    entry: usize,
    file: Arc<File>,
    watch: Watch,
    /// Somebody may have changed it.
    suspect: AtomicBool,
}

impl First {
    fn is_trusted(&self) -> bool {
        if self.watch.take() != Seen::Nothing {
            self.suspect.store(true, Ordering::Relaxed);
        }
        !self.suspect.load(Ordering::Relaxed)
    }
}

impl Tree {
    /// Opens the tree `name` in the directory, or begins it.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn open(
        parts: &File,
        name: &str,
        folder: Arc<Folder>,
        chosen: Chosen,
        umask: u32,
    ) -> Result<Self, StoreError> {
        let root = match make_directory(parts, name, 0o700) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
                return Err(StoreError::Tampered("its unfinished folder is not a directory"));
            }
            made => made?,
        };
        let mut tree = Self {
            in_memory: raw::lives_in_memory(&root),
            root,
            folder,
            chosen,
            umask,
            open: Mutex::default(),
            unsynced: Mutex::default(),
            first: None,
        };
        let first = tree.folder.contents().segments(0..1).next();
        if let Some(Segment { part: Part::File(entry), .. }) = first
            && tree.entry(entry).length >= WATCHED
            && is_chosen(&tree.chosen, entry)
        {
            let file = tree.file(entry, true)?;
            // The watch begins before any byte of the file is read.
            tree.first =
                Some(First { entry, watch: Watch::new(&file), file, suspect: AtomicBool::new(false) });
        }
        Ok(tree)
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Whether the tree is what has this name in the directory.
    pub(super) fn is_at(&self, parts: &File, name: &str) -> Result<bool, StoreError> {
        dir::is_same(parts, name, &self.root)
    }

    /// The entries that become part of it.
    pub(super) fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Whether nobody deleted it.
    pub(super) fn is_there(&self) -> bool {
        sys::fstat(&self.root).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Whether the data is always in memory.
    pub(super) fn lives_in_memory(&self) -> bool {
        self.in_memory
    }

    /// What the index says of a file. All callers pass the number of a file.
    fn entry(&self, entry: usize) -> FileEntry {
        match self.folder.entries()[entry].kind {
            EntryKind::File(file) => file,
            EntryKind::Link(_) | EntryKind::EmptyDirectory => {
                FileEntry { length: 0, executable: false, modified_ns: 0, blake3: Blake3::from([0; 32]) }
            }
        }
    }

    /// Fills `into` with the bytes of the virtual file from `offset` on, all of which are contents.
    ///
    /// # Errors
    /// `UnexpectedEof` or `NotFound` where nothing was written; else the disk's error.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut rest = into;
        for segment in self.folder.contents().segments(offset..offset + rest.len() as u64) {
            let Part::File(entry) = segment.part else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let (now, later) = rest.split_at_mut(segment.length as usize);
            self.file(entry, false)?.read_exact_at(now, segment.offset)?;
            rest = later;
        }
        Ok(())
    }

    /// Whether a read of these bytes will probably not wait for the disk.
    pub(super) fn is_cached(&self, offset: u64, length: usize) -> bool {
        let mut segments = self.folder.contents().segments(offset..offset + length as u64);
        let (Some(Segment { part: Part::File(entry), offset, .. }), None) =
            (segments.next(), segments.next())
        else {
            return false;
        };
        self.opened(entry).is_some_and(|file| raw::is_cached(&file, offset, length))
    }

    /// Tells the kernel how these bytes of the virtual file will be used. All are contents.
    pub(super) fn advise(&self, bytes: Range<u64>, advice: Advice) {
        for segment in self.folder.contents().segments(bytes) {
            let Part::File(entry) = segment.part else { return };
            // A file that was not created holds no data.
            if let Ok(file) = self.file(entry, false) {
                recheck::advise(&file, segment.offset..segment.offset + segment.length, advice);
            }
        }
    }

    /// Writes the parts at this offset of the virtual file. All are contents.
    ///
    /// # Errors
    /// [`StoreError::Full`]; [`StoreError::Tampered`]; else the disk's error.
    pub(super) fn write(&self, offset: u64, parts: &[Bytes]) -> Result<(), StoreError> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut rest = parts.iter().cloned().collect::<std::collections::VecDeque<_>>();
        for segment in self.folder.contents().segments(offset..offset + length) {
            let Part::File(entry) = segment.part else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            let own = take(&mut rest, segment.length as usize);
            let file = self.file(entry, true)?;
            raw::write(&file, segment.offset, &own)?;
            self.note_write(entry, &file);
        }
        Ok(())
    }

    fn note_write(&self, entry: usize, file: &Arc<File>) {
        let mut unsynced = self.unsynced.lock();
        if unsynced.all || unsynced.files.iter().any(|(other, _)| *other == entry) {
            return;
        }
        if unsynced.files.len() == UNSYNCED {
            *unsynced = Unsynced { all: true, files: Vec::new() };
        } else {
            unsynced.files.push((entry, file.clone()));
        }
    }

    /// Brings what was written since the last call to the disk with `sync`, or the whole file system.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`].
    pub(super) fn sync(&self, sync: fn(&File) -> io::Result<()>) -> Result<(), StoreError> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        let synced = if unsynced.all {
            // One call for all files. A call for each would wait for the disk as often as there are files.
            sys::syncfs(&self.root).map_err(io::Error::from)
        } else {
            unsynced.files.iter().try_for_each(|(_, file)| sync(file))
        };
        synced.map_err(StoreError::Unsynced)
    }

    /// Whether some of these contents were written. They may be wrong nevertheless.
    pub(super) fn has_data(&self, bytes: Range<u64>) -> bool {
        self.folder.contents().segments(bytes).any(|segment| {
            let Part::File(entry) = segment.part else { return false };
            let Ok(file) = self.file(entry, false) else { return false };
            match sys::seek(&file, SeekFrom::Data(segment.offset)) {
                Ok(data) => data < segment.offset + segment.length,
                Err(Errno::NXIO) => false,
                Err(_) => true,
            }
        })
    }

    /// The file if it is open.
    fn opened(&self, entry: usize) -> Option<Arc<File>> {
        if let Some(first) = self.first.as_ref().filter(|first| first.entry == entry) {
            return Some(first.file.clone());
        }
        let mut open = self.open.lock();
        let at = open.iter().position(|(other, _)| *other == entry)?;
        let found = open.remove(at);
        let file = found.1.clone();
        open.push(found);
        Some(file)
    }

    /// Opens a file, or creates it.
    fn file(&self, entry: usize, create: bool) -> Result<Arc<File>, io::Error> {
        if let Some(file) = self.opened(entry) {
            return Ok(file);
        }
        let path = self.folder.entries()[entry].path.as_str();
        let length = self.entry(entry).length;
        let flags = if create { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDWR };
        let file = match open_with(&self.root, path, flags) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                self.make_above(path)?;
                open_with(&self.root, path, flags)?
            }
            opened => opened?,
        };
        let found = file.metadata()?;
        if !found.is_file() || found.nlink() != 1 {
            return Err(io::Error::other(format!(
                "{path} in the unfinished folder is not what this peer wrote"
            )));
        }
        if create {
            self.fit(&file, length)?;
        }
        let file = Arc::new(file);
        // A file within a piece is not used again soon.
        if length > u64::from(PIECE_LENGTH) {
            let mut open = self.open.lock();
            if open.len() == OPEN {
                open.remove(0);
            }
            open.push((entry, file.clone()));
        }
        Ok(file)
    }

    /// Gives the file its length. Returns whether it had another: it is new, or was changed by somebody else.
    fn fit(&self, file: &File, length: u64) -> io::Result<bool> {
        if file.metadata()?.len() == length {
            return Ok(false);
        }
        file.set_len(length)?;
        self.unsynced.lock().all = true;
        Ok(true)
    }

    /// Makes the directories that the path lies in.
    fn make_above(&self, path: &str) -> io::Result<()> {
        let Some((directories, _)) = path.rsplit_once('/') else { return Ok(()) };
        let mut above: Option<File> = None;
        for name in directories.split('/') {
            let parent = above.as_ref().unwrap_or(&self.root);
            above = Some(make_directory(parent, name, 0o777 & !self.umask)?);
        }
        Ok(())
    }

    /// Makes everything but the contents: empty files, directories, links, permissions and times. Reads each file,
    /// and compares it with its hash. Returns the stamp that each file had before it was read, or the numbers of
    /// the files whose content is wrong.
    ///
    /// # Errors
    /// `Interrupted` when `progress` stopped it; else the disk's error.
    pub(super) fn complete(
        &self,
        manifest: &Manifest,
        progress: super::Progress<'_>,
    ) -> Result<Result<Vec<Option<FileStamp>>, Vec<usize>>, StoreError> {
        let mut stamps = Vec::with_capacity(self.folder.entries().len());
        let mut wrong = Vec::new();
        let mut buffer = vec![0; READ];
        let mut done = 0;
        for (number, entry) in self.folder.entries().iter().enumerate() {
            if !is_chosen(&self.chosen, number) {
                stamps.push(None);
                continue;
            }
            let EntryKind::File(expected) = &entry.kind else {
                self.make(entry)?;
                stamps.push(None);
                continue;
            };
            let file = self.file(number, true)?;
            // It may have been open all the time.
            let was_cut = self.fit(&file, expected.length)?;
            self.set_attributes(&file, expected)?;
            stamps.push(Some(FileStamp::of(&file.metadata()?)));
            let is_known = |first: &&First| first.entry == number && !was_cut && first.is_trusted();
            let blake3 = match self.first.as_ref().filter(is_known) {
                Some(first) => hash_of_first(&first.file, expected.length, manifest)?,
                None => hash(&file, &mut buffer, &mut |bytes| {
                    done += bytes;
                    progress(done).is_continue()
                })?,
            };
            if blake3 != expected.blake3 {
                wrong.push(number);
            }
        }
        self.unsynced.lock().all = true;
        Ok(if wrong.is_empty() { Ok(stamps) } else { Err(wrong) })
    }

    /// Whether all files still have these stamps.
    pub(super) fn is_unchanged(&self, stamps: &[Option<FileStamp>]) -> bool {
        self.folder.entries().iter().zip(stamps).all(|(entry, stamp)| {
            let now = || open_below(&self.root, entry.path.as_str()).and_then(|file| file.metadata());
            stamp.is_none_or(|stamp| now().is_ok_and(|found| FileStamp::of(&found) == stamp))
        })
    }

    /// Removes what these pieces hold of entries that were not chosen, and the directories that were made for them.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn remove_others(&self, layout: PieceLayout, pieces: &Bitfield) -> Result<(), StoreError> {
        if self.chosen.is_none() {
            return Ok(());
        }
        self.open.lock().retain(|(entry, _)| is_chosen(&self.chosen, *entry));
        let segments =
            pieces.iter(layout).flat_map(|piece| self.folder.contents().segments(layout.range(piece)));
        let mut last = None;
        for segment in segments {
            let Part::File(entry) = segment.part else { continue };
            if last.replace(entry) != Some(entry) && !is_chosen(&self.chosen, entry) {
                self.remove_entry(self.folder.entries()[entry].path.as_str())?;
            }
        }
        self.unsynced.lock().all = true;
        Ok(())
    }

    /// Removes a file, and the directories above it that are empty then.
    fn remove_entry(&self, path: &str) -> Result<(), StoreError> {
        let (mut path, mut flags) = (path, AtFlags::empty());
        loop {
            let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
            let above = match directories {
                "" => self.root.try_clone()?,
                path => match open_with(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    above => above?,
                },
            };
            match sys::unlinkat(&above, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if directories.is_empty() {
                return Ok(());
            }
            (path, flags) = (directories, AtFlags::REMOVEDIR);
        }
    }

    /// Gives the root the permissions of a new directory.
    pub(super) fn open_permissions(&self) -> Result<(), StoreError> {
        Ok(open_permissions(&self.root, 0o777 & !self.umask)?)
    }

    /// Makes a link or an empty directory. An earlier run may have made it.
    fn make(&self, entry: &Entry) -> Result<(), StoreError> {
        let path = entry.path.as_str();
        self.make_above(path)?;
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = match directories {
            "" => self.root.try_clone()?,
            path => open_with(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?,
        };
        if let EntryKind::Link(target) = &entry.kind {
            match sys::symlinkat(target.as_str(), &above, name) {
                Err(Errno::EXIST) => {
                    sys::unlinkat(&above, name, AtFlags::empty())?;
                    sys::symlinkat(target.as_str(), &above, name)?;
                }
                made => made?,
            }
        } else {
            make_directory(&above, name, 0o777 & !self.umask)?;
        }
        Ok(())
    }

    /// Sets the permissions and the modification time of a file.
    fn set_attributes(&self, file: &File, entry: &FileEntry) -> Result<(), StoreError> {
        let mode = if entry.executable { 0o777 } else { 0o666 };
        sys::fchmod(file, Mode::from_raw_mode(mode & !self.umask))?;
        let modified = Timespec {
            tv_sec: entry.modified_ns.div_euclid(1_000_000_000),
            tv_nsec: entry.modified_ns.rem_euclid(1_000_000_000),
        };
        sys::futimens(file, &Timestamps { last_access: modified, last_modification: modified })?;
        Ok(())
    }
}

/// Takes the next bytes from the front, without a copy.
fn take(rest: &mut std::collections::VecDeque<Bytes>, mut length: usize) -> Vec<Bytes> {
    let mut taken = Vec::new();
    while length > 0
        && let Some(front) = rest.front_mut()
    {
        let part = front.split_to(length.min(front.len()));
        length -= part.len();
        if front.is_empty() {
            rest.pop_front();
        }
        taken.push(part);
    }
    taken
}

/// Reads a file from its start to its end. `go_on` is called with the length of each read.
fn hash(file: &File, buffer: &mut [u8], go_on: &mut dyn FnMut(u64) -> bool) -> io::Result<Blake3> {
    let mut blake3 = blake3::Hasher::new();
    let mut offset = 0;
    loop {
        match file.read_at(buffer, offset) {
            Ok(0) => return Ok(Blake3::from(*blake3.finalize().as_bytes())),
            Ok(length) => {
                blake3.update(&buffer[..length]);
                offset += length as u64;
                if !go_on(length as u64) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The hash of a first file of several pieces: the fold of those that lie in it, and of its last bytes, which may
/// share a piece with the next file.
fn hash_of_first(file: &File, length: u64, manifest: &Manifest) -> io::Result<Blake3> {
    let piece = u64::from(PIECE_LENGTH);
    let mut fold = RootFold::default();
    let whole = length / piece;
    manifest.pieces().iter().take(whole as usize).for_each(|hash| fold.push(hash.blake3));
    if !length.is_multiple_of(piece) {
        use blake3::hazmat::HasherExt as _;
        let mut last = vec![0; (length % piece) as usize];
        file.read_exact_at(&mut last, whole * piece)?;
        let mut blake3 = blake3::Hasher::new();
        blake3.set_input_offset(whole * piece).update(&last);
        fold.push(blake3.finalize_non_root().into());
    }
    Ok(fold.finish())
}

/// Makes a directory with these permissions, or opens the one that is there.
fn make_directory(parent: &File, name: &str, mode: u32) -> io::Result<File> {
    let is_new = match sys::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = File::from(sys::openat(parent, name, flags, Mode::empty())?);
    if is_new {
        open_permissions(&directory, mode)?;
    }
    Ok(directory)
}

/// Sets the permissions of a directory, and keeps the setgid bit that it inherited.
fn open_permissions(directory: &File, mode: u32) -> io::Result<()> {
    let inherited = sys::fstat(directory)?.st_mode & 0o7000;
    sys::fchmod(directory, Mode::from_raw_mode(inherited | mode))?;
    Ok(())
}

/// Deletes a tree in the directory, if there is one. Links in it are deleted, not followed.
pub(super) fn remove_tree(parts: &File, name: &str) -> Result<(), StoreError> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}/{name}", parts.as_raw_fd());
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // This peer did not make it.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Ok(sys::unlinkat(parts, name, AtFlags::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}
