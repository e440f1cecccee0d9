//! The index of a folder, as bytes of its virtual file. `folder.proto` is its contract.

use prost::Message as _;

use crate::{
    domain::{
        Blake3,
        folder::{Entry, EntryKind, FileEntry, Folder, FolderError, FolderShape, PathError},
        limits::{MAX_ENTRY_PATH, MAX_FOLDER_ENTRIES},
    },
    pb,
};

/// Maximum length of an encoded entry, in bytes. The path and the target of a link are the largest parts.
const MAX_ENTRY: u64 = 2 * MAX_ENTRY_PATH as u64 + 128;

/// The reason why bytes are not the index of a folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// An entry is cut off, too long, or not in canonical form.
    #[error("entry {0} of the folder's index is malformed")]
    Malformed(usize),
    /// A path or the target of a link is not allowed.
    #[error("entry {entry} of the folder's index: {error}")]
    Path {
        /// The number of the entry.
        entry: usize,
        /// The rule.
        error: PathError,
    },
    /// The entries are not a folder.
    #[error("the folder's index: {0}")]
    Folder(#[from] FolderError),
    /// The index does not have the shape that the manifest says.
    #[error("the folder's index does not match its manifest")]
    Shape,
}

/// The length of the index of these entries, in bytes. It does not depend on the hashes of the files.
pub fn index_length(entries: &[Entry]) -> u64 {
    let length = |entry| {
        let length = entry_message(entry).encoded_len();
        length + prost::length_delimiter_len(length)
    };
    entries.iter().map(|entry| length(entry) as u64).sum()
}

/// Appends an entry to an index.
pub fn encode_entry(entry: &Entry, index: &mut Vec<u8>) {
    index.extend_from_slice(&entry_message(entry).encode_length_delimited_to_vec());
}

/// The index of a folder.
pub fn encode_index(folder: &Folder) -> Vec<u8> {
    let mut index = Vec::new();
    folder.entries().iter().for_each(|entry| encode_entry(entry, &mut index));
    index
}

/// Decodes the index of a virtual file of `length` bytes. Memory grows with the bytes that are there.
///
/// # Errors
/// Fails if the bytes are not the canonical index of a folder, or if the folder doesn't have this shape and
/// length.
pub fn decode_index(index: &[u8], shape: FolderShape, length: u64) -> Result<Folder, IndexError> {
    if index.len() as u64 != shape.index_length {
        return Err(IndexError::Shape);
    }
    let (mut entries, mut rest) = (Vec::new(), index);
    while !rest.is_empty() {
        if entries.len() == MAX_FOLDER_ENTRIES {
            return Err(FolderError::TooMany.into());
        }
        let (entry, after) = decode_entry(rest, entries.len())?;
        entries.push(entry);
        rest = after;
    }
    entries.shrink_to_fit();
    let folder = Folder::new(entries)?;
    let matches = folder.files() == shape.files && folder.contents().length() + shape.index_length == length;
    if matches { Ok(folder) } else { Err(IndexError::Shape) }
}

/// Decodes the first entry. Returns the bytes after it, too.
fn decode_entry(bytes: &[u8], number: usize) -> Result<(Entry, &[u8]), IndexError> {
    let malformed = || IndexError::Malformed(number);
    let mut rest = bytes;
    let length = prost::encoding::decode_varint(&mut rest).map_err(|_| malformed())?;
    if length > MAX_ENTRY || length > rest.len() as u64 {
        return Err(malformed());
    }
    // The cast cannot overflow: the length is at most `rest.len()`.
    let (own, after) = rest.split_at(length as usize);
    let message = pb::FolderEntry::decode(own).map_err(|_| malformed())?;
    if message.encode_length_delimited_to_vec() != bytes[..bytes.len() - after.len()] {
        return Err(malformed());
    }
    let path_error = |error| IndexError::Path { entry: number, error };
    let kind = match message.kind.ok_or_else(malformed)? {
        pb::folder_entry::Kind::File(file) => EntryKind::File(FileEntry {
            length: file.length,
            executable: file.executable,
            modified_ns: file.modified_ns,
            blake3: Blake3::try_from(&file.blake3[..]).map_err(|_| malformed())?,
        }),
        pb::folder_entry::Kind::Link(link) => EntryKind::Link(link.target.parse().map_err(path_error)?),
        pb::folder_entry::Kind::Directory(pb::FolderDirectory {}) => EntryKind::EmptyDirectory,
    };
    Ok((Entry { path: message.path.parse().map_err(path_error)?, kind }, after))
}

/// An entry as a message.
pub fn entry_message(entry: &Entry) -> pb::FolderEntry {
    let kind = match &entry.kind {
        EntryKind::File(file) => pb::folder_entry::Kind::File(pb::FolderFile {
            length: file.length,
            executable: file.executable,
            modified_ns: file.modified_ns,
            blake3: file.blake3.as_bytes().to_vec().into(),
        }),
        EntryKind::Link(target) => {
            pb::folder_entry::Kind::Link(pb::FolderLink { target: target.as_str().to_owned() })
        }
        EntryKind::EmptyDirectory => pb::folder_entry::Kind::Directory(pb::FolderDirectory {}),
    };
    pb::FolderEntry { path: entry.path.as_str().to_owned(), kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn folder() -> Folder {
        let file = |path: &str, length, executable| Entry {
            path: path.parse().unwrap(),
            kind: EntryKind::File(FileEntry {
                length,
                executable,
                modified_ns: -1_500_000_000,
                blake3: Blake3::from([7; 32]),
            }),
        };
        let empty = Entry { path: "e".parse().unwrap(), kind: EntryKind::EmptyDirectory };
        let link = Entry { path: "f/l".parse().unwrap(), kind: EntryKind::Link("../a".parse().unwrap()) };
        Folder::new(vec![file("a", 5, false), file("b/größe", 0, true), empty, link]).unwrap()
    }

    fn shape(folder: &Folder, index: &[u8]) -> FolderShape {
        FolderShape { files: folder.files(), index_length: index.len() as u64 }
    }

    #[test]
    fn an_index_survives_its_bytes() {
        let folder = folder();
        let index = encode_index(&folder);
        assert_eq!(index.len() as u64, index_length(folder.entries()));
        let length = 5 + index.len() as u64;
        assert_eq!(decode_index(&index, shape(&folder, &index), length), Ok(folder.clone()));
        let empty = Folder::new(Vec::new()).unwrap();
        assert_eq!(decode_index(&[], shape(&empty, &[]), 0), Ok(empty));
    }

    #[test]
    fn the_length_does_not_depend_on_the_hashes() {
        let mut folder = folder();
        let before = index_length(folder.entries());
        folder.set_blake3(0, Blake3::from([0; 32]));
        assert_eq!(index_length(folder.entries()), before);
    }

    #[test]
    fn a_damaged_index_is_refused() {
        let folder = folder();
        let index = encode_index(&folder);
        let decode = |bytes: &[u8]| decode_index(bytes, shape(&folder, bytes), 5 + bytes.len() as u64);
        for cut in 0..index.len() {
            assert_ne!(decode(&index[..cut]), Ok(folder.clone()), "cut at {cut}");
        }
        // Any changed byte gives another folder, or none.
        for at in 0..index.len() {
            let mut flipped = index.clone();
            flipped[at] ^= 1;
            assert_ne!(decode(&flipped), Ok(folder.clone()), "byte {at}");
        }
        // A field that is not in the message.
        let unknown = [index.as_slice(), &[6, 0x0a, 1, b'z', 0x22, 0, 0x78]].concat();
        assert_eq!(decode(&unknown), Err(IndexError::Malformed(4)));
        for length in [&[0xff; 9][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(decode(&[length, &index].concat()).is_err());
        }
    }

    #[test]
    fn an_index_has_the_shape_of_its_manifest() {
        let folder = folder();
        let index = encode_index(&folder);
        let (good, length) = (shape(&folder, &index), 5 + index.len() as u64);
        for (shape, length) in [
            (FolderShape { files: 3, ..good }, length),
            (FolderShape { index_length: good.index_length - 1, ..good }, length),
            (good, length + 1),
            (good, length - 1),
            (good, 0),
        ] {
            assert_eq!(decode_index(&index, shape, length), Err(IndexError::Shape));
        }
    }
}
