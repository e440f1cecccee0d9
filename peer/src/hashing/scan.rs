//! Lists what a folder holds, before it is shared.
//!
//! Everything that can't be shared is found here, before anything is hashed: devices, links that lead out of the
//! folder, names that other systems can't have. `.minitorrentignore` files say what to leave out, with the syntax of
//! gitignore. They are not shared themselves, nor is the directory of unfinished downloads.

use std::{
    collections::HashSet,
    fs::{self, FileType, Metadata},
    io,
    ops::ControlFlow,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use ignore::{DirEntry, WalkBuilder, overrides::OverrideBuilder};
use proto::domain::{
    Blake3,
    folder::{self, Entry, EntryKind, EntryPath, FileEntry, Folder, FolderError, LinkTarget, PathError},
};

use super::{HashError, refusals::Refusals};

/// The file that says what to leave out of the directory that it lies in.
const IGNORE_FILE: &str = ".minitorrentignore";
/// The directory of unfinished downloads.
const UNFINISHED: &str = ".minitorrent";

/// What to leave out of a folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanOptions {
    /// Patterns of paths to leave out, as in a gitignore file.
    pub(crate) exclude: Vec<String>,
    /// Leave out what can't be shared, instead of refusing the folder.
    pub(crate) skip_unsupported: bool,
}

/// A folder's entries, without the hashes of its files.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) folder: Folder,
    /// The number of paths that can't be shared and were left out.
    pub(crate) skipped: usize,
}

/// Lists the folder at `root`. Each of its files has the hash of an empty file. Blocks.
///
/// # Errors
/// [`HashError::Unsupported`] if it holds what can't be shared; [`HashError::Pattern`]; [`HashError::TooLong`];
/// [`HashError::Io`].
pub(crate) fn scan(root: &Path, options: &ScanOptions) -> Result<Scanned, HashError> {
    let mut found = Found::default();
    for entry in walk(root, &options.exclude)? {
        let entry = entry.map_err(|error| {
            let text = error.to_string();
            HashError::Io(root.to_owned(), error.into_io_error().unwrap_or_else(|| io::Error::other(text)))
        })?;
        found.add(root, &entry)?;
    }
    found.note_last_directory();
    let Found { mut entries, mut refusals, .. } = found;
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let folder = loop {
        let before = refusals.count();
        let mut refused = HashSet::new();
        folder::check(&entries, &mut |number, error| {
            refused.insert(number);
            refusals.add(Path::new(entries[number].path.as_str()), error);
            ControlFlow::Continue(())
        });
        if refusals.count() > before {
            let mut number = 0..;
            entries.retain(|_| !number.next().is_some_and(|number| refused.contains(&number)));
            continue;
        }
        break Folder::new(entries);
    };
    if refusals.count() > 0 && !options.skip_unsupported {
        return Err(HashError::Unsupported(root.to_owned(), refusals));
    }
    match folder {
        Ok(folder) => Ok(Scanned { folder, skipped: refusals.count() }),
        Err(FolderError::TooLong) => Err(HashError::TooLong(root.to_owned())),
        Err(error) => Err(HashError::Io(root.to_owned(), io::Error::other(error))),
    }
}

fn walk(root: &Path, exclude: &[String]) -> Result<ignore::Walk, HashError> {
    let mut overrides = OverrideBuilder::new(root);
    for pattern in exclude {
        let bad = |why: String| HashError::Pattern(pattern.clone(), why);
        if pattern.starts_with('!') {
            return Err(bad("it starts with '!'".into()));
        }
        // In overrides, unlike in a gitignore file, '!' marks what to leave out.
        overrides.add(&format!("!{pattern}")).map_err(|error| bad(error.to_string()))?;
    }
    let overrides =
        overrides.build().map_err(|error| HashError::Pattern(exclude.join(" "), error.to_string()))?;
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).follow_links(false).overrides(overrides);
    walk.add_custom_ignore_filename(IGNORE_FILE);
    walk.filter_entry(|entry| {
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        !(entry.file_name() == IGNORE_FILE || (is_directory && entry.file_name() == UNFINISHED))
    });
    Ok(walk.build())
}

/// What was found so far.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// The directories whose name can't be shared, and those below them.
    refused: HashSet<PathBuf>,
    refusals: Refusals,
    /// The last directory that had no entry below it so far.
    last_directory: Option<EntryPath>,
}

impl Found {
    fn add(&mut self, root: &Path, entry: &DirEntry) -> Result<(), HashError> {
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let metadata = fs::symlink_metadata(entry.path())
            .map_err(|error| HashError::Io(entry.path().to_owned(), error))?;
        if path.parent().is_some_and(|parent| self.refused.contains(parent)) {
            if metadata.is_dir() {
                self.refused.insert(path.to_owned());
            }
            return Ok(());
        }
        let name = path.to_str().ok_or("the name is not UTF-8".to_owned());
        let checked = name.and_then(|text| text.parse::<EntryPath>().map_err(|error| error.to_string()));
        match checked {
            Err(rule) => {
                self.refusals.add(path, rule);
                if metadata.is_dir() {
                    self.refused.insert(path.to_owned());
                }
            }
            Ok(path) => self.add_checked(entry.path(), path, &metadata)?,
        }
        Ok(())
    }

    fn add_checked(&mut self, full: &Path, path: EntryPath, metadata: &Metadata) -> Result<(), HashError> {
        // The walk gives a directory before what it holds. A directory without entries is the last one at that
        // time, because it has none.
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.note_empty_directory(&path);
            self.last_directory = Some(path);
            return Ok(());
        }
        let kind = match () {
            () if kind.is_file() => EntryKind::File(file_entry(metadata)),
            () if kind.is_symlink() => match link_target(full)? {
                Ok(target) => EntryKind::Link(target),
                Err(rule) => {
                    self.refusals.add(Path::new(path.as_str()), rule);
                    return Ok(());
                }
            },
            () => {
                self.refusals.add(Path::new(path.as_str()), format!("it is {}", name_of(kind)));
                return Ok(());
            }
        };
        self.note_empty_directory(&path);
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    /// Adds the last directory as an empty one unless this path lies below it.
    fn note_empty_directory(&mut self, path: &EntryPath) {
        let above = |directory: &EntryPath| {
            path.as_str().strip_prefix(directory.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        if self.last_directory.as_ref().is_some_and(above) {
            self.last_directory = None;
        }
        self.note_last_directory();
    }

    /// Adds the last directory, if there is one, as an empty one.
    fn note_last_directory(&mut self) {
        if let Some(path) = self.last_directory.take() {
            self.entries.push(Entry { path, kind: EntryKind::EmptyDirectory });
        }
    }
}

fn file_entry(metadata: &Metadata) -> FileEntry {
    let seconds = i128::from(metadata.mtime()) * 1_000_000_000;
    let modified = seconds + i128::from(metadata.mtime_nsec());
    FileEntry {
        length: metadata.len(),
        executable: metadata.mode() & 0o100 != 0,
        // Times before 1678 and after 2262 become the nearest that can be written.
        modified_ns: modified.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        // Right for an empty file, which is never read. Hashing sets it for the others.
        blake3: Blake3::from(*blake3::hash(b"").as_bytes()),
    }
}

/// The target of a link, or the rule that it violates.
fn link_target(path: &Path) -> Result<Result<LinkTarget, String>, HashError> {
    let target = fs::read_link(path).map_err(|error| HashError::Io(path.to_owned(), error))?;
    let Some(text) = target.to_str() else { return Ok(Err("the target of the link is not UTF-8".into())) };
    Ok(text.parse().map_err(|error: PathError| format!("the link leads to {text:?}: {error}")))
}

fn name_of(kind: FileType) -> &'static str {
    match () {
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}
