//! Complete files and folders that are shared in place. They are open only while they are read, so that an idle
//! share keeps no drive from being detached, and any number of shares need no open files.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::domain::{Bitfield, Manifest, PieceLayout, folder::Folder};

use super::{PieceReader, choose, raw};
use crate::hashing::{
    self, Damage, FileStamp, HashError, Progress,
    folder::{FolderFiles, WrongFile, manifest_of_folder, survey},
    open_regular,
    scan::ScanOptions,
};

/// A complete file or folder on disk, and what it should be.
#[derive(Clone, Debug)]
pub struct Original {
    /// Its path.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// The entries of the folder, if they are known. Without them the folder is listed and hashed anew.
    pub folder: Option<Arc<Folder>>,
    /// Patterns of the entries that are there. Empty for all.
    pub only: Vec<String>,
}

impl Original {
    /// Opens it without reading it. Returns `None` unless it has this stamp.
    pub fn open(&self, stamp: FileStamp) -> Option<Arc<dyn PieceReader>> {
        if self.manifest.header().folder.is_none() {
            let has_length = stamp.size() == self.manifest.layout().length();
            return has_length.then(|| SharedFile::at(&self.path, stamp).ok()).flatten().map(shared);
        }
        let folder = self.folder.clone()?;
        let chosen = choose(&folder, &self.only);
        let folder = SharedFolder::new(FolderFiles::find(&self.path, folder, chosen).ok()?).ok()?;
        (folder.stamp == stamp).then(|| shared(folder))
    }

    /// What is there now, whether it is right or not. For reading much of it.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub(super) fn reader_now(&self) -> Result<Arc<dyn PieceReader>, HashError> {
        let reader = match &self.folder {
            Some(folder) => shared(SharedFolder::new(
                FolderFiles::look(&self.path, folder.clone(), choose(folder, &self.only))?.0,
            )?),
            None => shared(SharedFile::at(&self.path, open_regular(&self.path)?.1)?),
        };
        let opened = reader.opened().map_err(|error| HashError::Io(self.path.clone(), error))?;
        Ok(opened.unwrap_or(reader))
    }

    /// Reads all of it, and checks every piece and the SHA-1 and BLAKE3 of the whole against the manifest.
    /// Blocks.
    ///
    /// # Errors
    /// [`HashError::Mismatch`] when it does not match the manifest; [`HashError::Stopped`] when `progress`
    /// stopped it; other errors when it can't be read.
    pub fn check(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, HashError> {
        let Examined { reader, damage } = self.examine(progress)?;
        match damage {
            None => Ok(reader),
            Some(damage) => Err(HashError::Mismatch(damage.first_path())),
        }
    }

    /// As [`Self::check`], but tells all that is wrong with it. Of a folder, what is right can be shared all the same.
    ///
    /// # Errors
    /// As [`Self::check`], if nothing of it can be shared.
    pub fn examine(&self, progress: Progress<'_>) -> Result<Examined, HashError> {
        if self.manifest.header().folder.is_none() {
            let (stamp, damage) = hashing::examine(&self.path, &self.manifest, progress)?;
            let reader = SharedFile::at(&self.path, stamp).map(shared)?;
            return Ok(Examined { reader, damage });
        }
        let Some(folder) = &self.folder else {
            let name = &self.manifest.header().name;
            let (hashed, files) = manifest_of_folder(&self.path, name, &ScanOptions::default(), progress)?;
            if hashed.manifest != *self.manifest {
                return Err(HashError::Mismatch(self.path.clone()));
            }
            return Ok(Examined { reader: SharedFolder::new(files).map(shared)?, damage: None });
        };
        let surveyed = survey(&self.path, &self.manifest, folder, choose(folder, &self.only), progress)?;
        let damage = surveyed.damage(&self.path);
        Ok(Examined { reader: SharedFolder::new(surveyed.files).map(shared)?, damage })
    }

    /// The stamp that it has now, as far as the entries are known.
    pub fn stamp_now(&self) -> Option<FileStamp> {
        match (&self.manifest.header().folder, &self.folder) {
            (Some(_), Some(folder)) => {
                FolderFiles::look(&self.path, folder.clone(), choose(folder, &self.only)).ok()?.0.stamp().ok()
            }
            _ => std::fs::metadata(&self.path).ok().map(|metadata| FileStamp::of(&metadata)),
        }
    }
}

/// What a check of a complete file or folder found.
pub struct Examined {
    /// What is there now.
    pub reader: Arc<dyn PieceReader>,
    /// What is wrong with it.
    pub damage: Option<Damage>,
}

fn shared(reader: impl PieceReader) -> Arc<dyn PieceReader> {
    Arc::new(reader)
}

/// A complete file. Its stamp shows whether it has changed.
#[derive(Clone, Debug)]
pub struct SharedFile {
    path: PathBuf,
    stamp: FileStamp,
}

/// A complete file that is being read.
#[derive(Debug)]
struct OpenFile {
    shared: SharedFile,
    file: File,
    in_memory: bool,
}

impl SharedFile {
    /// The file at `path`, which must have this stamp.
    ///
    /// # Errors
    /// [`HashError::Changing`] when it has another stamp; other errors when it is not a readable regular
    /// file.
    pub fn at(path: &Path, stamp: FileStamp) -> Result<Self, HashError> {
        let shared = Self::expected(path, stamp);
        shared.open_now()?;
        Ok(shared)
    }

    /// A file that is not at `path` now. It counts as unchanged once it is there with this stamp.
    pub(crate) fn expected(path: &Path, stamp: FileStamp) -> Self {
        Self { path: path.to_owned(), stamp }
    }

    fn open_now(&self) -> Result<OpenFile, HashError> {
        let (file, now) = open_regular(&self.path)?;
        if now != self.stamp {
            return Err(HashError::Changing(self.path.clone()));
        }
        Ok(OpenFile { in_memory: raw::lives_in_memory(&file), shared: self.clone(), file })
    }

    fn is_stamp_of(&self, found: io::Result<std::fs::Metadata>) -> bool {
        found.is_ok_and(|found| FileStamp::of(&found) == self.stamp)
    }
}

impl PieceReader for SharedFile {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.open_now().map_err(io::Error::other)?.read(offset, into)
    }

    fn is_unchanged(&self, _: Range<u64>) -> bool {
        self.is_stamp_of(std::fs::metadata(&self.path))
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        false
    }

    fn stamp(&self) -> Option<FileStamp> {
        Some(self.stamp)
    }

    fn opened(&self) -> io::Result<Option<Arc<dyn PieceReader>>> {
        Ok(Some(Arc::new(self.open_now().map_err(io::Error::other)?)))
    }
}

impl PieceReader for OpenFile {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn is_unchanged(&self, bytes: Range<u64>) -> bool {
        self.shared.is_unchanged(bytes) && self.shared.is_stamp_of(self.file.metadata())
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.in_memory || raw::is_cached(&self.file, offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        Some(self.shared.stamp)
    }
}

/// A complete folder. The stamps of its files show whether one has changed.
#[derive(Debug)]
pub(super) struct SharedFolder {
    files: FolderFiles,
    stamp: FileStamp,
}

impl SharedFolder {
    /// Shares these files.
    ///
    /// # Errors
    /// [`HashError::Io`] when the folder itself is gone.
    pub(super) fn new(files: FolderFiles) -> Result<Self, HashError> {
        let stamp = files.stamp().map_err(|error| HashError::Io(files.root().to_owned(), error))?;
        Ok(Self { files, stamp })
    }
}

impl PieceReader for SharedFolder {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.files.read(offset, into)
    }

    fn is_unchanged(&self, bytes: Range<u64>) -> bool {
        self.files.is_unchanged(bytes)
    }

    fn is_cached(&self, _: u64, _: usize) -> bool {
        // The bytes may lie in several files, which would have to be opened to ask.
        false
    }

    fn stamp(&self) -> Option<FileStamp> {
        Some(self.stamp)
    }

    fn opened(&self) -> io::Result<Option<Arc<dyn PieceReader>>> {
        if self.files.is_open() {
            return Ok(None);
        }
        Ok(Some(shared(Self { files: self.files.opened()?, stamp: self.stamp })))
    }

    fn folder(&self) -> Option<Arc<Folder>> {
        Some(self.files.folder().clone())
    }

    fn pieces_without(&self, layout: PieceLayout, wrong: &[WrongFile]) -> Option<Bitfield> {
        Some(self.files.pieces_without(layout, wrong))
    }

    fn changed_files(&self) -> io::Result<Vec<WrongFile>> {
        self.files.changed()
    }

    fn look_again(&self, changed: &[WrongFile]) -> io::Result<(Arc<dyn PieceReader>, Vec<WrongFile>)> {
        let (files, wrong) = self.files.look_again(changed)?;
        Ok((shared(Self::new(files).map_err(io::Error::other)?), wrong))
    }
}
