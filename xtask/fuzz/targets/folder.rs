//! The index of a folder: an index that decodes is the one spelling of its folder, and no path leads out of it.
#![no_main]

use std::path::{Component, Path};

use domain::folder::{EntryKind, FolderShape};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::{
    convert::folder::{decode_index, encode_index},
    pb::{FolderEntry, folder_entry::Kind},
};

fuzz_target!(|input: (u32, u64, &[u8])| {
    let (files, length, index) = input;
    // The claims of a publisher can be anything.
    let _ = decode_index(index, FolderShape { files, index_length: length }, length);
    let _ = decode_index(index, FolderShape { files, index_length: index.len() as u64 }, length);
    // With the shape that these entries have.
    let (mut files, mut length, mut rest) = (0, index.len() as u64, index);
    while !rest.is_empty() {
        let Ok(entry) = FolderEntry::decode_length_delimited(&mut rest) else { return };
        if let Some(Kind::File(file)) = entry.kind {
            files += 1;
            length = length.saturating_add(file.length);
        }
    }
    let shape = FolderShape { files, index_length: index.len() as u64 };
    let Ok(folder) = decode_index(index, shape, length) else { return };
    assert_eq!(encode_index(&folder), index, "a second spelling of one folder");
    assert_eq!(folder.contents().length() + shape.index_length, length);
    assert!(folder.entries().is_sorted_by(|one, next| one.path.as_str() < next.path.as_str()));
    for entry in folder.entries() {
        let path = Path::new(entry.path.as_str());
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert_eq!(path.components().count(), entry.path.as_str().split('/').count(), "{path:?}");
        if let EntryKind::Link(target) = &entry.kind {
            // The directory of the link is the only way up that a target has.
            let mut depth = path.components().count() - 1;
            for part in Path::new(target.as_str()).components() {
                match part {
                    Component::Normal(_) => depth += 1,
                    Component::ParentDir => depth = depth.checked_sub(1).expect("a link leads out"),
                    Component::CurDir => (),
                    Component::RootDir | Component::Prefix(_) => panic!("an absolute link"),
                }
            }
        }
    }
    assert_eq!(decode_index(index, shape, length), Ok(folder));
});
