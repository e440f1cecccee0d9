//! Which files of a shared folder are still what they should be.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use proto::domain::{
    Manifest, PieceHash, PieceIndex, PieceLayout,
    folder::{Folder, contents::Part},
};

use super::{FolderFiles, HashError, Progress, hash_pieces, stopped_or};
use crate::{hashing::FileStamp, storage::Chosen};

/// A file of a shared folder that is not what the folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongFile {
    /// The number of its entry.
    pub entry: usize,
    /// The stamp that it was found with; `None` if there is no such file.
    pub stamp: Option<FileStamp>,
}

/// What a check of a folder found.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The files. Those that are wrong never count as unchanged.
    pub(crate) files: FolderFiles,
    /// The files that are wrong, in the order of their entries.
    pub(crate) wrong: Vec<WrongFile>,
    /// The pieces that are bad, in order.
    pub(crate) bad: Vec<PieceIndex>,
    /// The layout of the virtual file.
    pub(crate) layout: PieceLayout,
}

/// Reads a shared folder again, and checks every piece and the SHA-1 of the whole against the manifest. Blocks.
///
/// # Errors
/// [`HashError::Mismatch`] if the folder is not that of the manifest, whatever its files are; [`HashError::Changing`];
/// [`HashError::NotFound`] or [`HashError::Io`] for the folder itself; [`HashError::Stopped`].
pub(crate) fn survey(
    root: &Path,
    manifest: &Manifest,
    folder: &Arc<Folder>,
    chosen: Chosen,
    progress: Progress<'_>,
) -> Result<Survey, HashError> {
    let (files, mut wrong) = FolderFiles::look(root, folder.clone(), chosen)?;
    let open = files.opened().map_err(|error| stopped_or(root, error))?;
    let layout = manifest.layout();
    if files.length() != layout.length() {
        return Err(HashError::Mismatch(root.to_owned()));
    }
    if files.chosen().is_some() {
        return survey_files(root, layout, files, wrong, progress);
    }
    let mut unreadable = HashSet::new();
    let mut read = |offset, into: &mut [u8]| {
        if let Err(error) = open.read(offset, into) {
            tracing::debug!(%error, path = %root.display(), "a piece of a shared folder can't be read");
            unreadable.insert(offset);
            into.fill(0);
        }
        Ok(())
    };
    let hashed = hash_pieces(layout, &mut read, progress).map_err(|error| stopped_or(root, error))?;
    let Some((sha1, pieces)) = hashed else { return Err(HashError::Changing(root.to_owned())) };
    let pairs = layout.indices().zip(pieces.iter().zip(manifest.pieces()));
    let is_bad = |(piece, (got, wanted)): &(PieceIndex, (&PieceHash, &PieceHash))| {
        got != wanted || unreadable.contains(&layout.offset(*piece))
    };
    let bad: Vec<PieceIndex> = pairs.filter(is_bad).map(|(piece, _)| piece).collect();
    if bad.is_empty() && sha1 != manifest.header().sha1 {
        return Err(HashError::Mismatch(root.to_owned()));
    }
    let known: HashSet<usize> = wrong.iter().map(|file| file.entry).collect();
    let mut suspects = Vec::new();
    for segment in bad.iter().flat_map(|piece| folder.contents().segments(layout.range(*piece))) {
        if let Part::File(entry) = segment.part
            && suspects.last() != Some(&entry)
        {
            suspects.push(entry);
        }
    }
    for entry in suspects.into_iter().filter(|entry| !known.contains(entry)) {
        match open.has_content(entry, progress) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(stopped_or(root, error)),
            Ok(false) | Err(_) => wrong.push(WrongFile { entry, stamp: files.stamp_of(entry) }),
        }
    }
    wrong.sort_unstable_by_key(|file| file.entry);
    let offered = files.pieces_without(layout, &wrong);
    if bad.iter().any(|piece| offered.contains(*piece)) {
        // Its index is not that of the manifest.
        return Err(HashError::Mismatch(root.to_owned()));
    }
    seal(root, layout, files, wrong, bad)
}

/// As [`survey`], for a folder of which only some files are here: each is compared with its hash.
fn survey_files(
    root: &Path,
    layout: PieceLayout,
    files: FolderFiles,
    mut wrong: Vec<WrongFile>,
    progress: Progress<'_>,
) -> Result<Survey, HashError> {
    let open = files.opened().map_err(|error| stopped_or(root, error))?;
    let known: HashSet<usize> = wrong.iter().map(|file| file.entry).collect();
    let mut done = 0;
    for (entry, stamp) in files.stamps().filter(|(entry, _)| !known.contains(entry)) {
        match open.has_content(entry, &|bytes| progress(done + bytes)) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(stopped_or(root, error)),
            Ok(false) | Err(_) => wrong.push(WrongFile { entry, stamp: Some(stamp) }),
        }
        done += stamp.size();
    }
    wrong.sort_unstable_by_key(|file| file.entry);
    let (right, rest) = (files.pieces_without(layout, &[]), files.pieces_without(layout, &wrong));
    let bad = right.iter(layout).filter(|piece| !rest.contains(*piece)).collect();
    seal(root, layout, files, wrong, bad)
}

/// Checks that nothing changed while the files were read.
fn seal(
    root: &Path,
    layout: PieceLayout,
    files: FolderFiles,
    wrong: Vec<WrongFile>,
    bad: Vec<PieceIndex>,
) -> Result<Survey, HashError> {
    let files = files.with_stamps(wrong.iter().map(|file| (file.entry, None)));
    let changed = files.changed().map_err(|error| stopped_or(root, error))?;
    if changed.iter().map(|file| file.entry).eq(wrong.iter().map(|file| file.entry)) {
        Ok(Survey { files, wrong, bad, layout })
    } else {
        Err(HashError::Changing(root.to_owned()))
    }
}
