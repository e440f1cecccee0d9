//! The lock that makes a process the one daemon of a home, and what the lock file tells about that process.
//!
//! The file holds `pid N`, `phase WORD` and `socket PATH`, one a line. Its text says where the daemon is. The
//! kernel alone says who holds the lock: a record lock beside the flock makes `F_GETLK` name the process, so
//! that no stale number is ever taken for the daemon's.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use program::durable;
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Flock, FlockType, Pid, PidfdFlags, Signal},
};

use super::Home;

/// The most bytes of a lock file that are read: a path and a few words.
const MOST: u64 = 8 << 10;

/// The lock that makes a process the one daemon of a home. It is released when this is dropped, and by the
/// kernel when the process dies.
#[derive(Debug)]
pub struct HomeLock {
    file: File,
    path: PathBuf,
}

/// How far the daemon that holds a home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes no calls yet.
    Starting,
    /// It takes calls on its socket.
    Serving,
    /// It takes no new calls.
    Ending,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Starting, Self::Serving, Self::Ending];

    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Ending => "ending",
        }
    }
}

/// The process that holds a home's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id. `None` if it is in another container, whose processes this one can't see.
    pub pid: Option<u32>,
    /// How far it is.
    pub phase: Phase,
    /// The path of its socket, if it has reported it.
    pub socket: Option<PathBuf>,
}

impl HomeLock {
    /// Writes how far this daemon is and where its socket is. Verbs read it when the socket does not answer.
    ///
    /// # Errors
    /// The file system's error.
    pub fn report(&self, phase: Phase, socket: &Path) -> io::Result<()> {
        let mut text = format!("pid {}\nphase {}\nsocket ", std::process::id(), phase.word()).into_bytes();
        text.extend_from_slice(socket.as_os_str().as_bytes());
        text.push(b'\n');
        // The text is written at once, and only then is what was longer before cut off.
        self.file.write_all_at(&text, 0)?;
        self.file.set_len(text.len() as u64)
    }

    /// Whether the lock file is still in the home. If it is not, the home was deleted or replaced, and
    /// another daemon may hold the new one.
    pub fn is_in_place(&self) -> bool {
        let same = |there: std::fs::Metadata, held: std::fs::Metadata| {
            (there.dev(), there.ino()) == (held.dev(), held.ino())
        };
        let there = std::fs::symlink_metadata(&self.path);
        there.and_then(|there| Ok(same(there, self.file.metadata()?))).unwrap_or(false)
    }
}

impl Home {
    fn lock_file(&self) -> PathBuf {
        self.directory().join("daemon.lock")
    }

    /// Takes the lock. Returns `None` if another process holds it.
    ///
    /// # Errors
    /// Fails when the lock file can't be opened, or when the home belongs to another user.
    pub fn lock(&self) -> io::Result<Option<HomeLock>> {
        durable::own_dir(self.directory())?;
        let path = self.lock_file();
        let mut how = OpenOptions::new();
        let file = how.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // It lets the kernel name this process to verbs. The flock is what keeps a second daemon away.
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let lock = HomeLock { file, path };
        lock.report(Phase::Starting, self.socket())?;
        Ok(Some(lock))
    }

    /// The process that holds the lock, if any does. Creates nothing, and never disturbs a process that is
    /// about to take the lock.
    ///
    /// # Errors
    /// Fails when the lock file can't be read, or when the home belongs to another user.
    pub fn holder(&self) -> io::Result<Option<Holder>> {
        let file = match durable::own_dir(self.directory()).and_then(|_| File::open(self.lock_file())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(found) = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        (&file).take(MOST).read_to_end(&mut text)?;
        let pid = found.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
        Ok(Some(Holder::read(pid, &text)))
    }

    /// Sends a signal to the process that holds the lock, and to no other. Returns false if none holds it, or
    /// if it can't be seen from here.
    ///
    /// # Errors
    /// Fails when the process may not be signalled, and as [`Home::holder`] does.
    pub fn signal_holder(&self, signal: Signal) -> io::Result<bool> {
        let pid = |holder: Option<Holder>| {
            let number = i32::try_from(holder?.pid?).ok()?;
            Pid::from_raw(number)
        };
        let Some(before) = pid(self.holder()?) else { return Ok(false) };
        let process = match rustix::process::pidfd_open(before, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The descriptor stands for one process for ever. If that process holds the lock now, it is the one.
        if pid(self.holder()?) != Some(before) {
            return Ok(false);
        }
        rustix::process::pidfd_send_signal(process, signal)?;
        Ok(true)
    }
}

impl Holder {
    fn read(pid: Option<u32>, text: &[u8]) -> Self {
        let value = |name: &str| {
            let mut lines = text.split(|byte| *byte == b'\n');
            lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b" "))
        };
        let phase = value("phase")
            .and_then(|word| Phase::ALL.into_iter().find(|phase| phase.word().as_bytes() == word));
        let socket = value("socket").map(|path| PathBuf::from(OsStr::from_bytes(path)));
        Self {
            pid,
            phase: phase.unwrap_or(Phase::Starting),
            socket: socket.filter(|path| path.is_absolute()),
        }
    }

    /// Returns true if the process was stopped, by SIGSTOP or by a debugger: it answers nothing.
    pub fn is_stopped(&self) -> bool {
        let stat = self.pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") "));
        state.is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_the_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::resolve(Some(directory.path().join("h"))).expect("a home");
        assert_eq!(home.holder().expect("no error"), None);
        assert!(!home.directory().exists(), "nothing was made");
        home.create().expect("made");
        let first = home.lock().expect("no error").expect("free");
        assert!(first.is_in_place());
        assert!(home.lock().expect("no error").is_none());
        drop(first);
        let second = home.lock().expect("no error").expect("free");
        std::fs::remove_dir_all(home.directory()).expect("removed");
        assert!(!second.is_in_place());
    }

    #[test]
    fn a_lock_file_is_read_and_nothing_in_it_is_trusted() {
        let read = |text: &[u8]| Holder::read(Some(7), text);
        let whole = read(b"pid 7\nphase serving\nsocket /h/run/daemon.sock\n");
        assert_eq!(
            whole,
            Holder { pid: Some(7), phase: Phase::Serving, socket: Some("/h/run/daemon.sock".into()) }
        );
        for text in [&b""[..], b"pid 9", b"phase \xff\nsocket relative", b"phaseserving"] {
            assert_eq!(read(text), Holder { pid: Some(7), phase: Phase::Starting, socket: None });
        }
    }
}
