//! Small files that are complete or absent at every moment, also after a power cut. A file is written under
//! another name, synced and renamed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufWriter, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The users that may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Only its owner.
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

/// Makes a directory (and its parents) that only its owner can enter. If the directory exists and belongs to
/// this user, it is closed to others.
///
/// A directory of another user is refused, even if this user may write to it: its owner can replace every
/// file in it at any time. The parent directories are the caller's choice and are not checked.
///
/// # Errors
/// Fails if the directory cannot be made, is not a directory, or belongs to another user.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let directory = own_dir(path)?;
    if directory.metadata()?.mode() & 0o077 != 0 {
        directory.set_permissions(Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a directory that belongs to this user.
///
/// # Errors
/// Fails if the directory cannot be opened, or belongs to another user.
pub fn own_dir(path: &Path) -> io::Result<File> {
    let directory = File::open(path)?;
    let found = directory.metadata()?;
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() != ours {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} belongs to user id {}, and this process runs as user id {ours}: run it as that user, or choose \
                 another directory",
                path.display(),
                found.uid()
            ),
        ));
    }
    Ok(directory)
}

/// Checks that only this user, root and the directory's group can replace a file in a directory that does not
/// belong to this program. For a secret that is written there by name.
///
/// # Errors
/// `PermissionDenied` if the directory belongs to neither this user nor root, or if every user can write to
/// it and it is not sticky. Also fails with the error of the file system.
pub fn check_shared_dir(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    let owners = [0, rustix::process::geteuid().as_raw()];
    let fault = if !owners.contains(&found.uid()) {
        format!("belongs to user id {}", found.uid())
    } else if found.mode() & 0o1002 == 0o002 {
        "can be written to by every user".to_owned()
    } else {
        return Ok(());
    };
    let path = path.display();
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("the directory {path} {fault}, who could replace files in it; choose another directory"),
    ))
}

/// Replaces the content of `path` with `bytes`. Returns when they are on disk. Several processes may do so at once: each
/// content is written as a whole, and the last one stays.
///
/// # Errors
/// Errors of the file system. The old content then stays.
pub fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    write_with(path, readers, |file| file.write_all(bytes))
}

/// Same as [`write()`], for content that should not be in memory as a whole: `fill` writes it in parts.
///
/// # Errors
/// Same as [`write()`], and any error of `fill`.
pub fn write_with(
    path: &Path,
    readers: Readers,
    fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let file = create_alone(beside, readers)?;
    // The process's umask may have removed bits from the mode. It cannot have added any.
    file.set_permissions(Permissions::from_mode(readers.mode()))?;
    let mut file = BufWriter::new(file);
    fill(&mut file)?;
    // Closed only after the renaming, because that gives up the lock.
    let file = file.into_inner()?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Makes a new file, and waits while another process or thread writes one of this name.
///
/// A writer holds a lock on its file from here until it has renamed it. So a file that can be locked, and still has this
/// name, was left by a crash. It was never more than half of a new content, and is removed.
fn create_alone(path: &Path, readers: Readers) -> io::Result<File> {
    loop {
        let made = OpenOptions::new().write(true).create_new(true).mode(readers.mode()).open(path);
        match made {
            Ok(file) => {
                lock(&file)?;
                // Another writer may have taken it for left over before it was locked.
                if is_named(&file, path)? {
                    return Ok(file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A link is not followed, and another user's file is not waited for. Whether they may be removed is
                // decided by the file system.
                let ours = rustix::process::geteuid().as_raw();
                let found = present(fs::symlink_metadata(path))?
                    .filter(|found| found.is_file() && found.uid() == ours);
                if found.is_none() {
                    remove_if_there(path)?;
                } else if let Some(other) = present(File::open(path))? {
                    lock(&other)?;
                    if is_named(&other, path)? {
                        remove_if_there(path)?;
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the lock of a file. Some file systems have none.
fn lock(file: &File) -> io::Result<()> {
    match file.lock() {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

/// Whether this open file has this name now.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, present(fs::symlink_metadata(path))?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
}

/// Returns the content of `path`, or `None` if the file does not exist.
///
/// # Errors
/// Errors of the file system.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    present(fs::read(path))
}

/// Returns the text of a file that only its owner should read, or `None` if it does not exist. If others can
/// read the file, their permissions are removed and a warning is logged.
///
/// # Errors
/// Errors of the file system, and text that is not UTF-8.
pub fn read_secret_if_there(path: &Path) -> io::Result<Option<String>> {
    let Some(mut file) = present(File::open(path))? else { return Ok(None) };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the file was readable by other users; its permissions were changed to 0600");
        file.set_permissions(Permissions::from_mode(Readers::Owner.mode()))?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text))
}

/// Deletes `path` if it exists.
///
/// # Errors
/// Errors of the file system.
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
    fn many_may_write_one_file_at_once() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("shared");
        fs::write(home.path().join("shared.new"), "left by a crash").expect("written");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..25 {
                        write(path, &[writer; 4_000], Readers::All).expect("written");
                        let found = read_if_there(path).expect("read").expect("always there");
                        assert_eq!(found, [found[0]; 4_000], "one writer's content as a whole");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(home.path()).expect("listed").count(), 1, "nothing is left beside");
    }

    #[test]
    fn a_directory_is_closed_to_others_or_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("open");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("ours");
        private_dir(&path).expect("ours");
        assert_eq!(mode(&path), 0o700);
        // `/` belongs to root. As root, the test gives a directory away.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("root may");
            path
        } else {
            "/".into()
        };
        let refused = private_dir(&foreign).expect_err("another user's");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(refused.to_string().contains("belongs to user id"), "{refused}");
    }

    #[test]
    fn a_directory_in_which_others_can_replace_files_is_no_place_for_a_secret() {
        let home = tempfile::tempdir().expect("a directory");
        for (mode, fits) in [(0o700, true), (0o775, true), (0o1777, true), (0o777, false), (0o702, false)] {
            fs::set_permissions(home.path(), Permissions::from_mode(mode)).expect("ours");
            assert_eq!(check_shared_dir(home.path()).is_ok(), fits, "{mode:o}");
        }
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).expect("ours");
        check_shared_dir(Path::new("/")).expect("root's");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(home.path(), Some(65_534), None).expect("root may");
            let refused = check_shared_dir(home.path()).expect_err("another user's");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
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
