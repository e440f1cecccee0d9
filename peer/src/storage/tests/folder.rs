//! Downloads of folders: what a publisher may lie about, and the steps at which a crash may come.

mod damage;
mod twins;

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use proto::{
    domain::{FileHeader, Manifest, PieceIndex, folder::FolderShape},
    pb,
};
use testkit::content::{PIECE, file_id, manifest, noise};

use super::super::{OpenStore, PieceStore, StoreError, discard};

/// A folder to download: its virtual file, and its destination.
struct Case {
    dir: tempfile::TempDir,
    data: Vec<u8>,
    manifest: Arc<Manifest>,
}

fn file(path: &str, content: &[u8]) -> (pb::FolderEntry, Vec<u8>) {
    let kind = pb::folder_entry::Kind::File(pb::FolderFile {
        length: content.len() as u64,
        executable: false,
        modified_ns: 1_000_000_000,
        blake3: blake3::hash(content).as_bytes().to_vec().into(),
    });
    (pb::FolderEntry { path: path.into(), kind: Some(kind) }, content.to_vec())
}

fn link(path: &str, target: &str) -> (pb::FolderEntry, Vec<u8>) {
    let kind = pb::folder_entry::Kind::Link(pb::FolderLink { target: target.into() });
    (pb::FolderEntry { path: path.into(), kind: Some(kind) }, Vec::new())
}

impl Case {
    /// The folder with these entries, as its publisher states them.
    fn new(entries: &[(pb::FolderEntry, Vec<u8>)]) -> Self {
        let index: Vec<u8> =
            entries.iter().flat_map(|(entry, _)| entry.encode_length_delimited_to_vec()).collect();
        let contents: Vec<u8> = entries.iter().flat_map(|(_, content)| content.clone()).collect();
        let is_file = |kind: &Option<_>| matches!(kind, Some(pb::folder_entry::Kind::File(_)));
        let files = entries.iter().filter(|(entry, _)| is_file(&entry.kind)).count() as u32;
        Self::with_shape(
            [contents, index.clone()].concat(),
            FolderShape { files, index_length: index.len() as u64 },
        )
    }

    fn with_shape(data: Vec<u8>, shape: FolderShape) -> Self {
        let plain = manifest("folder", &data);
        let header = FileHeader { folder: Some(shape), ..plain.header().clone() };
        let manifest = Arc::new(Manifest::new(header, plain.pieces().to_vec()).unwrap());
        Self { dir: tempfile::tempdir().unwrap(), data, manifest }
    }

    fn place(&self) -> OpenStore {
        OpenStore::at(file_id(1), self.manifest.clone(), self.destination()).unwrap().with_umask(0o022)
    }

    fn open(&self) -> Arc<dyn PieceStore> {
        self.place().open_store().unwrap()
    }

    /// Writes all pieces that are missing, as a download does.
    fn fill(&self, store: &dyn PieceStore) -> Result<(), StoreError> {
        self.write_some(store, usize::MAX).map(drop)
    }

    /// Writes at most this many of the pieces that are missing. Returns whether some are still missing.
    fn write_some(&self, store: &dyn PieceStore, mut most: usize) -> Result<bool, StoreError> {
        loop {
            store.recheck(&mut |_, _| ControlFlow::Continue(()));
            for piece in store.wanted().iter(self.manifest.layout()) {
                if !store.have().contains(piece) {
                    if most == 0 {
                        return Ok(true);
                    }
                    most -= 1;
                    self.write(store, piece);
                }
            }
            if !store.advance()? {
                return Ok(false);
            }
        }
    }

    fn write(&self, store: &dyn PieceStore, piece: PieceIndex) {
        let range = self.manifest.layout().range(piece);
        let bytes = Bytes::copy_from_slice(&self.data[range.start as usize..range.end as usize]);
        // In parts, one of them empty, as the network may deliver them.
        let (first, second) = (bytes.slice(..bytes.len() / 3), bytes.slice(bytes.len() / 3..));
        store.write(piece, &[first, Bytes::new(), second]).unwrap();
    }

    /// Opens it, and reads again what an earlier run wrote. Returns the store with the number of good pieces.
    fn reopen(&self) -> (Arc<dyn PieceStore>, u32) {
        let store = self.open();
        assert!(store.have().is_empty(), "nothing of an earlier run is believed");
        self.write_some(&*store, 0).unwrap();
        let good = store.have().count();
        (store, good)
    }

    /// The bytes that the unfinished folder takes on the disk.
    fn used(&self) -> u64 {
        let mut paths = vec![self.dir.path().join(".minitorrent")];
        let mut used = 0;
        while let Some(path) = paths.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                used += metadata.blocks() * 512;
            }
        }
        used
    }

    fn destination(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    fn unfinished(&self, kind: &str) -> PathBuf {
        self.dir.path().join(format!(".minitorrent/{}.{kind}", file_id(1)))
    }

    /// All files of the finished folder.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = |directory: PathBuf| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut found = BTreeMap::new();
        let mut paths: Vec<PathBuf> = files(self.destination()).collect();
        while let Some(path) = paths.pop() {
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                paths.extend(files(path));
            } else {
                let name = path.strip_prefix(self.destination()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
        found
    }
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Whatever the index says, nothing appears outside the destination, nor at it.
#[test]
fn an_index_that_lies_makes_no_folder() {
    let paths =
        ["../evil", "/tmp/evil", "a/../../evil", "a//b", ".", "..", "a\\b", "con", "", ".minitorrent/x"];
    let mut cases: Vec<_> = paths.iter().map(|path| vec![file(path, b"evil")]).collect();
    cases.extend([
        vec![file(&"x/".repeat(2_048), b"evil")],
        vec![link("a", "/etc")],
        vec![link("a", "..")],
        vec![link("a", "../evil"), file("a/b", b"evil")],
        vec![link("a", "b"), file("a/c", b"evil"), file("b/x", b"")],
        vec![file("a", b"one"), file("a", b"two")],
        vec![file("A", b"one"), file("a", b"two")],
        vec![file("b", b"one"), file("a", b"two")],
    ]);
    for entries in cases {
        let case = Case::new(&entries);
        let store = case.open();
        let refused = case.fill(&*store).and_then(|()| store.finish(&go_on).map(drop)).unwrap_err();
        assert!(matches!(refused, StoreError::BadFolder(_)), "{refused:?} for {entries:?}");
        assert!(!case.destination().exists());
        let left: Vec<_> =
            fs::read_dir(case.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".minitorrent"]);
    }
}

#[test]
fn lengths_and_hashes_that_lie_make_no_folder() {
    let with = |change: &dyn Fn(&mut pb::FolderFile)| {
        let (mut entry, content) = file("a", b"content");
        if let Some(pb::folder_entry::Kind::File(file)) = &mut entry.kind {
            change(file);
        }
        Case::new(&[(entry, content)])
    };
    let shape = |files, index_length| Case::with_shape(noise(1, 100), FolderShape { files, index_length });
    for case in [
        with(&|file| file.length = 6),
        with(&|file| file.length = u64::MAX),
        with(&|file| file.blake3 = vec![0; 32].into()),
        with(&|file| file.blake3 = vec![0; 31].into()),
        shape(1, 100),
        shape(0, 0),
        shape(0, 50),
    ] {
        let store = case.open();
        let refused = case.fill(&*store).and_then(|()| store.finish(&go_on).map(drop)).unwrap_err();
        assert!(matches!(refused, StoreError::BadFolder(_)), "{refused:?}");
        assert!(!case.destination().exists());
    }
}

fn entries() -> Vec<(pb::FolderEntry, Vec<u8>)> {
    vec![file("a", &noise(1, 10)), file("b/c", &noise(2, 2 * PIECE)), link("b/d", "c"), file("e", b"")]
}

#[test]
fn after_a_crash_at_any_step_the_folder_is_completed() {
    let case = Case::new(&entries());
    let expected = BTreeMap::from([
        ("a".to_owned(), noise(1, 10)),
        ("b/c".to_owned(), noise(2, 2 * PIECE)),
        ("b/d".to_owned(), noise(2, 2 * PIECE)),
        ("e".to_owned(), Vec::new()),
    ]);
    // The tree was complete, but not yet at its final name.
    let store = case.open();
    case.fill(&*store).unwrap();
    fs::rename(case.unfinished("part"), case.unfinished("spent")).unwrap();
    assert!(matches!(case.place().open_store(), Err(StoreError::InUse)), "it still runs");
    assert!(case.unfinished("spent").exists(), "and nobody else renames its files");
    drop(store);
    let place = case.place();
    assert!(place.is_begun().unwrap());
    let (store, good) = case.reopen();
    assert_eq!(good, case.manifest.layout().count(), "nothing is lost");
    store.finish(&go_on).unwrap();
    assert_eq!(case.files(), expected);
    assert!(!case.dir.path().join(".minitorrent").exists());
    // It was at its final name, and traces were left.
    let place = case.place();
    fs::create_dir(case.dir.path().join(".minitorrent")).unwrap();
    for kind in ["spent", "state"] {
        fs::write(case.unfinished(kind), b"").unwrap();
    }
    assert!(place.is_left_behind().unwrap());
    discard(file_id(1), &case.destination()).unwrap();
    assert!(!case.dir.path().join(".minitorrent").exists());
    assert_eq!(case.files(), expected);
}

#[test]
fn discarding_removes_every_trace_and_follows_no_link() {
    let case = Case::new(&entries());
    let store = case.open();
    case.fill(&*store).unwrap();
    drop(store);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), b"precious").unwrap();
    std::os::unix::fs::symlink(outside.path(), case.unfinished("tree").join("link")).unwrap();
    discard(file_id(1), &case.destination()).unwrap();
    assert!(!case.dir.path().join(".minitorrent").exists());
    assert!(outside.path().join("precious").exists());
}

/// Files that share pieces, and one that fills several.
fn many() -> Vec<(pb::FolderEntry, Vec<u8>)> {
    let mut entries: Vec<_> =
        (0..40).map(|number| file(&format!("a/{number:02}"), &noise(number, 30_000))).collect();
    entries.extend([file("b", &noise(50, 3 * PIECE)), file("c/d", &noise(51, PIECE / 2)), link("e", "b")]);
    entries
}

#[test]
fn after_a_crash_between_any_two_pieces_nothing_is_lost() {
    let count = Case::new(&many()).manifest.layout().count();
    for (clean, state) in [(false, true), (false, false), (true, true)] {
        for written in 0..count {
            let case = Case::new(&many());
            let store = case.open();
            assert!(case.write_some(&*store, written as usize).unwrap(), "some are missing");
            if clean {
                store.checkpoint(true).unwrap();
            }
            drop(store);
            if !state {
                fs::remove_file(case.unfinished("state")).unwrap();
            }
            // It crashes again before the tree was looked at, or is stopped then.
            let store = case.open();
            store.checkpoint(clean || written.is_multiple_of(2)).unwrap();
            drop(store);
            let (store, good) = case.reopen();
            assert_eq!(good, written, "clean: {clean}, state: {state}");
            case.fill(&*store).unwrap();
            store.finish(&go_on).unwrap();
            assert_eq!(case.files()["b"], noise(50, 3 * PIECE));
            assert_eq!(case.files().len(), 43);
        }
    }
}

#[test]
fn a_folder_takes_its_size_once_and_holds_few_files_open() {
    let entries: Vec<_> =
        (0..60).map(|number| file(&format!("{number:02}"), &noise(number, PIECE + 1_000))).collect();
    let case = Case::new(&entries);
    let store = case.open();
    case.fill(&*store).unwrap();
    let length = case.manifest.layout().length();
    assert!(case.used() < length + length / 10, "{} bytes for {length}", case.used());
    let is_ours = |fd: &PathBuf| fs::read_link(fd).is_ok_and(|path| path.starts_with(case.dir.path()));
    let open = fs::read_dir("/proc/self/fd").unwrap().filter(|fd| is_ours(&fd.as_ref().unwrap().path()));
    assert!(open.count() <= 16 + 4 + 4);
    store.finish(&go_on).unwrap();
    assert_eq!(case.files().len(), 60);
}

#[test]
fn what_others_change_in_the_unfinished_tree_never_gets_the_name() {
    let long = noise(60, 40 * PIECE + 123);
    for entries in [many(), vec![file("a", &long), file("b", &noise(50, 3 * PIECE))]] {
        let case = Case::new(&entries);
        let store = case.open();
        case.fill(&*store).unwrap();
        let tree = case.unfinished("tree");
        for (path, at) in [("a", 35 * PIECE as u64), ("a/07", 5), ("b", 9)] {
            if let Ok(file) = fs::OpenOptions::new().write(true).open(tree.join(path)) {
                file.write_all_at(b"changed", at).unwrap();
            }
        }
        assert!(matches!(store.finish(&go_on), Err(StoreError::Corrupt)));
        assert!(!store.have().is_full() && !case.destination().exists());
        case.fill(&*store).unwrap();
        // Changed while it is read.
        let other = fs::OpenOptions::new().write(true).open(tree.join("b")).unwrap();
        let meddle = |_| {
            other.write_all_at(b"changed", 3 * PIECE as u64 - 9).unwrap();
            ControlFlow::Continue(())
        };
        let refused = store.finish(&meddle).map(drop).unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt), "{refused:?}");
        case.fill(&*store).unwrap();
        store.finish(&go_on).unwrap();
        assert_eq!(case.files()["b"], noise(50, 3 * PIECE));
        assert!(case.files().get("a").is_none_or(|found| *found == long));
    }
}

#[test]
fn a_long_first_file_is_not_read_again() {
    for length in [40 * PIECE + 123, 64 * PIECE] {
        let case = Case::new(&[file("a", &noise(60, length))]);
        let store = case.open();
        case.fill(&*store).unwrap();
        store.finish(&|_| panic!("it is read again")).unwrap();
        assert_eq!(case.files()["a"], noise(60, length));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the lengths of the files and the order of the pieces, each byte reads back at its place in the
    /// virtual file, and ends up at its place in its file.
    #[test]
    fn every_byte_finds_its_file(
        lengths in prop::collection::vec(
            prop_oneof![Just(0), 1..2_000usize, PIECE - 2..PIECE + 2, 1..3 * PIECE], 0..12),
        zeros in any::<bool>(),
        order in any::<u64>(),
        range in (any::<prop::sample::Index>(), 1..2 * PIECE),
    ) {
        let content = |number: usize, length: usize| match zeros && number.is_multiple_of(2) {
            true => vec![0; length],
            false => noise(number as u64, length),
        };
        let contents: BTreeMap<String, Vec<u8>> = lengths.iter().enumerate()
            .map(|(number, length)| (format!("{:02}/{number}", number / 3), content(number, *length)))
            .collect();
        let entries: Vec<_> = contents.iter().map(|(path, content)| file(path, content)).collect();
        let case = Case::new(&entries);
        let store = case.open();
        case.write_some(&*store, 0).unwrap();
        let layout = case.manifest.layout();
        loop {
            let mut missing: Vec<_> =
                store.wanted().iter(layout).filter(|piece| !store.have().contains(*piece)).collect();
            missing.sort_by_key(|piece| blake3::hash(&(order ^ u64::from(piece.get())).to_le_bytes()).to_hex());
            missing.into_iter().for_each(|piece| case.write(&*store, piece));
            if !store.advance().unwrap() {
                break;
            }
        }
        let start = range.0.index(case.data.len() + 1);
        let end = case.data.len().min(start + range.1);
        let mut read = vec![1; end - start];
        store.read(start as u64, &mut read).unwrap();
        prop_assert!(read == case.data[start..end]);
        let reader = store.finish(&go_on).unwrap();
        let mut read = vec![1; end - start];
        reader.read(start as u64, &mut read).unwrap();
        prop_assert!(read == case.data[start..end]);
        prop_assert!(case.files() == contents);
    }
}
