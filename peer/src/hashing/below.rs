//! Opens the files below a directory without following a symbolic link.

use std::{
    fs::File,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{self as sys, CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// Opens a directory for use with [`open_below`]. The path may be a symbolic link: a user may share a folder, or a
/// file, through a link of their own. What lies below is reached through none.
///
/// # Errors
/// The system's error.
pub(crate) fn open_root(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(sys::openat(CWD, path, flags, Mode::empty())?))
}

/// Opens what is at this path below a directory, for reading. `path` is relative and has neither `.` nor `..`. No
/// component may be a symbolic link. The open doesn't wait for the other end of a FIFO.
///
/// # Errors
/// `NotADirectory` or `FilesystemLoop` at a symbolic link; else the system's error.
pub(crate) fn open_below(root: &File, path: &str) -> io::Result<File> {
    open_with(root, path, OFlags::RDONLY)
}

/// As [`open_below`], with these flags. A new file is accessible to this user alone.
///
/// # Errors
/// As [`open_below`].
pub(crate) fn open_with(root: &File, path: &str, flags: OFlags) -> io::Result<File> {
    /// The kernel or the container refuses `openat2`.
    static ONE_BY_ONE: AtomicBool = AtomicBool::new(false);
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    if !ONE_BY_ONE.load(Ordering::Relaxed) {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(root, path, flags, mode, beneath) {
            // Some containers answer that this is not permitted.
            Err(Errno::NOSYS | Errno::PERM) => ONE_BY_ONE.store(true, Ordering::Relaxed),
            opened => return Ok(File::from(opened?)),
        }
    }
    open_one_by_one(root, path, flags, mode)
}

/// Opens one component of the path at a time.
fn open_one_by_one(root: &File, path: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
    let Some((directory, name)) = path.rsplit_once('/') else {
        return Ok(File::from(sys::openat(root, path, flags, mode)?));
    };
    let search = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: Option<File> = None;
    for component in directory.split('/') {
        at = Some(File::from(sys::openat(at.as_ref().unwrap_or(root), component, search, Mode::empty())?));
    }
    Ok(File::from(sys::openat(at.as_ref().unwrap_or(root), name, flags, mode)?))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("precious"), b"precious").expect("written");
        let inside = tempfile::tempdir().expect("a directory");
        let root = open_root(inside.path()).expect("opened");
        fs::create_dir(inside.path().join("d")).expect("made");
        fs::write(inside.path().join("d/file"), b"file").expect("written");
        symlink(outside.path(), inside.path().join("link")).expect("a link");
        symlink(outside.path().join("precious"), inside.path().join("d/direct")).expect("a link");
        let create = OFlags::RDWR | OFlags::CREATE;
        let flags = |flags| flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for path in ["link/precious", "d/direct", "link/new"] {
            assert!(open_below(&root, path).is_err(), "{path}");
            assert!(open_with(&root, path, create).is_err(), "{path}");
            assert!(open_one_by_one(&root, path, flags(OFlags::RDONLY), Mode::empty()).is_err(), "{path}");
            assert!(open_one_by_one(&root, path, flags(create), Mode::RUSR).is_err(), "{path}");
        }
        assert!(open_below(&root, "d/file").is_ok());
        assert!(open_one_by_one(&root, "d/file", flags(OFlags::RDONLY), Mode::empty()).is_ok());
        assert!(open_with(&root, "d/new", create).is_ok());
        assert_eq!(fs::read_dir(outside.path()).expect("it is there").count(), 1);
        let named = open_root(&inside.path().join("link")).expect("the user may name a link");
        assert!(open_below(&named, "precious").is_ok());
    }
}
