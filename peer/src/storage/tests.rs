//! One scenario for every backend, and what only a disk can do.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use proto::domain::{Bitfield, Manifest, PieceIndex};

use super::{FsStore, MemStore, OpenStore, PieceStore, StoreError, discard};
use crate::test_support::{file_id, manifest_of};

const PIECE: usize = 524_288;

/// A file to download, and where.
struct Case {
    dir: tempfile::TempDir,
    data: Vec<u8>,
    manifest: Arc<Manifest>,
}

impl Case {
    fn new(length: usize) -> Self {
        let data: Vec<u8> = (0..length).map(|at| (at / 97 + at) as u8).collect();
        Self { dir: tempfile::tempdir().unwrap(), manifest: Arc::new(manifest_of(&data)), data }
    }

    fn place(&self) -> OpenStore {
        OpenStore { file: file_id(1), manifest: self.manifest.clone(), destination: self.destination() }
    }

    fn open(&self) -> Result<FsStore, StoreError> {
        self.place().open(&|_| ControlFlow::Continue(()))
    }

    fn destination(&self) -> PathBuf {
        self.dir.path().join("movie.mp4")
    }

    fn parts(&self) -> PathBuf {
        self.dir.path().join(".minitorrent")
    }

    fn part(&self) -> PathBuf {
        self.parts().join(format!("{}.part", file_id(1)))
    }

    fn state(&self) -> PathBuf {
        self.parts().join(format!("{}.state", file_id(1)))
    }

    fn piece(&self, index: u64) -> PieceIndex {
        self.manifest.layout().index(index).unwrap()
    }

    fn write(&self, store: &dyn PieceStore, indices: impl IntoIterator<Item = u64>) {
        for index in indices {
            let range = self.manifest.layout().range(self.piece(index));
            let data = Bytes::copy_from_slice(&self.data[range.start as usize..range.end as usize]);
            // In three parts, one of them empty, as the network may give them.
            let (first, second) = (data.slice(..data.len() / 3), data.slice(data.len() / 3..));
            store.write(self.piece(index), &[first, Bytes::new(), second]).unwrap();
        }
    }

    fn had(&self, store: &dyn PieceStore) -> Vec<u32> {
        had(&store.have(), &self.manifest)
    }
}

fn had(have: &Bitfield, manifest: &Manifest) -> Vec<u32> {
    have.iter(manifest.layout()).map(PieceIndex::get).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn scenario(case: &Case, store: &dyn PieceStore) {
    let last = u64::from(case.manifest.layout().count()) - 1;
    assert!(case.had(store).is_empty());
    case.write(store, [last, 1]);
    case.write(store, [1]);
    assert_eq!(case.had(store), [1, last as u32]);
    store.checkpoint(false).unwrap();
    assert!(matches!(store.finish(), Err(StoreError::Incomplete)));
    let mut read = vec![0; 100];
    store.read(PIECE as u64 + 7, &mut read).unwrap();
    assert_eq!(read, case.data[PIECE + 7..PIECE + 107]);
    case.write(store, 0..=last);
    store.verify(&|_| ControlFlow::Continue(())).unwrap();
    let reader = store.finish().unwrap();
    let mut read = vec![0; case.data.len()];
    reader.read(0, &mut read).unwrap();
    assert!(read == case.data);
    assert!(reader.is_unchanged());
    assert!(reader.read(case.data.len() as u64 - 1, &mut [0; 2]).is_err());
}

#[test]
fn pieces_are_put_together_in_memory() {
    let case = Case::new(5 * PIECE + 123);
    scenario(&case, &MemStore::new(case.manifest.clone()));
}

#[test]
fn pieces_are_put_together_on_disk() {
    let case = Case::new(5 * PIECE + 123);
    let store = case.open().unwrap();
    assert_eq!(fs::metadata(case.part()).unwrap().mode() & 0o777, 0o600);
    scenario(&case, &store);
    assert_eq!(names(case.dir.path()), ["movie.mp4"]);
    assert!(fs::read(case.destination()).unwrap() == case.data);
    let expected =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o666)).tempfile().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&case.destination()), mode(expected.path()));
}

use std::os::unix::fs::PermissionsExt as _;

#[test]
fn an_empty_file_is_a_file() {
    let case = Case::new(0);
    case.open().unwrap().finish().unwrap();
    assert_eq!(fs::read(case.destination()).unwrap(), b"");
    assert_eq!(names(case.dir.path()), ["movie.mp4"]);
}

#[test]
fn a_clean_stop_and_a_crash_keep_every_piece_that_is_there() {
    let case = Case::new(8 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, [0, 3]);
    store.checkpoint(true).unwrap();
    drop(store);
    let store = case.open().unwrap();
    assert_eq!(case.had(&store), [0, 3]);
    case.write(&store, [5]);
    store.checkpoint(false).unwrap();
    case.write(&store, [6]);
    assert_eq!(case.had(&store), [0, 3, 5, 6]);
    // A crash: nothing more is saved. Piece 6 was never claimed, but its data is there and is found to be right.
    drop(store);
    assert_eq!(case.had(&case.open().unwrap()), [0, 3, 5, 6]);
}

#[test]
fn a_state_cut_short_zeroed_or_of_another_file_means_hashing_all_there_is() {
    let case = Case::new(3 * PIECE + 5);
    let store = case.open().unwrap();
    case.write(&store, [0, 3]);
    store.checkpoint(true).unwrap();
    drop(store);
    let good = fs::read(case.state()).unwrap();
    let cut = (0..good.len()).map(|length| good[..length].to_vec());
    let mut other = good.clone();
    other[16] ^= 1;
    for bad in cut.chain([vec![0; good.len()], other, [good.clone(), vec![0]].concat()]) {
        fs::write(case.state(), &bad).unwrap();
        assert_eq!(case.had(&case.open().unwrap()), [0, 3]);
    }
    fs::remove_file(case.state()).unwrap();
    assert_eq!(case.had(&case.open().unwrap()), [0, 3]);
    fs::remove_file(case.state()).unwrap();
    symlink("/etc/passwd", case.state()).unwrap();
    assert_eq!(case.had(&case.open().unwrap()), [0, 3]);
    assert!(fs::symlink_metadata(case.state()).unwrap().is_file());
}

#[test]
fn rotten_claims_are_found_out() {
    for clean in [true, false] {
        let case = Case::new(9 * PIECE);
        let store = case.open().unwrap();
        case.write(&store, 0..8);
        store.checkpoint(clean).unwrap();
        drop(store);
        let part = fs::OpenOptions::new().write(true).open(case.part()).unwrap();
        part.write_all_at(b"rotten", 4 * PIECE as u64 + 1_000).unwrap();
        assert_eq!(case.had(&case.open().unwrap()), [0, 1, 2, 3, 5, 6, 7]);
    }
}

#[test]
fn a_part_cut_short_is_taken_as_far_as_it_goes() {
    let case = Case::new(4 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..4);
    store.checkpoint(false).unwrap();
    drop(store);
    fs::OpenOptions::new().write(true).open(case.part()).unwrap().set_len(2 * PIECE as u64 + 1).unwrap();
    let store = case.open().unwrap();
    assert_eq!(case.had(&store), [0, 1]);
    case.write(&store, 2..4);
    store.finish().unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn pieces_of_zeros_survive_a_lost_state() {
    let mut case = Case::new(3 * PIECE);
    case.data[PIECE..2 * PIECE].fill(0);
    case.manifest = Arc::new(manifest_of(&case.data));
    drop(case.open().unwrap());
    fs::remove_file(case.state()).unwrap();
    // All of it is a hole, and a hole reads as zeros.
    assert_eq!(case.had(&case.open().unwrap()), [1]);
}

#[test]
fn what_is_at_the_final_name_is_never_touched() {
    let case = Case::new(2 * PIECE);
    fs::write(case.destination(), "mine").unwrap();
    assert!(matches!(case.open(), Err(StoreError::NameTaken)));
    assert_eq!(names(case.dir.path()), ["movie.mp4"]);
    fs::remove_file(case.destination()).unwrap();
    let store = case.open().unwrap();
    case.write(&store, 0..2);
    symlink("/nowhere", case.destination()).unwrap();
    assert!(matches!(store.finish(), Err(StoreError::NameTaken)));
    assert_eq!(fs::read_link(case.destination()).unwrap(), Path::new("/nowhere"));
    fs::remove_file(case.destination()).unwrap();
    store.finish().unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn planted_links_and_special_files_are_refused() {
    let case = Case::new(PIECE);
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), case.parts()).unwrap();
    assert!(matches!(case.open(), Err(StoreError::Tampered(_))));
    assert!(names(elsewhere.path()).is_empty());
    fs::remove_file(case.parts()).unwrap();
    fs::write(case.parts(), "a file").unwrap();
    assert!(matches!(case.open(), Err(StoreError::Tampered(_))));
    fs::remove_file(case.parts()).unwrap();
    fs::create_dir(case.parts()).unwrap();
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, case.part()).unwrap();
    assert!(matches!(case.open(), Err(StoreError::Tampered(_))));
    fs::remove_file(case.part()).unwrap();
    fs::hard_link(&victim, case.part()).unwrap();
    assert!(matches!(case.open(), Err(StoreError::Tampered(_))));
    fs::remove_file(case.part()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, case.part(), rustix::fs::Mode::RWXU).unwrap();
    assert!(matches!(case.open(), Err(StoreError::Tampered(_))));
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
}

#[test]
fn a_part_that_is_replaced_or_deleted_under_us_never_gets_its_name() {
    for replace in [true, false] {
        let case = Case::new(PIECE);
        let store = case.open().unwrap();
        case.write(&store, [0]);
        fs::remove_file(case.part()).unwrap();
        if replace {
            fs::write(case.part(), &case.data).unwrap();
        }
        assert!(matches!(store.finish(), Err(StoreError::Tampered(_))));
        assert!(!case.destination().exists());
    }
}

#[test]
fn two_at_once_are_refused() {
    let case = Case::new(PIECE);
    let first = case.open().unwrap();
    assert!(matches!(case.open(), Err(StoreError::InUse)));
    drop(first);
    case.open().unwrap();
}

#[test]
fn when_syncing_fails_nothing_since_the_last_time_counts() {
    let case = Case::new(4 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, [0]);
    store.checkpoint(false).unwrap();
    case.write(&store, 1..4);
    let store = store.with_sync(|_| Err(std::io::ErrorKind::Other.into()));
    assert!(matches!(store.finish(), Err(StoreError::Unsynced(_))));
    assert_eq!(case.had(&store), [0]);
    assert!(!case.destination().exists());
    // Not even a sync that works now makes up for it.
    assert!(matches!(store.checkpoint(false), Err(StoreError::Unsynced(_))));
    // Opened anew while the old one is still read from.
    let again = case.open().unwrap();
    assert_eq!(case.had(&again), [0]);
    case.write(&again, 1..4);
    again.finish().unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn reading_the_whole_again_finds_what_rotted_meanwhile() {
    let case = Case::new(4 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..4);
    let part = fs::OpenOptions::new().write(true).open(case.part()).unwrap();
    part.write_all_at(b"rotten", 2 * PIECE as u64).unwrap();
    assert!(matches!(store.verify(&|_| ControlFlow::Continue(())), Err(StoreError::Corrupt)));
    assert_eq!(case.had(&store), [0, 1, 3]);
    assert!(matches!(store.finish(), Err(StoreError::Incomplete)));
    case.write(&store, [2]);
    store.verify(&|_| ControlFlow::Continue(())).unwrap();
    store.finish().unwrap();
}

#[test]
fn discarding_leaves_nothing_but_what_is_others() {
    let case = Case::new(PIECE);
    drop(case.open().unwrap());
    let other = case.parts().join("other.part");
    fs::write(&other, "another download").unwrap();
    assert!(case.place().is_begun().unwrap());
    discard(file_id(1), &case.destination()).unwrap();
    assert!(!case.place().is_begun().unwrap());
    assert_eq!(names(&case.parts()), ["other.part"]);
    fs::remove_file(&other).unwrap();
    drop(case.open().unwrap());
    discard(file_id(1), &case.destination()).unwrap();
    assert_eq!(names(case.dir.path()), Vec::<String>::new());
    discard(file_id(1), &case.destination()).unwrap();
}

#[test]
fn a_crash_after_the_rename_is_known_by_its_traces() {
    let case = Case::new(PIECE);
    drop(case.open().unwrap());
    assert!(!case.place().is_left_behind().unwrap());
    fs::rename(case.part(), case.destination()).unwrap();
    assert!(case.place().is_left_behind().unwrap());
    assert!(!case.place().is_refused().unwrap());
    fs::remove_file(case.state()).unwrap();
    assert!(!case.place().is_left_behind().unwrap());
    assert!(case.place().is_refused().unwrap());
}

#[test]
fn hashing_can_be_broken_off() {
    let case = Case::new(8 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..8);
    store.checkpoint(false).unwrap();
    drop(store);
    let broken_off = case.place().open(&|_| ControlFlow::Break(()));
    assert!(
        matches!(broken_off, Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::Interrupted)
    );
    assert_eq!(case.had(&case.open().unwrap()).len(), 8);
}
