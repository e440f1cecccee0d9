//! Folders: the entries of a shared folder, the rules for them, and where their bytes lie.
//!
//! A folder is shared as one virtual file: the contents of its regular files, in the order of the entries, then
//! its index. So it has one manifest, one swarm and the same pieces as a file. The index is hashed like all other
//! bytes, and a downloader fetches its pieces first. [`contents`] maps the bytes of the virtual file to the files.
//!
//! The index comes last, because it holds the hash of each file. With the index in front, the SHA-1 of the whole
//! could start only after all files were read once, so a folder would be read twice. In addition, an index that
//! grows with the next version does not move the contents of files, and pieces stay equal.
//!
//! Rules:
//! - Entries are in increasing byte order of their paths. There is one way to write a folder, so equal folders
//!   have equal bytes.
//! - Each component of a path obeys the rule for file names. Two names in one directory never
//!   [fold] to the same text.
//! - Only an empty directory has an entry of its own. The others follow from the paths in them.
//! - A symbolic link is relative and stays inside the folder. No entry lies below a link.

pub mod contents;
mod entry;
mod path;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, ops::ControlFlow};

pub use entry::{Entry, EntryKind, FileEntry};
pub use path::{EntryPath, LinkTarget, PathError};

use super::{
    digest::Blake3,
    limits::{MAX_FOLDER_ENTRIES, MAX_INDEX_LENGTH},
    names::fold,
    piece::{PIECE_LENGTH, PieceLayout},
};

/// What the manifest's header says of a folder. It comes from the publisher. A downloader believes it only after
/// the index was read and matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderShape {
    /// Entries that are regular files.
    pub files: u32,
    /// Bytes of the index, at the end of the virtual file.
    pub index_length: u64,
}

impl FolderShape {
    /// Whether a virtual file of this length can have this shape: the index fits, and is not too long.
    pub fn fits(self, layout: PieceLayout) -> bool {
        self.files as usize <= MAX_FOLDER_ENTRIES
            && self.index_length <= MAX_INDEX_LENGTH
            && self.index_length <= layout.length()
    }

    /// The offset of the first piece that holds a part of the index. The end of the virtual file if the index is
    /// empty.
    pub fn index_pieces(self, layout: PieceLayout) -> u64 {
        let piece = u64::from(PIECE_LENGTH);
        match self.index_length {
            0 => layout.length(),
            length => layout.length().saturating_sub(length) / piece * piece,
        }
    }
}

/// The reason why entries are not a folder. Each names the entry at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderError {
    /// More entries than a folder may have.
    #[error("a folder has at most {MAX_FOLDER_ENTRIES} entries")]
    TooMany,
    /// The contents and the index together are longer than a file may be.
    #[error("a folder holds at most 1 TiB")]
    TooLong,
    /// The entries are not in increasing byte order of their paths.
    #[error("{0} is not in order")]
    Order(EntryPath),
    /// Two names in one directory fold to the same text.
    #[error("{path} and {other} have names that differ only in case or form")]
    Alike {
        /// The later entry.
        path: EntryPath,
        /// The earlier one: an entry, or a directory that holds one.
        other: String,
    },
    /// An entry lies below one that is not a directory, or below an entry for an empty directory.
    #[error("{path} lies below {other}, which holds no entries")]
    Below {
        /// The entry.
        path: EntryPath,
        /// The entry above it.
        other: String,
    },
    /// A symbolic link leads out of the folder.
    #[error("the link {0} leads out of the folder")]
    Outside(EntryPath),
}

/// The entries of a folder. They obey the rules in this module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    entries: Vec<Entry>,
    contents: contents::Contents,
}

impl Folder {
    /// Makes a folder of these entries.
    ///
    /// # Errors
    /// The first rule that the entries violate.
    pub fn new(entries: Vec<Entry>) -> Result<Self, FolderError> {
        if entries.len() > MAX_FOLDER_ENTRIES {
            return Err(FolderError::TooMany);
        }
        let mut first = None;
        check(&entries, &mut |_, error| {
            first = Some(error);
            ControlFlow::Break(())
        });
        match first {
            Some(error) => Err(error),
            None => {
                let contents = contents::Contents::of(&entries).ok_or(FolderError::TooLong)?;
                Ok(Self { entries, contents })
            }
        }
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the bytes of the files lie in the virtual file.
    pub fn contents(&self) -> &contents::Contents {
        &self.contents
    }

    /// The number of regular files.
    pub fn files(&self) -> u32 {
        let files = self.entries.iter().filter(|entry| matches!(entry.kind, EntryKind::File(_))).count();
        // The cast cannot overflow: MAX_FOLDER_ENTRIES is far less.
        files as u32
    }

    /// Sets the hash of a file. Has no effect on other entries.
    pub fn set_blake3(&mut self, entry: usize, blake3: Blake3) {
        if let Some(Entry { kind: EntryKind::File(file), .. }) = self.entries.get_mut(entry) {
            file.blake3 = blake3;
        }
    }
}

/// A path of the folder that was seen before: the first bytes of an entry's path.
#[derive(Clone, Copy)]
struct Seen {
    entry: usize,
    length: usize,
    is_directory: bool,
}

/// Reports each entry that violates a rule, with its number. Stops when `report` breaks. The entries must be fewer
/// than [`MAX_FOLDER_ENTRIES`].
pub fn check(entries: &[Entry], report: &mut dyn FnMut(usize, FolderError) -> ControlFlow<()>) {
    let mut names = Names { entries, seen: HashMap::with_capacity(entries.len()), above: Vec::new() };
    for (number, entry) in entries.iter().enumerate() {
        let ordered = number == 0 || entries[number - 1].path < entry.path;
        let outside = match &entry.kind {
            EntryKind::Link(target) => target.steps_up() > entry.path.depth(),
            _ => false,
        };
        let outcome = if !ordered {
            Err(FolderError::Order(entry.path.clone()))
        } else if outside {
            Err(FolderError::Outside(entry.path.clone()))
        } else {
            names.add(number)
        };
        if let Err(error) = outcome
            && report(number, error).is_break()
        {
            return;
        }
    }
}

/// Identifies a path up to folding: BLAKE3 of the key of the directory and the folded name. A key takes less
/// memory than the text, and nobody can find two texts with one key.
type Key = [u8; 16];

/// The names of all directories of a folder.
struct Names<'a> {
    entries: &'a [Entry],
    seen: HashMap<Key, Seen>,
    /// The directories of the entry before: the length of each path, and its key.
    above: Vec<(usize, Key)>,
}

impl Names<'_> {
    /// Adds an entry with the directories that it lies in.
    fn add(&mut self, entry: usize) -> Result<(), FolderError> {
        let text = self.entries[entry].path.as_str();
        self.keep_common(entry);
        let mut start = self.above.last().map_or(0, |(length, _)| length + 1);
        while let Some(slash) = text[start..].find('/') {
            let seen = Seen { entry, length: start + slash, is_directory: true };
            let key = self.insert(start, seen)?;
            self.above.push((seen.length, key));
            start += slash + 1;
        }
        self.insert(start, Seen { entry, length: text.len(), is_directory: false }).map(drop)
    }

    /// Keeps the directories that this entry shares with the one before.
    fn keep_common(&mut self, entry: usize) {
        let text = self.entries[entry].path.as_str();
        let before = entry.checked_sub(1).map_or("", |before| self.entries[before].path.as_str());
        let is_common = |length: usize| {
            text.as_bytes().get(length) == Some(&b'/') && text.get(..length) == before.get(..length)
        };
        let common = self.above.iter().take_while(|(length, _)| is_common(*length)).count();
        self.above.truncate(common);
    }

    fn insert(&mut self, start: usize, new: Seen) -> Result<Key, FolderError> {
        let path = &self.entries[new.entry].path;
        let directory = self.above.last().map_or([0; 16], |(_, key)| *key);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&directory).update(fold(&path.as_str()[start..new.length]).as_bytes());
        let mut key = Key::default();
        hasher.finalize_xof().fill(&mut key);
        let Some(old) = self.seen.get(&key).copied() else {
            self.seen.insert(key, new);
            return Ok(key);
        };
        let other = &self.entries[old.entry].path.as_str()[..old.length];
        if other != &path.as_str()[..new.length] {
            return Err(FolderError::Alike { path: path.clone(), other: other.to_owned() });
        }
        if old.is_directory && new.is_directory {
            return Ok(key);
        }
        Err(FolderError::Below { path: path.clone(), other: other.to_owned() })
    }
}
