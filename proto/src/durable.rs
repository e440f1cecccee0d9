//! Small files that are whole or not there at every moment, also over a power cut: written beside, synced, renamed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufWriter, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Everybody.
    All,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

/// Makes a directory (and its parents) that only its owner can enter. One that is there stays as it is.
///
/// # Errors
/// When it can't be made, or is not a directory.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Puts `bytes` at `path` in place of what was there, and returns once they are on disk.
///
/// # Errors
/// As the file system has it; the old content then stays.
pub fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    write_with(path, readers, |file| file.write_all(bytes))
}

/// As [`write()`], for what is better not held in memory whole: `fill` writes it piece by piece.
///
/// # Errors
/// As [`write()`], and what `fill` says.
pub fn write_with(
    path: &Path,
    readers: Readers,
    fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // What a crash left behind; it was never the file.
    remove_if_there(beside.as_ref())?;
    let file = OpenOptions::new().write(true).create_new(true).mode(readers.mode()).open(&beside)?;
    // The process's mask may have taken from the mode; it can't have added to it.
    file.set_permissions(Permissions::from_mode(readers.mode()))?;
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    file.into_inner()?.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The content of `path`; `None` if there is no such file.
///
/// # Errors
/// As the file system has it.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    present(fs::read(path))
}

/// The text of a file that only its owner should read; `None` if there is none. One that others may read is taken
/// from them, with a warning.
///
/// # Errors
/// As the file system has it, and when it is not UTF-8.
pub fn read_secret_if_there(path: &Path) -> io::Result<Option<String>> {
    let Some(mut file) = present(File::open(path))? else { return Ok(None) };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read this secret; its permissions are 0600 from now on");
        file.set_permissions(Permissions::from_mode(Readers::Owner.mode()))?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Deletes `path`, if it is there.
///
/// # Errors
/// As the file system has it.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    present(fs::remove_file(path)).map(|_| ())
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_replaces_the_old_with_its_permissions() {
        let home = tempfile::tempdir().expect("a directory");
        let inner = home.path().join("a/b");
        private_dir(&inner).expect("made");
        let path = inner.join("f");
        fs::write(inner.join("f.new"), "left by a crash").expect("written");
        assert_eq!(read_if_there(&path).expect("no error"), None);
        for content in [&b"one"[..], b"two"] {
            write(&path, content, Readers::Owner).expect("written");
            assert_eq!(read_if_there(&path).expect("read").as_deref(), Some(content));
            assert_eq!((mode(&path), mode(&inner)), (0o600, 0o700));
        }
        write(&path, b"three", Readers::All).expect("written");
        assert_eq!(mode(&path), 0o644);
        remove_if_there(&path).expect("removed");
        remove_if_there(&path).expect("nothing to do");
        assert_eq!(fs::read_dir(&inner).expect("listed").count(), 0, "nothing is left beside");
    }

    #[test]
    fn a_secret_is_taken_from_others() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("secret");
        assert_eq!(read_secret_if_there(&path).expect("no error"), None);
        write(&path, b"one", Readers::All).expect("written");
        assert_eq!(read_secret_if_there(&path).expect("read").as_deref(), Some("one"));
        assert_eq!(mode(&path), 0o600);
    }
}
