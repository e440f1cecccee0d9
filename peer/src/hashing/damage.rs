//! What is wrong with a copy that does not match its manifest.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use proto::domain::{Manifest, visible::escape};

use super::{
    FileStamp, HashError, Progress,
    folder::{Survey, WrongFile},
    manifest_of,
};
use crate::units;

/// The most ranges of bad pieces that a message names.
const MOST_RANGES: usize = 8;
/// The most wrong files of a folder that a message names.
const MOST_FILES: usize = 10;

/// The differences between a file and its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The path of the file.
    pub path: PathBuf,
    /// The length that the file has, in bytes.
    pub length: u64,
    /// The length that the file should have, in bytes.
    pub expected: u64,
    /// The number of pieces that the file should have.
    pub pieces: u32,
    /// The bad pieces, as ranges in ascending order. Empty for a file that only has bytes too many.
    pub bad: Vec<RangeInclusive<u32>>,
    /// The wrong files of a folder, and their paths in it. Empty for a file.
    pub files: Vec<(WrongFile, String)>,
}

impl Damage {
    /// The wrong files of a folder.
    pub(crate) fn wrong_files(&self) -> Vec<WrongFile> {
        self.files.iter().map(|(file, _)| *file).collect()
    }

    /// The path of the first file that is wrong.
    pub(crate) fn first_path(&self) -> PathBuf {
        self.files.first().map_or_else(|| self.path.clone(), |(_, path)| self.path.join(path))
    }

    /// The number of bad pieces.
    pub fn bad_pieces(&self) -> u32 {
        self.bad.iter().map(|range| range.end() - range.start() + 1).sum()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.length != self.expected {
            write!(f, " has {} bytes instead of {}", self.length, self.expected)?;
        }
        let (bad, all) = (self.bad_pieces(), self.pieces);
        if !self.files.is_empty() {
            let are = if self.files.len() == 1 { "is" } else { "are" };
            let files = units::count(self.files.len(), "file");
            write!(
                f,
                ": {files} of the folder {are} bad: {}",
                named(self.files.iter().map(|(_, path)| path))
            )?;
            if bad > 0 {
                write!(f, "; {bad} of {all} pieces")?;
            }
            return Ok(());
        }
        if bad == 0 {
            return Ok(());
        }
        let and = if self.length == self.expected { ":" } else { ", and" };
        let are = if bad == 1 { "is" } else { "are" };
        let range = |range: &RangeInclusive<u32>| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let named: Vec<String> = self.bad.iter().take(MOST_RANGES).map(range).collect();
        write!(f, "{and} {bad} of {all} pieces {are} bad ({}", named.join(", "))?;
        match self.bad.len().saturating_sub(MOST_RANGES) {
            0 => write!(f, ")"),
            more => write!(f, " and {more} more ranges)"),
        }
    }
}

/// Names the first of these paths, and the number of the others.
pub(crate) fn named<'a>(paths: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = paths.len().saturating_sub(MOST_FILES);
    let first = paths.take(MOST_FILES).map(|path| escape(path)).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

impl Survey {
    /// What is wrong with the folder at `path`, if something is.
    pub(crate) fn damage(&self, path: &Path) -> Option<Damage> {
        let folder = self.files.folder();
        let name = |file: &WrongFile| (*file, folder.entries()[file.entry].path.to_string());
        let layout = self.layout;
        (!self.wrong.is_empty()).then(|| Damage {
            path: path.to_owned(),
            length: layout.length(),
            expected: layout.length(),
            pieces: layout.count(),
            bad: ranges(self.bad.iter().map(|piece| piece.get())),
            files: self.wrong.iter().map(name).collect(),
        })
    }
}

/// Reads the whole file at `path` and finds the pieces that do not match the manifest. Returns the file's
/// stamp, and the damage if there is any. Blocks.
///
/// # Errors
/// As [`manifest_of`].
pub fn examine(
    path: &Path,
    manifest: &Manifest,
    progress: Progress<'_>,
) -> Result<(FileStamp, Option<Damage>), HashError> {
    let hashed = manifest_of(path, manifest.header().name.clone(), progress)?;
    if hashed.manifest == *manifest {
        return Ok((hashed.stamp, None));
    }
    let (found, expected) = (hashed.manifest.pieces(), manifest.pieces());
    let bad =
        (0..manifest.layout().count()).filter(|&at| found.get(at as usize) != expected.get(at as usize));
    let damage = Damage {
        path: path.to_owned(),
        length: hashed.manifest.layout().length(),
        expected: manifest.layout().length(),
        pieces: manifest.layout().count(),
        bad: ranges(bad),
        files: Vec::new(),
    };
    Ok((hashed.stamp, Some(damage)))
}

/// Joins ascending numbers to ranges.
fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<RangeInclusive<u32>> {
    let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == number => *last = *last.start()..=number,
            _ => ranges.push(number..=number),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proto::domain::PIECE_LENGTH;

    use super::*;

    #[test]
    fn damage_is_found_and_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let piece = PIECE_LENGTH as usize;
        let good: Vec<u8> = (0..6 * piece + 7).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &good).expect("written");
        let go_on = |_| ControlFlow::Continue(());
        let name = "data".parse().expect("a name");
        let manifest = manifest_of(&path, name, &go_on).expect("hashed").manifest;
        let damage = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            examine(&path, &manifest, &go_on).expect("read").1
        };
        assert_eq!(damage(&good), None);
        let mut bad = good.clone();
        for at in [1, 3, 4, 6] {
            bad[at * piece] ^= 1;
        }
        let found = damage(&bad).expect("bad");
        assert_eq!((found.bad_pieces(), &found.bad[..]), (4, &[1..=1, 3..=4, 6..=6][..]));
        assert!(found.to_string().ends_with("data: 4 of 7 pieces are bad (1, 3-4, 6)"), "{found}");
        let short = damage(&good[..5 * piece]).expect("bad");
        assert_eq!(short.bad, [5..=6]);
        let text =
            format!("has {} bytes instead of {}, and 2 of 7 pieces are bad (5-6)", 5 * piece, good.len());
        assert!(short.to_string().ends_with(&text), "{short}");
        let long = damage(&[&good[..], b"more"].concat()).expect("bad");
        assert!(long.bad.last() == Some(&(6..=6)), "its last piece is longer: {long}");
    }
}
