//! Protections that the store of a file has and the store of a folder must have as well.

use std::path::Path;

use super::{
    super::{super::raw, Case as FileCase},
    *,
};
use crate::storage::dir::{Directory, Places};

/// Whether the last byte of the file is in the page cache.
fn is_cached(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    raw::is_cached(&file, file.metadata().unwrap().len() - 1, 1)
}

/// Rechecks only the first piece. Returns whether the end of each of these files was in the page cache before, and
/// whether it is afterwards.
fn recheck_one(store: &dyn PieceStore, paths: &[PathBuf]) -> Vec<(bool, bool)> {
    let before: Vec<bool> = paths.iter().map(|path| is_cached(path)).collect();
    let mut seen = 0;
    store.recheck(&mut |_, good| {
        assert!(good);
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!(seen, 1);
    before.into_iter().zip(paths.iter().map(|path| is_cached(path))).collect()
}

/// After a failed write, the page cache may hold what the disk does not.
#[test]
fn a_recheck_reads_the_disk_and_not_the_page_cache() {
    // On a file system in memory there is no other copy than the cache.
    let on_disk = || tempfile::tempdir_in("/var/tmp").or_else(|_| tempfile::tempdir()).unwrap();
    // More than the kernel reads ahead.
    let mut case = FileCase::of(vec![1; 112 * PIECE]);
    case.dir = on_disk();
    let store = case.place().open().unwrap();
    case.write(&store, 0..112);
    store.checkpoint(true).unwrap();
    if raw::lives_in_memory(&fs::File::open(case.part()).unwrap()) {
        println!("not tested: there is no directory on a disk");
        return;
    }
    drop(store);
    let store = case.place().open().unwrap();
    assert_eq!(recheck_one(&store, &[case.part()]), [(true, false)]);

    // The last bytes of the contents share a piece with the index, and are not in the tree yet.
    let mut case = Case::new(&[
        file("a", &vec![1; 112 * PIECE]),
        file("b/c", &noise(2, 9_000)),
        file("b/d", &noise(3, PIECE)),
        file("e", &noise(4, PIECE)),
    ]);
    case.dir = on_disk();
    let store = case.open();
    case.fill(&*store).unwrap();
    store.checkpoint(true).unwrap();
    drop(store);
    let store = case.open();
    store.recheck(&mut |_, _| ControlFlow::Continue(()));
    assert!(store.advance().unwrap(), "the index is there");
    let paths = ["a", "b/c", "b/d"].map(|path| case.unfinished("tree").join(path));
    assert_eq!(recheck_one(&*store, &paths), [(true, false); 3]);
}

/// Changes the length through a descriptor that was open before the store was. No watch sees it in time.
fn with_other_length(
    part: &Path,
    open: &dyn Fn() -> Arc<dyn PieceStore>,
    length: u64,
) -> Arc<dyn PieceStore> {
    let other = fs::OpenOptions::new().write(true).open(part).unwrap();
    let store = open();
    other.set_len(length).unwrap();
    // Closing it would be an event.
    std::mem::forget(other);
    store
}

#[test]
fn a_length_that_others_change_never_gets_the_name() {
    let length = 40 * PIECE;
    for other in [length as u64 - PIECE as u64, length as u64 + 5] {
        let case = FileCase::of(noise(1, length));
        let first = case.place().open().unwrap();
        case.write(&first, 0..40);
        first.checkpoint(true).unwrap();
        let store = with_other_length(&case.part(), &|| Arc::new(case.open().unwrap()), other);
        if other < length as u64 {
            assert!(matches!(store.finish(&go_on), Err(StoreError::Corrupt)));
            assert!(!case.destination().exists());
            case.write(&*store, (0..40).filter(|index| !store.have().contains(case.piece(*index))));
        }
        store.finish(&go_on).unwrap();
        assert!(fs::read(case.destination()).unwrap() == case.data);

        let case = Case::new(&[file("a", &noise(1, length)), file("b", &noise(2, 9))]);
        let first = case.open();
        case.fill(&*first).unwrap();
        first.checkpoint(true).unwrap();
        let open = || {
            let store = case.open();
            case.fill(&*store).unwrap();
            store
        };
        let store = with_other_length(&case.unfinished("tree").join("a"), &open, other);
        if other < length as u64 {
            assert!(matches!(store.finish(&go_on), Err(StoreError::Corrupt)));
            assert!(!case.destination().exists());
            case.fill(&*store).unwrap();
        }
        store.finish(&go_on).unwrap();
        assert!(case.files()["a"] == noise(1, length));
    }
}

#[test]
fn a_tree_that_somebody_else_put_there_never_gets_the_name() {
    let case = Case::new(&entries());
    let store = case.open();
    case.fill(&*store).unwrap();
    let (tree, aside) = (case.unfinished("tree"), case.dir.path().join("aside"));
    fs::rename(&tree, &aside).unwrap();
    for planted in [true, false] {
        if planted {
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("a"), b"evil").unwrap();
        }
        assert!(matches!(store.checkpoint(false), Err(StoreError::Tampered(_))));
        let refused = store.finish(&go_on).map(drop).unwrap_err();
        assert!(matches!(refused, StoreError::Tampered(_)), "{refused:?}");
        assert!(!case.destination().exists());
        let _ = fs::remove_dir_all(&tree);
    }
    fs::rename(&aside, &tree).unwrap();
    store.finish(&go_on).unwrap();
    assert_eq!(case.files()["a"], noise(1, 10));
}

#[test]
fn what_is_in_the_place_of_the_tree_is_reported_and_can_be_removed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"precious").unwrap();
    for is_link in [false, true] {
        let case = Case::new(&entries());
        let store = case.open();
        match is_link {
            true => std::os::unix::fs::symlink(outside.path(), case.unfinished("tree")).unwrap(),
            false => fs::write(case.unfinished("tree"), b"a file").unwrap(),
        }
        let refused = case.fill(&*store).unwrap_err();
        assert!(matches!(refused, StoreError::Tampered(_)), "{refused:?}");
        drop(store);
        discard(file_id(1), &case.destination()).unwrap();
        assert!(!case.dir.path().join(".minitorrent").exists());
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn an_index_that_others_cut_short_is_not_served() {
    let case = Case::new(&entries());
    let store = case.open();
    case.fill(&*store).unwrap();
    assert!(store.is_unchanged(0..u64::MAX));
    fs::OpenOptions::new().write(true).open(case.unfinished("part")).unwrap().set_len(3).unwrap();
    assert!(!store.is_unchanged(0..u64::MAX));
}

#[test]
fn a_shared_file_that_is_replaced_between_the_check_and_the_read_is_not_sent() {
    let case = Case::new(&entries());
    let store = case.open();
    case.fill(&*store).unwrap();
    let reader = store.finish(&go_on).unwrap().opened().unwrap().expect("it was not open");
    assert!(reader.is_unchanged(0..10));
    fs::write(case.dir.path().join("other"), noise(9, 10)).unwrap();
    fs::rename(case.dir.path().join("other"), case.destination().join("a")).unwrap();
    reader.read(0, &mut [0; 10]).unwrap_err();
    assert!(!reader.is_unchanged(0..10));
}

/// As on a file system that can't rename without overwriting.
#[test]
fn nothing_is_overwritten_where_a_rename_would_do_so() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("name");
    let mut places = Places::of(&Directory::of(&destination).unwrap(), &destination).unwrap();
    places.make_parts().unwrap();
    let parts = dir.path().join(".minitorrent");
    fs::write(parts.join("file"), b"new").unwrap();
    fs::create_dir(parts.join("folder")).unwrap();
    fs::write(parts.join("folder/x"), b"new").unwrap();
    for taken in ["file", "folder", "link"] {
        match taken {
            "file" => fs::write(&destination, b"old").unwrap(),
            "folder" => fs::create_dir(&destination).unwrap(),
            _ => std::os::unix::fs::symlink("nowhere", &destination).unwrap(),
        }
        for new in ["file", "folder"] {
            assert!(matches!(places.move_by_link(new), Err(StoreError::NameTaken)), "{new} over {taken}");
        }
        fs::rename(&destination, dir.path().join(format!("was-{taken}"))).unwrap();
    }
    places.move_by_link("folder").unwrap();
    assert_eq!(fs::read(destination.join("x")).unwrap(), b"new");
    fs::remove_dir_all(&destination).unwrap();
    places.move_by_link("file").unwrap();
    assert_eq!(fs::read(&destination).unwrap(), b"new");
    assert_eq!(fs::read_dir(&parts).unwrap().count(), 0);
}
