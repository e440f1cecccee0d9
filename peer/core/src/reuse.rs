//! Where the pieces of a new version may lie in a copy that this peer has: of an older version, or of the same content.
//!
//! Every answer is a guess. Whoever reads the bytes checks them against the hashes of the piece.

use std::{collections::HashMap, ops::Range};

use domain::{
    Blake3, Manifest, PieceIndex, Sha1,
    folder::{
        EntryKind, FileEntry, Folder,
        contents::{Part, Segment},
    },
};

/// A version of a file or a folder.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its entries, if it is a folder and they are known.
    pub folder: Option<&'a Folder>,
}

/// Two versions: the copy, and what is wanted.
pub struct Reuse<'a> {
    copy: Version<'a>,
    wanted: Version<'a>,
    /// The pieces of the copy whose place in the wanted version has another piece. Takes no memory for what did not
    /// move.
    moved: HashMap<Sha1, PieceIndex>,
    /// The files of the copy by their content.
    contents: HashMap<Blake3, usize>,
}

impl<'a> Reuse<'a> {
    /// Compares two versions.
    pub fn new(copy: Version<'a>, wanted: Version<'a>) -> Self {
        let new = wanted.manifest.pieces();
        let is_moved =
            |piece: &PieceIndex| copy.manifest.pieces().get(piece.as_usize()) != new.get(piece.as_usize());
        let hash = |piece: PieceIndex| Some((copy.manifest.pieces().get(piece.as_usize())?.sha1, piece));
        let moved = copy.manifest.layout().indices().filter(is_moved).filter_map(hash).collect();
        let entries = copy.folder.map(Folder::entries).unwrap_or_default();
        let contents = entries.iter().enumerate().filter_map(|(number, entry)| match &entry.kind {
            EntryKind::File(file) => Some((file.blake3, number)),
            EntryKind::Link(_) | EntryKind::EmptyDirectory => None,
        });
        Self { copy, wanted, moved, contents: contents.collect() }
    }

    /// Where the bytes of a wanted piece may lie in the (virtual) file of the copy. Each guess is the ranges that make up
    /// the piece, in order. The best guess comes first.
    pub fn guesses(&self, piece: PieceIndex) -> Vec<Vec<Range<u64>>> {
        let (old, new) = (self.copy.manifest, self.wanted.manifest);
        let Some(hash) = new.pieces().get(piece.as_usize()) else { return Vec::new() };
        if old.pieces().get(piece.as_usize()) == Some(hash) {
            return vec![vec![old.layout().range(piece)]];
        }
        let length = new.layout().piece_length(piece);
        let moved = self.moved.get(&hash.sha1).filter(|moved| old.layout().piece_length(**moved) == length);
        let moved = moved.map(|moved| vec![old.layout().range(*moved)]);
        moved.into_iter().chain(self.by_files(piece)).collect()
    }

    /// The bytes of a piece of a folder, from files of the copy with the same content or the same path.
    fn by_files(&self, piece: PieceIndex) -> Option<Vec<Range<u64>>> {
        let (old, new) = (self.copy.folder?, self.wanted.folder?);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for Segment { part, offset, length } in
            new.contents().segments(self.wanted.manifest.layout().range(piece))
        {
            let Part::File(number) = part else { return None };
            let range = old.contents().range(self.counterpart(old, new, number)?);
            let own = range.start + offset..range.start + offset + length;
            if own.end > range.end {
                return None;
            }
            match ranges.last_mut() {
                Some(last) if last.end == own.start => last.end = own.end,
                _ => ranges.push(own),
            }
        }
        Some(ranges)
    }

    /// The file of the copy that has the content of a wanted file, or else its path.
    fn counterpart(&self, old: &Folder, new: &Folder, number: usize) -> Option<usize> {
        let entry = new.entries().get(number)?;
        let EntryKind::File(FileEntry { blake3, .. }) = &entry.kind else { return None };
        let same_path = || old.entries().binary_search_by(|other| other.path.cmp(&entry.path)).ok();
        self.contents.get(blake3).copied().or_else(same_path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use domain::{
        FileHeader, PIECE_LENGTH, PieceHash, PieceLayout,
        folder::{Entry, FolderShape},
        manifest::{RootFold, hash_piece},
    };
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    use super::*;
    use crate::Rng;

    const PIECE: usize = PIECE_LENGTH as usize;

    /// The hashes of the pieces, and the root.
    fn hashes(bytes: &[u8]) -> (Vec<PieceHash>, Blake3) {
        let layout = PieceLayout::new(bytes.len() as u64).unwrap();
        let piece = |piece: PieceIndex| {
            let range = layout.range(piece);
            hash_piece(layout, piece, &bytes[range.start as usize..range.end as usize])
        };
        let pieces: Vec<_> = layout.indices().map(piece).collect();
        let mut fold = RootFold::default();
        pieces.iter().for_each(|hash| fold.push(hash.blake3));
        (pieces, fold.finish())
    }

    /// A folder of these files, its manifest, and the bytes of its virtual file. The index is a stand-in of 9 bytes.
    fn version(files: &[(String, Vec<u8>)]) -> (Manifest, Folder, Vec<u8>) {
        let mut files = files.to_vec();
        files.sort();
        let entry = |(path, content): &(String, Vec<u8>)| Entry {
            path: path.parse().unwrap(),
            kind: EntryKind::File(FileEntry {
                length: content.len() as u64,
                executable: false,
                modified_ns: 0,
                blake3: hashes(content).1,
            }),
        };
        let folder = Folder::new(files.iter().map(entry).collect()).unwrap();
        let mut bytes: Vec<u8> = files.iter().flat_map(|(_, content)| content.clone()).collect();
        bytes.extend_from_slice(b"the index");
        let (pieces, blake3) = hashes(&bytes);
        let layout = PieceLayout::new(bytes.len() as u64).unwrap();
        let shape = FolderShape { files: folder.files(), index_length: 9 };
        let name = "data".parse().unwrap();
        let header = FileHeader { name, layout, sha1: [0; 20].into(), blake3, folder: Some(shape) };
        (Manifest::new(header, pieces).unwrap(), folder, bytes)
    }

    /// The wanted pieces that a copy has, by reading and checking every guess.
    fn found(
        old: &(Manifest, Folder, Vec<u8>),
        new: &(Manifest, Folder, Vec<u8>),
        with_folders: bool,
    ) -> Vec<u32> {
        let version = |of| -> Version<'_> {
            let (manifest, folder, _): &(Manifest, Folder, Vec<u8>) = of;
            Version { manifest, folder: with_folders.then_some(folder) }
        };
        let reuse = Reuse::new(version(old), version(new));
        let is_right = |ranges: &Vec<Range<u64>>, piece| {
            let bytes: Vec<u8> = ranges
                .iter()
                .flat_map(|range| old.2[range.start as usize..range.end as usize].to_vec())
                .collect();
            new.0.piece_matches(piece, &bytes)
        };
        let pieces = new.0.layout().indices();
        pieces
            .filter(|piece| reuse.guesses(*piece).iter().any(|guess| is_right(guess, *piece)))
            .map(PieceIndex::get)
            .collect()
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut rng = Rng::seed_from_u64(seed);
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes[..]);
        bytes
    }

    fn file(path: &str, content: Vec<u8>) -> (String, Vec<u8>) {
        (path.to_owned(), content)
    }

    #[test]
    fn what_is_equal_is_found_wherever_it_lies() {
        let (long, short) = (noise(1, 5 * PIECE), noise(2, 1_000));
        let old = version(&[file("b", long.clone()), file("c", short.clone())]);
        // A new first file moves all others by an odd number of bytes. Only its own pieces and the index are missing.
        let new = version(&[file("a", noise(3, 777)), file("b", long.clone()), file("z", short)]);
        assert_eq!(found(&old, &new, true), [1, 2, 3, 4]);
        // By pieces alone, nothing lies at the same place.
        assert_eq!(found(&old, &new, false), []);
        // A byte of a file changes: one piece.
        let mut changed = long.clone();
        changed[2 * PIECE + 5] ^= 1;
        let new = version(&[file("b", changed), file("c", noise(2, 1_000))]);
        assert_eq!(found(&old, &new, false), [0, 1, 3, 4, 5]);
        // A whole piece is inserted: those behind it moved.
        let new = version(&[file("b", [noise(9, PIECE), long].concat())]);
        assert_eq!(found(&old, &new, false), [1, 2, 3, 4, 5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// A piece all of whose files are in the copy, under any name, is always found. A guess has the length of the
        /// piece and stays inside the copy.
        #[test]
        fn a_piece_of_known_files_is_found(
            old in prop::collection::vec((0u64..6, 0usize..40), 0..8),
            new in prop::collection::vec((0u64..6, 0usize..40), 0..8),
        ) {
            let file = |(number, (seed, length)): (usize, &(u64, usize))| {
                (format!("{number}"), noise(*seed, length * PIECE / 16))
            };
            let old = version(&old.iter().enumerate().map(file).collect::<Vec<_>>());
            let new_files: Vec<_> = new.iter().enumerate().map(file).collect();
            let new = version(&new_files);
            let there = found(&old, &new, true);
            let contents: Vec<_> = old.1.entries().iter().map(|entry| entry.kind.clone()).collect();
            let layout = new.0.layout();
            for piece in layout.indices() {
                let is_known = |segment: Segment| match segment.part {
                    Part::File(number) => contents.contains(&new.1.entries()[number].kind),
                    Part::Index => false,
                };
                if new.1.contents().segments(layout.range(piece)).all(is_known) {
                    prop_assert!(there.contains(&piece.get()), "piece {}", piece.get());
                }
                let reuse = Reuse::new(
                    Version { manifest: &old.0, folder: Some(&old.1) },
                    Version { manifest: &new.0, folder: Some(&new.1) },
                );
                for guess in reuse.guesses(piece) {
                    let length: u64 = guess.iter().map(|range| range.end - range.start).sum();
                    prop_assert_eq!(length, u64::from(layout.piece_length(piece)));
                    prop_assert!(guess.iter().all(|range| range.end <= old.0.layout().length()));
                }
            }
        }
    }
}
