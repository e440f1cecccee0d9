//! One scenario for every backend, and the cases that need a disk.

#![allow(clippy::unwrap_used)]

mod corruption;
mod endings;
mod folder;
mod power;
mod versions;

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use proto::domain::{Bitfield, Manifest, PieceIndex};
use testkit::content::{PIECE, file_id, manifest};

use super::{FsStore, MemStore, OpenStore, PieceStore, StoreError, discard};

/// A file to download, and its destination.
struct Case {
    dir: tempfile::TempDir,
    data: Vec<u8>,
    manifest: Arc<Manifest>,
}

impl Case {
    fn new(length: usize) -> Self {
        Self::of((0..length).map(|at| (at / 97 + at) as u8).collect())
    }

    fn place(&self) -> OpenStore {
        OpenStore::at(file_id(1), self.manifest.clone(), self.destination()).unwrap().with_umask(0o027)
    }

    fn of(data: Vec<u8>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), manifest: Arc::new(manifest("file", &data)), data }
    }

    /// Opens the store, and rechecks what an earlier run wrote.
    fn open(&self) -> Result<FsStore, StoreError> {
        let store = self.place().open()?;
        let claimed = store.unverified();
        assert!(store.have().is_empty(), "nothing of an earlier run is believed");
        store.recheck(&mut |piece, good| {
            assert!(claimed.contains(piece));
            assert_eq!(store.have().contains(piece), good);
            ControlFlow::Continue(())
        });
        assert!(store.unverified().is_empty());
        Ok(store)
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

    /// Changes the part as another process would.
    fn damage(&self, how: impl FnOnce(&fs::File)) {
        how(&fs::OpenOptions::new().read(true).write(true).open(self.part()).unwrap());
    }

    fn piece(&self, index: u64) -> PieceIndex {
        self.manifest.layout().index(index).unwrap()
    }

    fn write(&self, store: &dyn PieceStore, indices: impl IntoIterator<Item = u64>) {
        for index in indices {
            let range = self.manifest.layout().range(self.piece(index));
            let data = Bytes::copy_from_slice(&self.data[range.start as usize..range.end as usize]);
            // In three parts, one of them empty, as the network may deliver them.
            let (first, second) = (data.slice(..data.len() / 3), data.slice(data.len() / 3..));
            store.write(self.piece(index), &[first, Bytes::new(), second]).unwrap();
        }
    }

    fn had(&self, store: &dyn PieceStore) -> Vec<u32> {
        had(&store.have(), &self.manifest)
    }
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
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
    assert!(matches!(store.finish(&go_on), Err(StoreError::Incomplete)));
    let mut read = vec![0; 100];
    store.read(PIECE as u64 + 7, &mut read).unwrap();
    assert_eq!(read, case.data[PIECE + 7..PIECE + 107]);
    case.write(store, 0..=last);
    store.verify(&go_on).unwrap();
    let reader = store.finish(&go_on).unwrap();
    let mut read = vec![0; case.data.len()];
    reader.read(0, &mut read).unwrap();
    assert!(read == case.data);
    assert!(reader.is_unchanged(0..u64::MAX));
    assert!(reader.read(case.data.len() as u64 - 1, &mut [0; 2]).is_err());
}

#[test]
fn a_download_finishes_without_a_watch() {
    let case = Case::new(3 * PIECE);
    let store = case.place().open().unwrap().without_watch();
    case.write(&store, 0..3);
    case.damage(|part| part.write_all_at(b"damaged", 9).unwrap());
    assert!(matches!(store.finish(&go_on), Err(StoreError::Corrupt)));
    case.write(&store, [0]);
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn a_write_while_the_whole_is_read_again_is_noticed() {
    let case = Case::new(3 * PIECE);
    let store = case.place().open().unwrap();
    case.write(&store, 0..3);
    let other = fs::OpenOptions::new().write(true).open(case.part()).unwrap();
    let meddled = std::sync::atomic::AtomicBool::new(false);
    let finished = store.finish(&|read| {
        if read > PIECE as u64 && !meddled.swap(true, std::sync::atomic::Ordering::Relaxed) {
            other.write_all_at(b"damaged", 9).unwrap();
        }
        ControlFlow::Continue(())
    });
    assert!(meddled.into_inner(), "the whole was read again, since another process opened it");
    assert!(matches!(finished, Err(StoreError::Corrupt)), "it was accepted, or failed otherwise");
    assert!(!case.destination().exists());
}

#[test]
fn a_file_that_others_only_read_gets_its_name() {
    let case = Case::new(3 * PIECE);
    let store = case.place().open().unwrap();
    case.write(&store, 0..3);
    drop(fs::File::open(case.part()).unwrap());
    store
        .finish(&|_| {
            drop(fs::File::open(case.part()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
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
    let mode = fs::metadata(case.destination()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o640, "as its caller's umask leaves it");
}

#[test]
fn an_empty_file_is_a_file() {
    let case = Case::new(0);
    case.open().unwrap().finish(&go_on).unwrap();
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
    // A crash: nothing more is saved. Piece 6 was never claimed, but its data is there and is found good.
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
fn a_state_of_version_1_means_hashing_all_there_is() {
    let case = Case::new(3 * PIECE + 5);
    let store = case.open().unwrap();
    case.write(&store, [0, 3]);
    store.checkpoint(true).unwrap();
    drop(store);
    // Version 1 claims every piece, in both of its bitmaps.
    let mut old = fs::read(case.state()).unwrap();
    old.truncate(old.len() - 32 - 1);
    old[8..12].copy_from_slice(&1_u32.to_le_bytes());
    old.extend_from_slice(&[0xf0, 0xf0]);
    let checksum = blake3::hash(&old);
    old.extend_from_slice(checksum.as_bytes());
    fs::write(case.state(), &old).unwrap();
    let store = case.open().unwrap();
    assert_eq!(case.had(&store), [0, 3]);
    case.write(&store, 1..3);
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
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
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn pieces_of_zeros_survive_a_lost_state() {
    let mut case = Case::new(3 * PIECE);
    case.data[PIECE..2 * PIECE].fill(0);
    case.manifest = Arc::new(manifest("file", &case.data));
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
    assert!(matches!(store.finish(&go_on), Err(StoreError::NameTaken)));
    assert_eq!(fs::read_link(case.destination()).unwrap(), Path::new("/nowhere"));
    fs::remove_file(case.destination()).unwrap();
    store.finish(&go_on).unwrap();
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
fn a_part_on_another_file_system_never_gets_its_name() {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    let case = Case::new(2 * PIECE);
    fs::create_dir(case.parts()).unwrap();
    let open = || {
        // SAFETY: a thread that ends here gets mounts of its own. No file descriptor is unshared.
        #[allow(unsafe_code, reason = "there is no safe way to get another mount namespace")]
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        mount("none", case.parts(), "tmpfs", MountFlags::empty(), Some(c"size=8m"))?;
        Ok(case.place().open().and_then(|store| {
            case.write(&store, 0..2);
            store.finish(&go_on).map(drop)
        }))
    };
    let outcome: rustix::io::Result<_> =
        std::thread::scope(|scope| scope.spawn(open).join().expect("no panic"));
    match outcome {
        // A part can't be renamed to another file system.
        Ok(finished) => assert!(finished.is_err()),
        Err(error) => println!("SKIPPED: this user may not mount: {error}"),
    }
    assert!(!case.destination().exists());
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
        assert!(matches!(store.finish(&go_on), Err(StoreError::Tampered(_))));
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
    assert!(matches!(store.finish(&go_on), Err(StoreError::Unsynced(_))));
    assert_eq!(case.had(&store), [0]);
    assert!(!case.destination().exists());
    // Not even a sync that succeeds now repairs that.
    assert!(matches!(store.checkpoint(false), Err(StoreError::Unsynced(_))));
    // Opened again while the old store is still read from.
    let again = case.open().unwrap();
    assert_eq!(case.had(&again), [0]);
    case.write(&again, 1..4);
    again.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn reading_the_whole_again_finds_what_rotted_meanwhile() {
    let case = Case::new(4 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..4);
    let part = fs::OpenOptions::new().write(true).open(case.part()).unwrap();
    part.write_all_at(b"rotten", 2 * PIECE as u64).unwrap();
    assert!(matches!(store.verify(&go_on), Err(StoreError::Corrupt)));
    assert_eq!(case.had(&store), [0, 1, 3]);
    assert!(matches!(store.finish(&go_on), Err(StoreError::Incomplete)));
    case.write(&store, [2]);
    store.verify(&go_on).unwrap();
    store.finish(&go_on).unwrap();
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
fn reading_again_can_be_broken_off_and_loses_no_claim() {
    let case = Case::new(40 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..40);
    store.checkpoint(true).unwrap();
    drop(store);
    let store = case.place().open().unwrap();
    store.recheck(&mut |_, _| ControlFlow::Break(()));
    assert_eq!(case.had(&store), [0]);
    assert_eq!(store.unverified().count(), 39);
    assert!(matches!(store.finish(&go_on), Err(StoreError::Incomplete)));
    store.checkpoint(true).unwrap();
    drop(store);
    assert_eq!(case.open().unwrap().have().count(), 40);
}

#[test]
fn a_piece_written_while_it_is_read_again_counts() {
    let case = Case::new(3 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..2);
    store.checkpoint(true).unwrap();
    drop(store);
    case.damage(|part| part.write_all_at(b"rotten", PIECE as u64).unwrap());
    let store = case.place().open().unwrap();
    store.recheck(&mut |piece, _| {
        if piece.get() == 0 {
            case.write(&store, [1, 2]);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(case.had(&store), [0, 1, 2]);
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn what_others_write_before_the_end_never_gets_the_name() {
    let case = Case::new(3 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..3);
    case.damage(|part| part.write_all_at(b"rotten", PIECE as u64).unwrap());
    assert!(matches!(store.finish(&go_on), Err(StoreError::Corrupt)));
    assert_eq!(case.had(&store), [0, 2]);
    case.write(&store, [1]);
    // The file is opened during the second read, too.
    let other = fs::OpenOptions::new().write(true).open(case.part()).unwrap();
    let meddle = |read: u64| {
        if read == 3 * PIECE as u64 {
            other.write_all_at(b"rotten", 0).unwrap();
            case.damage(|_| {});
        }
        ControlFlow::Continue(())
    };
    assert!(matches!(store.finish(&meddle), Err(StoreError::Corrupt)));
    case.write(&store, [0]);
    drop(other);
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn who_only_reads_it_costs_a_second_read_and_no_more() {
    let case = Case::new(3 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..3);
    drop(fs::File::open(case.part()).unwrap());
    let read = AtomicU64::new(0);
    let count = |bytes| {
        read.store(bytes, Ordering::SeqCst);
        ControlFlow::Continue(())
    };
    store.finish(&count).unwrap();
    assert_eq!(read.into_inner(), 3 * PIECE as u64);
    let case = Case::new(3 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..3);
    store.finish(&|_| panic!("nobody opened it: it is not read again")).unwrap();
}

/// A directory for downloads, and another one that a link will lead to instead.
struct Swap {
    root: tempfile::TempDir,
}

impl Swap {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("downloads")).unwrap();
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn swap(&self) {
        fs::rename(self.path("downloads"), self.path("moved")).unwrap();
        symlink("elsewhere", self.path("downloads")).unwrap();
    }

    fn put_back(&self) {
        fs::remove_file(self.path("downloads")).unwrap();
        fs::rename(self.path("moved"), self.path("downloads")).unwrap();
    }
}

#[test]
fn a_directory_swapped_for_a_link_at_any_stage_is_never_followed() {
    let case = Case::new(3 * PIECE);
    let pieces = 3;
    // Stages 0: accepted; 1: opened; 2 and 3: some pieces written; 4: all written; 5 and 6: only after a
    // restart.
    for stage in 0..7 {
        let swap = Swap::new();
        let destination = swap.path("downloads/movie.mp4");
        let at = |destination: PathBuf| OpenStore::at(file_id(1), case.manifest.clone(), destination);
        let fill = || -> Result<(), StoreError> {
            let place = at(destination.clone())?;
            (stage == 0).then(|| swap.swap());
            let store = place.open()?;
            store.recheck(&mut |_, _| ControlFlow::Continue(()));
            (stage == 1).then(|| swap.swap());
            for piece in 0..pieces {
                case.write(&store, [piece]);
                store.checkpoint(false)?;
                (stage == piece + 2).then(|| swap.swap());
                if stage == 5 && piece == 1 {
                    return Err(StoreError::Incomplete);
                }
            }
            if stage == 6 {
                return Err(StoreError::Incomplete);
            }
            store.finish(&go_on).map(drop)
        };
        let error = fill().unwrap_err();
        if stage < 5 {
            assert!(matches!(error, StoreError::Displaced), "stage {stage}: {error}");
        } else {
            swap.swap();
        }
        // The download is started again, as after a restart.
        assert!(matches!(at(destination.clone()), Err(StoreError::Linked)), "stage {stage}");
        assert!(matches!(discard(file_id(1), &destination), Err(StoreError::Linked)), "stage {stage}");
        assert_eq!(names(&swap.path("elsewhere")), Vec::<String>::new(), "stage {stage}");
        // A link higher up in the path is refused as well.
        let above = swap.path("above");
        symlink(swap.path("moved").parent().unwrap(), &above).unwrap();
        assert!(matches!(at(above.join("moved/movie.mp4")), Err(StoreError::Linked)));
        swap.put_back();
        let store = at(destination.clone()).unwrap().open().unwrap();
        store.recheck(&mut |_, _| ControlFlow::Continue(()));
        let missing = (0..pieces).filter(|piece| !store.have().contains(case.piece(*piece)));
        let missing: Vec<u64> = missing.collect();
        case.write(&store, missing);
        store.finish(&go_on).unwrap();
        assert!(fs::read(&destination).unwrap() == case.data);
    }
}

#[test]
fn a_directory_that_another_one_took_the_place_of_gets_no_file() {
    let case = Case::new(PIECE);
    let swap = Swap::new();
    let destination = swap.path("downloads/movie.mp4");
    let place = OpenStore::at(file_id(1), case.manifest.clone(), destination).unwrap();
    let store = place.open().unwrap();
    case.write(&store, [0]);
    fs::rename(swap.path("downloads"), swap.path("moved")).unwrap();
    fs::rename(swap.path("elsewhere"), swap.path("downloads")).unwrap();
    assert!(matches!(store.finish(&go_on), Err(StoreError::Displaced)));
    assert!(matches!(place.check_path(), Err(StoreError::Displaced)));
    assert_eq!(names(&swap.path("downloads")), Vec::<String>::new());
}

#[test]
fn zeros_stay_holes_whatever_was_there_before() {
    // Data, zeros, and a piece that holds both.
    let mut data = vec![0; 8 * PIECE];
    data[..PIECE].fill(7);
    data[3 * PIECE..3 * PIECE + 5].fill(9);
    let case = Case::of(data);
    let store = case.open().unwrap();
    // Something else lies where zeros belong, as after a piece that went bad.
    case.damage(|part| part.write_all_at(&[1; 2 * PIECE], 4 * PIECE as u64).unwrap());
    for index in 0..8 {
        let piece = case.piece(index);
        let bytes = &case.data[index as usize * PIECE..][..PIECE];
        let parts: Vec<Bytes> = bytes.chunks(PIECE / 4).map(Bytes::copy_from_slice).collect();
        store.write(piece, &parts).unwrap();
    }
    store.finish(&|_| ControlFlow::Continue(())).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
    let used = fs::metadata(case.destination()).unwrap().blocks() * 512;
    assert!(used <= 2 * PIECE as u64, "{used} bytes are used");
}

#[test]
fn what_is_reserved_for_others_is_left() {
    let case = Case::new(3 * PIECE);
    let room = super::room(&case.destination()).unwrap();
    assert!(matches!(case.place().with_reserved(room).open(), Err(StoreError::Full)));
    assert!(case.place().open().is_ok());
}
