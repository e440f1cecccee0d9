//! Which files of a shared folder are still what they should be.

use std::{collections::HashSet, io, path::Path, sync::Arc};

use proto::domain::{
    Bitfield, Manifest, PIECE_LENGTH, PieceHash, PieceIndex, PieceLayout,
    folder::{Folder, contents::Part},
};

use super::{FolderFiles, HashError, Progress, hash_pieces, stopped_or};
use crate::hashing::FileStamp;

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
    progress: Progress<'_>,
) -> Result<Survey, HashError> {
    let (files, mut wrong) = FolderFiles::look(root, folder.clone())?;
    let open = files.opened().map_err(|error| stopped_or(root, error))?;
    let layout = manifest.layout();
    if files.length() != layout.length() {
        return Err(HashError::Mismatch(root.to_owned()));
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
    let offered = pieces_without(layout, folder, &wrong);
    if bad.iter().any(|piece| offered.contains(*piece)) {
        // Its index is not that of the manifest.
        return Err(HashError::Mismatch(root.to_owned()));
    }
    let files = files.with_stamps(wrong.iter().map(|file| (file.entry, None)));
    let changed = files.changed().map_err(|error| stopped_or(root, error))?;
    if changed.iter().map(|file| file.entry).eq(wrong.iter().map(|file| file.entry)) {
        Ok(Survey { files, wrong, bad, layout })
    } else {
        Err(HashError::Changing(root.to_owned()))
    }
}

/// All pieces of a folder except those that hold a part of these files.
pub(crate) fn pieces_without(layout: PieceLayout, folder: &Folder, files: &[WrongFile]) -> Bitfield {
    let mut pieces = Bitfield::full(layout);
    for file in files {
        let range = folder.contents().range(file.entry);
        let piece = u64::from(PIECE_LENGTH);
        for index in range.start / piece..range.end.div_ceil(piece) {
            layout.index(index).into_iter().for_each(|index| {
                pieces.remove(index);
            });
        }
    }
    pieces
}
