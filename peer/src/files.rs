//! Small durable files: private, and whole at every moment.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Makes a directory (and its parents) that only its owner can enter.
///
/// # Errors
/// When it can't be made, or is not a directory.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Puts `bytes` at `path`, readable by its owner alone: a reader sees the old content or the new, also after a power
/// cut.
///
/// # Errors
/// As the file system has it; the old content then stays.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("a file needs a name"))?.to_owned();
    name.push(".new");
    let fresh = directory.join(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

/// The content of `path`; `None` if there is no such file.
///
/// # Errors
/// As the file system has it.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    absent(fs::read(path))
}

/// Deletes `path`, if it is there.
///
/// # Errors
/// As the file system has it.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    absent(fs::remove_file(path)).map(|_| ())
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_private_and_replaces_the_old() {
        let home = tempfile::tempdir().expect("a directory");
        let inner = home.path().join("a/b");
        private_dir(&inner).expect("made");
        let path = inner.join("f");
        assert_eq!(read_if_there(&path).expect("no error"), None);
        for content in [&b"one"[..], b"two"] {
            write_private(&path, content).expect("written");
            assert_eq!(read_if_there(&path).expect("read").as_deref(), Some(content));
        }
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&inner)), (0o600, 0o700));
        remove_if_there(&path).expect("removed");
        remove_if_there(&path).expect("nothing to do");
        assert_eq!(fs::read_dir(&inner).expect("listed").count(), 0);
    }
}
