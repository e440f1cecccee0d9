//! Directories by descriptor. Names are single components, and no link inside a directory is ever followed.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self as sys, Access, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, StatVfs},
    io::Errno,
};

use super::StoreError;

/// The name of the directory for unfinished data.
const PARTS: &str = ".minitorrent";

/// The directory of a destination, and the directory for unfinished data in it. Both stay the same even if
/// their paths change meanwhile.
#[derive(Debug)]
pub(super) struct Places {
    directory: Directory,
    /// The final name, a single component.
    name: PathBuf,
    parts: Option<File>,
}

/// A directory that is held open. Cheap to clone: all clones are the same open directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    open: Arc<File>,
}

impl Directory {
    /// Opens the directory of a destination. No component of its path may be a symbolic link. The caller that
    /// accepts a destination resolves the links that exist then, so a link that is found here was put there
    /// later.
    pub(super) fn of(destination: &Path) -> Result<Self, StoreError> {
        let path = destination.parent().filter(|path| path.is_absolute()).ok_or(Errno::INVAL)?;
        // One component at a time, because not every kernel and container has openat2 with
        // RESOLVE_NO_SYMLINKS.
        let search = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = File::from(sys::open("/", search, Mode::empty())?);
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            at = match sys::openat(&at, name, search, Mode::empty()) {
                Ok(next) => File::from(next),
                Err(Errno::NOTDIR | Errno::LOOP) if is_link(&at, name) => return Err(StoreError::Linked),
                Err(error) => return Err(error.into()),
            };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = Arc::new(File::from(sys::openat(&at, ".", flags, Mode::empty())?));
        Ok(Self { path: path.to_owned(), open })
    }

    /// The number of its file system; 0 if that can't be found out.
    pub(super) fn device(&self) -> u64 {
        sys::fstat(&self.open).map_or(0, |stat| stat.st_dev)
    }

    /// Checks that the path still leads to this directory, without a symbolic link.
    fn check_path(&self) -> Result<(), StoreError> {
        let here = sys::fstat(&self.open)?;
        match Self::of(&self.path.join("_")) {
            Ok(now) => {
                let there = sys::fstat(&now.open)?;
                let same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino);
                if same { Ok(()) } else { Err(StoreError::Displaced) }
            }
            Err(StoreError::Linked) => Err(StoreError::Displaced),
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::Displaced)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_link(dir: &File, name: &OsStr) -> bool {
    stat(dir, name)
        .ok()
        .flatten()
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

impl Places {
    /// The places of a destination in its directory. Creates nothing.
    pub(super) fn of(directory: &Directory, destination: &Path) -> Result<Self, StoreError> {
        let name = destination.file_name().map(PathBuf::from).ok_or(Errno::INVAL)?;
        let mut places = Self { directory: directory.clone(), name, parts: None };
        match places.open_parts() {
            Ok(parts) => places.parts = Some(parts),
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(places)
    }

    /// Checks that the destination's path still leads to the directory that is held open.
    ///
    /// # Errors
    /// [`StoreError::Displaced`] if it doesn't.
    pub(super) fn check_path(&self) -> Result<(), StoreError> {
        self.directory.check_path()
    }

    fn parent(&self) -> &File {
        &self.directory.open
    }

    /// Creates the directory for unfinished data if it doesn't exist.
    pub(super) fn make_parts(&mut self) -> Result<&File, StoreError> {
        if self.parts.is_none() {
            match sys::mkdirat(self.parent(), PARTS, Mode::RWXU) {
                Ok(()) => sys::fsync(self.parent())?,
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
        let parts = match sys::openat(self.parent(), PARTS, flags, Mode::empty()) {
            Ok(parts) => File::from(parts),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(StoreError::Tampered("the file .minitorrent is not a directory"));
            }
            Err(error) => return Err(error.into()),
        };
        // If others may write to the parent directory, they could have planted their own directory here.
        if sys::fstat(&parts)?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(StoreError::Tampered("the directory .minitorrent belongs to another user"));
        }
        Ok(parts)
    }

    /// The status of what has the final name, if anything.
    pub(super) fn final_stat(&self) -> Result<Option<Stat>, StoreError> {
        stat(self.parent(), &self.name)
    }

    /// The bytes that may still be written to the file system.
    pub(super) fn room(&self) -> Result<u64, StoreError> {
        Ok(usable(&sys::fstatvfs(self.parent())?))
    }

    /// Moves `part` to the final name if that is free, and syncs both directories.
    pub(super) fn move_into_place(&self, part: &str) -> Result<(), StoreError> {
        let parts = self.parts()?;
        match sys::renameat_with(parts, part, self.parent(), &self.name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(StoreError::NameTaken),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.move_by_link(part)?,
            Err(error) => return Err(error.into()),
        }
        sys::fsync(self.parent())?;
        sys::fsync(parts)?;
        Ok(())
    }

    /// Moves `part` on a file system that can't rename without overwriting. A second link refuses an existing name
    /// as well. A directory can't have one, but its rename overwrites nothing that has content.
    pub(super) fn move_by_link(&self, part: &str) -> Result<(), StoreError> {
        let parts = self.parts()?;
        let is_directory = stat(parts, part)?
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let moved = match is_directory {
            true if self.final_stat()?.is_some() => return Err(StoreError::NameTaken),
            true => sys::renameat(parts, part, self.parent(), &self.name),
            false => sys::linkat(parts, part, self.parent(), &self.name, AtFlags::empty())
                .and_then(|()| sys::unlinkat(parts, part, AtFlags::empty())),
        };
        match moved {
            Ok(()) => Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Err(StoreError::NameTaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves `part` to the final name, in place of the file that has it, and syncs both directories.
    pub(super) fn replace(&self, part: &str) -> Result<(), StoreError> {
        let parts = self.parts()?;
        sys::renameat(parts, part, self.parent(), &self.name)?;
        sys::fsync(self.parent())?;
        sys::fsync(parts)?;
        Ok(())
    }

    /// Exchanges `tree` with what has the final name, and syncs both directories. Where the file system can't do that,
    /// what had the final name is `old` afterwards. After a crash between these two steps, [`Self::put_back`] undoes the
    /// first.
    pub(super) fn exchange(&self, tree: &str, old: &str) -> Result<(), StoreError> {
        let parts = self.parts()?;
        match sys::renameat_with(parts, tree, self.parent(), &self.name, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                sys::renameat(self.parent(), &self.name, parts, old)?;
                if let Err(error) = sys::renameat(parts, tree, self.parent(), &self.name) {
                    self.put_back(old)?;
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        sys::fsync(self.parent())?;
        sys::fsync(parts)?;
        Ok(())
    }

    /// Gives what [`Self::exchange`] took away its final name again, if nothing has the name.
    pub(super) fn put_back(&self, old: &str) -> Result<(), StoreError> {
        let Ok(parts) = self.parts() else { return Ok(()) };
        if stat(parts, old)?.is_none() {
            return Ok(());
        }
        let moved = match sys::renameat_with(parts, old, self.parent(), &self.name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.move_by_link(old),
            Err(Errno::EXIST) => Err(StoreError::NameTaken),
            moved => moved.map_err(StoreError::from),
        };
        match moved {
            Ok(()) => Ok(sys::fsync(self.parent())?),
            Err(StoreError::NameTaken) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what is left of a download whose file is in place. Traces that can't be removed now do no harm.
    pub(super) fn remove_traces(&self, names: &[&str], destination: &Path) {
        if let Err(error) = self.remove(names) {
            tracing::warn!(%error, path = %destination.display(), "traces of a finished download are left");
        }
    }

    /// Moves what has the final name to `part`, after the names in `stale` were removed, and syncs both
    /// directories.
    pub(super) fn take_back(&mut self, part: &str, stale: &[&str]) -> Result<(), StoreError> {
        match open_regular(self.parent(), &self.name) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(Errno::NOENT.into()),
            Err(StoreError::Tampered(why)) => return Err(StoreError::Unrepairable(why)),
            Err(error) => return Err(error),
        }
        self.make_parts()?;
        self.remove(stale)?;
        // Removing the last name also removed the directory.
        self.parts = None;
        self.make_parts()?;
        let parts = self.parts()?;
        sys::renameat(self.parent(), &self.name, parts, part)?;
        sys::fsync(parts)?;
        sys::fsync(self.parent())?;
        Ok(())
    }

    /// Removes these names from the directory for unfinished data, and then the directory itself if it is
    /// empty.
    pub(super) fn remove(&self, names: &[&str]) -> Result<(), StoreError> {
        let Some(parts) = &self.parts else { return Ok(()) };
        for name in names {
            match sys::unlinkat(parts, *name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => set_aside(parts, name)?,
                Err(error) => return Err(error.into()),
            }
        }
        match sys::unlinkat(self.parent(), PARTS, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes that a download to `destination` could write, if this user may write there at all. Creates
/// nothing. If the directory does not exist yet, the nearest existing one above it counts.
///
/// # Errors
/// Fails when this user may not create files there; else the system's error.
pub fn room(destination: &Path) -> std::io::Result<u64> {
    let there = destination.ancestors().skip(1).find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    sys::accessat(sys::CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(usable(&sys::statvfs(there)?))
}

/// The number of the file system of a destination. If its directory does not exist yet, the nearest existing one
/// above it counts.
pub fn device(destination: &Path) -> Option<u64> {
    let there = destination.ancestors().skip(1).find(|path| path.is_dir())?;
    sys::stat(there).ok().map(|stat| stat.st_dev)
}

/// Makes a directory and those above it that are missing, with the permissions that a process with this umask
/// would give them. A directory inherits the group of one with the setgid bit, and the bit.
///
/// # Errors
/// The system's error.
pub fn make_directories(path: &Path, umask: u32) -> std::io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        match std::fs::create_dir(directory) {
            Ok(()) => {
                let inherited = std::fs::metadata(directory)?.permissions().mode() & 0o7000;
                let mode = std::fs::Permissions::from_mode(inherited | (0o777 & !umask));
                std::fs::set_permissions(directory, mode)?;
            }
            // Somebody else made it meanwhile.
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The free bytes without a reserve. The reserve is the larger of 256 MiB and 1 % of the file system, but at
/// most 5 % so that small volumes stay usable.
fn usable(stat: &StatVfs) -> u64 {
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let whole = bytes(stat.f_blocks);
    bytes(stat.f_bavail).saturating_sub((256 << 20).max(whole / 100).min(whole / 20))
}

/// Removes a directory, or gives it another name if something is in it: this peer did not make it.
fn set_aside(parts: &File, name: &str) -> Result<(), StoreError> {
    match sys::unlinkat(parts, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        removed => return Ok(removed?),
    }
    for number in 1..100 {
        let aside = format!("{name}.aside-{number}");
        if stat(parts, &aside)?.is_none() {
            return Ok(sys::renameat(parts, name, parts, &aside)?);
        }
    }
    Err(StoreError::Tampered("directories are in its place"))
}

/// The status of the entry of this name, without following a link. `None` when there is no such entry.
pub(super) fn stat(dir: &File, name: impl AsRef<Path>) -> Result<Option<Stat>, StoreError> {
    match sys::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a regular file of this user for reading and writing. `None` when there is none.
pub(super) fn open_regular(dir: &File, name: impl AsRef<Path>) -> Result<Option<File>, StoreError> {
    // NONBLOCK avoids a hang on a FIFO. It has no effect on regular files.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match sys::openat(dir, name.as_ref(), flags, Mode::empty()) {
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
        return Err(StoreError::Tampered("the file has another owner or a second name"));
    }
    Ok(Some(file))
}

/// Creates a new file for reading and writing, accessible to this user alone.
pub(super) fn create(dir: &File, name: &str) -> Result<File, StoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(sys::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Reads a small file whole. `None` when there is none, or when it is longer than `most` bytes.
pub(super) fn read_small(dir: &File, name: &str, most: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = open_regular(dir, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= most).then_some(bytes))
}

/// Replaces a file atomically: after a crash it holds either the old content or `bytes`.
pub(super) fn replace(dir: &File, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = format!("{name}.new");
    match sys::unlinkat(dir, &*temporary, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => set_aside(dir, &temporary)?,
        Err(error) => return Err(error.into()),
    }
    let mut file = create(dir, &temporary)?;
    file.write_all(bytes)?;
    sys::fsync(&file)?;
    match sys::renameat(dir, &*temporary, dir, name) {
        Err(Errno::ISDIR) => return Err(StoreError::Tampered("a directory is in the place of its state")),
        renamed => renamed?,
    }
    sys::fsync(dir)?;
    Ok(())
}

/// Renames a file within the directory, if it is there and the new name is free, and syncs the directory.
pub(super) fn rename_if_there(dir: &File, from: &str, to: &str) -> Result<(), StoreError> {
    if stat(dir, to)?.is_some() {
        return Ok(());
    }
    match sys::renameat(dir, from, dir, to) {
        Ok(()) => Ok(sys::fsync(dir)?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether this name in the directory is the open file.
pub(super) fn is_same(dir: &File, name: &str, file: &File) -> Result<bool, StoreError> {
    let open = sys::fstat(file)?;
    Ok(stat(dir, OsStr::new(name))?.is_some_and(|at| at.st_dev == open.st_dev && at.st_ino == open.st_ino))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn what_is_opened_here_is_not_inherited_by_other_programs() {
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("file");
        let directory = Directory::of(&destination).unwrap();
        let mut places = Places::of(&directory, &destination).unwrap();
        let parts = places.make_parts().unwrap();
        let created = create(parts, "new").unwrap();
        let found = open_regular(parts, "new").unwrap().unwrap();
        for file in [&*directory.open, parts, &created, &found] {
            assert!(fcntl_getfd(file).unwrap().contains(FdFlags::CLOEXEC), "{file:?}");
        }
    }

    #[test]
    fn a_path_through_a_file_is_not_taken_for_one_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let through = Directory::of(&dir.path().join("file/below"));
        assert!(
            matches!(through, Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotADirectory)
        );
    }

    #[test]
    fn a_small_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("small"), "12345").unwrap();
        let open = File::open(dir.path()).unwrap();
        assert_eq!(read_small(&open, "small", 5).unwrap().unwrap(), b"12345");
        assert_eq!(read_small(&open, "small", 4).unwrap(), None);
        assert_eq!(read_small(&open, "none", 5).unwrap(), None);
    }

    #[test]
    fn missing_directories_are_made_with_the_permissions_of_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let (above, below) = (dir.path().join("above"), dir.path().join("above/below"));
        make_directories(&below, 0o027).unwrap();
        assert_eq!((mode(&above), mode(&below)), (0o750, 0o750));
        std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o2700)).unwrap();
        make_directories(&above.join("group"), 0o022).unwrap();
        assert_eq!((mode(&above), mode(&above.join("group"))), (0o2700, 0o2755), "the bit is inherited");
        // The directory above the second one is made on the way to it.
        make_directories(&dir.path().join("first/../second"), 0o022).unwrap();
        assert!(dir.path().join("second").is_dir());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_directories(&dir.path().join("file"), 0o022).is_err());
    }

    /// A file at its final name, and the places of a download to that name.
    fn places(dir: &Path) -> Places {
        let destination = dir.join("file");
        std::fs::write(&destination, "complete").unwrap();
        let mut places = Places::of(&Directory::of(&destination).unwrap(), &destination).unwrap();
        places.make_parts().unwrap();
        places
    }

    fn content(path: PathBuf) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn two_names_are_exchanged_and_one_replaces_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (places, file, part) = (places(dir.path()), dir.path().join("file"), dir.path().join(PARTS));
        std::fs::write(part.join("new"), "new").unwrap();
        places.exchange("new", "old").unwrap();
        assert_eq!(
            (content(file.clone()), content(part.join("new"))),
            (Some("new".into()), Some("complete".into()))
        );
        places.replace("new").unwrap();
        assert_eq!((content(file.clone()), content(part.join("new"))), (Some("complete".into()), None));

        std::fs::write(part.join("old"), "old").unwrap();
        places.put_back("old").unwrap();
        assert_eq!(content(file.clone()), Some("complete".into()), "it has its name");
        std::fs::remove_file(&file).unwrap();
        places.put_back("old").unwrap();
        assert_eq!((content(file), content(part.join("old"))), (Some("old".into()), None));
    }

    #[test]
    fn a_complete_file_becomes_unfinished_data_and_what_was_left_there_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut places, part) = (places(dir.path()), dir.path().join(PARTS));
        std::fs::write(part.join("state"), "of another run").unwrap();
        std::fs::create_dir_all(part.join("part/mine")).unwrap();
        places.take_back("part", &["part", "state"]).unwrap();
        assert_eq!(
            (content(dir.path().join("file")), content(part.join("part"))),
            (None, Some("complete".into()))
        );
        assert!(!part.join("state").exists());
        assert!(part.join("part.aside-1/mine").exists(), "what this peer did not make is set aside");
    }

    #[test]
    fn a_directory_that_was_moved_away_is_not_at_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let before = dir.path().join("before");
        std::fs::create_dir(&before).unwrap();
        let places = places(&before);
        places.check_path().unwrap();
        std::fs::rename(&before, dir.path().join("after")).unwrap();
        assert!(matches!(places.check_path(), Err(StoreError::Displaced)));
    }

    #[test]
    fn a_destination_is_on_the_file_system_of_the_nearest_directory() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let number = std::fs::metadata(dir.path()).unwrap().dev();
        assert_eq!(Directory::of(&dir.path().join("file")).unwrap().device(), number);
        assert_eq!(device(&dir.path().join("none/below/file")), Some(number));
    }

    #[test]
    fn a_hundredth_is_kept_free_at_least_256_mib_and_at_most_a_twentieth() {
        let usable_of = |whole: u64| {
            let blocks = whole / 4_096;
            let stat = sys::statvfs("/").unwrap();
            usable(&StatVfs { f_frsize: 4_096, f_blocks: blocks, f_bavail: blocks, ..stat })
        };
        let (mib, gib) = (1 << 20, 1 << 30);
        assert_eq!(usable_of(100 * gib), 99 * gib);
        assert_eq!(usable_of(10 * gib), 10 * gib - 256 * mib);
        assert_eq!(usable_of(20 * mib), 19 * mib);
    }
}
