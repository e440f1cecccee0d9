//! Notices that another process opens an unfinished file while it is being downloaded.
//!
//! The file's times can't be used: this peer's own writes change them all the time, and before Linux 6.13 two
//! writes within one tick of the kernel's clock leave the same times. inotify works: the event of an `open`
//! is queued before the `open` returns, and so before the other process can write anything. This process
//! never opens the file a second time.
//!
//! Once the download writes nothing more ([`Watch::watch_writes`]), each write by another process is an event
//! too. An `open` alone then means nothing: a media player or an indexer may read the file.
//!
//! The watch does not notice:
//! - a write through a descriptor that another process opened before the watch began and has not closed,
//!   until [`Watch::watch_writes`];
//! - a write through a memory mapping. The kernel sets the file's times when a page is first written after it
//!   was synced. So the store also compares the times before and after the last read of the whole, which it
//!   syncs before. ext4, XFS and Btrfs do this; tmpfs does not. Unnoticed are a write that comes between a
//!   sync and the comparison's start to a page that was written in the same time, and writes while the whole
//!   is not read again because no `open` was seen: then the mapping is older than the watch;
//! - `truncate` by path, away from the length and back between two checks of the length;
//! - changes below the file system;
//! - changes by other machines, where the file system is remote.

use std::{
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// What other processes did to the file since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    /// Nothing.
    Nothing,
    /// One opened it.
    Opened,
    /// There is no watch.
    Unknown,
    /// One wrote to it, or closed a descriptor that it could write to.
    Written,
}

/// A watch on one open file.
#[derive(Debug)]
pub(super) struct Watch {
    /// `None` when no watch could be set up. Then [`Watch::take`] always returns [`Seen::Unknown`].
    events: Option<OwnedFd>,
}

/// The events that are always watched.
const OPENS: WatchFlags = WatchFlags::OPEN.union(WatchFlags::CLOSE_WRITE);

impl Watch {
    pub(super) fn new(file: &File) -> Self {
        let watch = || -> Result<OwnedFd, Errno> {
            let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&events, path_of(file), OPENS)?;
            Ok(events)
        };
        let events = watch();
        if let Err(error) = &events {
            tracing::debug!(%error, "an unfinished file can't be watched, so it is read and checked again at its end");
        }
        Self { events: events.ok() }
    }

    /// Watches for writes as well. This process must not write to the file from now on.
    pub(super) fn watch_writes(&mut self, file: &File) {
        let Some(events) = &self.events else { return };
        if let Err(error) = inotify::add_watch(events, path_of(file), OPENS | WatchFlags::MODIFY) {
            tracing::debug!(%error, "writes to an unfinished file can't be watched");
            self.events = None;
        }
    }

    /// What was seen since the last call.
    pub(super) fn take(&self) -> Seen {
        let Some(events) = &self.events else { return Seen::Unknown };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        let mut seen = Seen::Nothing;
        loop {
            match reader.next() {
                Ok(event) if event.events() == ReadFlags::OPEN => seen = seen.max(Seen::Opened),
                // Also when the queue overflowed.
                Ok(_) => seen = Seen::Written,
                Err(Errno::WOULDBLOCK) => return seen,
                Err(Errno::INTR) => {}
                Err(_) => return Seen::Written,
            }
        }
    }

    /// A watch that could not be set up.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { events: None }
    }
}

/// The open file itself, wherever its path leads by now.
fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs::OpenOptions, os::unix::fs::FileExt as _};

    use super::*;

    #[test]
    fn writes_are_told_from_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let own = File::create_new(&path).unwrap();
        // Opened before the watch begins.
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        let mut watch = Watch::new(&own);
        assert_eq!(watch.take(), Seen::Nothing);
        drop(File::open(&path).unwrap());
        assert_eq!((watch.take(), watch.take()), (Seen::Opened, Seen::Nothing));
        other.write_all_at(b"1", 0).unwrap();
        assert_eq!(watch.take(), Seen::Nothing, "writes are not watched yet");
        watch.watch_writes(&own);
        other.write_all_at(b"2", 0).unwrap();
        assert_eq!(watch.take(), Seen::Written);
        drop(other);
        assert_eq!(watch.take(), Seen::Written, "it was closed by one who could write");
        drop(File::open(&path).unwrap());
        assert_eq!(watch.take(), Seen::Opened);
    }
}
