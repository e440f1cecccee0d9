//! The directories and files of a peer, and the lock that keeps two daemons apart.
//!
//! All state is in one directory that only its owner can enter. The process that holds the lock on it is the
//! daemon of that home. Verbs reach the daemon by its Unix socket. Both daemon and verbs refuse a home or a
//! socket's directory that another user owns.

mod lock;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use program::durable;
use proto::domain::Username;

pub use lock::{Holder, HomeLock, Phase};

/// The longest path of a Unix socket that is used, in bytes. `sun_path` holds 108, with the closing zero.
const MAX_SOCKET_PATH: usize = 100;
/// The name of our directories within the XDG directories.
const APPLICATION: &str = "minitorrent-peer";
/// The path of the socket within the home, unless the whole path is too long.
const SOCKET: &str = "run/daemon.sock";

/// The directories and files of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    state: PathBuf,
    config: PathBuf,
    socket: PathBuf,
}

impl Home {
    /// Returns the home at `directory`, an absolute path, or the user's own home by the XDG rules.
    ///
    /// # Errors
    /// Fails when the user has no home directory.
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

    /// The configuration file, which need not exist.
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The daemon's Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same home with its daemon's socket at another place: where the daemon's lock file says that it is.
    #[must_use]
    pub fn with_socket(&self, socket: PathBuf) -> Self {
        Self { socket, ..self.clone() }
    }

    /// The log file of a detached daemon.
    pub fn log_file(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// The session of the user who is logged in.
    pub fn session_file(&self) -> PathBuf {
        self.state.join("session.json")
    }

    /// The tracker's CA, once it is trusted by its fingerprint.
    pub fn trusted_ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    /// The certificate and key of the page for other hosts.
    pub fn page_certificate(&self) -> PathBuf {
        self.state.join("page.pem")
    }

    /// A file that leads a browser to the page. A link in the arguments of a program is seen by every user.
    pub fn page_file(&self) -> PathBuf {
        self.state.join("page.html")
    }

    /// The URLs of the trackers that the last login used, one a line.
    pub fn tracker_file(&self) -> PathBuf {
        self.state.join("tracker")
    }

    /// The history of the shell.
    pub fn history_file(&self) -> PathBuf {
        self.state.join("history")
    }

    /// The directory of one user's key, certificate, shares and downloads, or of those of a token of that user. The
    /// names of both are safe as file names.
    pub fn user_dir(&self, user: &Username, token: Option<&str>) -> PathBuf {
        let name = token.map_or_else(|| user.to_string(), |token| format!("{user}@{token}"));
        self.state.join("users").join(name)
    }

    /// Creates the home's directory and the socket's directory.
    ///
    /// # Errors
    /// Fails when one can't be created or belongs to another user, or when others can enter the socket's
    /// directory.
    pub fn create(&self) -> io::Result<()> {
        durable::private_dir(&self.state)?;
        if self.check_socket_dir()? {
            return Ok(());
        }
        durable::private_dir(self.socket_dir())?;
        // Another user may have created it first.
        self.check_socket_dir().map(|_| ())
    }

    fn socket_dir(&self) -> &Path {
        self.socket.parent().unwrap_or(&self.state)
    }

    /// Checks that nobody else can put a socket where the daemon's is. Returns whether the directory exists.
    /// A verb checks this before it connects, and the daemon before it binds, because the directory may be
    /// inside one that every user can write to.
    ///
    /// # Errors
    /// Fails with `PermissionDenied` when it is a link or a file, belongs to another user, or others can
    /// enter it.
    pub fn check_socket_dir(&self) -> io::Result<bool> {
        let directory = self.socket_dir();
        let found = match fs::symlink_metadata(directory) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let ours = rustix::process::geteuid().as_raw();
        let fault = if !found.is_dir() {
            "is not a directory".to_owned()
        } else if found.uid() != ours {
            format!("belongs to user id {}, not to user id {ours}", found.uid())
        } else if found.mode() & 0o077 != 0 {
            "can be entered by other users".to_owned()
        } else {
            return Ok(true);
        };
        let remedy = if directory.starts_with(&self.state) {
            "run peer as the directory's owner, or choose another --home".to_owned()
        } else {
            format!(
                "remove it, set XDG_RUNTIME_DIR, or choose a --home with a path of at most {} bytes",
                MAX_SOCKET_PATH - SOCKET.len() - 1
            )
        };
        let directory = directory.display();
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "the directory {directory} {fault}, so another user could read what is sent to the daemon; {remedy}"
            ),
        ))
    }
}

/// The path without symbolic links. What does not exist yet stays as it is written.
fn resolved(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(above), path.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

fn runtime_dir() -> Option<PathBuf> {
    etcetera::choose_base_strategy().ok()?.runtime_dir()
}

/// The socket's path: within the home, or, where that would be too long for a socket, under a short name in
/// the runtime directory.
/// However the home is spelled, the socket is the same: the symbolic links in its path are resolved first.
fn socket_path(state: &Path, runtime: Option<PathBuf>) -> PathBuf {
    let state = &resolved(state);
    let beside = state.join(SOCKET);
    if beside.as_os_str().len() <= MAX_SOCKET_PATH {
        return beside;
    }
    let hash = blake3::hash(state.as_os_str().as_encoded_bytes()).to_hex();
    let user = rustix::process::geteuid().as_raw();
    // The name is a single component, so that no other user can own a directory between it and the sticky one
    // that all users share.
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
    fn a_directory_that_others_control_is_no_place_for_a_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::resolve(Some(directory.path().join("h"))).expect("a home");
        assert!(!home.check_socket_dir().expect("nothing is wrong with nothing"));
        home.create().expect("made");
        assert!(home.check_socket_dir().expect("ours"));
        let run = home.socket_dir();
        let refused = |what: &str| {
            let error = home.check_socket_dir().expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
            assert!(error.to_string().contains(what), "{what}: {error}");
            assert!(home.create().is_err(), "{what}");
        };
        let permit = |mode| {
            fs::set_permissions(run, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("ours");
        };
        permit(0o711);
        refused("can be entered by other users");
        permit(0o700);
        let aside = directory.path().join("aside");
        fs::rename(run, &aside).expect("moved");
        std::os::unix::fs::symlink(&aside, run).expect("linked");
        refused("is not a directory");
        fs::remove_file(run).expect("removed");
        fs::write(run, "").expect("written");
        refused("is not a directory");
        if rustix::process::geteuid().is_root() {
            fs::remove_file(run).expect("removed");
            fs::rename(&aside, run).expect("moved back");
            std::os::unix::fs::chown(run, Some(65_534), None).expect("root may");
            refused("belongs to user id 65534");
        }
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

    #[test]
    fn a_home_has_one_socket_however_it_is_spelled() {
        let directory = tempfile::tempdir().expect("a directory");
        let long = directory.path().join("x".repeat(120));
        let link = directory.path().join("h");
        fs::create_dir(&long).expect("made");
        std::os::unix::fs::symlink(&long, &link).expect("linked");
        let runtime = Some(PathBuf::from("/run/user/1"));
        for name in ["", "inner/not/there/yet"] {
            let spelled = |start: &Path| socket_path(&start.join(name), runtime.clone());
            assert_eq!(spelled(&long), spelled(&link));
        }
    }
}
