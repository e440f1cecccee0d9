//! The files that a user shares and downloads with this peer. The library outlives restarts and logouts.
//!
//! Each user has one JSON file, which is replaced as a whole at each change, and the manifests beside it. A
//! file that can't be parsed is an error and is never overwritten, so that none of the user's data is lost.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use program::durable::{self, Readers};
use prost::Message as _;
use proto::{
    convert::{
        self,
        folder::{decode_index, encode_index},
    },
    domain::{
        FileId, FileName, GroupId, Manifest, folder::Folder, limits::MAX_MANIFEST_FRAME, manifest::Assembler,
    },
    pb,
    reason::Reason,
};
use serde::{Deserialize, Serialize};

use crate::{hashing::FileStamp, paths, text};

/// The version of the file format that this program writes and reads.
const VERSION: u32 = 1;

/// A file that the user shares or downloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The group of the file.
    #[serde(with = "text::stored")]
    pub group: GroupId,
    /// Its name in the group.
    #[serde(with = "text::stored")]
    pub name: FileName,
    /// Its id in the group.
    #[serde(with = "hex")]
    pub file: FileId,
    /// Its length in bytes.
    pub size: u64,
    /// It is a folder.
    #[serde(default)]
    pub folder: bool,
    /// Its absolute path, also if it is not there yet.
    #[serde(with = "paths::stored")]
    pub path: PathBuf,
    /// Offer it whenever the user is logged in. For an unfinished download, offer the pieces that it has.
    pub shared: bool,
    /// The stamp of the complete file, from when it was last hashed.
    pub stamp: Option<FileStamp>,
    /// Another version of it took its place in the group. It is kept, and not offered.
    #[serde(default)]
    pub outdated: bool,
    /// Patterns of the entries of a folder that this peer wants or has. Empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// How the file is or was downloaded; absent for a file that was uploaded from here.
    pub download: Option<DownloadEntry>,
}

/// A download's options and progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DownloadEntry {
    /// Download the pieces in order.
    pub sequential: bool,
    /// Read the whole file again at the end.
    pub verify: bool,
    /// The phase that it has reached.
    pub phase: Phase,
    /// The umask of the caller: the permissions that the file does not get.
    #[serde(default = "private")]
    pub umask: u32,
    /// The program that runs when it is complete or has failed, with its arguments. Empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
    /// Unfinished data was written. The download does not start from nothing without it.
    #[serde(default)]
    pub begun: bool,
    /// The number of verified bytes when they were last noted.
    #[serde(default)]
    pub done_bytes: u64,
    /// The older version that is at the path, and is replaced at the end. Its manifest is kept until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Box<Entry>>,
}

/// The umask of a download from before umasks were kept.
fn private() -> u32 {
    0o077
}

/// The phase of a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Phase {
    /// It runs whenever the user is logged in.
    Active,
    /// The user stopped it.
    Stopped,
    /// The file is in place.
    Complete,
    /// It failed.
    Failed {
        /// A reason of the closed set.
        reason: String,
        /// The message for the user.
        message: String,
    },
}

impl Entry {
    /// The phase of the download, if it is one.
    pub(crate) fn phase(&self) -> Option<&Phase> {
        self.download.as_ref().map(|download| &download.phase)
    }

    /// Whether what these patterns choose is part of what this peer wants or has.
    pub(crate) fn covers(&self, only: &[String]) -> bool {
        let own = &self.only;
        own.is_empty() || (!only.is_empty() && only.iter().all(|pattern| own.contains(pattern)))
    }

    /// The older version that the download replaces.
    pub(crate) fn replaces(&self) -> Option<&Self> {
        self.download.as_ref()?.replaces.as_deref()
    }

    /// The files whose manifests are kept for the entry.
    fn files(&self) -> Vec<FileId> {
        std::iter::once(self.file).chain(self.replaces().map(|old| old.file)).collect()
    }

    /// Returns true if the complete file is at `path`, as far as is known.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.phase(), None | Some(Phase::Complete))
    }

    /// Returns true for a download that was started and is not complete, in any phase.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.is_whole()
    }
}

impl Phase {
    /// Returns the phase of a failed download.
    pub(crate) fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Failed { reason: reason.as_str().into(), message: message.into() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<E> {
    version: u32,
    entries: Vec<E>,
}

/// One user's library. Its lock is held during short file writes, never across an await.
#[derive(Debug)]
pub(crate) struct Library {
    directory: PathBuf,
    /// A change copies the list, and of the entries those that it changes: there may be 10,000.
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Library {
    /// Opens the library in a user's directory. It is empty at first.
    ///
    /// # Errors
    /// Fails when it can't be read, or was written by a newer version.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        durable::private_dir(&directory.join("manifests"))?;
        let path = directory.join("library.json");
        let entries = match durable::read_if_there(&path)? {
            None => Vec::new(),
            Some(bytes) => {
                let bad = |why: String| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
                };
                let stored: Stored<Entry> =
                    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
                if stored.version != VERSION {
                    return Err(bad(format!(
                        "the file has version {}, which this program does not support",
                        stored.version
                    )));
                }
                stored.entries.into_iter().map(Arc::new).collect()
            }
        };
        Ok(Self { directory: directory.to_owned(), entries: Mutex::new(entries) })
    }

    /// All entries, in the order in which they were added.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries_where(|_| true)
    }

    /// Those of the entries that are meant, in the same order. Only these are copied.
    pub(crate) fn entries_where(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let entries = self.entries.lock();
        entries.iter().filter(|entry| is_meant(entry)).map(|entry| Entry::clone(entry)).collect()
    }

    /// Returns the entry with that name in that group.
    pub(crate) fn find(&self, group: &GroupId, name: &FileName) -> Option<Entry> {
        self.find_where(|entry| entry.group == *group && entry.name == *name)
    }

    /// Returns the entry of that file.
    pub(crate) fn find_file(&self, file: FileId) -> Option<Entry> {
        self.find_where(|entry| entry.file == file)
    }

    fn find_where(&self, is_meant: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.entries.lock().iter().find(|entry| is_meant(entry)).map(|entry| Entry::clone(entry))
    }

    /// Adds an entry with its manifest. It replaces the entry of the same name in the same group.
    ///
    /// # Errors
    /// Fails when the file system does. The library is then unchanged.
    pub(crate) fn put(&self, entry: Entry, manifest: &Manifest) -> io::Result<()> {
        let path = self.manifest_path(entry.file);
        durable::write_with(&path, Readers::Owner, |to| encode(entry.file, manifest, to))?;
        let stale = self.change(|entries| {
            let at = entries.iter().position(|old| old.group == entry.group && old.name == entry.name);
            match at {
                Some(at) => {
                    let new = entry.files();
                    let old = std::mem::replace(&mut entries[at], Arc::new(entry)).files();
                    old.into_iter().filter(|file| !new.contains(file)).collect()
                }
                None => {
                    entries.push(Arc::new(entry));
                    Vec::new()
                }
            }
        })?;
        stale.into_iter().try_for_each(|file| self.forget(file))
    }

    /// Puts the older version that a download was to replace in the place of the download. Returns it, if there is one.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn give_back(&self, file: FileId) -> io::Result<Option<Entry>> {
        let old = self.change(|entries| {
            let entry = of_file(entries, file)?;
            let old = entry.download.as_mut()?.replaces.take()?;
            *entry = *old;
            Some(entry.clone())
        })?;
        if old.as_ref().is_some_and(|old| old.file != file) {
            self.forget(file)?;
        }
        Ok(old)
    }

    /// Forgets the older version that a download has replaced.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn forget_replaced(&self, file: FileId) -> io::Result<()> {
        let old = self.change(|entries| of_file(entries, file)?.download.as_mut()?.replaces.take())?;
        old.filter(|old| old.file != file).map_or(Ok(()), |old| self.forget(old.file))
    }

    /// Saves the index of a folder beside its manifest.
    ///
    /// # Errors
    /// The file system's error.
    pub(crate) fn put_folder(&self, file: FileId, folder: &Folder) -> io::Result<()> {
        durable::write(&self.index_path(file), &encode_index(folder), Readers::Owner)
    }

    /// Reads the saved index of a folder with this manifest. `None` if there is none, or if it is damaged: the
    /// folder itself can be hashed again.
    pub(crate) fn folder(&self, file: FileId, manifest: &Manifest) -> Option<Folder> {
        let shape = manifest.header().folder?;
        let index = durable::read_if_there(&self.index_path(file)).ok().flatten()?;
        decode_index(&index, shape, manifest.layout().length()).ok()
    }

    /// Deletes what is saved beside the entry of a file.
    fn forget(&self, file: FileId) -> io::Result<()> {
        durable::remove_if_there(&self.index_path(file))?;
        durable::remove_if_there(&self.manifest_path(file))
    }

    fn index_path(&self, file: FileId) -> PathBuf {
        self.directory.join("manifests").join(format!("{file}.index"))
    }

    /// Changes the entry of a file, if there is one. Returns whether there was one.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn update(&self, file: FileId, change: impl FnOnce(&mut Entry)) -> io::Result<bool> {
        self.change(|entries| of_file(entries, file).map(change).is_some())
    }

    /// Changes every entry.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn update_all(&self, change: impl FnMut(&mut Entry)) -> io::Result<()> {
        self.change(|entries| entries.iter_mut().map(Arc::make_mut).for_each(change))
    }

    /// Turns all complete downloads into plain files of this peer. Returns how many there were.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn clear_finished(&self) -> io::Result<usize> {
        self.change(|entries| {
            let finished = |entry: &&mut Arc<Entry>| entry.phase() == Some(&Phase::Complete);
            entries.iter_mut().filter(finished).map(|entry| Arc::make_mut(entry).download = None).count()
        })
    }

    /// Removes the entry of a file, and its manifest.
    ///
    /// # Errors
    /// As [`Library::put`].
    pub(crate) fn remove(&self, file: FileId) -> io::Result<()> {
        let stale: Vec<FileId> = self.change(|entries| {
            let stale =
                entries.iter().filter(|entry| entry.file == file).flat_map(|entry| entry.files()).collect();
            entries.retain(|entry| entry.file != file);
            stale
        })?;
        stale.into_iter().chain([file]).try_for_each(|file| self.forget(file))
    }

    /// Reads and checks the manifest that was saved with a file's entry.
    ///
    /// # Errors
    /// Fails when it is missing or damaged.
    pub(crate) fn manifest(&self, file: FileId) -> io::Result<Manifest> {
        let saved = File::open(self.manifest_path(file))?;
        decode(&mut BufReader::new(saved))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the saved manifest is damaged"))
    }

    fn manifest_path(&self, file: FileId) -> PathBuf {
        self.directory.join("manifests").join(file.to_string())
    }

    /// Applies a change on disk first, then in memory. So the memory never has what the disk does not have.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>) -> T) -> io::Result<T> {
        let mut entries = self.entries.lock();
        let mut changed = entries.clone();
        let result = change(&mut changed);
        if changed != *entries {
            let stored = Stored { version: VERSION, entries: changed.iter().map(Arc::as_ref).collect() };
            let path = self.directory.join("library.json");
            durable::write_with(&path, Readers::Owner, |to| Ok(serde_json::to_writer_pretty(to, &stored)?))?;
            *entries = changed;
        }
        Ok(result)
    }
}

/// The entry of a file, to be changed.
fn of_file(entries: &mut [Arc<Entry>], file: FileId) -> Option<&mut Entry> {
    entries.iter_mut().find(|entry| entry.file == file).map(Arc::make_mut)
}

/// Writes a manifest as the tracker would stream it: one frame at a time, each with its length. The longest
/// manifest has 109 MB.
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

/// Reads the number before a frame. Returns `None` if it can't be a frame's length.
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

/// `#[serde(with = "hex")]`: the id of a file as text.
pub(crate) mod hex {
    use proto::domain::FileId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(file: &FileId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(file)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FileId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        FileId::try_from(&bytes[..]).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use testkit::content::{self, file_id as file};

    use super::*;

    fn manifest(length: usize) -> Manifest {
        content::manifest("movie.mp4", &vec![3; length])
    }

    fn entry(byte: u8, name: &str) -> Entry {
        Entry {
            group: "g1".parse().expect("a group"),
            name: name.parse().expect("a name"),
            file: file(byte),
            size: 7,
            folder: false,
            path: "/data/movie.mp4".into(),
            shared: true,
            stamp: None,
            outdated: false,
            only: Vec::new(),
            download: Some(DownloadEntry {
                sequential: false,
                verify: true,
                phase: Phase::Active,
                umask: 0o027,
                exec: Vec::new(),
                begun: true,
                done_bytes: 0,
                replaces: None,
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
    fn the_version_that_a_download_replaces_is_kept_until_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let library = Library::open(directory.path()).expect("opened");
        let update = |byte, old: &Entry| {
            let mut entry = entry(byte, "a");
            entry.download.as_mut().expect("a download").replaces = Some(Box::new(old.clone()));
            entry
        };
        let old = Entry { download: None, outdated: true, ..entry(1, "a") };
        library.put(old.clone(), &manifest(1)).expect("kept");
        // The download of a newer version takes the place of that of a new one.
        for byte in [2, 3] {
            library.put(update(byte, &old), &manifest(2)).expect("kept");
            assert!(library.manifest(file(1)).is_ok() && library.manifest(file(byte)).is_ok());
        }
        assert!(library.manifest(file(2)).is_err());
        let library = Library::open(directory.path()).expect("opened again");
        assert_eq!(library.give_back(file(3)).expect("written"), Some(old.clone()));
        assert_eq!(library.entries(), std::slice::from_ref(&old));
        assert!(library.manifest(file(1)).is_ok() && library.manifest(file(3)).is_err());
        assert_eq!(library.give_back(file(1)).expect("nothing to do"), None);
        // Done: the old one is forgotten.
        library.put(update(4, &old), &manifest(2)).expect("kept");
        library.forget_replaced(file(4)).expect("written");
        assert!(library.manifest(file(1)).is_err() && library.manifest(file(4)).is_ok());
        library.put(update(4, &old), &manifest(2)).expect("kept");
        library.remove(file(4)).expect("removed");
        assert_eq!(library.entries(), []);
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
        // A length that no frame can have does not allocate memory.
        for length in [&[0xff; 9][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(decode(&mut &[length, &good[..]].concat()[..]).is_none(), "{length:?}");
        }
    }
}
