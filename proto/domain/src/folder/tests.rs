#![allow(clippy::unwrap_used)]

use std::ops::Range;

use proptest::prelude::*;

use super::{contents::Part, *};
use crate::bitfield::Bitfield;

fn file(path: &str, length: u64) -> Entry {
    let kind = FileEntry { length, executable: false, modified_ns: 0, blake3: Blake3::from([0; 32]) };
    Entry { path: path.parse().unwrap(), kind: EntryKind::File(kind) }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.parse().unwrap(), kind: EntryKind::Link(target.parse().unwrap()) }
}

fn empty(path: &str) -> Entry {
    Entry { path: path.parse().unwrap(), kind: EntryKind::EmptyDirectory }
}

#[test]
fn a_path_never_leads_out_of_its_folder() {
    for good in ["a", "a/b", "größe/☺", ".hidden/x", "a b/c"] {
        assert_eq!(good.parse::<EntryPath>().map(|path| path.to_string()), Ok(good.to_owned()));
    }
    let long = vec!["x".repeat(255); 17].join("/");
    let deep = vec!["x"; 300].join("/");
    for bad in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "c:/x",
        "a\0",
        "a/b\n",
        &long,
        &deep,
        "a/.minitorrent/x",
        "con/a",
        "e\u{301}/a",
    ] {
        assert!(bad.parse::<EntryPath>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_link_never_leads_out_of_its_folder() {
    for (path, target) in [("l", "a"), ("d/l", "../a"), ("d/e/l", "../../a/b"), ("d/l", "./a"), ("d/l", "..")]
    {
        assert!(Folder::new(vec![link(path, target)]).is_ok(), "{path} -> {target}");
    }
    for (path, target) in [("l", ".."), ("l", "../a"), ("d/l", "../../a"), ("d/l", "./../../x")] {
        let refused = Folder::new(vec![link(path, target)]);
        assert_eq!(refused, Err(FolderError::Outside(path.parse().unwrap())), "{path} -> {target}");
    }
    for bad in ["", "/", "/etc/passwd", "a/../b", "a//b", "a/", "a/..", "x\0", "x\n"] {
        assert!(bad.parse::<LinkTarget>().is_err(), "{bad:?}");
    }
}

#[test]
fn names_that_fold_alike_are_refused_in_one_directory_alone() {
    let alike = |entries| matches!(Folder::new(entries), Err(FolderError::Alike { .. }));
    assert!(alike(vec![file("A", 1), file("a", 1)]));
    assert!(alike(vec![file("D/a", 1), file("d/b", 1)]));
    assert!(alike(vec![file("A/x", 1), empty("a")]));
    assert!(alike(vec![file("x/Straße", 1), file("x/strasse", 1)]));
    assert!(Folder::new(vec![file("d/A", 1), file("e/a", 1)]).is_ok());
    assert!(Folder::new(vec![file("d/x/A", 1), file("d/y/a", 1), file("d/z", 1)]).is_ok());
}

#[test]
fn nothing_lies_below_an_entry() {
    for above in [file("a", 1), link("a", "b"), empty("a")] {
        // An entry whose path sorts between the two does not hide the conflict.
        let entries = vec![above, file("a-", 1), file("a/b", 1)];
        let below = FolderError::Below { path: "a/b".parse().unwrap(), other: "a".to_owned() };
        assert_eq!(Folder::new(entries), Err(below));
    }
}

#[test]
fn entries_are_in_order_and_each_is_there_once() {
    for entries in [vec![file("b", 1), file("a", 1)], vec![file("a", 1), file("a", 1)]] {
        assert_eq!(Folder::new(entries), Err(FolderError::Order("a".parse().unwrap())));
    }
}

#[test]
fn each_violation_is_told() {
    let entries = [file("A", 1), file("a", 1), link("b", ".."), file("c", 1), file("c/d", 1)];
    let mut told = Vec::new();
    check(&entries, &mut |number, _| {
        told.push(number);
        ControlFlow::Continue(())
    });
    assert_eq!(told, [1, 2, 4]);
}

#[test]
fn contents_longer_than_a_file_may_be_are_refused() {
    for length in [u64::MAX, 1 << 40] {
        assert_eq!(Folder::new(vec![file("a", length), file("b", 1)]), Err(FolderError::TooLong));
    }
    assert!(Folder::new(vec![file("a", 1 << 40)]).is_ok());
}

proptest! {
    /// A file counts as there exactly if each of its pieces is.
    #[test]
    fn files_in_pieces_are_those_whose_pieces_are_all_there(
        lengths in prop::collection::vec(prop_oneof![Just(0u64), 1u64..9, 400_000u64..2_000_000], 0..12),
        index in 1u64..600_000,
        pieces in prop::collection::vec(any::<bool>(), 64),
    ) {
        let entries: Vec<Entry> =
            lengths.iter().enumerate().map(|(number, length)| file(&format!("{number:03}"), *length)).collect();
        let folder = Folder::new(entries).unwrap();
        let layout = PieceLayout::new(folder.contents().length() + index).unwrap();
        let mut have = Bitfield::empty(layout);
        layout.indices().filter(|piece| pieces[piece.as_usize()]).for_each(|piece| { have.insert(piece); });
        let is_there = |range: &Range<u64>| layout
            .indices()
            .filter(|piece| layout.range(*piece).start < range.end && layout.range(*piece).end > range.start)
            .all(|piece| have.contains(piece));
        let ranges: Vec<_> = (0..lengths.len()).map(|entry| folder.contents().range(entry)).collect();
        let expected = ranges.iter().filter(|range| !range.is_empty() && is_there(range)).count();
        prop_assert_eq!(folder.contents().files_in(layout, &have, |_| true), expected);
        let few = folder.contents().files_in(layout, &have, |entry| entry.is_multiple_of(2));
        let expected = ranges.iter().step_by(2).filter(|range| !range.is_empty() && is_there(range)).count();
        prop_assert_eq!(few, expected);
    }

    /// The segments of a range are, byte for byte, those of a model that lists each byte's place.
    #[test]
    fn segments_agree_with_a_list_of_all_bytes(
        lengths in prop::collection::vec(prop_oneof![Just(0u64), 1u64..40], 0..30),
        index in 0u64..50,
        range in (0u64..1_000, 0u64..1_000),
    ) {
        let entries: Vec<Entry> =
            lengths.iter().enumerate().map(|(number, length)| file(&format!("{number:03}"), *length)).collect();
        let folder = Folder::new(entries).unwrap();
        let mut model = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            model.extend((0..*length).map(|offset| (Part::File(number), offset)));
        }
        prop_assert_eq!(folder.contents().length(), model.len() as u64);
        for number in 0..lengths.len() {
            let range = folder.contents().range(number);
            let bytes: Vec<_> = model[range.start as usize..range.end as usize].to_vec();
            let own: Vec<_> = model.iter().copied().filter(|(part, _)| *part == Part::File(number)).collect();
            prop_assert_eq!(bytes, own);
        }
        model.extend((0..index).map(|offset| (Part::Index, offset)));
        let end = range.1.min(model.len() as u64);
        let start = range.0.min(end);
        let mut bytes = Vec::new();
        for segment in folder.contents().segments(start..end) {
            prop_assert!(segment.length > 0);
            bytes.extend((0..segment.length).map(|offset| (segment.part, segment.offset + offset)));
        }
        prop_assert_eq!(&bytes[..], &model[start as usize..end as usize]);
    }
}
