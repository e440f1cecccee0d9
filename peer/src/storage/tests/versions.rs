//! Copies that this peer has: what is taken from them, which of them may be replaced, and when they count as changed.

use std::{
    fs, io,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    sync::Arc,
};

use testkit::content::{PIECE, file_id, manifest, noise};

use super::{
    super::{
        Original, PieceReader as _, PieceStore as _, Replaced, SharedFile, StoreError, check_destination,
        discard, raw, take, take_back,
    },
    Case, go_on,
};
use crate::hashing::{FileStamp, HashError, folder::manifest_of_folder, scan::ScanOptions};

fn copy_of(path: &Path, data: &[u8]) -> Original {
    let manifest = Arc::new(manifest("file", data));
    Original { path: path.to_owned(), manifest, folder: None, only: Vec::new() }
}

/// The pieces that are taken from the copy.
fn taken(copy: &Original, case: &Case, store: &super::FsStore) -> Vec<u32> {
    let mut told = Vec::new();
    let tell = &mut |piece: proto::domain::PieceIndex| {
        told.push(piece.get());
        ControlFlow::Continue(())
    };
    take(copy, &case.manifest, store, tell).unwrap();
    told
}

#[test]
fn only_the_right_bytes_of_an_older_copy_are_taken() {
    let old = noise(1, 3 * PIECE + 100);
    let mut new = old.clone();
    new[PIECE] ^= 1;
    let case = Case::of(new);
    let path = case.dir.path().join("old");
    let copy = copy_of(&path, &old);
    let mut damaged = old.clone();
    damaged[2 * PIECE] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let store = case.place().open().unwrap();
    assert_eq!(taken(&copy, &case, &store), [0, 3], "one is new, and one is damaged");
    assert_eq!(case.had(&store), [0, 3]);
    assert_eq!(taken(&copy, &case, &store), [0; 0], "what is there is not taken again");

    fs::write(&path, &old).unwrap();
    let stopped = take(&copy, &case.manifest, &store, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::Interrupted));
    assert_eq!(case.had(&store), [0, 2, 3]);
    case.write(&store, [1]);
    store.finish(&go_on).unwrap();
    assert!(fs::read(case.destination()).unwrap() == case.data);
}

#[test]
fn a_copy_that_is_cut_short_or_gone_gives_what_is_left_of_it() {
    let case = Case::of(noise(1, 3 * PIECE));
    let path = case.dir.path().join("old");
    let copy = copy_of(&path, &case.data);
    let store = case.place().open().unwrap();
    assert_eq!(taken(&copy, &case, &store), [0; 0]);
    fs::write(&path, &case.data[..PIECE + 5]).unwrap();
    assert_eq!(taken(&copy, &case, &store), [0]);
}

/// The folder at `root` as it was published, or a part of it.
fn published(root: &Path, only: &[&str]) -> Replaced {
    fs::create_dir_all(root.join("docs")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for (path, content) in [("a.txt", "one"), ("docs.txt", "two"), ("docs/b.txt", "three")] {
        fs::write(root.join(path), content).unwrap();
    }
    symlink("a.txt", root.join("link")).unwrap();
    let name = "folder".parse().unwrap();
    let (hashed, files) = manifest_of_folder(root, &name, &ScanOptions::default(), &go_on).unwrap();
    let original = Original {
        path: root.to_owned(),
        manifest: Arc::new(hashed.manifest),
        folder: Some(files.folder().clone()),
        only: only.iter().map(|pattern| (*pattern).to_owned()).collect(),
    };
    let stamp = original.stamp_now().unwrap();
    Replaced { original, stamp }
}

#[test]
fn a_copy_in_which_anything_was_changed_is_not_replaced() {
    type Change = fn(&Path) -> io::Result<()>;
    let changes: &[(&str, Change)] = &[
        ("another content", |root| fs::write(root.join("docs/b.txt"), "longer than before")),
        ("a file removed", |root| fs::remove_file(root.join("docs.txt"))),
        ("a file added", |root| fs::write(root.join("new.txt"), "mine")),
        ("a file added below", |root| fs::write(root.join("docs/a.txt"), "mine")),
        ("a file in an empty directory", |root| fs::write(root.join("empty/new"), "mine")),
        ("an empty directory added", |root| fs::create_dir(root.join("new"))),
        ("a link added", |root| symlink("docs", root.join("other"))),
        ("a link elsewhere", |root| {
            fs::remove_file(root.join("link"))?;
            symlink("docs.txt", root.join("link"))
        }),
        ("a file in place of a link", |root| {
            fs::remove_file(root.join("link"))?;
            fs::write(root.join("link"), "mine")
        }),
        ("a file in place of a directory", |root| {
            fs::remove_dir(root.join("empty"))?;
            fs::write(root.join("empty"), "mine")
        }),
    ];
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("folder");
        let copy = published(&root, &[]);
        copy.check().unwrap();
        change(&root).unwrap();
        assert!(matches!(copy.check(), Err(StoreError::Modified(_))), "{what}");
    }
}

#[test]
fn a_part_of_a_folder_in_which_there_is_more_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("folder");
    let copy = published(&root, &["docs/"]);
    for other in ["a.txt", "docs.txt", "link"] {
        assert!(matches!(copy.check(), Err(StoreError::Modified(_))), "{other}");
        fs::remove_file(root.join(other)).unwrap();
    }
    fs::remove_dir(root.join("empty")).unwrap();
    copy.check().unwrap();
}

#[test]
fn a_file_that_was_replaced_is_not_the_one_that_was_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let data = noise(1, PIECE + 9);
    fs::write(&path, &data).unwrap();
    let original = copy_of(&path, &data);
    let stamp = original.stamp_now().unwrap();
    assert_eq!(stamp, FileStamp::of(&fs::metadata(&path).unwrap()));
    let shared = original.open(stamp).unwrap();
    let open = shared.opened().unwrap().unwrap();
    assert_eq!((shared.stamp(), open.stamp()), (Some(stamp), Some(stamp)));
    assert!(shared.is_unchanged(0..1) && open.is_unchanged(0..1));
    assert!(!shared.is_cached(0, 1), "it would have to be opened to ask");
    let file = fs::File::open(&path).unwrap();
    let is_cached = |file: &fs::File| raw::lives_in_memory(file) || raw::is_cached(file, 0, 1);
    // Not every file system can say.
    assert_eq!(open.is_cached(0, 1), is_cached(&file));

    fs::rename(&path, dir.path().join("moved")).unwrap();
    fs::write(&path, &data).unwrap();
    assert!(!shared.is_unchanged(0..1) && !open.is_unchanged(0..1), "another file has its name");
    assert!(shared.opened().is_err() && shared.read(0, &mut [0]).is_err());
    assert!(original.open(stamp).is_none());
    assert!(matches!(SharedFile::at(&path, stamp), Err(HashError::Changing(_))));

    let now = original.stamp_now().unwrap();
    let open = original.open(now).unwrap().opened().unwrap().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!open.is_unchanged(0..1), "it is gone");
    assert!(original.stamp_now().is_none());
    fs::write(&path, &data[1..]).unwrap();
    let shorter = original.stamp_now().unwrap();
    assert!(original.open(shorter).is_none(), "not of this length");
}

#[test]
fn an_open_file_whose_directory_was_moved_is_not_there_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    fs::create_dir(&before).unwrap();
    fs::write(before.join("file"), "bytes").unwrap();
    let original = copy_of(&before.join("file"), b"bytes");
    let shared = original.open(original.stamp_now().unwrap()).unwrap();
    let open = shared.opened().unwrap().unwrap();
    fs::rename(&before, &after).unwrap();
    assert!(!open.is_unchanged(0..1));
    fs::rename(&after, &before).unwrap();
    assert!(open.is_unchanged(0..1));
}

#[test]
fn a_folder_whose_entries_are_not_known_is_listed_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("folder");
    let original = Original { folder: None, ..published(&root, &[]).original };
    let reader = original.check(&go_on).unwrap();
    assert!(reader.folder().is_some() && reader.is_unchanged(0..1));
    assert!(!reader.is_cached(0, 1), "its files would have to be opened to ask");
    fs::write(root.join("new.txt"), "mine").unwrap();
    assert!(matches!(original.check(&go_on), Err(HashError::Mismatch(_))));
}

#[test]
fn a_final_name_is_refused_if_something_else_has_it() {
    let case = Case::new(PIECE);
    assert!(!case.place().is_refused().unwrap(), "it is free");
    drop(case.open().unwrap());
    fs::remove_file(case.part()).unwrap();
    assert!(case.state().exists() && !case.place().is_left_behind().unwrap(), "the file is not there");
    fs::remove_file(case.state()).unwrap();
    fs::write(case.destination(), "mine").unwrap();
    assert!(case.place().is_refused().unwrap());
    let original = copy_of(&case.destination(), b"mine");
    let stamp = original.stamp_now().unwrap();
    let place = case.place().in_place_of(Some(Arc::new(Replaced { original, stamp })));
    assert!(place.replaced().is_some() && !place.is_refused().unwrap());
}

#[test]
fn a_place_says_how_it_was_made() {
    let case = Case::new(PIECE);
    let place = case.place().with_umask(0o027).with_reserved(5).with_only(vec!["docs".into()]);
    assert_eq!((place.umask(), place.reserved(), place.only()), (0o027, 5, &["docs".to_owned()][..]));
    assert_eq!(place.device(), fs::metadata(case.dir.path()).unwrap().dev());
}

#[test]
fn what_is_complete_needs_no_room() {
    let case = Case::new(2 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..2);
    store.checkpoint(true).unwrap();
    drop(store);
    assert_eq!(case.place().with_reserved(u64::MAX).open().unwrap().unverified().count(), 2);
}

#[test]
fn a_complete_file_can_be_unfinished_data_again() {
    let case = Case::new(2 * PIECE);
    fs::write(case.destination(), &case.data).unwrap();
    take_back(file_id(1), &case.destination()).unwrap();
    assert!(!case.destination().exists());
    let store = case.open().unwrap();
    assert_eq!(case.had(&store), [0, 1]);
    store.discard().unwrap();
    assert!(!case.part().exists() && !case.state().exists());
}

#[test]
fn nothing_is_left_to_discard_in_a_directory_that_is_gone() {
    let case = Case::new(PIECE);
    discard(file_id(1), &case.dir.path().join("none/file")).unwrap();
    fs::write(case.destination(), "mine").unwrap();
    discard(file_id(1), &case.destination().join("below")).unwrap_err();
}

#[test]
fn a_destination_is_an_absolute_path_in_a_directory_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str| check_destination(&dir.path().join(name));
    assert_eq!(check("file"), Ok(()));
    for bad in ["none/file", ".minitorrent", ".MiniTorrent/file", ".."] {
        assert!(check(bad).is_err(), "{bad}");
    }
    assert!(check_destination(Path::new("file")).is_err() && check_destination(Path::new("/")).is_err());
}

#[test]
fn a_file_has_no_entries_and_no_second_stage() {
    let case = Case::new(2 * PIECE);
    let store = case.open().unwrap();
    assert!(store.is_unchanged(0..1) && store.stamp().is_none());
    case.write(&store, [0]);
    case.damage(|part| {
        let is_cached = raw::lives_in_memory(part) || raw::is_cached(part, 0, PIECE);
        assert_eq!(store.is_cached(0, PIECE), is_cached);
    });
    assert!(!store.advance().unwrap());
    assert_eq!(store.files_in(&store.have()), None);
    let full = io::Error::from(io::ErrorKind::QuotaExceeded);
    assert!(matches!(StoreError::from(full), StoreError::Full));
    fs::OpenOptions::new().write(true).open(case.part()).unwrap().set_len(1).unwrap();
    assert!(!store.is_unchanged(0..1), "it was cut short");
    case.damage(|part| part.set_len(case.data.len() as u64).unwrap());
    assert!(store.is_unchanged(0..1));
    fs::remove_file(case.part()).unwrap();
    assert!(!store.is_unchanged(0..1), "it was deleted");
}

#[test]
fn a_folder_knows_which_of_its_files_changed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("folder");
    let Replaced { original, stamp } = published(&root, &[]);
    let shared = original.open(stamp).unwrap();
    assert_eq!(shared.stamp(), Some(stamp));
    assert_eq!(shared.folder(), original.folder);
    assert_eq!(shared.changed_files().unwrap(), []);
    let layout = original.manifest.layout();
    assert_eq!(shared.pieces_without(layout, &[]).unwrap().count(), layout.count());
    fs::write(root.join("docs/b.txt"), "other").unwrap();
    let changed = shared.changed_files().unwrap();
    let names: Vec<&str> = changed
        .iter()
        .map(|file| original.folder.as_ref().unwrap().entries()[file.entry].path.as_str())
        .collect();
    assert_eq!(names, ["docs/b.txt"]);
    assert_eq!(shared.pieces_without(layout, &changed).unwrap().count(), 0, "all is in one piece");
    assert!(original.open(stamp).is_none());
    assert_ne!(original.stamp_now(), Some(stamp));
}
