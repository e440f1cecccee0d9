//! Folders on disk: their bytes as one virtual file, and the manifest of it.
//!
//! One read of all files gives everything: the SHA-1 and BLAKE3 of the pieces, the SHA-1 of the whole, and the
//! BLAKE3 of each file, which the index at the end holds.

mod survey;

use std::{
    fs::File,
    io,
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use proto::{
    convert::folder::{encode_index, index_length},
    domain::{
        Bitfield, Blake3, FileHeader, FileName, Manifest, PieceHash, PieceLayout, Sha1,
        folder::{Entry, EntryKind, FileEntry, Folder, FolderShape, contents::Part},
        manifest::RootFold,
    },
};
pub use survey::WrongFile;
pub(crate) use survey::{Survey, survey};

use super::{
    FileStamp, HashError, Hashed, Progress,
    below::{open_below, open_root},
    hash_pieces,
    scan::{ScanOptions, scan},
};
use crate::storage::{Chosen, is_chosen};

/// Bytes that are read at a time of a single file.
const READ: usize = 256 << 10;

/// Reads the folder at `root` once, and returns the manifest that it has under `name`, and its files.
/// Blocks: not for async tasks.
///
/// # Errors
/// Those of [`scan`]; [`HashError::Changing`] when the folder changes during the read twice in a row;
/// [`HashError::Stopped`].
pub(crate) fn manifest_of_folder(
    root: &Path,
    name: &FileName,
    options: &ScanOptions,
    progress: Progress<'_>,
) -> Result<(Hashed, FolderFiles), HashError> {
    for _ in 0..2 {
        let scanned = scan(root, options)?;
        let layout =
            PieceLayout::new(scanned.folder.contents().length() + index_length(scanned.folder.entries()));
        let layout = layout.ok_or_else(|| HashError::TooLong(root.to_owned()))?;
        if let Some((manifest, files)) = hash_once(root, name, scanned.folder, layout, progress)? {
            let stamp = files.stamp().map_err(|error| stopped_or(root, error))?;
            let folder = Some(files.folder().clone());
            return Ok((Hashed { manifest, stamp, folder, skipped: scanned.skipped }, files));
        }
    }
    Err(HashError::Changing(root.to_owned()))
}

fn stopped_or(path: &Path, error: io::Error) -> HashError {
    match error.kind() {
        io::ErrorKind::Interrupted => HashError::Stopped(path.to_owned()),
        io::ErrorKind::NotFound => HashError::NotFound(path.to_owned()),
        _ => HashError::Io(path.to_owned(), error),
    }
}

/// Returns `None` when the folder changed meanwhile.
fn hash_once(
    root: &Path,
    name: &FileName,
    folder: Folder,
    layout: PieceLayout,
    progress: Progress<'_>,
) -> Result<Option<(Manifest, FolderFiles)>, HashError> {
    let directory = open_root(root).map_err(|error| stopped_or(root, error))?;
    let mut reading = Reading { directory, folder, current: None, index: None };
    let hashed = hash_pieces(layout, &mut |offset, into| reading.read(offset, into), progress);
    let hashed = match hashed {
        // It was deleted, or replaced by a link or a directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        hashed => hashed.map_err(|error| stopped_or(root, error))?,
    };
    let Some((sha1, pieces)) = hashed else { return Ok(None) };
    // The lengths of all files must still be those of the scan.
    let folder = Arc::new(reading.folder);
    let Ok(files) = FolderFiles::find(root, folder.clone(), None) else { return Ok(None) };
    let header = header(name, layout, sha1, &pieces, &folder);
    Ok(Manifest::new(header, pieces).ok().map(|manifest| (manifest, files)))
}

fn header(
    name: &FileName,
    layout: PieceLayout,
    sha1: Sha1,
    pieces: &[PieceHash],
    folder: &Folder,
) -> FileHeader {
    let mut fold = RootFold::default();
    pieces.iter().for_each(|hash| fold.push(hash.blake3));
    let index_length = layout.length() - folder.contents().length();
    let shape = FolderShape { files: folder.files(), index_length };
    FileHeader { name: name.clone(), layout, sha1, blake3: fold.finish(), folder: Some(shape) }
}

/// Reads a folder's virtual file in order, and hashes each file on the way.
struct Reading {
    directory: File,
    folder: Folder,
    current: Option<CurrentFile>,
    /// Made when the first byte of it is read: it holds the hashes of all files.
    index: Option<Vec<u8>>,
}

struct CurrentFile {
    entry: usize,
    file: File,
    blake3: blake3::Hasher,
}

impl Reading {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let segments: Vec<_> = self.folder.contents().segments(offset..offset + into.len() as u64).collect();
        let mut rest = into;
        for segment in segments {
            let (now, later) = rest.split_at_mut(segment.length as usize);
            match segment.part {
                Part::File(entry) => self.read_file(entry, segment.offset, now)?,
                Part::Index => self.read_index(segment.offset, now)?,
            }
            rest = later;
        }
        Ok(())
    }

    fn read_file(&mut self, entry: usize, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|current| current.entry != entry) {
            let file = open_below(&self.directory, self.folder.entries()[entry].path.as_str())?;
            self.current = Some(CurrentFile { entry, file, blake3: blake3::Hasher::new() });
        }
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        current.file.read_exact_at(into, offset)?;
        current.blake3.update(into);
        let range = self.folder.contents().range(entry);
        if offset + into.len() as u64 == range.end - range.start {
            let hash = Blake3::from(*current.blake3.finalize().as_bytes());
            self.folder.set_blake3(entry, hash);
        }
        Ok(())
    }

    fn read_index(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let index = self.index.get_or_insert_with(|| encode_index(&self.folder));
        copy_from(index, offset, into)
    }
}

fn copy_from(bytes: &[u8], offset: u64, into: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let bytes = bytes.get(start..start.saturating_add(into.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
    into.copy_from_slice(bytes);
    Ok(())
}

/// The bytes of a folder on disk, as its virtual file. Holds nothing open, unless it is [`opened`](Self::opened).
#[derive(Debug)]
pub(crate) struct FolderFiles {
    known: Arc<Known>,
    open: Option<OpenFolder>,
}

/// What is known of a folder on disk.
#[derive(Debug)]
struct Known {
    root: PathBuf,
    folder: Arc<Folder>,
    index: Vec<u8>,
    /// The stamp of each entry that is a file.
    stamps: Vec<Option<FileStamp>>,
    /// The others were not downloaded, and are not missed.
    chosen: Chosen,
}

/// A folder that is being read: its directory, and the file that was read last.
#[derive(Debug)]
struct OpenFolder {
    directory: File,
    last: Mutex<Option<(usize, Arc<File>)>>,
}

impl FolderFiles {
    /// Finds the folder at `root`, which must have these files with these lengths. Their content is not read.
    ///
    /// # Errors
    /// [`HashError::Mismatch`] with the file that is not as the folder says; [`HashError::NotFound`];
    /// [`HashError::Io`].
    pub(crate) fn find(root: &Path, folder: Arc<Folder>, chosen: Chosen) -> Result<Self, HashError> {
        let directory = open_root(root).map_err(|error| stopped_or(root, error))?;
        let mut stamps = Vec::with_capacity(folder.entries().len());
        for (number, entry) in folder.entries().iter().enumerate() {
            let EntryKind::File(file) = &entry.kind else {
                stamps.push(None);
                continue;
            };
            if !is_chosen(&chosen, number) {
                stamps.push(None);
                continue;
            }
            let path = root.join(entry.path.as_str());
            let found =
                stamp_in(&directory, entry.path.as_str()).map_err(|error| stopped_or(&path, error))?;
            let stamp = found.filter(|stamp| stamp.size() == file.length);
            stamps.push(Some(stamp.ok_or(HashError::Mismatch(path))?));
        }
        let index = encode_index(&folder);
        Ok(Self::known(root, folder, index, stamps, chosen))
    }

    /// As [`Self::find`], with the files that are not as the folder says. They never count as unchanged.
    ///
    /// # Errors
    /// [`HashError::NotFound`] or [`HashError::Io`] for the folder itself.
    pub(crate) fn look(
        root: &Path,
        folder: Arc<Folder>,
        chosen: Chosen,
    ) -> Result<(Self, Vec<WrongFile>), HashError> {
        let directory = open_root(root).map_err(|error| stopped_or(root, error))?;
        let mut stamps = Vec::with_capacity(folder.entries().len());
        let mut wrong = Vec::new();
        for (number, entry) in folder.entries().iter().enumerate() {
            let stamp = match &entry.kind {
                EntryKind::File(file) if is_chosen(&chosen, number) => {
                    let found = stamp_in(&directory, entry.path.as_str()).ok().flatten();
                    let right = found.filter(|stamp| stamp.size() == file.length);
                    if right.is_none() {
                        wrong.push(WrongFile { entry: number, stamp: found });
                    }
                    right
                }
                EntryKind::File(_) | EntryKind::Link(_) | EntryKind::EmptyDirectory => None,
            };
            stamps.push(stamp);
        }
        let index = encode_index(&folder);
        Ok((Self::known(root, folder, index, stamps, chosen), wrong))
    }

    /// The folder at `root`, which has this index, and whose chosen files have these stamps.
    pub(crate) fn known(
        root: &Path,
        folder: Arc<Folder>,
        index: Vec<u8>,
        stamps: Vec<Option<FileStamp>>,
        chosen: Chosen,
    ) -> Self {
        Self { known: Arc::new(Known { root: root.to_owned(), folder, index, stamps, chosen }), open: None }
    }

    /// The pieces that can be offered: all but those that a file touches that is wrong or was not chosen.
    pub(crate) fn pieces_without(&self, layout: PieceLayout, wrong: &[WrongFile]) -> Bitfield {
        let mut without = Bitfield::empty(layout);
        let others =
            (0..self.folder().entries().len()).filter(|entry| !is_chosen(&self.known.chosen, *entry));
        for entry in wrong.iter().map(|file| file.entry).chain(others) {
            self.folder().contents().add_pieces(entry, layout, &mut without);
        }
        let mut pieces = Bitfield::full(layout);
        without.iter(layout).for_each(|piece| {
            pieces.remove(piece);
        });
        pieces
    }

    /// Which of its entries are here, if not all are.
    pub(crate) fn chosen(&self) -> &Chosen {
        &self.known.chosen
    }

    /// The same folder, held open for reading much of it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn opened(&self) -> io::Result<Self> {
        let directory = open_root(&self.known.root)?;
        let open = Some(OpenFolder { directory, last: Mutex::new(None) });
        Ok(Self { known: self.known.clone(), open })
    }

    /// Whether it is held open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The path of the folder.
    pub(crate) fn root(&self) -> &Path {
        &self.known.root
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Arc<Folder> {
        &self.known.folder
    }

    /// Bytes of the virtual file.
    pub(crate) fn length(&self) -> u64 {
        self.folder().contents().length() + self.known.index.len() as u64
    }

    /// Fills `into` with the bytes of the virtual file from `offset` on.
    ///
    /// # Errors
    /// The disk's error; `UnexpectedEof` when a file is shorter.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let Some(open) = &self.open else { return self.opened()?.read(offset, into) };
        let mut rest = into;
        for segment in self.folder().contents().segments(offset..offset + rest.len() as u64) {
            let (now, later) = rest.split_at_mut(segment.length as usize);
            match segment.part {
                Part::File(entry) => open.file(&self.known, entry)?.read_exact_at(now, segment.offset)?,
                Part::Index => copy_from(&self.known.index, segment.offset, now)?,
            }
            rest = later;
        }
        Ok(())
    }

    /// Whether the files that hold these bytes are still those that were found.
    pub(crate) fn is_unchanged(&self, range: Range<u64>) -> bool {
        let Some(open) = &self.open else {
            return self.opened().is_ok_and(|opened| opened.is_unchanged(range));
        };
        let end = range.end.min(self.length());
        let is_unchanged = |entry: usize| {
            let path = self.folder().entries()[entry].path.as_str();
            let now = open_below(&open.directory, path).and_then(|file| file.metadata());
            now.is_ok_and(|metadata| Some(FileStamp::of(&metadata)) == self.known.stamps[entry])
        };
        self.folder().contents().segments(range.start..end).all(|segment| match segment.part {
            Part::File(entry) => is_unchanged(entry),
            Part::Index => true,
        })
    }

    /// The stamp of the whole folder: that of its directory, with a digest of its files' stamps in place of the
    /// times. A directory's own times say nothing about the content of the files.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn stamp(&self) -> io::Result<FileStamp> {
        let mut digest = blake3::Hasher::new();
        for stamp in self.known.stamps.iter().flatten() {
            stamp.digest(&mut digest);
        }
        let directory = FileStamp::of(&open_root(&self.known.root)?.metadata()?);
        Ok(directory.of_folder(self.length(), digest.finalize().as_bytes()))
    }

    /// The files that are not those that were found, with the stamps that they have now.
    ///
    /// # Errors
    /// The system's error for the folder itself.
    pub(crate) fn changed(&self) -> io::Result<Vec<WrongFile>> {
        let directory = open_root(&self.known.root)?;
        let entries = self.folder().entries().iter().zip(&self.known.stamps).enumerate();
        let is_file = |number, entry: &Entry| {
            matches!(entry.kind, EntryKind::File(_)) && is_chosen(&self.known.chosen, number)
        };
        let files = entries.filter(|(number, (entry, _))| is_file(*number, entry));
        let changed = files.filter_map(|(number, (entry, known))| {
            let stamp = stamp_in(&directory, entry.path.as_str()).ok().flatten();
            (stamp.is_none() || stamp != *known).then_some(WrongFile { entry: number, stamp })
        });
        Ok(changed.collect())
    }

    /// The same with other stamps for these files.
    pub(crate) fn with_stamps(&self, files: impl IntoIterator<Item = (usize, Option<FileStamp>)>) -> Self {
        let known = &self.known;
        let mut stamps = known.stamps.clone();
        files.into_iter().for_each(|(entry, stamp)| stamps[entry] = stamp);
        Self::known(&known.root, known.folder.clone(), known.index.clone(), stamps, known.chosen.clone())
    }

    /// Whether the content of a file has the hash that the folder says. The folder must be held open.
    fn has_content(&self, number: usize, progress: Progress<'_>) -> io::Result<bool> {
        let Some(open) = &self.open else { return self.opened()?.has_content(number, progress) };
        let entry = &self.folder().entries()[number];
        let EntryKind::File(FileEntry { length, blake3, .. }) = entry.kind else { return Ok(true) };
        let file = open_below(&open.directory, entry.path.as_str())?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ];
        let mut offset = 0;
        loop {
            match file.read_at(&mut buffer, offset) {
                Ok(0) => return Ok(offset == length && hasher.finalize().as_bytes() == blake3.as_bytes()),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if progress(offset).is_break() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// Reads these files, which changed. Returns the folder with the new stamps of those whose content is still what
    /// the folder says, and the others.
    ///
    /// # Errors
    /// The system's error for the folder itself.
    pub(crate) fn look_again(&self, changed: &[WrongFile]) -> io::Result<(Self, Vec<WrongFile>)> {
        let open = self.opened()?;
        let is_right = |file: &WrongFile| {
            file.stamp.is_some()
                && open.has_content(file.entry, &|_| ControlFlow::Continue(())).unwrap_or(false)
        };
        let (right, wrong): (Vec<_>, Vec<_>) = changed.iter().copied().partition(is_right);
        // A file that changes again has another stamp than the one from before it was read.
        Ok((self.with_stamps(right.iter().map(|file| (file.entry, file.stamp))), wrong))
    }

    /// The files that were found, with their stamps.
    fn stamps(&self) -> impl Iterator<Item = (usize, FileStamp)> + '_ {
        self.known.stamps.iter().enumerate().filter_map(|(entry, stamp)| Some((entry, (*stamp)?)))
    }

    /// The stamp that a file had when it was found.
    fn stamp_of(&self, entry: usize) -> Option<FileStamp> {
        self.known.stamps[entry]
    }
}

/// The stamp of the regular file at this path below a directory; `None` if something else is there.
fn stamp_in(directory: &File, path: &str) -> io::Result<Option<FileStamp>> {
    let metadata = open_below(directory, path)?.metadata()?;
    Ok(metadata.is_file().then(|| FileStamp::of(&metadata)))
}

impl OpenFolder {
    /// Opens the file, which must be the one that was found.
    fn file(&self, known: &Known, entry: usize) -> io::Result<Arc<File>> {
        if let Some((last, file)) = &*self.last.lock()
            && *last == entry
        {
            return Ok(file.clone());
        }
        let path = known.folder.entries()[entry].path.as_str();
        let file = open_below(&self.directory, path)?;
        if Some(FileStamp::of(&file.metadata()?)) != known.stamps[entry] {
            return Err(io::Error::other(format!("{path} in the folder has changed")));
        }
        let file = Arc::new(file);
        *self.last.lock() = Some((entry, file.clone()));
        Ok(file)
    }
}
