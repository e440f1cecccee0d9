//! Hashes a file for sharing: one read gives everything that a manifest needs. `lanes` computes the SHA-1 of
//! many pieces at a time.

pub(crate) mod below;
pub(crate) mod damage;
pub(crate) mod folder;
pub(crate) mod lanes;
mod refusals;
pub(crate) mod scan;

use std::{
    fs::{File, Metadata},
    io,
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    slice,
    sync::{Arc, mpsc},
    thread,
};

pub use damage::{Damage, examine};
use parking_lot::Mutex;
use proto::{
    domain::{
        FileHeader, FileName, Manifest, PieceHash, PieceIndex, PieceLayout, Sha1,
        folder::Folder,
        manifest::{RootFold, SubtreeHasher},
    },
    reason::Reason,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha1::Digest as _;

/// Tells whether a file is still the one that was hashed, without reading it.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The file's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The stamp of a folder, made of its directory's stamp and a digest of its files' stamps.
    fn of_folder(self, length: u64, digest: &[u8; 32]) -> Self {
        let half = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | i128::from(*byte));
        Self { size: length, mtime_ns: half(&digest[..16]), ctime_ns: half(&digest[16..]), ..self }
    }

    /// Whether this is the stamp of the same file or directory, with any content.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    fn digest(&self, digest: &mut blake3::Hasher) {
        for number in [self.dev, self.ino, self.size] {
            digest.update(&number.to_le_bytes());
        }
        digest.update(&self.mtime_ns.to_le_bytes()).update(&self.ctime_ns.to_le_bytes());
    }
}

/// A hashed file.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// The file's manifest.
    pub manifest: Manifest,
    /// The file's stamp when it was hashed.
    pub stamp: FileStamp,
    /// The entries of a folder; `None` for a file.
    pub folder: Option<Arc<Folder>>,
    /// Paths of a folder that can't be shared and were left out.
    pub skipped: usize,
}

/// The reason why a file can't be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// There is nothing at the path, or a part of the path is missing.
    #[error("the file {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// The path leads to a directory, a device, a FIFO or a socket.
    #[error("{} is {what}, not a regular file", .0.display(), what = .1)]
    NotAFile(PathBuf, &'static str),
    /// The file is longer than 1 TiB.
    #[error("{} is longer than 1 TiB", .0.display())]
    TooLong(PathBuf),
    /// The file changed while it was read, twice in a row.
    #[error("{} changed while it was being hashed", .0.display())]
    Changing(PathBuf),
    /// The file does not match the manifest.
    #[error("the content of {} differs from the shared file", .0.display())]
    Mismatch(PathBuf),
    /// The caller stopped the hashing.
    #[error("the hashing of {} was stopped", .0.display())]
    Stopped(PathBuf),
    /// The file can't be read.
    #[error("{}: {why}", .0.display(), why = .1)]
    Io(PathBuf, #[source] io::Error),
    /// A folder holds what can't be shared.
    #[error("{} can't be shared: {why}", .0.display(), why = .1)]
    Unsupported(PathBuf, refusals::Refusals),
    /// A pattern of what to leave out is malformed.
    #[error("{0:?} is not a pattern: {1}")]
    Pattern(String, String),
}

impl HashError {
    /// The reason that stands for this error on the wire.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound(_) | Self::NotAFile(..) => Reason::PathNotFound,
            Self::TooLong(_) | Self::Unsupported(..) | Self::Pattern(..) => Reason::InvalidRequest,
            Self::Changing(_) | Self::Mismatch(_) => Reason::FileChanged,
            Self::Stopped(_) => Reason::Stopped,
            Self::Io(_, error) => Reason::of_io(error),
        }
    }
}

/// Opens a regular file for reading, and returns its present stamp with it.
///
/// # Errors
/// Fails when there is no file, when it is not a regular file, or when it can't be read.
pub(crate) fn open_regular(path: &Path) -> Result<(File, FileStamp), HashError> {
    let io_error = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => HashError::NotFound(path.to_owned()),
        _ => HashError::Io(path.to_owned(), error),
    };
    // Checked before the open, because opening a device can have effects. Checked after it again, because the
    // path may lead to another file by then.
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

/// Called with the bytes read so far, once for each piece. May stop the reading.
pub type Progress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// Reads the file at `path` once, and returns the manifest that it has under `name`. Blocks: not for async
/// tasks.
///
/// The SHA-1 of the whole can only be computed in order. One thread reads and computes it, while others hash
/// the pieces. Together they are as fast as that one thread alone.
///
/// # Errors
/// Fails when the path is not a readable regular file of at most 1 TiB, or when the file changes during the
/// read twice in a row.
pub fn manifest_of(path: &Path, name: FileName, progress: Progress<'_>) -> Result<Hashed, HashError> {
    for _ in 0..2 {
        if let Some(hashed) = hash_once(path, &name, progress)? {
            return Ok(hashed);
        }
    }
    Err(HashError::Changing(path.to_owned()))
}

/// Reads the whole file at `path`, and checks every piece and the SHA-1 and BLAKE3 of the whole against the
/// manifest. Blocks.
///
/// # Errors
/// [`HashError::Mismatch`] when the file does not match the manifest; else those of [`manifest_of`].
pub fn verify(path: &Path, manifest: &Manifest, progress: Progress<'_>) -> Result<FileStamp, HashError> {
    // A file of another length need not be read.
    if open_regular(path)?.1.size() != manifest.layout().length() {
        return Err(HashError::Mismatch(path.to_owned()));
    }
    let hashed = manifest_of(path, manifest.header().name.clone(), progress)?;
    if hashed.manifest == *manifest { Ok(hashed.stamp) } else { Err(HashError::Mismatch(path.to_owned())) }
}

/// Returns `None` when the file changed meanwhile.
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
    let header = FileHeader { name: name.clone(), layout, sha1, blake3: fold.finish(), folder: None };
    Ok(Manifest::new(header, pieces).ok().map(|manifest| Hashed {
        manifest,
        stamp,
        folder: None,
        skipped: 0,
    }))
}

/// The most pieces that were read and wait to be hashed. Enough to even out short delays on either side.
const BUFFERS: usize = 8;

type ReadPiece = (PieceIndex, Vec<u8>);

/// Same as [`hash_pieces`], for the bytes of an open file.
pub(crate) fn hash_open(
    file: &File,
    layout: PieceLayout,
    progress: Progress<'_>,
) -> io::Result<Option<(Sha1, Vec<PieceHash>)>> {
    hash_pieces(layout, &mut |offset, into| file.read_exact_at(into, offset), progress)
}

/// Fills a buffer with the bytes from an offset on. `UnexpectedEof` means that there are fewer.
type Read<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// The SHA-1 of the whole and the hashes of all pieces. `read` is called for one piece after the other, in
/// order. Returns `None` when the bytes end early.
///
/// # Errors
/// The disk's error; `Interrupted` when `progress` stopped it.
pub(crate) fn hash_pieces(
    layout: PieceLayout,
    read: Read<'_>,
    progress: Progress<'_>,
) -> io::Result<Option<(Sha1, Vec<PieceHash>)>> {
    let (to_hash, waiting) = mpsc::sync_channel::<ReadPiece>(BUFFERS);
    let (to_reuse, reuse) = mpsc::channel::<Vec<u8>>();
    let waiting = Mutex::new(waiting);
    // Only this grows with the file, and it is held once: 109 MB for the longest file.
    let unknown = PieceHash { sha1: [0; 20].into(), blake3: [0; 32].into() };
    let hashes = Mutex::new(vec![unknown; layout.count() as usize]);
    let hash_pieces = || {
        loop {
            let taken = take_waiting(&waiting.lock());
            if taken.is_empty() {
                return;
            }
            let messages: Vec<&[Vec<u8>]> = taken.iter().map(|(_, data)| slice::from_ref(data)).collect();
            let sha1s = lanes::sha1_of_each(&messages);
            for ((piece, data), sha1) in taken.into_iter().zip(sha1s) {
                let mut blake3 = SubtreeHasher::new(layout, piece);
                blake3.update(&data);
                let hash = PieceHash { sha1, blake3: blake3.finish() };
                hashes.lock()[piece.as_usize()] = hash;
                // The reader is gone when this fails, and the buffer is no longer needed.
                let _ = to_reuse.send(data);
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).clamp(2, 4) - 1;
    let whole = thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(hash_pieces);
        }
        read_whole(layout, read, progress, to_hash, &reuse)
    });
    Ok(whole?.map(|sha1| (sha1, hashes.into_inner())))
}

/// Waits for a piece, and takes the other waiting pieces that can be hashed together with it. Empty when no
/// more pieces come.
fn take_waiting(read: &mpsc::Receiver<ReadPiece>) -> Vec<ReadPiece> {
    read.recv().into_iter().chain(read.try_iter()).take(lanes::width()).collect()
}

/// Reads all pieces in order, hashes the whole, and passes each piece on. Returns `None` when the file ends
/// early.
fn read_whole(
    layout: PieceLayout,
    read: Read<'_>,
    progress: Progress<'_>,
    to_hash: mpsc::SyncSender<ReadPiece>,
    reuse: &mpsc::Receiver<Vec<u8>>,
) -> io::Result<Option<Sha1>> {
    let mut whole = sha1::Sha1::new();
    for piece in layout.indices() {
        let mut data = reuse.try_recv().unwrap_or_default();
        data.resize(layout.piece_length(piece) as usize, 0);
        match read(layout.offset(piece), &mut data) {
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
            let expected = testkit::content::manifest("file", &data);
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
                    // One change in each pass, each with another content.
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
