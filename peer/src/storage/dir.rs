//! Directories by descriptor: names are single components, and no link is ever followed inside.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self as sys, Access, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, StatVfs},
    io::Errno,
};

use super::StoreError;

/// The name of the directory with unfinished data.
const PARTS: &str = ".minitorrent";

/// The directory of a destination, and in it the one for unfinished data. Both stay the same whatever happens to their
/// paths meanwhile.
#[derive(Debug)]
pub(super) struct Places {
    parent: File,
    /// The final name: a single component.
    name: PathBuf,
    parts: Option<File>,
}

fn is_component(name: &Path) -> bool {
    let bytes = name.as_os_str().as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.contains(&b'/') && !bytes.contains(&0)
}

impl Places {
    /// Opens the destination's directory. Nothing is made.
    pub(super) fn open(destination: &Path) -> Result<Self, StoreError> {
        let name = destination.file_name().map(PathBuf::from).filter(|name| is_component(name));
        let (Some(parent), Some(name)) = (destination.parent(), name) else {
            return Err(Errno::INVAL.into());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = File::from(sys::open(parent, flags, Mode::empty())?);
        let mut places = Self { parent, name, parts: None };
        match places.open_parts() {
            Ok(parts) => places.parts = Some(parts),
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(places)
    }

    /// Makes the directory for unfinished data, if it isn't there.
    pub(super) fn make_parts(&mut self) -> Result<&File, StoreError> {
        if self.parts.is_none() {
            match sys::mkdirat(&self.parent, PARTS, Mode::RWXU) {
                Ok(()) => sys::fsync(&self.parent)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            self.parts = Some(self.open_parts()?);
        }
        self.parts()
    }

    /// The directory for unfinished data.
    pub(super) fn parts(&self) -> Result<&File, StoreError> {
        self.parts.as_ref().ok_or_else(|| Errno::NOENT.into())
    }

    fn open_parts(&self) -> Result<File, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parts = match sys::openat(&self.parent, PARTS, flags, Mode::empty()) {
            Ok(parts) => File::from(parts),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(StoreError::Tampered(".minitorrent is not a directory"));
            }
            Err(error) => return Err(error.into()),
        };
        // In a directory that others may write to, theirs could be planted there.
        if sys::fstat(&parts)?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Tampered(".minitorrent belongs to somebody else"));
        }
        Ok(parts)
    }

    /// What is at the final name.
    pub(super) fn final_stat(&self) -> Result<Option<Stat>, StoreError> {
        stat(&self.parent, &self.name)
    }

    /// Bytes that may still be written to the file system.
    pub(super) fn room(&self) -> Result<u64, StoreError> {
        Ok(usable(&sys::fstatvfs(&self.parent)?))
    }

    /// Moves `part` to the final name, if nothing is there, and makes both directories safe.
    pub(super) fn move_into_place(&self, part: &str) -> Result<(), StoreError> {
        let parts = self.parts()?;
        match sys::renameat_with(parts, part, &self.parent, &self.name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(StoreError::NameTaken),
            // The file system can't rename so: a second link refuses an existing name as well.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match sys::linkat(parts, part, &self.parent, &self.name, AtFlags::empty()) {
                    Ok(()) => sys::unlinkat(parts, part, AtFlags::empty())?,
                    Err(Errno::EXIST) => return Err(StoreError::NameTaken),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
        sys::fsync(&self.parent)?;
        sys::fsync(parts)?;
        Ok(())
    }

    /// Removes what is in the directory for unfinished data under these names, and the directory if it is empty then.
    pub(super) fn remove(&self, names: &[&str]) -> Result<(), StoreError> {
        let Some(parts) = &self.parts else { return Ok(()) };
        for name in names {
            match sys::unlinkat(parts, *name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match sys::unlinkat(&self.parent, PARTS, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Bytes that a download to `destination` could write, if it may write there at all. Nothing is made: of a directory
/// that is still to be made, the nearest one above it that is there tells.
///
/// # Errors
/// When this user may not make files there, or what the system says.
pub fn room(destination: &Path) -> std::io::Result<u64> {
    let there = destination.ancestors().skip(1).find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    sys::accessat(sys::CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(usable(&sys::statvfs(there)?))
}

/// What is free but for a reserve: 256 MiB or 1 % of the file system, whichever is more, but never over 5 %, lest a
/// small volume be of no use.
fn usable(stat: &StatVfs) -> u64 {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let whole = bytes(stat.f_blocks);
    bytes(stat.f_bavail).saturating_sub((256 << 20).max(whole / 100).min(whole / 20))
}

/// What is under the name in the directory, links not followed.
pub(super) fn stat(dir: &File, name: impl AsRef<Path>) -> Result<Option<Stat>, StoreError> {
    match sys::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a regular file of ours for reading and writing; `None` when there is nothing.
pub(super) fn open_regular(dir: &File, name: &str) -> Result<Option<File>, StoreError> {
    // Not to hang on a FIFO: NONBLOCK does nothing to regular files.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match sys::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            return Err(StoreError::Tampered("not a regular file"));
        }
        Err(error) => return Err(error.into()),
    };
    let stat = sys::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(StoreError::Tampered("not a regular file"));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_nlink != 1 {
        return Err(StoreError::Tampered("it has another owner or another name"));
    }
    Ok(Some(file))
}

/// Makes a new file for reading and writing, for this user alone.
pub(super) fn create(dir: &File, name: &str) -> Result<File, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(sys::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Reads a small file whole; `None` when there is none, or when it is longer than `most` bytes.
pub(super) fn read_small(dir: &File, name: &str, most: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = open_regular(dir, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= most).then_some(bytes))
}

/// Replaces a file whole and safely: after a crash it holds either what it held, or `bytes`.
pub(super) fn replace(dir: &File, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = format!("{name}.new");
    match sys::unlinkat(dir, &*temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut file = create(dir, &temporary)?;
    file.write_all(bytes)?;
    sys::fsync(&file)?;
    sys::renameat(dir, &*temporary, dir, name)?;
    sys::fsync(dir)?;
    Ok(())
}

/// Whether the name in the directory is the open file.
pub(super) fn is_same(dir: &File, name: &str, file: &File) -> Result<bool, StoreError> {
    let open = sys::fstat(file)?;
    Ok(stat(dir, OsStr::new(name))?.is_some_and(|at| at.st_dev == open.st_dev && at.st_ino == open.st_ino))
}
