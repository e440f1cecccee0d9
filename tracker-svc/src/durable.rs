//! Small files that must be whole or not there: written beside, synced, renamed; secrets readable by their owner alone.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The owner alone may read it.
pub(crate) const SECRET: u32 = 0o600;
/// Everybody may read it.
pub(crate) const PUBLIC: u32 = 0o644;
/// No file of ours comes near this many bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Writes a file whole, with these permissions, and returns once it is on disk. What was there before is replaced.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    // What a crash left behind; it was never the file.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    // The process's mask may have taken from the mode; it can't have added to it.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Reads a text file; `None` when there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match File::open(path) {
        Ok(file) => Ok(Some(read_text(file)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a secret text file; `None` when there is none. One that others may read is taken from them, with a warning.
pub(crate) fn read_secret(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read this secret; its permissions are 0600 from now on");
        file.set_permissions(Permissions::from_mode(SECRET))?;
    }
    Ok(Some(read_text(file)?))
}

fn read_text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn writes_whole_files_with_their_permissions() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("secret");
        fs::write(directory.path().join("secret.tmp"), "left by a crash").expect("written");
        assert_eq!(read_secret(&path).expect("readable"), None);
        for contents in ["one", "two"] {
            write(&path, contents.as_bytes(), SECRET).expect("written");
            assert_eq!(read_secret(&path).expect("readable").as_deref(), Some(contents));
            assert_eq!(mode(&path), 0o600);
        }
        write(&path, b"three", PUBLIC).expect("written");
        assert_eq!(mode(&path), 0o644);
        assert_eq!(read_secret(&path).expect("readable").as_deref(), Some("three"));
        assert_eq!(mode(&path), 0o600, "taken from the others");
        assert_eq!(fs::read_dir(directory.path()).expect("listable").count(), 1);
    }
}
