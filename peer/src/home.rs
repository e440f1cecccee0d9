//! Where a peer keeps what it must remember, and how two daemons are kept apart.
//!
//! Everything lies in one directory that only its owner can enter. The lock on it decides who is the daemon of that
//! home; the Unix socket beside it is how verbs reach that daemon.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use proto::{domain::Username, durable};
use rustix::fs::FlockOperation;

/// Longest path of a Unix socket that is used, in bytes: `sun_path` holds 108, with the closing zero.
const MAX_SOCKET_PATH: usize = 100;
/// What the directories under the XDG ones are called.
const APPLICATION: &str = "minitorrent-peer";

/// The directories and files of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    state: PathBuf,
    config: PathBuf,
    socket: PathBuf,
}

/// Being the one daemon of a home. Let go when dropped, also by the kernel when the process dies.
#[derive(Debug)]
pub struct HomeLock(#[allow(dead_code, reason = "held for its lock")] File);

impl Home {
    /// The home at `directory`, an absolute path, or the user's own by the XDG rules.
    ///
    /// # Errors
    /// When the user has no home directory.
    pub fn resolve(directory: Option<PathBuf>) -> io::Result<Self> {
        match directory {
            Some(state) => {
                let config = state.join("config.toml");
                Ok(Self { socket: socket_path(&state, runtime_dir()), state, config })
            }
            None => {
                let xdg = etcetera::choose_base_strategy().map_err(io::Error::other)?;
                let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir()).join(APPLICATION);
                let config = xdg.config_dir().join(APPLICATION).join("config.toml");
                Ok(Self { socket: socket_path(&state, xdg.runtime_dir()), state, config })
            }
        }
    }

    /// The directory of everything but the configuration.
    pub fn directory(&self) -> &Path {
        &self.state
    }

    /// The configuration file, which need not be there.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The daemon's Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What a detached daemon logs to.
    pub fn log_file(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// The session of the user who is logged in.
    pub fn session_file(&self) -> PathBuf {
        self.state.join("session.json")
    }

    /// The tracker's CA, once trusted by its fingerprint.
    pub fn trusted_ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    /// What the shell remembers of the lines typed.
    pub fn history_file(&self) -> PathBuf {
        self.state.join("history")
    }

    /// What belongs to one user: key, certificate, shares and downloads. Usernames are safe as file names.
    pub fn user_dir(&self, user: &Username) -> PathBuf {
        self.state.join("users").join(user.as_str())
    }

    /// Makes the directory, and the socket's.
    ///
    /// # Errors
    /// When one can't be made, or the socket's belongs to somebody else.
    pub fn create(&self) -> io::Result<()> {
        durable::private_dir(&self.state)?;
        let beside = self.socket.parent().unwrap_or(&self.state);
        durable::private_dir(beside)?;
        // The short path may lie in a directory that all can write to.
        let found = fs::symlink_metadata(beside)?;
        let ours = rustix::process::geteuid().as_raw();
        if found.is_dir() && found.uid() == ours && found.mode() & 0o077 == 0 {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} is not a private directory of this user", beside.display()),
            ))
        }
    }

    /// Takes the lock; `None` if another process holds it.
    ///
    /// # Errors
    /// When the lock file can't be opened.
    pub fn lock(&self) -> io::Result<Option<HomeLock>> {
        let path = self.state.join("daemon.lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(HomeLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn runtime_dir() -> Option<PathBuf> {
    etcetera::choose_base_strategy().ok()?.runtime_dir()
}

/// Beside the state, or in the runtime directory under a short name where that would be too long for a socket.
fn socket_path(state: &Path, runtime: Option<PathBuf>) -> PathBuf {
    let beside = state.join("run").join("daemon.sock");
    if beside.as_os_str().len() <= MAX_SOCKET_PATH {
        return beside;
    }
    let hash = blake3::hash(state.as_os_str().as_encoded_bytes()).to_hex();
    let user = rustix::process::geteuid().as_raw();
    // One component, so that nobody else can own a directory above it (but the sticky one that all share).
    let name = format!("{APPLICATION}-{user}-{}", &hash[..16]);
    let short = |directory: PathBuf| directory.join(&name).join("daemon.sock");
    runtime
        .map(&short)
        .filter(|path| path.as_os_str().len() <= MAX_SOCKET_PATH)
        .unwrap_or_else(|| short(PathBuf::from("/tmp")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_the_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::resolve(Some(directory.path().join("h"))).expect("a home");
        home.create().expect("made");
        let first = home.lock().expect("no error").expect("free");
        assert!(home.lock().expect("no error").is_none());
        drop(first);
        assert!(home.lock().expect("no error").is_some());
    }

    #[test]
    fn a_long_home_has_a_short_socket() {
        let long = PathBuf::from("/").join("x".repeat(200));
        let runtime = Some(PathBuf::from("/run/user/1"));
        assert_eq!(socket_path(Path::new("/h"), runtime.clone()), Path::new("/h/run/daemon.sock"));
        let short = socket_path(&long, runtime);
        assert!(short.starts_with("/run/user/1") && short.ends_with("daemon.sock"), "{short:?}");
        assert!(short.as_os_str().len() <= MAX_SOCKET_PATH);
        let other = socket_path(&long.join("y"), None);
        assert!(other.starts_with("/tmp") && other.as_os_str().len() <= MAX_SOCKET_PATH, "{other:?}");
    }
}
