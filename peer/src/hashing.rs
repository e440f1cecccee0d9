//! Hashing a file for sharing: one read, everything a manifest needs. `lanes`: SHA-1 of many pieces at a time.

pub(crate) mod lanes;

use std::{
    fs::{File, Metadata},
    io,
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    slice,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use proto::{
    domain::{
        FileHeader, FileName, Manifest, PieceHash, PieceIndex, PieceLayout, Sha1,
        manifest::{RootFold, SubtreeHasher},
    },
    reason::Reason,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha1::Digest as _;

/// What tells that a file is still the one that was hashed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl FileStamp {
    /// The stamp in a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A hashed file.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// What the file is.
    pub manifest: Manifest,
    /// The file as it was hashed.
    pub stamp: FileStamp,
}

/// Why a file can't be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// There is nothing at the path, or a part of it is missing.
    #[error("{}: no such file", .0.display())]
    NotFound(PathBuf),
    /// A directory, a device, a FIFO or a socket.
    #[error("{} is {what}, not a regular file", .0.display(), what = .1)]
    NotAFile(PathBuf, &'static str),
    /// Longer than 1 TiB.
    #[error("{} is longer than 1 TiB", .0.display())]
    TooLong(PathBuf),
    /// It changed while it was read, twice in a row.
    #[error("{} changed while it was being hashed", .0.display())]
    Changing(PathBuf),
    /// It is not what the manifest says.
    #[error("{} is not what was shared: its content differs", .0.display())]
    Mismatch(PathBuf),
    /// Broken off by the caller.
    #[error("hashing {} was broken off", .0.display())]
    Stopped(PathBuf),
    /// It can't be read.
    #[error("{}: {why}", .0.display(), why = .1)]
    Io(PathBuf, #[source] io::Error),
}

impl HashError {
    /// The reason that goes with it on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) | Self::NotAFile(..) => Reason::PathNotFound,
            Self::TooLong(_) => Reason::InvalidRequest,
            Self::Changing(_) | Self::Mismatch(_) => Reason::FileChanged,
            Self::Stopped(_) => Reason::Stopped,
            Self::Io(_, error) => Reason::of_io(error),
        }
    }
}

/// Opens a regular file for reading, and says what it is now.
///
/// # Errors
/// When there is none, when it is something else, or when it can't be read.
pub(crate) fn open_regular(path: &Path) -> Result<(File, FileStamp), HashError> {
    let io_error = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => HashError::NotFound(path.to_owned()),
        _ => HashError::Io(path.to_owned(), error),
    };
    // Looked at before it is opened, for opening a device can do things; and after, for it may be another one by then.
    check_kind(path, &std::fs::metadata(path).map_err(io_error)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io_error(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(io_error)?;
    check_kind(path, &metadata)?;
    Ok((file, FileStamp::of(&metadata)))
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), HashError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(HashError::NotAFile(path.to_owned(), what))
}

/// Is told the bytes read so far, in steps of a piece, and may break it off.
pub type Progress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// Hashes the file at `path` into the manifest that it has under `name`, with one read. Blocks: not for async tasks.
///
/// The SHA-1 of the whole can only be computed in order, so one thread reads and does that, while others hash the
/// pieces: together as fast as the former alone.
///
/// # Errors
/// When the path is no readable regular file of at most 1 TiB, or changes while it is read, twice in a row.
pub fn manifest_of(path: &Path, name: FileName, progress: Progress<'_>) -> Result<Hashed, HashError> {
    for _ in 0..2 {
        if let Some(hashed) = hash_once(path, &name, progress)? {
            return Ok(hashed);
        }
    }
    Err(HashError::Changing(path.to_owned()))
}

/// Reads the file at `path` whole and checks every piece, SHA-1 and BLAKE3 of it against the manifest. Blocks.
///
/// # Errors
/// [`HashError::Mismatch`] when it is not what the manifest says; else as [`manifest_of`].
pub fn verify(path: &Path, manifest: &Manifest, progress: Progress<'_>) -> Result<FileStamp, HashError> {
    // Of another length it need not be read.
    if open_regular(path)?.1.size() != manifest.layout().length() {
        return Err(HashError::Mismatch(path.to_owned()));
    }
    let hashed = manifest_of(path, manifest.header().name.clone(), progress)?;
    if hashed.manifest == *manifest { Ok(hashed.stamp) } else { Err(HashError::Mismatch(path.to_owned())) }
}

/// `None` when the file changed meanwhile.
fn hash_once(path: &Path, name: &FileName, progress: Progress<'_>) -> Result<Option<Hashed>, HashError> {
    let (file, stamp) = open_regular(path)?;
    let layout = PieceLayout::new(stamp.size()).ok_or_else(|| HashError::TooLong(path.to_owned()))?;
    let hashed = hash_open(&file, layout, progress).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => HashError::Stopped(path.to_owned()),
        _ => HashError::Io(path.to_owned(), error),
    })?;
    let Some((sha1, pieces)) = hashed else { return Ok(None) };
    let after = file.metadata().map(|metadata| FileStamp::of(&metadata));
    let at_path = std::fs::metadata(path).map(|metadata| FileStamp::of(&metadata));
    if !matches!((after, at_path), (Ok(after), Ok(at_path)) if after == stamp && at_path == stamp) {
        return Ok(None);
    }
    let mut fold = RootFold::default();
    pieces.iter().for_each(|hash| fold.push(hash.blake3));
    let header = FileHeader { name: name.clone(), layout, sha1, blake3: fold.finish() };
    Ok(Manifest::new(header, pieces).ok().map(|manifest| Hashed { manifest, stamp }))
}

/// Pieces that were read and wait to be hashed, at most: enough that neither side waits for the other's hiccups.
const BUFFERS: usize = 8;

type ReadPiece = (PieceIndex, Vec<u8>);

/// SHA-1 of the whole and the hashes of all pieces; `None` when the file ends early.
///
/// # Errors
/// What the disk says, and `Interrupted` when `progress` broke it off.
pub(crate) fn hash_open(
    file: &File,
    layout: PieceLayout,
    progress: Progress<'_>,
) -> io::Result<Option<(Sha1, Vec<PieceHash>)>> {
    let (to_hash, read) = mpsc::sync_channel::<ReadPiece>(BUFFERS);
    let (to_reuse, reuse) = mpsc::channel::<Vec<u8>>();
    let read = Mutex::new(read);
    // All that grows with the file, and held once: for the longest file it is 109 MB.
    let unknown = PieceHash { sha1: [0; 20].into(), blake3: [0; 32].into() };
    let hashes = Mutex::new(vec![unknown; layout.count() as usize]);
    let hash_pieces = || {
        loop {
            let taken = take_waiting(&read.lock().unwrap_or_else(PoisonError::into_inner));
            if taken.is_empty() {
                return;
            }
            let messages: Vec<&[Vec<u8>]> = taken.iter().map(|(_, data)| slice::from_ref(data)).collect();
            let sha1s = lanes::sha1_of_each(&messages);
            for ((piece, data), sha1) in taken.into_iter().zip(sha1s) {
                let mut blake3 = SubtreeHasher::new(layout, piece);
                blake3.update(&data);
                let hash = PieceHash { sha1, blake3: blake3.finish() };
                hashes.lock().unwrap_or_else(PoisonError::into_inner)[piece.as_usize()] = hash;
                // Nobody reads any more: the buffer is of no use.
                let _ = to_reuse.send(data);
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).clamp(2, 4) - 1;
    let whole = thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(hash_pieces);
        }
        read_whole(file, layout, progress, to_hash, &reuse)
    });
    Ok(whole?.map(|sha1| (sha1, hashes.into_inner().unwrap_or_else(PoisonError::into_inner))))
}

/// Waits for a piece, and takes with it what else waits and can be hashed together; none when there are no more.
fn take_waiting(read: &mpsc::Receiver<ReadPiece>) -> Vec<ReadPiece> {
    read.recv().into_iter().chain(read.try_iter()).take(lanes::width()).collect()
}

/// Reads all pieces in order, hashes the whole, and hands each piece on. `None` when the file ends early.
fn read_whole(
    file: &File,
    layout: PieceLayout,
    progress: Progress<'_>,
    to_hash: mpsc::SyncSender<ReadPiece>,
    reuse: &mpsc::Receiver<Vec<u8>>,
) -> io::Result<Option<Sha1>> {
    let mut whole = sha1::Sha1::new();
    for piece in layout.indices() {
        let mut data = reuse.try_recv().unwrap_or_default();
        data.resize(layout.piece_length(piece) as usize, 0);
        match file.read_exact_at(&mut data, layout.offset(piece)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        whole.update(&data);
        if to_hash.send((piece, data)).is_err() || progress(layout.range(piece).end).is_break() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
    Ok(Some(Sha1::from(<[u8; 20]>::from(whole.finalize()))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::domain::Blake3;
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    fn go_on(_: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn hash(path: &Path) -> Result<Hashed, HashError> {
        manifest_of(path, "name".parse().unwrap(), &go_on)
    }

    #[test]
    fn one_read_gives_what_hashing_one_by_one_gives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for length in [0, 1, 524_287, 524_288, 524_289, 11 * 524_288 + 77] {
            let data: Vec<u8> = (0..length).map(|at| (at / 253) as u8).collect();
            fs::write(&path, &data).unwrap();
            let hashed = hash(&path).unwrap();
            let expected = crate::test_support::manifest_of(&data);
            assert_eq!(hashed.manifest.pieces(), expected.pieces());
            assert_eq!(hashed.manifest.header().sha1, expected.header().sha1);
            assert_eq!(hashed.manifest.header().blake3, Blake3::from(*blake3::hash(&data).as_bytes()));
            assert_eq!(hashed.stamp.size(), length as u64);
            assert_eq!(verify(&path, &hashed.manifest, &go_on).unwrap(), hashed.stamp);
        }
    }

    #[test]
    fn only_readable_regular_files_are_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        for name in ["directory", "fifo", "socket", "device"] {
            let error = hash(&at(name)).unwrap_err();
            assert!(matches!(error, HashError::NotAFile(..)), "{name}: {error}");
            assert_eq!(error.reason(), Reason::PathNotFound);
        }
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["nowhere", "dangling", "directory/nowhere"] {
            assert!(matches!(hash(&at(name)).unwrap_err(), HashError::NotFound(_)), "{name}");
        }
        fs::write(at("file"), "x").unwrap();
        assert!(matches!(hash(&at("file/below")).unwrap_err(), HashError::Io(..) | HashError::NotFound(_)));
        symlink(at("file"), at("link")).unwrap();
        assert!(hash(&at("link")).is_ok());
        let long = fs::File::create(at("long")).unwrap();
        if long.set_len((1 << 40) + 1).is_ok() {
            assert!(matches!(hash(&at("long")).unwrap_err(), HashError::TooLong(_)));
        }
    }

    #[test]
    fn a_file_that_changes_once_is_hashed_again_and_one_that_goes_on_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for (changes, good) in [(1, true), (2, false)] {
            for grow in [true, false] {
                let before = vec![1; 3 * 524_288];
                fs::write(&path, &before).unwrap();
                let changed = AtomicU32::new(0);
                let meddle = |read: u64| {
                    // Once a pass, and never twice the same.
                    if read == 524_288 && changed.load(Ordering::SeqCst) < changes {
                        let number = changed.fetch_add(1, Ordering::SeqCst) as usize + 1;
                        let length =
                            if grow { before.len() + number } else { before.len() - 524_288 - number };
                        fs::write(&path, vec![number as u8; length]).unwrap();
                    }
                    ControlFlow::Continue(())
                };
                let result = manifest_of(&path, "name".parse().unwrap(), &meddle);
                match result {
                    Ok(hashed) if good => {
                        assert_eq!(hashed.manifest.pieces(), hash(&path).unwrap().manifest.pieces());
                    }
                    Err(HashError::Changing(_)) if !good => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_file_replaced_by_one_like_it_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("f"), dir.path().join("g"));
        fs::write(&path, "one").unwrap();
        let stamp = hash(&path).unwrap().stamp;
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(open_regular(&path).unwrap().1, stamp);
    }

    #[test]
    fn another_content_is_a_mismatch_and_hashing_can_be_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 600_000]).unwrap();
        let manifest = hash(&path).unwrap().manifest;
        assert!(matches!(
            manifest_of(&path, "name".parse().unwrap(), &|_| ControlFlow::Break(())),
            Err(HashError::Stopped(_))
        ));
        for other in [vec![1; 599_999], vec![2; 600_000]] {
            fs::write(&path, other).unwrap();
            assert!(matches!(verify(&path, &manifest, &go_on), Err(HashError::Mismatch(_))));
        }
    }
}
