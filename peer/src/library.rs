//! What a user shares and downloads with this peer, kept over restarts and logouts.
//!
//! One JSON file a user, replaced whole at each change, with the manifests beside it. A file that is not understood is
//! never overwritten: it is an error, so that nothing of the user's is lost.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use prost::Message as _;
use proto::{
    convert,
    domain::{FileId, FileName, GroupId, Manifest, limits::MAX_MANIFEST_FRAME, manifest::Assembler},
    durable::{self, Readers},
    pb,
    reason::Reason,
};
use serde::{Deserialize, Serialize};

use crate::{hashing::FileStamp, text};

/// The form of the file that this version writes and reads.
const VERSION: u32 = 1;

/// A file that the user shares or downloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The group.
    #[serde(with = "text")]
    pub group: GroupId,
    /// Its name there.
    #[serde(with = "text")]
    pub name: FileName,
    /// Its id there.
    #[serde(with = "hex")]
    pub file: FileId,
    /// Bytes in it.
    pub size: u64,
    /// Where it lies, or will. Absolute.
    pub path: PathBuf,
    /// Offer it whenever the user is logged in. For an unfinished download: what it has.
    pub shared: bool,
    /// The complete file as it was when last hashed.
    pub stamp: Option<FileStamp>,
    /// How it is being, or was, downloaded; absent for a file that was uploaded from here.
    pub download: Option<DownloadEntry>,
}

/// A download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DownloadEntry {
    /// Pieces in order.
    pub sequential: bool,
    /// Read the whole again at the end.
    pub verify: bool,
    /// How far it came.
    pub phase: Phase,
    /// Bytes that were verified when it last ended.
    #[serde(default)]
    pub done_bytes: u64,
}

/// How far a download came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// It runs whenever the user is logged in.
    Active,
    /// The user stopped it.
    Stopped,
    /// The file is in place.
    Complete,
    /// It could not go on.
    Failed {
        /// Of the closed set.
        reason: String,
        /// For people.
        message: String,
    },
}

impl Entry {
    /// The phase of the download, if it is one.
    pub fn phase(&self) -> Option<&Phase> {
        self.download.as_ref().map(|download| &download.phase)
    }

    /// The whole file is at `path`, as far as is known.
    pub fn is_whole(&self) -> bool {
        matches!(self.phase(), None | Some(Phase::Complete))
    }

    /// It is a download that was begun and not finished, in whatever state.
    pub fn is_unfinished(&self) -> bool {
        !self.is_whole()
    }
}

impl Phase {
    /// A failure.
    pub fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Failed { reason: reason.as_str().into(), message: message.into() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    entries: Vec<Entry>,
}

/// One user's library. Its lock is held for short file writes, never across an await.
#[derive(Debug)]
pub struct Library {
    directory: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Library {
    /// The library in a user's directory, empty at first.
    ///
    /// # Errors
    /// When it can't be read, or was written by a newer version.
    pub fn open(directory: &Path) -> io::Result<Self> {
        durable::private_dir(&directory.join("manifests"))?;
        let path = directory.join("library.json");
        let entries = match durable::read_if_there(&path)? {
            None => Vec::new(),
            Some(bytes) => {
                let bad = |why: String| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
                };
                let stored: Stored =
                    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
                if stored.version != VERSION {
                    return Err(bad(format!("version {} is not known here", stored.version)));
                }
                stored.entries
            }
        };
        Ok(Self { directory: directory.to_owned(), entries: Mutex::new(entries) })
    }

    /// All entries, in the order in which they were added.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// The entry of that name in that group.
    pub fn find(&self, group: &GroupId, name: &FileName) -> Option<Entry> {
        self.lock().iter().find(|entry| entry.group == *group && entry.name == *name).cloned()
    }

    /// The entry of that file.
    pub fn find_file(&self, file: FileId) -> Option<Entry> {
        self.lock().iter().find(|entry| entry.file == file).cloned()
    }

    /// Adds an entry with its manifest, in place of one of that name in that group.
    ///
    /// # Errors
    /// As the file system has it; the library is then as it was.
    pub fn put(&self, entry: Entry, manifest: &Manifest) -> io::Result<()> {
        let path = self.manifest_path(entry.file);
        durable::write_with(&path, Readers::Owner, |to| encode(entry.file, manifest, to))?;
        let stale = self.change(|entries| {
            let at = entries.iter().position(|old| old.group == entry.group && old.name == entry.name);
            match at {
                Some(at) => {
                    let new = entry.file;
                    let old = std::mem::replace(&mut entries[at], entry);
                    (old.file != new).then_some(old.file)
                }
                None => {
                    entries.push(entry);
                    None
                }
            }
        })?;
        stale.map_or(Ok(()), |file| durable::remove_if_there(&self.manifest_path(file)))
    }

    /// Changes the entry of a file, if there is one. True if there was.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub fn update(&self, file: FileId, change: impl FnOnce(&mut Entry)) -> io::Result<bool> {
        self.change(|entries| entries.iter_mut().find(|entry| entry.file == file).map(change).is_some())
    }

    /// Drops the entry of a file, and its manifest.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub fn remove(&self, file: FileId) -> io::Result<()> {
        self.change(|entries| entries.retain(|entry| entry.file != file))?;
        durable::remove_if_there(&self.manifest_path(file))
    }

    /// The manifest that was saved with a file's entry, checked anew.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn manifest(&self, file: FileId) -> io::Result<Manifest> {
        let saved = File::open(self.manifest_path(file))?;
        decode(&mut BufReader::new(saved))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the saved manifest is damaged"))
    }

    fn manifest_path(&self, file: FileId) -> PathBuf {
        self.directory.join("manifests").join(file.to_string())
    }

    /// On disk first, then in memory: what is believed is what was kept.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> io::Result<T> {
        let mut entries = self.lock();
        let mut changed = entries.clone();
        let result = change(&mut changed);
        if changed != *entries {
            let stored = Stored { version: VERSION, entries: changed };
            let path = self.directory.join("library.json");
            durable::write(&path, &serde_json::to_vec_pretty(&stored)?, Readers::Owner)?;
            *entries = stored.entries;
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // The list is replaced whole, so it is right whoever panicked.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a manifest as the tracker would stream it, each frame with its length, one at a time: the longest has 109 MB.
fn encode(file: FileId, manifest: &Manifest, to: &mut dyn Write) -> io::Result<()> {
    use pb::get_manifest_response::Frame;
    let start = pb::ManifestStart {
        file_id: file.as_bytes().to_vec().into(),
        header: Some(manifest.header().into()),
    };
    let frames =
        std::iter::once(Frame::Start(start)).chain(convert::manifest_runs(manifest).map(Frame::Pieces));
    for frame in frames {
        let frame = pb::GetManifestResponse { frame: Some(frame) };
        to.write_all(&frame.encode_length_delimited_to_vec())?;
    }
    Ok(())
}

fn decode(from: &mut impl BufRead) -> Option<Manifest> {
    use pb::get_manifest_response::Frame;
    let mut bytes = Vec::new();
    let mut next = || {
        let length = frame_length(from)?;
        bytes.resize(length, 0);
        from.read_exact(&mut bytes).ok()?;
        pb::GetManifestResponse::decode(&bytes[..]).ok()?.frame
    };
    let Frame::Start(start) = next()? else { return None };
    let header: proto::domain::FileHeader = start.header?.try_into().ok()?;
    let mut left = header.layout.count() as usize;
    let mut assembler = Assembler::new(header);
    while left > 0 {
        let Frame::Pieces(run) = next()? else { return None };
        let hashes = convert::piece_hashes(&run).ok()?;
        assembler.push(run.first_piece, &hashes).ok()?;
        left -= hashes.len();
    }
    assembler.finish().ok()
}

/// The number before a frame, if it can be a frame's length.
fn frame_length(from: &mut impl BufRead) -> Option<usize> {
    let (mut number, mut bytes) = ([0; 10], 0);
    loop {
        from.read_exact(number.get_mut(bytes..=bytes)?).ok()?;
        bytes += 1;
        if number[bytes - 1] < 0x80 {
            let length = prost::decode_length_delimiter(&number[..bytes]).ok()?;
            return (length <= MAX_MANIFEST_FRAME).then_some(length);
        }
    }
}

mod hex {
    use proto::domain::FileId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(file: &FileId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(file)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FileId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        FileId::try_from(&bytes[..]).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proto::domain::{PieceLayout, manifest::FileHasher, manifest::hash_piece};

    use super::*;

    fn file(byte: u8) -> FileId {
        FileId::try_from(&[byte; 16][..]).expect("a file id")
    }

    fn manifest(length: usize) -> Manifest {
        let data = vec![3u8; length];
        let layout = PieceLayout::new(length as u64).expect("a valid length");
        let mut hasher = FileHasher::new(layout);
        for piece in layout.indices() {
            let range = layout.range(piece);
            let bytes = &data[range.start as usize..range.end as usize];
            hasher.push(hash_piece(layout, piece, bytes), bytes);
        }
        hasher.finish("movie.mp4".parse().expect("a name")).expect("every piece was read")
    }

    fn entry(byte: u8, name: &str) -> Entry {
        Entry {
            group: "g1".parse().expect("a group"),
            name: name.parse().expect("a name"),
            file: file(byte),
            size: 7,
            path: "/data/movie.mp4".into(),
            shared: true,
            stamp: None,
            download: Some(DownloadEntry {
                sequential: false,
                verify: true,
                phase: Phase::Active,
                done_bytes: 0,
            }),
        }
    }

    #[test]
    fn entries_and_manifests_survive() {
        let directory = tempfile::tempdir().expect("a directory");
        let library = Library::open(directory.path()).expect("opened");
        for (length, byte, name) in [(1_500_000, 1, "a"), (0, 2, "b")] {
            library.put(entry(byte, name), &manifest(length)).expect("kept");
        }
        let failed = Phase::failed(Reason::DiskFull, "no space left");
        let update = |entry: &mut Entry| {
            entry.download =
                Some(DownloadEntry { phase: failed.clone(), ..entry.download.clone().expect("one") });
        };
        assert!(library.update(file(2), update).expect("kept"));
        assert!(!library.update(file(9), |_| unreachable!("there is none")).expect("no error"));

        let again = Library::open(directory.path()).expect("opened again");
        assert_eq!(again.entries(), library.entries());
        assert_eq!(again.manifest(file(1)).expect("there"), manifest(1_500_000));
        assert_eq!(again.manifest(file(2)).expect("there"), manifest(0));
        assert_eq!(again.find_file(file(2)).expect("there").phase(), Some(&failed));

        again.remove(file(1)).expect("removed");
        assert!(again.manifest(file(1)).is_err());
        assert_eq!(Library::open(directory.path()).expect("opened").entries().len(), 1);
    }

    #[test]
    fn one_name_of_a_group_is_one_entry() {
        let directory = tempfile::tempdir().expect("a directory");
        let library = Library::open(directory.path()).expect("opened");
        library.put(entry(1, "a"), &manifest(1)).expect("kept");
        library.put(entry(2, "a"), &manifest(1)).expect("kept");
        assert_eq!(library.entries(), [entry(2, "a")]);
        assert!(library.manifest(file(1)).is_err(), "the old manifest is gone");
    }

    #[test]
    fn what_is_not_understood_is_not_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        for text in ["{", r#"{"version": 2, "entries": []}"#, r#"{"version": 1, "entries": [], "more": 1}"#] {
            std::fs::write(directory.path().join("library.json"), text).expect("written");
            assert!(Library::open(directory.path()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_damaged_manifest_is_refused() {
        let mut good = Vec::new();
        encode(file(1), &manifest(1_500_000), &mut good).expect("memory takes it");
        assert!(decode(&mut &good[..]).is_some());
        for cut in 0..good.len() {
            assert!(decode(&mut &good[..cut]).is_none(), "cut at {cut}");
        }
        let mut flipped = good.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        assert!(decode(&mut &flipped[..]).is_none());
        // A length that no frame has takes no memory.
        for length in [&[0xff; 9][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(decode(&mut &[length, &good[..]].concat()[..]).is_none(), "{length:?}");
        }
    }
}
